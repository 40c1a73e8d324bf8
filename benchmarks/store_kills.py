"""Kill writers with SIGKILL at random moments, and check that every committed state is there and right.

``python benchmarks/store_kills.py --kills 1000``. Each file is created, appended to in blocks of any length with
metrics that come late, planted into, closed or left, and resumed, until it is killed; after each kill trajtools and the
reader made from FORMAT.md alone (tests/naive_store.py) must return what was written. Prints how many died in which
phase. Needs fork.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

FAILURE = b"\0"  # the child reports phases, and its traceback behind this byte
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import naive_store  # noqa: E402
from stored_runs import assert_holds, assert_whole, create, metrics_of, resume, write  # noqa: E402

from trajtools.store import Run  # noqa: E402

MODES = {
    "weights": {},
    "optimizer": {"optimizer": True},
    "gzip": {"compress": "gzip"},
    "zstd": {"compress": "zstd"},
    "distances": {"stored": "distances"},
    "sketch": {"stored": "sketch"},
}
LONGEST = 500  # states; then a new file


def planting(number: int) -> tuple[int, int, float, int, float]:
    return 2 * number, number % 3, number / 8, number, number / 4


def child(path: str, mode: str, seed: int, pipe: int) -> None:
    """Record until killed; each line names the phase that begins, and what is committed before it."""
    rng = random.Random(seed)
    options = dict(MODES[mode])
    compressed = options.pop("compress", None)

    def say(phase: str, states: int = -1, plantings: int = -1) -> None:
        os.write(pipe, f"{phase} {states} {plantings}\n".encode())
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, 0.003))

    while True:
        if os.path.exists(path):
            say("resume")
            writer = resume(path, provenance={"seed": seed}, **options)
        else:
            say("create")
            writer = create(path, compress=compressed, **options)
        planted = writer._cells.plantings
        goal = writer.committed + rng.randrange(0, 200)
        while writer.committed < goal:
            rows = writer.layout.rows
            start = writer.committed // rows * rows
            count = rng.randrange(writer.committed - start + 1, rows + 1)
            final = compressed is not None and start + rows >= goal
            if compressed and not final:
                count = rows
            say("write", writer.committed, planted)
            several = [planting(planted + i) for i in range(rng.choice([0, 0, 1, 5]))]  # committed with the states
            write_late(writer, start, count, final, several)
            planted += len(several)
            if not compressed and rng.random() < 0.2:  # the same length again
                say("rewrite", writer.committed, planted)
                write_late(writer, start, count, final)
            if rng.random() < 0.3:
                say("plant", writer.committed, planted)
                writer.plant(*planting(planted))
                planted += 1
            if rng.random() < 0.2:
                say("beat", writer.committed, planted)
                writer.beat()
            if final:
                break
        say("close", writer.committed, planted)
        if rng.random() < 0.8:
            writer.close(overhead={"seconds": rng.random()})
        else:
            writer.abort()
        say("closed", writer.committed, planted)


def write_late(writer, start: int, count: int, final: bool, plantings=()) -> None:
    """A block; the metric "val" of its newest state comes with the next write, as that of a validation does."""
    values = 1.5 * metrics_of(start, count)["loss"]
    if count < writer.layout.rows and not writer.filtered:
        values[-1] = np.nan
    inner = writer.write

    def with_late(first, length, *, metrics, **content):
        inner(first, length, metrics={"val": values, **metrics}, plantings=plantings, **content)

    writer.write = with_late
    try:
        write(writer, start, count, final=final)
    finally:
        del writer.write


def kill_one(path: Path, mode: str, seed: int, phases: int, delay: float) -> tuple[str, int, int]:
    """Start a child, kill it so long after so many phases; returns the last one, and what it had committed."""
    end, pipe = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(end)
        try:
            child(str(path), mode, seed, pipe)
        except BaseException:
            os.write(pipe, FAILURE + traceback.format_exc().encode())
        os._exit(1)
    os.close(pipe)
    text = b""
    while text.count(b"\n") < phases and FAILURE not in text:
        if not select.select([end], [], [], 300)[0]:
            raise AssertionError("the child does nothing")
        text += os.read(end, 2**16)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    while data := os.read(end, 2**16):
        text += data
    os.close(end)
    if FAILURE in text:
        raise AssertionError(text.partition(FAILURE)[2].decode())
    lines = [line.split() for line in text.decode().splitlines() if line.count(" ") == 2]
    return lines[-1][0], max(int(line[1]) for line in lines), max(int(line[2]) for line in lines)


def check(path: Path, states: int, plantings: int, phase: str) -> tuple[int, int]:
    """Both readers return what was written; the committed counts never fell."""
    with Run(path) as run:
        n = run.n_states
        assert n >= states, (n, states)
        assert run.cells.plantings >= plantings, (run.cells.plantings, plantings)
        assert run.status in ("complete", "interrupted"), run.status
        assert run.status == "interrupted" or phase in ("close", "closed", "resume"), phase
        assert_whole(run, n)
        check_val(dict(run.metrics), n)
        check_plantings(run.plantings, run.cells.plantings)
    content = naive_store.read(path)
    assert_holds(content, n)
    check_val(content["metrics"], n)
    check_plantings(content["plantings"], content["planted"])
    return n, content["planted"]


def check_val(metrics, n: int) -> None:
    if n > 1:
        truth = 1.5 * metrics_of(0, n)["loss"]
        np.testing.assert_array_equal(metrics["val"][: n - 1], truth[: n - 1])
        assert np.isnan(metrics["val"][-1]) or metrics["val"][-1] == truth[-1]


def check_plantings(plantings, count: int) -> None:
    rows = [planting(number) for number in range(count)]
    for name, values in zip(("step", "member", "epsilon", "seed", "norm"), zip(*rows, strict=True), strict=False):
        np.testing.assert_array_equal(plantings[name], values)


def kill_many(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill that many writers; returns counts of phases, files and states."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    number = 0
    while counts["kills"] < kills:
        mode, path = list(MODES)[number % len(MODES)], folder / f"{number}.h5"
        number += 1
        states = plantings = 0
        while counts["kills"] < kills and states < LONGEST:
            phases = rng.choice([1, 1, rng.randrange(2, 8), rng.randrange(2, 30)])
            delay = rng.choice([0.0, rng.uniform(0, 0.002), rng.uniform(0, 0.02), rng.uniform(0, 0.1)])
            phase, more, planted = kill_one(path, mode, rng.randrange(10**9), phases, delay)
            counts["kills"] += 1
            counts[f"in {phase}"] += 1
            if path.exists():
                try:
                    states, plantings = check(path, max(states, more), max(plantings, planted), phase)
                except BaseException:
                    print(f"{mode}, {path}, killed in {phase} after {delay} s", file=sys.stderr)
                    raise
            else:
                assert (states, phase) == (0, "create")
            if rng.random() < 0.1:
                break
        counts["states"] += states
        counts["plantings"] += plantings
    counts["files"] = number
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="scratch folder, kept if given")
    options = parser.parse_args()
    if options.folder:
        counts = kill_many(Path(options.folder), options.kills, options.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            counts = kill_many(Path(folder), options.kills, options.seed)
    for name, count in sorted(counts.items()):
        print(f"{name:12} {count}")
    print("no committed state was lost or changed")


if __name__ == "__main__":
    main()
