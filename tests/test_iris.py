import numpy as np
import pytest

import trajtools as tt
from recorders import iris
from recorders.iris import SPECIES, accuracy, initial_weights, load, loss_and_gradient, split


def stacked(seeds):
    states = [initial_weights(seed) for seed in seeds]
    return {name: np.stack([state[name] for state in states]) for name in states[0]}


def naive_loss(state, features, labels):
    """The loss of one network, one flower at a time, as the paper writes it."""
    total = 0.0
    for x, label in zip(features.T, labels, strict=True):
        hidden = 1 / (1 + np.exp(-(x @ state["hidden.kernel"] + state["hidden.bias"])))
        out = np.exp(hidden @ state["output.kernel"] + state["output.bias"])
        total -= np.log(out[label] / out.sum())
    return total / len(labels)


def test_the_shipped_flowers_are_those_of_scikit_learn():
    bunch = pytest.importorskip("sklearn.datasets").load_iris()
    features, species = load()
    np.testing.assert_array_equal(features, bunch.data)
    np.testing.assert_array_equal(species, bunch.target)
    assert list(SPECIES) == list(bunch.target_names)


def test_split_is_a_partition_that_depends_on_the_seed_only():
    features, species = load()
    one, again, other = split(3), split(3), split(4)
    assert one.train.shape == (4, 120)
    assert one.test.shape == (4, 30)
    rows = np.concatenate([np.vstack([one.train, one.labels]).T, np.vstack([one.test, one.test_labels]).T])
    whole = np.column_stack([features, species])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], whole[np.lexsort(whole.T)])
    np.testing.assert_array_equal(one.train, again.train)
    assert not np.array_equal(one.train, other.train)


def test_loss_is_the_mean_cross_entropy():
    data, state = split(0), stacked([1, 2])
    loss, _ = loss_and_gradient(state, data.train, data.labels)
    for m in range(2):
        one = {name: values[m] for name, values in state.items()}
        assert loss[m] == pytest.approx(naive_loss(one, data.train, data.labels), rel=1e-13)


def test_gradient_agrees_with_finite_differences():
    data, state = split(0), stacked([5, 6, 7])
    _, gradient = loss_and_gradient(state, data.train, data.labels)
    h = 1e-5
    for name, values in state.items():
        for index in np.ndindex(values.shape[1:]):
            shifted = []
            for sign in (h, -h):
                moved = {key: array.copy() for key, array in state.items()}
                moved[name][(slice(None), *index)] += sign
                shifted.append(loss_and_gradient(moved, data.train, data.labels)[0])
            numeric = (shifted[0] - shifted[1]) / (2 * h)
            # Central differences are off by h^2 f''' / 6 (about 1e-10) and by rounding, 1e-16 / h = 1e-11.
            np.testing.assert_allclose(gradient[name][(slice(None), *index)], numeric, rtol=1e-6, atol=2e-9)


def test_saturated_units_give_no_warning_and_no_nan():
    data, state = split(0), stacked([5])
    state["hidden.kernel"] *= 1e4
    state["output.kernel"] *= 1e4
    loss, gradient = loss_and_gradient(state, data.train, data.labels)
    assert np.isfinite(loss).all()
    assert all(np.isfinite(values).all() for values in gradient.values())


def test_accuracy_counts_the_flowers_that_are_named_right():
    data, state = split(0), stacked([5])
    state["output.kernel"][:] = 0
    state["output.bias"][:] = [0, 1, 0]
    assert accuracy(state, data.test, data.test_labels) == pytest.approx([np.mean(data.test_labels == 1)])


def test_initial_conditions_and_copies_are_drawn_as_in_the_paper():
    state, members = iris.ensemble(inits=40, copies=3, epsilon=1e-3, seed=1)
    assert len(members) == 160
    reference = np.array([m.reference for m in members])
    assert set(reference[::4]) == {-1}
    assert all(members[i].reference == i - i % 4 for i in range(160) if i % 4)
    kernels = state["hidden.kernel"]
    assert abs(kernels[::4].std() - 1) < 0.1  # N(0, 1), 1600 draws: s.d. of the s.d. 0.018
    assert not state["hidden.bias"].any()
    moved = kernels[1::4] - kernels[::4]
    assert 0 < np.abs(moved).max() <= 1e-3
    assert abs(moved.std() - 1e-3 / 3**0.5) < 1e-4
    assert len({m.seed for m in members}) == 80


def test_copies_do_not_follow_the_initial_weights():
    # Weights and perturbations come from streams of their own: were they the same, the two would be correlated.
    state, _ = iris.ensemble(inits=200, copies=1, epsilon=0.5, seed=0)
    kernels = state["hidden.kernel"].reshape(400, -1)
    start, moved = kernels[::2].ravel(), (kernels[1::2] - kernels[::2]).ravel()
    assert abs(np.corrcoef(start, moved)[0, 1]) < 0.05  # 8000 pairs: s.d. 0.011


def test_equal_members_stay_equal_wherever_they_stand():
    state, members = iris.ensemble(inits=7, copies=4, epsilon=0.0, seed=0)
    for _ in iris.steps_of(state, split(0), 5.0, 40):
        pass
    for i, member in enumerate(members):
        if member.reference >= 0:
            for values in state.values():
                np.testing.assert_array_equal(values[i], values[member.reference])


def test_training_lowers_the_loss():
    state, _ = iris.ensemble(inits=4, copies=0, epsilon=0.0, seed=0)
    losses = np.array([loss.copy() for loss, _ in iris.steps_of(state, split(0), 0.1, 300)])
    assert losses.shape == (301, 4)
    assert (losses[-1] < 0.6 * losses[0]).all()


