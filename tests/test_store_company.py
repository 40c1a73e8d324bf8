"""Other processes, other threads, other handles and full disks: whatever happens around a recording, it stays whole."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from stored_runs import METRICS, assert_whole, create, record, resume, write

import trajtools as tt
from trajtools.store import (
    RecordingError,
    StoredStates,
    repair,
    validate,
)


def total(run_or_states):
    read = run_or_states.read if isinstance(run_or_states, StoredStates) else run_or_states.states
    return int(np.bitwise_xor.reduce(read(slice(0, 100)).view(np.uint32), axis=None))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_runs_go_to_other_processes(tmp_path, start):
    path = tmp_path / "run.h5"
    record(path, 100)
    file = tt.open(path)
    run = file["run"]
    source = StoredStates(path, "run", 2, n_states=run.n_states)
    here = [total(run), total(source)]
    if start == "fork":
        # A handle that is open before the fork must not be used after it.
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            ok = [total(run), total(source)] == here
            os.write(writer, b"1" if ok else b"0")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reader, 1) == b"1"
        os.close(reader)
        os.close(writer)
    else:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert list(pool.map(total, [run, source])) == here
    file.close()


def test_a_forked_child_cannot_harm_the_recording(tmp_path):
    path = tmp_path / "run.h5"
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(tt.__file__).parent.parent)]!r}
from stored_runs import METRICS, create, write
from trajtools.store import RecordingError
writer = create({str(path)!r})
writer.begin(METRICS)
write(writer, 0, 40)
child = os.fork()
if child == 0:
    try:
        write(writer, 0, 50)
    except RecordingError as error:
        assert "belongs to the process" in str(error)
        writer.close()
        writer.abort()
        sys.exit(0)  # HDF5 cleans up here, as in any process that ends
    sys.exit(1)
assert os.waitpid(child, 0)[1] == 0
write(writer, 0, 64)
write(writer, 64, 64)
writer.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with tt.open(path) as file:
        assert_whole(file["run"], 128)
        assert file["run"].status == "complete"


FOLLOWER = """
import sys
sys.path[:0] = sys.argv[2].split(":")
import trajtools as tt
from stored_runs import assert_whole
file = tt.open(sys.argv[1])
run = file["run"]
for line in sys.stdin:
    run.refresh()
    assert_whole(run, int(line))
    print(run.n_states, run.status, flush=True)
