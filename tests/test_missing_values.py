"""Series and states with missing values: how many, what was done, and which embedding was chosen."""

from __future__ import annotations

import numpy as np
import pytest

import trajtools as tt
from trajtools.reasons import codes


def with_gaps(x, share, seed=0):
    out = np.array(x, dtype=np.float64)
    out[np.random.default_rng(seed).random(len(out)) < share] = np.nan
    return out


def henon(length, columns):
    return tt.systems.henon().trajectory(length, rng=np.random.default_rng(1), transient=100)[:, :columns].squeeze()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("columns", [1, 2])
def test_missing_values_are_counted_and_named(share, columns):
    x = with_gaps(henon(1200, columns), share)
    rows = np.isnan(x.reshape(1200, -1)).any(axis=1)
    found = tt.lyapunov(x)
    (first,) = [one for one in found.warnings if one.code == "not-finite"]
    rest = [one for one in found.warnings if one.code == "spoiled-vectors"]
    assert first.numbers["excluded"] == rows.sum()
    assert first.numbers["first"] == rows.argmax()
    if columns == 1 and "dim" in found.settings:
        dim, delay = found.settings["dim"], found.settings["delay"]
        assert f"dim={dim}" in next(str(one) for one in found.reasons if one.code == "embedding")
        if dim > 1:
            total = 1200 - (dim - 1) * delay
            whole = sum(not rows[i : i + (dim - 1) * delay + 1 : delay].any() for i in range(total))
            (vectors,) = [one.numbers for one in rest]
            assert (vectors["whole"], vectors["total"]) == (whole, total)
            assert ("fill the gaps" in str(rest[0])) == (whole < 0.8 * total)
    if columns == 2:
        assert not rest


def test_jacobians_that_gaps_prevent_are_not_a_short_record():
    found = tt.lyapunov(with_gaps(henon(1500, 2), 0.1))
    reasons = {one.code: str(one) for one in found.reasons}
    if "local-jacobian-unknown" in reasons:
        assert "without a gap" in reasons["local-jacobian-unknown"]
    short = tt.lyapunov(henon(1500, 2)[:200])
    for one in short.reasons:
        assert one.code != "local-jacobian-unknown" or "too short" in str(one)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_too_many_gaps_for_an_embedding_are_said_with_the_way_out(share):
    found = tt.lyapunov(with_gaps(henon(1500, 1), share))
    assert found.verdict == "inconclusive"
    text = " ".join(map(str, found.reasons))
    assert "dim" in text
    assert "fill the gaps" in text


def test_a_series_is_not_sent_to_twins_and_states_are():
    rng = np.random.default_rng(0)
    assert "use-twins" not in codes(tt.lyapunov(rng.standard_normal(900).cumsum()).reasons)
    walk = rng.standard_normal((900, 3)).cumsum(axis=0)
    for x, is_doubtful in ((walk, True), (tt.Trajectory.from_array(walk), False)):
        (twins,) = [one for one in tt.lyapunov(x).reasons if one.code == "use-twins"]
        assert twins.text.startswith("if these are states of a training") == is_doubtful


def test_what_is_missing_comes_first_in_what_is_shown():
    lines = repr(tt.lyapunov(with_gaps(henon(1200, 2), 0.1))).splitlines()
    first = next(line for line in lines if line.startswith("- "))
    assert "missing (NaN) or infinite" in first
