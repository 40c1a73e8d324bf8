"""What the command line says about itself: examples that run, the next question, the files of a folder."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from command_line import call, terminal

from recorders import Recorder, iris
from trajtools.cli import COMMANDS
from trajtools.cli.guidance import EXAMPLES, NEXT, suggest

LINES = [(command, line) for command, examples in EXAMPLES.items() for line, _ in examples]
PAGE = Path(__file__).parents[1] / "docs" / "json.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the examples name."""
    place = tmp_path_factory.mktemp("examples")
    (place / "runs").mkdir()
    for rate in (0.1, 1.0):
        iris.record(place / "runs", rate, inits=3, copies=1, steps=60, seed=0)
    (place / "runs" / "eta=1.h5").rename(place / "run.h5")
    iris.record(place / "runs", 1.0, inits=3, copies=1, steps=60, seed=0)
    with Recorder(place / "probed.h5", {"w": np.zeros(2)}, hparams={"lr": 0.1}, quiet=True) as rec:
        for t in range(100):
            rec.record({"w": np.full(2, float(t))}, step=t, h_max_full=min(20.0, 2.0 + t / 2))
    x = [0.3]
    for _ in range(399):
        x.append(3.9 * x[-1] * (1 - x[-1]))
    (place / "series.csv").write_text("x\n" + "\n".join(map(repr, x)) + "\n")
    (place / "checkpoints").mkdir()
    for step in (1, 2, 3):
        np.savez(place / "checkpoints" / f"step_{step}.npz", w=np.full(3, float(step)))
    return place


@pytest.mark.parametrize(("command", "line"), LINES, ids=[line for _, line in LINES])
def test_every_example_runs(command, line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    name, *arguments = shlex.split(line)
    assert (name, arguments[0]) == ("trajtools", command)
    done = call(*arguments)
    if "--json" in arguments:
        assert json.loads(done.stdout)["schema"] == f"trajtools/{command}/1"
    for option in ("-o", "--plot"):
        if option in arguments:
            assert Path(arguments[arguments.index(option) + 1]).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_two_examples(command):
    assert len(EXAMPLES[command]) == 2
    text = call(command, "--help").stdout
    for line, purpose in EXAMPLES[command]:
        assert line in text
        assert purpose in text


def test_what_comes_next_are_commands():
    assert {step for steps in NEXT.values() for step, _ in steps} | set(NEXT) <= set(COMMANDS)
    assert suggest("sweep", ["a b.h5"]) == "Next: trajtools report 'a b.h5'   one page with the figure and every run"
    assert suggest("export", ["a.h5"]) == ""


def test_the_next_question_stands_at_the_end_on_a_terminal_and_nowhere_else(folder):
    run = folder / "run.h5"
    status, shown = terminal("info", run, columns=200)
    assert status == 0
    assert f"Next: trajtools lyapunov {run}" in shown
    assert "Next:" not in terminal("info", run, "--json", columns=200)[1]
    assert "Next:" not in call("info", run).stderr


def test_without_a_command_the_files_of_the_folder_are_looked_at(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "trajtools demo" in call().stdout
    (tmp_path / "runs").mkdir()
    for name in ("a.h5", "b.h5", "runs/c.h5", "step_1.pt", "series.csv"):
        (tmp_path / name).touch()
    (tmp_path / "errors.txt").write_text("step 1\nno numbers alone in line 2\n")
    text = call().stdout
    for line in ("info a.h5", "sweep .", "report runs", "convert . -o converted.h5", "lyapunov series.csv"):
        assert f"trajtools {line}" in text
    assert "2 HDF5 files" in text
    assert "1 table here" in text  # a log is none
    (tmp_path / "series.txt").write_text("# date x\n2024-01-01 0.5\n2024-01-02 nan\n")
    assert "2 tables here" in call().stdout
    assert "trajtools demo" not in text


def test_the_page_of_schemas_names_every_command_and_the_keys_of_its_document(folder, monkeypatch):
    monkeypatch.chdir(folder)
    page = PAGE.read_text(encoding="utf-8")
    for command, line in (
        ("info", "info run.h5 --json"),
        ("validate", "validate run.h5 --json"),
        ("lyapunov", "lyapunov run.h5 --json"),
        ("sweep", "sweep runs --json"),
        ("watch", "watch runs --once --json"),
    ):
        assert f"## `{command}/1`" in page
        section = page.split(f"## `{command}/1`")[1].split("\n## ")[0]
        document = json.loads(call(*line.split()).stdout)
        keys = set(document) - {"schema", "version", "errors"}
        inner = next((document[key] for key in ("results", "files", "runs") if key in document), [{}])
        keys |= set(inner[0])
        assert keys <= set(re.findall(r"`(\w+)`", section)), (command, keys)
    assert all(f"`{command}/1`" in page for command in COMMANDS if command not in ("export", "report"))
