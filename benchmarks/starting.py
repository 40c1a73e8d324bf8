"""What a command costs before it does anything, as ratios to what Python and NumPy cost to start.

``python benchmarks/starting.py``. Numbers are the least processor times of interleaved processes, which depend less on
what else the machine does than wall times. Compiled kernels come from the cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from recorders import Recorder
from trajtools.systems import henon

ROOT = Path(os.environ.get("TRAJTOOLS_ROOT", Path(__file__).resolve().parents[1]))


def recording(folder: str) -> str:
    """1500 states of the Henon map in a file."""
    path = os.path.join(folder, "henon.h5")
    states = henon().trajectory(1500, rng=np.random.default_rng(0))
    with Recorder(path, {"x": states[0]}, quiet=True) as recorder:
        for state in states:
            recorder.record({"x": state})
    return path


def cpu_seconds(line: list[str]) -> float:
    before = os.times()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users do not compile 80 modules every time
    subprocess.run([sys.executable, *line], env=environment, capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7, help="processes of each kind")
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        path = recording(folder)
        lines = {
            "python": ["-c", "pass"],
            "numpy": ["-c", "import numpy"],
            "--help": ["-m", "trajtools", "--help"],
            "info": ["-m", "trajtools", "info", path],
            "lyapunov": ["-m", "trajtools", "lyapunov", path],
        }
        cpu_seconds(lines["lyapunov"])  # fills the cache
        times: dict[str, list[float]] = {name: [] for name in lines}
        for _ in range(repeat):
            for name, line in lines.items():
                times[name].append(cpu_seconds(line))
    least = {name: min(each) for name, each in times.items()}
    for name, beside in (("--help", "python"), ("info", "numpy"), ("lyapunov", "numpy")):
        print(f"trajtools {name} over `{beside}`: {least[name] / least[beside]:.1f}  ({least[name]:.2f} s)")


if __name__ == "__main__":
    main()
