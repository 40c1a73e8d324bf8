"""The PyTorch example runs as a user would run it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trajtools as tt

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytestmark = [pytest.mark.torch, pytest.mark.recorders]

ROOT = Path(__file__).resolve().parents[1]


def test_the_accelerate_example_records_twins_and_shows_its_progress(tmp_path):
    pytest.importorskip("accelerate")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "accelerate_loop.py", "--out", tmp_path / "loop.h5", "--steps", "20"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1/step" in done.stdout
    assert "step 20  learning_rate" in done.stderr
    with tt.open(tmp_path / "loop.h5") as run:
        assert run.step.tolist() == list(range(21))
        assert run.plantings["step"].tolist() == [0, 0]
        assert np.isfinite(run.metrics["loss"][:-1]).all()


def test_the_pytorch_example_records_every_step_and_reaches_a_verdict(tmp_path):
    out = tmp_path / "digits.h5"
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "pytorch.py", "--out", out, "--steps", "60", "--twins", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "verdict:" in done.stdout
    with tt.open(out) as run:
        assert run.step.tolist() == list(range(61))
        assert [member.reference for member in run.members] == [-1, 0, 0]
        growth = tt.distance(run.trajectory(0), run.trajectory(1), metric="l1")
        # 1816 weights (biases are left alone) move by up to 1e-8 each, 0.5e-8 on average.
        weights = sum(p.size for p in run.parameters if p.kind != "bias")
        assert growth[0] == pytest.approx(0.5e-8 * weights, rel=0.1)


@pytest.mark.slow
def test_the_search_with_optuna_prunes_what_the_exponent_forbids(tmp_path):
    pytest.importorskip("optuna")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "optuna_pruning.py", "--trials", "12", "--steps", "300"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line[:5].strip().isdigit() and "of 12" not in line]
    assert len(rows) == 12
    for _, _, _, steps, exponent, loss in rows:
        assert (int(steps) < 300) <= (loss == "pruned")
        if loss == "pruned" and exponent != "nan":
            assert float(exponent) > 0.1
    assert "of 12 trials pruned" in done.stdout
