"""Other processes, threads and writers, full disks, other systems: whatever happens, the recording stays whole."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h5py
import naive_store
import numpy as np
import pytest
from stored_runs import M, P, assert_holds, assert_whole, create, go_on, record, resume, states, write

import trajtools as tt
from trajtools.errors import DamagedError, FileBusyError, FormatError, RecordingError
from trajtools.store import Run, StoredStates, files
from trajtools.store.layout import Cells

PLACES = [str(Path(__file__).parent), str(Path(tt.__file__).parent.parent)]
HEAD = f"""
import os, sys, time
sys.path[:0] = {PLACES!r}
from stored_runs import *
from trajtools.errors import *
path = sys.argv[1]
"""
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")


def start(code, *arguments):
    command = [sys.executable, "-c", HEAD + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_to_end(code, *arguments):
    command = [sys.executable, "-c", HEAD + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


# ------------------------------------------------------------------------------------------------------------ readers


def total(run_or_states):
    array = run_or_states.states if isinstance(run_or_states, Run) else run_or_states
    return int(np.bitwise_xor.reduce(array.read(slice(0, 100)).view(np.uint32), axis=None))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_runs_go_to_other_processes(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    path = tmp_path / "run.h5"
    record(path, 100)
    with Run(path) as run:
        sources = [run, StoredStates(run, 2)]
        here = [total(source) for source in sources]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            assert list(pool.map(total, sources)) == here


def test_a_trajectory_of_a_live_run_stays_as_long_as_it_was(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 10)
    with Run(path) as run:
        data = pickle.dumps(run.trajectory(1))
    go_on(writer, 100)
    x = pickle.loads(data)
    assert x.shape == (10, P)
    np.testing.assert_array_equal(np.asarray(x).view(np.uint32), states(0, 10)[:, 1].view(np.uint32))
    writer.close()


FOLLOW = """
from trajtools.store import Run
run = Run(path)
for line in sys.stdin:
    run.refresh()
    assert_whole(run, int(line))
    print(run.n_states, run.status, flush=True)
"""


def test_a_reader_in_another_process_follows_the_writing(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    with start(FOLLOW, path) as follower:

        def ask(count):
            follower.stdin.write(f"{count}\n")
            follower.stdin.flush()
            return follower.stdout.readline()

        for count in (10, 64, 65, 128, 150):
            go_on(writer, count)
            assert ask(count) == f"{count} recording\n"
        writer.close()
        assert ask(150) == "150 complete\n"
        follower.stdin.close()
    assert follower.returncode == 0


RECORD = """
writer = create(path)
print("open", flush=True)
for start in range(0, 1280, 64):
    for count in (1, 17, 40, 64):
        write(writer, start, count)