@pytest.mark.recorders
def test_recorded_runs_hold_what_was_trained(tmp_path):
    folder = tmp_path / "iris"
    arguments = ["--rates", "0.01,1", "--inits", "3", "--copies", "2", "--steps", "30", "--seed", "7", "--quiet"]
    assert iris.main([str(folder), *arguments]) == 0
    state, members = iris.ensemble(inits=3, copies=2, epsilon=1e-8, seed=7)
    first = {name: values.copy() for name, values in state.items()}
    expected = [(loss.copy(), right.copy()) for loss, right in iris.steps_of(state, split(7), 1.0, 30)]
    runs = tt.open_runs(folder)
    assert list(runs) == [run.name for run in runs.values()] == ["eta=0.01", "eta=1"]
    with runs["eta=1"] as run:
        assert (run.n_states, run.n_members, run.n_parameters) == (31, 9, 83)
        assert run.status == "complete"
        assert run.hparams["learning_rate"] == 1.0
        assert [m.reference for m in run.members] == [m.reference for m in members]
        np.testing.assert_array_equal(run.step, np.arange(31))
        np.testing.assert_array_equal(run.metrics["loss"], [loss for loss, _ in expected])
        np.testing.assert_array_equal(run.metrics["accuracy"], [right for _, right in expected])
        for row, wanted in ((0, first), (30, state)):
            for p in run.parameters:
                stored = run.states[row : row + 1][0][:, p.offset : p.offset + p.size]
                np.testing.assert_array_equal(stored, wanted[p.name].reshape(9, -1))
        # The initial states do not depend on the learning rate.
        np.testing.assert_array_equal(run.states[0:1], runs["eta=0.01"].states[0:1])


@pytest.mark.recorders
def test_a_copy_that_was_not_moved_stays_at_distance_zero(tmp_path):
    with tt.open(iris.record(tmp_path, 5.0, inits=4, copies=3, steps=60, epsilon=0.0)) as run:
        states = run.states[:]
        reference = [m.reference if m.reference >= 0 else i for i, m in enumerate(run.members)]
        np.testing.assert_array_equal(states, states[:, reference])
        assert np.abs(states[1:] - states[:-1]).max() > 0


@pytest.mark.recorders
def test_a_recorded_file_is_not_overwritten(tmp_path, capsys):
    path = tmp_path / "eta=1.h5"
    path.write_bytes(b"something dear")
    for place in (tmp_path, path):
        assert iris.main([str(place), "--rates", "1", "--inits", "1", "--steps", "1"]) == 1
        assert "Error:" in capsys.readouterr().err
        assert path.read_bytes() == b"something dear"


@pytest.mark.parametrize("wrong", [["--inits", "0"], ["--rates", "fast"], ["--seed", "-1"], ["--rates", "nan"]])
def test_wrong_options_are_usage_errors(tmp_path, wrong, capsys):
    with pytest.raises(SystemExit) as left:
        iris.main([str(tmp_path), *wrong])
    assert left.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_seeds_of_different_purposes_never_meet():
    purposes = (iris.SPLIT, iris.WEIGHTS, iris.COPIES)
    seeds = {iris.derived_seed(s, p, i) for s in range(3) for p in purposes for i in range(50)}
    assert len(seeds) == 450
    assert all(0 <= seed < 2**63 for seed in seeds)


def published(tmp_path, inits, rate=1.0):
    path = iris.record(tmp_path, rate, inits=inits, copies=5, steps=200, epsilon=1e-8, seed=0)
    assert path == tmp_path / f"{iris.run_name(rate)}.h5"
    with tt.open(path) as run:
        growth = tt.twins(run)
    return growth, growth.fit(procedure="danovski2024")


@pytest.mark.recorders
def test_distances_start_where_the_perturbation_puts_them(tmp_path):
    growth, _ = published(tmp_path, 20)
    # The mean of |Uniform(-eps, eps)| is eps / 2, over 70 weights: 3.5e-7; 100 copies, s.d. of the mean 2.4e-9.
    assert growth.distances[:, 0].mean() == pytest.approx(3.5e-7, abs=1e-8)


@pytest.mark.recorders
def test_published_exponent_comes_out_with_the_published_procedure(tmp_path):
    _, exponent = published(tmp_path, 75)
    # Published: 0.285 with a standard deviation of 0.10 over the kept, 90 % kept; standard errors here 0.012 and 0.035.
    assert exponent.value == pytest.approx(0.285, abs=0.05)
    assert exponent.settings["sd"] == pytest.approx(0.10, abs=0.04)
    assert 0.76 <= exponent.n_used / exponent.n_total <= 1


@pytest.mark.slow
@pytest.mark.recorders
def test_published_exponent_comes_out_within_its_error_at_full_size(tmp_path):
    growth, exponent = published(tmp_path, 300)
    assert 0.26 <= exponent.value <= 0.31
    assert 0.09 <= exponent.settings["sd"] <= 0.11
    assert 0.84 <= exponent.n_used / exponent.n_total <= 0.95
    ours = growth.fit()
    assert (ours.growth, ours.verdict) == ("exponential", "sensitive")
    assert 0 < ours.interval[0] < ours.interval[1] < exponent.value


@pytest.mark.recorders
def test_a_low_learning_rate_is_not_chaotic(tmp_path):
    growth, exponent = published(tmp_path, 20, rate=0.01)
    assert exponent.n_used == 0
    assert growth.fit().verdict == "regular"
