"""Pairs of a reference and a perturbed trajectory, from whatever a user has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trajtools.distances.equal_times import as_states
from trajtools.distances.tiles import stored_format
from trajtools.errors import DataError
from trajtools.stability.following import Pair
from trajtools.stability.rows import Rows
from trajtools.trajectory import Trajectory

NARROW = ("bfloat16", "float16", "float32")
Family = tuple[Any, list[Any], str | None]  # a reference, its copies, and the format they were stored in


def gather(reference: Any, perturbed: Any, *, start: int | Sequence[int] | None, dt: float | None) -> list[Pair]:
    """Bring what a caller gave into pairs."""
    if perturbed is None:
        families = _families(reference)
    elif _is_run(perturbed):
        families = _restarted(reference, perturbed)
    else:
        families = [(_alone(reference), _several(perturbed), None)]
    count = sum(len(copies) for _, copies, _ in families)
    offsets = _offsets(start, count)
    pairs: list[Pair] = []
    groups: dict[int, int] = {}
    for original, copies, dtype in families:
        group = groups.setdefault(id(original), len(groups))
        first = _Source(original, "the reference", None, dtype)
        for copy in copies:
            second = _Source(copy, "a perturbed trajectory", offsets[len(pairs)], dtype)
            pairs.append(_pair(first, second, group, dt))
    return pairs


class _Source:
    """States with their steps."""

    def __init__(self, x: Any, name: str, start: int | None, dtype: str | None) -> None:
        states = as_states(x, name)
        self.rows = Rows(states)
        self.step = np.asarray(getattr(states, "step", np.arange(len(states))), dtype=np.int64)
        if start is not None and len(self.step):
            self.step = self.step - self.step[0] + start
        self.dt = float(getattr(states, "dt", 1.0))
        self.time_unit = str(getattr(states, "time_unit", "step"))
        known = stored_format(states) if isinstance(states, Trajectory) else str(states.dtype)
        self.dtype = known if dtype is None else dtype


def _pair(first: _Source, second: _Source, group: int, dt: float | None) -> Pair:
    if dt is None and (first.dt, first.time_unit) != (second.dt, second.time_unit):
        raise DataError(
            f"a step of the reference is {first.dt:g} {first.time_unit}, one of the perturbed trajectory "
            f"{second.dt:g} {second.time_unit}; give dt to put them on one"
        )
    dtypes = (first.dtype, second.dtype)
    return Pair(
        reference=first.rows,
        perturbed=second.rows,
        reference_step=first.step,
        perturbed_step=second.step,
        group=group,
        dt=first.dt if dt is None else float(dt),
        time_unit=first.time_unit if dt is None else "time",
        dtype=next((narrow for narrow in NARROW if narrow in dtypes), first.dtype),
    )


def _is_run(x: Any) -> bool:
    return hasattr(x, "members") and hasattr(x, "trajectory")


def _families(x: Any) -> list[Family]:
    """References with their copies, of a Run, a pair or a list of pairs."""
    if _is_run(x):
        _require_weights(x)
        owners = [member.reference for member in x.members]
        roots = sorted({owner for owner in owners if owner >= 0})
        if not roots:
            raise DataError(
                f"run {x.name!r} has {len(owners)} member(s) and none is a perturbed copy of another; record twins "
                "(`perturb`), or give the perturbed trajectories as the second argument"
            )
        return [
            (x.trajectory(r), [x.trajectory(m) for m, owner in enumerate(owners) if owner == r], str(x.logical_dtype))
            for r in roots
        ]
    if isinstance(x, tuple) and len(x) == 2 and isinstance(x[1], (list, tuple)):
        return [(_alone(x[0]), _several(x[1]), None)]
    if isinstance(x, list) and x and all(isinstance(item, tuple) and len(item) == 2 for item in x):
        return [(_alone(a), _several(b), None) for a, b in x]
    raise DataError(
        "there is nothing perturbed: give the perturbed trajectories as the second argument, a Run with perturbed "
        "copies, or a list of pairs (reference, [perturbed, ...])"
    )


def _restarted(reference: Any, run: Any) -> list[Family]:
    """Copies in one run, their references in another: the members of the same name there."""
    _require_weights(run)
    if not _is_run(reference):
        return [(_alone(reference), [run.trajectory(m) for m in range(run.n_members)], str(run.logical_dtype))]
    _require_weights(reference)
    names = {member.name: m for m, member in enumerate(reference.members) if member.reference < 0}
    families: dict[int, list[Any]] = {}
    for m, member in enumerate(run.members):
        if member.reference < 0 and any(other.reference >= 0 for other in run.members):
            continue  # the unperturbed continuation, kept beside its copies
        name = run.members[member.reference].name if member.reference >= 0 else member.name
        if name not in names and len(names) > 1:
            raise DataError(
                f"member {member.name!r} of run {run.name!r} is a copy of {name!r}, and run {reference.name!r} has no "
                f"member of that name; it has {', '.join(map(repr, names))}"
            )
        owner = names[name] if name in names else next(iter(names.values()))
        families.setdefault(owner, []).append(run.trajectory(m))
    dtypes = (str(reference.logical_dtype), str(run.logical_dtype))
    dtype = next((narrow for narrow in NARROW if narrow in dtypes), dtypes[0])
    return [(reference.trajectory(owner), copies, dtype) for owner, copies in sorted(families.items())]


def _alone(x: Any) -> Any:
    if not _is_run(x):
        return x
    _require_weights(x)
    free = [m for m, member in enumerate(x.members) if member.reference < 0]
    if len(free) != 1:
        raise DataError(
            f"run {x.name!r} has {len(free)} members that are no copies, and one reference is needed; give "
            "run.trajectory(member)"
        )
    return x.trajectory(free[0])


def _several(x: Any) -> list[Any]:
    if isinstance(x, (list, tuple)) and x and not np.isscalar(x[0]):
        return [_alone(item) for item in x]
    if isinstance(x, np.ndarray) and x.ndim == 3:
        return list(x)
    if isinstance(x, (list, tuple)) and not x:
        raise DataError("there is nothing perturbed: the list of perturbed trajectories is empty")
    return [_alone(x)]


def _require_weights(run: Any) -> None:
    if getattr(run, "stored", "weights") != "weights":
        raise DataError(
            f"run {run.name!r} stores {run.stored} and no weights: the distance to an orbit needs the states. "
            "`trajtools.twins` takes stored distances at equal times"
        )


def _offsets(start: int | Sequence[int] | None, count: int) -> list[int | None]:
    if start is None:
        return [None] * count
    given = np.asarray(start)
    if given.dtype.kind not in "iu" or given.shape not in ((), (count,)):
        raise DataError(f"start must be one step or {count} of them (one per perturbed trajectory), got {start!r}")
    return [int(s) for s in np.broadcast_to(given, (count,))]
