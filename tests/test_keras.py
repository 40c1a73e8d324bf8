"""The callback of Keras, on each of its backends that is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trajtools as tt

pytestmark = pytest.mark.recorders
ROOT = Path(__file__).resolve().parents[1]
BACKENDS = [
    pytest.param("torch", marks=pytest.mark.torch),
    pytest.param("jax", marks=pytest.mark.jax),
    pytest.param("tensorflow", marks=pytest.mark.torch),
]


@pytest.fixture(scope="module", params=BACKENDS)
def fitted(request, tmp_path_factory):
    """Folder of the files of one backend, its name, and what its process saw."""
    for package in ("keras", request.param):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}")
    folder = tmp_path_factory.mktemp(request.param)
    environment = {**os.environ, "KERAS_BACKEND": request.param, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "keras_training.py"), str(folder)],
        env={**environment, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, request.param, json.loads(done.stdout.splitlines()[-1])


def test_training_is_the_same_and_states_are_those_of_a_callback_of_our_own(fitted):
    folder, backend, seen = fitted
    assert seen["same"]
    assert seen["same_log"]
    with tt.open(folder / "run.h5") as run:
        assert run.step.tolist() == list(range(9))
        np.testing.assert_array_equal(run.states[:, 0], np.load(folder / "states.npy"))
        assert [p.name for p in run.parameters] == [
            "net/hidden/kernel", "net/hidden/bias", "net/norm/gamma", "net/norm/beta", "net/out/kernel", "net/out/bias"
        ]  # fmt: skip
        assert run.parameters[4].source == run.parameters[0].target
        assert [p.name for p in run.buffer_parameters] == ["net/norm/moving_mean", "net/norm/moving_variance"]
        assert run.buffers[0, 0].tolist() == [0.0] * 4 + [1.0] * 4
        assert (run.buffers[1] != run.buffers[0]).all()
        assert run.provenance["keras"]["backend"] == backend
        optimizer = run.provenance["optimizer"]
        assert (optimizer["name"], optimizer["lr"], optimizer["betas"]) == ("Adam", 0.01, [0.9, 0.999])
        assert run.optimizer.shape == (9, 1, 2 * run.n_parameters)
        assert np.abs(run.optimizer[0]).max() == 0 < np.abs(run.optimizer[1]).min()


def test_metrics_are_those_of_each_batch_at_the_state_they_were_computed_from(fitted):
    folder, _, seen = fitted
    with tt.open(folder / "run.h5") as run:
        loss = run.metrics["loss"]
        # Keras logs the mean over the batches of the epoch.
        np.testing.assert_allclose(
            np.concatenate([np.cumsum(part) / [1, 2, 3, 4] for part in (loss[:4], loss[4:8])]),
            seen["losses"],
            rtol=1e-5,
        )
        assert np.isnan(loss[8])
        np.testing.assert_allclose(run.metrics["mae"][:8].reshape(2, 4).mean(axis=1), seen["log"]["mae"], rtol=1e-5)
        np.testing.assert_allclose(run.metrics["val_loss"][[4, 8]], seen["log"]["val_loss"], rtol=1e-6)
        assert np.isnan(run.metrics["val_loss"][:4]).all()
        np.testing.assert_allclose(run.metrics["learning_rate"], 0.01, rtol=1e-6)


def test_accumulated_batches_count_once_and_their_losses_are_averaged(fitted):
    folder, _, _ = fitted
    with tt.open(folder / "accumulated.h5") as run, tt.open(folder / "run.h5") as whole:
        assert run.step.tolist() == [0, 1, 2, 3, 4]
        assert np.isfinite(run.metrics["loss"][:4]).all()
        assert whole.metrics["loss"][0] != run.metrics["loss"][0]


def test_a_second_fit_resumes_and_an_exception_leaves_an_interrupted_run(fitted):
    folder, _, _ = fitted
    with tt.open(folder / "resumed.h5") as run:
        assert run.step.tolist() == list(range(17))
        assert run.status == "complete"
    with tt.open(folder / "stopped.h5") as run:
        assert (run.status, run.step[-1]) == ("interrupted", 3)


def test_a_model_without_weights_begins_after_its_first_update_and_says_so(fitted):
    folder, backend, seen = fitted
    with tt.open(folder / "late.h5") as run:
        assert run.step.tolist() == list(range(1 if backend == "tensorflow" else 0, 5))
    assert [("no weights before its first batch" in text) for text in seen["warnings"]] == [True] * (
        backend == "tensorflow"
    )
