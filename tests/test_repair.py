"""Changes of the structure are all or nothing, wherever they are cut; repair is pure Python and keeps every state."""

from __future__ import annotations

import os
import time

import h5py
import numpy as np
import pytest
from stored_runs import METRICS, M, assert_whole, create, record, resume, write

import trajtools as tt
from trajtools.store import (
    FileBusyError,
    FormatError,
    InterruptedWriteError,
    RecordingError,
    RunExistsError,
    repair,
    transaction,
    validate,
)
from trajtools.store.journal import journal_path
from trajtools.store.overlay import Overlay
from trajtools.store.status import Owner, effective_status, is_writing
from trajtools.store.superblock import SIZE, Superblock, lookup3


class Killed(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


class Killer:
    """Lets the first `allowed` changes of the disk through, tears the next one in two, and stops there."""

    NAMES = ("pwrite", "ftruncate", "unlink", "link", "replace")

    def __init__(self, monkeypatch, allowed):
        self.left, self.done = allowed, 0
        self._real = {name: getattr(os, name) for name in self.NAMES}
        self._patch = monkeypatch
        for name in self.NAMES:
            monkeypatch.setattr(os, name, lambda *args, name=name, **options: self._call(name, args, options))

    def _call(self, name, args, options):
        if self.left == 0:
            if name == "pwrite":
                self._real[name](args[0], memoryview(args[1])[: len(args[1]) // 2], args[2])
            self.left = -1
            raise Killed
        if self.left < 0:
            raise Killed
        self.left -= 1
        self.done += 1
        return self._real[name](*args, **options)

    def stop(self):
        for name, real in self._real.items():
            self._patch.setattr(os, name, real)


def cut_everywhere(monkeypatch, prepare, change, check):
    """Cut `change` after 0, 1, 2, ... writes until it gets through; `check` sees the file after each cut."""
    for allowed in range(200):
        path = prepare(allowed)
        killer = Killer(monkeypatch, allowed)
        try:
            change(path)
        except Killed:
            through = False
        else:
            through = True
        finally:
            killer.stop()
        check(path, through)
        if through:
            assert allowed > 0
            return allowed
    raise AssertionError("the change never got through")


def two_attributes(file):
    """A change in place and one that appends."""
    file["runs/a"].attrs["status"] = np.bytes_(b"changed")
    file["runs/a"].create_dataset("extra", data=np.arange(5000.0))


def test_a_change_that_is_cut_anywhere_leaves_the_old_or_the_new_file(tmp_path, monkeypatch):
    seen = set()

    def prepare(number):
        path = tmp_path / f"{number}.h5"
        record(path, 70, "a")
        return path

    def check(path, through):
        with tt.open(path) as file:
            assert_whole(file["a"], 70)
        with h5py.File(path, "r") as raw:
            new = "extra" in raw["runs/a"]
            assert (raw["runs/a"].attrs["status"] == b"changed") == new
            if new:
                np.testing.assert_array_equal(raw["runs/a/extra"][:], np.arange(5000.0))
        assert not journal_path(path).exists()
        seen.add(new)
        assert new or not through

    writes = cut_everywhere(monkeypatch, prepare, lambda path: transaction.change(path, two_attributes), check)
    assert writes >= 4
    assert seen == {False, True}


def test_rolling_back_may_itself_be_cut_anywhere(tmp_path, monkeypatch):
    def prepare(number):
        path = tmp_path / f"{number}.h5"
        record(path, 70, "a")
        before = path.read_bytes()
        killer = Killer(monkeypatch, 3)
        with pytest.raises(Killed):
            transaction.change(path, two_attributes)
        killer.stop()
        assert journal_path(path).exists()
        assert path.read_bytes() != before
        (tmp_path / f"{number}.before").write_bytes(before)
        return path

    def check(path, through):
        del through
        transaction.recover(path)
        assert path.read_bytes() == path.with_suffix(".before").read_bytes()

    cut_everywhere(monkeypatch, prepare, transaction.recover, check)


def test_creation_that_is_cut_anywhere_leaves_no_file_or_a_whole_one(tmp_path, monkeypatch):
    def check(path, through):
        if path.exists():
            with tt.open(path) as file:
                assert file["run"].n_states == 0
        else:
            assert not through

    def make(path):
        create(path).abort()

    cut_everywhere(monkeypatch, lambda number: tmp_path / f"{number}.h5", make, check)


@pytest.mark.parametrize("action", ["add", "begin", "close", "resume", "repair"])
def test_every_step_of_a_run_may_be_cut_beside_a_finished_one(tmp_path, monkeypatch, action):
    def prepare(number):
        path = tmp_path / f"{number}.h5"
        record(path, 70, "finished")
        if action in ("resume", "repair"):
            writer = create(path, "second", "a")
            writer.begin(METRICS)
            write(writer, 0, 40)
            writer.abort()
        return path

    def change(path):
        if action == "repair":
            repair(path)
            return
        if action == "resume":
            resume(path, "second").abort()
            return
        writer = create(path, "second", "a")
        if action == "begin":
            writer.begin(METRICS)
        if action == "close":
            writer.close()
        else:
            writer.abort()

    def check(path, through):
        with tt.open(path) as file:
            assert_whole(file["finished"], 70)
            assert file["finished"].status == "complete"
            assert set(file) <= {"finished", "second"}
            if action in ("resume", "repair"):
                assert_whole(file["second"], 40)
            assert ("second" in file) or not through
        assert [p for p in validate(path) if p.severity == "error"] == []

    cut_everywhere(monkeypatch, prepare, change, check)


def test_a_torn_journal_means_that_nothing_was_changed(tmp_path):
    path = tmp_path / "a.h5"
    record(path, 10)
    before = path.read_bytes()
    journal_path(path).write_bytes(b"trajtools undo 1\n" + bytes(30))
    with tt.open(path) as file:
        assert_whole(file["run"], 10)
    assert path.read_bytes() == before
    assert not journal_path(path).exists()


def test_a_journal_is_not_applied_to_another_file(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    record(path, 10, "a")
    killer = Killer(monkeypatch, 3)
    with pytest.raises(Killed):
        transaction.change(path, two_attributes)
    killer.stop()
    other = tmp_path / "other.h5"
    record(other, 500, "b")
    other.replace(path)
    before = path.read_bytes()
    with pytest.raises(InterruptedWriteError, match="does not belong to"):
        tt.open(path)
    assert path.read_bytes() == before


def test_repair_of_a_sound_file_does_not_touch_it(tmp_path):
    path = tmp_path / "a.h5"
    record(path, 100, overhead={"seconds": 1})
    before = path.read_bytes()
    report = repair(path)
    assert not report.changed
    assert str(report).endswith("nothing to repair")
    assert path.read_bytes() == before


def test_repair_clears_the_mark_and_sets_the_status(tmp_path):
    path = tmp_path / "a.h5"
    writer = create(path)
    writer.begin(METRICS)
    write(writer, 0, 50)
    writer.abort()
    with pytest.raises(OSError, match="file"):
        h5py.File(path, "r+")
    report = repair(path)
    assert report.mark_cleared
    assert report.interrupted == ("run",)
    assert report.committed == {"run": 50}
    assert "50 states are intact" in str(report)
    with h5py.File(path, "r+") as raw:
        assert raw["runs/run"].attrs["status"] == b"interrupted"
    with tt.open(path) as file:
        assert_whole(file["run"], 50)
    assert validate(path) == []


def test_repair_refuses_a_live_writer(tmp_path):
    path = tmp_path / "a.h5"
    writer = create(path)
    writer.begin(METRICS)
    with pytest.raises(FileBusyError, match="is being recorded by process"):
        repair(path)
    with pytest.raises(FileBusyError, match="one writer at a time"):
        create(path, "other", "a")
    with pytest.raises(FileBusyError, match="one writer at a time"):
        resume(path)
    write(writer, 0, 10)
    writer.close()
    with pytest.raises(RunExistsError, match="already holds a run 'run'"):
        create(path, "run", "a")


def test_repair_refuses_a_file_that_lost_committed_states(tmp_path):
    path = tmp_path / "a.h5"
    writer = create(path)
    writer.begin(METRICS)
    write(writer, 0, 64)
    write(writer, 64, 64)
    writer.abort()
    os.truncate(path, os.path.getsize(path) - 40_000)
    with pytest.raises(FormatError, match=r"lacks 1 of the chunks of its 128 committed states"):
        repair(path)


def test_resume_completes_the_tail_and_keeps_everything(tmp_path):
    path = tmp_path / "a.h5"
    record(path, 90)
    writer = resume(path, provenance={"command": "again"})
    assert writer.committed == 90
    assert writer.last_step == 178
    assert writer.tail is not None
    assert (writer.tail.start, writer.tail.count) == (64, 26)
    np.testing.assert_array_equal(writer.tail.step, 2 * np.arange(64, 90))
    assert writer.metrics == {"accuracy": (M,), "loss": ()}
    writer.begin(METRICS)
    write(writer, 64, 60)
    write(writer, 64, 64)
    write(writer, 128, 5)
    writer.close()
    with tt.open(path) as file:
        assert_whole(file["run"], 133)
        assert file["run"].provenance == {"resumed": [{"command": "again"}]}


def test_a_writer_that_was_overtaken_stops(tmp_path):
    path = tmp_path / "a.h5"
    writer = create(path)
    writer.begin(METRICS)
    write(writer, 0, 20)
    # As after a minute of silence: the heartbeat is old.
    at, heartbeat = writer._places[1:]
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, np.float64(heartbeat - 100).tobytes(), at)
    os.close(descriptor)
    with tt.open(path) as file:
        assert file["run"].status == "interrupted"
    with pytest.raises(RecordingError, match="another process has taken over"):
        write(writer, 0, 30)
    with pytest.raises(RecordingError, match="is aborted"):
        write(writer, 0, 30)
    repair(path)
    with tt.open(path) as file:
        assert_whole(file["run"], 20)


def test_status_follows_heartbeat_and_process():
    now, me = time.time(), Owner.current()
    assert is_writing("recording", now, me)
    assert not is_writing("complete", now, me)
    assert effective_status("recording", now - 61, me) == "interrupted"
    assert effective_status("recording", now - 50, me) == "recording"
    gone = Owner(me.process, me.host, me.boot, me.started + 1)  # the number was used again
    assert me.boot == "" or effective_status("recording", now, gone) == "interrupted"
    never = Owner(2**22 + 1, me.host, me.boot, 5)
    assert me.boot == "" or effective_status("recording", now, never) == "interrupted"
    elsewhere = Owner(2**22 + 1, me.host + "x", me.boot, 5)
    assert effective_status("recording", now, elsewhere) == "recording"


def test_lookup3_is_the_checksum_of_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="v110"):
        pass
    head = path.read_bytes()[:SIZE]
    block = Superblock.parse(head)
    assert block is not None
    assert block.intact
    assert block.encode() == head
    # Known answers of the published algorithm.
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def test_an_overlay_is_the_file_that_a_plain_one_would_be(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "plain"
    path.write_bytes(rng.bytes(20_000))
    plain = bytearray(path.read_bytes())
    descriptor = os.open(path, os.O_RDONLY)
    overlay = Overlay(descriptor)
    for _ in range(300):
        start, length = int(rng.integers(0, 30_000)), int(rng.integers(1, 9000))
        data = rng.bytes(length)
        overlay.seek(start)
        if rng.random() < 0.5:
            overlay.write(data)
            plain.extend(bytes(max(0, start + length - len(plain))))
            plain[start : start + length] = data
        else:
            assert overlay.read(length) == bytes(plain[start : start + length]).ljust(length, b"\0")
    assert overlay.size == len(plain)
    changed, regions = bytearray(path.read_bytes()) + overlay.appended, overlay.regions()
    os.close(descriptor)
    for region in regions:
        assert bytes(changed[region.offset : region.offset + len(region.old)]) == region.old
        changed[region.offset : region.offset + len(region.new)] = region.new
    assert changed == plain
