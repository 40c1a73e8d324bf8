"""Flushing, buffers, errors in the writer, the end of a recording: with forgotten closes, forks and interrupts."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import recorders.background
import trajtools as tt
from recorders import Recorder, RecordingWarning
from trajtools.errors import RecordingError
from trajtools.store import RunWriter

pytestmark = pytest.mark.recorders
WRITERS = pytest.mark.parametrize("writer", ["thread", "direct"])


def network(size=100):
    return {"w": np.arange(size, dtype="f4").reshape(-1, 10), "b": np.zeros(10, "f4")}


def wait_until(true, seconds=120.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@WRITERS
def test_flush_leaves_nothing_behind(tmp_path, writer):
    path = tmp_path / "run.h5"
    params = network()
    with Recorder(path, params, writer=writer, flush_seconds=1e6, quiet=True) as recorder:
        for step in range(5):
            recorder.record(loss=float(step))
            params = {name: values + 1 for name, values in params.items()}
            recorder.record(params)
        recorder.flush()
        recorder.flush()
        with tt.open(path) as run:
            assert run.step.tolist() == list(range(6))
            assert_array_equal(run.states[:][-1, 0, :100], params["w"].ravel())
            assert_array_equal(run.metrics["loss"][:5], np.arange(5.0))
    recorder.flush()  # of a closed recorder: nothing to do


def record_often(recorder, params, n=100_000, fail=False):
    for _ in range(n):
        recorder.record(params, loss=1.0)
    if fail:
        raise ZeroDivisionError


def record_until_told(recorder, params):
    record_until(recorder, params, lambda: False)


def record_until(recorder, params, true):
    end = time.monotonic() + 120
    while time.monotonic() < end and not true():  # a loop this tight leaves the thread few gaps
        recorder.record(params, loss=1.0)


def committed(path):
    with tt.open(path) as run:
        return run.n_states


@WRITERS
def test_states_reach_the_file_within_the_promised_time_while_the_loop_idles(tmp_path, writer):
    params = network()
    with Recorder(tmp_path / "a.h5", params, writer=writer, flush_seconds=0.1) as rec:
        for step in range(5):
            rec.record(params, loss=float(step))
        wait_until(lambda: committed(tmp_path / "a.h5") == 5)
        rec.record(params, loss=5.0)
        wait_until(lambda: committed(tmp_path / "a.h5") == 6)
        with tt.open(tmp_path / "a.h5") as run:
            assert_array_equal(run.metrics["loss"], np.arange(6.0))
            assert run.status == "recording"


def test_metrics_that_come_after_their_state_was_committed_are_written(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params, metrics=("loss",), flush_seconds=0.05) as rec:
        for step in range(64):  # with the opening state, a full block and one more
            rec.advance(params)
            if step == 62:
                wait_until(lambda: rec.overhead["bytes"] > 0)
                wait_until(lambda: committed(tmp_path / "a.h5") == 64)
                rec.record(loss=63.0)
        wait_until(lambda: committed(tmp_path / "a.h5") == 65)
        rec.record(loss=64.0)
        wait_until(lambda: read_metric(tmp_path / "a.h5")[-1] == 64.0)
    assert_array_equal(read_metric(tmp_path / "a.h5")[62:], [np.nan, 63.0, 64.0])


def read_metric(path):
    with tt.open(path) as run:
        return np.asarray(run.metrics["loss"])


def test_the_opening_state_alone_does_not_fix_the_metrics(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params, flush_seconds=0.01) as rec:
        time.sleep(0.1)
        rec.record(loss=1.0)
    assert read_metric(tmp_path / "a.h5").tolist() == [1.0]


def test_the_second_state_starts_the_clock(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params, flush_seconds=0.01) as rec:
        rec.advance(params)
        wait_until(lambda: rec.overhead["bytes"] > 0)
        assert committed(tmp_path / "a.h5") == 2
        rec.record(loss=1.0)
    assert_array_equal(read_metric(tmp_path / "a.h5"), [np.nan, 1.0])


@WRITERS
def test_bytes_waiting_for_their_block_are_bounded(tmp_path, writer):
    params = network(1000)
    with Recorder(tmp_path / "a.h5", params, writer=writer, flush_bytes=20_000, flush_seconds=1e6) as rec:
        for _ in range(12):
            rec.record(params)
        wait_until(lambda: rec.overhead["bytes"] >= 20_000)
        assert 5 <= committed(tmp_path / "a.h5") <= 12


def test_compressed_runs_write_whole_blocks_only(tmp_path):
    pytest.importorskip("hdf5plugin")
    params = network()
    with Recorder(tmp_path / "a.h5", params, compress="zstd", flush_seconds=0.01) as rec:
        for _ in range(70):
            rec.record(params, loss=1.0)
        time.sleep(0.2)
        assert committed(tmp_path / "a.h5") in (0, 64)
        wait_until(lambda: committed(tmp_path / "a.h5") == 64)
    assert committed(tmp_path / "a.h5") == 70


def test_the_heartbeat_goes_on_while_the_loop_idles(tmp_path, monkeypatch):
    monkeypatch.setattr(recorders.background, "BEAT_SECONDS", 0.02)
    beats = []
    beat = RunWriter.beat
    monkeypatch.setattr(RunWriter, "beat", lambda self: (beats.append(1), beat(self)))
    with Recorder(tmp_path / "a.h5", network(), writer="direct"):
        wait_until(lambda: len(beats) >= 5)


class Gate:
    """Lets the writer's calls wait."""

    def __init__(self, monkeypatch):
        self.open = threading.Event()
        self.open.set()
        write = RunWriter.write

        def slow(writer, *args, **options):
            assert self.open.wait(120)
            write(writer, *args, **options)

        monkeypatch.setattr(RunWriter, "write", slow)


