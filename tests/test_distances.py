import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trajtools.distances import equal_times, metric
from trajtools.distances.equal_times import distance, to_references
from trajtools.distances.metric import METRICS, find_metric, register_metric, rounding_floor
from trajtools.errors import DataError, TooLargeError, UnknownNameError

OURS = ("l1", "l2", "linf", "rms")


@pytest.fixture
def walks():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 9, 13)).cumsum(axis=1)


class _Members:
    """States (T, M, P) in memory, read by rectangles."""

    def __init__(self, states):
        self._states = states
        self.largest = 0

    chunk = 4, 10

    def by_member(self, rows, members, columns):
        block = self._states[rows][:, members][:, :, columns].transpose(1, 0, 2)
        self.largest = max(self.largest, block.nbytes)
        return block


@pytest.mark.parametrize("metric", OURS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_distance_is_that_of_the_definition(walks, metric, dtype):
    a, b = walks.astype(dtype)
    assert_allclose(distance(a, b, metric=metric), naive.between(a, b, metric), rtol=1e-13)


@pytest.mark.parametrize("metric", OURS)
def test_metric_is_zero_on_itself_symmetric_and_obeys_the_triangle(metric):
    rng = np.random.default_rng(1)
    a, b, c = rng.normal(size=(3, 40, 7))
    assert_array_equal(distance(a, a, metric=metric), 0)
    assert_array_equal(distance(a, b, metric=metric), distance(b, a, metric=metric))
    assert np.all(
        distance(a, c, metric=metric) <= distance(a, b, metric=metric) + distance(b, c, metric=metric) + 1e-12
    )


@pytest.mark.parametrize("metric", OURS)
def test_distance_scales_with_the_weights(walks, metric):
    assert_allclose(
        distance(8 * walks[0], 8 * walks[1], metric=metric), 8 * distance(*walks, metric=metric), rtol=1e-14
    )


def test_float32_states_are_subtracted_exactly():
    a = np.array([[1.0, 2.0]], np.float32)
    b = np.nextafter(a, np.float32(3))
    assert distance(a, b)[0] == float(np.spacing(a[0, 0])) + float(np.spacing(a[0, 1]))


def test_states_of_two_dtypes_are_compared_in_the_wider_one():
    a, b = np.array([[0.1]], np.float32), np.array([[0.1]])
    assert distance(a, b)[0] == abs(float(np.float32(0.1)) - 0.1)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_euclidean_distance_neither_underflows_nor_overflows(scale):
    a = np.array([[3.0, 4.0]]) * scale
    assert_allclose(distance(a, np.zeros_like(a), metric="l2"), 5 * scale, rtol=1e-14)


def test_integers_and_series_are_states():
    assert_array_equal(distance(np.arange(4), np.zeros(4, int)), [0, 1, 2, 3])


@pytest.mark.parametrize("metric", OURS)
def test_nan_in_a_weight_is_nan_in_its_distance_only(walks, metric):
    a, b = walks.copy()
    a[3, 12] = np.nan
    assert_array_equal(np.isnan(distance(a, b, metric=metric)), np.arange(9) == 3)


@pytest.mark.parametrize("metric", OURS)
def test_an_infinite_weight_is_infinitely_far(walks, metric):
    a, b = walks.copy()
    a[3, 0] = np.inf
    assert np.isinf(distance(a, b, metric=metric)[3])


def test_blocks_do_not_change_the_distance(walks, monkeypatch):
    whole = distance(*walks)
    monkeypatch.setattr("trajtools.distances.equal_times.BLOCK_BYTES", 1)
    assert_array_equal(distance(*walks), whole)


def test_trajectories_of_other_architectures_lengths_and_steps_are_refused(walks):
    from trajtools.trajectory import Trajectory

    a, b = walks
    with pytest.raises(DataError, match="13 and 12 weights"):
        distance(a, b[:, :12])
    with pytest.raises(DataError, match="9 and 8 states"):
        distance(a, b[:8])
    late = Trajectory.from_array(b, step=np.arange(9) + 1)
    with pytest.raises(DataError, match="different steps"):
        distance(Trajectory.from_array(a), late)
    with pytest.raises(DataError, match="real numbers"):
        distance(a.astype(complex), b)


def test_a_trajectory_is_as_far_as_its_array(walks):
    from trajtools.trajectory import Trajectory

    a, b = walks
    assert_array_equal(distance(Trajectory.from_array(a), Trajectory.from_array(b)), distance(a, b))


def test_unknown_metric_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="l1, l2, linf, rms"):
        distance(np.zeros((2, 1)), np.zeros((2, 1)), metric="manhattan")


def test_a_function_is_a_metric(walks):
    a, b = walks
    assert_allclose(distance(a, b, metric=lambda x, y: np.abs(x - y).sum(axis=1)), distance(a, b), rtol=1e-14)


def test_a_metric_of_the_wrong_shape_is_refused(walks):
    with pytest.raises(DataError, match="one distance per state"):
        distance(*walks, metric=lambda x, y: np.abs(x - y))


def test_a_registered_metric_is_known_by_name_and_taken_names_are_refused(monkeypatch, walks):
    monkeypatch.setattr(METRICS, "_metrics", dict(METRICS._metrics))
    register_metric("twice l1", lambda x, y: 2 * np.abs(x - y).sum(axis=1))
    assert_allclose(distance(*walks, metric="twice l1"), 2 * distance(*walks), rtol=1e-14)
    with pytest.raises(UnknownNameError, match="exists already"):
        register_metric("l1", lambda x, y: x)
    with pytest.raises(DataError, match="must be a function"):
        register_metric("number", 3)


