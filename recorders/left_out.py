"""What a race cannot see: rows that are not trained on.

A race scores training losses. Once its steps have come back to rows that they had trained on, these say how closely
the rows are fitted, and of few rows the rates that fit them fastest do worst on others. So the best rates are trained
once more without a quarter of the rows, and their losses on those rows are compared part by part: from the winner of
the race downwards, as long as a smaller rate is no worse than the best by more than a standard error. The smallest of
them is taken, as Breiman et al. (1984) take the simplest model within a standard error of the best.

In a race of twenty steps smaller rates have not arrived anywhere; it takes the smallest that has, and is called
doubtful for being short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from recorders.race import LATE, RATIO, SHORTEST_RACE, Race, careful, for_long, late
from trajtools.reasons import Reason
from trajtools.types import Floats

LEFT_OUT = 4  # one of so many rows
SEEN = 0.5  # share of the scored rows that were trained on before
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
    """Compare the winner of a race with smaller rates on rows left out, if the race came back to its rows.

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
        With the rate that does best on the rows left out, its losses, and what is doubtful about them.
    """
    if race.winner < 0 or race.horizon <= SHORTEST_RACE or not all(_came_back(some) for some in batches.values()):
        return race
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
        if np.isfinite(losses[i]).all() and not _as_good(losses[i], losses[best]):
            break
    good = [i for i in losses if _as_good(losses[i], losses[best])]
    return _judged(race, losses, fits, good) if good else race


def _downwards(race: Race) -> Iterator[int]:
    """The winner and the rates below it."""
    for i in range(race.winner, -1, -1):
        if race.rates[i] * FURTHEST < race.rates[race.winner] * (1 - 1e-9):
            return
        if race.states[i] in ("trains", "slow"):
            yield i


def _as_good(losses: Floats, best: Floats) -> bool:
    """Whether losses on the parts are no more than a standard error above the best ones."""
    if not (np.isfinite(losses).all() and np.isfinite(best).all()):
        return False
    apart = losses - best
    return bool(apart.mean() <= apart.std(ddof=1) / math.sqrt(len(apart)))


def _few_rows() -> Reason:
    text = "the steps come back to the same rows, which cannot be divided: the loss shows how closely they are fitted"
    return Reason("few-rows", text)


def _judged(race: Race, losses: dict[int, Floats], fits: dict[int, float], good: list[int]) -> Race:
    """Take the smallest of the good rates, and say what is doubtful about it."""
    chosen, share = good[-1], 1 / LEFT_OUT
    means = np.full(len(race.rates), np.nan)
    means[list(losses)] = [float(part.mean()) for part in losses.values()]
    numbers = {"rate": race.rates[chosen], "share": share, "loss": means[chosen], "fit": fits[chosen]}
    text = "on {share:.0%} of the rows, left out, {rate:.4g} has the loss {loss:.4g} ({fit:.4g} on the others); "
    doubts = race.doubts
    if chosen == race.winner:
        text += "smaller rates are worse there"
        reason = Reason.of("best-on-left-out", text, **numbers)
    else:
        text += "{fastest:.4g}, which fits faster, is no better there by more than a standard error ({other:.4g})"
        numbers |= {"fastest": race.rates[race.winner], "other": means[race.winner]}
        reason = Reason.of("smaller-on-left-out", text, **numbers)
        doubts = tuple(doubt for doubt in doubts if doubt.code not in ("near-collapse", "unsteady"))
        if chosen == 0:
            doubts = (*doubts, Reason("end-of-range", "that is the smallest rate of the range: try smaller ones"))
    if race.rates[good[0]] / race.rates[chosen] > RATIO**2 * (1 + 1e-6):
        text = "on the rows left out, rates a factor of {factor:.2g} apart are as good"
        doubts = (*doubts, Reason.of("close-call", text, factor=race.rates[good[0]] / race.rates[chosen]))
    error = float(losses[chosen].std(ddof=1)) / math.sqrt(len(losses[chosen]))
    gap = means[chosen] - fits[chosen]
    if gap > (GAP - 1) * fits[chosen] and gap > 2 * error:
        text = (
            "the loss on rows left out is {ratio:.2g} times that on the others: with so few rows the training loss is "
            "no guide; compare rates on test data"
        )
        doubts = (*doubts, Reason.of("overfits", text, ratio=means[chosen] / fits[chosen]))
    if chosen == race.winner:
        return replace(race, left_out=means, reasons=(*race.reasons, reason), doubts=doubts)
    long = careful(race.rates, race.states, chosen)
    reasons = (*(r for r in race.reasons if r.code not in ("long-training", "equally-good")), reason)
    if long != chosen:
        reasons = (*reasons, for_long(race.horizon, float(race.rates[long])))
    return replace(race, winner=chosen, long=long, left_out=means, reasons=reasons, doubts=doubts)


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
    return sum(rows) >= SEEN * len(rows)


def _parts(batches: list[Batch], places: list[tuple[int, int]]) -> Iterator[Batch]:
    """Batches of the rows at some places (batch, row), from one batch each."""
    by_batch: dict[int, list[int]] = {}
    for b, r in places:
        by_batch.setdefault(b, []).append(r)
    for b, rows in list(by_batch.items())[:MOST_PARTS]:
        for piece in np.array_split(rows, min(math.ceil(PARTS / len(by_batch)), len(rows))):
            yield batches[b] if _rows_of(batches[b]) is None else _take(batches[b], piece)


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
