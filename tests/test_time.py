"""One exponent in several units: per step, per epoch, per unit of integrated learning rate."""

from dataclasses import replace

import numpy as np
import pytest
from made_divergences import divergence, exponent
from numpy.testing import assert_allclose
from planted import from_distances, logistic

import trajtools as tt
from recorders import Recorder
from trajtools.errors import DataError, UnknownNameError
from trajtools.wiring import Member

RATE = 0.3


def growing(steps=60, inits=6, rate=RATE):
    """Twins that part by `rate` e-folds per step, each initial condition a little faster than the one before."""
    own = rate * (1 + 0.01 * (np.arange(inits) - (inits - 1) / 2))
    return from_distances(1e-12 * np.exp(own[:, None] * np.arange(steps)))


def trained(path, rates, *, hparams=None, metrics=None, rate=RATE, inits=6, every=1):
    """Record twins parting by `rate` e-folds per step, with a learning rate at every state."""
    rates = np.asarray(rates, dtype=np.float64)
    own = rate * (1 + 0.01 * (np.arange(inits) - (inits - 1) / 2))
    members = []
    for i in range(inits):
        members += [Member(f"m{i}", reference=-1), Member(f"t{i}", reference=2 * i, epsilon=1e-12)]

    def state(step):
        weights = np.zeros((2 * inits, 2))
        weights[:, 0] = np.repeat(np.arange(1, inits + 1), 2)
        weights[1::2, 1] = 1e-12 * np.exp(own * step)
        return {"layer.kernel": weights}

    with Recorder(path, state(0), members=members, hparams=hparams or {}, quiet=True) as recorder:
        for row, step in enumerate(range(0, len(rates) * every, every)):
            more = {name: values[row] for name, values in (metrics or {}).items()}
            recorder.record(state(step), step=step, learning_rate=rates[row], **more)
    return path


def test_an_epoch_of_50_steps_holds_50_times_the_growth_of_a_step():
    found = growing().fit()
    per_epoch = found.per("epoch", steps_per_epoch=50)
    assert found.value == pytest.approx(RATE, rel=1e-3)
    assert_allclose(per_epoch.value, 50 * found.value)
    assert_allclose(per_epoch.interval, 50 * np.array(found.interval))
    assert_allclose(per_epoch.values, 50 * found.values)
    assert_allclose(per_epoch.window_values, 50 * found.window_values)
    assert per_epoch.unit == "1/epoch"
    assert per_epoch.verdict == found.verdict
    assert per_epoch.settings["conversion"]["steps_per_epoch"] == 50
    assert "an epoch is 50 steps (given)" in per_epoch.reasons[-1].text


def test_units_lead_back_to_each_other():
    found = growing().fit()
    there = found.per("epoch", steps_per_epoch=7).per("learning-rate", learning_rate=0.1)
    assert_allclose(there.value, found.value / 0.1)
    back = there.per("step")
    assert_allclose(back.value, found.value, rtol=1e-15)
    assert back.unit == found.unit == "1/step"
    assert back.reasons == found.reasons
    assert there.reasons[:-1] == found.reasons


def test_the_line_in_a_figure_stays_where_it_was():
    found = growing().fit()
    converted = found.per("epoch", steps_per_epoch=50)
    assert converted.unit_factor == 50
    for one, other in zip(found.fitted_line(), converted.fitted_line(), strict=True):
        assert_allclose(one, other, rtol=1e-12)


def test_a_step_is_one_over_dt_of_the_callers_time():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.9, (4, 1))
    pairs = []
    for start in x:
        orbits = [start, start + 1e-10]
        states = [orbits]
        for _ in range(40):
            states.append([logistic(s) for s in states[-1]])
        states = np.array(states)
        pairs.append((states[:, 0], [states[:, 1]]))
    per_step, per_time = tt.twins(pairs).fit(), tt.twins(pairs, dt=0.25).fit()
    assert per_time.unit == "1/time"
    assert_allclose(per_time.value, 4 * per_step.value)
    assert_allclose(per_time.per("step").value, per_step.value)
    assert_allclose(per_time.per("epoch", steps_per_epoch=10).value, 10 * per_step.value)


def test_a_gradient_flow_has_one_exponent_per_integrated_learning_rate():
    # Gradient descent on -x^2 / 2: x grows by 1 + eta a step, by e per unit of integrated rate as eta goes to 0.
    found = []
    for eta in (1e-3, 2e-3):
        own = np.log1p(eta) * np.arange(int(20 / eta))
        curves = from_distances(1e-12 * np.exp(own)[None, :].repeat(4, axis=0) * np.arange(1, 5)[:, None])
        found.append(curves.fit().per("learning-rate", learning_rate=eta))
    assert_allclose([one.value for one in found], [1, 1], rtol=2e-3)
    assert found[0].unit == "1/integrated learning rate"


