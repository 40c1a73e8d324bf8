"""Convert saved weights to a run, completely or not at all: checkpoints, or an HDF5 file of another program."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.checkpoints.arrays import Leaf
from trajtools.checkpoints.folders import Checkpoint, checkpoints_in, kind_of, open_checkpoint
from trajtools.checkpoints.steps import Order, in_order
from trajtools.checkpoints.weights import Weights, renaming, weights_of
from trajtools.errors import ArchitectureError, DataError, RecordingError, SelectionError
from trajtools.results import Shown
from trajtools.store import RunSpec, RunWriter, StreamLayout, digest, foreign, origin, promote, publish, widen
from trajtools.wiring import FLOATS, Member, describe, is_selected, listed, select
from trajtools.wording import counted

Progress = Callable[[int, int], None]
Leaves = dict[str, Leaf]
STEPS = ("step", "steps", "iteration", "iterations")
METRICS = "metrics/"
RESERVED = ("self", "state", "step", "buffers")  # other arguments of `Recorder.record`


@dataclass(frozen=True, repr=False)
class Conversion(Shown):
    """What was converted.

    Attributes
    ----------
    paths : tuple of Path
        The files that were written, one for each run.
    names : tuple of str
        The checkpoints, paths below the folder, in the order of their steps; empty for an HDF5 file of another program.
    steps : tuple of int
        Step of each.
    rule, example : str
        Which number of a name is the step, in words, and the last name with its step in angle brackets.
    entry : str
        Entry of the files that holds the weights; empty for all of them.
    left_out : tuple of str
        What of the first checkpoint is no part of the state, and why.
    notes : tuple of str
        What may be wrong with the checkpoints.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    rule: str = ""
    example: str = ""
    entry: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def _sentence(self) -> str:
        files = ", ".join(map(str, self.paths[:3])) + (", ..." if len(self.paths) > 3 else "")
        if not self.names:
            return f"written to {files}."
        span = f", steps {self.steps[0]} to {self.steps[-1]}" if self.steps else ""
        several = f"{counted(len(self.names), 'checkpoint')}{span}"
        return f"{several}, written to {files}; the step is {self.rule} ({self.example})."

    def _remarks(self) -> tuple[str, ...]:
        return (*self.notes, *(f"left out: {name}" for name in self.left_out))


