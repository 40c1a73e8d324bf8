"""The programs in README.md and docs/ run as they stand, each page in an empty folder."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from recorders import Recorder
from trajtools.wiring import Member

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FENCE = re.compile(r"^```python\n(.*?)^```$", flags=re.S | re.M)
PACKAGES = ("torch", "lightning", "transformers", "accelerate", "keras", "jax", "optax", "flax", "xarray", "h5netcdf")
FRAMEWORKS = {"torch": "torch", "lightning": "torch", "huggingface": "torch", "keras": "torch", "jax": "jax"}


def programs(page: Path) -> list[str]:
    return FENCE.findall(page.read_text())


def pages() -> list[Path]:
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if programs(page)]


def marked(text: str, *values: object, name: str) -> object:
    """A parameter with the marks of the frameworks that the program imports."""
    used = {mark for word, mark in FRAMEWORKS.items() if re.search(rf"(import|from) (recorders\.)?{word}\b", text)}
    return pytest.param(*values, marks=[getattr(pytest.mark, mark) for mark in sorted(used)], id=name)


def run(program: str, folder: Path) -> str:
    """Run a program as a user does: a process of its own, its folder the working directory."""
    absent = [p for p in PACKAGES if re.search(rf"^\s*(import|from) {p}\b", program, flags=re.M) and not find_spec(p)]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}")
    folder.joinpath("program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{program}\n{done.stderr}"
    return done.stdout


def test_ci_finds_exactly_two_commands_that_set_everything_up():
    commands = [line for line in README.read_text().splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("trajtools demo")
    assert commands[1].endswith("&& .venv/bin/python -m pytest -n auto --dist worksteal")  # .ci/run cuts it there


def test_the_readme_is_short_and_shows_one_picture():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert (ROOT / picture).stat().st_size > 10_000


@pytest.mark.torch
def test_the_example_of_the_readme_records_and_is_analysed(tmp_path):
    pytest.importorskip("torch")
    recording = next(program for program in programs(README) if "Twins" in program)
    analysis = next(program for program in programs(README) if "tt.twins" in program)
    run(recording, tmp_path)
    assert "1/step, 95% interval" in run(analysis, tmp_path)
    assert {"iris.h5", "growth.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "program",
    [
        marked(text, text, name=f"{i}")
        for i, text in enumerate(programs(README))
        if "Twins(" not in text and "iris.h5" not in text
    ],
)
def test_each_other_program_of_the_readme_runs_alone(program, tmp_path):
    run(program, tmp_path)


@pytest.mark.parametrize(
    "page", [marked("\n".join(programs(page)), page, name=page.relative_to(ROOT).as_posix()) for page in pages()]
)
def test_the_programs_of_a_page_run_in_their_order(page, tmp_path):
    run("\n".join(programs(page)), tmp_path)


@pytest.mark.parametrize("language", ["r", "julia"])
def test_programs_in_other_languages_have_the_names_and_axes_of_a_file(tmp_path, language):
    """R and Julia list the axes in the opposite order and count from 1; neither runs here."""
    (program,) = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / "files.md").read_text(), re.S | re.M)
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((5, 2, 4, 3))  # states, members, and a kernel of 4 x 3
    members = [Member("m0"), Member("m1", reference=0, epsilon=1e-8)]
    with Recorder(tmp_path / "run.h5", {"kernel": kernel[0]}, members=members, hparams={"lr": 0.1}, quiet=True) as rec:
        for at, states in enumerate(kernel):
            rec.record({"kernel": states}, loss=float(at))
    with h5py.File(tmp_path / "run.h5") as file:
        used = re.findall(r'file\[+"([^"]+)"\]+(?:\[([^\]]*)\])?', program)
        assert {name.split("/")[0] for name, _ in used} == {
            "store", "step", "weights", "metric", "metrics", "parameters"
        }  # fmt: skip
        for name, index in used:
            assert name in file
            if index:
                assert len(index.split(",")) == file[name].ndim
        assert json.loads(file.attrs["hparams"]) == {"lr": 0.1}
        count = int(file["store/cells"][0])
        weights, metrics = file["weights"][()].T, file["metrics"][()].T  # as these languages see them
        reference = weights[:, 1 - 1, :count]
        np.testing.assert_array_equal(reference, kernel[:, 0].reshape(5, 12).T)
        names = [name.decode().rstrip("\0") for name in file["metric"][()]]
        assert metrics[names.index("loss"), :count].tolist() == [0, 1, 2, 3, 4]
        offset, size = (int(file[f"parameters/{name}"][0]) for name in ("offset", "size"))
        shape = [int(part) for part in file["parameters/shape"][0].decode().split(",")]
        last = reference[offset : offset + size, count - 1].reshape(shape[::-1], order="F")
        np.testing.assert_array_equal(last.T, kernel[-1, 0])
