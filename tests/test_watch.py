"""Following a file: what is shown is what is committed, and it ends when the run does, however that is."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ROOT, call, write

import trajtools as tt
from recorders import Recorder
from trajtools.cli import watch as following
from trajtools.cli.watch import Progress, Rates, Screen
from trajtools.errors import RecordingError
from trajtools.wiring import Member

LINE = re.compile(r"\d\d:\d\d:\d\d (.+): (recording|complete|interrupted), (\d+) states(?: \(step (\d+)\))?(.*)")

# A training that records a state every few milliseconds, until it is told to stop.
TRAINING = """
import pathlib, sys, time
import numpy as np
from recorders import Recorder
(path,) = sys.argv[1:]
stop, step = pathlib.Path(path + ".stop"), 0
with Recorder(path, {"w": np.zeros(5)}, flush_seconds=0.1, quiet=True) as recorder:
    print("open", flush=True)
    while not stop.exists() and step < 10_000:
        step += 1
        recorder.record(loss=1 / step)
        recorder.record({"w": np.full(5, float(step))})
        time.sleep(0.005)
"""


def start(*line, **options):
    """Start a process that heeds interrupts, also where the tests were started in the background of a shell."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([sys.executable, *map(str, line)], text=True, env=environment, **options)
    finally:
        signal.signal(signal.SIGINT, before)


def watch(*arguments):
    return start("-m", "trajtools", "watch", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def train(path):
    process = start("-c", TRAINING, path, stdout=subprocess.PIPE)
    with process.stdout as said:
        assert said.readline() == "open\n"
    return process


def stop(path, training):
    """Let a training end by itself, and give its number of states."""
    path.with_name(path.name + ".stop").touch()
    assert training.wait(timeout=120) == 0
    with tt.open(path) as run:
        np.testing.assert_array_equal(run.states[:, 0, 0], np.arange(run.n_states))
        return run.n_states


def matched(text):
    return [LINE.fullmatch(line).groups() for line in text.splitlines()]


def test_a_run_is_followed_from_before_it_begins_to_its_end(tmp_path):
    path = tmp_path / "run.h5"
    watching = watch(path, "--interval", "0.05")
    assert "does not exist yet: waiting up to 60 s" in watching.stderr.readline()
    training = train(path)
    seen = [watching.stdout.readline() for _ in range(5)]
    count = stop(path, training)
    out, err = watching.communicate(timeout=120)
    assert (watching.returncode, err) == (0, "")
    lines = matched("".join(seen) + out)
    states = [int(line[2]) for line in lines]
    assert states == sorted(states)
    assert all(line[:2] == ("run", "recording") for line in lines[:-1])
    assert lines[-1][:4] == ("run", "complete", str(count), str(count - 1))
    assert f"loss {1 / (count - 1):.4g}" in lines[-1][4]
    assert any("states/s" in line[4] for line in lines)


def test_a_run_that_is_named_is_waited_for_beside_others(tmp_path):
    write(tmp_path / "first.h5", np.ones((3, 1, 2)))
    watching = watch(tmp_path, "--run", "sec*", "--interval", "0.05")
    assert "holds no run 'sec*' yet" in watching.stderr.readline()
    path = tmp_path / "second.h5"
    count = stop(path, train(path))
    out, err = watching.communicate(timeout=120)
    assert (watching.returncode, err) == (0, "")
    assert {line[0] for line in matched(out)} == {"second"}
    assert matched(out)[-1][1:3] == ("complete", str(count))


@pytest.mark.parametrize(
    ("scenes", "looks", "words"),
    [
        (["complete"], 1, None),
        (["interrupted"], 1, "'a' was interrupted"),
        (["recording", "complete", "complete"], 3, None),
        (["recording", "interrupted", "interrupted"], 3, "'a' was interrupted"),
        (["recording", "complete", "complete recording", "complete complete", "complete complete"], 5, None),
        (["recording interrupted", "complete interrupted", "complete interrupted"], 3, None),  # the other died long ago
    ],
)
def test_the_end_is_where_nothing_is_recorded_any_more(monkeypatch, tmp_path, scenes, looks, words):
    scripted = iter([[Progress(run, status, 5, 4, {}) for run, status in zip("ab", scene.split(), strict=False)]
                     for scene in scenes])  # fmt: skip
    slept = []
    monkeypatch.setattr(following, "_read_patiently", lambda file, runs: next(scripted))
    monkeypatch.setattr(following.time, "sleep", slept.append)
    if words is None:
        following._follow(tmp_path, (), 9.0)
    else:
        with pytest.raises(RecordingError, match=words):
            following._follow(tmp_path, (), 9.0)
    assert next(scripted, None) is None
    assert len(slept) == looks - 1


@pytest.mark.crash
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_writer_that_dies_is_noticed_and_named(tmp_path):
    path = tmp_path / "run.h5"
    training = train(path)
    watching = watch(path, "--interval", "0.05")
    assert "recording" in watching.stdout.readline()
    time.sleep(0.3)
    training.kill()
    training.wait()
    out, err = watching.communicate(timeout=120)
    assert watching.returncode == 1
    assert re.fullmatch(r"Error: run 'run' was interrupted after \d+ complete states: .*resume=True.*\n", err)
    last = matched(out)[-1]
    assert last[1] == "interrupted"
    assert f"after {last[2]} complete states" in err
    assert "interrupted" in call("watch", path, "--once").stdout
    assert "was interrupted" in call("watch", path, code=1).stderr


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_ends_the_watching_and_not_the_training(tmp_path):
    training = train(tmp_path / "run.h5")
    watching = watch(tmp_path / "run.h5")
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=120)[1] == "Interrupted.\n"
    assert watching.returncode == 130
    assert training.poll() is None
    training.kill()
    training.wait()


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
def test_a_terminal_shows_lines_that_are_updated_in_place(tmp_path):
    import pty

    path = tmp_path / "run.h5"
    write(tmp_path / "earlier.h5", np.ones((3, 1, 2)), name="an earlier run with a long name \x1b[31m")
    training = train(path)
    ours, theirs = pty.openpty()
    watching = start("-m", "trajtools", "watch", tmp_path, "--interval", "0.05", stdout=theirs, stderr=subprocess.PIPE)
    os.set_blocking(ours, False)
    os.close(theirs)
    shown, count = b"", 0
    while watching.poll() is None:
        if not count and shown.count(b"run: recording") > 2:
            count = stop(path, training)
        try:
            shown += os.read(ours, 4096)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # nobody has the other end any more
            break
    assert watching.communicate(timeout=120)[1] == ""
    assert watching.returncode == 0
    os.close(ours)
    text = shown.decode()
    assert "\x1b[31m" not in text
    assert "\x1b[1A\x1b[2K" in text  # one line up, which is erased: two lines are rewritten
    assert "\x1b[1A\x1b[2K\x1b[1A\x1b[2K" not in text
    last = re.split(r"\x1b\[[0-9;?]*[A-Za-z]", text.rstrip("\x1b[?25h\r\n"))[-1].split("\r\n")
    assert len(last) == 2
    assert max(map(len, last)) <= 80
    assert f"run: complete, {count} states (step {count - 1})" in text


