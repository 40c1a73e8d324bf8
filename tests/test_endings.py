"""How a run ends, and what its file says of it in words: exceptions, Ctrl-C, kills, networks that change, resuming."""

import logging
import os
import signal

import numpy as np
import pytest
from command_line import call

import trajtools as tt
from recorders import Recorder, RecordingWarning
from trajtools.errors import FileBusyError

W = {"w": np.zeros(3)}


def words(path):
    """What `trajtools info` says of the status."""
    text = " ".join(call("info", path).stdout.split())
    return text[text.index("status ") + 7 : text.index(" states ")]


def record(rec, n=3):
    for step in range(1, n + 1):
        rec.record({"w": np.full(3, float(step))}, step=step)


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("out of\n memory"), "RuntimeError: out of memory"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_an_exception_is_named_in_the_file_until_the_run_is_resumed(tmp_path, error, said):
    path = tmp_path / "a.h5"

    def train():
        with Recorder(path, W, quiet=True) as rec:
            record(rec)
            raise error

    with pytest.raises(type(error)):
        train()
    with tt.open(path) as run:
        assert (run.status, run.ended, run.step.tolist()) == ("interrupted", said, [0, 1, 2, 3])
    assert words(path) == f"interrupted ({said})"
    with Recorder(path, {"w": np.full(3, 3.0)}, resume=True, quiet=True) as rec:
        rec.record({"w": np.full(3, 4.0)})
    with tt.open(path) as run:
        assert (run.status, run.ended, run.step.tolist()) == ("complete", "", [0, 1, 2, 3, 4])
        assert "ended" not in run.notes


def test_a_recorder_that_is_never_closed_says_so(tmp_path):
    rec = Recorder(tmp_path / "a.h5", W, quiet=True)
    record(rec)
    del rec
    assert words(tmp_path / "a.h5").startswith("interrupted (the recorder was not closed")


def test_a_killed_process_leaves_a_run_that_says_what_may_be_missing(tmp_path):
    path = tmp_path / "a.h5"
    child = os.fork()
    if not child:
        rec = Recorder(path, W, quiet=True)
        record(rec)
        rec.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert words(path).startswith("interrupted (the recording process ended without closing the file")
    with tt.open(path) as run:
        assert (run.ended, run.n_states) == ("", 4)


def test_a_network_that_changes_interrupts_the_run_and_the_end_repeats_why(tmp_path, caplog):
    path = tmp_path / "a.h5"
    with caplog.at_level(logging.INFO, "recorders"), Recorder(path, W) as rec:
        record(rec)
        with pytest.warns(RecordingWarning):
            rec.record({**W, "v": np.ones(2)})
    with tt.open(path) as run:
        assert run.status == "interrupted"
        assert run.remarks == (run.ended,)
        assert "has the new 'v'" in run.ended
    assert "has the new 'v'" in words(path)
    shown = " ".join(call("info", path).stdout.split())
    assert "remarks the state of member 0 has the new 'v'" in shown
    (last,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "4 states up to step 3, interrupted (the state of member 0 has the new 'v'" in last.getMessage()


def test_the_end_of_a_whole_run_is_one_line_of_information(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "recorders"), Recorder(tmp_path / "a.h5", W) as rec:
        record(rec)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert caplog.messages[-1] == f"{tmp_path / 'a.h5'}: 4 states up to step 3, complete"
    rec.close()
    assert len(caplog.records) == 2


def test_remarks_of_a_run_that_goes_on_are_kept(tmp_path):
    path = tmp_path / "a.h5"
    with Recorder(path, W, quiet=True) as rec:
        record(rec)
        with pytest.warns(RecordingWarning):
            rec.record({**W, "v": np.ones(2)})
    with Recorder(path, {"w": np.full(3, 3.0)}, resume=True, quiet=True) as rec, pytest.warns(RecordingWarning):
        rec.record({"u": np.ones(2)})
    with tt.open(path) as run:
        assert [("'v'" in one, "'u'" in one) for one in run.remarks] == [(True, False), (False, True)]


@pytest.mark.parametrize("options", [{"mode": "w"}, {"resume": True}])
def test_a_cell_that_is_run_again_beside_its_open_recorder_is_told_to_close_it(tmp_path, options):
    rec = Recorder(tmp_path / "a.h5", W, quiet=True)
    with pytest.raises(FileBusyError, match=r"earlier recorder of this process.*rec\.close\(\)"):
        Recorder(tmp_path / "a.h5", W, quiet=True, **options)
    record(rec)
    rec.close()
    Recorder(tmp_path / "a.h5", {"w": np.full(3, 3.0)}, quiet=True, **options).close()