def convert(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    name: str = "",
    files: str = "",
    step_pattern: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    order: str | Sequence[str] = (),
    key: str | None = None,
    rename: str | Sequence[str] = (),
    hparams: Mapping[str, Any] | None = None,
    compress: str | None = None,
    dataset: str | None = None,
    axes: str | Sequence[str] | None = None,
    holds: str | None = None,
    layout: str | None = None,
    metric: str = "l1",
    progress: Progress | None = None,
) -> Conversion:
    """Convert checkpoints, or an HDF5 file of another program, into runs.

    Of checkpoints one is in memory at a time, and a block of states. The output gets its name when it is whole; until
    then it is called ``<path>.part-<process>``, and it is removed if anything goes wrong. Files are known by their
    content, and nothing in them is executed.

    Parameters
    ----------
    source : path
        A folder with a checkpoint for each state: a file, shards with their index, or a folder. Or one file that holds
        all states: an array (T, P), arrays that all have T as their first axis, or a list of T checkpoints. Or an HDF5
        file of another program, whose axes are declared.
    path : path
        The file to be written; it must not exist. If an HDF5 file holds several runs, the folder for them.
    name : str
        Name of the run; that of the file if not given.
    files : str
        Glob of the checkpoints' paths below `source`; empty: all that lie in it.
    step_pattern : str, optional
        Regular expression whose first group in such a path is the step; see `trajtools.checkpoints.steps.in_order`.
    include, exclude : sequence of str
        Globs of the arrays that make the state.
    order : sequence of str
        Globs of the arrays that come first, in this order, where the files do not hold the layers in their order.
    key : str, optional
        Entry of the files that holds the weights, dotted (``a.model``), if several could; ``.`` for all.
    rename : sequence of str
        ``OLD=NEW``: arrays whose names begin with OLD begin with NEW in the run; ``model.=`` drops the prefix.
    hparams : mapping, optional
        Kept as JSON.
    compress : {None, "zstd", "gzip"}
        Lossless filter of the weights.
    dataset, axes, holds, layout, metric
        What an HDF5 file of another program holds, as `trajtools.store.foreign.read` takes them: `layout`, or `axes`
        and `holds`.
    progress : callable, optional
        Called with the number of states that are done and of all.

    Returns
    -------
    Conversion
        The files written; of checkpoints their steps, which number of the name was taken, what was left out, and what
        may be wrong.

    Raises
    ------
    DataError
        If there are no checkpoints, one is damaged, their steps are not clear, the declared axes do not fit, or an
        argument is for the other kind of source.
    ArchitectureError
        If two of them differ in names, shapes or dtypes; the message says which, and in what.
    RecordingError
        If an array is not made of real floating-point numbers, or the disk refuses.
    SelectionError
        If a glob or a renaming matches nothing.
    MissingDependencyError
        If the package that reads the files is missing.
    FileExistsError
        If the path is taken.

    Notes
    -----
    The state is what the recorder would have recorded, see `trajtools.checkpoints.weights.weights_of`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import trajtools as tt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/saved.npz", w=np.zeros((5, 2, 3)), b=np.ones((5, 3)))      # five states
    ...     done = tt.convert(f"{folder}/saved.npz", f"{folder}/run.h5")
    ...     with tt.open(done.paths[0]) as run:
    ...         print(run.n_states, run.n_parameters)
    5 9
    """
    target, source = Path(os.path.abspath(path)), Path(source)
    _check_target(target, path)
    for_checkpoints = {
        "name": name, "files": files, "step_pattern": step_pattern, "include": include, "exclude": exclude,
        "order": order, "key": key, "rename": rename,
    }  # fmt: skip
    declared: dict[str, Any] = {"dataset": dataset, "axes": axes, "holds": holds, "layout": layout}
    if any(value is not None for value in declared.values()):
        strange = [word for word, value in for_checkpoints.items() if value]
        if strange:
            raise DataError(f"{strange[0]} is for checkpoints, not for an HDF5 file of another program: drop it")
        declared = {**declared, "metric": metric, "hparams": hparams, "compress": compress}
        return Conversion(tuple(foreign.convert(source, target, **declared)))
    choice: dict[str, Sequence[str]] = {
        "include": _several(include),
        "exclude": _several(exclude),
        "order": _several(order),
    }
    renamed, check_renamed = renaming(_several(rename))
    take = partial(weights_of, key=key, rename=renamed, include=choice["include"])
    if source.is_file():
        series = _of_file(source, files, step_pattern, take)
    else:
        series = _of_folder(source, files, step_pattern, take)
    selection = Selection(source, **choice)
    about = {"source": _text(source.absolute()), "files": files, "rename": list(_several(rename)), "key": key}
    about |= {word: list(globs) for word, globs in choice.items()}
    draft = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        with closing(series):
            options = {"name": name or target.stem, "hparams": hparams, "compress": compress}
            result = _record(series, selection, draft, about, progress, **options)
        check_renamed()
        selection.check()
        publish(draft, target)
    except FileExistsError:
        raise FileExistsError(f"{path} was created by another process meanwhile: choose another file") from None
    finally:
        draft.unlink(missing_ok=True)
    return replace(result, paths=(target,))


def _check_target(target: Path, path: str | os.PathLike[str]) -> None:
    if os.path.lexists(target):  # also a link to nowhere
        raise FileExistsError(f"{path} exists and is never overwritten: choose another file")
    if not target.parent.is_dir():
        raise RecordingError(f"{path} cannot be written: there is no folder {target.parent}")


