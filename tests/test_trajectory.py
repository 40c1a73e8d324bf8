"""Trajectory: a lazy view must always show what slicing the whole array would."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, strategies as st

from trajtools.errors import DataError, SelectionError, TooLargeError
from trajtools.trajectory import ArrayStates, Trajectory
from trajtools.wiring import Parameter

SIZES = {"in.weight": 4, "in.bias": 2, "norm.scale": 2, "out.weight": 6, "out.bias": 3}


def table() -> tuple[Parameter, ...]:
    offset, rows = 0, []
    for name, size in SIZES.items():
        rows.append(Parameter(name, "other", (size,), "float32", offset, size))
        offset += size
    return tuple(rows)


def states(n: int = 50, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).standard_normal((n, sum(SIZES.values()))).astype(dtype)


def trajectory(n: int = 50, **options: object) -> Trajectory:
    return Trajectory.from_array(states(n), parameters=table(), **options)


class CountingStates(ArrayStates):
    """Remembers what was read."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.asked: list[tuple[object, object]] = []

    def read(self, rows, columns=None):
        self.asked.append((rows, columns))
        return super().read(rows, columns)


class DeclaredStates:
    """Declares a shape and refuses to be read: shows that nothing is read before it is asked for."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.dtype = np.dtype("float32")

    def read(self, rows, columns=None):
        raise AssertionError(f"states were read: {rows}, {columns}")


def test_a_trajectory_reads_like_the_array_it_came_from() -> None:
    array = states()
    x = Trajectory.from_array(array)
    assert (x.shape, x.ndim, x.dtype, len(x)) == ((50, 17), 2, np.dtype("float32"), 50)
    npt.assert_array_equal(np.asarray(x), array)
    npt.assert_array_equal(x[3], array[3])
    npt.assert_array_equal(x[-1], array[-1])
    npt.assert_array_equal(np.asarray(x[10:40:7]), array[10:40:7])
    npt.assert_array_equal(np.stack(list(x)), array)


def test_a_series_becomes_one_column_and_integers_become_float64() -> None:
    x = Trajectory.from_array(np.arange(5))
    assert x.shape == (5, 1)
    assert x.dtype == np.float64


def test_time_is_step_times_dt() -> None:
    x = trajectory(4, step=[0, 10, 100, 1000], dt=0.5)
    npt.assert_array_equal(x.time, [0.0, 5.0, 50.0, 500.0])
    npt.assert_array_equal(x[1:3].step, [10, 100])


def test_nan_and_infinity_pass_through() -> None:
    array = np.array([[np.nan, np.inf], [-np.inf, 1.0]])
    npt.assert_array_equal(np.asarray(Trajectory.from_array(array)), array)


def test_window_means_steps_and_indexing_means_states() -> None:
    x = trajectory(10, step=np.arange(10) * 100)
    npt.assert_array_equal(x.window(200, 700).step, [200, 300, 400, 500, 600])
    npt.assert_array_equal(x.window(150, 701, every=3).step, [200, 500])
    npt.assert_array_equal(x.window(start=800).step, [800, 900])
    npt.assert_array_equal(x[2:7].step, x.window(200, 700).step)


def test_selecting_keeps_the_order_of_the_state_and_repacks_the_offsets() -> None:
    array = states()
    x = trajectory().select("*.bias", "in.weight")
    assert [p.name for p in x.parameters] == ["in.weight", "in.bias", "out.bias"]
    assert [p.offset for p in x.parameters] == [0, 4, 6]
    assert x.shape == (50, 9)
    npt.assert_array_equal(np.asarray(x), np.hstack([array[:, :6], array[:, 14:]]))


def test_a_selection_of_a_selection_reads_the_right_columns() -> None:
    array = states()
    x = trajectory().select(exclude="norm.*").window(5, 30, every=2).select("out.*").select("*.bias")
    npt.assert_array_equal(np.asarray(x), array[5:30:2, 14:17])
    npt.assert_array_equal(x[2], array[9, 14:17])


def test_neighbouring_parameters_are_read_in_one_piece() -> None:
    source = CountingStates(states())
    x = Trajectory(source, step=np.arange(50), parameters=table())
    x.select("in.*", "norm.*").read(0, 10)
    assert source.asked == [(slice(0, 10, 1), slice(0, 8))]
    source.asked.clear()
    x.select("in.*", "out.weight").read(0, 10)
    assert source.asked == [(slice(0, 10, 1), slice(0, 6)), (slice(0, 10, 1), slice(8, 14))]


def test_an_unknown_name_lists_the_names_there_are() -> None:
    with pytest.raises(SelectionError, match=r"no parameter matches 'conv\*'.*in\.weight, in\.bias, norm\.scale"):
        trajectory().select("conv*")
    with pytest.raises(SelectionError, match="no parameter matches 'x'"):
        trajectory().select(exclude="x")
    with pytest.raises(SelectionError, match="leaves no parameter"):
        trajectory().select("in.bias", exclude="*.bias")
    with pytest.raises(SelectionError, match="no table of parameters"):
        Trajectory.from_array(states()).select("in.*")


def test_a_selection_that_makes_no_sense_is_refused() -> None:
    x = trajectory(10)
    with pytest.raises(SelectionError, match=r"no state in steps \[20, 30\); the trajectory has steps 0 to 9"):
        x.window(20, 30)
    with pytest.raises(SelectionError, match="every=0"):
        x.window(every=0)
    with pytest.raises(SelectionError, match="time runs forward"):
        x[::-1]
    with pytest.raises(SelectionError, match="use select"):
        x["in.bias"]
    with pytest.raises(IndexError, match="state 10 of a trajectory of 10"):
        x[10]
    with pytest.raises(IndexError, match="state -11"):
        x[-11]


@pytest.mark.parametrize(
    ("step", "words"),
    [([0, 1, 1], "must increase; state 1 has step 1"), ([0.0, 1.0, 2.0], "whole numbers"), ([0, 1], "2 steps for 3")],
)
def test_steps_that_do_not_fit_are_refused(step: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Trajectory.from_array(np.zeros((3, 2)), step=step)


def test_arrays_that_are_no_states_are_refused() -> None:
    with pytest.raises(DataError, match="3 dimensions"):
        Trajectory.from_array(np.zeros((3, 2, 2)))
    with pytest.raises(DataError, match="dtype complex128"):
        Trajectory.from_array(np.zeros((3, 2), complex))
    with pytest.raises(DataError, match="dt is 0"):
        Trajectory.from_array(np.zeros((3, 2)), dt=0)
    with pytest.raises(DataError, match="describe 17 entries, the states have 2"):
        Trajectory.from_array(np.zeros((3, 2)), parameters=table())
    with pytest.raises(DataError, match="5 steps for 3 states"):
        Trajectory(DeclaredStates((3, 2)), step=np.arange(5))


def test_nothing_is_read_before_it_is_asked_for_and_too_much_is_refused() -> None:
    x = Trajectory(DeclaredStates((100_000, 1_000_000)), step=np.arange(100_000)).window(0, 90_000)
    assert x.shape == (90_000, 1_000_000)
    assert "90,000 states" in repr(x)
    with pytest.raises(TooLargeError, match=r"335\.3 GiB as one array.*blocks\(\)"):
        np.asarray(x)


def test_asarray_honours_dtype_and_copy() -> None:
    array = states()
    x = Trajectory.from_array(array)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    copied = np.array(x, copy=True)
    copied[:] = 0
    npt.assert_array_equal(np.asarray(x), array)
    assert np.shares_memory(np.asarray(x, copy=False), array)


def test_the_array_of_the_user_cannot_be_written_through_the_trajectory() -> None:
    array = states()
    with pytest.raises(ValueError, match="read-only"):
        Trajectory.from_array(array).read()[0, 0] = 1.0
    array[0, 0] = 5.0  # his own right stays


@given(
    rows=st.tuples(st.integers(-60, 60), st.integers(-60, 60), st.integers(1, 9)),
    max_bytes=st.integers(1, 20_000),
    names=st.sets(st.sampled_from(sorted(SIZES)), min_size=1),
)
def test_blocks_joined_are_the_selection(rows: tuple[int, int, int], max_bytes: int, names: set[str]) -> None:
    array = states()
    columns = np.concatenate([np.arange(p.offset, p.offset + p.size) for p in table() if p.name in names])
    x = trajectory()[slice(*rows)].select(*names)
    expected = array[slice(*rows)][:, columns]
    npt.assert_array_equal(np.asarray(x), expected)
    npt.assert_array_equal(x.step, np.arange(50)[slice(*rows)])

    def joined() -> Iterator[np.ndarray]:
        at = 0
        for where, block in x.blocks(max_bytes):
            assert where.start == at
            assert len(block) == where.stop - at
            assert len(block) == 1 or block.nbytes <= max_bytes
            at = where.stop
            yield block

    blocks = list(joined())
    npt.assert_array_equal(np.concatenate([np.empty((0, len(columns)), "float32"), *blocks]), expected)


def test_blocks_are_whole_chunks_where_they_can_be() -> None:
    x = Trajectory.from_array(np.zeros((1000, 4)))
    assert [where.start for where, _ in x.blocks(max_bytes=32 * 150)] == list(range(0, 1000, 150))
    x.source.chunk = 64, 4
    assert [where.start for where, _ in x.blocks(max_bytes=32 * 150)] == list(range(0, 1000, 128))
    assert [where.start for where, _ in x.blocks(max_bytes=32 * 50)] == list(range(0, 1000, 50))


def test_a_pickled_trajectory_is_the_same_view() -> None:
    x = trajectory(step=np.arange(50) * 2, dt=0.1).window(10, 60).select("out.*", "in.bias")
    y = pickle.loads(pickle.dumps(x))
    npt.assert_array_equal(np.asarray(y), np.asarray(x))
    npt.assert_array_equal(y.time, x.time)
    assert y.parameters == x.parameters
    assert (y.dt, y.time_unit, y.nodes) == (0.1, "time", ())
