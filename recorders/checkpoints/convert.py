"""Convert a folder of checkpoints to a file with one run, completely or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from recorders.adapter import FLOATS, is_selected, listed, select
from recorders.checkpoints.formats import Leaf, Leaves, open_checkpoint
from recorders.recorder import Recorder
from trajtools.errors import ArchitectureError, DataError, RecordingError, SelectionError
from trajtools.store import claim
from trajtools.wiring import describe

Progress = Callable[[int, int], None]


def convert(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    run: str = "run",
    files: str = "",
    step_pattern: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    order: Sequence[str] = (),
    key: str | None = None,
    hparams: Mapping[str, Any] | None = None,
    compress: str | None = None,
    progress: Progress | None = None,
) -> Order:
    """Write the states that a folder of checkpoints holds into a new file, in the order of their steps.

    One checkpoint is in memory at a time, and the blocks of the recorder. The file gets its name when it is whole;
    until then it is called ``<path>.part-<process>``, and it is removed if anything goes wrong.

    Parameters
    ----------
    folder : path
        Holds .npz, .safetensors or PyTorch files, one for each state.
    path : path
        The file to be written; it must not exist.
    run : str
        Name of the run in it.
    files : str
        Glob of the checkpoints' paths below `folder`; empty: all that lie in it.
    step_pattern : str, optional
        Regular expression whose first group in such a path is the step; see `recorders.checkpoints.convert.in_order`.
    include, exclude : sequence of str
        Globs of the arrays that make the state.
    order : sequence of str
        Globs of the arrays that come first, in this order, where the files do not hold the layers in their order.
    key : str, optional
        Entry of PyTorch's files that holds the weights.
    hparams : mapping, optional
        Kept as JSON.
    compress : {None, "zstd", "gzip"}
        Lossless filter of the weights.
    progress : callable, optional
        Called with the number of states that are done and of all.

    Returns
    -------
    Order
        Files and steps, and which number of the name was taken.

    Raises
    ------
    DataError
        If there are no checkpoints, one is damaged, or their steps are not clear.
    ArchitectureError
        If two of them differ in names, shapes or dtypes; the message says which, and in what.
    RecordingError
        If an array is not made of real floating-point numbers, or the disk refuses.
    SelectionError
        If a glob matches nothing.
    MissingDependencyError
        If the package that reads the files is missing.
    FileExistsError
        If the path is taken.
    """
    target, source = Path(os.path.abspath(path)), Path(folder)
    if os.path.lexists(target):  # also a link to nowhere
        raise FileExistsError(f"{path} exists and is never overwritten: choose another file")
    if run in ("", ".", "..") or "/" in run or "\0" in run:
        raise RecordingError(f"run={run!r} is not a valid run name: needed a text without '/', such as 'eta=0.1'")
    if not target.parent.is_dir():
        raise RecordingError(f"{path} cannot be written: there is no folder {target.parent}")
    names, kind = checkpoints_in(source, files)
    steps = in_order(names, step_pattern)
    draft = target.with_name(f"{target.name}.part-{os.getpid()}")
    origin = {
        "folder": str(source.absolute()),
        "files": files,
        "first": steps.names[0],
        "last": steps.names[-1],
        "step": steps.rule,
        **{name: list(value) for name, value in (("include", include), ("exclude", exclude), ("order", order))},
        **({"key": key} if key is not None else {}),
    }
    states = States(source, kind, key=key, include=include, exclude=exclude, order=order)
    try:
        _record(states, steps, draft, origin, progress, run=run, hparams=hparams, compress=compress)
        claim(draft, target)
    except FileExistsError:
        raise FileExistsError(f"{path} was created by another process meanwhile: choose another file") from None
    finally:
        for left in (draft, draft.with_name(draft.name + ".journal")):
            left.unlink(missing_ok=True)
    return steps


class States:
    """What is taken of every checkpoint, and that they all agree in it."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        key: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        order: Sequence[str] = (),
    ) -> None:
        self._folder, self._kind, self._key = folder, kind, key
        self._include, self._exclude, self._order = tuple(include), tuple(exclude), tuple(order)
        self.known: dict[str, dict[str, Any]] = {}
        self._first = ""
        self._wanted: dict[str, tuple[tuple[int, ...], str]] = {}

    def each(self, names: Sequence[str], take: Callable[[int, Leaves], None]) -> None:
        """Hand over the checkpoints one after the other."""
        for index, name in enumerate(names):
            with open_checkpoint(self._folder / name, self._kind, self._key) as leaves:
                if not index:
                    self._begin(name, leaves)
                self._check(name, leaves)
                take(index, {wanted: leaves[wanted] for wanted in self._wanted})

    def _begin(self, file: str, leaves: Leaves) -> None:
        chosen = select(list(leaves), self._include, self._exclude)
        ordered: dict[str, None] = {}
        for glob in self._order:
            matching = [name for name in chosen if fnmatchcase(name, glob)]
            if not matching:
                raise SelectionError(f"--order {glob!r} matches none of the arrays {listed(chosen)}")
            ordered.update(dict.fromkeys(matching))
        ordered.update(dict.fromkeys(chosen))
        strange = [name for name in ordered if leaves[name].dtype not in FLOATS]
        if strange:
            listing = ", ".join(f"{name!r} ({leaves[name].dtype})" for name in strange[:5])
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            out = " ".join(f"--exclude '{name}'" for name in strange[:5])
            raise RecordingError(
                f"{self._folder / file}: a state is made of {', '.join(FLOATS)}, and {listing}{more} cannot be part "
                f"of it; exclude what is not a weight ({out}), or choose with --include"
            )
        self._first = file
        if len(ordered) < len(leaves):
            self.known = _known(leaves, list(ordered))
        self._wanted = {name: (leaves[name].shape, leaves[name].dtype) for name in ordered}

    def _check(self, file: str, leaves: Leaves) -> None:
        there = [name for name in leaves if is_selected(name, self._include, self._exclude)]
        gone = [name for name in self._wanted if name not in leaves]
        new = [name for name in there if name not in self._wanted]
        if gone or new:
            words = [f"lacks {listed(gone, 5)}"] * bool(gone) + [f"has the new {listed(new, 5)}"] * bool(new)
            raise ArchitectureError(
                f"{self._folder / file} {' and '.join(words)}, compared with {self._first}: all states of a run have "
                "the same arrays. Select the arrays that all files have (--include, --exclude), or other files "
                "(--files)"
            )
        for name, (shape, dtype) in self._wanted.items():
            came = leaves[name]
            if (came.shape, came.dtype) != (shape, dtype):
                raise ArchitectureError(
                    f"{self._folder / file}: {name!r} is {came.dtype} of shape {came.shape}; needed {dtype} of shape "
                    f"{shape}, as in {self._first}. Leave it out (--exclude '{name}'), or choose other files (--files)"
                )


