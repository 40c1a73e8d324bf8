"""Everything that applies to a run, measured for its report; what does not apply is left out with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.errors import TrajtoolsError
from trajtools.recurrences.result import Recurrence
from trajtools.report.answers import Answer
from trajtools.results.curves import Floats
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import Exponent
from trajtools.stability.orbital import OrbitalStability
from trajtools.training.curvature import Curvature

STATES = 1500  # of a trajectory that are compared with each other; longer ones are thinned, and the page says so
CELLS = 90  # of a matrix on the page, a side


@dataclass(frozen=True, eq=False)
class Gathered:
    """One run as the report shows it.

    Attributes
    ----------
    run : str
        Its name.
    facts : dict
        Name -> words about the recording.
    answer : Answer or None
        Exponent of its twins.
    stability : OrbitalStability or None
        Of its twins.
    recurrence : Recurrence or None
        Of its first member.
    distances, recurrent : ndarray of float64, shape (n, n), or None
        Mean distance and share of recurrences in cells of the matrix.
    cell_time : ndarray of float64, shape (n,)
        Middle of the cells.
    curvature : Curvature or None
        From recorded probes.
    series : dict of str to (ndarray, ndarray)
        Metric -> steps and the mean over the references.
    left_out : tuple of str
        What does not apply, and why.
    """

    run: str
    facts: dict[str, str]
    answer: Answer | None = None
    stability: OrbitalStability | None = None
    recurrence: Recurrence | None = None
    distances: Floats | None = None
    recurrent: Floats | None = None
    cell_time: Floats = field(default_factory=lambda: np.empty(0))
    curvature: Curvature | None = None
    series: dict[str, tuple[Any, Floats]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def gather(run: Any, *, rng: int = 0) -> Gathered:
    """Measure everything that applies to a run.

    Parameters
    ----------
    run : Run
        Of an open file.
    rng : int
        Seed of the resampling.

    Returns
    -------
    Gathered
        For the page.
    """
    from trajtools.stability.orbital import orbital_stability
    from trajtools.training.curvature import curvature

    words: list[str] = []
    twins = any(member.reference >= 0 for member in run.members)
    answer = stability = None
    if twins:
        answer = _tried("the exponent of the twins", words, lambda: _answer(run, rng))
        if run.stored == "weights":
            stability = _tried("orbital stability", words, lambda: orbital_stability(run, rng=rng))
    else:
        words.append("no twins were recorded: how fast nearby trainings part is not known")
    matrices = _tried("recurrence", words, lambda: _matrices(run)) if run.stored == "weights" else None
    if run.stored != "weights":
        words.append(f"the run keeps {run.stored} and no weights: no recurrence, no distances")
    probed = any("h_max" in name for name in run.metrics)
    curved = _tried("curvature", words, lambda: curvature(run, rng=rng)) if probed else None
    recurrence, distances, recurrent, time = matrices or (None, None, None, np.empty(0))
    return Gathered(
        run.name,
        _facts(run),
        answer,
        stability,
        recurrence,
        distances,
        recurrent,
        time,
        curved,
        _series(run),
        tuple(words),
    )


def told_apart(found: Sequence[tuple[Path, Gathered]]) -> list[Gathered]:
    """Name runs so that no two have the same name.

    Parameters
    ----------
    found : sequence of (Path, Gathered)
        Files and their runs.

    Returns
    -------
    list of Gathered
        Under the name of the run; where that stands in several files, under that of the file as well.
    """
    names = [one.run for _, one in found]
    for label in (lambda path: path.stem, str):
        if len(set(names)) == len(names):
            break
        alone = len({one.run for _, one in found}) == 1
        names = [label(path) if alone else f"{label(path)}: {one.run}" for path, one in found]
    return [replace(one, run=name) for name, (_, one) in zip(names, found, strict=True)]


def _tried(what: str, words: list[str], look: Callable[[], Any]) -> Any:
    try:
        return look()
    except TrajtoolsError as problem:
        words.append(f"{what}: {problem}")
        return None


def _answer(run: Any, rng: int) -> Answer:
    from trajtools.estimators.twins import twins

    growth: Divergence = twins(run, metric=run.distance_metric or "l1")
    exponent: Exponent = growth.fit(rng=rng)
    return Answer(str(run.path), run.name, growth, exponent, hparams=dict(run.hparams))


def _matrices(run: Any) -> tuple[Recurrence, Floats, Floats, Floats]:
    """Recurrence of the first member, and its matrices in cells; long trajectories are thinned."""
    from trajtools.distances.pairwise import pairwise
    from trajtools.recurrences.recurrence import recurrence

    x = run.trajectory()
    every = -(-len(x) // STATES)
    found = pairwise(x[::every] if every > 1 else x, metric="l2")
    quantified = recurrence(found)
    cells = min(CELLS, len(found))
    edges = np.linspace(0, len(found), cells + 1).astype(int)
    distances, recurrent = np.full((cells, cells), np.nan), np.full((cells, cells), np.nan)
    for row in range(cells):
        block = found.read(int(edges[row]), int(edges[row + 1]))
        known = np.isfinite(block)
        near = known & (block <= quantified.threshold)
        columns = edges[:-1]
        total = np.add.reduceat(known.sum(axis=0), columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            distances[row] = np.add.reduceat(np.where(known, block, 0.0).sum(axis=0), columns) / total
            recurrent[row] = np.add.reduceat(near.sum(axis=0), columns) / total
    time = found.time[(edges[:-1] + edges[1:] - 1) // 2]
    return quantified, distances, recurrent, time


def _series(run: Any) -> dict[str, tuple[Any, Floats]]:
    """Loss, accuracy and learning rate along training, mean over the references."""
    out = {}
    references = [k for k, member in enumerate(run.members) if member.reference < 0]
    for name in run.metrics:
        if name.split(".")[-1] not in ("loss", "test_loss", "accuracy", "learning_rate", "lr"):
            continue
        values = run.metrics[name]
        if values.ndim == 2 and values.shape[1] == run.n_members:
            values = values[:, references]
        values = values.reshape(len(values), -1)
        known = np.isfinite(values).any(axis=1)
        if known.any():
            mean = np.array([row[np.isfinite(row)].mean() for row in values[known]])
            out[name] = (run.step[known], mean)
    return out


def _facts(run: Any) -> dict[str, str]:
    references = sum(member.reference < 0 for member in run.members)
    steps = run.step
    software = run.provenance.get("versions", {}) if isinstance(run.provenance, dict) else {}
    named = {
        "status": run.status,
        "states": f"{run.n_states}, steps {steps[0]} to {steps[-1]}" if len(steps) else "none",
        "networks": f"{references} and {run.n_members - references} perturbed copies",
        "weights": f"{run.n_parameters}, {run.logical_dtype}",
        "layers": ", ".join(f"{p.name} {'x'.join(map(str, p.shape))}" for p in run.parameters[:12]),
        "kept": run.stored,
        "settings": ", ".join(f"{key} = {value}" for key, value in run.hparams.items()),
        "software": ", ".join(f"{key} {value}" for key, value in software.items())
        if isinstance(software, dict)
        else "",
    }
    return {name: str(words) for name, words in named.items()}
