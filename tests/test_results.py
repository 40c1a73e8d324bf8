import json
from dataclasses import fields

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from planted import logistic_growth

from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.results import to_plain
from trajtools.statistics import Fit, average_curves, mean_curve


@pytest.fixture(scope="module")
def growth():
    return logistic_growth(0, inits=6)


def strict(document):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(document, parse_constant=refuse)


def test_results_are_json_without_loss(growth):
    back = strict(growth.to_json())
    assert_array_equal(np.array(back["distances"], dtype=float), growth.distances)
    assert set(back) == {field.name for field in fields(Divergence)}
    exponent = growth.fit()
    back = strict(exponent.to_json())
    assert back["value"] == exponent.value
    assert set(back) == {field.name for field in fields(Exponent)} - {"curve"}


def test_what_json_does_not_know_is_null():
    plain = to_plain({"a": np.array([1.0, np.nan]), "b": float("inf"), "c": (np.int64(3), None, True), "d": np.float32})
    assert plain["a"] == [1.0, None]
    assert plain["b"] is None
    assert plain["c"] == [3, None, True]
    assert isinstance(plain["d"], str)
    assert strict(Fit(1.0, 2.0, float("nan"), 0, 2, 1.0).to_json())["stderr"] is None


def test_results_cannot_be_changed(growth):
    with pytest.raises(AttributeError):
        growth.metric = "l2"


def test_an_unknown_verdict_is_refused(growth):
    from dataclasses import replace

    with pytest.raises(ValueError, match="chaotic, transient, sensitive, regular, diverging, inconclusive"):
        replace(growth.fit(), verdict="maybe")


@pytest.mark.parametrize("average", ["mean-log", "log-mean", "rms"])
def test_averages_are_those_of_the_definition(average):
    rng = np.random.default_rng(1)
    distances = rng.uniform(0.1, 1, (6, 5))
    group, start = np.array([0, 1, 0, 1, 0, 2]), np.zeros(6, dtype=np.int64)
    curves, labels, _ = average_curves(distances, group, start, average)
    mean = mean_curve(curves, labels)
    expected = np.mean([naive.averaged(distances[group == g], average) for g in range(3)], axis=0)
    assert_allclose(mean, expected, rtol=1e-12)


def test_a_mean_of_copies_ends_with_the_first_of_them():
    distances = np.array([[1.0, 2, 3], [1.0, np.nan, np.nan], [2.0, 0, 4]])
    same = np.zeros(3, dtype=np.int64)
    curves, _, _ = average_curves(distances[:2], same[:2], same[:2], "log-mean")
    assert_array_equal(np.isnan(curves[0]), [False, True, True])
    curves, _, _ = average_curves(distances[[0, 2]], same[:2], same[:2], "rms")
    assert_array_equal(np.isnan(curves[0]), [False, True, False])


def test_tiny_distances_survive_the_root_mean_square():
    curves, _, _ = average_curves(np.full((2, 1), 1e-200), *np.zeros((2, 2), dtype=np.int64), "rms")
    assert_allclose(curves[0, 0], np.log(1e-200), rtol=1e-12)


def test_mean_curve_counts_initial_conditions_and_not_twins():
    curves = np.array([[0.0], [0.0], [0.0], [4.0]])
    assert_allclose(mean_curve(curves, np.array([0, 0, 0, 1])), [2.0])


def test_plots_take_results(growth):
    assert growth.plot().get_yscale() == "log"
    assert growth.fit().plot().get_yscale() == "log"


def test_importing_results_and_fitting_loads_no_numba_and_no_scipy():
    import subprocess
    import sys

    code = (
        "import sys, trajtools.results, trajtools.statistics, trajtools.exponents.divergence;"
        "print([m for m in ('numba', 'scipy', 'networkx', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_printed_divergence_is_a_few_lines(growth):
    text = repr(growth)
    assert len(text.splitlines()) <= 6 + 2 * len(growth.warnings)
    assert text.startswith("Divergence: 18 curves from 6 initial conditions (twins, l1), over 60 steps;")
    assert f"distances {growth.distances.shape}" in text


def test_a_printed_exponent_says_number_interval_verdict_and_reasons():
    exponent = Exponent(
        value=0.12345678,
        interval=(0.1, float("nan")),
        level=0.95,
        p_value=float("nan"),
        null="",
        n_used=1,
        n_total=1,
        verdict="inconclusive",
        reasons=(Reason.of("too-few-steps", "{steps} steps are too few", steps=np.int64(3)),),
        window=(0.0, 1.0),
        window_values=np.empty(0),
        values=np.empty(0),
        intercept=0.0,
        method="twins",
        unit="1/step",
    )
    assert str(exponent).splitlines() == [
        "Exponent: 0.1235 1/step, 95% interval unknown: inconclusive",
        "  The data do not decide; the reasons say what is missing.",
        "arrays: window_values (0,), values (0,)",
        "- 3 steps are too few",
    ]
