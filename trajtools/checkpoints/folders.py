"""Which files and folders are checkpoints, by their content: their endings say nothing reliable."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from trajtools.checkpoints import arrays, keras, orbax, pytorch
from trajtools.checkpoints.steps import ENDINGS, numbers_in
from trajtools.errors import DataError
from trajtools.store.strangers import is_run
from trajtools.wiring import listed

KINDS = {
    "npz": arrays.open_npz, "npy": arrays.open_npy, "safetensors": arrays.open_safetensors,
    "msgpack": arrays.open_msgpack, "pickle": arrays.open_pickle, "torch": pytorch.open_zip,
    "old torch": pytorch.open_legacy, "distributed": pytorch.open_distributed, "keras": keras.open_archive,
    "hdf5": keras.open_weights, "orbax": orbax.open_folder,
}  # fmt: skip
READ = (
    "PyTorch (.pt, .pth, .bin, .ckpt, .t7, .tar), .safetensors, .npz, .npy, Keras (.weights.h5, .keras), flax "
    "(.msgpack), pickled arrays, and folders of Orbax and torch.distributed.checkpoint"
)
OTHERS = {
    "lua": "is a file of Torch for Lua: load it with the package torchfile and save its arrays with numpy.savez",
    "tar": "is a tar archive: unpack it (tar -xf) and convert the files in it",
    "gzip": "is compressed: unpack it first (gunzip, unxz, bunzip2 or unzstd)",
    "run": "is a run of trajtools already: trajtools info shows what it holds",
}
# What trainers save beside the weights, and what is no state of its own.
BESIDE = re.compile(
    r"(optim|opt_state|sched|scaler|rng_state|random_states|training_args|trainer_state|sampler|dataloader)",
    re.IGNORECASE,
)
# Of several files of weights in one folder, the first of these; all hold the same.
PREFERRED = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "adapter_model.safetensors")
_SHARD = re.compile(r"(.*?)-(\d{5})-of-(\d{5})(\.\w+)$")
_LUA = tuple(bytes([code, 0, 0, 0]) for code in range(1, 9))
_MSGPACK = re.compile(rb"([\x81-\x8f]|\xde..|\xdf....)[\xa1-\xbf\xd9]", re.DOTALL)  # a dict that begins with a name
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class Checkpoint:
    """The files of one state.

    Attributes
    ----------
    name : str
        Its path below the folder, from which the step is read.
    kind : str
        One of `KINDS` or `OTHERS`, or "damaged".
    paths : tuple of Path
        One file or folder, or the shards of one state.
    index : Path or None
        The file that says which shard holds which array.
    """

    name: str
    kind: str
    paths: tuple[Path, ...]
    index: Path | None = None


@contextmanager
def open_checkpoint(checkpoint: Checkpoint) -> Iterator[Any]:
    """Open a checkpoint: arrays by name, in dicts and lists as the file has them, other objects as inert records."""
    kind, paths = checkpoint.kind, checkpoint.paths
    if kind not in KINDS:
        path = paths[0]
        if not path.stat().st_size:
            raise DataError(f"{path} cannot be read: the file is empty. Copy it again, or choose others with --files")
        why = OTHERS.get(
            kind, f"cannot be read: it is damaged, or none of {READ}. Copy it again, or choose others with --files"
        )
        raise DataError(f"{path} {why}")
    with ExitStack() as opened:
        trees = [opened.enter_context(KINDS[kind](path)) for path in paths]
        yield trees[0] if len(trees) == 1 and checkpoint.index is None else _joined(checkpoint, trees)


def kind_of(path: Path) -> str:
    """Say what a file or folder is, by its content; empty for what is no checkpoint."""
    if path.is_dir():
        if (path / ".metadata").is_file():
            return "distributed"
        return "orbax" if orbax.item_of(path) is not None else ""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _kind_of_zip(path)
    if head[:6] == b"\x93NUMPY":
        return "npy"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "run" if is_run(path) else "hdf5"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "old torch" if pytorch.MAGIC.to_bytes(10, "little") in head[:20] else "pickle"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    if head[257:262] == b"ustar" and path.suffix.lower() in ENDINGS:
        return "tar"
    if head.startswith(_LUA) and path.suffix.lower() in ENDINGS:
        return "lua"
    if head.startswith(_COMPRESSED):
        return "gzip" if {Path(path.stem).suffix.lower(), path.suffix.lower()} & (ENDINGS - {".tar"}) else ""
    if _MSGPACK.match(head):
        return "msgpack"
    return "damaged" if path.suffix.lower() in ENDINGS - {".json", ".index"} else ""


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        names = []
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    if keras.WEIGHTS in names:
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if path.suffix.lower() == ".npz":
        return "npz"
    return "torch" if not names and path.suffix.lower() in ENDINGS else ""


def checkpoints_in(folder: Path, files: str = "") -> tuple[list[Checkpoint], list[str]]:
    """Find the checkpoints of a folder: files, shards that are one state, and folders that hold one.

    Returns
    -------
    tuple of list of Checkpoint, list of str
        The checkpoints, and the numbered folders and archives that are none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist: needed a folder with the checkpoints of a training")
    if kind_of(folder):
        raise DataError(
            f"{folder} is one checkpoint, so one state; needed the folder that holds all of them: {folder.parent}"
        )
    try:
        matches = sorted(folder.glob(files or "*"))
    except (NotImplementedError, ValueError) as problem:
        raise DataError(f"--files {files!r} is not a pattern below {folder} ({problem}); such as '*.npz'") from None
    last = files.rpartition("/")[2]
    matches = [p for p in matches if files or not p.name.startswith(".")]
    matches = [p for p in matches if p.is_dir() or last == p.name or not BESIDE.match(p.name)]
    each = {p: _of_file(folder, p) for p in matches if p.is_file()}
    there = [one for one in each.values() if one is not None]
    endings = {Path(one.name).suffix for one in there if one.kind in KINDS}
    there += [
        Checkpoint(_name(folder, p), "damaged", (p,))
        for p, one in each.items()
        if one is None and p.suffix in endings and numbers_in(p.name)  # one like the others, but not readable
    ]
    if not there or files:
        there += [one for p in matches if p.is_dir() and (one := _of_folder(folder, p)) is not None]
    checkpoints = list({one.name: one for one in there}.values())
    if not checkpoints:
        raise DataError(_nothing(folder, files, matches))
    others = [one for one in checkpoints if one.kind in OTHERS]
    if len(others) < len(checkpoints):
        checkpoints = [one for one in checkpoints if one.kind not in OTHERS]
    _check_kinds(folder, checkpoints)
    if not files:
        _check_mixed(folder, checkpoints)
    used = {one.name.partition("/")[0] for one in checkpoints}
    passed = [_name(folder, p) for p in matches if p.is_dir() and p.name not in used and numbers_in(p.name)]
    passed += [one.name for one in others if one.kind != "run" and numbers_in(one.name)]
    return checkpoints, [] if "/" in files else passed