def test_a_schedule_is_integrated_over_the_fitted_steps_alone(tmp_path):
    rates = np.where(np.arange(80) < 10, 5.0, 0.1 + 0.01 * np.arange(80))
    with tt.open(trained(tmp_path / "a.h5", rates)) as run:
        exponent = tt.twins(run).fit(region=(20, 60))
        found = exponent.per("learning-rate", run=run)
        whole = exponent.per("learning-rate", learning_rate=rates)
    expected = exponent.value * 40 / rates[20:60].sum()
    assert_allclose(found.value, expected, rtol=1e-12)
    assert_allclose(whole.value, expected, rtol=1e-12)
    assert found.settings["conversion"]["over_steps"] == (20, 60)
    assert "metric learning_rate of run 'a'" in found.reasons[-1].text


def test_twins_planted_late_are_integrated_up_to_the_end_of_their_record():
    growth = growing()
    distances = growth.distances.copy()
    distances[3:, 20:] = np.nan
    growth = replace(growth, distances=distances, start=np.repeat([0, 40], 3))
    rates = np.linspace(0.1, 0.2, 60)
    found = growth.fit(region=(10, 50)).per("learning-rate", learning_rate=rates)
    high = round(growth.fit(region=(10, 50)).window[1])
    conversion = found.settings["conversion"]
    assert conversion["over_steps"] == (10, 59)
    assert_allclose(conversion["learning_rates"], [rates[10:high].mean(), rates[50:59].mean()])


def test_rates_between_recorded_states_are_interpolated(tmp_path):
    rates = 0.1 + 0.01 * np.arange(40)
    with tt.open(trained(tmp_path / "a.h5", rates, every=5, rate=0.05)) as run:
        exponent = tt.twins(run).fit(region=(50, 150))
        found = exponent.per("learning-rate", run=run)
    every = np.interp(np.arange(50, 150), 5 * np.arange(40), rates)
    assert_allclose(found.value, exponent.value * 100 / every.sum(), rtol=1e-12)


def test_a_last_rate_that_is_missing_is_not_needed(tmp_path):
    rates = np.full(60, 0.5)
    rates[-1] = np.nan  # no update follows the last state
    with tt.open(trained(tmp_path / "a.h5", rates)) as run:
        exponent = tt.twins(run).fit(region=(10, 59))
        assert_allclose(exponent.per("learning-rate", run=run).value, exponent.value / 0.5)


def test_the_run_says_what_an_epoch_is(tmp_path):
    counter = np.arange(60) // 12
    cases = (
        ({"steps_per_epoch": 12}, None, "hyper-parameter steps_per_epoch"),
        ({}, {"epoch": counter.astype(float)}, "metric epoch"),
        ({}, {"epoch": np.arange(60) / 12}, "metric epoch"),
    )
    for number, (hparams, metrics, source) in enumerate(cases):
        path = trained(tmp_path / f"{number}.h5", np.full(60, 0.1), hparams=hparams, metrics=metrics)
        with tt.open(path) as run:
            exponent = tt.twins(run).fit()
            found = exponent.per("epoch", run=run)
        assert_allclose(found.value, 12 * exponent.value, rtol=1e-12)
        assert source in found.settings["conversion"]["source"]


def test_a_run_that_does_not_know_is_refused_with_the_way_out(tmp_path):
    with tt.open(trained(tmp_path / "a.h5", np.full(60, np.nan))) as run:
        found = tt.twins(run).fit()
        with pytest.raises(DataError, match=r"records no learning rate.*give learning_rate="):
            found.per("learning-rate", run=run)
        with pytest.raises(DataError, match="give steps_per_epoch="):
            found.per("epoch", run=run)
    with pytest.raises(DataError, match="give steps_per_epoch="):
        found.per("epoch")
    with pytest.raises(DataError, match="the learning rate is unknown"):
        found.per("learning-rate")
    with pytest.raises(UnknownNameError, match="step, epoch, learning-rate"):
        found.per("second")
    with pytest.raises(DataError, match="positive number"):
        found.per("epoch", steps_per_epoch=0)
    with pytest.raises(DataError, match="known from step 0 to 4"):
        found.per("learning-rate", learning_rate=np.full(5, 0.1))
    with pytest.raises(DataError, match="its integral is zero"):
        found.per("learning-rate", learning_rate=np.zeros(80))


