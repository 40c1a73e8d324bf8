"""Collect the content of a report: each analysis that applies to a run, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DamagedError, TrajtoolsError
from trajtools.wording import counted

if TYPE_CHECKING:
    from trajtools.distances.pairwise import Distances
    from trajtools.exponents.divergence import Divergence
    from trajtools.exponents.exponent import Exponent
    from trajtools.exponents.windows import Windows
    from trajtools.recurrences.measures import Recurrence
    from trajtools.stability.orbital import OrbitalStability
    from trajtools.sweeps.sweep import SweepPoint
    from trajtools.training.curvature import Curvature
    from trajtools.types import Floats

    Task = tuple[str, int, bool, SweepPoint | None]
    """Path, rng, whether the page has a section about the run, and what a sweep has of it."""

STATES = 1500  # most states of a trajectory that are compared with each other; longer ones are thinned
METRICS = ("loss", "test_loss", "accuracy", "test_accuracy")  # shown first
ENTRIES = 4  # of a metric of several numbers that are shown


@dataclass(frozen=True, eq=False)
class Analysis:
    """How nearby trainings of one run diverge: what tables and reports are made of.

    Attributes
    ----------
    file, run : str
        Where it was recorded.
    growth : Divergence
        The curves.
    exponent : Exponent
        By the chosen procedure.
    published : Exponent or None
        By a published procedure, for comparison.
    facts : dict
        What is worth saying about the run: number of states, members and parameters, dtype, status, ...
    hparams : dict
        Hyper-parameters, as recorded.
    windows : Windows or None
        The same, window by window of the training.
    """

    file: str
    run: str
    growth: Divergence
    exponent: Exponent
    published: Exponent | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    windows: Windows | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the analysis without the curves, as JSON can hold it."""
        plain = {"file": self.file, "run": self.run, "hparams": self.hparams, "facts": self.facts}
        plain["exponent"] = self.exponent.to_dict()
        if self.published is not None:
            plain["published"] = self.published.to_dict()
        if self.windows is not None:
            plain["windows"] = self.windows.to_dict()
        return plain


