"""Trainings with twins under trainers, killed by SIGKILL, resumed from a checkpoint, and analysed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import killed_training  # noqa: E402
from command_line import call  # noqa: E402

import trajtools as tt  # noqa: E402
from trajtools.store import validate  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[1]
KILL_AT = 170
CHECKPOINT = KILL_AT // killed_training.SAVE * killed_training.SAVE


def train(kind, folder, kill_at):
    return subprocess.run(
        [sys.executable, killed_training.__file__, kind, str(folder), str(kill_at)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["lightning", "huggingface"])
def test_a_training_that_was_killed_and_resumed_is_one_run_with_its_verdict(tmp_path, kind):
    for package in {"lightning": ["lightning", "sklearn"], "huggingface": ["transformers", "accelerate"]}[kind]:
        pytest.importorskip(package)
    pytest.importorskip("tensorboard")
    steps = killed_training.STEPS[kind]
    killed = train(kind, tmp_path, KILL_AT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with tt.open(tmp_path / "run.h5") as run:
        assert run.status != "complete"
        assert run.step.tolist() == list(range(len(run.step)))
        assert CHECKPOINT <= run.step[-1] <= KILL_AT  # it is not behind the checkpoint
        before = run.states[: CHECKPOINT + 1]
    resumed = train(kind, tmp_path, 0)
    assert resumed.returncode == 0, resumed.stderr
    assert not validate(tmp_path / "run.h5")
    with tt.open(tmp_path / "run.h5") as run:
        assert (run.status, run.step.tolist()) == ("complete", list(range(steps + 1)))
        np.testing.assert_array_equal(run.states[: CHECKPOINT + 1], before)
        planted = run.plantings["step"]
        distances = np.linalg.norm(run.states[:, 1:] - run.states[:, :1], axis=2)
    starts = planted - planted % killed_training.SAVE
    assert 0 in planted
    assert CHECKPOINT in starts  # the copies are in no checkpoint, and are planted anew

    exponent = json.loads(call("lyapunov", tmp_path / "run.h5", "--json").stdout)["results"][0]["exponent"]
    # Which of these a single orbit gets depends on rounding; test_digits.py counts over several.
    assert exponent["verdict"] in ("chaotic", "transient", "sensitive", "inconclusive")
    assert exponent["interval"][0] > 0
    votes = [reason["numbers"]["votes"] for reason in exponent["reasons"] if "votes" in reason["numbers"]]
    assert votes
    assert votes[0] >= 2  # persistence was tested

    for events, first, last in zip(boards(tmp_path / "board"), (0, CHECKPOINT), (CHECKPOINT, steps), strict=True):
        shown = {event.step: event.value for event in events if first < event.step <= last}
        assert sorted(shown) == list(range(first + 10, last + 1, 10))
        for step, value in shown.items():
            assert value == pytest.approx(np.exp(np.log(distances[step]).mean()), rel=1e-4)


def boards(folder):
    """Distances of the twins in the files of TensorBoard, that of the killed process first."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for path in sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: path.name):
        events = EventAccumulator(str(path))
        events.Reload()
        (tag,) = [one for one in events.Tags()["scalars"] if one.endswith("twin_distance")]
        yield events.Scalars(tag)
