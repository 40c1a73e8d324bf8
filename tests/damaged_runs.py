"""Runs to damage, ways to damage them, and a full reading to compare with the truth."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numba
import numpy as np

from trajtools.errors import DamagedError, FormatError, UnsafeFileError
from trajtools.store import Run, RunSpec, RunWriter
from trajtools.store.files import SUPERBLOCK_BYTES
from trajtools.store.isolation import in_child
from trajtools.store.layout import STRUCTURES, pack_json
from trajtools.wiring import Member, NodeSet, Parameter

MEMBERS = (Member("ref"), Member("twin 1", 0, 1e-6, "uniform", 1), Member("twin 2", 0, 1e-6, "uniform", 2))
M = len(MEMBERS)
SIGNATURES = (b"OHDR", b"OCHK", b"EAHD", b"EAIB", b"EASB", b"EADB", b"FAHD", b"FADB", b"FRHP", b"FHDB", b"FHIB",
              b"BTHD", b"BTIN", b"BTLF", b"SMTB", b"FSHD", b"FSSE", b"GCOL", b"HEAP", b"SNOD", b"TREE")  # fmt: skip


def write(
    path: Path,
    n_states: int = 150,
    n_parameters: int = 200,
    *,
    stored: str = "weights",
    compress: str | None = None,
    optimizer: bool = False,
    hparams: dict | None = None,
    flush: Sequence[int] = (7, 22),
    end: str = "complete",
) -> dict[str, np.ndarray]:
    """Write a run with metrics, a late one and plantings; returns what it holds."""
    width = {"weights": n_parameters, "sketch": 8, "distances": 1}[stored]
    parameters = [Parameter("w", "other", (n_parameters,), "float32", 0, n_parameters)]
    extra: dict = {"sketch": {"sketch": {"k": 8}}, "distances": {"distance_metric": "euclidean"}}.get(stored, {})
    if optimizer:
        extra["optimizer"] = {"parameters": [Parameter("w.m", *_rest(parameters[0]))], "dtype": "float32"}
    spec = RunSpec(
        parameters=parameters, members=MEMBERS, nodes=[NodeSet("in", 4)], dtype="float32", stored=stored,
        compress=compress, hparams=hparams or {"lr": 0.1}, provenance={"seed": 3}, **extra,
    )  # fmt: skip
    writer = RunWriter.create(path, spec)
    rng = np.random.default_rng(n_states)
    truth = {
        "step": 10 * np.arange(n_states),
        stored: rng.normal(size=(n_states, M, width)).astype("<f4" if stored == "weights" else "<f8"),
        "loss": rng.normal(size=n_states),
        "accuracy": rng.normal(size=(n_states, M)),
        "late": rng.normal(size=(n_states, M, 2)),
    }
    if optimizer:
        truth["optimizer"] = rng.normal(size=(n_states, M, n_parameters)).astype("<f4")
    rows = writer.layout.rows
    for start in range(0, n_states, rows):
        length = min(rows, n_states - start)
        for count in [n for n in flush if n < length and compress is None] + [length]:
            part = slice(start, start + count)
            names = ("loss", "accuracy", "late") if start else ("loss", "accuracy")
            content: dict = {}
            if stored == "weights":
                content["weights"] = tiles(writer.layout, truth["weights"][part])
            else:
                content[stored] = truth[stored][part, :, 0] if stored == "distances" else truth[stored][part]
            if optimizer:
                content["optimizer"] = tiles(writer.layouts["optimizer"], truth["optimizer"][part])
            writer.write(
                start, count, step=truth["step"][part], metrics={name: truth[name][part] for name in names},
                final=start + count == n_states, **content,
            )  # fmt: skip
    truth["late"][:rows] = np.nan
    for step in (20, 40):
        writer.plant(step, 1, 1e-6, step)
    if end == "killed":
        writer._hdf5.detach()
        writer._raw.close()
        writer._ended = "killed"
    else:
        writer.close(end, overhead={"seconds": 1.0})
    if stored == "distances":
        truth["distances"] = truth["distances"][:, :, 0]
    return truth


def _rest(p: Parameter) -> tuple:
    return p.kind, p.shape, p.dtype, p.offset, p.size


def tiles(layout, states: np.ndarray) -> np.ndarray:
    block = layout.new_tiles()
    for row, member in np.ndindex(states.shape[:2]):
        layout.put(block, row, member, states[row, member])
    return block


def edit_structure(file: h5py.File, change: Callable[[dict], object], *, copies: Sequence[str] = STRUCTURES) -> None:
    """Change the text of the structure, with the checksum made right again, as only a stranger does."""
    value = json.loads(file[STRUCTURES[0]][()].tobytes()[16:])
    change(value)
    for name in copies:
        del file[name]
        file[name] = np.frombuffer(pack_json(json.dumps(value)), np.uint8)


def flip(path: Path, position: int, mask: int = 4) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ mask]))


def chunk_place(path: Path, stream: str, block: int, chunk: int) -> int:
    with Run(path) as run:
        run.locate_all()
        return int(run.blocks._offsets[stream][block, chunk])


# -------------------------------------------------------------------------------------------------- the whole reading


def read_all(path: str) -> dict:
    """Everything that a run gives, as digests, block by block; damage as its sentence."""
    with Run(path) as run:
        result = {
            "about": repr((run.n_states, run.n_members, run.hparams, run.provenance, run.name, run.uuid, run.time_unit,
                           run.parameters, run.members, run.nodes, run.stored, run.optimizer_parameters,
                           run.logical_dtype, run.reference, run.sketch_settings, run.distance_metric)),
            "metrics": attempt(lambda: repr(list(run.metrics))),
            "plantings": attempt(lambda: repr(run.plantings)),
        }  # fmt: skip
        for name in run.axis.streams:
            for block in range(run.blocks.n_blocks):
                first = block * run.axis.rows
                stop = first + run.blocks.rows_of(block)
                rows = slice(first, stop)
                streams = {
                    "metrics": lambda a=first, b=stop: [run.metric(n, a, b) for n in run.metrics],
                    "weights": lambda rows=rows: run.states.read(rows),
                    "optimizer": lambda rows=rows: run.optimizer.read(rows),
                    "member_metrics": lambda: [],
                    "sketch": lambda: [run.sketch],
                }
                read = streams.get(name, lambda name=name, a=first, b=stop: run.series(name, a, b))
                result[f"{name} {block}"] = attempt(lambda read=read: digest(read()))
        return result


def attempt(read: Callable[[], str]) -> str:
    try:
        return read()
    except DamagedError as error:
        return f"damaged: {error}"


def digest(arrays: list[np.ndarray] | np.ndarray) -> str:
    total = hashlib.sha256()
    for array in arrays if isinstance(arrays, list) else [arrays]:
        total.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


LIMITS = {
    "crashed": "crashed in the child",
    "did not end": "ended by the time limit",
    "GiB of memory": "ended by the memory limit",
    "ended the process": "child ended",
}
BATCH = 25
NEVER = {"SILENT", "UNFORESEEN"}


def outcome(answer: object, truth: dict) -> str:
    """What became of a damaged file; 'SILENT' and 'UNFORESEEN' must never happen."""
    if isinstance(answer, UnsafeFileError):
        text = str(answer)
        for word, what in LIMITS.items():
            if word in text:
                return what
        return "UNFORESEEN" if "cannot be opened: " in text and text.endswith(")") else "refused as unsafe"
    if isinstance(answer, Exception):
        return "refused" if isinstance(answer, FormatError) else "UNFORESEEN"
    if answer == truth:
        return "all as written"
    assert isinstance(answer, dict)
    differing = [k for k in {*truth, *answer} if answer.get(k) != truth.get(k)]
    if all(str(answer.get(key, "")).startswith("damaged: ") for key in differing):
        return "damage named, the rest as written"
    return "SILENT"


def tally(
    base: Path, mutate: Callable[[bytearray, np.random.Generator], None], numbers: range, folder: Path, *, seed: int = 0
) -> tuple[Counter, list[tuple[int, str, str]]]:
    """Read mutated copies of a file in children; returns counts of outcomes and the copies worth a look."""
    original = base.read_bytes()
    truth = read_all(str(base))
    counts: Counter = Counter()
    notable = []
    for first in range(0, len(numbers), BATCH):
        paths, part = [], numbers[first : first + BATCH]
        for number in part:
            data = bytearray(original)
            mutate(data, np.random.default_rng((seed, number)))
            paths.append(folder / f"{number}.h5")
            paths[-1].write_bytes(data)
            os.utime(paths[-1], (1, 1))  # long ago: no writer to wait for
        answers = in_child(read_all, [str(path) for path in paths])
        for number, path, (_, answer) in zip(part, paths, answers, strict=True):
            what = outcome(answer, truth)
            counts[what] += 1
            if what in NEVER or what in LIMITS.values():
                notable.append((number, what, str(answer)[:300]))
            os.unlink(path)
    return counts, notable


# ---------------------------------------------------------------------------------------------------------- mutations


@numba.njit
def lookup3(data: np.ndarray) -> int:  # pragma: no cover
    """Checksum of HDF5 metadata, written anew and compiled."""
    m = np.uint64(0xFFFFFFFF)
    n = len(data)
    a = b = c = np.uint64((0xDEADBEEF + n) & 0xFFFFFFFF)
    at = 0
    while n - at > 12:
        x = np.uint64(0)
        y = np.uint64(0)
        z = np.uint64(0)
        for i in range(4):
            x |= np.uint64(data[at + i]) << np.uint64(8 * i)
            y |= np.uint64(data[at + 4 + i]) << np.uint64(8 * i)
            z |= np.uint64(data[at + 8 + i]) << np.uint64(8 * i)
        a, b, c = (a + x) & m, (b + y) & m, (c + z) & m
        for r in ((4, 6, 8), (16, 19, 4)):
            k0, k1, k2 = np.uint64(r[0]), np.uint64(r[1]), np.uint64(r[2])
            w = np.uint64(32)
            a = ((a - c) & m) ^ (((c << k0) | (c >> (w - k0))) & m)
            c = (c + b) & m
            b = ((b - a) & m) ^ (((a << k1) | (a >> (w - k1))) & m)
            a = (a + c) & m
            c = ((c - b) & m) ^ (((b << k2) | (b >> (w - k2))) & m)
            b = (b + a) & m
        at += 12
    if n == at:
        return np.int64(c)
    tail = np.zeros(12, np.uint64)
    for i in range(n - at):
        tail[i] = np.uint64(data[at + i])
    e = np.uint64(8)
    v = np.zeros(3, np.uint64)
    for i in range(12):
        v[i // 4] |= tail[i] << (e * np.uint64(i % 4))
    v[0], v[1], v[2] = (a + v[0]) & m, (b + v[1]) & m, (c + v[2]) & m
    for s in ((1, 2, 14), (2, 0, 11), (0, 1, 25), (1, 2, 16), (2, 0, 4), (0, 1, 14), (1, 2, 24)):
        k = np.uint64(s[2])
        source = v[s[0]]
        v[s[1]] = ((v[s[1]] ^ source) - (((source << k) | (source >> (np.uint64(32) - k))) & m)) & m
    return np.int64(v[2])


@numba.njit
def _length(data: np.ndarray, most: int) -> int:  # pragma: no cover
    """Length of a metadata block before its checksum, found by trying; 0 where none fits."""
    for n in range(8, min(most, len(data) - 4)):
        value = data[n] + (data[n + 1] << 8) + (data[n + 2] << 16) + (np.int64(data[n + 3]) << 24)
        if lookup3(data[:n]) == value:
            return n
    return 0


def metadata_blocks(data: bytes) -> list[tuple[int, int]]:
    """Place and length of each block of HDF5 metadata that has a checksum, the superblock first."""
    array = np.frombuffer(data, np.uint8).astype(np.int64)
    result = [(0, SUPERBLOCK_BYTES - 4)]
    for signature in SIGNATURES:
        at = data.find(signature)
        while at >= 0:
            length = _length(array[at:], 3000)
            if length:
                result.append((at, length))
            at = data.find(signature, at + 1)
    return sorted(result)


def flip_anywhere(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 3)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)


def seal_block(data: bytearray, at: int, length: int) -> None:
    """Make the checksum of a block of metadata right again."""
    block = np.frombuffer(bytes(data[at : at + length]), np.uint8).astype(np.int64)
    data[at + length : at + length + 4] = int(lookup3(block)).to_bytes(4, "little")


class MetadataMutation:
    """Change fields of HDF5's metadata, and make their checksums right again."""

    def __init__(self, data: bytes, *, checksums: bool = True) -> None:
        self.blocks = metadata_blocks(data)
        self._checksums = checksums

    def __call__(self, data: bytearray, rng: np.random.Generator) -> None:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            at, length = self.blocks[rng.integers(len(self.blocks))]
            first = 8 if at == 0 else 4
            place = at + int(rng.integers(first, length))
            match rng.integers(4):
                case 0:
                    data[place] ^= 1 << int(rng.integers(8))
                case 1:
                    data[place] = int(rng.integers(256))
                case 2:
                    value = int(rng.choice([0, 1, 2**16 - 1, 2**31, 2**32 - 1]))
                    data[place : place + 4] = value.to_bytes(4, "little")
                case 3:
                    other = self.blocks[rng.integers(len(self.blocks))][0]
                    value = [0, 2**64 - 1, 2**63 - 1, 2**63, 2**40, len(data), other, at][int(rng.integers(8))]
                    data[place : place + 8] = value.to_bytes(8, "little")
            if self._checksums:
                seal_block(data, at, length)


# ------------------------------------------------------------------------------------------- tasks that do not survive


def crash(path: str) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def end(path: str) -> None:
    os._exit(3)


def hang(path: str) -> None:
    time.sleep(100)


def fill_memory(path: str) -> None:
    np.ones(3 * 2**30, np.uint8)


def raise_bug(path: str) -> None:
    raise LookupError("a bug")
