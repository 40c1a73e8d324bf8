"""What a race cannot see: rows that are not trained on.

A race scores training losses. Once its steps have come back to rows that they had trained on, these say how closely
the rows are fitted, and of few rows the rates that fit them fastest can do worst on others. So the winner is trained
once more without a quarter of the rows, and then the rates below it, until one is worse on those rows by more than a
standard error. This changes no recommendation, it says where the training loss is no guide. The shortest race is too
short for that, and doubtful if it came back to its rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from recorders.race import CLOSE, LATE, RATIO, SHORTEST_RACE, Race, for_long, late
from trajtools.reasons import Reason
from trajtools.types import Floats

LEFT_OUT = 4  # one of so many rows
REPEATED = 0.5  # share of the scored rows that were trained on before
PARTS = 8  # of the rows left out, each with its loss, at least if there are as many rows
FEWEST_PARTS, MOST_PARTS = 4, 16  # fewer give no standard error, more cost much
POINTS = 4  # at which the losses are taken, in the part of the steps that is scored
FURTHEST = 10.0  # how far below the winner the rates are compared
GAP = 2.0  # loss on rows left out over that on the others: more than half of it is not in the score
ENTRIES = 64  # of an array that tell its rows apart
Batch = tuple[Any, ...]


class Trainings(Protocol):
    """Trainings from the same weights."""

    def train_apart(
        self, rate: float, seed: int, batches: Sequence[Batch], parts: Sequence[Batch], at: Collection[int]
    ) -> tuple[Floats, Floats]:
        """Train a copy on other batches; its losses, and those on the parts after so many steps, (points, parts).

        The parts are not trained on, and layers such as dropout are off for them. Losses are inf from divergence on.
        """
        ...


def compare(
    race: Race, trainings: Trainings, batches: Mapping[int, list[Batch]], report: Callable[[], None] = lambda: None
) -> Race:
    """Look at the winner of a race on rows left out, if the race came back to its rows and was not the shortest one.

    Parameters
    ----------
    race : Race
        As judged.
    trainings : Trainings
        Those of the race.
    batches : dict of int to list of batches
        What the race trained on, by seed.
    report : callable
        Called after each training.

    Returns
    -------
    Race
        With the losses on the rows left out, and what is doubtful about them.
    """
    if race.winner < 0 or not all(_came_back(some) for some in batches.values()):
        return race
    if race.horizon <= SHORTEST_RACE:
        text = "the loss fell to a tenth in {steps} steps on the same few rows: too few to tell which rate will overfit"
        return replace(race, doubts=(*race.doubts, Reason.of("short-race", text, steps=race.horizon)))
    divisions = {seed: divide(some) for seed, some in batches.items()}
    scored = math.ceil(LATE * race.horizon)
    at = sorted({race.horizon - scored * k // POINTS for k in range(POINTS)})
    losses: dict[int, Floats] = {}
    fits: dict[int, float] = {}
    for i in _downwards(race):
        curves, apart = [], []
        for seed, division in divisions.items():
            if division is None:
                return replace(race, warnings=(*race.warnings, _few_rows()))
            curve, on_parts = trainings.train_apart(float(race.rates[i]), seed, division.batches, division.parts, at)
            curves.append(late(curve))
            apart.append(on_parts.mean(axis=0))
            report()
        losses[i], fits[i] = np.mean(apart, axis=0), float(np.median(curves))
        best = min(losses, key=lambda j: float(losses[j].mean()))
        if np.isfinite(losses[i]).all() and _better(losses[best], losses[i]):
            break
    return _judged(race, losses, fits, best)


def _downwards(race: Race) -> Iterator[int]:
    """The winner and the rates below it."""
    for i in range(race.winner, -1, -1):
        if race.rates[i] * FURTHEST < race.rates[race.winner] * (1 - 1e-9):
            return
        if race.states[i] in ("trains", "slow"):
            yield i


def _better(one: Floats, other: Floats) -> bool:
    """Whether losses on the parts are smaller than others by more than a standard error."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float(one.mean()) < float(other.mean())
    apart = other - one
    return bool(apart.mean() > apart.std(ddof=1) / math.sqrt(len(apart)))


def _few_rows() -> Reason:
    text = "the steps come back to the same rows, which cannot be divided: the loss shows how closely they are fitted"
    return Reason("few-rows", text)


