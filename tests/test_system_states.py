"""System states: planted ones are found, and noise, drifts and smooth paths have one."""

import naive_dimension as naive
import numpy as np
import pytest
from scipy.signal import lfilter

import trajtools as tt
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, UnknownNameError
from trajtools.structure.system_states import dunn, silhouette


def between(x):
    x = np.asarray(x, dtype=float).reshape(len(x), -1)
    return Distances.from_array(np.linalg.norm(x[:, None] - x[None], axis=2), metric="l2")


def dwelling(rng, visits=((0, 40), (1, 60), (0, 50), (2, 50)), apart=6.0, size=4):
    places = np.eye(3, size) * apart
    return np.concatenate([places[k] + rng.normal(size=(n, size)) for k, n in visits])


def test_planted_states_are_found_with_their_visits():
    found = tt.structure.system_states(between(dwelling(np.random.default_rng(0))))
    assert found.count == 3
    assert found.dwell.tolist() == [40, 60, 50, 50]
    assert found.visited.tolist() == [0, 1, 0, 2]
    assert found.transitions.tolist() == [[88, 1, 1], [1, 59, 0], [0, 0, 49]]
    assert found.sizes.tolist() == [90, 60, 50]
    np.testing.assert_allclose(found.mean_dwell(), [45, 60, 50])
    assert found.candidates[np.argmax(found.scores)] == 3
    assert found.p_value == pytest.approx(0.01)


def test_states_and_their_distances_give_the_same():
    x = dwelling(np.random.default_rng(1))
    a, b = tt.structure.system_states(x), tt.structure.system_states(between(x))
    np.testing.assert_array_equal(a.labels, b.labels)


def test_medoids_are_nearest_to_all_the_others():
    distances = between(dwelling(np.random.default_rng(2)))
    found = tt.structure.system_states(distances)
    for k, medoid in enumerate(found.medoids):
        members = np.flatnonzero(found.labels == k)
        sums = distances.values[np.ix_(members, members)].sum(axis=1)
        assert medoid == members[np.argmin(sums)]


def test_a_cycle_of_states_is_found_though_none_is_dwelt_in():
    rng = np.random.default_rng(3)
    found = tt.structure.system_states(between(np.tile(np.eye(3), (40, 1)) + 0.05 * rng.normal(size=(120, 3))))
    assert found.count == 3
    assert (found.dwell == 1).all()
    assert found.transitions.tolist() == [[0, 40, 0], [0, 0, 40], [39, 0, 0]]


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.normal(size=(200, 3)),
        lambda rng: lfilter([1.0], [1.0, -0.95], rng.normal(size=(200, 3)), axis=0),
        lambda rng: np.cumsum(rng.normal(size=(200, 3)), axis=0),
        lambda rng: np.arange(200.0)[:, None] + 0.1 * rng.normal(size=(200, 2)),
    ],
    ids=["noise", "correlated noise", "walk", "drift"],
)
def test_what_dwells_nowhere_has_one_state(make):
    several = [tt.structure.system_states(between(make(np.random.default_rng(k))), rng=k).count > 1 for k in range(4)]
    assert sum(several) == 0


def test_scores_are_those_of_their_definitions():
    rng = np.random.default_rng(4)
    matrix = between(rng.normal(size=(40, 2))).values
    for labels in (rng.integers(0, 4, 40), np.arange(40) // 39):
        assert silhouette(matrix, labels) == pytest.approx(naive.silhouette(matrix, labels.tolist()), rel=1e-12)
        assert dunn(matrix, labels) == pytest.approx(naive.dunn(matrix, labels.tolist()), rel=1e-12)


def test_silhouette_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    x = dwelling(np.random.default_rng(5))
    labels = np.random.default_rng(6).integers(0, 5, len(x))
    matrix = np.array(between(x).values)
    assert silhouette(matrix, labels) == pytest.approx(metrics.silhouette_score(matrix, labels, metric="precomputed"))


@pytest.mark.parametrize("linkage", ["average", "complete", "single", "weighted"])
def test_a_given_number_cuts_the_tree_of_scipy(linkage):
    from scipy.cluster.hierarchy import fcluster, linkage as joined
    from scipy.spatial.distance import squareform

    distances = between(np.random.default_rng(7).normal(size=(50, 2)))
    found = tt.structure.system_states(distances, linkage=linkage, count=4)
    expected = fcluster(joined(squareform(np.array(distances.values)), linkage), 4, "maxclust")
    assert found.count == 4
    # The same partition, whatever the numbers are.
    assert len({*zip(found.labels.tolist(), expected.tolist(), strict=True)}) == 4
    assert (found.criterion, found.null) == ("given", "")


def test_published_choice_of_single_linkage_and_dunn_finds_separate_states():
    found = tt.structure.system_states(
        between(dwelling(np.random.default_rng(8), apart=15.0)), linkage="single", criterion="dunn"
    )
    assert found.count == 3


def test_states_without_distances_end_a_visit():
    x = dwelling(np.random.default_rng(9))
    x[[20, 70]] = np.nan
    found = tt.structure.system_states(between(x))
    assert found.labels[[20, 70]].tolist() == [-1, -1]
    assert found.dwell.tolist() == [20, 19, 30, 29, 50, 50]
    assert found.transitions.sum() == 199 - 4
    assert found.n_excluded == 2
    assert "2 states" in found.warnings[0].text


def test_unit_does_not_matter():
    x = dwelling(np.random.default_rng(10))
    plain = tt.structure.system_states(between(x))
    tiny = tt.structure.system_states(between(1e-9 * x))
    np.testing.assert_array_equal(tiny.labels, plain.labels)
    np.testing.assert_allclose(tiny.scores, plain.scores)


@pytest.mark.parametrize("x", [np.zeros(1), np.zeros(3), np.arange(3.0), np.ones(50)])
def test_few_or_equal_states_are_one_state(x):
    found = tt.structure.system_states(between(x))
    assert found.count == 1
    assert (found.labels == 0).all()
    assert found.dwell.tolist() == [len(x)]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tt.structure.system_states(between(np.arange(9.0)), linkage="ward"), UnknownNameError, "average"),
        (lambda: tt.structure.system_states(between(np.arange(9.0)), criterion="x"), UnknownNameError, "dunn"),
        (lambda: tt.structure.system_states(between(np.arange(9.0)), count=0), DataError, "count=0"),
        (lambda: tt.structure.system_states(between(np.arange(9.0)), count=10), DataError, "needs at least 10"),
        (lambda: tt.structure.system_states(between(np.arange(9.0)), most=1), DataError, "most=1"),
        (lambda: tt.structure.system_states(between(np.full(5, np.nan))), DataError, "0 of 5"),
        (
            lambda: tt.structure.system_states(Distances.from_array(np.arange(9.0).reshape(3, 3))),
            DataError,
            "symmetric",
        ),
    ],
)
def test_what_cannot_be_clustered_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_states_draw_themselves():
    found = tt.structure.system_states(between(dwelling(np.random.default_rng(11))))
    ax = found.plot()
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.labels + 1)
    assert ax.get_title().startswith("3 system states")
