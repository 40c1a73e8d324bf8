"""`trajtools lyapunov` on tables that no recorder wrote: .npy, .csv and .txt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import call

import trajtools as tt
from trajtools.cli.tables import is_table, read_table
from trajtools.errors import DataError, FormatError


@pytest.fixture(scope="module")
def henon():
    return tt.systems.henon().trajectory(900, rng=np.random.default_rng(0), transient=200)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, henon):
    folder = tmp_path_factory.mktemp("tables")
    np.save(folder / "states.npy", henon)
    np.save(folder / "series.npy", henon[:, 0])
    lines = ["t,x,y", *(f"{0.1 * t},{x!r},{y!r}" for t, (x, y) in enumerate(henon.tolist()))]
    (folder / "timed.csv").write_text("\n".join(lines))
    (folder / "plain.txt").write_text("# two weights\n" + "\n".join(f"{x!r} {y!r}" for x, y in henon.tolist()) + "\n\n")
    return folder


def result(*arguments):
    (found,) = json.loads(call("lyapunov", *arguments, "--null", "none", "--json").stdout)["results"]
    return found


def test_tables_are_answered_as_their_arrays(tables, henon):
    wanted = tt.lyapunov(henon, null=None)
    for name, more in (("states.npy", []), ("plain.txt", []), ("timed.csv", ["--series", "x,y"])):
        found = result(tables / name, *more)
        assert found["exponent"]["value"] == wanted.value
        assert found["exponent"]["unit"] == "1/sample"
        assert found["run"] == name.split(".")[0]
        assert found["facts"]["states"] == 900
    alone = tt.lyapunov(henon[:, 0], null=None)
    assert result(tables / "series.npy")["exponent"]["value"] == alone.value
    assert result(tables / "timed.csv", "--series", "x")["exponent"]["value"] == alone.value
    assert result(tables / "plain.txt", "--series", "0")["exponent"]["value"] == alone.value


def test_options_reach_the_estimator_of_a_table(tables, henon):
    found = result(tables / "states.npy", "--method", "kantz", "--neighbors", "0.1", "--dt", "0.5", "--window", "0:600")
    wanted = tt.lyapunov(henon[:600], method="kantz", neighbors=tt.WithinRadius(0.1), dt=0.5, null=None)
    assert found["exponent"]["value"] == wanted.value
    assert found["exponent"]["unit"] == "1/time"
    said = call("lyapunov", tables / "states.npy", "--windows", "450", "--null", "none").stdout
    assert "states, window by window" in said


def test_tables_and_recorded_files_stand_in_one_answer_and_figure(tables, tmp_path):
    figure = tmp_path / "curves.png"
    paths = [tables / "states.npy", tables / "timed.csv", tables / "none.csv"]
    said = call("lyapunov", *paths, "--null", "none", "--plot", figure, code=1)
    assert "states" in said.stdout
    assert "is probably time" in said.stderr
    assert "--series x,y" in said.stderr
    assert "none.csv does not exist" in said.stderr
    assert figure.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--series", "z"], "has no column 'z'; it has 0, 1"),
        (["--run", "a"], "--run is for recorded files"),
        (["--member", "0"], "--member"),
        (["--select", "*.weight"], "--select"),
        (["--no-buffers"], "--buffers"),
        (["--method", "twins"], "record twins"),
        (["--procedure", "danovski2024"], "--procedure"),
        (["--neighbors", "0.1"], "a whole number, such as 4"),
        (["--window", "5000:6000"], "5000"),
    ],
)
def test_what_a_table_does_not_know_is_refused(tables, options, words):
    assert words in call("lyapunov", tables / "states.npy", *options, code=1).stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "empty"),
        ("comments.txt", b"# nothing\n\n", "no line with numbers"),
        ("ragged.csv", b"1,2\n3\n", "line 2 of .* has 1 cells"),
        ("words.csv", b"x,y\n1,2\n3,four\n", "line 3 .* cell 2: 'four' is not a number"),
        ("binary.csv", b"\xff\xfe\x00\x01", "not UTF-8 text"),
        ("broken.npy", b"\x93NUMPY and then nothing", "not a .npy file"),
        ("text.npy", b"1,2,3", "numpy.save"),
    ],
)
def test_what_is_no_table_is_refused_with_the_place(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=words):
        read_table(path)
    assert "Traceback" not in call("lyapunov", path, code=1).stderr


def test_arrays_that_are_no_trajectory_are_refused(tmp_path):
    for name, array in (("deep", np.zeros((2, 3, 4))), ("complex", np.zeros(4, complex)), ("point", np.float64(3))):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(FormatError, match="a trajectory is"):
            read_table(tmp_path / f"{name}.npy")
    objects = np.array([{}, []], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    with pytest.raises(FormatError, match=r"not a \.npy file of numbers"):
        read_table(tmp_path / "objects.npy")
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "missing.npy")


def test_cells_may_be_missing_quoted_and_apart_by_any_mark(tmp_path):
    for mark in (",", ";", "\t"):
        path = tmp_path / "table.csv"
        path.write_text(f'\ufeff"a"{mark}b\n1{mark}\n# comment\nNaN{mark}-2.5e-3\n', encoding="utf-8")
        table = read_table(path)
        assert table.names == ("a", "b")
        np.testing.assert_array_equal(table.values, [[1, np.nan], [np.nan, -0.0025]])
    assert is_table(path)
    assert not is_table(tmp_path / "run.h5")


def test_strict_and_a_published_procedure_exclude_each_other(tables):
    said = call("lyapunov", tables / "states.npy", "--strict", "--procedure", "danovski2024", code=2).stderr
    assert "drop one of the two" in said