def test_groups_with_different_rates_are_refused(tmp_path):
    more = {"learning_rate_1": np.full(60, 0.2)}
    with tt.open(trained(tmp_path / "a.h5", np.full(60, 0.1), metrics=more)) as run:
        found = tt.twins(run).fit()
        with pytest.raises(DataError, match="several learning rates"):
            found.per("learning-rate", run=run)
        assert_allclose(found.per("learning-rate", run=run, learning_rate=0.1).value, 10 * found.value)


def test_a_constant_among_the_hyper_parameters_is_enough(tmp_path):
    path = trained(tmp_path / "a.h5", np.full(60, np.nan), hparams={"lr": 0.25})
    with tt.open(path) as run:
        found = tt.twins(run).fit()
        converted = found.per("learning-rate", run=run)
    assert_allclose(converted.value, 4 * found.value)
    assert "hyper-parameter lr of run 'a', assumed constant" in converted.reasons[-1].text


def test_starts_under_different_rates_are_warned_about():
    curves = 1e-12 * np.exp(RATE * np.arange(40))[None, :].repeat(3, axis=0) * np.array([[1.0], [1.1], [1.2]])
    found = from_distances(curves, start=[0, 100, 200]).fit()
    rates = np.repeat([0.1, 0.2, 0.4], 100)
    converted = found.per("learning-rate", learning_rate=rates)
    assert_allclose(converted.settings["conversion"]["learning_rates"], [0.1, 0.2, 0.4])
    assert_allclose(converted.value, found.value / np.mean([0.1, 0.2, 0.4]))
    assert converted.warnings[-1].code == "learning-rates-differ"


def test_neighbours_of_a_trajectory_know_their_steps_and_those_of_an_array_do_not():
    rng = np.random.default_rng(3)
    x = tt.systems.henon().trajectory(1500, rng=rng)
    array = tt.rosenstein(x, theiler=5, horizon=12).fit()
    path = tt.Trajectory.from_array(x, step=np.arange(1500) * 10)
    stepped = tt.rosenstein(path, theiler=5, horizon=12).fit()
    assert array.unit == "1/sample"
    assert tt.lyapunov(x, window=(0, 400)).unit == "1/sample"
    assert_allclose(stepped.value, array.value / 10)
    with pytest.raises(DataError, match="steps_per_sample="):
        array.per("step")
    assert_allclose(array.per("step", steps_per_sample=10).value, stepped.per("step").value)
    assert_allclose(stepped.per("epoch", steps_per_epoch=100).value, 10 * array.value)
    rates = np.linspace(1, 2, 15000)
    found = stepped.per("learning-rate", learning_rate=rates)
    low, high = found.settings["conversion"]["over_steps"]
    assert low == 0
    assert 14000 < high < 15000
    assert_allclose(found.value, stepped.value / rates[low:high].mean(), rtol=1e-9)
    assert tt.rosenstein(x, theiler=5, horizon=12, dt=0.5).fit().unit == "1/time"


def test_an_exponent_in_one_call_knows_the_steps_of_its_trajectory():
    x = tt.systems.henon().trajectory(1200, rng=np.random.default_rng(3))
    path = tt.Trajectory.from_array(x, step=100 + np.arange(1200) * 10)
    for method in ("rosenstein", "wolf"):
        found = tt.lyapunov(path, method=method, null=None)
        assert_allclose(found.per("step").value, found.value)
        assert_allclose(found.per("epoch", steps_per_epoch=100).value, 100 * found.value)
        low, high = found.settings["span"]
        assert 100 <= low < 400
        assert 11000 < high <= 12100
        timed = tt.lyapunov(path, method=method, null=None, dt=0.5)
        assert timed.unit == "1/time"
        assert_allclose(timed.per("step").value, found.value)
    rates = np.linspace(1, 2, 13000)
    assert_allclose(found.per("learning-rate", learning_rate=rates).value * 1.5, found.value, rtol=0.05)


def test_what_was_not_found_is_unknown_in_every_unit():
    nothing = tt.lyapunov(np.ones(100))
    assert np.isnan(nothing.per("epoch", steps_per_epoch=3).value)
    assert nothing.per("epoch", steps_per_epoch=3).unit == "1/epoch"


def test_an_exponent_without_its_curve_is_refused():
    alone = exponent(divergence())
    object.__setattr__(alone, "curve", None)
    with pytest.raises(DataError, match="has no curve"):
        alone.per("step")