def _known(leaves: Leaves, chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Kinds and axes of the chosen arrays, from all of the file: biases tell how the kernels beside them lie."""
    table, _ = describe({name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items() if leaf.dtype in FLOATS})
    kernels = [p for p in table if p.name in chosen and p.kind in ("dense", "conv") and p.source_axis >= 0]
    return {
        "kinds": {p.name: p.kind for p in table if p.name in chosen},
        "axes": {p.name: (p.source_axis, p.target_axis) for p in kernels},
    }


class _CheckpointRecorder(Recorder):
    """Records states whose arrays are still in a file."""

    def __init__(self, path: Path, state: Leaves, origin: Mapping[str, Any], **options: Any) -> None:
        self._origin = {"checkpoints": dict(origin)}
        super().__init__(path, state, quiet=True, **options)

    def _host(self, leaves: Sequence[Leaf]) -> list[np.ndarray]:
        return [leaf.read() for leaf in leaves]


def _record(
    states: States, order: Order, draft: Path, origin: Mapping[str, Any], progress: Progress | None, **options: Any
) -> None:
    opened: list[_CheckpointRecorder] = []
    count = len(order.names)

    def take(index: int, leaves: Leaves) -> None:
        step = order.steps[index]
        if opened:
            opened[0].record(leaves, step=step)
        else:
            opened.append(
                _CheckpointRecorder(
                    draft, leaves, origin, step=step, expected_steps=count - 1, **states.known, **options
                )
            )
        if progress is not None:
            progress(index + 1, count)

    try:
        states.each(order.names, take)
    except BaseException:
        for recorder in opened:
            recorder.close(status="interrupted")
        raise
    opened[0].close()


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
        raise DataError(f"--files {files!r} is not a pattern below {folder} ({problem}); such as '*.npz'") from None
    checkpoints = [p for p in there if p.suffix.lower() in KINDS and not (p.name.startswith(".") and not files)]
    if not checkpoints:
        raise DataError(_nothing(folder, files, there))
    kinds = {KINDS[p.suffix.lower()] for p in checkpoints}
    if len(kinds) > 1:
        endings = sorted({p.suffix for p in checkpoints})
        raise DataError(
            f"{folder} holds checkpoints of several kinds ({', '.join(endings)}); one run is made of one kind: choose "
            f"with --files '*{endings[0]}'"
        )
    return [p.relative_to(folder).as_posix() for p in checkpoints], kinds.pop()


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
                f"{names[one]} and {names[other]} are both step {steps[one]} ({rule}); every state needs a different "
                "step: select the number with --step-pattern, or choose files with --files"
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
        raise DataError(f"{rule} is not a regular expression: {problem}") from None
    spans = []
    for name in names:
        match = compiled.search(name)
        taken = match.span(1 if compiled.groups else 0) if match else (0, 0)
        if not _is_number(name[slice(*taken)]):
            what = f"gives {name[slice(*taken)]!r}" if match else "matches nothing"
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
        return [spans[0] for spans in counted], "the number after the name of the step"
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
        f"{names[most]!r} has several numbers ({several}), and it is not clear which one is the step: select it with "
        "--step-pattern, such as --step-pattern 'epoch(\\d+)'"
    )


def _with(names: Sequence[str], spans: Sequence[Span]) -> list[tuple[str, Span]]:
    return list(zip(names, spans, strict=True))


def _stem(name: str) -> str:
    return name[: -len(Path(name).suffix)]