print("written", flush=True)
sys.stdin.readline()
writer.close()
"""


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_what_readers_see_of_a_live_run_is_always_right(tmp_path, place):
    """Threads open, refresh and read without pause while a block after the other is written and rewritten."""
    path = tmp_path / "run.h5"
    done, failures, seen = threading.Event(), [], set()

    def follow():
        try:
            with Run(path) as own:
                while not (seen and done.is_set()):
                    own.refresh()
                    n = own.n_states
                    assert_whole(own, n)
                    assert own.status == "recording"
                    with Run(path) as fresh:
                        assert fresh.n_states >= n
                        assert_whole(fresh)
                    seen.add(n)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=follow) for _ in range(2)]
    if place == "here":
        writer = create(path)
        for thread in threads:
            thread.start()
        for first in range(0, 640, 64):
            for count in (1, 17, 40, 64):
                write(writer, first, count)
                time.sleep(0.002)
    else:
        process = start(RECORD, path)
        assert process.stdout.readline() == "open\n"
        for thread in threads:
            thread.start()
        assert process.stdout.readline() == "written\n"
    done.set()
    for thread in threads:
        thread.join()
    if place == "here":
        writer.close()
    else:
        process.communicate("\n", timeout=60)
    assert failures == []
    assert seen


def test_an_open_run_shows_what_it_showed_whatever_is_written(tmp_path):
    """Every flush of the last block rewrites chunks and sums that a reader from before knows, and adds columns."""
    path = tmp_path / "run.h5"
    writer = create(path)
    go_on(writer, 100)
    write(writer, 64, 37, metrics=False)
    early = [Run(path)]
    for count in range(38, 65, 3):
        write(writer, 64, count)
        early.append(Run(path))
        for run in early:
            assert_whole(run, metrics=run is not early[0])
    writer.close()
    for run in early:
        assert_whole(run, metrics=run is not early[0])
        run.close()


def test_a_known_metric_may_come_late_into_the_block_that_a_reader_has_open(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    tiles = writer.layout.new_tiles()

    def put(first, count, **metrics):
        writer.write(first, count, step=np.arange(first, first + count), weights=tiles, metrics=metrics)

    put(0, 64, loss=np.ones(64))
    put(64, 5)
    with Run(path) as run:
        assert np.isnan(run.metrics["loss"][64:]).all()
        again = Run(path)
        for count in (6, 7, 8, 9):
            put(64, count, loss=np.ones(count))
        for reader in (run, again):
            assert reader.n_states == 69
            loss = reader.metrics["loss"]
            assert (loss[:64] == 1).all()
            assert (np.isnan(loss[64:]) | (loss[64:] == 1)).all()
        again.close()
    writer.close()


def test_a_compressed_tail_may_be_rewritten_under_a_reader(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100, compress="gzip")
    with Run(path) as run:
        first = run.states[:64]
        writer = resume(path)
        for _ in range(4):
            write(writer, 64, 64)
        assert_whole(run, 100)
        writer.close()
        np.testing.assert_array_equal(run.states[:64].view(np.uint32), first.view(np.uint32))
        assert_whole(run, 100)


def test_handles_of_h5py_do_no_harm(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 64)
    with h5py.File(path, "r") as plain:  # with a lock of its own, where HDF5 takes one
        write(writer, 64, 64)
        assert plain["weights"].shape[1:] == (M, P)
    with h5py.File(path, "r", swmr=True) as plain:
        write(writer, 128, 10)
        plain["weights"].refresh()
        assert plain["weights"].shape == (138, M, P)
        writer.close()
    writer = resume(path)
    go_on(writer, 150)
    writer.close()
    with Run(path) as run:
        assert_whole(run, 150)
        assert run.status == "complete"


def test_heartbeats_from_a_thread_do_not_disturb_the_writing(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.0005):
            writer.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    for first in range(0, 640, 64):
        write(writer, first, 64)
    stop.set()
    thread.join()
    writer.close()
    with Run(path) as run:
        assert_whole(run, 640)


def test_the_clock_decides_nothing(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    writer = create(path)
    for now in (10**18, 0, 4 * 10**18):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        write(writer, 0, 10)
        writer.beat()
        with Run(path) as run:
            assert run.cells.heartbeat == now
            assert run.status == "recording"
        with pytest.raises(FileBusyError):
            resume(path)
    writer.close()


# ------------------------------------------------------------------------------------------------------------ writers


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 10)
    with pytest.raises(FileBusyError, match=r"^\S+ is being written by another recorder, or .* one writer at a time\."):
        resume(path)
    process = run_to_end("resume(path)", path)
    assert process.stderr.splitlines()[-1].startswith("trajtools.errors.FileBusyError")
    write(writer, 0, 20)
    writer.close()
    resume(path).close()
    with Run(path) as run:
        assert_whole(run, 20)


HOLD = """
writer = create(path)
write(writer, 0, 10)
print("written", flush=True)
for line in sys.stdin:
    write(writer, 0, int(line))
    print("written", flush=True)
writer.close()
"""


@posix
def test_a_stopped_writer_still_is_the_writer(tmp_path):
    """A suspended laptop, a debugger: silence is no sign of death."""
    path = tmp_path / "run.h5"
    with start(HOLD, path) as process:
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(FileBusyError, match="one writer at a time"):
                resume(path)
            with pytest.raises(FileBusyError, match="does not overwrite"):
                create(path, "w")
            with Run(path) as run:
                assert run.status == "recording"
                assert_whole(run, 10)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("20\n")
        process.stdin.close()
        assert process.stdout.readline() == "written\n"
    assert process.returncode == 0
    with Run(path) as run:
        assert_whole(run, 20)
        assert run.status == "complete"


@posix
def test_a_killed_writer_has_interrupted_its_run(tmp_path):
    path = tmp_path / "run.h5"
    with start(HOLD, path) as process:
        assert process.stdout.readline() == "written\n"
        process.kill()
    with Run(path) as run:
        assert (run.status, run.cells.status) == ("interrupted", 0)
        assert_whole(run, 10)
    writer = resume(path)
    go_on(writer, 70)
    writer.close()
    with Run(path) as run:
        assert_whole(run, 70)


RACE = """
from trajtools.store import Run
print("ready", flush=True)
sys.stdin.readline()
try:
    writer = resume(path)
except FileBusyError:
    print("busy", flush=True)
else:
    go_on(writer, writer.committed + 30)
    print("wins", flush=True)
    sys.stdin.readline()
    writer.close()