def test_skipped_states_are_counted_and_visible_in_step(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    params = network()
    with Recorder(tmp_path / "a.h5", params, writer="thread", on_full="skip", buffer_bytes=1, flush_seconds=1e6) as rec:
        gate.open.clear()
        for step in range(200):
            rec.record(params, loss=float(step))
        assert rec.n_recorded == 128
        assert rec.n_skipped == 200 - 128
        gate.open.set()
        wait_until(lambda: committed(tmp_path / "a.h5") >= 128)
        rec.record(params, loss=200.0)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.step.tolist() == [*range(128), 200]
        assert_array_equal(run.metrics["loss"], [*range(128), 200])
        assert run.overhead["skipped"] == 72


def test_a_full_ring_may_be_an_error(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    params = network()
    with Recorder(tmp_path / "a.h5", params, writer="thread", on_full="error", buffer_bytes=1) as rec:
        gate.open.clear()
        with pytest.raises(RecordingError, match="all 2 buffers are full"):
            record_often(rec, params)
        gate.open.set()
    assert committed(tmp_path / "a.h5") == 128


def test_a_full_ring_makes_the_loop_wait_and_says_how_long(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    params = network()
    with Recorder(tmp_path / "a.h5", params, writer="thread", buffer_bytes=1) as rec:
        gate.open.clear()
        waiting, wait = threading.Event(), rec._tape._turn.wait
        monkeypatch.setattr(rec._tape._turn, "wait", lambda: (waiting.set(), wait()))

        def let_go():
            assert waiting.wait(120)
            assert rec.n_recorded == 128
            gate.open.set()

        opener = threading.Thread(target=let_go)
        opener.start()
        for _ in range(200):
            rec.record(params)
        opener.join()
        assert waiting.is_set()
        assert rec.overhead["seconds_blocked"] > 0
    assert committed(tmp_path / "a.h5") == 200


@WRITERS
def test_an_error_of_the_writer_surfaces_in_the_loop_where_it_is_strict(tmp_path, full_disk, writer):
    params = network()
    full_disk()
    rec = Recorder(tmp_path / "a.h5", params, writer=writer, strict=True)
    with pytest.raises(RecordingError, match="No space left on device"):
        record_until_told(rec, params)
    with pytest.raises(RecordingError, match="No space left on device"):
        rec.record(params)
    rec.close()  # told already
    with tt.open(tmp_path / "a.h5") as run:
        assert run.n_states == 64
        assert run.status == "interrupted"


@WRITERS
def test_an_error_of_the_writer_is_one_warning_and_the_training_goes_on(tmp_path, full_disk, writer):
    params = network()
    full_disk()
    with Recorder(tmp_path / "a.h5", params, writer=writer) as rec:
        with pytest.warns(RecordingWarning, match=r"No space left on device\. The training goes on") as warned:
            record_until(rec, params, lambda: warned.list)
        assert len(warned.list) == 1
        assert warned.list[0].filename == __file__
        for step in range(300):
            rec.record(params, loss=float(step))
            rec.record(loss=0.0)
            rec.advance(params)
            rec.record_block({name: array[None] for name, array in params.items()}, loss=[1.0])
    with tt.open(tmp_path / "a.h5") as run:
        assert run.n_states == 64
        assert run.status == "interrupted"


@pytest.mark.parametrize("strict", [True, False])
def test_an_error_of_the_writer_that_nobody_saw_surfaces_at_close(tmp_path, full_disk, strict):
    full_disk(0)
    rec = Recorder(tmp_path / "a.h5", network(), strict=strict)
    words = r"last states could not be written: .*No space left"
    with pytest.raises(RecordingError, match=words) if strict else pytest.warns(RecordingWarning, match=words):
        rec.close()
    rec.close()


def removed(path):
    path.unlink()


def moved(path):
    path.rename(path.with_name("elsewhere.h5"))


def replaced(path):
    path.with_name("new.h5").write_bytes(b"of somebody else")
    os.replace(path.with_name("new.h5"), path)


@WRITERS
@pytest.mark.parametrize(
    ("change", "words"), [(removed, "removed or moved"), (moved, "removed or moved"), (replaced, "replaced")]
)
def test_a_file_that_is_not_the_recorders_any_more_is_left_alone(tmp_path, change, words, writer):
    path, params = tmp_path / "a.h5", network()
    with Recorder(path, params, writer=writer) as rec:
        for _ in range(65):
            rec.record(params, loss=1.0)
        wait_until(lambda: committed(path) >= 64)
        change(path)
        content = path.read_bytes() if path.exists() else None
        with pytest.warns(RecordingWarning, match=words) as warned:
            record_until(rec, params, lambda: warned.list)
        for _ in range(100):
            rec.record(params, loss=2.0)
    assert (path.read_bytes() if path.exists() else None) == content
    if change is moved:
        with tt.open(tmp_path / "elsewhere.h5") as run:
            assert run.n_states >= 64
            assert set(run.metrics["loss"]) == {1.0}
            assert run.status == "interrupted"


def test_a_closed_recorder_says_so(tmp_path):
    rec = Recorder(tmp_path / "a.h5", network())
    rec.close()
    rec.close()
    for call in (lambda: rec.record(network()), lambda: rec.record(loss=1.0), lambda: rec.advance(network())):
        with pytest.raises(RecordingError, match="recorder is closed"):
            call()


def test_an_exception_in_the_loop_saves_and_passes(tmp_path):
    params = network()
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path / "a.h5", params) as rec:
        record_often(rec, params, 2, fail=True)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.status == "interrupted"
        assert run.step.tolist() == [0, 1]


def test_a_recorder_that_is_dropped_saves(tmp_path):
    params = network()
    rec = Recorder(tmp_path / "a.h5", params)
    rec.record(params)
    rec.record(params)
    del rec
    gc.collect()
    with tt.open(tmp_path / "a.h5") as run:
        assert run.status == "interrupted"
        assert run.n_states == 2


def test_no_thread_is_left_behind(tmp_path):
    before = threading.active_count()
    Recorder(tmp_path / "a.h5", network()).close()
    assert threading.active_count() == before


def script(tmp_path, body, strict=False):
    head = f"""
        import os, sys
        sys.path.insert(0, {os.getcwd()!r})
        import numpy as np
        from recorders import Recorder
        params = {{"w": np.ones((10, 10), "f4")}}
        rec = Recorder({str(tmp_path / "a.h5")!r}, params, strict={strict})
        for _ in range(10):
            rec.record(params, loss=1.0)
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_a_forgotten_close_saves_at_exit(tmp_path):
    done = script(tmp_path, "")
    assert done.returncode == 0, done.stderr
    with tt.open(tmp_path / "a.h5") as run:
        assert run.n_states == 10
        assert run.status == "interrupted"


def test_an_uncaught_exception_saves_at_exit(tmp_path):
    done = script(tmp_path, "raise KeyboardInterrupt")
    assert "KeyboardInterrupt" in done.stderr
    assert committed(tmp_path / "a.h5") == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_a_forked_child_does_not_write(tmp_path, leave):
    done = script(
        tmp_path,
        f"""
        child = os.fork()
        if child == 0:
            from trajtools.errors import RecordingError
            try:
                rec.record(params)
            except RecordingError as error:
                print(error, flush=True)
            rec.close()
            {leave}
        assert os.waitpid(child, 0)[1] == 0
        for _ in range(200):
            rec.record(params, loss=2.0)
        rec.close()
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "forked from the one that records" in done.stdout
    with tt.open(tmp_path / "a.h5") as run:
        assert run.status == "complete"
        assert_array_equal(run.metrics["loss"], [1.0] * 10 + [2.0] * 200)


@pytest.mark.parametrize("strict", [True, False])
def test_a_full_disk_is_told_and_what_was_written_stays(tmp_path, strict):
    done = script(
        tmp_path,
        f"""
        import resource, signal, time, warnings
        from recorders import RecordingWarning
        from trajtools.errors import RecordingError
        warnings.simplefilter("error")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = os.path.getsize({str(tmp_path / "a.h5")!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200_000, size + 200_000))
        try:
            until = time.monotonic() + 120
            while time.monotonic() < until:
                rec.record(params, loss=1.0)
        except (RecordingError, RecordingWarning) as error:
            print(type(error).__name__, error)
        """,
        strict,
    )
    assert done.returncode == 0, done.stderr
    assert f"{'RecordingError' if strict else 'RecordingWarning'} the recorder could not write" in done.stdout
    with tt.open(tmp_path / "a.h5") as run:
        n = run.n_states
        assert n >= 64
        assert (run.states[:] == 1).all()
        assert_array_equal(run.step, np.arange(n))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
def test_memory_stays_bounded_while_large_states_are_recorded(tmp_path):
    code = f"""
        import sys
        sys.path.insert(0, {os.getcwd()!r})
        import numpy as np
        from recorders import Recorder
        def peak():  # in KiB; ru_maxrss would count the process that started this one
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
        params = {{"w": np.ones((1000, 1000), "f4")}}  # 4 MB a state
        before = peak()
        with Recorder({str(tmp_path / "a.h5")!r}, params, every=2, buffer_bytes=2**27, writer="thread") as rec:
            for step in range(200):
                rec.record(params)
                params["w"] += 1
        print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    # 400 MB go through, 128 MiB are allowed: two blocks of 64 MB. The writer itself needs a little.
    assert 2**26 / 1024 < int(done.stdout) < (2**27 + 2**25) / 1024


@WRITERS
def test_a_run_goes_on_where_it_stopped(tmp_path, writer):
    path = tmp_path / "a.h5"
    for n_before in (0, 1, 30, 63, 64, 70):
        path = tmp_path / f"{n_before}.h5"
        params = network()
        with Recorder(path, params, writer=writer) as rec:
            for step in range(n_before):
                rec.record(loss=float(step))
                params = {name: array + 1 for name, array in params.items()}
                rec.advance(params)
            rec.record(loss=float(n_before))
        with Recorder(path, params, resume=True, writer=writer) as rec:
            assert rec.step == n_before
            for step in range(n_before, n_before + 80):
                params = {name: array + 1 for name, array in params.items()}
                rec.record(params, loss=float(step + 1))
        with tt.open(path) as run:
            assert run.step.tolist() == list(range(n_before + 81))
            assert_array_equal(run.metrics["loss"], np.arange(n_before + 81.0))
            assert_array_equal(run.states[:, 0, 0], np.arange(n_before + 81))
            assert run.status == "complete"


@pytest.mark.parametrize("store", ["weights", "sketch", "distances"])
def test_another_state_at_resumption_is_one_step_later(tmp_path, store):
    reference, twin = network(), {name: array + 1 for name, array in network().items()}
    from recorders import Twin
    from trajtools.wiring import Member

    def members(x):
        return [reference, Twin({name: array + np.float32(x) for name, array in twin.items()}, member=Member("t", 0))]

    Recorder(tmp_path / "a.h5", members(0), store=store).close()
    with Recorder(tmp_path / "a.h5", members(0), store=store, resume=True) as rec:
        assert rec.step == 0
    with Recorder(tmp_path / "a.h5", members(1), store=store, resume=True) as rec:
        assert rec.step == 1
    with tt.open(tmp_path / "a.h5") as run:
        assert run.step.tolist() == [0, 1]


@pytest.mark.parametrize("store", ["weights", "sketch"])
@pytest.mark.parametrize("compress", [None, "gzip"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("checkpoint", [3, 64, 100, 150])
def test_a_training_that_went_back_is_recorded_from_there(tmp_path, checkpoint, named, compress, store):
    def state(i, by):
        return {name: (array + i * by).astype(array.dtype) for name, array in network().items()}

    states = [state(i, 1) for i in range(151)]
    with Recorder(tmp_path / "a.h5", states[0], compress=compress, store=store) as rec:
        for one in states[1:]:
            rec.record(one, loss=1.0)
    again = [*states[: checkpoint + 1], *(state(i, 2) for i in range(checkpoint + 1, 200))]  # on other batches
    step = checkpoint if named else None
    path = tmp_path / "a.h5"
    with Recorder(str(path), again[checkpoint], resume=True, step=step, compress=compress, store=store) as rec:
        assert rec.step == checkpoint
        for one in again[checkpoint + 1 :]:
            rec.record(one, loss=2.0)
        assert rec.n_recorded == 200
    with Recorder(tmp_path / "b.h5", again[0], store=store) as rec:
        for one in again[1:]:
            rec.record(one)
    with tt.open(path) as run, tt.open(tmp_path / "b.h5") as once:
        assert run.step.tolist() == list(range(200))
        content, expected = (one.states if store == "weights" else one.sketch for one in (run, once))
        assert_array_equal(content[:], expected[:])
        assert run.metrics["loss"].tolist()[1:] == [1.0] * checkpoint + [2.0] * (199 - checkpoint)
        dropped = run.notes["resumed"][0].get("dropped_steps")
        assert dropped == (None if checkpoint == 150 else [checkpoint + 1, 150])
    assert tt.validate(path) == []
    if checkpoint < 150:  # the run as it was is a file of its own
        with tt.open(tmp_path / run.notes["resumed"][0]["dropped_to"]) as branch:
            assert branch.step.tolist() == list(range(151))
            content = branch.states if store == "weights" else branch.sketch
            assert branch.metrics["loss"].tolist()[1:] == [1.0] * 150
            assert len(content[:]) == 151


@pytest.mark.parametrize("step", [0, None])
def test_a_training_that_begins_again_is_refused_and_the_file_stays(tmp_path, step):
    states = [{name: array + i for name, array in network().items()} for i in range(4)]
    with Recorder(tmp_path / "a.h5", states[0]) as rec:
        for one in states[1:]:
            rec.record(one)
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(RecordingError, match=r"begins again at step 0.*mode='next'"):
        Recorder(tmp_path / "a.h5", states[0], resume=True, step=step)
    with pytest.raises(RecordingError, match="another state for that step"):
        Recorder(tmp_path / "a.h5", states[1], resume=True, step=2)
    assert (tmp_path / "a.h5").read_bytes() == before


def test_a_resumed_run_keeps_to_its_policy(tmp_path):
    states = [{name: array + i for name, array in network().items()} for i in range(40)]
    with Recorder(tmp_path / "a.h5", states[0], every=10) as rec:
        for one in states[1:28]:
            rec.record(one)
    with Recorder(tmp_path / "a.h5", states[15], every=10, resume=True, step=15) as rec:
        for one in states[16:]:
            rec.record(one)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.step.tolist() == [0, 10, 20, 30]
        assert_array_equal(run.states[3, 0, 0], states[30][next(iter(states[30]))].ravel()[0])


def test_resuming_what_is_not_there_begins_it(tmp_path):
    Recorder(tmp_path / "a.h5", network(), resume=True).close()
    with tt.open(tmp_path / "a.h5") as run:
        assert run.n_states == 1
        assert run.name == "a"


@pytest.mark.parametrize("n", [1, 40, 64])
def test_a_resumed_run_takes_new_metrics_and_keeps_its_own(tmp_path, n):
    params = network()
    with Recorder(tmp_path / "a.h5", params) as rec:
        for step in range(n):
            rec.record(params, loss=float(step))
    with Recorder(tmp_path / "a.h5", params, resume=True, metrics=("accuracy",)) as rec:
        with pytest.warns(RecordingWarning, match=r"its first value had shape \(\)"):
            rec.record(loss=[1.0, 2.0])
        rec.record(loss=-1.0, accuracy=0.5)
        rec.advance(params)
        rec.record(accuracy=0.75)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.step.tolist() == list(range(n + 1))
        last = -1.0 if n % 64 else n - 1.0  # a state that ended a block is not written again
        assert_array_equal(run.metrics["loss"], [*range(n - 1), last, np.nan])
        assert_array_equal(run.metrics["accuracy"], [*[np.nan] * (n - 1), 0.5 if n % 64 else np.nan, 0.75])


def test_a_compressed_run_goes_on_in_whole_blocks_though_nobody_says_so(tmp_path):
    path, params = tmp_path / "a.h5", network()
    with Recorder(path, params, compress="gzip") as rec:
        record_often(rec, params, 70)
    with Recorder(path, params, resume=True, flush_seconds=0.001, strict=True) as rec:
        start = rec.n_recorded
        for step in range(20):
            rec.record({name: array + step + 1 for name, array in params.items()})
            time.sleep(0.002)
    assert committed(path) == start + 20
