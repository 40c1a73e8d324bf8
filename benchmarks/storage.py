"""Recording and reading files: rows of `table.py`, against raw reads and writes of the same bytes and other formats.

    python benchmarks/table.py --only storage
    python benchmarks/storage.py blocking [FOLDER]     # how long `record()` holds up the loop
    python benchmarks/storage.py memory [FOLDER]       # peak memory of recording 10^7 weights
    python benchmarks/storage.py threads [FOLDER]      # `tt.twins` of a file on one thread and on all, by the clock too

Files of the table lie in memory where the machine has a file system there: what is measured is the processor, not a
disk. Each way of writing begins by deleting what it wrote before.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from measure import Growth, Item, Maker, Row, Skipped, installed
from numba import get_num_threads, set_num_threads
from series import power

import trajtools as tt
from recorders import Recorder
from trajtools.store import Run, RunSpec, RunWriter
from trajtools.wiring import Member, Parameter

IN_MEMORY = Path("/dev/shm")
TWINS = {  # states, members, weights
    "9 members of 2 x 10^6 weights": (8, 9, 2_000_000),
    "9 members of 2 x 10^4 weights": (256, 9, 20_000),
    "1350 members of 100 weights": (64, 1350, 100),
}


# -- writing -----------------------------------------------------------------------------------------------------------


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def write_recorder(folder: Path, states: list[dict[str, Any]], recorder_of: Any = Recorder) -> None:
    with recorder_of(emptied(folder) / "run.h5", states[0], quiet=True, metrics=("loss",)) as recorder:
        for step, state in enumerate(states):
            recorder.record(state, step=step, loss=0.0)


def write_raw(folder: Path, states: list[dict[str, np.ndarray]]) -> None:
    """Every state copied once, then written in blocks of some MiB to one file."""
    size = sum(a.size for a in states[0].values())
    rows = max(1, 2**24 // (4 * size))
    block = np.zeros((rows, size), "f4")
    with open(emptied(folder) / "raw", "wb", buffering=0) as file:
        for i, state in enumerate(states):
            np.concatenate([a.reshape(-1) for a in state.values()], out=block[i % rows])
            if i % rows == rows - 1 or i == len(states) - 1:
                file.write(block[: i % rows + 1].data)


def write_npy(folder: Path, states: list[dict[str, np.ndarray]]) -> None:
    emptied(folder)
    for i, state in enumerate(states):
        np.save(folder / f"{i}.npy", np.concatenate([a.reshape(-1) for a in state.values()]))


def write_torch(folder: Path, states: list[dict[str, np.ndarray]]) -> Any:
    torch = installed("torch")
    tensors = [{name: torch.from_numpy(a) for name, a in state.items()} for state in states]

    def write() -> None:
        emptied(folder)
        for i, state in enumerate(tensors):
            torch.save(state, folder / f"{i}.pt")

    return write


def write_safetensors(folder: Path, states: list[dict[str, np.ndarray]]) -> Any:
    save = installed("safetensors.numpy").save_file

    def write() -> None:
        emptied(folder)
        for i, state in enumerate(states):
            save(state, folder / f"{i}.safetensors")

    return write


def write_h5py(folder: Path, states: list[dict[str, np.ndarray]]) -> None:
    """One row at a time, chunks of one state."""
    size = sum(a.size for a in states[0].values())
    with h5py.File(emptied(folder) / "plain.h5", "w", libver="v110") as file:
        data = file.create_dataset("weights", (0, size), "f4", maxshape=(None, size), chunks=(1, size))
        for i, state in enumerate(states):
            data.resize(i + 1, 0)
            data[i] = np.concatenate([a.reshape(-1) for a in state.values()])


def write_zarr(folder: Path, states: list[dict[str, np.ndarray]]) -> Any:
    zarr = installed("zarr")
    size = sum(a.size for a in states[0].values())

    def write() -> None:
        data = zarr.create_array(emptied(folder) / "plain.zarr", shape=(len(states), size), chunks=(1, size),
                                 dtype="f4", compressors=None)  # fmt: skip
        for i, state in enumerate(states):
            data[i] = np.concatenate([a.reshape(-1) for a in state.values()])

    return write


def torch_way(folder: Path, states: list[dict[str, np.ndarray]]) -> Any:
    """Weights of torch on the CPU, in one place, as an optimiser leaves them."""
    torch, recorder = installed("torch"), installed("recorders.torch").Recorder
    state = {name: torch.from_numpy(a) for name, a in states[0].items()}
    return partial(write_recorder, folder, [state] * len(states), recorder)


def jax_way(folder: Path, states: list[dict[str, np.ndarray]]) -> Any:
    """New arrays of JAX at every step."""
    jax, recorder = installed("jax"), installed("recorders.jax").Recorder
    new = {id(state): {name: jax.numpy.asarray(a) for name, a in state.items()} for state in states}
    return partial(write_recorder, folder, [new[id(state)] for state in states], recorder)


def layers(size: int) -> list[tuple[int, ...]]:
    """Six arrays of about so many numbers together."""
    hidden = max(1, (size - 1) // 200)
    return [(100, hidden), (hidden,), (hidden, 50), (50,), (hidden, 49), (1,)]


def recording_row(folder: Path, weights: int, count: int) -> Row:
    rng = np.random.default_rng(0)
    few = [{str(k): rng.standard_normal(shape, dtype="f4") for k, shape in enumerate(layers(weights))} for _ in "ab"]
    states = [few[i % 2] for i in range(count)]
    size = sum(a.size for a in states[0].values())
    out = folder / "out"
    lazy = {"torch.save": write_torch, "safetensors": write_safetensors, "zarr": write_zarr}
    ready = {"np.save": write_npy, "h5py": write_h5py}
    peers: dict[str, Maker] = {name: partial(make, out, states) for name, make in lazy.items()}
    peers |= {name: lambda write=write: partial(write, out, states) for name, write in ready.items()}
    return Row(
        f"record {count} states of {size:,} float32 in six arrays",
        partial(write_recorder, out, states),
        peers,
        ("raw write and a copy", lambda: partial(write_raw, out, states)),
    )


def framework_rows(folder: Path, weights: int, count: int) -> Iterator[Row]:
    """States of torch and JAX against a raw write of the same bytes."""
    rng = np.random.default_rng(0)
    few = [{str(k): rng.standard_normal(shape, dtype="f4") for k, shape in enumerate(layers(weights))} for _ in "ab"]
    states = [few[i % 2] for i in range(count)]
    size = sum(a.size for a in states[0].values())
    for name, way in (("torch", torch_way), ("JAX", jax_way)):
        try:
            ours = way(folder / "out", states)
        except Skipped:
            continue
        yield Row(
            f"record {count} states of {size:,} float32 in six arrays of {name}",
            ours,
            limit=("raw write and a copy", lambda: partial(write_raw, folder / "out", states)),
        )


def create(path: Path, n_members: int, size: int) -> RunWriter:
    """A run of which all members but the first are twins of the first."""
    parameters = [Parameter("w", "other", (size,), "float32", 0, size)]
    members = [Member("0"), *(Member(str(i), reference=0, epsilon=1e-6) for i in range(1, n_members))]
    return RunWriter.create(path, RunSpec(parameters, members, "float32"), mode="w")


def write_run(path: Path, n_states: int, n_members: int, size: int) -> Path:
    writer = create(path, n_members, size)
    tiles = writer.layout.new_tiles()
    tiles[:] = np.random.default_rng(0).standard_normal(tiles.shape)
    rows = writer.layout.rows
    for start in range(0, n_states, rows):
        writer.write(start, rows, step=np.arange(start, start + rows), weights=tiles)
    writer.close()
    return path


def small_run_rows(folder: Path) -> Iterator[Row]:
    """Ten states of 83 weights: a run, and a plain file with a dataset and ten attributes."""
    values = np.zeros((10, 1, 83), "f4")
    ours, other = folder / "small.h5", folder / "small plain.h5"

    def write() -> None:
        writer = create(ours, 1, 83)
        tiles = writer.layout.new_tiles()
        writer.write(0, 10, step=np.arange(10), weights=tiles, metrics={"loss": np.zeros(10)})
        writer.close()

    def read() -> None:
        with Run(ours) as run:
            run.step  # noqa: B018

    def plain() -> None:
        with h5py.File(other, "w", libver="v110") as file:
            file.create_dataset("weights", data=values, maxshape=(None, 1, 83), chunks=(64, 1, 83))
            file.create_dataset("step", data=np.arange(10))
            for number in range(10):
                file.attrs[f"a{number}"] = "x" * 100

    def read_one() -> None:
        with h5py.File(other, "r") as file:
            file["step"][:]

    write()
    plain()
    yield Row("create, write and close a run of 10 states x 83", write, {"h5py, ten attributes": lambda: plain})
    yield Row("open a run of 10 states x 83", read, {"h5py": lambda: read_one})


# -- reading -----------------------------------------------------------------------------------------------------------


def raw_read(path: Path) -> Maker:
    def make() -> Any:
        buffer = memoryview(bytearray(path.stat().st_size))

        def read() -> None:
            with open(path, "rb", buffering=0) as file:
                file.readinto(buffer)

        return read

    return make


def twins_of(path: Path) -> np.ndarray:
    with Run(path) as run:
        return tt.twins(run).distances


def twins_by_h5py(path: Path, rows: int) -> np.ndarray:
    """Blocks read by h5py, and the differences summed by numpy."""
    blocks = []
    with h5py.File(path, "r") as file:
        weights = file["weights"]
        for start in range(0, len(weights), rows):
            block = weights[start : start + rows]
            blocks.append(np.abs(block[:, 1:] - block[:, :1]).sum(axis=2, dtype=np.float64))
    return np.concatenate(blocks).T


def twins_row(folder: Path, name: str) -> Row:
    n_states, n_members, size = TWINS[name]
    path = write_run(folder / "twins.h5", n_states, n_members, size)
    rows = max(1, 2**26 // (4 * n_members * size))

    def check(answers: dict[str, Any]) -> None:
        np.testing.assert_allclose(answers["ours"], answers["h5py and numpy"], rtol=1e-6)

    return Row(
        f"`tt.twins` of a file, {name}, {path.stat().st_size / 1e6:.0f} MB",
        partial(twins_of, path),
        {"h5py and numpy": lambda: partial(twins_by_h5py, path, rows)},
        ("raw read", raw_read(path)),
        check,
    )


def scan_of(path: Path) -> None:
    with Run(path) as opened:
        for _ in opened.trajectory().blocks():
            pass


def scan_row(path: Path) -> Row:
    """All states of a run; h5py reads the same file."""

    def scan_by_h5py() -> None:
        with h5py.File(path, "r") as opened:
            opened["weights"][:, 0]

    with Run(path) as run:
        shape = f"{run.n_states:,} states of {run.n_parameters:,} weights"
    return Row(f"all {shape} of a run, verified, {path.stat().st_size / 1e6:.0f} MB", partial(scan_of, path),
               {"h5py": lambda: scan_by_h5py}, ("raw read", raw_read(path)))  # fmt: skip


def reading_rows(folder: Path, n_states: int, size: int) -> Iterator[Row]:
    """All states, single states, and one weight at all times of one run; h5py reads the same file or one in a piece."""
    path, plain = write_run(folder / "run.h5", n_states, 1, size), folder / "plain.h5"
    yield scan_row(path)
    with Run(path) as run, h5py.File(plain, "w") as file:
        x = run.trajectory()
        dataset = file.create_dataset("w", data=x.read())
        some = np.random.default_rng(1).integers(0, len(x), 50).tolist()
        raw = np.memmap(plain, "f4", "r", offset=dataset.id.get_offset(), shape=dataset.shape)

        def equal(answers: dict[str, Any]) -> None:
            for values in answers.values():
                np.testing.assert_array_equal(np.squeeze(values), np.squeeze(answers["ours"]))

        yield Row(f"50 single states of {power(size)} weights", lambda: [x[i] for i in some],
                  {"h5py, in a piece": lambda: lambda: [dataset[i] for i in some]},
                  ("numpy copy of a memory map", lambda: lambda: [raw[i].copy() for i in some]), equal)  # fmt: skip
        yield Row(f"one weight at {len(x)} times", lambda: x.read(columns=slice(size // 2, size // 2 + 1)),
                  {"h5py, in a piece": lambda: lambda: dataset[:, size // 2]},
                  ("numpy copy of a memory map", lambda: raw[:, size // 2].copy), equal)  # fmt: skip


def recording_of(folder: Path, count: int, members: int, weights: int) -> Any:
    state = {"w": np.zeros((members, weights), "f4")}

    def record() -> None:
        with Recorder(emptied(folder / "out") / "run.h5", state, members=members, quiet=True) as recorder:
            for step in range(count):
                recorder.record(state, step=step, loss=0.0)

    return record


def opening_of(folder: Path, n_states: int, n_members: int, size: int) -> Any:
    path = write_run(folder / f"open {n_states} {n_members}.h5", n_states, n_members, size)

    def read() -> None:
        with Run(path) as run:
            run.step  # noqa: B018

    return read


def growths(folder: Path, quick: bool) -> Iterator[Growth]:
    """Recording, opening, and twins, against states, members and weights."""
    n = 4 if quick else 5
    fours = [4**k for k in range(n)]
    yield Growth("record, 1,000 weights", "states", [250 * k for k in fours],
                 lambda t: recording_of(folder, t, 1, 1000), "1")  # fmt: skip
    yield Growth("record 64 states of 1,000 weights", "members", [4 * k for k in fours],
                 lambda m: recording_of(folder, 64, m, 1000), "1")  # fmt: skip
    yield Growth("record 32 states", "weights", [1000 * 4 * k for k in fours],
                 lambda p: recording_of(folder, 32, 1, p), "1")  # fmt: skip
    yield Growth("open a run", "states", [250 * k for k in fours], lambda t: opening_of(folder, t, 1, 16),
                 "0 to 1: the steps are read")  # fmt: skip
    yield Growth("open a run of 64 states", "members", [4 * k for k in fours], lambda m: opening_of(folder, 64, m, 16),
                 "0 to 1: the members are described")  # fmt: skip
    twins = lambda t, m, p: partial(twins_of, write_run(folder / f"twins {t} {m} {p}.h5", t, m, p))  # noqa: E731
    yield Growth("`tt.twins`, 9 members of 1,000 weights", "states", [64 * k for k in fours],
                 lambda t: twins(t, 9, 1000), "1")  # fmt: skip
    yield Growth("`tt.twins`, 64 states of 1,000 weights", "members", [4 * k for k in fours],
                 lambda m: twins(64, m, 1000), "1")  # fmt: skip
    yield Growth("`tt.twins`, 32 states of 9 members", "weights", [1000 * k for k in fours],
                 lambda p: twins(32, 9, p), "1")  # fmt: skip
    yield Growth("`Divergence.fit`, 400 steps", "members", [4 * k for k in fours], fit_of, "1")


def fit_of(members: int) -> Any:
    """Exponent of curves that grow by 0.1 a step with noise, of groups of four copies."""
    rng, t = np.random.default_rng(0), np.arange(400.0)
    curves = 1e-10 * np.exp(np.minimum(0.1 * t, 22) + 0.2 * rng.standard_normal((members, 400)))
    divergence = tt.Divergence.from_distances(curves.T, group=(np.arange(members) // 4).tolist())
    return divergence.fit


def items(quick: bool = False) -> Iterator[Item]:
    """Rows of the table, and how the costs grow."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as name:
        folder = Path(name)
        yield recording_row(folder, 100_000, 32 if quick else 256)
        yield from framework_rows(folder, 100_000, 32 if quick else 256)
        yield from framework_rows(folder, 200, 1000 if quick else 10_000)
        if not quick:
            yield recording_row(folder, 10_000_000, 8)
        yield from small_run_rows(folder)
        for twins in list(TWINS)[1 if quick else 0 :]:
            yield twins_row(folder, twins)
        for n_states, size in [(1024, 100)] if quick else [(65_536, 100), (16_384, 1000)]:
            yield scan_row(write_run(folder / "scan.h5", n_states, 1, size))
        yield from reading_rows(folder, 256 if quick else 2000, 100_000 if not quick else 10_000)
        for path in folder.glob("*.h5"):
            path.unlink()
        yield from growths(folder, quick)