def _of_file(folder: Path, path: Path) -> Checkpoint | None:
    """Return the checkpoint that a file is, or is a part of."""
    if path.name.endswith(".index.json"):
        return _sharded(folder, path)
    match = _SHARD.match(path.name)
    if match:
        index = path.with_name(f"{match[1]}{match[4]}.index.json")
        return _sharded(folder, index) if index.is_file() else _numbered(folder, path, match)
    kind = kind_of(path)
    return Checkpoint(_name(folder, path), kind, (path,)) if kind else None


def _of_folder(folder: Path, path: Path) -> Checkpoint | None:
    """Return the checkpoint that a folder is, or holds."""
    kind = kind_of(path)
    if ".orbax-checkpoint-tmp" in path.name:  # its writing was never finished
        return None
    if kind:
        return Checkpoint(_name(folder, path), kind, (path,))
    inside = [
        p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".") and not BESIDE.match(p.name)
    ]
    weights = {Path(one.name).name: one for p in inside if (one := _of_file(folder, p)) is not None}
    for name in PREFERRED:
        stem, _, ending = name.rpartition(".")
        shards = re.compile(rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{ending}")
        for called, one in weights.items():
            if called in (name, f"{name}.index.json") or shards.fullmatch(called):
                return one
    if len(weights) > 1:
        raise DataError(
            f"{path} holds several files of weights ({listed(weights, 5)}): choose one with "
            f"--files '{_star(path.name)}/{next(iter(weights))}'"
        )
    return next(iter(weights.values()), None)


def _star(name: str) -> str:
    """Return the glob of folders that are called like this one, but for their numbers."""
    return re.sub(r"[0-9]+(\.[0-9]+)?", "*", name)


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _sharded(folder: Path, index: Path) -> Checkpoint:
    """Return the state whose shards an index lists."""
    with arrays.reading(index):
        table = json.loads(index.read_bytes()) if index.stat().st_size <= arrays.LARGEST_HEADER else {}
        names = sorted(set(table["weight_map"].values())) if isinstance(table, dict) and "weight_map" in table else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError("it is no index of shards: it needs 'weight_map', from arrays to files beside it")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise DataError(
            f"{index} lists {listed(missing, 5)}, and there is no such file: copy it, or choose others with --files"
        )
    paths = tuple(index.parent / name for name in names)
    return Checkpoint(_name(folder, index), kind_of(paths[0]) or "damaged", paths, index)


def _numbered(folder: Path, path: Path, match: re.Match[str]) -> Checkpoint:
    """Return the state of numbered shards without an index."""
    count = int(match[3])
    paths = tuple(
        path.with_name(f"{match[1]}-{i:05d}-of-{match[3]}{match[4]}") for i in range(1, min(count, 10_000) + 1)
    )
    missing = [p.name for p in paths if not p.is_file()]
    if missing:
        raise DataError(
            f"{path} is one of {count} shards, and {listed(missing, 5)} is missing: copy it, or choose others with "
            "--files"
        )
    return Checkpoint(_name(folder, paths[0]), kind_of(paths[0]) or "damaged", paths)


def _joined(checkpoint: Checkpoint, trees: Sequence[Any]) -> dict[str, Any]:
    """Return the arrays of all shards together."""
    whole: dict[str, Any] = {}
    for path, tree in zip(checkpoint.paths, trees, strict=True):
        if not isinstance(tree, dict) or whole.keys() & tree.keys():
            raise DataError(f"{path} is no shard of {checkpoint.name}: it holds arrays that another shard holds")
        whole.update(tree)
    if checkpoint.index is not None:
        listing = json.loads(checkpoint.index.read_bytes())["weight_map"]
        missing = [name for name in listing if name not in whole]
        if missing:
            raise DataError(
                f"{checkpoint.index} lists {listed(missing, 5)}, which its shards do not hold: copy them again"
            )
        whole = {name: whole[name] for name in [*listing, *(n for n in whole if n not in listing)]}
    return whole


def _check_kinds(folder: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse several kinds in one folder, with a glob that chooses one of them."""
    kinds: dict[str, list[str]] = {}
    for one in checkpoints:
        if one.kind != "damaged":  # an error of its own, when it is opened
            kinds.setdefault(one.kind.removeprefix("old "), []).append(one.name)
    if len(kinds) < 2:
        return
    ways = []
    for names in kinds.values():
        ending = Path(names[0]).suffix
        glob = f"{'*/' * names[0].count('/')}*{ending}"
        if ending and [one.name for one in checkpoints if fnmatchcase(one.name, glob)] == names:
            ways.append(f"--files '{glob}'")
    raise DataError(
        f"{folder} holds checkpoints of several kinds ({', '.join(f'{n[0]}: {kind}' for kind, n in kinds.items())}); "
        f"one run is made of one kind: choose with {' or '.join(ways) or '--files'}"
    )


def _check_mixed(folder: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Point to the numbered folders, where the files beside them have no step in their names."""
    if all(numbers_in(one.name) for one in checkpoints):
        return
    deeper = _deeper(folder)
    if deeper and not any(numbers_in(one.name) for one in checkpoints):
        raise DataError(
            f"{checkpoints[0].name} has no number in its name, so its step is unknown; the folders beside it have "
            f"(such as {deeper[0].name}): choose with --files '{_glob_of(folder, deeper[0])}'"
        )


def _deeper(folder: Path) -> list[Checkpoint]:
    """Return a checkpoint in the first numbered folder that holds one."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and numbers_in(path.name):
            try:
                one = _of_folder(folder, path)
            except DataError:
                continue
            if one is not None:
                return [one]
    return []


def _glob_of(folder: Path, one: Checkpoint) -> str:
    parent, _, last = one.name.rpartition("/")
    return f"{_star(parent)}/{last}" if parent else _star(last)


def _nothing(folder: Path, files: str, there: Sequence[Path]) -> str:
    if files:
        return f"--files {files!r} matches no checkpoint in {folder}; needed {READ}"
    for depth in ("*/*/*", "*/*/*/*"):
        for path in sorted(folder.glob(depth)):
            if path.is_file() and not BESIDE.match(path.name) and kind_of(path) in KINDS:
                pattern = "*/" * depth.count("/") + path.name
                return (
                    f"{folder} holds no checkpoint itself, its folders do (such as {_name(folder, path)}): choose with "
                    f"--files '{pattern}'"
                )
    holds = listed([p.name for p in there], 5) if there else "nothing"
    return f"{folder} holds no checkpoint: needed {READ}; it holds {holds}"
