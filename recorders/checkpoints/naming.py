"""Which files of a folder are checkpoints, and which step each one is: its name says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from recorders.adapter import listed
from trajtools.errors import DataError

KINDS = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".ckpt": "torch",
}
LARGEST_STEP = 2**63 - 1
_NUMBER = re.compile(r"\d+")
_COUNTED = re.compile(r"(?:step|iter|iteration|update)s?[-_=. ]?(\d+)", re.IGNORECASE)


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


def checkpoints_in(folder: Path, files: str = "") -> tuple[list[str], str]:
    """Find the checkpoints of a folder."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}: needed a folder with one file of weights per state ({', '.join(KINDS)})")
    try:
        there = sorted(p for p in folder.glob(files or "*") if p.is_file())
    except (NotImplementedError, ValueError) as problem:
        raise DataError(f"--files {files!r} is no pattern below {folder} ({problem}); such as '*.npz'") from None
    found = [p for p in there if p.suffix.lower() in KINDS and not (p.name.startswith(".") and not files)]
    if not found:
        raise DataError(_nothing(folder, files, there))
    kinds = {KINDS[p.suffix.lower()] for p in found}
    if len(kinds) > 1:
        endings = sorted({p.suffix for p in found})
        raise DataError(
            f"{folder} holds checkpoints of several kinds ({', '.join(endings)}); one run is made of one kind: choose "
            f"with --files '*{endings[0]}'"
        )
    return [p.relative_to(folder).as_posix() for p in found], kinds.pop()


def _nothing(folder: Path, files: str, there: Sequence[Path]) -> str:
    needed = f"needed files that end in {', '.join(KINDS)}"
    if files:
        return f"--files {files!r} matches no checkpoint in {folder}; {needed}"
    deeper = next((p for p in sorted(folder.glob("*/*")) if p.suffix.lower() in KINDS), None)
    if deeper is not None:
        return (
            f"{folder} holds no checkpoint itself, its folders do (such as {deeper.relative_to(folder).as_posix()}): "
            f"choose with --files '*/{deeper.name}'"
        )
    holds = listed([p.name for p in there], 5) if there else "no file"
    return f"{folder} holds no checkpoint: {needed}; it holds {holds}"


def in_order(names: Sequence[str], pattern: str | None = None) -> Order:
    """Find the step in each name, and sort by it."""
    spans, rule = _by_pattern(names, pattern) if pattern is not None else _by_rule(names)
    steps = [int(name[a:b]) for name, (a, b) in zip(names, spans, strict=True)]
    marked = [f"{name[:a]}<{name[a:b]}>{name[b:]}" for name, (a, b) in zip(names, spans, strict=True)]
    order = sorted(range(len(names)), key=steps.__getitem__)
    for one, other in pairwise(order):
        if steps[one] == steps[other]:
            raise DataError(
                f"{names[one]} and {names[other]} are both step {steps[one]} ({rule}); every state needs a step of its "
                "own: say which number it is with --step-pattern, or choose files with --files"
            )
    if steps[order[-1]] > LARGEST_STEP:
        raise DataError(f"{names[order[-1]]}: step {steps[order[-1]]} is beyond the largest, {LARGEST_STEP}")
    return Order(tuple(names[i] for i in order), tuple(steps[i] for i in order), rule, marked[order[-1]])


Span = tuple[int, int]


def _by_pattern(names: Sequence[str], pattern: str) -> tuple[list[Span], str]:
    rule = f"--step-pattern '{pattern}'"  # as it is typed: backslashes are not doubled
    try:
        compiled = re.compile(pattern)
    except re.error as problem:
        raise DataError(f"{rule} is no regular expression: {problem}") from None
    spans = []
    for name in names:
        found = compiled.search(name)
        taken = found.span(1 if compiled.groups else 0) if found else (0, 0)
        if not _is_number(name[slice(*taken)]):
            what = f"gives {name[slice(*taken)]!r}" if found else "matches nothing"
            raise DataError(f"{rule} {what} in {name!r}; needed digits, in the first group: 'epoch=(\\d+)'")
        spans.append(taken)
    return spans, rule


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _by_rule(names: Sequence[str]) -> tuple[list[Span], str]:
    numbers = [[m.span() for m in _NUMBER.finditer(_stem(name)) if _is_number(m[0])] for name in names]
    for name, spans in zip(names, numbers, strict=True):
        if not spans:
            raise DataError(
                f"{name!r} has no number in its name, so its step is unknown: rename it, or choose files with --files"
            )
    if all(len(spans) == 1 for spans in numbers):
        return [spans[0] for spans in numbers], "the number in the name"
    counted = [[m.span(1) for m in _COUNTED.finditer(_stem(name))] for name in names]
    if all(len(spans) == 1 for spans in counted):
        return [spans[0] for spans in counted], "the number behind the word for a step"
    if len({len(spans) for spans in numbers}) == 1:
        columns = list(zip(*numbers, strict=True))
        varying = [
            i for i, column in enumerate(columns) if len({int(n[a:b]) for n, (a, b) in _with(names, column)}) > 1
        ]
        if len(varying) == 1:
            return list(columns[varying[0]]), "the number in which the names differ"
    most = max(range(len(names)), key=lambda i: len(numbers[i]))
    several = ", ".join(names[most][a:b] for a, b in numbers[most])
    raise DataError(
        f"{names[most]!r} has several numbers ({several}), and it is not clear which one is the step: say so with "
        "--step-pattern, such as --step-pattern 'epoch(\\d+)'"
    )


def _with(names: Sequence[str], spans: Sequence[Span]) -> list[tuple[str, Span]]:
    return list(zip(names, spans, strict=True))


def _stem(name: str) -> str:
    return name[: -len(Path(name).suffix)]
