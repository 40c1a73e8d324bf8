import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import trajtools
from recorders import Recorder, iris
from trajtools.cli import COMMANDS, cli, options
from trajtools.store import Member

ROOT = Path(trajtools.__file__).resolve().parents[1]


def call(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="trajtools")
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def process(*arguments, **more):
    line = [sys.executable, "-m", "trajtools", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, check=False, **more)


def write(path, states, *, members=None, run="run"):
    """Record (T, M, P) states as they are."""
    states = np.asarray(states, dtype=np.float64)
    members = members or [Member(f"m{i}", reference=-1 if i == 0 else 0, epsilon=1e-8) for i in range(states.shape[1])]
    with Recorder(path, {"layer.kernel": states[0]}, run=run, members=members, quiet=True) as recorder:
        for state in states:
            recorder.record({"layer.kernel": state})
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "iris.h5"
    for mode, rate in (("x", 0.01), ("a", 1.0)):
        iris.record(path, rate, inits=12, copies=2, steps=150, mode=mode, seed=0)
    return path


# What every command promises


def test_help_names_all_commands_without_importing_them():
    code = (
        "import sys\n"
        "from trajtools.cli import cli\n"
        "cli.main(['--help'], prog_name='trajtools', standalone_mode=False)\n"
        "heavy = {'numpy', 'h5py', 'numba', 'scipy', 'networkx', 'matplotlib', 'torch', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


def test_help_starts_fast():
    def seconds(*line):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, *line], cwd=ROOT, capture_output=True, timeout=60, check=True)
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds("-m", "trajtools", "--help") - seconds("-c", "pass") < 0.25


def test_info_loads_no_compiler(recorded):
    code = (
        "import sys\n"
        "from trajtools.cli import cli\n"
        f"cli.main(['info', {str(recorded)!r}], standalone_mode=False)\n"
        "heavy = {'numba', 'scipy', 'networkx', 'matplotlib', 'torch', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
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
    assert "There are: demo, info" in call("xyz", code=2).stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell):
    assert "_TRAJTOOLS_COMPLETE" in call("completion", shell).stdout


# info, validate, repair


def test_info_says_what_the_file_holds(recorded):
    said = call("info", recorded).stdout
    for words in ("2 runs", "run eta=0.01", "complete", "151 (steps 0 to 150)", "12 references, 24 perturbed copies",
                  "83 (", "hidden.kernel 4x10", "float64", "loss", "learning_rate=0.01"):  # fmt: skip
        assert words in said, words


def test_info_as_json_is_one_document(recorded):
    document = json.loads(call("info", recorded, recorded, "--run", "eta=1", "--json").stdout)
    assert document["schema"] == "trajtools/info/1"
    assert [len(file["runs"]) for file in document["files"]] == [1, 1]
    run = document["files"][0]["runs"][0]
    assert (run["run"], run["states"], run["members"], run["parameters"]) == ("eta=1", 151, 36, 83)
    assert run["metrics"]["loss"] == [151, 36]


def test_a_sound_file_is_valid(recorded):
    said = call("validate", recorded).stdout
    assert said.strip().endswith("valid")
    document = json.loads(call("validate", recorded, "--json").stdout)
    assert document["files"][0]["valid"] is True


def test_a_broken_file_is_not_valid(recorded, tmp_path):
    broken = tmp_path / "broken.h5"
    broken.write_bytes(recorded.read_bytes())
    with h5py.File(broken, "r+") as file:
        del file["runs/eta=1/step"]
    result = call("validate", broken, recorded, code=1)
    assert "step" in result.stdout
    assert "not valid" in result.stdout
    assert result.stderr == f"Error: {broken} breaks the format.\n"
    assert [line for line in result.stdout.splitlines() if not line.startswith(" ")][1] == f"{recorded}: valid"


