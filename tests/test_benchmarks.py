"""The command that measures: what it does with peers that are missing, answers that differ, and its tables."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure
    import table

    yield measure, table
    for name in ("measure", "table"):
        del sys.modules[name]


def test_a_row_has_ours_peers_and_limit_and_says_which_peers_are_missing(modules, monkeypatch) -> None:
    measure, table = modules
    monkeypatch.setattr(measure, "cost", lambda way, calls=1: (0.5, way()))
    way = lambda: sum(range(1000))  # noqa: E731
    row = measure.Row(
        "sum",
        way,
        {
            "twice": lambda: measure.Scaled(way, 2.0),
            "same": lambda: way,
            "absent": lambda: measure.installed("no_such_peer"),
        },
        ("limit", lambda: way),
        lambda answers: f"{len(answers)} answers of {answers['ours']}",
    )
    result = measure.measure(row)
    assert result["remark"] == "4 answers of 499500"
    work, _, best, others, limit = table.cells(result)
    assert (work, best, limit) == ("sum", "same 500 ms: **1.00**", "limit 500 ms: 1.00")
    assert others.startswith("twice 2.0; absent: cannot be imported (ModuleNotFoundError")


def test_answers_that_differ_are_no_row(modules) -> None:
    measure, table = modules

    def check(answers):
        np.testing.assert_equal(answers["ours"], answers["peer"])

    row = measure.Row("one", lambda: 1, {"peer": lambda: lambda: 2}, check=check)
    with pytest.raises(AssertionError):
        measure.measure(row)
    assert "failed" in table.cells({"work": "one", "wrong": "AssertionError"})[1]


def test_growth_is_the_slope_of_logarithms(modules, monkeypatch) -> None:
    measure, table = modules
    monkeypatch.setattr(measure, "least", lambda ways, **options: {"ours": (ways["ours"]() ** 1.5, None)})
    result = measure.grow(measure.Growth("work", "points", [10, 100, 1000], lambda n: lambda: n, "1.5"))
    assert result["slope"] == pytest.approx(1.5)
    assert table.growth_cells(result)[3:] == ["**1.50** (1.50 to 1.50)", "1.50", "1.5"]


def test_the_tables_are_written_between_their_markers(modules, tmp_path) -> None:
    _, table = modules
    page = tmp_path / "README.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        table.write(page, "new")
    assert page.read_text() == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(SystemExit):
        table.write(page, "new")


def test_packages_are_compared_by_name(modules) -> None:
    _, table = modules
    rows = {
        "a": {"work": "A", "ours": 1.0, "peers": {"nolds": 20.0, "PyRQA": "no OpenCL platform"}},
        "b": {"work": "B", "ours": 2.0, "peers": {"nolds x": 1.0}},
        "c": {"work": "C", "wrong": "AssertionError"},
    }
    assert table.compared({"rows": rows}).splitlines()[2:] == ["| nolds | A: 20; B: 0.50 |"]


def test_only_the_groups_with_such_rows_run(modules) -> None:
    _, table = modules
    rows = {"a": {"group": "series", "work": "Kantz, henon"}, "b": {"group": "graphs", "work": "`distance`, l2"}}
    assert table.groups_of(["Kantz"], rows) == ["series"]
    assert table.groups_of(["Kantz", "storage"], rows) == ["series", "storage"]
    assert table.groups_of(["new row"], rows) == list(table.GROUPS)
    assert table.groups_of([], rows) == list(table.GROUPS)


def test_numbers_are_kept_one_row_a_line(modules, monkeypatch, tmp_path) -> None:
    _, table = modules
    monkeypatch.setattr(table, "RESULTS", tmp_path / "table.json")
    results = {"versions": {"numpy": "2"}, "rows": {"a": {"work": "A"}, "b": {"work": "B"}}}
    table.keep(results)
    text = table.RESULTS.read_text()
    assert json.loads(text) == results
    assert text.count("\n") == 4
