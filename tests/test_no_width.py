"""An interval of no width is never printed: units that do not scatter are no sample, and digits tell its ends apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from command_line import call, write

import trajtools as tt
from trajtools.plots._axes import ends
from trajtools.wording import bounds

T = np.arange(120.0)


def quadratic(rate, inits, copies=2, length=120):
    """Twins under gradient descent in a quadratic basin whose largest curvature is 1: exact exponentials."""
    rng, curvature, out = np.random.default_rng(0), np.array([1.0, 0.7, 0.2]), []
    factor = (1 - rate * curvature) ** np.arange(length)[:, None]
    for _ in range(inits):
        start = rng.standard_normal(3)
        out.append((start * factor, [(start + 1e-7 * rng.standard_normal(3)) * factor for _ in range(copies)]))
    return out


@pytest.mark.parametrize("inits", [1, 3, 8])
@pytest.mark.parametrize("rate", [0.3, 2.2, 2.6])
def test_exact_exponentials(inits, rate):
    found = tt.twins(quadratic(rate, inits)).fit()
    low, high = found.interval
    assert np.isnan(low) or high - low > 1e-9 * abs(found.value)
    if found.settings["resampled"] == "blocks of time" and np.isfinite(low):
        assert high - low > 2e-3 * abs(found.value)
    codes = [reason.code for reason in found.warnings]
    assert ("interval-unknown" in codes) == bool(np.isnan(low))
    assert found.verdict in ("diverging", "regular")


def test_the_verdict_is_that_of_the_test_and_not_of_the_interval():
    pairs = [(x * T, [x * T + 1e-6 * 0.8**T]) for x in range(1, 7)]
    found = tt.twins(pairs, window=(0, 40)).fit()
    assert found.growth == "contracting"
    assert found.verdict == "regular"


def test_equal_initial_conditions_have_no_interval():
    pairs = [(np.zeros(120), [1e-6 * 1.1**T]) for _ in range(6)]
    found = tt.twins(pairs).fit()
    assert np.isnan(found.interval).all()
    (why,) = [reason for reason in found.warnings if reason.code == "interval-unknown"]
    assert why.numbers["units"] == 6
    assert "unknown" in found._head()


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.5, 0.75, "[0.500, 0.750]"),
        (0.58269711, 0.58270112, "[0.582697, 0.582701]"),
        (1.0, 1.0, "unknown"),
        (np.nan, 1.0, "unknown"),
        (-np.inf, 1.0, "unknown"),
        (1.0, np.nextafter(1.0, 2.0), "[1, 1.0000000000000002]"),
    ],
)
def test_the_ends_of_an_interval_are_told_apart(low, high, text):
    assert ends(low, high) == text
    inside = re.findall(r"[-+.\de]+", bounds((low, high)))
    assert len(inside) == len(set(inside))
    assert (bounds((low, high)) == "unknown") == (text == "unknown")


@pytest.mark.parametrize("command", ["lyapunov", "stability"])
def test_the_commands_print_none_of_no_width(tmp_path, command):
    (reference, copies), *_ = quadratic(2.6, 1)
    path = write(tmp_path / "run.h5", np.stack([reference, *copies], axis=1))
    said = call(command, path).stdout
    for low, high in re.findall(r"\[([-+.\de]+), ([-+.\de]+)\]", said):
        assert low != high


def test_an_exponent_without_interval_still_votes_on_the_onset():
    from trajtools.sweeps.onset import curve_of
    from trajtools.sweeps.sweep import SweepPoint

    found = tt.twins([(np.zeros(120), [1e-6 * 1.1**T]) for _ in range(6)]).fit()
    assert found.verdict == "sensitive"
    assert np.isnan(found.interval).all()
    nothing = np.empty(0)
    point = SweepPoint(0.3, np.nan, "", "run", False, found, np.empty((0, 0)), nothing, nothing, np.nan, 120)
    curve = curve_of([point])
    assert np.isfinite(curve.error).all()
    assert curve.left_out == ()
