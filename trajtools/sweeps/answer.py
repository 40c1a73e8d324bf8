"""Say in a sentence where nearby trainings stay together, where they part, and where training is fastest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite, log
from typing import TYPE_CHECKING

from trajtools.wording import counted, time_units

if TYPE_CHECKING:
    from trajtools.exponents.exponent import Exponent
    from trajtools.sweeps.onset import Fastest

RATE_NAMES = ("lr", "learning_rate", "eta")
PARTING = ("chaotic", "transient", "sensitive")
MOST_VALUES = 4  # that a sentence lists


def answer(name: str, points: Iterable[tuple[float, Exponent | None, str]], fastest: Fastest | None = None) -> str:
    """Say what a sweep over one hyper-parameter shows.

    Parameters
    ----------
    name : str
        The hyper-parameter.
    points : iterable of (float, Exponent or None, str)
        Its value, the exponent, and the outcome of each training, as in `SweepPoint`.
    fastest : Fastest or None
        Where training is fastest.

    Returns
    -------
    str
        One or two sentences.
    """
    runs: dict[float, list[tuple[str, Exponent | None]]] = {}
    for x, exponent, outcome in points:
        kind = _kind(exponent, outcome)
        if kind:
            runs.setdefault(x, []).append((kind, exponent))
    groups: dict[str, dict[float, list[Exponent]]] = {}
    for x, here in runs.items():
        kind = _most([kind for kind, _ in here])
        groups.setdefault(kind, {})[x] = [one for k, one in here if k == kind and one is not None]
    clauses = _clauses(name, groups)
    text = "; ".join(clauses)
    text = f"{text[0].upper()}{text[1:]}." if text else "No exponent was measured."
    if fastest is None or not isfinite(fastest.value):
        return text
    at = f"{label(name)} {fastest.value:.3g}"
    time = f"{fastest.time:.4g} {fastest.time_unit}{'' if fastest.time == 1 else 's'} to accuracy {fastest.threshold:g}"
    end = "" if fastest.inside else ", an end of the range"
    return f"{text} Training is fastest at {at} ({time}){end}."


def label(name: str) -> str:
    """A hyper-parameter in words."""
    return "learning rate" if name in RATE_NAMES else name.replace("_", " ")


def _kind(exponent: Exponent | None, outcome: str) -> str:
    if outcome == "diverged":
        return "lost"
    if exponent is None or outcome == "dead":
        return ""
    if exponent.verdict in PARTING:
        return "part"
    return {"regular": "together", "diverging": "away"}.get(exponent.verdict, "open")


def _most(kinds: Sequence[str]) -> str:
    """What the runs at one value show: what at least half of them do, if no other one does the opposite."""
    decided = set(kinds) - {"open"}
    if decided == {"away", "lost"}:
        return "lost"
    if len(decided) > 1:
        return "mixed"
    return next((kind for kind in decided if 2 * kinds.count(kind) >= len(kinds)), "open")


def _clauses(name: str, groups: dict[str, dict[float, list[Exponent]]]) -> list[str]:
    """One clause for each kind of training, by thresholds where the kinds follow each other along x."""
    together, part = sorted(groups.get("together", {})), sorted(groups.get("part", {}))
    every = sorted({x for values in groups.values() for x in values})
    out = []
    if together and part and together[-1] < part[0]:
        limit = f"up to {together[-1]:g}" if len(together) > 1 else f"{together[0]:g}"
        where = f"from {part[0]:g} on" if part[-1] == every[-1] and len(part) > 1 else _at(part)
        out.append(f"at {_plural(name, len(together) > 1)} {limit} nearby trainings stay together")
        out.append(f"{where} they part{_doubling(groups['part'])}")
    else:
        if together:
            out.append(f"at {_values(name, together, every)} nearby trainings stay together")
        if part:
            where = _at(part) if together else f"at {_values(name, part, every)}"
            out.append(f"{where} {'they' if together else 'nearby trainings'} part{_doubling(groups['part'])}")
    for kind, words in (
        ("mixed", "it depends on the run"),
        ("open", "the data do not decide"),
        ("away", "the training itself runs away"),
        ("lost", "the training ends in NaN or infinity"),
    ):
        if kind in groups:
            values = sorted(groups[kind])
            out.append(f"{_at(values) if out else f'at {_values(name, values, every)}'} {words}")
    return out


def _plural(name: str, several: bool) -> str:
    return f"{label(name)}s" if several and name in RATE_NAMES else label(name)


def _values(name: str, values: Sequence[float], every: Sequence[float]) -> str:
    """The hyper-parameter with its values."""
    if len(values) == len(every) and len(values) > MOST_VALUES:
        return f"every {label(name)} from {values[0]:g} to {values[-1]:g}"
    return f"{_plural(name, len(values) > 1)} {_listed(values)}"


def _at(values: Sequence[float]) -> str:
    return f"at {_listed(values)}"


def _listed(values: Sequence[float]) -> str:
    if len(values) > MOST_VALUES:
        return f"{counted(len(values), 'value')} from {values[0]:g} to {values[-1]:g}"
    *most, last = (f"{value:g}" for value in values)
    return f"{', '.join(most)} and {last}" if most else last


def _doubling(groups: dict[float, list[Exponent]]) -> str:
    """In how many steps the distance doubles."""
    exponents = [one for several in groups.values() for one in several if one.value > 0]
    if not exponents:
        return ""
    times = sorted(log(2.0) / one.value for one in exponents)
    unit = exponents[0].unit.removeprefix("1/")
    low, high = f"{times[0]:.2g}", f"{times[-1]:.2g}"
    if low == high:
        return f", twice as far every {low} {unit}{'' if low == '1' else 's'}"
    return f", twice as far every {low} to {high} {time_units(unit)}"