def _judged(race: Race, losses: dict[int, Floats], fits: dict[int, float], best: int) -> Race:
    """Say what is doubtful about the winner, and take a rate for long trainings that is no worse."""
    at, means = race.winner, np.full(len(race.rates), np.nan)
    means[list(losses)] = [float(part.mean()) for part in losses.values()]
    text = "on the {share:.0%} of rows left out the loss at {rate:.4g} is {loss:.4g}, on the others {fit:.4g}"
    numbers = {"share": 1 / LEFT_OUT, "rate": race.rates[at], "loss": means[at], "fit": fits[at]}
    reason = Reason.of("left-out", text, **numbers)
    race = replace(race, left_out=means, reasons=(*race.reasons, reason))
    if not np.isfinite(means[at]):
        text = "at {rate:.4g} training diverges without {share:.0%} of the rows"
        return replace(race, doubts=(*race.doubts, Reason.of("near-collapse", text, **numbers)))
    doubts, long = race.doubts, race.long
    error = float(losses[at].std(ddof=1)) / math.sqrt(len(losses[at]))
    gap = means[at] - fits[at]
    if gap > max((GAP - 1) * fits[at], error):
        text = (
            "the loss on rows left out is {ratio:.2g} times that on the others: with so few rows the training loss is "
            "no guide; compare rates on test data"
        )
        doubts = (*doubts, Reason.of("overfits", text, ratio=means[at] / fits[at]))
    below = next((i for i in losses if i < at), None)
    text = "on rows left out {rate:.4g} is {much} ({loss:.4g} instead of {other:.4g})"
    numbers = {"rate": race.rates[best], "loss": means[best], "other": means[at]}
    is_far = race.rates[at] / race.rates[best] > RATIO * (1 + 1e-6)
    if is_far and means[at] > CLOSE * means[best] and _better(losses[best], losses[at]):
        smaller = Reason.of("smaller-on-left-out", text, much="better", **numbers)
        doubts, long = (*doubts, smaller), min(long, best)
    else:
        if best != at:
            no_worse = Reason.of("no-worse-on-left-out", text, much="no worse", **numbers)
            race = replace(race, reasons=(*race.reasons, no_worse))
        # The training loss is a guide where the loss on rows left out is shown to be less than twice that.
        may_overfit = means[at] + 2 * error > GAP * fits[at]
        if (
            below is not None
            and may_overfit
            and not _better(losses[at], losses[below])
            and fits[below] > CLOSE * fits[at]
        ):
            text = (
                "so few rows cannot confirm the fastest: on those left out {rate:.4g} is as good, though it fits more "
                "slowly"
            )
            doubts = (*doubts, Reason.of("unconfirmed", text, rate=race.rates[below]))
    if long != race.long:
        reasons = (
            *(r for r in race.reasons if r.code != "long-training"),
            for_long(race.horizon, float(race.rates[long])),
        )
        race = replace(race, reasons=reasons)
    return replace(race, long=long, doubts=doubts)


# -- rows


@dataclass(frozen=True)
class Division:
    """Rows that are trained on and rows that are left out.

    Attributes
    ----------
    batches : list of batches
        Of the size of the originals; rows that are left out are replaced by others of the same batch.
    parts : list of batches
        Rows left out, each in one part.
    """

    batches: list[Batch]
    parts: list[Batch]


def divide(batches: list[Batch]) -> Division | None:
    """Leave out one of every four rows, or of every four batches without rows; None where they are too few."""
    names = _names(batches)
    first: dict[Hashable, tuple[int, int]] = {}
    for b, rows in enumerate(names):
        for r, name in enumerate(rows):
            first.setdefault(name, (b, r))
    known, rng = list(first), np.random.default_rng(0)
    apart = [known[i + int(rng.integers(LEFT_OUT))] for i in range(0, len(known) - LEFT_OUT + 1, LEFT_OUT)]
    parts = list(_parts(batches, [first[name] for name in apart]))
    if len(parts) < FEWEST_PARTS:
        return None
    removed, trained = set(apart), []
    for batch, rows in zip(batches, names, strict=True):
        kept = [r for r, name in enumerate(rows) if name not in removed]
        if kept:
            trained.append(batch if len(kept) == len(rows) else _take(batch, kept))
    missing = len(batches) - len(trained)  # all of their rows are left out
    return Division(trained + [trained[i % len(trained)] for i in range(missing)], parts)


def _came_back(batches: list[Batch]) -> bool:
    """Whether most rows that are scored had been trained on before."""
    names = _names(batches)
    scored = len(batches) - math.ceil(LATE * len(batches))
    before = {name for batch in names[:scored] for name in batch}
    rows = [name in before for batch in names[scored:] for name in batch]
    return sum(rows) >= REPEATED * len(rows)


def _parts(batches: list[Batch], places: list[tuple[int, int]]) -> Iterator[Batch]:
    """Batches of the rows at some places (batch, row), from one batch each."""
    by_batch: dict[int, list[int]] = {}
    for b, r in places:
        by_batch.setdefault(b, []).append(r)
    for b, rows in list(by_batch.items())[:MOST_PARTS]:
        for piece in np.array_split(rows, min(math.ceil(PARTS / len(by_batch)), len(rows))):
            yield batches[b] if _rows_of(batches[b]) is None else _take(batches[b], piece.tolist())


def _names(batches: list[Batch]) -> list[list[Hashable]]:
    """What tells the rows of each batch apart; one name for a batch without rows."""
    known: dict[int, list[Hashable]] = {}
    for batch in batches:
        if id(batch) not in known:
            n = _rows_of(batch)
            known[id(batch)] = [id(batch)] if n is None else _fingerprints(batch, n)
    return [known[id(batch)] for batch in batches]


def _rows_of(batch: Batch) -> int | None:
    """Length of the first dimension of all arrays; None where they differ, or where there is anything else."""
    leaves = list(_leaves(batch))
    if not leaves or any(not getattr(leaf, "shape", ()) for leaf in leaves):
        return None
    sizes = {int(leaf.shape[0]) for leaf in leaves}
    return sizes.pop() if len(sizes) == 1 else None


def _fingerprints(batch: Batch, n: int) -> list[Hashable]:
    """Some entries of each row, as bytes."""
    columns = []
    for leaf in _leaves(batch):
        flat = leaf.reshape(n, -1)
        some = flat[:, :: math.ceil(flat.shape[1] / ENTRIES) or 1]
        columns.append(np.asarray(some.cpu().double() if hasattr(some, "cpu") else some))  # numpy knows no bfloat16
    return [tuple(column[r].tobytes() for column in columns) for r in range(n)]


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        tree = tuple(tree.values())
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from _leaves(part)
    elif tree is not None:
        yield tree


def _take(tree: Any, rows: Sequence[int]) -> Any:
    """Some rows of a batch, repeated up to its size, so that compiled steps see no other shape."""
    if isinstance(tree, Mapping):
        return {name: _take(part, rows) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [_take(part, rows) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return None if tree is None else tree[np.resize(rows, tree.shape[0])]
