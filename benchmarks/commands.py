"""What commands cost: rows of `table.py`, over what Python and NumPy cost to start, and against the number of runs.

    python benchmarks/table.py --only commands

Each call is a process of its own, and its processor time counts. Compiled kernels come from the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Growth, Item, Row, Way

from recorders import Recorder
from trajtools.systems import henon
from trajtools.wiring import Member

ROOT = Path(__file__).resolve().parents[1]


def record(folder: Path) -> Path:
    """1500 states of the Henon map in a file."""
    states = henon().trajectory(1500, rng=np.random.default_rng(0))
    with Recorder(folder / "henon.h5", {"x": states[0]}, quiet=True) as recorder:
        for state in states:
            recorder.record({"x": state})
    return folder / "henon.h5"


def record_twins(path: Path, rate: float, states: int, members: int = 5, weights: int = 83) -> None:
    """A training whose twins separate, with a loss and an accuracy."""
    rng = np.random.default_rng(int(1e6 * rate))
    reference = rng.standard_normal(weights)
    apart = 1e-8 * rng.standard_normal((members, weights))
    apart[0] = 0
    state = {"w": reference + apart}
    table = [Member("0"), *(Member(str(i), reference=0, epsilon=1e-8) for i in range(1, members))]
    with Recorder(
        path, state, members=table, hparams={"lr": rate}, metrics=("loss", "accuracy"), quiet=True
    ) as recorder:
        for step in range(states):
            state["w"] = reference + apart * np.exp(0.05 * step)
            recorder.record(state, step=step, loss=1 / (1 + step), accuracy=1 - 1 / (1 + step))


def call(line: list[str]) -> Way:
    """Run Python with these arguments."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users do not compile all modules every time

    def run() -> None:
        done = subprocess.run([sys.executable, *line], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)}: {done.stderr}")

    return run


def trajtools(*arguments: str) -> Way:
    return call(["-m", "trajtools", *arguments])


def runs(folder: Path, count: int, states: int = 20) -> str:
    """A folder of so many runs, one file each."""
    made = folder / f"{count} runs of {states}"
    if not made.exists():
        made.mkdir()
        for k, rate in enumerate(np.geomspace(1e-3, 1, count + 1)[1:]):
            record_twins(made / f"{k:04d}.h5", float(rate), states)
    return str(made)


def items(quick: bool = False) -> Iterator[Item]:
    """Rows of the table, and how commands grow with the number of runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = str(record(folder))
        python, numpy = call(["-c", "pass"]), call(["-c", "import numpy"])
        yield Row("`trajtools --help`", trajtools("--help"), limit=("`python -c pass`", lambda: python))
        for command in (["info", path], ["lyapunov", path]):
            title = f"`trajtools {command[0]}` of a small file"
            yield Row(title, trajtools(*command), limit=("`import numpy`", lambda: numpy))
        counts = [4, 16] if quick else [10, 100, 1000]
        for command in (["info"], ["sweep", "--exponent", "none", "--fresh", "-q"]):
            title = f"`trajtools {' '.join(command)}`, runs of 20 states x 5 members x 83"
            yield Growth(title, "runs", counts, lambda n, c=command: trajtools(*c, runs(folder, n)), "1")
        out = str(folder / "report.html")
        yield Growth(
            "`trajtools report`, runs of 200 states x 5 members x 83", "runs", [1, 2] if quick else [1, 4, 8],
            lambda n: trajtools("report", "-q", "-o", out, runs(folder, n, 200)), "1",
        )  # fmt: skip
