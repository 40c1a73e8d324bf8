"""Processor time of commands on a folder of many small runs: ``python benchmarks/many_runs.py FOLDER --runs 1000``.

``TRAJTOOLS_ROOT=FOLDER`` measures the package of another checkout with the same files.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = os.environ.get("TRAJTOOLS_ROOT", str(Path(__file__).resolve().parents[1]))
STATES, WEIGHTS = 30, 50


def record(folder: Path, runs: int) -> None:
    """Write runs of 30 states of 50 weights, with a learning rate, losses and accuracies."""
    from recorders import Recorder

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, rate in enumerate(np.resize(np.geomspace(0.01, 10, 40), runs)):
        path = folder / f"run{i:05d}.h5"
        if path.exists():
            continue
        state = {"w": rng.normal(size=WEIGHTS)}
        with Recorder(path, state, hparams={"lr": float(rate), "seed": i}, quiet=True) as recorder:
            for t in range(1, STATES):
                state["w"] = state["w"] + 0.01 * rng.normal(size=WEIGHTS)
                recorder.record(state, loss=1 / t, accuracy=1 - 1 / t)


def seconds(*arguments: str, home: Path) -> float:
    """Processor time of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": ROOT, "XDG_CACHE_HOME": str(home), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "trajtools", *arguments]
    subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Scratch folder.")
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    many, few, home = options.folder / "many", options.folder / "few", options.folder / f"home{os.getpid()}"
    record(many, options.runs)
    record(few, 10)
    page, table = str(options.folder / "page.html"), ("--exponent", "none", "--json", "-o", os.devnull)
    rows = {
        "sweep, files never opened before": ("sweep", *table),
        "sweep again": ("sweep", *table),
        "sweep, other options": ("sweep", *table, "--stays", "2"),
        "report, details of 5": ("report", "-o", page, "--details", "5"),
        "info": ("info", "--json"),
    }
    print(f"{options.runs} runs: processor time beyond that of 10 runs, ms a run")
    for name, (command, *rest) in rows.items():
        if "--details" in rest and "--details" not in subprocess.run(
            [sys.executable, "-m", "trajtools", command, "--help"],
            check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ROOT},
        ).stdout:  # fmt: skip
            print(f"  {name:34s} cannot")
            continue
        base = seconds(command, str(few), *rest, home=home)
        spent = seconds(command, str(many), *rest, home=home)
        print(f"  {name:34s} {1000 * (spent - base) / (options.runs - 10):6.2f}", flush=True)


if __name__ == "__main__":
    main()
