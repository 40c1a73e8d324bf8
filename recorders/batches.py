"""Data that come in pieces: a loader or a list of batches, averaged as if they were one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trajtools.errors import DataError, UnknownNameError


class Batches:
    """Many batches that stand for one data set, for data that do not go through the model at once.

    Parameters
    ----------
    source : iterable of batches
        Gone through again for every Hessian-vector product, so a generator will not do: a `DataLoader` or a list. Each
        batch is a tuple ``(x, *targets)``, the arguments of a probe behind the loss function.
    reduction : {"mean", "sum"}
        What the loss function does over the examples of a batch. "mean": batches are averaged, each with the weight of
        its number of examples; "sum": they are added.

    Raises
    ------
    UnknownNameError
        If the reduction is neither.
    DataError
        If the source can be gone through once only.

    Notes
    -----
    A loader that shuffles or augments draws random numbers. They are drawn from the same state for every product, and
    the generators stand afterwards where they stood before. A generator of the loader's own (``generator=``) is not
    seen: give such a loader's batches as a list.
    """

    def __init__(self, source: Iterable[Any], *, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise UnknownNameError(f'reduction={reduction!r}: it must be "mean" or "sum", as the loss function does')
        if hasattr(source, "__next__"):  # asking iter() would draw from the generators of a loader
            raise DataError(
                f"Batches of a {type(source).__name__}: it can be gone through once, and every Hessian-vector product "
                "needs all of it. Give the loader itself, or a list of batches"
            )
        self.source = source
        self.reduction = reduction

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        empty = True
        for batch in self.source:
            empty = False
            yield tuple(batch) if isinstance(batch, list | tuple) else (batch,)
        if empty:
            raise DataError("the batches are empty: nothing to measure the curvature of")


def pieces(batch: tuple[Any, ...]) -> tuple[Iterable[tuple[Any, ...]], str]:
    """Read the data arguments of a probe: one batch, or `Batches`."""
    if len(batch) == 1 and isinstance(batch[0], Batches):
        return batch[0], batch[0].reduction
    if any(isinstance(part, Batches) for part in batch):
        raise DataError("Batches hold inputs and targets: give them alone, behind the loss function")
    if not batch:
        raise DataError("no data: give the batch behind the loss function (x, *targets), or Batches(loader)")
    return (batch,), "one"


def examples(batch: Any) -> int:
    """Count the examples of a batch."""
    shape = getattr(batch, "shape", None)
    if shape is not None:
        if len(shape):
            return int(shape[0])
    elif isinstance(batch, dict | list | tuple):
        for part in batch.values() if isinstance(batch, dict) else batch:
            try:
                return examples(part)
            except DataError:
                continue
    raise DataError(
        f"a batch {type(batch).__name__} tells no number of examples: its first array needs a leading axis over them, "
        'or use Batches(..., reduction="sum") with a loss function that sums'
    )
