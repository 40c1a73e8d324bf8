"""Change points are found where they are planted, and nowhere in stationary noise."""

import builtins

import numpy as np
import pytest
from scipy.signal import lfilter

import trajtools as tt
from recorders import Recorder
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, MissingDependencyError, UnknownNameError
from trajtools.structure.change_points import innovations, lag_one, normal_scores

pytest.importorskip("ruptures")


def noise(n, rho, rng, heavy=False):
    shocks = rng.standard_t(2.5, size=n + 300) if heavy else rng.normal(size=n + 300)
    return lfilter([1.0], [1.0, -rho], shocks)[300:]


def paced(rng, paces=((50, 1.0), (40, 3.0), (50, 0.5)), size=8):
    """A walk whose steps change their length."""
    steps = np.concatenate([rng.normal(size=(n, size)) * scale for n, scale in paces])
    return np.cumsum(steps, axis=0)


def test_changes_of_pace_are_found_where_they_are():
    found = tt.structure.change_points(paced(np.random.default_rng(0)))
    assert found.signal == "step_length"
    np.testing.assert_allclose(found.index, [50, 90], atol=2)
    np.testing.assert_array_equal(found.step, found.index)
    assert found.p_value == pytest.approx(1 / 200)
    parts = np.split(found.values, found.index)
    np.testing.assert_allclose(found.segment_mean, [np.nanmean(part) for part in parts])
    assert found.segment_mean[1] > 2 * found.segment_mean[0] > 2 * found.segment_mean[2]


@pytest.mark.parametrize("model", ["mean", "distribution"])
def test_a_change_of_the_mean_is_found_by_both_models(model):
    x = np.random.default_rng(1).normal(size=120)
    x[70:] += 2.5
    np.testing.assert_allclose(tt.structure.change_points(x, model=model).index, [70], atol=2)


def test_a_change_of_the_spread_is_found_by_the_distribution_alone():
    x = np.random.default_rng(2).normal(size=140)
    x[80:] *= 8
    assert not len(tt.structure.change_points(x).index)
    np.testing.assert_allclose(tt.structure.change_points(x, model="distribution").index, [80], atol=4)


