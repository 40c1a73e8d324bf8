"""Joint principal components and scaling: against the plain formulas, out of core, and twins as they are in truth."""

import naive_dimension as naive
import numpy as np
import pytest

import trajtools as tt
from recorders import Recorder, perturb
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, TooLargeError
from trajtools.structure import projection
from trajtools.structure.projection import decorrelation_index, trustworthiness


def walk(rng, steps=120, size=30):
    return np.cumsum(rng.normal(size=(steps, size)) * np.linspace(0.2, 2, size), axis=0)


def plain_components(x, count):
    """By the singular value decomposition of all states at once."""
    centred = x - x.mean(axis=0)
    _, roots, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:count].T, (roots**2)[:count], (roots**2 / (roots**2).sum())[:count], axes[:count]


def training(path, steps=60, copies=3, epsilon=1e-7):
    """Gradient descent on independent quartic wells at a chaotic rate, with twins, recorded."""
    rng = np.random.default_rng(0)
    params = {"a.weight": rng.uniform(-1, 1, (4, 5)), "a.bias": rng.uniform(-1, 1, 4)}
    states = [params, *perturb(params, epsilon, copies, 1, only="all")]
    with Recorder(path, states, quiet=True) as rec:
        for _ in range(steps):
            rec.record(loss=float(np.mean((params["a.weight"] ** 2 - 1) ** 2)))
            for state in states:
                for name, w in state.items():
                    state[name] = 3 * w - 2 * w**3
            rec.record(states)


def test_components_are_those_of_the_singular_value_decomposition():
    x = walk(np.random.default_rng(1))
    found = tt.structure.pca(x, components=3)
    scores, values, share, axes = plain_components(x, 3)
    sign = np.sign((found.coordinates * scores).sum(axis=0))
    np.testing.assert_allclose(found.coordinates, scores * sign, atol=1e-10)
    np.testing.assert_allclose(found.axes, axes * sign[:, None], atol=1e-10)
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-10)
    np.testing.assert_allclose(found.share, share, rtol=1e-10)


def test_sign_is_fixed_by_the_way_of_the_first_trajectory():
    x = walk(np.random.default_rng(2))
    for states in (x, -x, x[:, ::-1]):
        z = tt.structure.pca(states, components=4).coordinates
        assert (z[-1] > z[0]).all()
    closed = np.stack([np.cos(np.linspace(0, 2 * np.pi, 50)), 0.1 * np.sin(np.linspace(0, 2 * np.pi, 50))], axis=1)
    z = tt.structure.pca(closed).coordinates
    largest = np.abs(z).argmax(axis=0)
    assert (z[largest, [0, 1]] > 0).all()


def test_scaling_in_rms_is_the_principal_components_over_the_root_of_their_number():
    x = walk(np.random.default_rng(3))
    np.testing.assert_allclose(
        tt.structure.mds(x, components=2).coordinates, tt.structure.pca(x).coordinates / np.sqrt(x.shape[1]), rtol=1e-12
    )
    np.testing.assert_allclose(
        tt.structure.mds(x, components=2, metric="l2").coordinates, tt.structure.pca(x).coordinates, rtol=1e-12
    )


def test_scaling_of_distances_is_that_of_the_states():
    x = walk(np.random.default_rng(4), steps=80)
    matrix = np.sqrt(((x[:, None] - x[None]) ** 2).mean(axis=2))
    given, own = tt.structure.mds(Distances.from_array(matrix), components=2), tt.structure.mds(x, components=2)
    np.testing.assert_allclose(given.coordinates, own.coordinates, atol=1e-10)
    np.testing.assert_allclose(given.share, own.share, rtol=1e-10)
    assert given.negative < 1e-12
    for name in ("distance_correlation", "rank_correlation", "trustworthiness"):
        assert getattr(given, name) == pytest.approx(getattr(own, name), abs=1e-9)


def test_what_is_not_euclidean_is_told():
    # Four corners of a square in the metric of its edges, and one in the middle of all: no plane holds that.
    matrix = np.array([[0, 1, 2, 1, 1], [1, 0, 1, 2, 1], [2, 1, 0, 1, 1], [1, 2, 1, 0, 1], [1, 1, 1, 1, 0]]) * 1.0
    found = tt.structure.mds(Distances.from_array(matrix), components=5)
    inner = -0.5 * (np.eye(5) - 0.2) @ matrix**2 @ (np.eye(5) - 0.2)
    values = np.linalg.eigvalsh(inner)
    assert found.negative == pytest.approx(-values[values < 0].sum() / np.abs(values).sum())
    assert found.share.sum() + found.negative == pytest.approx(1)
    assert found.coordinates.shape[1] == np.count_nonzero(values > 1e-12)


def test_close_states_far_from_zero_keep_their_digits():
    rng = np.random.default_rng(5)
    x = 1e-8 * walk(rng, steps=60)
    np.testing.assert_allclose(tt.structure.pca(1e3 + x).coordinates, tt.structure.pca(x).coordinates, atol=1e-11 * 50)