def test_what_does_not_come_in_time_is_an_error(tmp_path):
    said = call("watch", tmp_path / "no.h5", "--timeout", 0.1, code=1).stderr
    assert "after 0.1 s" in said
    assert "--timeout" in said
    path = write(tmp_path / "run.h5", np.ones((3, 1, 2)))
    assert "holds no run 'x' yet" in call("watch", path, "--run", "x", "--timeout", 0, "-q", code=1).stderr
    (tmp_path / "empty.h5").touch()
    assert "does not exist yet" in call("watch", tmp_path / "empty.h5", "--timeout", 0, code=1).stderr


def test_what_is_no_recording_is_not_waited_for(tmp_path):
    (tmp_path / "text.h5").write_text("loss\n" * 100)
    write(tmp_path / "run.h5", np.ones((3, 1, 2)))
    for once in ([], ["--once"]):
        assert "not an HDF5 file" in call("watch", tmp_path / "text.h5", *once, code=1).stderr
        assert "not an HDF5 file" in call("watch", tmp_path, *once, code=1).stderr
    assert "does not exist; its folder holds run.h5" in call("watch", tmp_path / "rum.h5", "--once", code=1).stderr
    assert "no run is named 'x'" in call("watch", tmp_path / "run.h5", "--once", "--run", "x", code=1).stderr
    assert "--once" in call("watch", tmp_path / "run.h5", "--json", code=2).stderr


