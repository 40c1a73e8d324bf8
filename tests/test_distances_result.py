"""`Distances`: what is given, cut, kept and brought back."""

from __future__ import annotations

import json
import pickle
from importlib import import_module

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import trajtools as tt
from trajtools.errors import DataError, FormatError, SelectionError, TooLargeError

module = import_module("trajtools.distances.pairwise")


@pytest.fixture
def matrix():
    x = np.random.default_rng(0).normal(size=(12, 3))
    return np.abs(x[:, None] - x[None]).sum(axis=2)


def test_given_distances_are_an_array(matrix):
    found = tt.Distances.from_array(matrix, dt=0.5)
    assert found.shape == (12, 12)
    assert len(found) == 12
    assert found.ndim == 2
    assert found.dtype == np.float64
    assert found.time_unit == "time"
    assert_array_equal(found.time, 0.5 * np.arange(12))
    assert_array_equal(np.asarray(found), matrix)
    assert_array_equal(found[2:5, ::3], matrix[2:5, ::3])
    assert_array_equal(found[[1, 7], [2, 3]], matrix[[1, 7], [2, 3]])
    assert_array_equal(found[matrix > 3], matrix[matrix > 3])
    assert found[3, 4] == matrix[3, 4]
    assert_array_equal(found.read(3, -2), matrix[3:-2])
    assert found.symmetric
    assert found.path is None
    with pytest.raises(ValueError, match="read-only"):
        found[:][0, 0] = 1


def test_states_without_distances_are_excluded(matrix):
    matrix[3] = matrix[:, 3] = np.nan
    found = tt.Distances.from_array(matrix)
    assert_array_equal(np.flatnonzero(found.excluded), [3])
    assert found.n_excluded == 1


def test_a_window_is_one_of_rows_and_columns(matrix, tmp_path):
    whole = tt.Distances.from_array(matrix, step=np.arange(0, 24, 2))
    for found in (whole, whole.save(tmp_path / "d.h5")):
        part = found.window(4, 20, every=3)
        assert_array_equal(part.step, [4, 10, 16])
        assert_array_equal(part[:], matrix[2:10:3, 2:10:3])
        again = pickle.loads(pickle.dumps(part.window(10)))
        assert_array_equal(again[:], matrix[5:10:3, 5:10:3])
        assert_array_equal(again.step, [10, 16])
    with pytest.raises(SelectionError, match="no state in steps"):
        whole.window(100)
    with pytest.raises(SelectionError, match="1 or more"):
        whole.window(every=0)


def test_what_is_on_disk_travels_as_a_place(matrix, tmp_path):
    large = np.tile(matrix, (20, 20))
    found = tt.Distances.from_array(large).save(tmp_path / "d.h5")
    assert len(pickle.dumps(found)) < large.nbytes / 10
    assert_array_equal(pickle.loads(pickle.dumps(found))[:], large)
    assert isinstance(found.read(0, 3), np.ndarray)
    assert not isinstance(found.read(0, 3), np.memmap)


def test_saved_distances_come_back_with_everything(tmp_path):
    x = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    x[2, 0] = np.nan
    found = tt.pairwise(tt.Trajectory.from_array(x, dt=0.1), y=x[:5], metric="l1")
    back = found.save(tmp_path / "d.h5")
    assert_array_equal(back[:], found[:])
    assert back.path == str(tmp_path / "d.h5")
    for name in ("metric", "dt", "time_unit", "square", "symmetric", "warnings", "settings"):
        assert getattr(back, name) == getattr(found, name), name
    for name in ("step", "column_step", "excluded", "column_excluded", "floor"):
        assert_array_equal(getattr(back, name), getattr(found, name))
    with pytest.raises(FileExistsError, match="choose another name"):
        found.save(tmp_path / "d.h5")


def test_json_holds_every_digit_and_refuses_what_is_too_large(matrix, monkeypatch):
    found = tt.Distances.from_array(matrix)
    assert json.loads(found.to_json())["values"] == matrix.tolist()
    monkeypatch.setattr(module, "MAX_PLAIN_ENTRIES", 100)
    with pytest.raises(TooLargeError, match="save"):
        found.to_dict()


def test_what_are_no_distances_is_refused(tmp_path):
    with pytest.raises(DataError, match="T, T"):
        tt.Distances.from_array(np.ones((2, 3)))
    with pytest.raises(DataError, match="negative"):
        tt.Distances.from_array(-np.ones((2, 2)))
    with pytest.raises(DataError, match="positive number"):
        tt.Distances.from_array(np.zeros((2, 2)), dt=0)
    with pytest.raises(DataError, match=r"step of shape \(2,\)"):
        tt.Distances.from_array(np.zeros((2, 2)), step=[1, 2, 3])
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    with pytest.raises(FormatError):
        tt.Distances.open(tmp_path / "x.h5")


def test_distances_draw_themselves(matrix):
    matrix[3] = matrix[:, 3] = np.nan
    ax = tt.Distances.from_array(matrix).plot()
    shown = ax.collections[0].get_array()
    assert_array_equal(np.ma.filled(shown, np.nan).reshape(12, 12), matrix)
    assert "1 excluded" in ax.get_title()
    ax = tt.plots.distances(tt.Distances.from_array(matrix), pixels=5)
    assert "one in 3 drawn" in ax.get_title()
    drawn = ax.collections[0].get_array()
    assert_array_equal(np.ma.filled(drawn, np.nan).reshape(4, 4), matrix[::3, ::3])
    found = tt.to_orbit(np.array([0.0, 0.5, 3.0]), np.array([0.0, 1.0]))
    assert_array_equal(found.plot().lines[0].get_ydata(), [0, 0.5, 2])


@pytest.mark.parametrize("metric", ["l1", "linf"])
def test_contributions_draw_themselves(metric):
    parts = [
        tt.wiring.Parameter("a.w", "other", (2,), "f8", 0, 2),
        tt.wiring.Parameter("b.w", "other", (1,), "f8", 2, 1),
    ]
    x = tt.Trajectory.from_array(np.zeros((4, 3)), parameters=parts)
    ax = tt.distances.contributions(x, np.ones((4, 3)), metric=metric).plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