"""


def test_of_writers_that_race_one_wins(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 40)
    racers = [start(RACE, path) for _ in range(4)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = sorted(racer.stdout.readline() for racer in racers)
    assert results == ["busy\n"] * 3 + ["wins\n"]
    for racer in racers:
        racer.communicate("\n", timeout=60)
    with Run(path) as run:
        assert_whole(run, 70)
        assert run.cells.generation == 2


# ------------------------------------------------------------------------------------------------------------ forking


FORK = """
writer = create(path)
write(writer, 0, 40)
child = os.fork()
if child == 0:
    try:
        write(writer, 0, 50)
    except RecordingError as error:
        assert "belongs to the process" in str(error)
        writer.beat()
        writer.close()
        writer.abort()
        sys.exit(0)  # HDF5 cleans up here, as in any process that ends
    sys.exit(1)
assert os.waitpid(child, 0)[1] == 0
write(writer, 0, 64)
write(writer, 64, 64)
writer.close()
"""


@posix
def test_a_forked_child_cannot_harm_the_recording(tmp_path):
    path = tmp_path / "run.h5"
    process = run_to_end(FORK, path)
    assert process.returncode == 0, process.stderr
    with Run(path) as run:
        assert_whole(run, 128)
        assert run.status == "complete"
    assert_holds(naive_store.read(path), 128)


ORPHAN = """
writer = create(path)
write(writer, 0, 40)
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    sys.exit(0)
time.sleep(600)
"""


@posix
def test_a_forked_child_that_lives_on_does_not_hold_the_lock(tmp_path):
    """As workers of a data loader do, whose training was killed."""
    path = tmp_path / "run.h5"
    with start(ORPHAN, path) as process:
        assert int(process.stdout.readline()) != process.pid
        process.kill()
        process.wait()
        with Run(path) as run:
            assert run.status == "interrupted"
        writer = resume(path)
        go_on(writer, 70)
        process.stdin.close()  # the child ends
        assert process.stdout.read() == ""
        go_on(writer, 100)
        writer.close()
    with Run(path) as run:
        assert_whole(run, 100)


# ---------------------------------------------------------------------------------- a file that is not its own any more


def removed(path):
    path.unlink()


def moved(path):
    path.rename(path.with_name("elsewhere.h5"))


def replaced(path):
    other = path.with_name("other.h5")
    shutil.copy(path, other)
    os.replace(other, path)


def taken_over(path):
    with open(path, "r+b") as file, naive_store.open_file(path) as structure:
        place = structure["store/cells"].id.get_offset()
        file.seek(place)
        cells = Cells.unpack(file.read(64))
        cells.generation += 1
        file.seek(place)
        file.write(cells.pack())


@pytest.mark.parametrize("action", ["write", "plant", "beat", "close"])
@pytest.mark.parametrize(
    ("change", "words"),
    [(removed, "removed or moved"), (moved, "removed or moved"), (replaced, "replaced"), (taken_over, "taken over")],
)
def test_a_writer_notices_that_its_file_is_not_its_own(tmp_path, change, words, action):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 40)
    change(path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    actions = {
        "write": lambda: write(writer, 0, 64),
        "plant": lambda: writer.plant(1, 1, 0.5, 3),
        "beat": writer.beat,
        "close": writer.close,
    }
    with pytest.raises(RecordingError, match=words):
        actions[action]()
    writer.beat()  # said once
    writer.close()
    with pytest.raises(RecordingError, match="is aborted"):
        write(writer, 0, 64)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    for name in before:
        with Run(tmp_path / name) as run:
            assert_whole(run, 40)
            assert run.cells.status == 0  # nothing is complete


def test_a_reader_notices_that_its_file_was_replaced(tmp_path):
    path, other = tmp_path / "run.h5", tmp_path / "other.h5"
    record(path, 40)
    record(other, 70)
    run = Run(path)
    run.close()
    os.replace(other, path)
    with pytest.raises(FormatError, match="was replaced since it was opened"):
        run.states.read()
    run.refresh()
    assert_whole(run, 70)
    run.close()


# ------------------------------------------------------------------------------------------------------- other systems


TAKE_OVER = """
from trajtools.store import files
files.fcntl = None
writer = resume(path, force=True)
go_on(writer, 130)
writer.close()
"""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_recording_goes_on_and_says_so_once(tmp_path, monkeypatch, caplog, number):
    def no_lock(*_):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "run.h5"
    monkeypatch.setattr(files, "fcntl", type("fcntl", (), {"flock": no_lock, "LOCK_EX": 2, "LOCK_SH": 1, "LOCK_NB": 4}))
    with caplog.at_level(logging.WARNING, "trajtools"):
        writer = create(path)
        go_on(writer, 100)
    assert [record.getMessage().count("no locks") for record in caplog.records] == [1]
    with Run(path) as run:
        assert run.status == "recording"  # its process lives
        assert_whole(run, 100)
    with pytest.raises(FileBusyError, match="resume with force=True"):
        resume(path)
    with pytest.raises(FileBusyError, match="this very process"):
        resume(path, force=True)
    process = run_to_end(TAKE_OVER, path)
    assert process.returncode == 0, process.stderr
    with pytest.raises(RecordingError, match="taken over"):
        go_on(writer, 150)
    with Run(path) as run:
        assert_whole(run, 130)
        assert run.status == "complete"
    assert_holds(naive_store.read(path), 130)


@pytest.mark.parametrize("missing", ["fcntl", "offsets", "both", "everything"])
def test_nothing_of_unix_is_needed(tmp_path, monkeypatch, missing, caplog):
    if missing != "offsets":
        monkeypatch.setattr(files, "fcntl", None)
    if missing != "fcntl":
        for name in ("preadv", "pwrite", "pread", "pwritev"):
            monkeypatch.delattr(os, name, raising=False)
    if missing == "everything":
        for name in ("register_at_fork", "link"):
            monkeypatch.delattr(os, name, raising=False)
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(NotImplementedError), raising=False)
    path = tmp_path / "run.h5"
    writer = create(path, optimizer=True)
    go_on(writer, 100)
    with Run(path) as run:
        assert_whole(run, 100)
        assert run.status == "recording"
    writer.plant(1, 1, 0.5, 3)
    writer.close()
    writer = resume(path, optimizer=True)
    go_on(writer, 130)
    writer.abort()
    with Run(path) as run:
        assert_whole(run, 130)
        assert run.status == "interrupted"
    assert_holds(naive_store.read(path), 130)


class Locks:
    """The locks of Windows: of bytes, exclusive, by handle."""

    LK_NBLCK = 2

    def __init__(self):
        self.holders = {}

    def locking(self, descriptor, mode, length):
        assert (mode, length, os.lseek(descriptor, 0, os.SEEK_CUR)) == (2, 1, 2**40)
        status = os.fstat(descriptor)
        holder = self.holders.get(status.st_ino)
        if holder is not None and holder != descriptor:
            try:
                if os.fstat(holder).st_ino == status.st_ino:
                    raise PermissionError(errno.EACCES, "Permission denied")
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
        self.holders[status.st_ino] = descriptor


def test_the_locks_of_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "msvcrt", Locks())
    path = tmp_path / "run.h5"
    writer = create(path)
    go_on(writer, 100)
    with pytest.raises(FileBusyError, match="one writer at a time"):
        resume(path)
    with Run(path) as run:
        assert run.status == "recording"
    writer.close()
    with Run(path) as run:
        assert run.status == "complete"
        assert_whole(run, 100)


@pytest.mark.parametrize("setting", ["FALSE", "TRUE", "BEST_EFFORT"])
def test_the_locks_of_hdf5_are_not_needed(tmp_path, setting, monkeypatch):
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", setting)
    path = tmp_path / "run.h5"
    code = """
