"""The studies of the five papers run as a user would run them, in their smallest size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trajtools as tt

pytestmark = pytest.mark.recorders
ROOT = Path(__file__).resolve().parents[1]


def study(name: str, out: Path) -> str:
    command = [sys.executable, ROOT / "examples" / f"{name}.py", "--out", out, "--smoke"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert list(out.glob("*.png"))
    assert list(out.glob("*.md"))
    return done.stdout


def cells(said: str, start: str) -> list[str]:
    """The cells of the first row of a Markdown table that starts like this."""
    line = next(line for line in said.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_iris_has_regimes_and_is_marginal_after_learning(tmp_path):
    said = study("iris_stability", tmp_path)
    assert cells(said, "eta = 0.01")[-1] == "regular"
    assert float(cells(said, "eta = 1")[1]) > 0.1
    assert "marginal drift" in said
    assert float(cells(said, "10")[1]) == pytest.approx(0.242, abs=0.01)  # the exact map at eta = 5
    assert float(cells(said, "5")[1]) == pytest.approx(-0.405, abs=0.001)


@pytest.mark.slow
def test_an_interrupted_study_goes_on_with_what_is_missing(tmp_path):
    pytest.importorskip("sklearn")
    said = study("chaotic_transients", tmp_path)
    assert "digits-control-0.7746 (control)" in said
    (tmp_path / "digits-rate-0.7746.h5").unlink()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5")}
    assert len(files) == 3
    assert study("chaotic_transients", tmp_path) == said
    assert files.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5")}.items()


@pytest.mark.slow
def test_rate_momentum_and_batch_are_set_against_each_other(tmp_path):
    pytest.importorskip("sklearn")
    said = study("effective_rate", tmp_path)
    assert {path.name for path in tmp_path.glob("*.md")} == {"onset.md", "collapse.md"}
    law = cells(said, "0.7")  # the narrower range of effective rates
    assert float(law[2]) == pytest.approx(-1, abs=0.25)
    assert float(law[4]) == pytest.approx(1, abs=0.25)
    table = (tmp_path / "onset.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[:2] for line in table] == [["| 16", "0"], ["| 16", "0.9"], ["| 64", "0"], ["| 64", "0.9"]]
    points = json.loads((tmp_path / "runs.json").read_text())["points"]
    assert len({point["run"] for point in points}) == len(list(tmp_path.glob("*.h5"))) == 18


@pytest.mark.slow
def test_a_layer_moves_towards_the_edge_of_chaos(tmp_path):
    pytest.importorskip("sklearn")
    said = study("edge_of_chaos", tmp_path)
    assert float(cells(said, "0.1")[3]) > 0  # the slope of J^2
    with tt.open(tmp_path / "digits-no-decay.h5") as run:
        path = tt.training.order_chaos(run)
    assert path.J[0] == pytest.approx(0.5, abs=0.02)
    assert path.time_unit == "epoch"


@pytest.mark.slow
def test_the_cloud_follows_the_mean_curvature_and_not_the_leading_exponent(tmp_path):
    said = study("activation_choice", tmp_path)
    rows = {tuple(cells(line, cells_start)[:2]): cells(line, cells_start) for line, cells_start in _rows(said)}
    for activation in ("linear", "sigmoid", "ReLU"):
        assert float(rows[activation, "L2"][6]) > 0.5
        assert float(rows[activation, "leading exponent"][2]) > 0
    assert float(rows["linear", "L2"][2]) < 0


def _rows(said: str) -> list[tuple[str, str]]:
    names = ("linear", "sigmoid", "ReLU")
    return [(line, name) for line in said.splitlines() for name in names if line.startswith(f"| {name} ")]


@pytest.mark.slow
@pytest.mark.torch
def test_the_shadow_measures_the_curvature_of_lanczos(tmp_path):
    pytest.importorskip("torch")
    said = study("shadow_hessian", tmp_path)
    assert abs(float(cells(said, "200")[3])) < 1e-3
    assert "/ h_max" in said