def test_trustworthiness_is_that_of_scikit_learn():
    manifold = pytest.importorskip("sklearn.manifold")
    x = walk(np.random.default_rng(6), steps=100)
    found = tt.structure.pca(x, components=1)
    assert found.trustworthiness == pytest.approx(
        manifold.trustworthiness(x, found.coordinates, n_neighbors=found.settings["neighbors"])
    )
    full = np.linalg.norm(x[:, None] - x[None], axis=2)
    assert trustworthiness(full, full, 7) == 1.0


def test_a_line_is_kept_whole_and_noise_is_not():
    rng = np.random.default_rng(7)
    line = tt.structure.pca(np.outer(np.arange(60.0), rng.normal(size=500)), components=2)
    assert line.share[0] == pytest.approx(1)
    assert line.coordinates.shape == (60, 1)  # there is no second direction
    assert (line.distance_correlation, line.trustworthiness) == pytest.approx((1, 1))
    noise = tt.structure.pca(rng.normal(size=(60, 500)), components=2)
    assert noise.share.sum() < 0.1
    assert noise.distance_correlation < 0.5
    assert noise.trustworthiness < 0.8


def test_a_run_is_projected_as_its_members_side_by_side(tmp_path, monkeypatch):
    training(tmp_path / "run.h5")
    with tt.open(tmp_path / "run.h5") as run:
        members = [np.asarray(run.trajectory(m)) for m in range(4)]
        found = tt.structure.pca(run)
        by_arrays = tt.structure.pca((members[0], members[1:]))
        monkeypatch.setattr(projection, "_BLOCK_BYTES", 8 * 244 * 5)  # five columns at a time
        in_blocks = tt.structure.pca(run)
        one = tt.structure.pca([run.trajectory(0).select("*.weight"), members[1][:, :20]])
    assert found.names[0] == run.members[0].name
    assert found.reference.tolist() == [-1, 0, 0, 0]
    scores, *_ = plain_components(np.concatenate(members), 2)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(scores), atol=1e-10)
    np.testing.assert_allclose(found.of(2), found.coordinates[found.member == 2])
    for other in (by_arrays, in_blocks):
        np.testing.assert_allclose(other.coordinates, found.coordinates, atol=1e-10)
        np.testing.assert_allclose(other.embedded.distances, found.embedded.distances, rtol=1e-6)
    assert one.coordinates.shape == (122, 2)


def test_twins_part_in_the_coordinate_as_they_do_in_truth(tmp_path):
    training(tmp_path / "run.h5", epsilon=1e-12)
    with tt.open(tmp_path / "run.h5") as run:
        found = tt.structure.mds(run)
        full = tt.twins(run)
        z = [found.of(m)[:, 0] for m in range(4)]
    np.testing.assert_allclose(found.full.distances, full.distances, rtol=1e-12)
    # Where the difference of the coordinates has digits left, it is the projected difference.
    apart = np.abs(np.array(z[1:]) - z[0])
    late = apart > 1e-6
    np.testing.assert_allclose(found.embedded.distances[late], apart[late], rtol=1e-6)
    # At the start it has none, and the projection of the differences still knows: 1e-13 against coordinates near 1.
    rates = [np.polyfit(np.arange(18), curve[:18], 1)[0] for curve in (found.embedded.log_distance, full.log_distance)]
    assert rates[1] == pytest.approx(np.log(3), rel=0.15)
    assert rates[0] == pytest.approx(rates[1], rel=0.3)  # 5 to 30 per cent off is what one coordinate costs
    assert found.embedded.fit(null=None).value == pytest.approx(found.full.fit(null=None).value, rel=0.3)
    for times, growth in ((found.decorrelation, found.embedded), (found.decorrelation_full, found.full)):
        expected = [naive.decorrelation_time(row) for row in growth.distances]
        assert times.tolist() == pytest.approx([np.nan if t is None else t for t in expected], nan_ok=True)


def test_any_metric_can_be_scaled():
    x = walk(np.random.default_rng(18), steps=50)
    copy = x + 1e-3 * np.random.default_rng(19).normal(size=x.shape)
    found = tt.structure.mds((x, [copy]), metric="l1", components=2)
    assert found.metric == "l1"
    everything = np.concatenate([x, copy])
    matrix = np.abs(everything[:, None] - everything[None]).sum(axis=2)
    expected = tt.structure.mds(Distances.from_array(matrix), components=2)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(expected.coordinates), atol=1e-8)
    np.testing.assert_allclose(found.full.distances[0], np.abs(x - copy).sum(axis=1), rtol=1e-12)
    z = found.coordinates[:, 0]
    np.testing.assert_allclose(found.embedded.distances[0], np.abs(z[50:] - z[:50]))


def test_decorrelation_time_is_the_published_rule():
    rng = np.random.default_rng(8)
    time = np.arange(200.0)
    for rate, stop in ((0.3, 40), (0.15, 90), (0.5, 25)):
        curve = 1e-9 * np.exp(rate * np.minimum(time, stop)) * np.exp(0.01 * rng.normal(size=200))
        expected = naive.decorrelation_time(curve)
        assert decorrelation_index(curve) == expected
        assert abs(expected - stop) <= 3
    assert np.isnan(decorrelation_index(np.exp(0.1 * time)))  # it never stops
    assert np.isnan(decorrelation_index(np.exp(-0.1 * time)))  # it never grows
    assert np.isnan(decorrelation_index(np.ones(5)))


