"""What checksums, verified reading and small files cost, as ratios to plain h5py and to raw reads of the same bytes.

``OMP_NUM_THREADS=1 python benchmarks/store_speed.py [folder]``. Numbers are least processor times of interleaved
rounds, which depend less on what else the machine does than wall times; the folder should be in memory or in the page
cache.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

# The package of this folder, or of the checkout named by TRAJTOOLS_ROOT: the same program measures both.
ROOT = Path(os.environ.get("TRAJTOOLS_ROOT", Path(__file__).resolve().parents[1]))
sys.path[:0] = [str(ROOT)]

import trajtools as tt  # noqa: E402
from trajtools.store import Run, RunWriter  # noqa: E402
from trajtools.wiring import Member, Parameter  # noqa: E402

TWINS = {
    "2 x 10^6 weights x 9": (8, 9, 2_000_000),
    "2 x 10^4 weights x 9": (256, 9, 20_000),
    "10^5 weights x 2": (256, 2, 100_000),
    "100 weights x 1350": (64, 1350, 100),
}
SHAPES = {"P = 1e5": (512, 1, 100_000), "P = 1e6": (64, 1, 1_000_000), "83 weights, 100 members": (1280, 100, 83)}


def least(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times = {name: float("inf") for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name] = min(times[name], time.process_time() - start)
    return times


def create(path: Path, n_members: int, size: int) -> RunWriter:
    parameters = [Parameter("w", "other", (size,), "float32", 0, size)]
    members = [Member(str(i)) for i in range(n_members)]
    return RunWriter.create(path, mode="w", parameters=parameters, members=members, dtype="float32")


def write_ours(path: Path, tiles: np.ndarray, n_states: int, n_members: int, size: int) -> None:
    writer = create(path, n_members, size)
    rows = writer.layout.rows
    loss = np.zeros(rows)
    for start in range(0, n_states, rows):
        writer.write(start, rows, step=np.arange(start, start + rows), tiles=tiles, metrics={"loss": loss})
    writer.close()


def write_plain(path: Path, tiles: np.ndarray, n_states: int, n_members: int, size: int) -> None:
    """The same chunks with h5py alone, without checksums or anything that a kill would leave whole."""
    _, pieces, rows, columns = tiles.shape
    with h5py.File(path, "w", libver="v110") as file:
        chunks = (rows, 1, columns)
        weights = file.create_dataset(
            "weights", (0, n_members, size), "f4", maxshape=(None, n_members, size), chunks=chunks
        )
        step = file.create_dataset("step", (0,), "i8", maxshape=(None,), chunks=(rows,))
        for start in range(0, n_states, rows):
            weights.resize(start + rows, 0)
            step.resize(start + rows, 0)
            step[start:] = np.arange(start, start + rows)
            for member in range(n_members):
                for piece in range(pieces):
                    weights.id.write_direct_chunk((start, member, piece * columns), tiles[member, piece])
            file.flush()


def read_ours(path: Path) -> None:
    with Run(path) as run:
        run.states.read()


def read_again(run: Run) -> None:
    run.states.read()


def read_plain(path: Path) -> None:
    with h5py.File(path, "r") as file:
        file["weights"][:]


def read_raw(path: Path, buffer: memoryview) -> None:
    with open(path, "rb", buffering=0) as file:
        file.readinto(buffer)


def large_runs(folder: Path, rounds: int) -> None:
    for name, (n_states, n_members, size) in SHAPES.items():
        ours, plain = folder / "ours.h5", folder / "plain.h5"
        writer = create(ours, n_members, size)
        tiles = writer.layout.new_tiles()
        writer.abort()
        tiles[:] = np.random.default_rng(0).standard_normal(tiles.shape)
        shape = (n_states // writer.layout.rows * writer.layout.rows, n_members, size)
        seconds = least(
            {
                "ours": lambda a=(ours, tiles, *shape): write_ours(*a),  # type: ignore[misc]
                "plain": lambda a=(plain, tiles, *shape): write_plain(*a),  # type: ignore[misc]
            },
            rounds,
        )
        megabytes = np.prod(shape) * 4 / 2**20
        print(f"{name}: {megabytes:.0f} MB")
        print(f"  writing, over h5py without checksums   {seconds['ours'] / seconds['plain']:.2f}")
        buffer = memoryview(bytearray(int(megabytes * 2**20)))
        with Run(ours) as run:
            run.states.read()
            seconds = least(
                {
                    "ours": lambda p=ours: read_ours(p),  # type: ignore[misc]
                    "again": lambda r=run: read_again(r),  # type: ignore[misc]
                    "h5py": lambda p=ours: read_plain(p),  # type: ignore[misc]
                    "raw": lambda p=ours, b=buffer: read_raw(p, b),  # type: ignore[misc]
                },
                rounds,
            )
        print(f"  verified reading, over h5py            {seconds['ours'] / seconds['h5py']:.2f}")
        print(f"  reading what is verified, over h5py    {seconds['again'] / seconds['h5py']:.2f}")
        print(f"  verified reading, over a raw read      {seconds['ours'] / seconds['raw']:.2f}")
        print(f"  verified reading                       {megabytes / seconds['ours']:.0f} MB/s")
        ours.unlink()
        plain.unlink()


def twins(folder: Path, rounds: int) -> None:
    """Distances of twins to their references, block by block, and one state, over raw and plain reads."""
    for name, (n_states, n_members, size) in TWINS.items():
        path, plain = folder / "twins.h5", folder / "plain.h5"
        parameters = [Parameter("w", "other", (size,), "float32", 0, size)]
        members = [Member("0"), *(Member(str(i), reference=0, epsilon=1e-6) for i in range(1, n_members))]
        writer = RunWriter.create(path, parameters=parameters, members=members, dtype="float32")
        tiles = writer.layout.new_tiles()
        tiles[:] = np.random.default_rng(0).standard_normal(tiles.shape)
        for start in range(0, n_states, writer.layout.rows):
            writer.write(start, writer.layout.rows, step=np.arange(start, start + writer.layout.rows), tiles=tiles)
        writer.close()
        buffer = memoryview(bytearray(path.stat().st_size))
        with Run(path) as run, h5py.File(plain, "w") as file:
            x = run.trajectory()
            dataset = file.create_dataset("w", data=x.read())  # in one piece
            some = np.random.default_rng(1).integers(0, len(x), 50).tolist()

            def compare(p: Path = path) -> None:
                with Run(p) as opened:
                    tt.twins(opened)

            def scan(p: Path = path) -> None:
                with Run(p) as opened:
                    for _ in opened.trajectory().blocks():
                        pass

            def scan_plain(p: Path = path) -> None:
                with h5py.File(p, "r") as opened:
                    opened["weights"][:, 0]

            compare()
            seconds = least(
                {
                    "twins": compare,
                    "raw": lambda p=path, b=buffer: read_raw(p, b),  # type: ignore[misc]
                    "scan": scan,
                    "h5py": scan_plain,
                    "states": lambda x=x, some=some: [x[i] for i in some],  # type: ignore[misc]
                    "plain": lambda d=dataset, some=some: [d[i] for i in some],  # type: ignore[misc]
                },
                rounds,
            )
        gigabytes = path.stat().st_size / 1e9
        print(f"{name}: {gigabytes:.2f} GB")
        print(
            f"  twins  {gigabytes / seconds['twins']:.2f} GB/s, of a raw read {seconds['raw'] / seconds['twins']:.2f}"
        )
        print(f"  all states of one member, verified: of h5py's speed {seconds['h5py'] / seconds['scan']:.2f}")
        print(f"  one state, over one of a contiguous dataset {seconds['states'] / seconds['plain']:.1f}")
        path.unlink()
        plain.unlink()


def small_runs(folder: Path, count: int) -> None:
    """Ten states of 83 weights: a run, and a plain file with a dataset and ten attributes."""
    values = np.zeros((10, 1, 83), "f4")
    times: dict[str, list[float]] = {name: [] for name in ("write", "open", "write plain", "open plain")}

    def clock(name: str, function: Callable[[], object]) -> None:
        start = time.process_time()
        function()
        times[name].append(time.process_time() - start)

    def write(path: Path) -> None:
        writer = create(path, 1, 83)
        tiles = writer.layout.new_tiles()
        writer.write(0, 10, step=np.arange(10), tiles=tiles, metrics={"loss": np.zeros(10)})
        writer.close()

    def read(path: Path) -> None:
        with Run(path) as run:
            run.step  # noqa: B018

    def plain(path: Path) -> None:
        with h5py.File(path, "w", libver="v110") as file:
            file.create_dataset("weights", data=values, maxshape=(None, 1, 83), chunks=(64, 1, 83))
            file.create_dataset("step", data=np.arange(10))
            for number in range(10):
                file.attrs[f"a{number}"] = "x" * 100

    def read_one(path: Path) -> None:
        with h5py.File(path, "r") as file:
            file["step"][:]

    for number in range(count):
        ours, other = folder / f"{number}.h5", folder / f"{number}.plain.h5"
        clock("write", lambda path=ours: write(path))  # type: ignore[misc]
        clock("write plain", lambda path=other: plain(path))  # type: ignore[misc]
        clock("open", lambda path=ours: read(path))  # type: ignore[misc]
        clock("open plain", lambda path=other: read_one(path))  # type: ignore[misc]
    milliseconds = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    tenth = max(1, count // 10)
    print(f"small runs: {(folder / '0.h5').stat().st_size / 1000:.0f} kB for {values.nbytes / 1000:.1f} kB of states")
    for name in ("write", "open"):
        first, last = (float(np.median(part)) for part in (times[name][:tenth], times[name][-tenth:]))
        growth = last / first
        ratio = milliseconds[name] / milliseconds[f"{name} plain"]
        print(
            f"  {name:6} {milliseconds[name]:.1f} ms, over plain h5py {ratio:.1f}, last tenth over first {growth:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        twins(Path(folder), options.rounds)
        large_runs(Path(folder), options.rounds)
        small_runs(Path(folder), options.files)


if __name__ == "__main__":
    main()
