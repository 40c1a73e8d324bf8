"""What recording costs, as ratios to plain copies and plain writes measured beside it.

``python benchmarks/recording.py [folder]``. All numbers are medians of interleaved repetitions in one process, on the
disk of the folder (the current one if not given).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from recorders import Recorder

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


# ------------------------------------------------------------------------------------------------------- sustained


def write_raw(folder: Path, state: dict[str, np.ndarray], n: int) -> None:
    """Every state copied once, then written in blocks of 64 states to one file."""
    block = np.zeros((64, sum(a.size for a in state.values())), "f4")
    with open(fresh(folder), "wb", buffering=0) as file:
        for i in range(n):
            at = 0
            for array in state.values():
                block[i % 64, at : at + array.size] = array.reshape(-1)
                at += array.size
            if i % 64 == 63 or i == n - 1:
                file.write(block[: i % 64 + 1].data)


def write_npy(folder: Path, state: dict[str, np.ndarray], n: int) -> None:
    for _ in range(n):
        np.save(folder / "bench.npy", np.concatenate([array.reshape(-1) for array in state.values()]))


def write_recorder(folder: Path, state: dict[str, np.ndarray], n: int, writer: str) -> None:
    with Recorder(fresh(folder), state, writer=writer, quiet=True, metrics=("loss",)) as recorder:
        for step in range(n):
            recorder.record(state, step=step, loss=0.0)


def sustained(folder: Path, n: int, repeat: int) -> None:
    state = several()
    ways: dict[str, Callable[[], None]] = {
        "raw write + one copy": lambda: write_raw(folder, state, n),
        "np.save per step": lambda: write_npy(folder, state, n),
        "recorder, thread": lambda: write_recorder(folder, state, n, "thread"),
        "recorder, direct": lambda: write_recorder(folder, state, n, "direct"),
    }
    for act in ways.values():
        act()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, act in ways.items():
            os.sync()  # every way begins with nothing left to write
            found[name].append(timed(act))
    raw = median(found["raw write + one copy"])
    print(f"sustained, {n} states of 1e5 float32: speed over raw write + one copy (bound: recorder >= 0.75)")
    for name, times in found.items():
        spread = sorted(raw / t for t in times)
        print(f"  {name:22s} {raw / median(times):6.2f}   ({spread[0]:.2f} .. {spread[-1]:.2f})")


# -------------------------------------------------------------------------------------------------------- blocking


def copy(state: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> None:
    for key, array in state.items():
        targets[key][...] = array


def blocking(folder: Path, n: int) -> None:
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


# --------------------------------------------------------------------------------------------------------- scaling


def per_state(folder: Path, members: int, n: int) -> float:
    state = {name: np.stack([array] * members) for name, array in one(1000).items()}

    def go() -> None:
        with Recorder(fresh(folder), state, members=members, quiet=True) as recorder:
            for step in range(n):
                recorder.record(state, step=step, loss=0.0)

    return timed(go) / n


def scaling(folder: Path, repeat: int) -> None:
    print("time per state over that of the shortest run, 1000 weights, T states (flat: about 1)")
    lengths = (4000, 16_000, 64_000)
    times = [[per_state(folder, 1, n) for n in lengths] for _ in range(repeat)]
    middle = np.median(times, axis=0)
    print("  " + "   ".join(f"T = {n}: {t / middle[0]:.2f}" for n, t in zip(lengths, middle, strict=True)))
    print("time per state and member over that of 16 members, M members of 1000 weights (flat: about 1, or below)")
    counts = (16, 64, 256, 1024)
    times = [[per_state(folder, m, max(64, 100_000 // m)) / m for m in counts] for _ in range(repeat)]
    middle = np.median(times, axis=0)
    print("  " + "   ".join(f"M = {m}: {t / middle[0]:.2f}" for m, t in zip(counts, middle, strict=True)))


# ---------------------------------------------------------------------------------------------------------- memory


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
        subprocess.run([sys.executable, __file__, str(folder), "--large", writer], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=".", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that it works")
    parser.add_argument("--large", choices=["thread", "direct"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.large:
        large(options.folder, options.large)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        sustained(folder, 640 if options.quick else 1280, 3 if options.quick else 7)
        blocking(folder, 400 if options.quick else 1600)
        scaling(folder, 1 if options.quick else 3)
        if not options.quick:
            memory(folder)


if __name__ == "__main__":
    main()
