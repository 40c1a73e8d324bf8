"""Two processes that train one network: twins, losses and plantings under DistributedDataParallel."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)

import parallel_training  # noqa: E402

import trajtools as tt  # noqa: E402
from trajtools.store import validate  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

ROOT = Path(__file__).resolve().parents[1]


def train(kind, folder):
    """Output of both ranks."""
    ranks = [
        subprocess.Popen(
            [sys.executable, parallel_training.__file__, kind, str(rank), str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        outputs = [rank.communicate(timeout=300) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    return [output for output, _ in outputs]


def results(folder, name):
    return [np.load(folder / f"{name}.rank{rank}.npz") for rank in (0, 1)]


@pytest.fixture(scope="module")
def loops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loops")
    return folder, train("loops", folder)


def test_of_data_parallel_ranks_the_first_records(loops):
    folder, _ = loops
    first, second = results(folder, "alone")
    assert [one["counts"].tolist() for one in (first, second)] == [[12, 13, 6, 1], [0, 0, 0, 0]]
    with tt.open(folder / "alone.h5") as run:
        assert run.step.tolist() == list(range(parallel_training.STEPS + 1))
        np.testing.assert_array_equal(run.states[-1:][0, 0], first["copies"][0])
        np.testing.assert_array_equal(run.states[-1:][0, 0], second["copies"][0])
        assert run.metrics["after"][1] == first["losses"][0]
        ranks = run.provenance["torch"]["ranks"]
        assert ranks == {"count": 2, "loss": "of the first", "other metrics": "of the first"}


@pytest.mark.parametrize(("name", "accumulate"), [("exact", 1), ("accumulated", 3)])
def test_exact_copies_take_the_steps_of_both_ranks_to_the_bit(loops, name, accumulate):
    folder, _ = loops
    both = results(folder, name)
    for one in both:  # the ranks see other batches, masks and statistics, and have the same weights
        np.testing.assert_array_equal(one["copies"], both[0]["copies"][:1].repeat(3, 0))
    assert (both[0]["losses"] != both[1]["losses"]).all()
    if accumulate == 1:
        for one, alone in zip(both, results(folder, "alone"), strict=True):
            for key in ("losses", "noise"):
                np.testing.assert_array_equal(one[key], alone[key])
            np.testing.assert_array_equal(one["copies"][0], alone["copies"][0])
    losses = np.mean([one["losses"] for one in both], axis=0).reshape(-1, accumulate).mean(1)
    with tt.open(folder / f"{name}.h5") as run:
        np.testing.assert_allclose(run.metrics["loss"][:-1], losses[:, None].repeat(3, 1), rtol=1e-12)
        assert run.provenance["torch"]["ranks"]["loss"] == "mean of all"
        assert not run.notes.get("remarks")


def test_both_ranks_plant_the_same_copies_at_the_steps_that_are_recorded(loops):
    folder, _ = loops
    first, second = results(folder, "planted")
    np.testing.assert_array_equal(first["copies"], second["copies"])
    assert len(np.unique(first["copies"], axis=0)) == 4
    assert not validate(folder / "planted.h5")
    with tt.open(folder / "planted.h5") as run:
        assert sorted(set(run.plantings["step"].tolist())) == [0, 4, 8, 12]
        np.testing.assert_array_equal(run.states[-1:][0], first["copies"])


def test_processes_without_common_gradients_are_refused(loops):
    assert all("is not wrapped in DistributedDataParallel" in output for output in loops[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning", "huggingface"])
def test_callbacks_record_the_training_of_both_ranks_which_does_not_notice(tmp_path, name):
    for package in {"lightning": ["lightning"], "huggingface": ["transformers", "accelerate"]}[name]:
        pytest.importorskip(package)
    train(name, tmp_path)
    alone, steps = results(tmp_path, f"{name}-alone"), parallel_training.STEPS // 2
    for kind, members in (("RecorderCallback", 1), ("TwinsCallback", 3)):
        both = results(tmp_path, f"{name}-{kind}")
        for one, without in zip(both, alone, strict=True):
            np.testing.assert_array_equal(one["copies"], without["copies"])
            np.testing.assert_array_equal(one["noise"], without["noise"])
        # The Trainer of transformers logs the mean over ranks, to four digits.
        losses = both[0]["losses"] if name == "huggingface" else np.mean(
            [one["losses"] for one in both], axis=0).reshape(steps, 2).mean(1)  # fmt: skip
        tolerance = {"atol": 5e-4} if name == "huggingface" else {"rtol": 1e-6}
        with tt.open(tmp_path / f"{name}-{kind}.h5") as run:
            assert run.step.tolist() == list(range(steps + 1))
            assert run.status == "complete"
            np.testing.assert_array_equal(run.states[-1:][0], both[0]["copies"][:1].repeat(members, 0))
            recorded = np.asarray(run.metrics["loss"])[:-1].reshape(steps, members)
            np.testing.assert_allclose(recorded, losses[:, None].repeat(members, 1), **tolerance)
            assert run.provenance["torch"]["ranks"]["loss"] == "mean of all"
            assert not run.notes.get("remarks")
