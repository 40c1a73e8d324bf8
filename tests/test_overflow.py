"""A training that ends in NaN or infinity: every answer says from which step on, and what was analysed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import call, write

import trajtools as tt
from trajtools.reasons import codes
from trajtools.wiring import Member

SUDDEN, RUNAWAY = 180, 53
ALONE = [Member("only")]


def descent(length, rate):
    """Gradient descent in a quadratic basin: beyond rate 2 it runs away."""
    start = np.random.default_rng(0).standard_normal(6)
    return start * np.outer((1 - rate) ** np.arange(length), np.ones(6))


def sudden():
    """A drifting walk whose numbers are lost at once."""
    x = np.random.default_rng(1).standard_normal((300, 6)).cumsum(axis=0)
    x[SUDDEN:] = np.nan
    return x


def runaway():
    """Steps that grow by a factor 9 until the numbers overflow."""
    x = descent(200, 10.0)
    x[RUNAWAY:] = np.inf
    return x


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overflow")
    return {
        "sudden": (write(folder / "sudden.h5", sudden()[:, None], members=ALONE), SUDDEN),
        "runaway": (write(folder / "runaway.h5", runaway()[:, None], members=ALONE), RUNAWAY),
    }


@pytest.mark.parametrize("command", ["info", "lyapunov", "recurrence", "dimension", "correlation", "distances"])
@pytest.mark.parametrize("kind", ["sudden", "runaway"])
def test_every_command_says_from_which_step_on(files, command, kind):
    path, step = files[kind]
    assert f"step {step}" in call(command, path).stdout


def test_info_counts_the_states_and_the_members(tmp_path, files):
    path, _ = files["sudden"]
    (described,) = json.loads(call("info", path, "--json").stdout)["files"]
    assert described["not_finite"] == {"step": SUDDEN, "states": 300 - SUDDEN, "members": 1, "checked": 1}
    x = np.ones((50, 3, 4))
    x[20:, 1], x[45:, 2] = np.nan, np.inf
    twins = write(tmp_path / "twins.h5", x)
    (described,) = json.loads(call("info", twins, "--json").stdout)["files"]
    assert described["not_finite"] == {"step": 20, "states": 30, "members": 2, "checked": 3}
    assert "NaN or infinite from step 20 on (30 states, in 2 of 3 members)" in call("info", twins).stdout
    x[-1] = 1.0
    assert tt.open(write(tmp_path / "whole.h5", x)).not_finite() is None


@pytest.mark.parametrize("lost", [1, 0])
def test_of_stored_distances_those_of_the_copies_are_checked(tmp_path, lost):
    x = np.random.default_rng(0).standard_normal((50, 3, 4)).cumsum(axis=0)
    whole = write(tmp_path / "whole.h5", x, store="distances")
    assert tt.open(whole).not_finite() is None
    assert "NaN or infinite" not in call("info", whole).stdout
    page = tmp_path / "page.html"
    call("report", whole, "-o", page)
    assert "ends in NaN" not in page.read_text(encoding="utf-8")
    x[20:, lost] = np.nan  # a copy, or their reference
    cut = tt.open(write(tmp_path / "cut.h5", x, store="distances"))
    assert cut.not_finite() == {"step": 20, "states": 30, "members": 1 if lost else 2, "checked": 2}


@pytest.mark.parametrize("last", range(9))
def test_the_first_lost_state_is_found_wherever_it_is(tmp_path, last):
    x = np.ones((9, 1, 2))
    x[last:] = np.nan
    with tt.open(write(tmp_path / "run.h5", x, members=ALONE)) as run:
        assert run.not_finite() == {"step": last, "states": 9 - last, "members": 1, "checked": 1}


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_trajectory_that_runs_away_is_diverging(scale, dtype):
    with np.errstate(over="ignore"):
        x = (runaway() * scale).astype(dtype)
    found = tt.lyapunov(x)
    assert (found.verdict, found.growth, found.persistence) == ("diverging", "diverging", "not tested")
    assert codes(found.reasons) == ("diverged",)
    assert np.isnan(found.value)
    assert "runs away" in found.summary()


def test_numbers_that_are_lost_at_once_are_no_divergence():
    found = tt.lyapunov(sudden())
    assert found.verdict == "inconclusive"
    first, second = [one for one in found.warnings if one.code in ("not-finite", "ended-at-once")]
    assert first.numbers == {"excluded": 300 - SUDDEN, "states": 300, "first": SUDDEN, "kept": SUDDEN}
    assert second.numbers["factor"] < 3


def test_gaps_are_no_end():
    x = sudden()
    x[-1] = 0.0
    found = tt.lyapunov(x)
    (gap,) = [one for one in found.warnings if one.code == "not-finite"]
    assert "kept" not in gap.numbers


@pytest.mark.parametrize("analyse", [tt.twins, tt.orbital_stability])
def test_of_twins_the_earliest_lost_step_is_named(analyse):
    reference = sudden()
    copy = reference + 1e-6
    copy[150:] = np.inf
    found = analyse((reference, [reference * (1 + 1e-6), copy]))
    numbers = [one.numbers for one in found.warnings if one.code in ("diverged", "not-finite")]
    assert [one["first"] for one in numbers] == [150]


def test_a_runaway_that_overflowed_is_no_saddle():
    x = runaway()
    exponent = tt.twins((x, [x * (1 + 1e-9)])).fit()
    assert exponent.verdict == "diverging"
    assert "saddle" not in str(exponent.reasons[0])
    shorter = x[: RUNAWAY - 3]
    assert "saddle" in str(tt.twins((shorter, [shorter * (1 + 1e-9)])).fit().reasons[0])


def test_the_sweep_names_the_step(tmp_path, files):
    from recorders import Recorder

    for rate, x in ((0.1, np.ones((60, 6))), (10.0, runaway())):
        with Recorder(tmp_path / f"{rate}.h5", {"w": x[0]}, hparams={"lr": rate}, quiet=True) as recorder:
            for state in x:
                recorder.record({"w": state}, loss=float(np.abs(state).max()))
    sweep = tt.sweep(str(tmp_path), "lr")
    assert [point.outcome for point in sweep.points][-1] == "diverged"
    assert sweep.points[-1].lost_at == RUNAWAY
    assert "ends in NaN or infinity" in sweep.summary()
    assert f"(diverged at step {RUNAWAY})" in call("sweep", tmp_path, "--x", "lr").stdout


def test_a_trajectory_at_rest_before_the_numbers_are_lost_did_not_run_away():
    for value in (0.0, 1.0):
        found = tt.lyapunov(np.r_[np.full(300, value), np.full(500, np.nan)])
        assert found.verdict == "inconclusive"
