"""The loops of other packages record the same training, and the states that they see themselves."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.recorders]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "compiled": "torch", "mixed": "torch", "lbfgs": "torch", "ema": "torch", "lora": "peft", "skorch": "skorch",
    "partial_fit": "sklearn", "stable_baselines": "stable_baselines3",
}  # fmt: skip
PAGE = (ROOT / "docs" / "loops.md").read_text()


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loops")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "loops.py", "--folder", folder],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=300, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_loop_trains_as_before_and_its_states_are_recorded(printed, name):
    if importlib.util.find_spec(PACKAGES[name]) is None:
        assert printed[name] == f"{PACKAGES[name]} is not installed"
        pytest.skip(printed[name])
    lines, training, states, steps = printed[name].split(", ")
    assert (training, states) == ("same training True", "same states True")
    row = re.search(rf"^\| [^|]*`{name}`[^|]* \|([^\n]*)\|$", PAGE, flags=re.M)
    assert row, "docs/loops.md has no line for it"
    assert [cell.strip() for cell in row[1].split("|")][:2] == [lines.split()[0], steps.removeprefix("steps ")]
