"""Commands on tables that no recorder wrote: text of any dialect, .npy, .npz and .parquet."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import call, write

import trajtools as tt
from trajtools.cli.tables import is_table, read_table
from trajtools.errors import DataError, FormatError, TrajtoolsError


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
    for name in ("states.npy", "plain.txt"):
        found = result(tables / name)
        assert found["exponent"]["value"] == wanted.value
        assert found["exponent"]["unit"] == "1/sample"
        assert found["run"] == name.split(".")[0]
        assert found["facts"]["states"] == 900
    alone = tt.lyapunov(henon[:, 0], null=None)
    assert result(tables / "series.npy")["exponent"]["value"] == alone.value
    for option in ("--series", "--column"):
        assert result(tables / "plain.txt", option, "0")["exponent"]["value"] == alone.value


def test_a_clock_column_gives_the_unit_and_is_no_coordinate(tables, henon):
    timed = tt.lyapunov(henon, dt=0.1, null=None)
    for more in ([], ["--series", "x,y"], ["--column", "x", "--column", "y"], ["--time", "t"]):
        found = result(tables / "timed.csv", *more)
        assert found["exponent"]["value"] == pytest.approx(timed.value, rel=1e-9)
        assert found["exponent"]["unit"] == "1/time"
        assert found["facts"]["columns"] == "x, y"
        assert found["facts"]["clock"] == "t: 0.1 time a row"
    alone = tt.lyapunov(henon[:, 0], dt=0.1, null=None)
    assert result(tables / "timed.csv", "--column", "x")["exponent"]["value"] == pytest.approx(alone.value, rel=1e-9)
    plain = tt.lyapunov(henon[:, 0], null=None)
    found = result(tables / "timed.csv", "--column", "x", "--time", "none")
    assert (found["exponent"]["value"], found["exponent"]["unit"]) == (plain.value, "1/sample")


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
    assert "timed" in said.stdout
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
        ("ragged.csv", b"1,2\n3\n", "line 2 of .* has 1 cell,"),
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
    np.save(tmp_path / "nothing.npy", np.empty((0, 2)))
    for command in ("lyapunov", "distances", "correlation", "dimension", "recurrence"):
        assert "without numbers" in call(command, tmp_path / "nothing.npy", code=1).stderr
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


# Dialects. Each is a way to write the same two columns.

X = np.round(np.random.default_rng(0).standard_normal((12, 2)) * 1000, 3) + 0.001
DAYS = np.datetime64("1984-06-05") + np.arange(12)


def lines(row, head=None):
    """Text of a table, `row(i, x, y)` for each line."""
    return "\n".join([*([head] if head else []), *(row(i, x, y) for i, (x, y) in enumerate(X.tolist()))]) + "\n"


def comma(number):
    return f"{number}".replace(".", ",")


def grouped(number, thousands, decimal):
    return f"{number:,.3f}".replace(",", "_").replace(".", decimal).replace("_", thousands)


def slashes(i):
    day = DAYS[i].astype(object)
    return f"{day.day}/{day.month}/{day.year}"


DIALECTS = {
    "semicolon": ("a.csv", lines(lambda i, x, y: f"{comma(x)};{comma(y)}", "x;y"), []),
    "tab with decimal comma": ("a.tsv", lines(lambda i, x, y: f"{comma(x)}\t{comma(y)}", "x\ty"), []),
    "blanks with decimal comma": ("a.dat", lines(lambda i, x, y: f"{comma(x)}   {comma(y)}", "x y"), []),
    "bar": ("a.txt", lines(lambda i, x, y: f"{x}|{y}", "x|y"), ["--sep", "|"]),
    "declared": ("a.txt", lines(lambda i, x, y: f"{comma(x)}|{comma(y)}", "x|y"), ["--sep", "|", "--decimal", ","]),
    "tab by name": ("a.txt", lines(lambda i, x, y: f"{x}\t{y}", "x\ty"), ["--sep", "tab"]),
    "quoted thousands": ("a.csv", lines(lambda i, x, y: f'"{x:,.3f}","{y:,.3f}"', "x,y"), []),
    "german thousands": (
        "a.csv", lines(lambda i, x, y: f"{grouped(x, '.', ',')};{grouped(y, '.', ',')}", "x;y"), []),
    "blank thousands": (
        "a.csv", lines(lambda i, x, y: f"{grouped(x, ' ', ',')};{grouped(y, ' ', ',')}", "x;y"), []),
    "swiss thousands": (
        "a.csv", lines(lambda i, x, y: f"{grouped(x, chr(39), '.')};{grouped(y, chr(39), '.')}", "x;y"), []),
    "trailing comma": ("a.csv", lines(lambda i, x, y: f"{x},{y},", "x,y,"), []),
    "trailing comma in rows": ("a.csv", lines(lambda i, x, y: f"{x},{y},", "x,y"), []),
    "byte order mark": ("a.csv", "\ufeff" + lines(lambda i, x, y: f"{x},{y}", "x,y"), []),
    "units below the names": ("a.csv", lines(lambda i, x, y: f"{x},{y}", "x,y\n(mV),(mV)"), []),
    "comments": ("a.dat", lines(lambda i, x, y: f"% no\n{x} {y}", "# made by hand\nx y"), []),
    "row numbers of R": ("a.txt", lines(lambda i, x, y: f'"{i}" {x} {y}', '"x" "y"'), []),
    "index of pandas": ("a.csv", lines(lambda i, x, y: f"{i},{x},{y}", ",x,y"), []),
    "time first": ("a.csv", lines(lambda i, x, y: f"{0.5 * i},{x},{y}", "time,x,y"), []),
    "time last": ("a.csv", lines(lambda i, x, y: f"{x},{y},{0.5 * i}", "x,y,t"), []),
    "time in the middle": ("a.csv", lines(lambda i, x, y: f"{x},{0.5 * i},{y}", "x,timestamp,y"), []),
    "time falls": (
        "a.csv", "x,y,time\n" + "".join(f"{X[i, 0]},{X[i, 1]},{0.5 * i}\n" for i in reversed(range(12))), []),
    "iso dates": ("a.csv", lines(lambda i, x, y: f"{DAYS[i]}T00:00:00Z,{x},{y}", "when,x,y"), []),
    "dates with slashes": ("a.csv", lines(lambda i, x, y: f"{x},{slashes(i)},{y}", "x,day,y"), []),
    "date and time of day": (
        "a.csv", lines(lambda i, x, y: f"2015-01-0{1 + i // 6},{4 * (i % 6):02d}:00,{x},{y}", "date,time,x,y"), []),
    "names in a comment": ("a.dat", lines(lambda i, x, y: f"{0.1 * i:.1f} {x} {y}", "# t x y"), []),
    "text beside": (
        "a.csv", lines(lambda i, x, y: f"Oslo,{x},{y}", "city,x,y"), ["--column", "x", "--column", "y"]),
    "windows letters": ("a.csv", lines(lambda i, x, y: f"{x};{y}", "x;y").encode("cp1252"), []),
}  # fmt: skip


def read_with(path, *options):
    """Table and states of a file, as commands read them."""
    from trajtools.cli import options as known
    from trajtools.cli.options import Selection

    names = {"--sep": "sep", "--decimal": "decimal", "--time": "time"}
    chosen = {names[o]: v for o, v in zip(options[::2], options[1::2], strict=True) if o in names}
    columns = tuple(v for o, v in zip(options[::2], options[1::2], strict=True) if o == "--column")
    assert known.TABLES
    selection = Selection(columns=columns, **chosen)
    table = read_table(path, selection)
    return table, table.states(selection, path)


@pytest.mark.parametrize("name", DIALECTS)
def test_text_of_every_dialect_holds_the_same_numbers(tmp_path, name):
    file, content, options = DIALECTS[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table, states = read_with(path, *options)
    np.testing.assert_allclose(np.asarray(states), X, rtol=0, atol=1e-9)
    units = {
        "time first": 0.5,
        "time last": 0.5,
        "time in the middle": 0.5,
        "time falls": 0.5,
        "names in a comment": 0.1,
    }
    if name in units:
        assert (states.dt, states.time_unit) == (units[name], "time")
    if "date" in name:
        assert (states.dt, states.time_unit) == ((4, "hour") if "time of day" in name else (1, "day"))
    assert [reason.code for reason in table.warnings] == (["sorted-by-time"] if name == "time falls" else [])


@pytest.mark.parametrize("word", ["", "NA", "NULL", "null", "N/A", "#N/A", "None", "-", "?", ".", "nan"])
def test_missing_cells_are_nan(tmp_path, word):
    path = tmp_path / "a.csv"
    path.write_text(f"x,y\n1,2\n{word},3\n4,{word}\n5,6\n")
    np.testing.assert_array_equal(read_table(path).values, [[1, 2], [np.nan, 3], [4, np.nan], [5, 6]])


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (
            "timestamp,v\n0,1\n1,2\n2,3\n4,4\n5,5\n",
            [],
            r"'timestamp' of a.csv is uneven: row 3 .*--time none --column v",
        ),
        ("time,v\n0,1\n1,2\n1,3\n2,4\n", [], "repeats: rows 1 and 2"),
        ("day,v\n5/6/1984,1\n6/6/1984,2\n9/6/1984,3\n10/6/1984,4\n11/6/1984,4\n", [], "'day' of a.csv is uneven"),
        ("a,v\n0,1\n1,2\n", ["--time", "b"], "no column 'b' of times; it has a, v"),
        ("a,v\n0,1\n1,2\n", ["--column", "b"], "no column 'b'; it has a, v"),
        ("time,v\n0,1\n1,2\n", ["--column", "time"], "no column 'time'; it has v .time is its clock"),
        ("city,v\nOslo,1\nRome,2\n", [], "'Oslo' is not a number; leave the column out: --column v"),
        ("t,v,city\n0,1,Oslo\n1,3,Rome\n2,2,Rome\n3,4,Oslo\n", [], "leave the column out: --column v$"),
        ("city,v\nOslo,1\nRome,2\n", ["--column", "city"], "'Oslo' is not a number; select other columns: v"),
        ("v\tw\n1,234\t2,345\n3,456\t4,567\n", [], "two ways: say --decimal"),
        ("v,w\n1,2\n", ["--sep", "ab"], "one character"),
        ("a,b,v\n2001-01-01,2001-01-01,3\n2001-01-02,2001-01-02,3\n", [], "several columns of times"),
    ],
)
def test_what_is_unclear_in_text_is_said_with_the_way_out(tmp_path, content, options, words):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(TrajtoolsError, match=words):
        read_with(path, *options)
    said = call("recurrence", path, *options, code=1).stderr
    assert said.count("Error") == 1


def test_thousands_without_decimals_are_read_on_request(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("v\tw\n1,234\t2,345\n3,456\t4,567\n")
    np.testing.assert_array_equal(read_with(path, "--decimal", ".")[1], [[1234, 2345], [3456, 4567]])
    np.testing.assert_array_equal(read_with(path, "--decimal", ",")[1], [[1.234, 2.345], [3.456, 4.567]])


def test_archives_of_numpy_hold_columns(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X[:, 0], t=np.arange(12) * 0.5, y=X[:, 1])
    table, states = read_with(path)
    assert table.names == ("x", "y")
    assert states.dt == 0.5
    np.savez(path, X)
    np.testing.assert_array_equal(read_with(path)[1], X)
    np.savez(path, states=X, time=DAYS)
    table, states = read_with(path)
    assert table.names == ("states[0]", "states[1]")
    assert states.time_unit == "day"
    np.savez(path, x=X[:, 0], y=X[:3, 1])
    with pytest.raises(FormatError, match="differ in length"):
        read_table(path)
    path.write_bytes(b"PK but no archive")
    with pytest.raises(FormatError, match=r"not a \.npz file"):
        read_table(path)
    records = np.rec.fromarrays([np.arange(12) * 0.5, X[:, 0]], names="t,x")
    np.save(tmp_path / "records.npy", records)
    assert read_with(tmp_path / "records.npy")[1].dt == 0.5
    np.save(tmp_path / "plain.npy", X)
    assert read_table(tmp_path / "plain.npy").values.shape == (12, 2)


def test_parquet_files_hold_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"x": X[:, 0], "when": DAYS.astype("datetime64[us]"), "y": X[:, 1]}), path)
    table, states = read_with(path)
    assert table.names == ("x", "y")
    assert states.time_unit == "day"
    np.testing.assert_array_equal(np.asarray(states), X)
    path.write_bytes(b"PAR1 and nothing")
    with pytest.raises(FormatError, match=r"not a \.parquet file"):
        read_table(path)


COMMANDS = {
    "lyapunov": (["--null", "none"], lambda x: tt.lyapunov(x, null=None).value, lambda one: one["exponent"]["value"]),
    "recurrence": (
        [],
        lambda x: tt.recurrence(x, threshold=tt.RecurrenceRate(0.05)).DET,
        lambda one: one["result"]["DET"],
    ),
    "dimension": ([], lambda x: tt.correlation_dimension(x, rng=0).value, lambda one: one["result"]["value"]),
    "correlation": ([], lambda x: tt.autocorrelation(x, rng=0).values[1], lambda one: one["result"]["values"][1]),
    "distances": ([], lambda x: tt.pairwise(x).values.max(), lambda one: one["result"]["largest"]),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, henon):
    folder = tmp_path_factory.mktemp("written")
    few = henon[:600]
    rows = few.tolist()
    np.save(folder / "a.npy", few)
    np.savez(folder / "a.npz", few)
    np.savetxt(folder / "a.txt", few)
    np.savetxt(folder / "a.dat", few, delimiter=";")
    (folder / "a.csv").write_text("x;y\n" + "\n".join(f"{x!r};{y!r}".replace(".", ",") for x, y in rows))
    (folder / "a.tsv").write_text("x\ty\n" + "\n".join(f"{x!r}\t{y!r}" for x, y in rows))
    return folder, few


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_a_series_takes_every_table(written, command):
    folder, states = written
    options, library, value = COMMANDS[command]
    wanted = library(states)
    paths = sorted(folder.glob("a.*"))
    assert len(paths) == 6
    found = json.loads(call(command, *paths, *options, "--json").stdout)["results"]
    assert [value(one) for one in found] == pytest.approx([wanted] * 6, rel=1e-9)
    columns = json.loads(call(command, folder / "a.csv", "--column", "x", *options, "--json").stdout)["results"]
    assert value(columns[0]) == pytest.approx(library(states[:, 0]), rel=1e-9)


def test_the_stability_of_tables_is_that_of_the_first_and_its_copies(tmp_path):
    t = np.arange(80)
    orbit = np.c_[np.cos(t / 3), np.sin(t / 3)]
    copies = [orbit + 1e-3 * 0.9 ** t[:, None] * phase for phase in (1, -1)]
    for name, states in zip("rab", (orbit, *copies), strict=True):
        np.savetxt(tmp_path / f"{name}.csv", states, delimiter=",", header="x,y", comments="")
    wanted = tt.orbital_stability(orbit, copies, rng=0)
    files = [tmp_path / f"{name}.csv" for name in "rab"]
    (found,) = json.loads(call("stability", *files, "--json").stdout)["results"]
    assert found["result"]["verdict"] == wanted.verdict
    assert found["result"]["frechet"] == pytest.approx(wanted.frechet)
    assert "after it" in call("stability", files[0], code=1).stderr


def test_units_of_columns_are_named_and_scaled_on_the_command_line(tmp_path, henon):
    np.savetxt(tmp_path / "a.csv", henon * [1, 1e3], delimiter=",")
    for command in ("lyapunov", "recurrence", "dimension"):
        options = ["--null", "none"] if command == "lyapunov" else []
        assert "--scale std" in call(command, tmp_path / "a.csv", *options).stdout
        assert "standard deviation is" not in call(command, tmp_path / "a.csv", "--scale", "std", *options).stdout


def test_options_of_tables_are_refused_for_recorded_files(tmp_path):
    write(tmp_path / "a.h5", np.random.default_rng(0).random((40, 1, 2)))
    said = call("recurrence", tmp_path / "a.h5", "--column", "x", "--decimal", ",", code=1).stderr
    assert "--column, --decimal: only for tables" in said


def test_a_missing_file_names_what_its_folder_holds_similar_names_first(tmp_path):
    for name in ("alpha.h5", "beta.npy", "orbit_1.csv", "orbit_2.csv", "notes.md", "x.parquet", "y.txt"):
        (tmp_path / name).write_bytes(b"1")
    said = call("lyapunov", tmp_path / "orbit_3.csv", code=1).stderr
    assert "does not exist; its folder holds orbit_2.csv, orbit_1.csv" in said
    assert said.strip().endswith("and 1 more")
    assert "notes.md" not in said
    assert "there is no folder" in call("lyapunov", tmp_path / "no" / "a.csv", code=1).stderr
