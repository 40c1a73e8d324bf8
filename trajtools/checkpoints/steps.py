"""Which step a saved file is: the number in its name that people mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from trajtools.errors import DataError

LARGEST_STEP = 2**63 - 1
ENDINGS = frozenset((
    ".npz", ".npy", ".pt", ".pth", ".bin", ".ckpt", ".t7", ".tar", ".safetensors", ".h5", ".hdf5", ".weights", ".keras",
    ".msgpack", ".pkl", ".pickle", ".json", ".index",
))  # fmt: skip
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
# Digits, perhaps with a fraction, perhaps with a unit that ends the word: 500, 1k, 1.5M.
_NUMBER = re.compile(r"(?<![0-9])([0-9]+(?:\.[0-9]+)?)(?:([kKmMbB])(?![A-Za-z0-9]))?")
_COUNTER = re.compile(r"(step|iter|iteration|update)s?[-_=. ]?$", re.IGNORECASE)
_MEASURED = re.compile(
    r"(loss|acc|accuracy|err|error|score|ppl|perplexity|bleu|f1|auc|map|miou|reward|metric)[-_=. ]?$", re.IGNORECASE
)
_WORD = re.compile(r"[A-Za-z]*[-_=. /]?$")


@dataclass(frozen=True)
class Order:
    """Checkpoints in the order of their steps.

    Attributes
    ----------
    names : tuple of str
        Paths below the folder.
    steps : tuple of int
        Step of each, rising.
    rule : str
        Which number of a name is the step, in words.
    example : str
        The last name, with its step in angle brackets.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    rule: str
    example: str


@dataclass(frozen=True)
class Number:
    """A number in a name.

    Attributes
    ----------
    start, stop : int
        Where it stands, with its unit.
    value : int
        What it means: 1k is 1000.
    whole : bool
        False of a decimal such as 0.25, which is no step.
    before, after : str
        The name before it, and the letter after it.
    """

    start: int
    stop: int
    value: int
    whole: bool
    before: str
    after: str


def in_order(names: Sequence[str], pattern: str | None = None) -> Order:
    """Find the step in each name, and sort by it.

    Notes
    -----
    A pattern decides alone. Else the step is the only whole number of each name, or the one after "step", "iter" or
    "update", or the only one in which the names differ. An order in which another number falls while the step rises
    (stage1-step1000, stage2-step500) is refused, unless that number is a measure such as a loss.
    """
    chosen, rule = _chosen(names, pattern)
    order = sorted(range(len(names)), key=lambda i: chosen[i].value)
    last = order[-1]
    start, stop = chosen[last].start, chosen[last].stop
    example = f"{names[last][:start]}<{names[last][start:stop]}>{names[last][stop:]}"
    return Order(tuple(names[i] for i in order), tuple(chosen[i].value for i in order), rule, example)


def _chosen(names: Sequence[str], pattern: str | None, advise: bool = True) -> tuple[list[Number], str]:
    """Return the number of each name that is its step, and the rule; `advise`: say in an error what works."""
    if pattern is not None:
        chosen, rule = _by_pattern(names, pattern), f"--step-pattern '{pattern}'"
    else:
        numbers = [numbers_in(name) for name in names]
        chosen, rule = _by_rule(names, numbers, advise)
        _check_units(names, chosen)
        _check_direction(names, numbers, chosen, advise)
    order = sorted(range(len(names)), key=lambda i: chosen[i].value)
    for one, other in pairwise(order):
        if chosen[one].value == chosen[other].value:
            raise DataError(
                f"{names[one]} and {names[other]} are both step {chosen[one].value} ({rule}); every state needs a "
                f"different step: {_way_out(names, advise) or 'choose files with --files'}"
            )
    largest = chosen[order[-1]].value
    if largest > LARGEST_STEP:
        raise DataError(f"{names[order[-1]]}: step {largest} is beyond the largest, {LARGEST_STEP}")
    return chosen, rule


def numbers_in(name: str) -> list[Number]:
    """Return the numbers of a name, its ending left out."""
    stem = name
    while Path(stem).suffix.lower() in ENDINGS:
        stem = stem[: -len(Path(stem).suffix)]
    return [_number(name, match) for match in _NUMBER.finditer(stem)]


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return what sorts names with numbers in them as people do: 2 before 10."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(False, int(p), "") if p[0] in "0123456789" else (True, 0, p) for p in pieces]


def _number(name: str, match: re.Match[str]) -> Number:
    digits, unit = match[1], (match[2] or "").lower()
    whole, _, fraction = digits.partition(".")
    value = int(whole) * UNITS[unit]
    if fraction:
        value += int(fraction) * UNITS[unit] // 10 ** len(fraction)
    return Number(*match.span(), value, not fraction or bool(unit), name[: match.start()], name[match.end() :][:1])


def _by_pattern(names: Sequence[str], pattern: str) -> list[Number]:
    rule = f"--step-pattern '{pattern}'"  # as it is typed: backslashes are not doubled
    try:
        compiled = re.compile(pattern)
    except re.error as problem:
        raise DataError(f"{rule} is not a regular expression: {problem}") from None
    chosen = []
    for name in names:
        match = compiled.search(name)
        start, stop = match.span(1 if compiled.groups else 0) if match else (0, 0)
        start, stop = max(0, start), max(0, stop)  # a group that took no part
        text, number = name[start:stop], _NUMBER.match(name, start)
        if number is not None and number.end(1) <= stop <= number.end():
            chosen.append(_number(name, number))  # with its unit, whether or not the group takes it
        elif text.isascii() and text.isdigit():
            chosen.append(Number(start, stop, int(text), True, name[:start], name[stop:][:1]))
        else:
            what = f"gives {text!r}" if match else "matches nothing"
            raise DataError(f"{rule} {what} in {name!r}; needed digits, in the first group: 'epoch=(\\d+)'")
    return chosen


