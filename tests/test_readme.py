"""The README's programs run, in the order in which they are printed."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


def test_ci_finds_exactly_two_commands_that_set_everything_up():
    commands = [line for line in README.read_text().splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("trajtools demo")
    assert commands[1].endswith("&& .venv/bin/python -m pytest -n auto --dist worksteal")  # .ci/run cuts it there


@pytest.mark.torch
def test_python_programs_of_the_readme_run(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x, y = torch.randn(30, 16, 8), torch.randint(0, 3, (30, 16))
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    names = {
        "np": np,
        "torch": torch,
        "model": model,
        "opt": torch.optim.Adam(model.parameters()),
        "loss_fn": torch.nn.functional.cross_entropy,
        "loader": list(zip(x, y, strict=True)),
    }
    programs = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    programs = [program for program in programs if "RecorderCallback" not in program]  # with the tests of the callbacks
    assert len(programs) == 6
    for program in programs:
        exec(compile(program, str(README), "exec"), names)
    assert {"digits.h5", "twins.h5", "growth.png"} <= {path.name for path in tmp_path.iterdir()}
    printed = capsys.readouterr().out
    assert "1/step, 95% interval" in printed
    assert ": chaotic" in printed
    assert "recommended rate" in printed