def test_metrics_of_other_packages_come_through_entry_points(monkeypatch, walks):
    class Point:
        def load(self):
            return lambda x, y: np.full(len(x), 7.0)

    monkeypatch.setattr(METRICS, "_metrics", dict(METRICS._metrics))
    monkeypatch.setattr(METRICS, "_offered", lambda: {"seven": Point()})
    assert "seven" in list(METRICS)
    assert_array_equal(distance(*walks, metric="seven"), 7)


@pytest.mark.parametrize("metric", OURS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floor_is_what_the_spacing_of_the_weights_gives(metric, dtype):
    states = np.array([[1.0, -0.3, 700.0, 1e-3], [0.0, 0.5, 2.0, -8.0]]).astype(dtype)
    expected = [naive.rounding_floor(state, metric, dtype) for state in states]
    assert_allclose(rounding_floor(states, metric), expected, rtol=1e-12)


def test_floor_is_the_distance_that_rounding_makes():
    rng = np.random.default_rng(2)
    states = rng.normal(size=(1, 50_000))
    shift = 1e-3 * rng.uniform(-1, 1, states.shape)
    error = np.abs((np.float32(states + shift) - (states + shift)) - (np.float32(states) - states)).sum()
    assert_allclose(rounding_floor(states.astype(np.float32), "l1")[0], error, rtol=0.05)


def test_floor_knows_the_format_that_the_file_held():
    states = np.array([[1.0, 3.0]])
    assert rounding_floor(states, "linf", dtype="float32")[0] == np.spacing(np.float32(3.0))
    assert rounding_floor(states, "linf", dtype="bfloat16")[0] == 2.0**-6
    assert rounding_floor(np.array([[1, 2]]))[0] == 0
    assert np.isnan(rounding_floor(states, lambda a, b: a[:, 0])[0])
    with pytest.raises(DataError, match="T, P"):
        rounding_floor(np.ones(3))


@pytest.mark.parametrize("metric", OURS)
def test_ensemble_read_in_small_blocks_gives_the_same(metric, monkeypatch):
    rng = np.random.default_rng(3)
    states = rng.normal(size=(70, 7, 50))
    twins, reference = np.array([1, 2, 4, 5, 6]), np.array([0, 0, 3, 3, 0])
    options = {"rows": slice(2, 69), "dtype": "float64", "size": 50}
    whole = to_references(_Members(states), twins, reference, find_metric(metric), **options)
    for u, (i, j) in enumerate(zip(twins, reference, strict=True)):
        assert_allclose(whole.distance[:, u], naive.between(states[2:69, i], states[2:69, j], metric), rtol=1e-13)
    assert_array_equal(whole.references, [0, 3])
    zero = np.zeros(50)
    sizes = [max(naive.distance(x, zero, metric) for x in states[2:69, r]) for r in (0, 3)]
    assert_allclose(whole.scale, sizes, rtol=1e-13)
    assert np.isnan(whole.speed[0]).all()
    for r, member in enumerate((0, 3)):
        path = states[2:69, member]
        assert_allclose(whole.speed[1:, r], naive.between(path[1:], path[:-1], "l1"), rtol=1e-13)
    monkeypatch.setattr(equal_times, "BLOCK_BYTES", 20_000)
    members = _Members(states)
    small = to_references(members, twins, reference, find_metric(metric), **options)
    assert members.largest <= 20_000
    monkeypatch.setattr(equal_times, "FEWEST_TWINS", 1)
    monkeypatch.setattr(equal_times, "BLOCK_BYTES", 100)  # each twin alone with its reference, ten weights at a time
    for name in ("distance", "floor", "scale", "speed") if metric in ("l1", "l2", "linf", "rms") else ():
        alone = to_references(_Members(states), twins, reference, find_metric(metric), **options)
        assert_allclose(getattr(alone, name), getattr(whole, name), rtol=1e-12)
    for name in ("distance", "floor", "scale", "speed"):
        assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-12)


def test_a_metric_that_cannot_be_cut_reads_fewer_rows_and_then_refuses(monkeypatch):
    rng = np.random.default_rng(4)
    states = rng.normal(size=(10, 2, 30))
    own = find_metric(lambda a, b: np.abs(a - b).max(axis=1))
    one, zero = np.array([1]), np.array([0])
    options = {"rows": slice(0, 10), "dtype": "float64", "size": 30}
    monkeypatch.setattr(equal_times, "BLOCK_BYTES", 8 * 2 * 30 * 3)
    found = to_references(_Members(states), one, zero, own, **options)
    assert_allclose(found.distance[:, 0], np.abs(states[:, 1] - states[:, 0]).max(axis=1), rtol=0)
    monkeypatch.setattr(equal_times, "BLOCK_BYTES", 8 * 30)
    with pytest.raises(TooLargeError, match="select fewer parameters"):
        to_references(_Members(states), one, zero, own, **options)


def test_the_registry_is_a_mapping_of_metrics():
    assert set(OURS) <= set(METRICS)
    assert len(METRICS) == len(list(METRICS))
    assert all(isinstance(METRICS[name], metric.Metric) and METRICS[name].description for name in OURS)
