"""A recording process is killed again and again, and goes on again and again; nothing that was flushed is ever lost.

By default a few kills per storage mode; ``TRAJTOOLS_KILLS=50 pytest -m crash tests/test_recorder_crash.py`` for more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from recorders import Recorder, Sketch, Twin
from trajtools.wiring import Member

pytestmark = [pytest.mark.crash, pytest.mark.recorders]
KILLS = int(os.environ.get("TRAJTOOLS_KILLS", "3"))
MODES = {
    "weights": {"store": "weights"},
    "buffers": {"store": "weights"},
    "zstd": {"store": "weights", "compress": "zstd"},
    "distances": {"store": "distances", "metric": "l2"},
    "sketch": {"store": "sketch", "sketch": Sketch(32, 5)},
}
SIZE = 3000


def state(step):
    """The state at a step, known without any training."""
    reference = np.random.default_rng(step).standard_normal(SIZE).astype(np.float32)
    twin = reference + np.float32(1e-3) * np.random.default_rng([step, 1]).standard_normal(SIZE).astype(np.float32)
    return [{"w": reference}, Twin({"w": twin}, member=Member("twin", 0))]


def beside(mode, members):
    """Buffers of the optimiser, where they are recorded: as many numbers again, in another dtype."""
    return {"buffers": [{"w.m": 2 * one["w"].astype("f8")} for one in members]} if mode == "buffers" else {}


def last_step(path):
    """Step to go on from; None where there is no run, or nothing in it."""
    if not os.path.exists(path):
        return None
    with tt.open(path) as run:
        return int(run.step[-1]) if run.n_states else None


def child(path, mode):
    """Record until killed; say after every state how many are committed."""
    start = last_step(path) or 0
    print("opening", flush=True)
    options = {**MODES[mode], **beside(mode, state(start)), "writer": os.environ["WRITER"]}
    recorder = Recorder(path, state(start), resume=True, flush_seconds=0.02, **options)
    assert recorder.step == start, (recorder.step, start)
    for step in range(start, start + 10**6):
        recorder.record(state(step), loss=float(step), **beside(mode, state(step)))
        print(recorder._tape._writer.committed, flush=True)


def killed_at_random(path, mode, rng):
    """Start a recording, kill it, and give the number of states that it knew to be committed."""
    code = f"""
        import sys
        sys.path[:0] = {[os.getcwd(), os.path.join(os.getcwd(), "tests")]!r}
        from test_recorder_crash import child
        child({str(path)!r}, {mode!r})
    """
    environment = {**os.environ, "WRITER": ["thread", "direct"][int(rng.integers(2))]}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline().strip() == b"opening", process.stderr.read().decode()
        # Some kills hit the opening of the file, some the recording.
        time.sleep(rng.choice([rng.uniform(0, 0.05), rng.uniform(0.05, 0.8)]))
        process.kill()
        out, err = process.communicate(timeout=120)
    assert not err, err.decode()
    numbers = out.decode().split("\n")[:-1]  # what follows the last line end may be half a number
    return int(numbers[-1]) if numbers else 0


def check(path, mode, first=0):
    """Every committed state from `first` on is the one that was recorded; gives their number."""
    with tt.open(path) as run:
        assert_array_equal(run.step, np.arange(run.n_states))
        assert_array_equal(run.metrics["loss"], run.step)
        steps = run.step[first:]
        expected = [state(int(step)) for step in steps]
        stack = np.array([[member["w"] for member in members] for members in expected])
        if mode in ("weights", "buffers", "zstd"):
            assert_array_equal(run.states[first:].view("u4"), stack.view("u4"))
            if mode == "buffers":
                assert_array_equal(run.optimizer[first:], 2 * stack.astype("f8"))
        elif mode == "sketch":
            assert_array_equal(run.sketch[first:], MODES[mode]["sketch"](stack))
        else:
            gaps = stack[:, 1].astype("f8") - stack[:, 0]
            # Sums of 3000 float64 squares in another order.
            assert_allclose(run.distances[first:, 1], np.sqrt((gaps**2).sum(axis=1)), rtol=1e-12)
        return run.n_states


@pytest.mark.parametrize("mode", MODES)
def test_no_flushed_state_is_lost_by_a_kill_and_the_run_goes_on(tmp_path, mode):
    if mode == "zstd":
        pytest.importorskip("hdf5plugin")
    path = tmp_path / "a.h5"
    rng = np.random.default_rng([7, list(MODES).index(mode)])
    total = 0
    for _ in range(KILLS):
        before = total
        promised = killed_at_random(path, mode, rng)
        if last_step(path) is None:
            assert promised == 0
            continue
        total = check(path, mode, first=max(0, before - 64))
        assert total >= max(promised, before)
        with tt.open(path) as run:
            assert run.status == "interrupted"
    start = last_step(path) or 0
    with Recorder(path, state(start), resume=True, **MODES[mode], **beside(mode, state(start))) as recorder:
        for step in range(start, start + 70):
            recorder.record(state(step), loss=float(step), **beside(mode, state(step)))
    assert check(path, mode) == start + 70
    with tt.open(path) as run:
        assert run.status == "complete"
