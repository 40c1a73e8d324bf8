"""Tables and text on terminals of any width, in a pipe and in a file."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len

from trajtools.cli.printing import bullets, emit, table

HEAD = ["lr", "run", "exponent (1/step)", "95% interval", "steps to 0.9 (reached)", "median loss", "in words"]
ROWS = [
    [f"{rate:g}", f"run{at}", f"{0.1234 * rate:.4f}", f"[{rate:.3f}, {2 * rate:.3f}]", f"{33 * at} (9{at}%)", "0.2677",
     f"The distance to nearby copies grows tenfold every {at} steps."]
    for at, rate in enumerate((0.01, 0.5, 1.0, 200.0))
]  # fmt: skip
GRID = table(HEAD, ROWS, right=(2, 5), keys=2, prose=[6])


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    def show(content, width):
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(width))
            patch.setattr("sys.stdout", terminal)
            emit(content)
        return terminal.getvalue().rstrip("\n").split("\n")

    return show


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_fits_the_terminal_and_cuts_nothing(shown, width):
    lines = shown([GRID], width)
    assert max(map(len, lines)) <= width
    for row in ROWS:
        for cell in row[:-1]:  # numbers and names are whole, on one line
            assert any(cell in line for line in lines)
    for word in {word for row in ROWS for word in row[-1].split()}:
        assert any(word in line for line in lines)


def test_a_wide_terminal_and_a_pipe_have_one_line_a_row(shown, capsys):
    emit([GRID])
    piped = capsys.readouterr().out.rstrip("\n").split("\n")
    assert len(piped) == 1 + len(ROWS)
    assert all(all(cell in line for cell in row) for row, line in zip(ROWS, piped[1:], strict=True))
    wide = shown([GRID], 200)
    assert [line for line in wide if not set(line) <= set("- ")] == piped


def test_a_head_is_wrapped_first_then_sentences_then_columns_are_grouped(shown):
    natural = max(map(len, shown([GRID], 1000)))
    lines = shown([GRID], natural - 1)
    assert next(at for at, line in enumerate(lines) if set(line) <= set("- ")) > 1
    assert sum("run0" in line for line in lines) == 1
    assert any(ROWS[0][-1] in line for line in lines)
    narrower = shown([GRID], 100)
    assert sum("run0" in line for line in narrower) == 1
    assert not any(ROWS[0][-1] in line for line in narrower)
    grouped = shown([GRID], 60)
    starts = [at for at, line in enumerate(grouped) if line.startswith("0.01 ")]
    assert len(starts) > 1
    assert all(grouped[at].split()[1] == "run0" for at in starts)


def test_a_single_row_is_a_list_where_it_does_not_fit(shown):
    lines = shown([table(HEAD, ROWS[:1], keys=2, prose=[6])], 50)
    assert lines[0].split() == ["lr", "0.01"]
    assert [line.split("  ")[0] for line in lines if line[0] != " "] == HEAD


def test_rows_are_lists_where_not_even_one_column_fits_beside_their_names(shown):
    lines = shown([table(["run", "file"], [["a" * 15, "b" * 15], ["c" * 15, "d" * 15]])], 24)
    assert max(map(len, lines)) <= 24
    assert lines == ["run   " + "a" * 15, "file  " + "b" * 15, "", "run   " + "c" * 15, "file  " + "d" * 15]


def test_names_and_values_wrap_below_the_values(shown):
    lines = shown([table(None, [["  layers", "hidden 4x10, " * 9], ["  stored", "weights"]])], 60)
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 10) and line[10] != " " for line in lines[1:-1])
    assert lines[-1] == "  stored  weights"


def test_lists_wrap_below_their_text(shown):
    text = bullets("eta=1: chaotic", ["the distance grows by 5.5 e-folds in 22 steps, before it saturates", "short"])
    lines = shown([text], 40)
    assert lines[:2] == ["eta=1: chaotic", "  - the distance grows by 5.5 e-folds in"]
    assert all(line.startswith("    ") for line in lines[2:-1])
    assert lines[-1] == "  - short"


def test_one_string_is_printed_as_it_is(shown):
    document = '{"a": ' + "1" * 200 + "}"
    assert shown(document, 40) == [document]


def test_wide_characters_keep_columns_straight(shown):
    for rows in ([["学習率の高い訓練", "1.5"], ["b", "2.5"]], [["e\u0301" * 3, "1.5"], ["b", "2.5"]]):
        head, _, *lines = shown([table(["run", "value"], rows, right=[1])], 80)
        assert len({cell_len(line) for line in (head, *lines)}) == 1
    folded = shown([table(["run", "value"], [["学" * 30, "1.5"], ["b", "2.5"]])], 40)
    assert max(map(cell_len, folded)) <= 40
    assert "".join(re.findall("学", "".join(folded))) == "学" * 30