def test_one_look_shows_status_states_and_newest_metrics(tmp_path):
    path = tmp_path / "run.h5"
    members = [Member("a"), Member("b"), Member("copy", 0)]
    with Recorder(path, {"w": np.zeros((3, 2))}, members=members, metrics={"late": ()}, quiet=True) as rec:
        for step in range(1, 400):
            late = {"late": 7.0} if step == 301 else {}
            rec.record(loss=[1.0 * step, np.inf, -1e9], rate=0.5, eigen=np.ones((3, 4)), **late)
            rec.record({"w": np.full((3, 2), float(step))})
    said = call("watch", path, "--once").stdout
    assert said == "run: complete, 400 states (step 399), late 7 at step 300, loss inf, rate 0.5\n"
    (run,) = json.loads(call("watch", path, "--once", "--json").stdout)["runs"]
    assert (run["run"], run["status"], run["states"], run["last_step"]) == ("run", "complete", 400, 399)
    assert run["metrics"]["late"] == {"value": 7.0, "step": 300, "late": True}
    assert run["metrics"]["rate"] == {"value": 0.5, "step": 398, "late": False}
    assert call("watch", path).stdout.endswith(said)  # nobody writes it: it is shown, and that is all


def test_what_is_being_recorded_stays_on_a_small_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen_size = {"COLUMNS": "80", "LINES": "3", "TERM": "xterm"}
    for name, value in screen_size.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    runs = [*(Progress(name, "complete", 1, 0, {}) for name in "abcd"), Progress("e", "recording", 1, 0, {})]
    with Screen() as screen:
        screen.show(runs)
        shown = sys.stdout.getvalue()
    assert "e: recording" in shown
    assert "d: complete" not in shown
    assert "..." in shown
    assert "d: complete" in sys.stdout.getvalue()  # at the end all are listed


def test_a_run_is_one_line_whatever_its_name(tmp_path):
    path = write(tmp_path / "run.h5", np.ones((3, 1, 2)), name="a\nb\x1b[31m")
    assert call("watch", path, "--once").stdout == "a\\nb\\x1b[31m: complete, 3 states (step 2)\n"


def test_the_newest_states_are_read_as_they_are(tmp_path):
    path = write(tmp_path / "run.h5", np.ones((100, 2, 3)))
    with Recorder(tmp_path / "m.h5", {"w": np.zeros(2)}, quiet=True) as recorder:
        for step in range(1, 150):
            recorder.record(loss=float(step))
            recorder.record({"w": np.full(2, float(step))}, step=3 * step)
    with tt.open(path) as run, tt.open(tmp_path / "m.h5") as other:
        assert run.latest(7)[0].tolist() == list(range(93, 100))
        for count in (1, 70, 1000):
            step, metrics = other.latest(count)
            np.testing.assert_array_equal(step, other.step[-count:])
            np.testing.assert_array_equal(metrics["loss"], other.metrics["loss"][-count:])
    assert "step 447" in call("watch", tmp_path / "m.h5", "--once", "--run", "m*").stdout
    assert "no run is named 'x*'" in call("watch", tmp_path / "m.h5", "--once", "--run", "x*", code=1).stderr


@pytest.mark.parametrize("wrong", [("--interval", "nan"), ("--timeout", "nan"), ("--interval", "1e300")])
def test_a_time_that_nobody_can_wait_is_refused(tmp_path, wrong):
    call("watch", write(tmp_path / "run.h5", np.ones((3, 1, 2))), *wrong, code=2)


def test_waiting_outlasts_a_writer_that_changes_the_structure(tmp_path, monkeypatch):
    path, tries = write(tmp_path / "run.h5", np.ones((3, 1, 2))), []

    def torn(*given):
        tries.append(given)
        if len(tries) < following.ATTEMPTS:
            raise RecordingError("torn")
        return read(*given)

    read = following._read
    monkeypatch.setattr(following, "_read", torn)
    following._wait_for(path, ("run",), timeout=1, interval=0.1, quiet=True)
    assert len(tries) == following.ATTEMPTS


def test_rates_are_those_of_the_last_half_minute():
    rates = Rates()

    def at(now, states):
        return rates.add([Progress("run", "recording", states, None, {})], now)[0]

    assert at(0.0, 100).rate is None
    assert at(2.0, 200).rate == 50
    assert at(10.0, 200).rate == 10
    assert at(10.0, 200).idle == 8
    assert at(31.0, 500).rate == pytest.approx(300 / 29)  # the look at 0 is too old
    assert at(80.0, 500).rate == 0
    assert at(80.0, 500).idle == 49