def test_broken_states_are_left_out_and_counted():
    x = walk(np.random.default_rng(9))
    broken = x.copy()
    broken[[4, 77], [3, 20]] = np.nan, np.inf
    found = tt.structure.pca(broken)
    assert found.n_excluded == 2
    assert np.isnan(found.coordinates[[4, 77]]).all()
    kept = np.delete(np.arange(len(x)), [4, 77])
    np.testing.assert_allclose(found.coordinates[kept], tt.structure.pca(x[kept]).coordinates, atol=1e-10)
    assert "2 states" in found.warnings[0].text


def test_many_states_give_the_same_components_by_iteration(monkeypatch):
    x = walk(np.random.default_rng(10))
    whole = tt.structure.pca(x)
    monkeypatch.setattr("trajtools.structure.projection._FULL_SPECTRUM", 10)
    np.testing.assert_allclose(tt.structure.pca(x).coordinates, whole.coordinates, atol=1e-9)


def test_equal_spread_is_said_to_leave_a_plane():
    angle = 2 * np.pi * np.arange(40) / 40
    found = tt.structure.pca(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    assert found.warnings[0].code == "equal-spreads"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tt.structure.pca(np.ones((5, 3))), DataError, "equal"),
        (lambda: tt.structure.pca(np.ones((1, 3))), DataError, "1 of 1"),
        (lambda: tt.structure.pca(np.full((4, 3), np.nan)), DataError, "0 of 4"),
        (lambda: tt.structure.pca(np.eye(3), components=0), DataError, "components=0"),
        (lambda: tt.structure.pca([np.eye(3), np.eye(4)]), DataError, "one architecture"),
        (lambda: tt.structure.pca((np.eye(3), [])), DataError, "copies"),
        (lambda: tt.structure.mds((np.eye(3), [np.eye(3)[:2]])), DataError, "3 and 2 states"),
        (lambda: tt.structure.pca(np.zeros((9000, 2))), TooLargeError, r"every=2"),
        (lambda: tt.structure.mds(Distances.from_array(np.zeros((3, 3)))), DataError, "states are equal"),
        (lambda: tt.structure.mds(Distances.from_array(np.arange(9.0).reshape(3, 3))), DataError, "symmetric"),
        (lambda: tt.structure.pca("states"), DataError, "real numbers"),
    ],
)
def test_what_cannot_be_projected_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_three_states_can_be_projected():
    assert tt.structure.pca([0.0, 1.0, 3.0]).coordinates[:, 0] == pytest.approx([-4 / 3, -1 / 3, 5 / 3])


def test_trajectories_read_parts_of_their_states(tmp_path):
    training(tmp_path / "run.h5", steps=5)
    with tt.open(tmp_path / "run.h5") as run:
        x = run.trajectory(1)
        whole = np.asarray(x)
        np.testing.assert_array_equal(x.read(2, 5, slice(3, 22)), whole[2:5, 3:22])
        np.testing.assert_array_equal(x.read(0, 0, slice(3, 22)), whole[:0, 3:22])
        bias = x.select("a.bias")
        np.testing.assert_array_equal(bias.read(columns=slice(1, 3)), np.asarray(bias)[:, 1:3])
        assert bias.read(1, 3, slice(3, 3)).shape == (2, 0)
        both = tt.Trajectory.from_array(whole, parameters=x.parameters).select("a.bias", "a.weight")
        np.testing.assert_array_equal(both.read(columns=slice(18, 23)), np.asarray(both)[:, 18:23])
        with pytest.raises(DataError, match="stride"):
            x.read(columns=slice(0, 9, 2))


def test_projections_draw_themselves(tmp_path):
    training(tmp_path / "run.h5", steps=20)
    with tt.open(tmp_path / "run.h5") as run:
        plane, line = tt.structure.pca(run), tt.structure.mds(run)
    curves = plane.plot().lines
    np.testing.assert_array_equal(curves[0].get_xdata(), plane.of(0)[:, 0])
    assert len(curves) == 8  # a path and a start for each member
    assert line.plot().get_xlabel() == "step"


@pytest.mark.parametrize("scale", [2.0**532, 2.0**-664])
def test_projections_do_not_depend_on_numbers_whose_squares_overflow(scale):
    x = np.random.default_rng(40).normal(size=(80, 4)).cumsum(axis=0)
    for project in (tt.structure.pca, tt.structure.mds):
        one, other = project(x), project(x * scale)
        np.testing.assert_allclose(other.coordinates / scale, one.coordinates, rtol=1e-9)
        np.testing.assert_allclose(other.share, one.share, rtol=1e-12)
        assert other.trustworthiness == one.trustworthiness
        assert other.warnings == one.warnings