writer = create(path)
go_on(writer, 70)
try:
    resume(path)
except FileBusyError:
    print("busy")
writer.close()
writer = resume(path)
go_on(writer, 100)
writer.close()
"""
    process = run_to_end(code, path)
    assert (process.returncode, process.stdout) == (0, "busy\n"), process.stderr
    with Run(path) as run:
        assert_whole(run, 100)


# ----------------------------------------------------------------------------------------------------------- full disks


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
compress = sys.argv[3] if sys.argv[3] != "None" else None
writer = create(path, compress=compress)
limit = os.path.getsize(path) + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    while True:
        write(writer, writer.committed, 64)
        writer.plant(writer.committed, 1, .5, 3)
except RecordingError as error:
    print(writer.committed, error)
try:
    write(writer, writer.committed, 64)
except RecordingError as error:
    print(error)
writer.close()
"""


@posix
@pytest.mark.parametrize("compress", [None, "gzip"])
@pytest.mark.parametrize("room", [0, 300, 3_000, 300_000, 500_000, 650_001, 1_000_003])
def test_a_full_disk_stops_the_recording_in_words_and_keeps_the_file(tmp_path, room, compress):
    path = tmp_path / "run.h5"
    process = run_to_end(FULL, path, room, compress)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    first, second = process.stdout.splitlines()
    committed = int(first.split()[0])
    assert "states committed before are safe" in first
    assert "is aborted" in second
    with Run(path) as run:
        assert run.cells.status == 2
        assert_whole(run, committed)
    assert_holds(naive_store.read(path), committed)
    writer = resume(path)
    go_on(writer, committed + 100)
    writer.close()
    with Run(path) as run:
        assert_whole(run, committed + 100)