# -- how long record() holds up the loop, and memory -------------------------------------------------------------------


SEVERAL = {"a": (784, 100), "a.bias": (100,), "b": (100, 200), "b.bias": (200,), "c": (200, 6), "c.bias": (6,)}


def several() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype("f4") for name, shape in SEVERAL.items()}


def one(size: int = 100_000) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(0).standard_normal(size).astype("f4")}


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def fresh(folder: Path) -> Path:
    path = folder / "bench.bin"
    path.unlink(missing_ok=True)
    return path


def copy(state: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> None:
    for key, array in state.items():
        targets[key][...] = array


def blocking(folder: Path, n: int = 1600) -> None:
    print("record() with a free buffer: microseconds over those allowed, 1.5 plain copies + 50 (bound: <= 1)")
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((128, 784)).astype("f4"), rng.standard_normal((784, 128)).astype("f4")
    for busy in (False, True):
        for name, state in (("several arrays", several()), ("one array", one())):
            for writer in ("thread", "direct"):
                copies: list[float] = []
                records: list[float] = []
                targets = {key: np.empty_like(array) for key, array in state.items()}
                with Recorder(fresh(folder), state, writer=writer, quiet=True) as recorder:
                    for step in range(1, n):
                        if busy:  # what a training step leaves of the caches
                            x.T @ (x @ w)
                        for key in state:
                            state[key] += np.float32(1e-3)
                        if step % 2:
                            copies.append(timed(partial(copy, state, targets)))
                        else:
                            records.append(timed(partial(recorder.record, state, step=step, loss=0.0)))
                allowed = 1.5 * median(copies) + 50e-6
                doing = "between matrix products" if busy else "in a bare loop"
                print(
                    f"  {name:14s} {writer:6s} {doing:24s} {median(records) / allowed:5.2f}   "
                    f"(plain copies: {median(records) / median(copies):.1f})"
                )


def peak_bytes() -> int:
    """Largest resident memory so far; ru_maxrss would count that of the process that started this one (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def large(folder: Path, writer: str) -> None:
    """Run in a process of its own: 1e7 weights, every 10th of 300 steps; prints peaks in states."""
    state = {"w": np.full(10_000_000, 0.5, "f4")}
    size = state["w"].nbytes
    before = peak_bytes()
    with Recorder(fresh(folder), state, every=10, writer=writer, quiet=True) as recorder:
        for _ in range(300):
            state["w"] += np.float32(1e-3)
            recorder.advance(state)
    more = peak_bytes() - before
    print(f"  {writer:6s} {more / 2**20:6.0f} MiB more than before it opened, {more / size:.1f} states")


def memory(folder: Path) -> None:
    print("1e7 float32 weights, every 10th of 300 steps: peak memory of the recorder (bound: 256 MiB and a state)")
    for writer in ("thread", "direct"):
        subprocess.run([sys.executable, __file__, "memory", str(folder), "--large", writer], check=True)


def threads(folder: Path, turns: int = 15) -> None:
    print("`tt.twins` of a file: time of a raw read of the same bytes over ours, the least of turns (bound: 0.9 by the")
    print("clock with two free cores)")
    numbers = sorted({1, get_num_threads()})
    for name, shape in TWINS.items():
        path = write_run(folder / "twins.h5", *shape)
        ways = {"raw": raw_read(path)(), **{str(n): partial(on_threads, n, path) for n in numbers}}
        wall: dict[str, list[float]] = {way: [] for way in ways}
        processor: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(turns + 1):
            for way, act in ways.items():
                began = time.process_time()
                taken = timed(act)
                if turn:  # kernels are loaded in the first
                    wall[way].append(taken)
                    processor[way].append(time.process_time() - began)
        for way in list(ways)[1:]:
            clock, cost = (min(times["raw"]) / min(times[way]) for times in (wall, processor))
            print(f"  {name:32s} threads: {way:3s} by the clock {clock:5.2f}   in processor time {cost:5.2f}")


def on_threads(number: int, path: Path) -> np.ndarray:
    most = get_num_threads()
    set_num_threads(number)
    try:
        return twins_of(path)
    finally:
        set_num_threads(most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("blocking", "memory", "threads"))
    parser.add_argument("folder", nargs="?", default=".", type=Path)
    parser.add_argument("--large", choices=["thread", "direct"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.large:
        large(options.folder, options.large)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        {"blocking": blocking, "memory": memory, "threads": threads}[options.what](Path(scratch))


if __name__ == "__main__":
    main()
