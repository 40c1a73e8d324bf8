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

run = tt.open("run.h5")["sgd"]
growth = tt.twins(run, metric="l1")
exponent = growth.fit()
value: float = exponent.value
low, high = exponent.interval
x = np.zeros((100, 3))
print(tt.lyapunov(x).verdict, tt.pairwise(x, metric="l2").shape, tt.structure.pca(x).coordinates)
tt.twinz(run)  # error
tt.twins(run, metricc="l1")  # error
exponent.valeu  # error
tt.open(3)  # error
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