def test_repair_leaves_a_sound_file_alone(recorded, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(recorded.read_bytes())
    assert str(copy) in call("repair", copy).stdout
    assert call("validate", copy)
    assert json.loads(call("repair", copy, "--json").stdout)["schema"] == "trajtools/repair/1"


# lyapunov


def test_lyapunov_prints_a_row_and_reasons_for_each_run(recorded):
    said = call("lyapunov", recorded).stdout
    lines = said.splitlines()
    assert lines[0].split()[:2] == ["run", "exponent"]
    assert [line.split()[0] for line in lines[1:3]] == ["eta=0.01", "eta=1"]
    assert "12 of 12" in said
    assert said.count("  - ") >= 2


def test_lyapunov_as_json_gives_the_same_numbers(recorded):
    result = call("lyapunov", recorded, "--json", "--run", "eta=1")
    document = json.loads(result.stdout)
    assert document["schema"] == "trajtools/lyapunov/1"
    (found,) = document["results"]
    with trajtools.open(recorded) as file:
        exponent = trajtools.twins(file["eta=1"]).fit()
    assert found["exponent"]["value"] == exponent.value
    assert found["exponent"]["interval"] == list(exponent.interval)
    assert found["exponent"]["verdict"] == exponent.verdict
    assert found["hparams"]["learning_rate"] == 1.0
    assert len(found["curve"]["time"]) == len(found["curve"]["log_distance"]) == 151


def test_lyapunov_by_the_published_procedure_says_spread_and_kept_fraction(recorded):
    said = call("lyapunov", recorded, "--run", "eta=1", "--procedure", "danovski2024").stdout
    assert said.splitlines()[0].split()[-2:] == ["s.d.", "kept"]
    with trajtools.open(recorded) as file:
        exponent = trajtools.twins(file["eta=1"]).fit(procedure="danovski2024")
    row = said.splitlines()[1].split()
    assert row[1] == f"{exponent.value:.3f}"
    assert row[-1] == f"{exponent.n_used / exponent.n_total:.0%}"


def test_selection_of_parameters_changes_what_is_measured(recorded):
    whole = json.loads(call("lyapunov", recorded, "--run", "eta=1", "--json").stdout)["results"][0]
    part = json.loads(
        call("lyapunov", recorded, "--run", "eta=1", "--select", "output.*", "--json").stdout
    )["results"][0]  # fmt: skip
    with trajtools.open(recorded) as file:
        run = file["eta=1"]
        pairs = [(run.trajectory(i).select("output.*"), [run.trajectory(i + k).select("output.*") for k in (1, 2)])
                 for i in range(0, 36, 3)]  # fmt: skip
        wanted = trajtools.twins(pairs)
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
    pytest.importorskip("matplotlib").use("Agg")
    figure = tmp_path / f"figure.{ending}"
    result = call("lyapunov", recorded, "--run", "eta=1", "--plot", figure)
    assert figure.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")
    assert str(figure) in result.stderr
    assert str(figure) not in result.stdout


def test_output_goes_to_a_file_and_never_over_the_recording(recorded, tmp_path):
    target = tmp_path / "answer.json"
    assert call("lyapunov", recorded, "--json", "-o", target).stdout == ""
    assert json.loads(target.read_text())["schema"] == "trajtools/lyapunov/1"
    before = recorded.read_bytes()
    assert "there is no folder" in call("lyapunov", recorded, "-o", tmp_path / "no" / "a.json", code=1).stderr
    assert "recorded file itself" in call("lyapunov", recorded, "-o", recorded, code=1).stderr
    assert recorded.read_bytes() == before


def test_what_is_wrong_with_every_run_is_said_once(recorded):
    said = call("lyapunov", recorded, "--metric", "foo", code=1).stderr
    assert "there is no metric 'foo'" in said
    assert len(said.splitlines()) == 1


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


# Files that are not what they should be


def bad_files(folder, recorded):
    whole = recorded.read_bytes()
    (folder / "truncated.h5").write_bytes(whole[: len(whole) // 3])
    (folder / "text.h5").write_text("loss,accuracy\n" * 100)
    (folder / "empty.h5").write_bytes(b"")
    with h5py.File(folder / "other.h5", "w") as file:
        file["data"] = [1, 2]


@pytest.mark.parametrize("command", ["info", "validate", "repair", "lyapunov"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.h5", "does not exist"),
        (".", "is a directory"),
        ("truncated.h5", "truncated"),
        ("text.h5", "not an HDF5 file"),
        ("empty.h5", "empty"),
        ("other.h5", "trajtools"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(recorded, tmp_path, command, name, words):
    bad_files(tmp_path, recorded)
    result = call(command, tmp_path / name, code=1)
    assert words in result.stdout + result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert "fault of trajtools" not in result.stderr
    if command != "validate":  # what that finds inside a file is its answer
        assert result.stdout == ""


def test_a_missing_file_is_answered_with_those_that_are_there(recorded):
    assert "holds iris.h5" in call("info", recorded.parent / "irsi.h5", code=1).stderr
    assert "did you mean" in call("info", recorded.parent, code=1).stderr


def test_an_unknown_run_is_answered_with_those_that_are_there(recorded):
    for command in ("info", "lyapunov"):
        assert "eta=0.01, eta=1" in call(command, recorded, "--run", "eta=2", code=1).stderr


def test_a_single_network_has_no_twins(tmp_path):
    single = write(tmp_path / "one.h5", np.random.default_rng(0).normal(size=(20, 1, 4)).cumsum(axis=0))
    said = call("lyapunov", single, code=1).stderr
    assert "no perturbed copy" in said
    assert "perturb" in said


def test_weights_that_are_not_numbers_are_no_exponent(tmp_path):
    states = np.full((40, 3, 4), np.nan)
    states[0] = np.random.default_rng(0).normal(size=(3, 4))
    said = call("lyapunov", write(tmp_path / "nan.h5", states)).stdout
    assert "inconclusive" in said
    assert "NaN" in said


def test_a_training_that_stands_still_is_not_chaotic(tmp_path):
    states = np.ones((60, 3, 4)) + np.array([0, 1e-8, 2e-8])[None, :, None]
    said = call("lyapunov", write(tmp_path / "still.h5", states)).stdout
    assert "chaotic" not in said.splitlines()[1]
    assert "transient" not in said.splitlines()[1]


def test_copies_that_were_not_moved_are_no_exponent(tmp_path):
    states = np.random.default_rng(0).normal(size=(60, 1, 4)).cumsum(axis=0).repeat(3, axis=1)
    said = call("lyapunov", write(tmp_path / "same.h5", states)).stdout
    assert "inconclusive" in said.splitlines()[1]
    assert "never differ" in said


def test_names_from_a_file_cannot_command_the_terminal(tmp_path):
    states = np.ones((5, 2, 3)).cumsum(axis=0)
    path = write(tmp_path / "evil.h5", states, run="\x1b[31mred")
    said = call("info", path).stdout
    assert "\x1b" not in said
    assert "\\x1b[31mred" in said


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
    assert "RunNotFoundError" in done.stderr
    assert "Traceback" not in process("info", recorded, "--run", "nothing").stderr


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes")
def test_a_reader_that_leaves_is_no_error_message(recorded):
    line = f"{sys.executable} -m trajtools info {' '.join([str(recorded)] * 200)} | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_from_the_keyboard_leaves_with_130(tmp_path):
    line = [sys.executable, "-m", "trajtools", "demo", "-o", str(tmp_path), "--inits", "400", "--steps", "2000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert running.stderr.readline().startswith("Training")
    while not (tmp_path / "iris.h5").exists():
        time.sleep(0.05)
        assert running.poll() is None
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=30)[1]
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert "Interrupted" in said


# demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = process(
        "demo", "-o", folder, "--inits", "8", "--copies", "2", "--steps", "120", "--rates", "0.01,1", "--json"
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_demo_records_analyses_and_reports(demo):
    folder, done = demo
    document = json.loads(done.stdout)
    assert document["schema"] == "trajtools/demo/1"
    assert [r["hparams"]["learning_rate"] for r in document["results"]] == [0.01, 1.0]
    assert all({"exponent", "published"} <= set(r) for r in document["results"])
    assert document["results"][0]["exponent"]["verdict"] != "chaotic"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "report.html" in done.stderr
    assert call("validate", folder / "iris.h5")


def test_demo_measures_what_lyapunov_measures(demo):
    folder, done = demo
    again = json.loads(call("lyapunov", folder / "iris.h5", "--json").stdout)["results"]
    for one, two in zip(json.loads(done.stdout)["results"], again, strict=True):
        assert one["exponent"] == two["exponent"]


def test_demo_never_overwrites_unless_forced(demo):
    folder, _ = demo
    before = (folder / "iris.h5").read_bytes()
    said = call("demo", "-o", folder, code=1).stderr
    assert "--force" in said
    assert (folder / "iris.h5").read_bytes() == before


def test_forced_demo_is_reproducible_and_prints_a_table(demo):
    folder, done = demo
    small = ["--inits", "8", "--copies", "2", "--steps", "120", "--rates", "0.01,1"]
    again = process("demo", "-o", folder, *small, "--force", "--json")
    assert again.stdout == done.stdout
    text = process("demo", "-o", folder, *small, "--force", "-q")
    assert text.returncode == 0
    assert text.stderr == ""
    head, *rows = text.stdout.splitlines()
    assert head.split()[:2] == ["learning", "rate"]
    assert "papers' procedure" in head
    assert [row.split()[0] for row in rows] == ["0.01", "1"]


@pytest.mark.parametrize("rates", ["fast", "-1", "0", "inf", ""])
def test_demo_refuses_learning_rates_that_are_none(tmp_path, rates):
    assert "--rates" in call("demo", "-o", tmp_path / "out", "--rates", rates, code=2).stderr
    assert not (tmp_path / "out").exists()


# Words


def test_sizes_are_written_for_people():
    assert [options.megabytes(n) for n in (12, 3200, 4.5e6, 2e9, 3e12)] == ["12 B", "3.2 kB", "4.5 MB", "2 GB", "3 TB"]


def test_tables_are_aligned():
    assert options.table(["a", "n"], [["long", "1"], ["b", "100"]], right=(1,)) == "a       n\nlong    1\nb     100"