def _text(name: str | os.PathLike[str]) -> str:
    """Return a name that is no UTF-8, as disks may hold, with its odd bytes written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _several(values: str | Sequence[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


# Where states come from: the order first, then one state after the other


@dataclass(frozen=True)
class State:
    """One state of the run.

    Attributes
    ----------
    name : str
        The checkpoint, for messages.
    weights : Weights
        Its arrays.
    metrics : dict of str to float
        What the file holds of it beside them.
    """

    name: str
    weights: Weights
    metrics: Mapping[str, Any]


Series = Generator[Any, None, None]  # an Order and notes, then a State for each name
Take = Callable[..., Weights]


def _of_folder(folder: Path, files: str, pattern: str | None, take: Take) -> Series:
    """Open the checkpoints of a folder one after the other."""
    several, passed = checkpoints_in(folder, files)
    checkpoints = {one.name: one for one in several}
    order = in_order(list(checkpoints), pattern)
    note = f"{listed(passed, 5)} passed over, where no weights can be read, or which lie beside files that hold them"
    yield order, [note] if passed else []
    for name in order.names:
        with open_checkpoint(checkpoints[name]) as tree:
            yield State(name, take(tree, str(folder / name)), {})


def _of_file(path: Path, files: str, pattern: str | None, take: Take) -> Series:
    """Open a file that holds the whole trajectory."""
    for option, value in (("--files", files), ("--step-pattern", pattern)):
        if value:
            raise DataError(f"{option} chooses among the files of a folder, and {path} is a file: omit it")
    kind = kind_of(path)
    if not kind:
        raise DataError(
            f"{path} is not a checkpoint; needed a folder of checkpoints, or a file with a whole trajectory"
        )
    try:
        with open_checkpoint(Checkpoint(path.name, kind, (path,))) as tree:
            states = _listed_states(tree)
            yield from _one_by_one(path, states, take) if states else _stacked(path, tree, take)
    except DataError as error:
        if kind != "hdf5":
            raise
        words = "if another program wrote it, say what it holds: --layout, or --dataset, --axes and --holds"
        raise DataError(f"{error}; {words}") from error


def _listed_states(tree: Any) -> dict[int, Any]:
    """Return the checkpoints of a list, or of a dict whose keys are steps; empty for anything else."""
    if isinstance(tree, list) and tree and all(isinstance(one, dict) for one in tree):
        return dict(enumerate(tree))
    if isinstance(tree, dict) and tree and all(isinstance(one, dict) for one in tree.values()):
        steps = [int(k) if isinstance(k, int) or (isinstance(k, str) and k.isdecimal()) else -1 for k in tree]
        if min(steps) >= 0 and len(set(steps)) == len(steps):
            return dict(sorted(zip(steps, tree.values(), strict=True)))
    return {}


def _one_by_one(path: Path, states: Mapping[int, Any], take: Take) -> Series:
    names = tuple(f"{path.name}[{step}]" for step in states)
    yield Order(names, tuple(states), "the entry of the file", names[-1]), []
    for name, tree in zip(names, states.values(), strict=True):
        yield State(name, take(tree, f"{path}{name.removeprefix(path.name)}"), {})


def _stacked(path: Path, tree: Any, take: Take) -> Series:
    """Cut arrays along their first axis, which is time."""
    whole = take(tree, str(path))
    arrays = {name: leaf for name, leaf in whole.leaves.items() if not name.startswith(METRICS) and name not in STEPS}
    shapes = [leaf.shape for leaf in arrays.values()]
    count = shapes[0][0] if shapes and shapes[0] else 0
    if not count or any(shape[:1] != (count,) for shape in shapes) or max(map(len, shapes)) < 2:
        listing = listed([f"{name} {leaf.shape}" for name, leaf in arrays.items()], 5)
        raise DataError(
            f"{path} holds one state or one series, not a trajectory ({listing}): needed arrays that all have time as "
            f"their first axis, and one of two axes. If it is one checkpoint of several, convert their folder, "
            f"{path.parent}"
        )
    steps, rule = _steps_of(path, tree, count)
    yield Order(tuple(f"{path.name}[{i}]" for i in range(count)), steps, rule, f"{count} states"), []
    rows = {name: (leaf.rows or leaf.read)() for name, leaf in arrays.items()}
    series = _metrics(whole, count)
    others = [n for n in whole.leaves if n not in arrays and n not in STEPS and n.removeprefix(METRICS) not in series]
    left_out = {**whole.left_out, "not one number for each state": others}
    left_out = {why: some for why, names in left_out.items() if (some := [n for n in names if n not in STEPS])}
    for i in range(count):
        leaves = {name: Leaf(leaf.shape[1:], leaf.dtype, partial(_row, rows[name], i)) for name, leaf in arrays.items()}
        metrics = {name: float(values[i]) for name, values in series.items()}
        yield State(f"{path.name}[{i}]", Weights(leaves, whole.entry, left_out), metrics)


def _metrics(whole: Weights, count: int) -> dict[str, np.ndarray]:
    """Return the metrics that `trajtools export` writes beside the weights: one number for each state."""
    return {
        name.removeprefix(METRICS): leaf.read()
        for name, leaf in whole.leaves.items()
        if name.startswith(METRICS) and leaf.shape == (count,) and name.removeprefix(METRICS) not in RESERVED
    }


def _row(rows: np.ndarray, i: int) -> np.ndarray:
    return np.asarray(rows[i])


def _steps_of(path: Path, tree: Any, count: int) -> tuple[tuple[int, ...], str]:
    """Return the steps that a file of arrays holds beside them, else 0, 1, 2, ..."""
    leaf = next((tree[name] for name in STEPS if isinstance(tree, Mapping) and name in tree), None)
    if not isinstance(leaf, Leaf) or leaf.shape != (count,):
        return tuple(range(count)), "the first axis of the arrays"
    values = np.asarray(leaf.read())
    if not (
        np.isfinite(values).all()
        and (values == np.rint(values)).all()
        and values[0] >= 0
        and (values[1:] > values[:-1]).all()
    ):
        raise DataError(f"{path}: its steps must be whole numbers from 0 that rise, got {listed(values.tolist(), 5)}")
    return tuple(int(v) for v in values), "the steps in the file"


# What is taken of every state


class Selection:
    """The arrays that are the state, settled by the first checkpoint; all others must agree with it."""

    def __init__(
        self, source: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), order: Sequence[str] = ()
    ) -> None:
        self._source, self._include, self._exclude, self._order = source, include, exclude, order
        self.known: dict[str, dict[str, Any]] = {}
        self._first = ""
        self._expected: dict[str, tuple[tuple[int, ...], str]] = {}
        self._unused = list(exclude)

    def take(self, state: State) -> Leaves:
        """Return the selected arrays of a state, in the order of the first."""
        leaves = state.weights.leaves
        if self._unused:
            names = [*leaves, *state.weights.names_left_out]
            self._unused = [pattern for pattern in self._unused if not _matches(pattern, names)]
        if not self._first:
            self._begin(state)
        if leaves.keys() != self._expected.keys():
            self._check_names(state)
        for name, (shape, dtype) in self._expected.items():
            came = leaves[name]
            if (came.shape, came.dtype) != (shape, dtype):
                raise ArchitectureError(
                    f"{self._where(state.name)}: {name!r} is {came.dtype} of shape {came.shape}; needed {dtype} of "
                    f"shape {shape}, as in {self._first}. Leave it out ({_option('--exclude', name)}), or choose other "
                    "files (--files)"
                )
        return {name: leaves[name] for name in self._expected}

    def check(self) -> None:
        """Refuse options that matched nothing, after the last state."""
        if self._unused:
            raise SelectionError(f"--exclude matches no array of any checkpoint: {listed(self._unused)}")

    def _begin(self, state: State) -> None:
        leaves = state.weights.leaves
        exclude = [pattern for pattern in self._exclude if pattern not in self._unused]  # may match a later one
        names = select([*leaves, *state.weights.names_left_out], self._include, exclude)
        chosen = [name for name in names if name in leaves]
        if not chosen:
            raise SelectionError(f"--include and --exclude together select no array of {listed(leaves)}")
        ordered: dict[str, None] = {}
        for pattern in self._order:
            matching = [name for name in chosen if fnmatchcase(name, pattern)]
            if not matching:
                raise SelectionError(f"--order {pattern!r} matches none of the arrays {listed(chosen)}")
            ordered.update(dict.fromkeys(matching))
        ordered.update(dict.fromkeys(chosen))
        self._check_floats(state.name, leaves, list(ordered))
        self._first = state.name
        if len(ordered) < len(leaves):
            self.known = _known(leaves, list(ordered))
        self._expected = {name: (leaves[name].shape, leaves[name].dtype) for name in ordered}

    def _check_floats(self, name: str, leaves: Leaves, chosen: list[str]) -> None:
        strange = [one for one in chosen if leaves[one].dtype not in FLOATS]
        if strange:
            listing = ", ".join(f"{one!r} ({leaves[one].dtype})" for one in strange[:5])
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            out = " ".join(_option("--exclude", one) for one in strange[:5])
            raise RecordingError(
                f"{self._where(name)}: a state is made of {', '.join(FLOATS)}, and {listing}{more} cannot be part "
                f"of it; exclude what is not a weight ({out}), or choose with --include"
            )

    def _check_names(self, state: State) -> None:
        leaves = state.weights.leaves
        missing = [name for name in self._expected if name not in leaves]
        new = [n for n in leaves if n not in self._expected and is_selected(n, self._include, self._exclude)]
        if missing or new:
            words = [f"lacks {listed(missing, 5)}"] * bool(missing) + [f"has the new {listed(new, 5)}"] * bool(new)
            raise ArchitectureError(
                f"{self._where(state.name)} {' and '.join(words)}, compared with {self._first}: all states of a run "
                f"have the same arrays. {_remedy(missing, new)}"
            )

    def _where(self, name: str) -> str:
        return str(self._source / name if self._source.is_dir() else self._source.with_name(name))


def _matches(pattern: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _remedy(missing: Sequence[str], new: Sequence[str]) -> str:
    """Say what to type so that two files agree."""
    for longer, shorter in ((new, missing), (missing, new)):
        if longer and shorter and longer[0].endswith(shorter[0]):
            prefix = longer[0][: -len(shorter[0])]
            if (
                prefix
                and prefix.isprintable()
                and not set("'=") & set(prefix)
                and {name.removeprefix(prefix) for name in longer} == set(shorter)
            ):
                return f"Drop the prefix that some files have: --rename '{prefix}='"
    different = [*missing, *new]
    if len(different) <= 5:
        options = " ".join(_option("--exclude", name) for name in different)
        return f"Leave out what differs ({options}), or choose other files (--files)"
    return (
        "Select the arrays that all files have (--include, --exclude), rename them (--rename), or choose other files "
        "(--files)"
    )


def _option(option: str, name: str) -> str:
    """Return an option that matches one name, as it is typed in a shell."""
    pattern = "".join(letter if letter.isprintable() else "?" for letter in glob.escape(name))
    return f"{option} '" + pattern.replace("'", "'\\''") + "'"


def _known(leaves: Leaves, chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Kinds and axes of the chosen arrays, from all of the file: biases tell how the kernels beside them lie."""
    table, _ = describe({name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items() if leaf.dtype in FLOATS})
    names = set(chosen)
    kernels = [p for p in table if p.name in names and p.kind in ("dense", "conv") and p.source_axis >= 0]
    return {
        "kinds": {p.name: p.kind for p in table if p.name in names},
        "axes": {p.name: (p.source_axis, p.target_axis) for p in kernels},
    }