@dataclass(frozen=True, eq=False)
class RunReport:
    """One run as the report shows it.

    Attributes
    ----------
    run : str
        Its name.
    facts : dict of str to str
        About the recording.
    analysis : Analysis or None
        Of its twins.
    stability : OrbitalStability or None
        Of its twins.
    distances : Distances or None
        Between the states of its first member, of at most `STATES` of them.
    recurrence : Recurrence or None
        Of these distances.
    curvature : Curvature or None
        From recorded probes.
    metrics : dict of str to (ndarray, ndarray)
        Name -> steps, and the mean over the references.
    left_out : tuple of str
        What does not apply, and why.
    detailed : bool
        Whether the page has a section about it; else it stands in the tables only, with its exponent.
    lost_at : int or None
        First step from which its states are NaN or infinite to the end.
    """

    run: str
    facts: dict[str, str]
    analysis: Analysis | None = None
    stability: OrbitalStability | None = None
    distances: Distances | None = None
    recurrence: Recurrence | None = None
    curvature: Curvature | None = None
    metrics: dict[str, tuple[Any, Floats]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    detailed: bool = True
    lost_at: int | None = None


def collect_file(task: Task) -> RunReport | None:
    """Do `collect` in any process, or read what the tables show; None without any states."""
    from trajtools.store import open

    path, rng, detailed, point = task
    exponent = None if point is None else point.exponent
    with open(path) as run:
        if not run.n_states:
            return None
        if detailed:
            return collect(run, rng=rng, exponent=exponent)
        analysis = None
        if any(member.reference >= 0 for member in run.members):
            with suppress(TrajtoolsError):  # the report of the run alone says why
                analysis = _analyse_twins(run, rng, exponent)
        return RunReport(run.name, {}, analysis, detailed=False, lost_at=_lost_at(run))


def _lost_at(run: Any) -> int | None:
    try:
        end = run.not_finite()
    except DamagedError:  # the analyses name the damage
        return None
    return None if end is None else int(end["step"])


def is_known(task: Task) -> bool:
    """Whether a sweep has all that the page shows of a run, so that its file need not be opened."""
    _, _, detailed, point = task
    return not detailed and point is not None and (point.exponent is None or point.exponent.curve is not None)


def outline(task: Task) -> RunReport:
    """What the tables show of a run, from a sweep."""
    path, _, _, point = task
    assert point is not None
    one, analysis = point.exponent, None
    if one is not None and one.curve is not None:
        analysis = Analysis(path, point.run, one.curve, one, hparams=point.hparams)
    lost_at = int(point.lost_at) if np.isfinite(point.lost_at) else None
    return RunReport(point.run, {}, analysis, detailed=False, lost_at=lost_at)


def collect(run: Any, *, rng: int = 0, exponent: Exponent | None = None) -> RunReport:
    """Run every analysis that applies to a run of an open file; `rng` seeds the resampling.

    `exponent`: that of its twins, where it is known.
    """
    from trajtools.stability.orbital import orbital_stability
    from trajtools.training.curvature import curvature

    left_out: list[str] = []

    def attempt(name: str, analyse: Callable[[], Any]) -> Any:
        try:
            return analyse()
        except TrajtoolsError as problem:
            left_out.append(f"{name}: {problem}")
            return None

    weights = run.stored == "weights"
    analysis = stability = states = probed = None
    if any(member.reference >= 0 for member in run.members):
        analysis = attempt("exponent of the twins", lambda: _analyse_twins(run, rng, exponent))
        if weights:
            stability = attempt("orbital stability", lambda: orbital_stability(run, rng=rng))
    else:
        left_out.append("no twins were recorded: how fast nearby trainings diverge is unknown")
    if weights:
        states = attempt("recurrence", lambda: _compare_states(run))
    else:
        left_out.append(f"the run stores {run.stored} and no weights: no recurrence, no distances")
    if any("h_max" in name for name in run.metrics):
        probed = attempt("curvature", lambda: curvature(run, rng=rng))
    distances, recurrence = states or (None, None)
    return RunReport(
        run.name,
        _facts(run),
        analysis,
        stability,
        distances,
        recurrence,
        probed,
        _metrics(run),
        tuple(left_out),
        lost_at=_lost_at(run),
    )


def _analyse_twins(run: Any, rng: int, exponent: Exponent | None) -> Analysis:
    from trajtools.exponents.twins import twins

    if exponent is None or exponent.curve is None:
        growth: Divergence = twins(run)
        exponent = growth.fit(rng=rng)
    else:
        growth = exponent.curve
    return Analysis(str(run.path), run.name, growth, exponent, hparams=dict(run.hparams))


def _compare_states(run: Any) -> tuple[Distances, Recurrence]:
    """Distances and recurrences of the first member; a long trajectory is thinned."""
    from trajtools.distances.pairwise import pairwise
    from trajtools.recurrences.recurrence import recurrence

    x = run.trajectory()
    every = -(-len(x) // STATES)
    distances = pairwise(x[::every] if every > 1 else x, metric="l2")
    return distances, recurrence(distances)


def _metrics(run: Any) -> dict[str, tuple[Any, Floats]]:
    """Every metric along training, mean over the references; loss and accuracy first."""
    out = {}
    references = [k for k, member in enumerate(run.members) if member.reference < 0]
    step, by_member = run.step, run.member_metrics
    for name in sorted(run.metrics, key=lambda name: (name.split(".")[-1] not in METRICS, name)):
        values = run.metrics[name]
        values = values[:, references] if name in by_member else values[:, None]
        values = values.reshape(len(values), values.shape[1], -1)  # states, references, entries
        for entry in range(min(values.shape[2], ENTRIES)):
            series = values[:, :, entry]
            known = np.isfinite(series).any(axis=1)
            if known.any():
                label = name if values.shape[2] == 1 else f"{name} [{entry}]"
                out[label] = (step[known], np.array([row[np.isfinite(row)].mean() for row in series[known]]))
    return out


def _facts(run: Any) -> dict[str, str]:
    references = sum(member.reference < 0 for member in run.members)
    steps = run.step
    versions = run.provenance.get("versions", {}) if isinstance(run.provenance, dict) else {}
    software = versions.items() if isinstance(versions, dict) else ()
    planted = run.plantings["step"]
    end = _lost_at(run)
    lost = f"; NaN or infinite from step {end} on" if end is not None else ""
    return {
        "status": str(run.status),
        "states": f"{run.n_states}, steps {steps[0]} to {steps[-1]}{lost}" if len(steps) else "none",
        "networks": f"{references}, and {counted(run.n_members - references, 'perturbed copy', 'perturbed copies')}"
        + (f", planted {len(planted)} times in all" if len(planted) > run.n_members - references else ""),
        "weights": f"{run.n_parameters}, {run.logical_dtype}",
        "layers": ", ".join(f"{p.name} {'x'.join(map(str, p.shape))}" for p in run.parameters[:12]),
        "stored": str(run.stored),
        "settings": ", ".join(f"{name} = {value}" for name, value in run.hparams.items()),
        "software": ", ".join(f"{name} {version}" for name, version in software),
    }


def name_apart(reports: Sequence[tuple[Path, RunReport]]) -> list[RunReport]:
    """Rename runs so that no two have the same name: by their file where a name stands in several."""
    names = [report.run for _, report in reports]
    for label in (lambda path: path.stem, str):
        if len(set(names)) == len(names):
            break
        alone = len({report.run for _, report in reports}) == 1
        names = [label(path) if alone else f"{label(path)}: {report.run}" for path, report in reports]
    return [replace(report, run=name) for name, (_, report) in zip(names, reports, strict=True)]
