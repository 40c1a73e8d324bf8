"""The example for loops written by hand runs as a user would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trajtools as tt

pytestmark = pytest.mark.recorders

ROOT = Path(__file__).resolve().parents[1]


def run_example(out: Path, rate: float, steps: int = 300) -> str:
    command = [
        sys.executable,
        ROOT / "examples" / "any_loop.py",
        "--out",
        out,
        "--steps",
        str(steps),
        "--rate",
        str(rate),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=out.parent, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_numpy_example_tells_a_slow_learner_from_a_fast_one(tmp_path: Path) -> None:
    assert "verdict: regular" in run_example(tmp_path / "slow.h5", 0.1)
    said = run_example(tmp_path / "fast.h5", 8.0)
    assert "301 states of 6 networks" in said
    # One initial condition, perturbed once: growth may be seen, that it lasts cannot.
    assert "verdict: chaotic" not in said
    with tt.open(tmp_path / "slow.h5") as slow, tt.open(tmp_path / "fast.h5") as fast:
        spread = [tt.distance(f.trajectory(0), f.trajectory(1), metric="l1")[-1] for f in (slow, fast)]
        assert spread[0] < 1e-6
        assert spread[1] > 1e-2


def test_the_numpy_example_records_states_metrics_and_the_graph(tmp_path: Path) -> None:
    out = tmp_path / "spirals.h5"
    run_example(out, 1.0, steps=20)
    with tt.open(out) as run:
        assert run.step.tolist() == list(range(21))
        assert [m.reference for m in run.members] == [-1, 0, 0, 0, 0, 0]
        assert np.isfinite(run.metrics["loss"][:-1]).all()
        assert np.isnan(run.metrics["loss"][-1]).all()  # the last state was reached, its loss never computed
        assert [(p.name, p.source, p.target) for p in run.parameters] == [
            ("W1", "input", "W1"), ("b1", "bias", "W1"), ("W2", "W1", "W2"), ("b2", "bias", "W2"),
        ]  # fmt: skip
        x = run.trajectory()
        graph = x.network(20)
        assert (graph.number_of_nodes(), graph.number_of_edges()) == (2 + 16 + 1 + 1, x.shape[1])
        assert graph.edges[("W1", 3), ("W2", 0), 0]["weight"] == x.select("W2")[20][3]
