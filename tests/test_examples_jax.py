"""The JAX example runs as a user would run it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trajtools as tt

pytest.importorskip("jax")
pytest.importorskip("optax")
pytest.importorskip("sklearn")
pytestmark = [pytest.mark.jax, pytest.mark.recorders]

ROOT = Path(__file__).resolve().parents[1]


def test_the_jax_example_records_every_step_and_reaches_a_verdict(tmp_path):
    out = tmp_path / "digits.h5"
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "jax_scan.py", "--out", out, "--steps", "100", "--twins", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "verdict:" in done.stdout
    with tt.open(out) as run:
        assert run.step.tolist() == list(range(101))
        assert [member.reference for member in run.members] == [-1, 0, 0]
        assert run.metrics["loss"][:5].mean() > 3 * np.nanmean(run.metrics["loss"][-20:])
        growth = tt.distance(run.trajectory(0), run.trajectory(1), metric="l1")
        # 2368 weights (biases are left alone) move by up to 1e-8 each, 0.5e-8 on average.
        weights = sum(p.size for p in run.parameters if p.kind == "dense")
        assert growth[0] == pytest.approx(0.5e-8 * weights, rel=0.1)
