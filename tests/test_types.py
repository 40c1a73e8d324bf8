"""Type checkers see what the public functions take and give: misspelt names and wrong arguments are errors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import trajtools

ROOT = Path(__file__).parent.parent
SCRIPT = """\
import numpy as np

import trajtools as tt
from recorders import Recorder

run = tt.open("run.h5")
growth = tt.twins(run, metric="l1")
exponent = growth.fit()
value: float = exponent.value
low, high = exponent.interval
x = np.zeros((100, 3))
print(tt.lyapunov(x).verdict, tt.pairwise(x, metric="l2").shape, tt.structure.pca(x).coordinates)
pairs = tt.pairwise([[0.0, 1.0], [1, 2]], y=run.trajectory(0))
tt.lyapunov(run, rng=np.random.default_rng(3))
tt.lyapunov(pairs, neighbors=tt.NearestK(2), rng=None)
tt.twins((run.trajectory(0), [run.trajectory(1)]))
tt.twins((x, [x, x]))
tt.twins([run, (x, x)], metric=lambda a, b: np.abs(a - b).sum(axis=-1))
tt.rosenstein([0.0, 1, 2.5], theiler=1, horizon=1)
tt.kantz(pairs, theiler=1, horizon=1)
tt.recurrence(pairs, threshold=0.1).plot(cmap="gray")
tt.correlation_dimension(pairs, radii=np.geomspace(0.1, 1, 9))
tt.structure.correlation_sum([0.0, 3, 1], radii=[1, 3])
tt.structure.change_points(run, metrics={"loss": run.metrics["loss"]})
tt.structure.mds((x, [x, x]))
tt.orbital_stability(x, [x, x])
tt.orbital_stability(run)
tt.sweep(["a.h5", run], runs=lambda run: len(run.step) > 3)
tt.embedding.theiler_window(x)
Recorder("run.h5", {"w": x}, every=lambda step: step % 3 == 0)
Recorder("run.h5", {"w": x}, every=np.int64(3), strict=True)
step: int = run.plantings["step"][0]
runs = tt.open_runs("sweep/*.h5")
tt.twins(runs["a"])
with tt.open("run.h5") as opened:
    weights = opened.states.read(slice(0, 3), [0], raw=True) + opened.states[0]
tt.lyapunov(object())  # error
tt.lyapunov("run.h5")  # error
tt.lyapunov(x, rng="seed")  # error
tt.lyapunov(x, neighbors=3)  # error
tt.pairwise(3j)  # error
tt.pairwise(x, y={"w": x})  # error
tt.twins(3)  # error
tt.rosenstein(run, theiler=1, horizon=1)  # error
tt.recurrence(x, metric=2)  # error
tt.correlation_dimension(x, radii="all")  # error
tt.structure.autocorrelation(x, rng=0.5)  # error
tt.training.curvature(x)  # error
tt.sweep(3)  # error
growth.fit(levell=0.9)  # error
growth.fit(rng=[1, "2"])  # error
Recorder("run.h5", {"w": x}, every=0.5)  # error
tt.twinz(run)  # error
tt.twins(run, metricc="l1")  # error
exponent.valeu  # error
tt.open(3)  # error
tt.open("run.h5")["sgd"]  # error
runs["a"].weights  # error
run.states(slice(0, 3))  # error
Recorder("run.h5", {"w": x}, run="sgd")  # error
tt.structure.pcaa(x)  # error
Recorder(3)  # error
"""


def test_mypy_reports_misspelt_names_and_wrong_arguments_and_nothing_else(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    options = ["--strict", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(script)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    reported = {int(line) for line in re.findall(r"script\.py:(\d+): error", done.stdout)}
    expected = {number for number, line in enumerate(SCRIPT.splitlines(), 1) if line.endswith("# error")}
    assert reported == expected, done.stdout + done.stderr


def test_names_for_type_checkers_are_the_names_that_are_loaded() -> None:
    tree = ast.parse((ROOT / "trajtools" / "__init__.py").read_text())
    typed = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    homes, modules = {}, set()
    for node in typed.body:
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        for alias in node.names:
            assert alias.asname == alias.name
            if node.module == "trajtools":
                modules.add(alias.name)
            else:
                homes[alias.name] = node.module
    assert modules == set(trajtools._MODULES)
    assert homes == {name: f"trajtools.{home}" for name, home in trajtools._HOME.items()}