"""


def test_a_reader_in_another_process_follows_the_writing(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    writer.begin(METRICS)
    places = f"{Path(__file__).parent}:{Path(tt.__file__).parent.parent}"
    command = [sys.executable, "-c", FOLLOWER, str(path), places]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdin is not None
        assert follower.stdout is not None
        for count in (10, 64, 65, 128, 150):
            start = (count - 1) // 64 * 64
            write(writer, start, count - start)
            follower.stdin.write(f"{count}\n")
            follower.stdin.flush()
            assert follower.stdout.readline() == f"{count} recording\n"
        writer.close()
        follower.stdin.write("150\n")
        follower.stdin.flush()
        assert follower.stdout.readline() == "150 complete\n"
        follower.stdin.close()
    assert follower.returncode == 0


def test_the_writing_process_may_read_its_own_file(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 70, "before")
    early = tt.open(path)
    writer = create(path, "run", "a")
    writer.begin(METRICS)
    with tt.open(path) as file:
        run = file["run"]
        for count in (30, 64):
            write(writer, 0, count)
            run.refresh()
            assert_whole(run, count)
            assert run.status == "recording"
            assert_whole(early["before"], 70)
        writer.close()
        record(path, 20, "after", "a")
        run.refresh()
        assert_whole(run, 64)
        assert run.status == "complete"
        file.refresh()
        assert_whole(file["after"], 20)
    early.close()
    assert validate(path) == []


def test_a_handle_of_h5py_in_the_same_process_does_no_harm(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    writer.begin(METRICS)
    write(writer, 0, 64)
    other = h5py.File(path, "r", swmr=True, locking=False)
    write(writer, 64, 64)
    writer.close()
    other.close()
    record(path, 70, "next", "a")
    with tt.open(path) as file:
        assert_whole(file["run"], 128)
        assert_whole(file["next"], 70)
        assert file["run"].status == "complete"


@pytest.mark.parametrize("files", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_threads_may_read_at_the_very_moment_of_a_change(tmp_path, files):
    """Opening and reading, on handles of their own and on one that all share, while a run begins, grows and ends."""
    for number in range(files):
        path = tmp_path / f"{number}.h5"
        record(path, 70, "before")
        held = tt.open(path)
        run, done, failures = held["before"], threading.Event(), []

        def read(path=path, run=run, done=done, failures=failures):
            try:
                while not done.is_set():
                    assert_whole(run, 70)
                    run.refresh()
                    with tt.open(path) as file:
                        assert_whole(file["before"], 70)
            except Exception as error:
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            writer = create(path, "run", "a")
            writer.begin(METRICS)
            write(writer, 0, 64)
            write(writer, 64, 20)
            writer.close()
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert failures == []
        with held:
            held.refresh()
            assert_whole(held["run"], 84)


def test_a_plain_handle_of_h5py_does_not_keep_a_run_from_beginning(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 70, "before")
    with h5py.File(path, "r", locking=False) as plain:
        record(path, 84, "run", "a")
        assert plain["runs/before/committed"][()] == 70
        with tt.open(path) as file:
            assert_whole(file["run"], 84)
    assert validate(path) == []


def test_handles_from_before_and_during_a_recording_elsewhere_live_together(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 70, "before")
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(tt.__file__).parent.parent)]!r}
from stored_runs import METRICS, create, write
writer = create({str(path)!r}, "run", "a")
writer.begin(METRICS)
write(writer, 0, 64)
print("written", flush=True)
sys.stdin.readline()
writer.close()
"""
    with tt.open(path) as early:
        assert_whole(early["before"], 70)
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout.readline() == "written\n"
            with tt.open(path) as during:
                assert_whole(during["run"], 64)
                assert during["run"].status == "recording"
                assert_whole(early["before"], 70)
                other.communicate("go on\n", timeout=120)
                with tt.open(path) as after:
                    assert_whole(after["run"], 64)
                    assert after["run"].status == "complete"
                assert_whole(during["run"], 64)
        assert other.returncode == 0
        early.refresh()
        assert_whole(early["run"], 64)


def test_heartbeats_from_a_thread_do_not_disturb_the_writing(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    writer.begin(METRICS)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.001):
            writer.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    for start in range(0, 640, 64):
        write(writer, start, 64)
    stop.set()
    thread.join()
    writer.close()
    writer.beat()
    with tt.open(path) as file:
        assert_whole(file["run"], 640)


FULL = """
import resource, signal, sys
sys.path[:0] = sys.argv[2].split(":")
from stored_runs import METRICS, create, record, write
from trajtools.store import RecordingError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = sys.argv[1]
record(path, 70, "before")
import os
limit = os.path.getsize(path) + int(sys.argv[3])
writer = create(path, "run", "a")
writer.begin(METRICS)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
start = 0
try:
    while True:
        write(writer, start, 64)
        start += 64
except RecordingError as error:
    print(writer.committed, error)
try:
    write(writer, start, 64)
except RecordingError as error:
    print(error)
writer.close()
"""


@pytest.mark.parametrize("room", [300_000, 500_000, 650_001, 1_000_003])
def test_a_full_disk_stops_the_recording_in_words_and_keeps_the_file(tmp_path, room):
    path = tmp_path / "run.h5"
    places = f"{Path(__file__).parent}:{Path(tt.__file__).parent.parent}"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), places, str(room)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    committed = int(first.split()[0])
    assert "states committed before are safe" in first
    assert "is aborted" in second
    with tt.open(path) as file:
        assert file["run"].status == "interrupted"
        assert file["run"].n_states == committed
        if committed:
            assert_whole(file["run"], committed)
        assert_whole(file["before"], 70)
    repair(path)
    writer = resume(path)
    writer.begin(METRICS)
    write(writer, committed, 64)
    writer.close()
    with tt.open(path) as file:
        assert_whole(file["run"], committed + 64)
        assert_whole(file["before"], 70)


def test_a_run_that_finds_no_room_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 70, "before")
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limit[1]))
    try:
        with pytest.raises(RecordingError, match="it is unmodified"):
            create(path, "run", "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.h5"]
