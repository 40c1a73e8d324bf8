import json
import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from command_line import ROOT, call, process, terminal, write

import trajtools
from recorders import Recorder, iris
from trajtools.cli import COMMANDS, analyses, files, lyapunov, sweep


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    for rate in (0.01, 1.0):
        iris.record(folder, rate, inits=12, copies=2, steps=150, seed=0)
    return folder


# What every command promises


def test_help_names_all_commands_without_importing_them():
    code = (
        "import sys\n"
        "from trajtools.cli import cli\n"
        "cli.main(['--help'], prog_name='trajtools', standalone_mode=False)\n"
        "heavy = {'numpy', 'h5py', 'numba', 'scipy', 'networkx', 'matplotlib', 'rich', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


def test_info_loads_no_compiler(recorded):
    code = (
        "import sys\n"
        "from trajtools.cli import cli\n"
        f"cli.main(['info', {str(recorded)!r}], standalone_mode=False)\n"
        "heavy = {'numba', 'scipy', 'networkx', 'matplotlib', 'torch', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    said = call(name, "--help").stdout
    assert said.startswith(f"Usage: trajtools {name}")
    assert "--debug" in said


def test_version_is_that_of_the_package():
    assert call("--version").stdout == f"trajtools, version {trajtools.__version__}\n"


def test_a_mistyped_command_is_a_usage_error_with_a_suggestion():
    assert "Did you mean 'lyapunov'?" in call("lyapnov", code=2).stderr
    assert "The commands are: demo, info" in call("xyz", code=2).stderr


def test_choices_are_those_of_the_library():
    from trajtools.exponents.exponent import UNITS
    from trajtools.exponents.lyapunov import METHODS
    from trajtools.exports import FORMATS, TABLES, WHAT
    from trajtools.recurrences.measures import CONVENTIONS
    from trajtools.statistics import AVERAGES
    from trajtools.sweeps.sweep import THRESHOLDS
    from trajtools.training.curvature import KINDS

    assert lyapunov.METHODS == METHODS
    assert lyapunov.AVERAGES == AVERAGES
    assert lyapunov.UNITS == UNITS
    assert tuple(sorted(CONVENTIONS)) == analyses.CONVENTIONS
    assert analyses.HESSIANS == KINDS
    assert files.COLUMNS == WHAT
    assert (files.FORMATS, files.TABLES) == (FORMATS, TABLES)
    assert sweep.THRESHOLDS == THRESHOLDS


def test_help_of_a_command_imports_no_library():
    code = (
        "import sys\n"
        "from trajtools.cli import COMMANDS, cli\n"
        "for name in COMMANDS: cli.main([name, '--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'h5py', 'numba', 'scipy', 'rich', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# info, validate, repair


def test_info_says_what_the_file_holds(recorded):
    said = call("info", recorded).stdout
    for words in ("eta=0.01.h5: format 2.0", "eta=1.h5", "complete", "151 (steps 0 to 150)",
                  "12 references, 24 perturbed copies", "83 (", "hidden.kernel 4x10", "float64", "loss",
                  "learning_rate=0.01"):  # fmt: skip
        assert words in said, words


def test_info_as_json_is_one_document(recorded):
    document = json.loads(call("info", recorded, recorded, "--run", "eta=1", "--json").stdout)
    assert document["schema"] == "trajtools/info/1"
    run, again = document["files"]
    assert run == again
    assert (run["run"], run["states"], run["members"], run["parameters"]) == ("eta=1", 151, 36, 83)
    assert run["metrics"]["loss"] == [151, 36]


def test_a_sound_file_is_valid(recorded):
    said = call("validate", recorded).stdout
    assert [line.rsplit(": ", 1)[1] for line in said.splitlines()] == ["valid", "valid"]
    document = json.loads(call("validate", recorded, "--json").stdout)
    assert [file["valid"] for file in document["files"]] == [True, True]


def test_a_broken_file_is_not_valid(recorded, tmp_path):
    broken = tmp_path / "broken.h5"
    whole = recorded / "eta=1.h5"
    broken.write_bytes(whole.read_bytes())
    with h5py.File(broken, "r+") as file:
        del file["step"]
    result = call("validate", broken, whole, code=1)
    assert "step" in result.stdout
    assert "not valid" in result.stdout
    assert result.stderr == f"Error: {broken} breaks the format.\n"
    assert [line for line in result.stdout.splitlines() if not line.startswith(" ")][1] == f"{whole}: valid"


def test_repair_leaves_a_sound_file_alone(recorded, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes((recorded / "eta=1.h5").read_bytes())
    assert str(copy) in call("repair", copy).stdout
    assert call("validate", copy)
    assert json.loads(call("repair", copy, "--json").stdout)["schema"] == "trajtools/repair/1"


# lyapunov


def test_lyapunov_prints_a_row_and_reasons_for_each_run(recorded):
    said = call("lyapunov", recorded).stdout
    lines = said.splitlines()
    assert lines[0].split()[:2] == ["run", "exponent"]
    assert [line.split()[0] for line in lines[1:3]] == ["eta=0.01", "eta=1"]
    assert call("lyapunov", recorded, recorded).stdout.splitlines()[0].split()[0] == "file"
    assert "12 of 12" in said
    assert said.count("  - ") >= 2


def test_lyapunov_as_json_gives_the_same_numbers(recorded):
    result = call("lyapunov", recorded, "--json", "--run", "eta=1")
    document = json.loads(result.stdout)
    assert document["schema"] == "trajtools/lyapunov/1"
    (found,) = document["results"]
    with trajtools.open(recorded / "eta=1.h5") as run:
        exponent = trajtools.twins(run).fit()
    assert found["exponent"]["value"] == exponent.value
    assert found["exponent"]["interval"] == list(exponent.interval)
    assert found["exponent"]["verdict"] == exponent.verdict
    assert found["hparams"]["learning_rate"] == 1.0
    assert len(found["curve"]["time"]) == len(found["curve"]["log_distance"]) == 151


def test_lyapunov_by_the_published_procedure_says_spread_and_kept_fraction(recorded):
    said = call("lyapunov", recorded, "--run", "eta=1", "--procedure", "danovski2024").stdout
    assert said.splitlines()[0].split()[-2:] == ["s.d.", "kept"]
    with trajtools.open(recorded / "eta=1.h5") as run:
        exponent = trajtools.twins(run).fit(procedure="danovski2024")
    row = said.splitlines()[1].split()
    assert row[1] == f"{exponent.value:.3f}"
    assert row[-1] == f"{exponent.n_used / exponent.n_total:.0%}"


def test_selection_of_parameters_changes_what_is_measured(recorded):
    whole = json.loads(call("lyapunov", recorded, "--run", "eta=1", "--json").stdout)["results"][0]
    part = json.loads(
        call("lyapunov", recorded, "--run", "eta=1", "--select", "output.*", "--json").stdout
    )["results"][0]  # fmt: skip
    with trajtools.open(recorded / "eta=1.h5") as run:
        pairs = [(run.trajectory(i).select("output.*"), [run.trajectory(i + k).select("output.*") for k in (1, 2)])
                 for i in range(0, 36, 3)]  # fmt: skip
        wanted, once = trajtools.twins(run, select=("output.*",)), trajtools.twins(pairs)
    # Copies are planted anew: until then, a curve is that of the pair.
    first = wanted.distances[wanted.start == 0]
    for row in first:
        known = np.isfinite(row)
        same = np.abs(once.distances[:, : known.sum()] / row[known] - 1).max(axis=1)
        assert (same < 1e-12).sum() == 1
    np.testing.assert_allclose(part["curve"]["log_distance"], wanted.log_distance, rtol=1e-12)
    # Only part of the perturbation lies in the output layer.
    assert part["curve"]["log_distance"][0] < whole["curve"]["log_distance"][0]
    assert "no_such" in call("lyapunov", recorded, "--run", "eta=1", "--select", "no_such*", code=1).stderr


def test_same_seed_same_answer(recorded):
    one, two = (call("lyapunov", recorded, "--json", "--seed", "5").stdout for _ in range(2))
    assert one == two


def test_window_and_region_are_obeyed(recorded):
    found = json.loads(
        call("lyapunov", recorded, "--run", "eta=1", "--window", "0:60", "--region", "5:30", "--json").stdout
    )
    (result,) = found["results"]
    assert result["curve"]["time"][-1] == 59
    assert 5 <= result["exponent"]["window"][0] < result["exponent"]["window"][1] <= 30


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plot_writes_the_figure(recorded, tmp_path, ending):
    figure = tmp_path / f"figure.{ending}"
    result = call("lyapunov", recorded, "--run", "eta=1", "--plot", figure)
    assert figure.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")
    assert str(figure) in result.stderr
    assert str(figure) not in result.stdout


def test_output_goes_to_a_file_and_never_over_the_recording(recorded, tmp_path):
    target = tmp_path / "answer.json"
    assert call("lyapunov", recorded, "--json", "-o", target).stdout == ""
    assert json.loads(target.read_text())["schema"] == "trajtools/lyapunov/1"
    file = recorded / "eta=1.h5"
    before = file.read_bytes()
    assert "there is no folder" in call("lyapunov", recorded, "-o", tmp_path / "no" / "a.json", code=1).stderr
    assert "one of the input files" in call("lyapunov", recorded, "-o", file, code=1).stderr
    assert file.read_bytes() == before


def test_what_is_wrong_with_a_run_is_said_once(recorded):
    said = call("lyapunov", recorded, recorded, "--metric", "foo", code=1).stderr
    assert said.count("there is no metric 'foo'") == 2
    assert len(said.splitlines()) == 2  # one for each of two files, though both are analysed twice


@pytest.mark.parametrize(
    "wrong",
    [
        ["--window", "5"],
        ["--window", "9:3"],
        ["--level", "1.5"],
        ["--average", "median"],
        ["--plot", "figure.bmp"],
        ["--procedure", "best"],
        ["--nonsense"],
    ],
)
def test_wrong_options_are_usage_errors(recorded, wrong):
    result = call("lyapunov", recorded, *wrong, code=2)
    assert "Error:" in result.stderr
    assert result.stdout == ""


def test_without_a_file_it_is_a_usage_error():
    assert "Missing argument 'FILE...'" in call("lyapunov", code=2).stderr


def test_strict_turns_an_inconclusive_verdict_into_status_3(recorded, tmp_path):
    three = write(tmp_path / "three.h5", np.random.default_rng(0).normal(size=(3, 2, 4)))
    assert "inconclusive" in call("lyapunov", three).stdout
    assert "inconclusive" in call("lyapunov", three, "--strict", code=3).stdout


def test_one_bad_file_does_not_hide_the_answers_of_the_others(recorded, tmp_path):
    result = call("lyapunov", recorded, tmp_path / "missing.h5", "--run", "eta=1", code=1)
    assert "eta=1" in result.stdout
    assert "missing.h5" in result.stderr
    document = json.loads(call("lyapunov", recorded, tmp_path / "missing.h5", "--json", code=1).stdout)
    assert len(document["results"]) == 2
    assert "does not exist" in document["errors"][0]["error"]
    for command in ("info", "validate", "repair"):
        both = call(command, tmp_path / "missing.h5", recorded, code=1)
        assert str(recorded) in both.stdout
        assert "missing.h5 does not exist" in both.stderr


# Processes


def test_data_and_progress_are_kept_apart_in_a_pipe(recorded):
    done = process("lyapunov", recorded, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "trajtools/lyapunov/1"
    assert done.stderr == ""


def test_debug_shows_where_it_happened(recorded):
    done = process("info", recorded, "--run", "nothing", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "SelectionError" in done.stderr
    assert "Traceback" not in process("info", recorded, "--run", "nothing").stderr


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes")
def test_a_reader_that_leaves_is_no_error_message(recorded):
    line = f"{sys.executable} -m trajtools info {' '.join([str(recorded)] * 100)} | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


# Text


def test_tables_in_a_pipe_are_plain_and_whole(tmp_path):
    names = [f"a run with a long name, number {k}, \u754c" for k in range(12)]
    for k, name in enumerate(names):
        with Recorder(tmp_path / f"{name}.h5", {"w": np.zeros(3)}, quiet=True) as recorder:
            for step in range(20):
                recorder.record({"w": np.random.default_rng([k, step]).normal(size=3)})
    done = process("recurrence", tmp_path)
    head, first, *_ = done.stdout.splitlines()
    assert all(name in head for name in names)
    assert first.startswith("RR  ")
    assert "\x1b" not in done.stdout
    assert all(c.isascii() or c == "\u754c" for c in head + first)
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())


def test_columns_are_aligned(recorded):
    lines = call("lyapunov", recorded).stdout.splitlines()[:3]
    words = ["verdict", *verdicts(recorded)]
    assert len({line.index(word) for line, word in zip(lines, words, strict=True)}) == 1


def verdicts(folder):
    found = json.loads(call("lyapunov", folder, "--json").stdout)["results"]
    return [one["exponent"]["verdict"] for one in found]


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
def test_a_terminal_shows_a_table_and_progress(recorded):
    status, shown = terminal("lyapunov", recorded, columns=100)
    assert status == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search("^ *-{4,}  -{4,}", text, re.MULTILINE)  # the line below the head
    assert "Analysing runs" in text  # the label of the bar
    assert re.search(rf"eta=1 .* {verdicts(recorded)[1]}", text)
    assert "  - a power law " in text


def test_errors_name_options_where_the_library_names_arguments(tmp_path):
    table = tmp_path / "x.csv"
    x = [0.4]
    for _ in range(299):
        x.append(4 * x[-1] * (1 - x[-1]))
    table.write_text("\n".join(map(repr, x)))
    said = call("lyapunov", table, "--per", "epoch", code=1).stderr
    assert "--steps-per-sample" in said
    assert "steps_per_sample" not in said
    assert call("lyapunov", table, "--per", "epoch", "--steps-per-sample", 2, "--steps-per-epoch", 10).exit_code == 0
    said = call("correlation", table, "--lags", 1000, code=1).stderr
    assert "--lags 1000;" in said
    assert "lags=" not in said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("give steps_per_epoch=, or more", "give --steps-per-epoch, or more"),
        ("metric='l2' fits; alpha=0.05; it must", "--metric l2 fits; alpha=0.05; it must"),
        (
            'theiler=5: too few, rng=3 (theiler=7), metric="l1".',
            "--theiler 5: too few, --seed 3 (--theiler 7), --metric l1.",
        ),
        ("use pairwise(x, metric='l2') or window(theiler=3)", "use pairwise(x, metric='l2') or window(theiler=3)"),
        ("run eta=0.5 of my-metric=3 and a.metric=3", "run eta=0.5 of my-metric=3 and a.metric=3"),
    ],
)
def test_arguments_become_options_of_the_command_alone(text, wanted):
    import click

    from trajtools.cli import sentence
    from trajtools.errors import DataError

    with click.Context(lyapunov.lyapunov):
        assert sentence(DataError(text)) == wanted
    assert sentence(DataError(text)) == text
