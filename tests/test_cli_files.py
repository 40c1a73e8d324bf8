"""What the command line says about files that are not what they should be."""

import json
import re

import h5py
import numpy as np
import pytest
from command_line import call, write

import trajtools
from recorders import Recorder, iris
from trajtools.errors import DataError


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return iris.record(tmp_path_factory.mktemp("files"), 1.0, inits=3, copies=2, steps=80, seed=0)


def bad_files(folder):
    (folder / "folder").mkdir()
    (folder / "text.h5").write_text("loss,accuracy\n" * 100)
    (folder / "empty.h5").write_bytes(b"")
    with h5py.File(folder / "other.h5", "w") as file:
        file["data"] = [1, 2]


@pytest.mark.parametrize("command", ["info", "validate", "repair", "lyapunov"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.h5", "does not exist"),
        ("folder", "holds no .h5 or .hdf5 file"),
        ("*.hdf5", "no file matches"),
        ("text.h5", "not an HDF5 file"),
        ("text.h5", "read tables"),
        ("empty.h5", "empty"),
        ("other.h5", "trajtools"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(tmp_path, command, name, words):
    bad_files(tmp_path)
    result = call(command, tmp_path / name, code=1)
    assert words in result.stdout + result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert "bug in trajtools" not in result.stderr
    if command != "validate":  # what that finds inside a file is its answer
        assert result.stdout == ""


def test_of_a_file_that_was_cut_everything_whole_is_read_and_the_rest_is_said(recorded, tmp_path):
    whole, path, new = recorded.read_bytes(), tmp_path / "cut.h5", tmp_path / "new.h5"
    path.write_bytes(whole[: 2 * len(whole) // 3])
    assert "cut short" in call("info", path).stdout
    left = f"was cut short ({path.stat().st_size} of {len(whole)} bytes are left)"
    assert left in call("validate", path, code=1).stdout
    for command in ("lyapunov", "sweep"):
        said = call(command, path, *(["--x", "eta"] if command == "sweep" else []), code=1).stderr
        assert left in said
        assert f"`trajtools repair --salvage NEW.h5 {path}`" in said
    assert "lost" in call("repair", path, "--salvage", new).stdout
    assert call("validate", new).stdout == f"{new}: valid\n"
    with trajtools.open(new) as run, trajtools.open(recorded) as original:
        assert 0 < run.n_states < original.n_states
        story = f"interrupted (salvaged: {run.n_states} of {original.n_states} states are whole)"
    assert story in " ".join(call("info", new).stdout.split())
    with trajtools.open(new) as run, trajtools.open(recorded) as original:
        np.testing.assert_array_equal(run.states[:], original.states[: run.n_states])
    assert path.read_bytes() == whole[: 2 * len(whole) // 3]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_curvature_of_a_file_that_was_cut_names_what_is_left_and_the_command_that_saves_it(tmp_path, share):
    path, new = tmp_path / "cut.h5", tmp_path / "new.h5"
    rng = np.random.default_rng(0)
    with Recorder(path, {"w": np.zeros(200)}, hparams={"lr": 0.1, "optimizer": "SGD"}, quiet=True) as recorder:
        for step in range(400):
            recorder.record({"w": rng.standard_normal(200)}, h_max_full=5 + 0.05 * step)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    said = call("curvature", path, code=1).stderr
    assert f"`trajtools repair --salvage NEW.h5 {path}`" in said
    call("repair", path, "--salvage", new)
    with trajtools.open(new) as run:
        assert f"metrics of the states {run.n_states} to " in said
        assert re.search(f"at most the first {run.n_states} of [0-9]+ are whole", said)
    assert "the edge" in call("curvature", new).stdout


def test_a_missing_file_is_answered_with_those_that_are_there(recorded):
    assert "its folder holds eta=1.h5" in call("info", recorded.parent / "eta=2.h5", code=1).stderr


@pytest.mark.parametrize("command", ["info", "validate", "repair", "lyapunov", "recurrence", "sweep"])
def test_folders_and_patterns_stand_for_their_files(recorded, tmp_path, command):
    for name in ("one.h5", "two.h5"):
        (tmp_path / name).write_bytes(recorded.read_bytes())
    (tmp_path / "notes.txt").write_text("nothing")
    both = call(command, tmp_path / "one.h5", tmp_path / "two.h5").stdout
    assert call(command, tmp_path).stdout == both
    assert call(command, tmp_path / "*.h5").stdout == both
    assert call(command, tmp_path / "o*", tmp_path / "two.h5").stdout == both


def test_runs_of_one_name_are_told_apart_by_their_file(recorded, tmp_path):
    (tmp_path / "two.h5").write_bytes(recorded.read_bytes())
    said = call("dimension", recorded, tmp_path / "two.h5").stdout
    for name in ("eta=1: eta=1", "two: eta=1"):
        assert name in said


def test_a_name_that_no_run_has_is_an_error(recorded):
    for command in ("info", "lyapunov", "report"):
        assert "no run is named 'eta=2'" in call(command, recorded, "--run", "eta=2", code=1).stderr


def test_a_single_network_has_no_twins(tmp_path):
    single = write(tmp_path / "one.h5", np.random.default_rng(0).normal(size=(20, 1, 4)).cumsum(axis=0))
    said = call("lyapunov", single, "--method", "twins", code=1).stderr
    assert "no perturbed copy" in said
    assert "perturb" in said
    # By itself it looks at the neighbours of the one trajectory, which drifts and has none.
    assert "twins can tell" in call("lyapunov", single).stdout


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
    path = write(tmp_path / "evil.h5", states, name="\x1b[31mred")
    said = call("info", path).stdout
    assert "\x1b" not in said
    assert "\\x1b[31mred" in said


@pytest.mark.parametrize("command", ["sweep", "report"])
def test_bad_files_of_a_folder_are_named_and_the_others_compared(recorded, tmp_path, command):
    folder, page = tmp_path / "runs", tmp_path / "page.html"
    folder.mkdir()
    whole = recorded.read_bytes()
    (folder / "good.h5").write_bytes(whole)
    (folder / "cut.h5").write_bytes(whole[: 2 * len(whole) // 3])
    (folder / "text.h5").write_text("loss,accuracy\n" * 100)
    (folder / "empty.h5").write_bytes(b"")
    options = ["--x", "eta", "--json"] if command == "sweep" else ["--output", page]
    result = call(command, folder, "--quiet", *options, code=1)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sorted(name for name in ("cut", "empty", "good", "text") for line in errors if f"{name}.h5" in line) == [
        "cut", "empty", "text"
    ]  # fmt: skip
    if command == "sweep":
        found = json.loads(result.stdout)
        assert [point["run"] for point in found["sweep"]["points"]] == ["eta=1"]
        assert [reason["code"] for reason in found["sweep"]["warnings"]] == ["unreadable-file"]
    else:
        assert "eta=1" in page.read_text()


@pytest.mark.parametrize("read", [trajtools.open, trajtools.open_runs])
def test_what_is_no_path_is_refused(read):
    with pytest.raises(DataError, match=r"got a int; needed"):
        read(3)


def test_ctrl_c_in_a_sweep_says_that_results_are_kept(recorded, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trajtools, "sweep", interrupted)
    said = call("sweep", recorded, "--cache", tmp_path / "kept.jsonl", code=130).stderr
    assert "kept.jsonl: the same command goes on" in said
    assert "Interrupted." in said