# Recording


class _Writer:
    """Writes states whose arrays are still in a file, one block of them in memory."""

    def __init__(
        self, path: Path, leaves: Leaves, metrics: Sequence[str], count: int, known: Mapping[str, Any], **about: Any
    ) -> None:
        self.digests: list[bytes] = []
        shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
        if not sum(prod(shape) for shape, _ in shapes.values()):
            raise RecordingError(f"the selected parameters are all empty: {listed(leaves)}")
        parameters, nodes = describe(shapes, **known)
        self._dtype = promote(sorted({dtype for _, dtype in shapes.values()}))
        self._count, self._metrics = count, {name: np.full(count, np.nan) for name in metrics}
        layout = StreamLayout.choose(sum(p.size for p in parameters), 1, self._dtype)
        free = shutil.disk_usage(path.parent).free
        if about["compress"] is None and layout.block_bytes // layout.rows * count > free:
            gigabytes = layout.block_bytes // layout.rows * count / 1e9
            raise RecordingError(
                f"the run will not fit on the disk: {count:,} states, {gigabytes:.3g} GB, {free / 1e9:.3g} GB free. "
                "Take fewer arrays (--include), or compress them (--compress)"
            )
        network = [Member("network")]
        spec = RunSpec(parameters, network, self._dtype, nodes, metrics=metrics, **about)
        self._file = RunWriter.create(path, spec)
        self._steps = np.zeros(count, np.int64)
        self._tiles = self._file.layout.new_tiles()
        self._done = 0

    def put(self, step: int, leaves: Leaves, metrics: Mapping[str, float]) -> None:
        """Take the next state."""
        rows, at = self._file.layout.rows, self._done
        arrays = [leaf.read() for leaf in leaves.values()]
        self.digests.append(digest(arrays))
        flat = [
            self._stored(array, leaf.dtype).reshape(-1) for array, leaf in zip(arrays, leaves.values(), strict=True)
        ]
        self._file.layout.put(self._tiles, at % rows, 0, np.concatenate(flat))
        self._steps[at] = step
        for name, value in metrics.items():
            self._metrics[name][at] = value
        self._done = at + 1
        if self._done % rows == 0 or self._done == self._count:
            block = slice(at // rows * rows, self._done)
            columns = {name: values[block] for name, values in self._metrics.items()}
            self._file.write(
                block.start,
                self._done - block.start,
                step=self._steps[block],
                metrics=columns,
                weights=self._tiles,
                final=self._done == self._count,
            )
            self._tiles = self._file.layout.new_tiles()

    def _stored(self, array: np.ndarray, dtype: str) -> np.ndarray:
        """The array in the dtype of the run; bfloat16 comes as its bits."""
        if dtype == "bfloat16" and self._dtype != "bfloat16":
            array = widen(array)
        return array if self._dtype == "bfloat16" else array.astype(self._dtype, copy=False)

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        self._file.abort()


def _record(
    series: Series,
    selection: Selection,
    draft: Path,
    source: Mapping[str, Any],
    progress: Progress | None,
    **about: Any,
) -> Conversion:
    """Write the states of a series; the only place that writes."""
    order, notes = next(series)
    source = {**source, "first": _text(order.names[0]), "last": _text(order.names[-1]), "step": order.rule}
    writer: _Writer | None = None
    count = len(order.names)
    try:
        for done, (step, state) in enumerate(zip(order.steps, series, strict=True), 1):
            leaves = selection.take(state)
            if writer is None:
                first = state.weights
                source = {**source, "entry": first.entry, "left_out": first.left_out}
                about["provenance"] = {**origin(), "checkpoints": source}
                writer = _Writer(draft, leaves, list(state.metrics), count, selection.known, **about)
            writer.put(step, leaves, state.metrics)
            if progress is not None:
                progress(done, count)
        assert writer is not None
        writer.close()
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    return Conversion(
        (),
        order.names,
        order.steps,
        order.rule,
        order.example,
        first.entry,
        tuple(f"{reason}: {listed(names, 3)}" for reason, names in first.left_out.items()),
        (*notes, *_repeats(order, writer.digests)),
    )


def _repeats(order: Order, digests: Sequence[bytes]) -> tuple[str, ...]:
    """Say how many states are copies of earlier ones."""
    first: dict[bytes, int] = {}
    pairs = [(i, first[one]) for i, one in enumerate(digests) if first.setdefault(one, i) != i]
    if not pairs:
        return ()
    i, earlier = pairs[0]
    return (
        f"{len(pairs)} of {len(digests)} states are byte for byte the same as an earlier one, first "
        f"{order.names[i]} as {order.names[earlier]}: nothing was trained between them, or files were copied",
    )
