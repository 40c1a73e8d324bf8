"""Writers are killed with SIGKILL at random moments; nothing that they had committed is ever lost.

TRAJTOOLS_KILLS=N kills N writers in each storage mode (default: a handful).
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time

import pytest
from stored_runs import METRICS, assert_whole, create, record, resume, write

import trajtools as tt
from trajtools.store import RunNotFoundError, repair, validate

KILLS = int(os.environ.get("TRAJTOOLS_KILLS", "6"))
MODES = {
    "weights": {"stored": "weights", "compress": None},
    "compressed": {"stored": "weights", "compress": "zstd"},
    "distances": {"stored": "distances", "compress": None},
    "sketch": {"stored": "sketch", "compress": None},
}
pytestmark = pytest.mark.crash


def options_of(mode):
    options = dict(MODES[mode])
    if options["compress"] == "zstd":
        try:
            import hdf5plugin  # noqa: F401
        except ImportError:
            options["compress"] = "gzip"
    return options


def child(path: str, mode: str, seed: int) -> None:
    """Record for ever: runs of random length into one file, each closed and resumed now and then; say what is safe."""
    rng = random.Random(seed)
    options = options_of(mode)
    stored, compressed = options["stored"], options["compress"] is not None
    say = sys.stdout
    number = 0
    if os.path.exists(path):
        repair(path)
        with tt.open(path) as file:
            number = len(file) - 1
    while True:
        name = f"run{number}"
        say.write(f"try {name}\n")
        say.flush()
        exists = False
        if os.path.exists(path):
            with tt.open(path) as file:
                exists = name in file
        writer = resume(path, name, stored=stored) if exists else create(path, name, "a", **options)
        say.write(f"made {name} {writer.committed}\n")
        say.flush()
        writer.begin(None if writer.metrics else METRICS)
        goal = writer.committed + rng.randrange(1, 400)
        while writer.committed < goal:
            rows = writer.layout.rows
            start = writer.committed // rows * rows
            least = writer.committed - start + 1
            count = rows if compressed else rng.randrange(least, rows + 1)
            final = compressed and start + rows >= goal
            if final:
                count = rng.randrange(least, rows + 1)
            write(writer, start, count, stored=stored, final=final)
            say.write(f"committed {name} {writer.committed}\n")
            say.flush()
            writer.beat()
            if final:
                break
        writer.close(overhead={"seconds": 1.0})
        say.write(f"closed {name} {writer.committed}\n")
        say.flush()
        number += rng.randrange(2)


def kill_one(path, mode, seed, delay):
    """Start a child, kill it, give what it had promised: run -> states."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1].split(':'); "
        "from test_crash import child; child(*sys.argv[2:4], int(sys.argv[4]))"
    )
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-c", code, f"{here}:{os.path.dirname(here)}", str(path), mode, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            assert process.stdout is not None
            # Wait until it is about to touch the file, so that the delay is spent where it matters.
            assert select.select([process.stdout], [], [], 60)[0], "the child does not start"
            said = process.stdout.readline()
            time.sleep(delay)
            assert process.poll() is None, "the child died by itself"
        finally:
            process.kill()  # SIGKILL
        said += process.stdout.read()
    promised, status = {}, {}
    for line in said.decode().splitlines():
        words = line.split()
        if len(words) == 3:
            promised[words[1]] = int(words[2])
            status[words[1]] = words[0]
    return promised, status


@pytest.mark.parametrize("mode", MODES)
def test_no_kill_loses_a_committed_state(tmp_path, mode):
    rng = random.Random(f"{mode} {os.environ.get('TRAJTOOLS_SEED', '1')}")
    stored = MODES[mode]["stored"]
    kills = 0
    while kills < KILLS:
        path = tmp_path / f"{kills}.h5"
        promised: dict[str, int] = {}
        # Each file dies several times: new, continued after repair, continued again.
        for _ in range(min(3, KILLS - kills)):
            delay = rng.choice([0.0, rng.uniform(0, 0.004), rng.uniform(0, 0.02), rng.uniform(0, 0.3)])
            more, status = kill_one(path, mode, rng.randrange(10**9), delay)
            kills += 1
            promised |= more
            check(path, promised, status, stored)
            if path.exists() and rng.random() < 0.5:
                repair(path)
                check(path, promised, {}, stored)
                assert [p for p in validate(path) if p.severity == "error"] == []


def check(path, promised, status, stored):
    if not path.exists():
        assert not promised
        return
    with tt.open(path) as file:
        for name, count in promised.items():
            run = file[name]
            # The state whose commit the parent was never told of may be there as well.
            assert run.n_states >= count, (name, run.n_states, count)
            if status.get(name) in ("made", "committed"):
                assert run.status in ("interrupted", "complete")
        for name in file:
            assert file[name].status in ("interrupted", "complete")
            assert_whole_if_begun(file[name], stored)


def assert_whole_if_begun(run, stored):
    if run.n_states == 0 and not run.metrics:
        return
    assert_whole(run, run.n_states, stored=stored)


def test_a_killed_run_is_repaired_resumed_and_finished(tmp_path):
    for seed in range(20):
        path = tmp_path / f"{seed}.h5"
        promised, _ = kill_one(path, "weights", seed, 0.1)
        with tt.open(path) as file:
            if any(run.status == "interrupted" for run in file.values()):
                break
    assert promised
    report = repair(path)
    assert report.changed
    assert not repair(path).changed
    name = max(promised, key=promised.__getitem__)
    writer = resume(path, name)
    before = writer.committed
    assert before >= promised[name]
    writer.begin(METRICS)
    rows = writer.layout.rows
    start = before // rows * rows
    write(writer, start, rows)
    writer.close()
    with tt.open(path) as file:
        assert file[name].status == "complete"
        assert_whole(file[name], start + rows)


def test_a_finished_run_survives_a_kill_while_another_is_added(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100, "first")
    for seed in range(min(4, KILLS)):
        kill_one(path, "weights", seed, 0.002 * seed)
        with tt.open(path) as file:
            assert_whole(file["first"], 100)
            assert file["first"].status == "complete"
            with pytest.raises(RunNotFoundError, match="holds no run"):
                file["never"]
