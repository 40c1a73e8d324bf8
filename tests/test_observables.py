"""Scalar observables: the published definitions, read once, and what nolds adds."""

import builtins
from importlib import import_module

import numpy as np
import pytest

import trajtools as tt
from recorders import Recorder
from trajtools.errors import DataError, MissingDependencyError, UnknownNameError

observables = import_module("trajtools.structure.observables")


def states(rng, steps=40, size=6):
    return 2.0 + np.cumsum(rng.normal(size=(steps, size)), axis=0)


def test_lengths_are_those_of_the_definitions():
    x = states(np.random.default_rng(0))
    found = tt.structure.observables(x)
    steps = np.abs(np.diff(x, axis=0)).sum(axis=1)
    np.testing.assert_allclose(found.norm, np.abs(x).sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(found.step_length[1:], steps, rtol=1e-13)
    np.testing.assert_allclose(found.path_length, np.concatenate([[0], np.cumsum(steps)]), rtol=1e-13)
    away = np.abs(x - x[0]).sum(axis=1)
    np.testing.assert_allclose(found.displacement, away, rtol=1e-13)
    np.testing.assert_allclose(found.relative_displacement, away / np.abs(x[0]).sum(), rtol=1e-13)
    assert np.isnan(found.step_length[0])
    assert (found.layers, found.n_excluded, found.warnings) == (("all",), 0, ())


def test_another_metric_measures_otherwise():
    x = states(np.random.default_rng(1))
    found = tt.structure.observables(x, metric="l2")
    np.testing.assert_allclose(found.step_length[1:], np.linalg.norm(np.diff(x, axis=0), axis=1), rtol=1e-13)
    assert found.metric == "l2"


def test_a_path_is_at_least_as_long_as_the_way():
    found = tt.structure.observables(states(np.random.default_rng(2)))
    assert (found.path_length >= found.displacement * (1 - 1e-12)).all()


def test_layers_of_a_run_have_their_own_weights(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    weights, biases = rng.normal(size=(9, 4, 3)).astype("f4"), rng.normal(size=(9, 4)).astype("f4")
    with Recorder(tmp_path / "a.h5", {"w": weights[0], "b": biases[0]}, quiet=True) as rec:
        for t in range(9):
            rec.record({"w": weights[t], "b": biases[t]}, step=3 * t)
    monkeypatch.setattr(observables, "_BLOCK_BYTES", 8 * 16 * 2)  # two states at a time
    with tt.open(tmp_path / "a.h5") as run:
        found = tt.structure.observables(run.trajectory())
    assert found.layers == ("w", "b")
    np.testing.assert_array_equal(found.step, 3 * np.arange(9))
    np.testing.assert_allclose(found.layer_mean[:, 0], weights.mean(axis=(1, 2), dtype="f8"), rtol=1e-6)
    np.testing.assert_allclose(found.layer_sd[:, 1], biases.std(axis=1, dtype="f8"), rtol=1e-6)
    flat = np.concatenate([weights.reshape(9, -1), biases], axis=1).astype("f8")
    np.testing.assert_allclose(found.step_length[1:], np.abs(np.diff(flat, axis=0)).sum(axis=1), rtol=1e-6)


def test_small_steps_far_from_zero_keep_their_digits():
    steps = np.random.default_rng(4).integers(1, 9, size=30) * 2.0**-40
    found = tt.structure.observables(1 + np.cumsum(steps))
    np.testing.assert_array_equal(found.step_length[1:], steps[1:])


def test_broken_states_cut_the_path_and_are_counted():
    x = states(np.random.default_rng(5))
    x[[0, 7], 2] = np.nan, np.inf
    found = tt.structure.observables(x)
    assert found.n_excluded == 2
    for values in (found.norm, found.displacement, found.path_length, found.layer_mean[:, 0]):
        assert np.flatnonzero(np.isnan(values)).tolist() == [0, 7]
    assert np.flatnonzero(np.isnan(found.step_length)).tolist() == [0, 1, 7, 8]
    assert found.displacement[1] == 0  # the first finite state is the start
    assert found.path_length[-1] == pytest.approx(np.nansum(found.step_length))
    assert found.warnings[0].code == "not-finite"


def test_measures_of_noise_are_those_of_noise():
    pytest.importorskip("nolds", reason="does not import on Python 3.11", exc_type=ImportError)
    x = np.random.default_rng(6).normal(size=1500)
    found = tt.structure.observables(x, measures=("dfa", "hurst", "sample-entropy"), series=("value",)).measures[
        "value"
    ]
    assert found["dfa"] == pytest.approx(0.5, abs=0.1)
    assert found["hurst"] == pytest.approx(0.5, abs=0.1)
    # -ln of the probability that two normal numbers are within 0.2 standard deviations of each other.
    assert found["sample-entropy"] == pytest.approx(2.18, abs=0.15)
    again = tt.structure.observables(x, measures=("dfa", "hurst"), series=("value",)).measures["value"]
    assert (again["dfa"], again["hurst"]) == (found["dfa"], found["hurst"])
    walked = tt.structure.observables(np.cumsum(x), measures=("dfa",), series=("value", "step_length")).measures
    assert walked["value"]["dfa"] == pytest.approx(1.5, abs=0.1)
    assert list(walked) == ["value", "step_length"]


def test_measures_that_cannot_be_had_are_missing_and_said_so():
    constant = tt.structure.observables(np.ones((60, 2)), measures=("dfa",))
    assert np.isnan(constant.measures["step_length"]["dfa"])
    assert constant.warnings[0].code == "constant"
    short = tt.structure.observables(1 + np.arange(9.0), measures=("hurst",), series=("value",))
    assert np.isnan(short.measures["value"]["hurst"])
    assert "needs 50" in short.warnings[0].text


def test_without_nolds_the_way_out_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "nolds":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    x = np.random.default_rng(7).normal(size=100)
    assert tt.structure.observables(x).measures == {}
    with pytest.raises(MissingDependencyError, match=r"nolds==0\.6\.2"):
        tt.structure.observables(x, measures=("dfa",), series=("value",))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tt.structure.observables(np.empty((0, 3))), DataError, "no state"),
        (lambda: tt.structure.observables(np.full((4, 2), np.nan)), DataError, "none of 4"),
        (lambda: tt.structure.observables(np.ones((4, 2)), measures=("x",)), UnknownNameError, "dfa"),
        (lambda: tt.structure.observables(np.ones((4, 2)), measures="dfa"), DataError, "sequence of names"),
        (lambda: tt.structure.observables(np.ones((4, 2)), measures=("dfa",), series=("x",)), UnknownNameError, "norm"),
        (
            lambda: tt.structure.observables(np.ones((4, 2)), measures=("dfa",), series=("value",)),
            DataError,
            "several weights",
        ),
        (lambda: tt.structure.observables(np.ones((4, 2)), metric="x"), UnknownNameError, "l1"),
    ],
)
def test_what_cannot_be_observed_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_start_at_zero_has_no_relative_displacement():
    found = tt.structure.observables(np.arange(3.0))
    assert not np.isfinite(found.relative_displacement).any()
    assert found.warnings[0].code == "zero-start"


def test_observables_draw_themselves():
    found = tt.structure.observables(states(np.random.default_rng(8)))
    assert [line.get_label() for line in found.plot().lines] == ["norm", "displacement", "step length"]