FULL_AT_CREATION = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    create(path)
except OSError as error:
    print("refused")
"""


@posix
@pytest.mark.parametrize("room", [0, 1000, 10_000, 40_000])
def test_a_disk_without_room_for_the_file_leaves_none(tmp_path, room):
    process = run_to_end(FULL_AT_CREATION, tmp_path / "run.h5", room)
    assert (process.returncode, process.stdout, process.stderr) == (0, "refused\n", "")
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_disk_that_is_full_at_the_end_keeps_the_states(tmp_path):
    path = tmp_path / "run.h5"
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = create(path)
go_on(writer, 70)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    writer.close()
    print("closed")
except RecordingError as error:
    print("refused")
"""
    process = run_to_end(code, path)
    assert process.returncode == 0, process.stderr
    assert process.stdout in ("closed\n", "refused\n")
    with Run(path) as run:
        assert_whole(run, 70)
        assert run.status in ("complete", "interrupted")


class Interrupted:
    """A dataset whose writes are interrupted by Ctrl-C."""

    def __init__(self, dataset, calls):
        self.dataset, self.calls = dataset, calls

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def write_direct_chunk(self, *arguments):
        self.calls[0] -= 1
        if self.calls[0] == 0:
            raise KeyboardInterrupt
        self.dataset.write_direct_chunk(*arguments)


@pytest.mark.parametrize("call", range(1, 7))
def test_an_interrupted_write_may_be_repeated(tmp_path, call):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 40)
    blocks = writer._blocks
    whole = blocks._sums, blocks._ids
    for count in (45, 50, 55, 60):
        calls = [call]
        blocks._sums = Interrupted(whole[0], calls)
        blocks._ids = {name: Interrupted(dataset, calls) for name, dataset in whole[1].items()}
        with pytest.raises(KeyboardInterrupt):
            write(writer, 0, count)
        blocks._sums, blocks._ids = whole
        with Run(path) as run:
            assert_whole(run, 40)
    write(writer, 0, 64)
    go_on(writer, 100)
    writer.close()
    with Run(path) as run:
        assert_whole(run, 100)
        assert run.status == "complete"


LEAVE = """
writer = create(path)
go_on(writer, 100)
if sys.argv[2] == "error":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("way", ["end", "error"])
def test_a_program_that_ends_without_close_leaves_an_interrupted_run(tmp_path, way):
    path = tmp_path / "run.h5"
    process = run_to_end(LEAVE, path, way)
    assert (process.returncode, process.stderr) == (0 if way == "end" else 3, "")
    with Run(path) as run:
        assert run.status == "interrupted"
        assert_whole(run, 100)
    assert_holds(naive_store.read(path), 100)


@pytest.mark.parametrize("change", [removed, replaced])
def test_a_heartbeat_may_find_out_while_another_thread_writes(tmp_path, change):
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "run.h5"
        writer = create(path)
        write(writer, 0, 40)
        errors, stop = [], threading.Event()

        def beat(writer=writer, errors=errors, stop=stop):
            while not stop.is_set():
                try:
                    writer.beat()
                except Exception as problem:
                    errors.append(problem)

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            for count in range(41, 65):
                write(writer, 0, count)
                if count == 50:
                    change(path)
        except Exception as error:
            errors.append(error)
        stop.set()
        thread.join()
        writer.close()
        assert [type(error) for error in errors if not isinstance(error, RecordingError)] == []
        assert 1 <= len(errors) <= 2


@pytest.mark.parametrize("call", range(6))
def test_a_failed_write_of_any_kind_ends_the_recording_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 40)
    count = [0]

    def fail(function):
        def failing(*arguments, **options):
            count[0] += 1
            if count[0] == call + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return function(*arguments, **options)

        return failing

    monkeypatch.setattr(files.RawFile, "write", fail(files.RawFile.write))
    try:
        write(writer, 0, 50)
        writer.plant(1, 1, 0.5, 3)
        writer.close()
    except RecordingError as error:
        assert "Input/output error" in str(error)  # noqa: PT017
    monkeypatch.undo()
    writer.close()
    with Run(path) as run:
        assert run.n_states in (40, 50)
        assert_whole(run)
        assert run.status in ("interrupted", "complete")
    resume(path).close()
    try:
        with Run(path) as run:
            assert_whole(run)
    except DamagedError:
        pytest.fail("a failed write damaged what was committed")