@pytest.mark.parametrize("n", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_stationary_noise_has_no_changes(n):
    found = total = 0
    for seed in range(n):
        rng = np.random.default_rng(seed)
        for rho, heavy in ((0.0, False), (0.0, True), (0.7, False), (0.9, True)):
            p = tt.structure.change_points(noise(200, rho, rng, heavy), rng=seed).p_value
            found += p <= 0.01
            total += 1
    # One in a hundred is the level; twice that leaves room for chance and for an estimated correlation.
    assert found <= max(1, 0.02 * total)


def test_the_false_alarm_rate_is_alpha_and_nothing_else():
    # alpha = .5 finds changes in about half of the records of white noise, alpha = .01 in about none of the same ones.
    records = [np.random.default_rng(100 + seed).normal(size=120) for seed in range(30)]
    often = sum(len(tt.structure.change_points(x, alpha=0.5, rng=0).index) > 0 for x in records)
    seldom = sum(len(tt.structure.change_points(x, rng=0).index) > 0 for x in records)
    assert 5 <= often <= 25  # p = 2e-5 on either side at a true rate of one half
    assert seldom <= 2
    with pytest.raises(TypeError, match="level"):
        tt.structure.change_points(records[0], level=0.95)


def test_unit_and_offset_do_not_matter():
    x = noise(140, 0.3, np.random.default_rng(3)) + np.repeat([0, 4], 70)
    plain = tt.structure.change_points(x)
    assert len(plain.index)
    for y in (1e-9 * x, x - 4e5, -x):
        np.testing.assert_array_equal(tt.structure.change_points(y).index, plain.index)


def test_autocorrelation_is_taken_off():
    rng = np.random.default_rng(4)
    for rho in (0.0, 0.5, 0.9):
        x = normal_scores(noise(4000, rho, rng))
        found = lag_one(x)
        assert found == pytest.approx(rho, abs=0.03)
        rest = innovations(x, found)
        assert len(rest) == 3999
        assert abs(np.corrcoef(rest[1:], rest[:-1])[0, 1]) < 0.05
    assert lag_one(np.zeros(9)) == 0.0


def test_normal_scores_keep_the_order_and_tell_ties():
    scores = normal_scores(np.array([3.0, -1e9, 7.0, 3.0, 1e300]))
    assert scores[0] == scores[3]
    assert scores[1] < scores[0] < scores[2] < scores[4]
    assert scores[1] == pytest.approx(-scores[4])


def test_long_signals_are_averaged_and_say_so():
    rng = np.random.default_rng(5)
    x = rng.normal(size=4000) + 2 * (np.arange(4000) >= 2500)
    found = tt.structure.change_points(x)
    assert found.resolution == 10
    assert "averaged over 10 states" in found.warnings[0].text
    np.testing.assert_allclose(found.index, [2500], atol=20)


def test_a_run_tells_what_its_loss_did(tmp_path):
    rng = np.random.default_rng(6)
    states = paced(rng, ((40, 1.0), (40, 4.0)), 5)
    loss = np.repeat([2.0, 0.5], 40) + 0.01 * rng.normal(size=80)
    with Recorder(tmp_path / "run.h5", {"w": states[0]}, every=1, quiet=True) as rec:
        for t, state in enumerate(states):
            rec.record({"w": state}, step=10 * t, loss=loss[t])
    with tt.open(tmp_path / "run.h5") as run:
        found, of_loss = tt.structure.change_points(run), tt.structure.change_points(run, signal="loss")
        given = tt.structure.change_points(run, metrics={"double": 2 * loss})
        with pytest.raises(UnknownNameError, match="loss"):
            tt.structure.change_points(run, signal="no such")
        with pytest.raises(DataError, match="'short'"):
            tt.structure.change_points(run, metrics={"short": loss[:5]})
    assert abs(found.index[0] - 40) <= 2
    assert found.step[0] == 10 * found.index[0]
    np.testing.assert_allclose(found.around["loss"], [[2.0, 0.5]], atol=0.05)
    assert of_loss.index.tolist() == [40]
    assert of_loss.signal == "loss"
    assert list(given.around) == ["double"]


def test_distances_know_the_steps_between_states():
    x = paced(np.random.default_rng(7))
    matrix = np.abs(x[:, None] - x[None]).sum(axis=2)
    matrix[20] = matrix[:, 20] = np.nan
    distances = Distances.from_array(matrix, metric="l1")
    found = tt.structure.change_points(distances)
    np.testing.assert_allclose(found.index, tt.structure.change_points(x).index, atol=2)
    np.testing.assert_allclose(found.values[1:20], np.abs(np.diff(x[:20], axis=0)).sum(axis=1))
    assert np.isnan(found.values[[20, 21]]).all()
    away = tt.structure.change_points(distances, signal="displacement")
    np.testing.assert_array_equal(away.values, matrix[0])
    with pytest.raises(DataError, match="norm"):
        tt.structure.change_points(distances, signal="norm")


def test_broken_states_are_left_out():
    x = paced(np.random.default_rng(8))
    x[20] = np.nan
    found = tt.structure.change_points(x)
    np.testing.assert_allclose(found.index, [50, 90], atol=2)
    assert found.warnings[0].code == "not-finite"


def test_a_given_penalty_is_used_and_not_tested():
    x = noise(200, 0, np.random.default_rng(9))
    many, none = tt.structure.change_points(x, penalty=0.5), tt.structure.change_points(x, penalty=1e6)
    assert len(many.index) > 3 > len(none.index) == 0
    assert np.isnan(many.p_value)
    assert many.null == ""


def test_a_constant_series_has_no_changes():
    found = tt.structure.change_points(np.full(100, 3.0))
    assert not len(found.index)
    assert found.p_value == 1.0
    assert found.warnings[0].code == "constant"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tt.structure.change_points([1.0, 2.0, 3.0]), DataError, "3 finite values"),
        (lambda: tt.structure.change_points(np.ones(50), model="x"), UnknownNameError, "distribution"),
        (lambda: tt.structure.change_points(np.ones((50, 2)), signal="x"), UnknownNameError, "displacement"),
        (lambda: tt.structure.change_points(np.ones(50), alpha=0.001), DataError, "alpha=0.001"),
        (lambda: tt.structure.change_points(np.ones(50), min_size=1), DataError, "min_size=1"),
        (lambda: tt.structure.change_points(np.full((50, 3), np.nan)), DataError, "0 finite values"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_without_ruptures_the_way_out_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("ruptures"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r'pip install "trajtools\[structure\]"'):
        tt.structure.change_points(np.arange(100.0))


def test_changes_draw_themselves():
    found = tt.structure.change_points(paced(np.random.default_rng(10)))
    ax = found.plot()
    dashed = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == found.step.tolist()
