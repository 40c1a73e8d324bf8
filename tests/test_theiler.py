"""The Theiler window is optional: None chooses it as `trajtools.lyapunov` does, and the settings say so."""

from __future__ import annotations

import numpy as np
import pytest

import trajtools as tt
from trajtools.neighbors.search import find_nearest


@pytest.fixture(scope="module")
def henon() -> np.ndarray:
    x = np.empty((1100, 2))
    x[0] = 0.1, 0.1
    for t in range(len(x) - 1):
        x[t + 1] = 1 - 1.4 * x[t, 0] ** 2 + x[t, 1], 0.3 * x[t, 0]
    return x[100:]


ESTIMATORS = {
    "rosenstein": lambda x, **options: tt.rosenstein(x, horizon=6, **options),
    "kantz": lambda x, **options: tt.kantz(x, horizon=6, **options),
    "wolf": lambda x, **options: tt.wolf(x, horizon=4, **options),
    "hybrid": lambda x, **options: tt.hybrid(x, horizon=4, **options),
    "lyapunov_spectrum": tt.lyapunov_spectrum,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_without_a_window_one_is_chosen_as_lyapunov_does_and_recorded(name: str, henon: np.ndarray) -> None:
    window = tt.embedding.theiler_window(henon)
    chosen, given = ESTIMATORS[name](henon), ESTIMATORS[name](henon, theiler=window.value)
    assert chosen.settings["theiler"] == window.value
    assert chosen.settings["theiler_why"] == window.reason
    assert "theiler_why" not in given.settings
    values = [result.values if name == "lyapunov_spectrum" else result.log_distance for result in (chosen, given)]
    np.testing.assert_array_equal(*values)


def test_the_window_of_an_exponent_is_that_of_its_method(henon: np.ndarray) -> None:
    whole = tt.lyapunov(henon, null=None)
    assert whole.settings["theiler"] == tt.rosenstein(henon, horizon=6).settings["theiler"]


def test_the_search_chooses_a_window_from_states_and_from_distances() -> None:
    slow = np.stack([np.cos(np.arange(500) / 9), np.sin(np.arange(500) / 11)], axis=1)
    window = tt.embedding.theiler_window(slow).value
    found = find_nearest(slow)
    assert found.theiler == window > 10
    assert found.theiler_why
    assert np.abs(found.index[:, 0] - np.arange(500))[found.index[:, 0] >= 0].min() >= window
    assert find_nearest(tt.pairwise(slow)).theiler > 10
    assert find_nearest(slow * 1e-200).theiler == find_nearest(slow * 1e200).theiler == window
    assert find_nearest(slow @ np.random.default_rng(2).normal(size=(2, 100))).theiler > 10


def test_a_record_too_short_for_a_time_scale_has_a_window_of_one() -> None:
    found = find_nearest([0.0, 5.0, 1.0, 5.5, 0.9])
    assert found.index[:, 0].tolist() == [4, 3, 4, 1, 2]
    assert (found.theiler, "no time scale" in found.theiler_why) == (1, True)