def _by_rule(names: Sequence[str], numbers: list[list[Number]], advise: bool) -> tuple[list[Number], str]:
    for name, several in zip(names, numbers, strict=True):
        if not several:
            others = _glob(names, [other for other, some in zip(names, numbers, strict=True) if some]) if advise else ""
            raise DataError(
                f"{name!r} has no number in its name, so its step is unknown: rename it, or choose files with --files"
                + (f" '{others}'" if others else "")
            )
    counters = [[n for n in several if n.whole and not _MEASURED.search(n.before)] for several in numbers]
    whole = [some or several for some, several in zip(counters, numbers, strict=True)]
    if all(len(several) == 1 for several in whole):
        return [several[0] for several in whole], "the number in the name"
    counted = [[n for n in several if _COUNTER.search(n.before)] for several in whole]
    if all(len(several) == 1 for several in counted):
        return [several[0] for several in counted], "the number after the name of the step"
    varying = _varying(whole)
    if len(varying) == 1:
        return [several[varying[0]] for several in whole], "the number in which the names differ"
    most = max(range(len(names)), key=lambda i: len(whole[i]))
    listing = ", ".join(names[most][n.start : n.stop] for n in whole[most])
    raise DataError(
        f"{names[most]!r} has several numbers ({listing}), and it is not clear which one is the step: "
        + (_way_out(names, advise) or "rename the files")
    )


def _varying(numbers: list[list[Number]]) -> list[int]:
    """Return the columns of numbers in which the names differ; none where they have not the same number of numbers."""
    if len({len(several) for several in numbers}) > 1:
        return []
    return [i for i, column in enumerate(zip(*numbers, strict=True)) if len({n.value for n in column}) > 1]


def _check_units(names: Sequence[str], chosen: list[Number]) -> None:
    """Refuse numbers of different units, of which only k, M and B are known: 10h and 2d."""
    units = {n.after.lower() if n.after.isalpha() else "" for n in chosen}
    if len(units) > 1:
        first = next(i for i, n in enumerate(chosen) if n.after.isalpha())
        raise DataError(
            f"the number of {names[first]!r} has the unit {chosen[first].after!r}, and others have another: only k, M "
            "and B are known. Rename the files, or choose with --files"
        )


def _check_direction(names: Sequence[str], numbers: list[list[Number]], chosen: list[Number], advise: bool) -> None:
    """Refuse an order in which another counter falls while the step rises."""
    order = sorted(range(len(names)), key=lambda i: chosen[i].value)
    counters = [
        [n for n in several if n.whole and n.start != step.start and not _MEASURED.search(n.before)]
        for several, step in zip(numbers, chosen, strict=True)
    ]
    for column in _varying(counters):
        values = [several[column].value for several in counters]
        for one, other in pairwise(order):
            if values[other] < values[one]:
                raise DataError(
                    f"{names[one]} (step {chosen[one].value}) would come before {names[other]} (step "
                    f"{chosen[other].value}), but its other number falls from {values[one]} to {values[other]}: these "
                    "files are several trainings, or their steps begin anew; "
                    + (_way_out(names, advise, values, chosen) or "rename them so that one number counts all steps")
                )


def _way_out(names: Sequence[str], advise: bool, stages: Sequence[int] = (), refused: Sequence[Number] = ()) -> str:
    """Return options that give an order when they are typed, and not the refused one; empty where there are none."""
    hints = []
    if advise and stages:
        most = Counter(sorted(stages)).most_common(1)[0][0]
        stage = [name for name, value in zip(names, stages, strict=True) if value == most]
        glob = _glob(names, stage) if len(stage) > 1 and _works(stage, None) else ""
        hints = [f"--files '{glob}'"] if glob else []
    for pattern in _patterns(names) if advise else []:
        if _works(names, pattern) and _by_pattern(names, pattern) != list(refused):
            hints.append(f"--step-pattern '{pattern}'")
    return f"choose with {' or '.join(hints[:3])}" if hints else ""


def _works(names: Sequence[str], pattern: str | None) -> bool:
    try:
        _chosen(names, pattern, advise=False)
    except DataError:
        return False
    return True


def _patterns(names: Sequence[str]) -> list[str]:
    """Return patterns of the words that stand before the numbers of the first name."""
    words = [match[0] for number in numbers_in(names[0]) if (match := _WORD.search(number.before)) and match[0]]
    return [f"{word.replace('.', '[.]')}(\\d+)" for word in dict.fromkeys(words)]


def _glob(names: Sequence[str], some: Sequence[str]) -> str:
    """Return a glob that matches some of the names and no other; empty where there is no simple one."""
    if not some or any(sign in name for name in some for sign in "*?['"):
        return ""
    head = _common(some).rstrip("0123456789")
    tail = _common([name[len(head) :][::-1] for name in some])[::-1].lstrip("0123456789")
    glob = f"{head}*{tail}" if len(some) > 1 else some[0]
    crossing = any("/" in name[len(head) : len(name) - len(tail)] for name in some)
    return "" if crossing or [name for name in names if fnmatchcase(name, glob)] != list(some) else glob


def _common(names: Sequence[str]) -> str:
    low, high = min(names), max(names)
    return next((low[:i] for i, letter in enumerate(low) if high[i : i + 1] != letter), low)
