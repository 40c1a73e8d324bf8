"""Never a crash and never nonsense: every method on data that hold nothing, through Python and the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import call, write

import trajtools as tt
from trajtools.errors import DataError, TrajtoolsError
from trajtools.exponents.exponent import VERDICTS
from trajtools.wiring import Member

METHODS = ("rosenstein", "kantz", "wolf", "hybrid")
NOTHING = ("regular", "inconclusive")


def spoiled(x, value, places):
    out = np.array(x, dtype=np.float64)
    out[places] = value
    return out


def chaos(length=700):
    return tt.systems.logistic().trajectory(length, rng=np.random.default_rng(1), transient=100)


def poor():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((300, 3))
    yield "empty", np.empty((0, 2))
    yield "one state", np.ones((1, 4))
    yield "three points", np.arange(3.0)
    yield "three states", rng.random((3, 2))
    yield "constant", np.full((200, 3), 0.25)
    yield "constant, one jump", spoiled(np.zeros((200, 1)), 1.0, 100)
    yield "all NaN", np.full((100, 2), np.nan)
    yield "all inf", np.full((100, 2), -np.inf)
    yield "half NaN", spoiled(noise, np.nan, slice(0, None, 2))
    yield "NaN at the ends", spoiled(noise, np.nan, [0, -1])
    yield "one entry inf", spoiled(noise, np.inf, (150, 1))
    yield "NaN from the middle on", spoiled(noise, np.nan, slice(150, None))
    yield "one column NaN", spoiled(noise, np.nan, (slice(None), 2))
    yield "duplicates", np.repeat(noise[:60], 5, axis=0)
    yield "period two", np.tile([[0.0, 1.0], [1.0, 0.0]], (150, 1))
    yield "integers", rng.integers(0, 4, (300, 2))
    yield "unsigned bytes", rng.integers(0, 255, 300).astype(np.uint8)
    yield "booleans", rng.random(300) < 0.5
    yield "float16", rng.random((300, 2)).astype(np.float16)
    yield "float16 overflow", spoiled(noise, 70000.0, (5, 0)).astype(np.float64).clip(-65504, 65504).astype(np.float16)
    yield "huge", noise * 1e300
    yield "tiny", noise * 1e-310
    yield "both", noise * np.array([1e200, 1e-200, 1.0])
    yield "runaway", np.exp(np.linspace(0, 26, 300) ** 2)
    yield "decay to zero", np.exp(-np.arange(900.0))
    yield "more dimensions than states", rng.standard_normal((40, 500))


POOR = dict(poor())


@pytest.fixture(params=POOR, ids=lambda name: name.replace(" ", "-"))
def x(request):
    with np.errstate(all="ignore"):
        return POOR[request.param]


def check(found, verdicts=NOTHING):
    assert found.verdict in verdicts
    assert found.reasons
    assert all(len(reason.text) > 20 for reason in found.reasons)
    assert not np.isinf(found.value)
    assert np.isnan(found.p_value) or 0 < found.p_value <= 1
    assert not found.interval[0] > found.interval[1]
    json.loads(found.to_json())


@pytest.mark.parametrize(
    ("method", "metric"),
    [*((method, "l2") for method in METHODS), ("rosenstein", "l1"), ("kantz", "precomputed"), ("wolf", "precomputed")],
)
def test_one_trajectory_gets_a_verdict_and_a_reason(x, method, metric):
    if metric == "precomputed":
        states = np.asarray(x, dtype=np.float64)
        states = states[:, None] if states.ndim == 1 else states
        with np.errstate(all="ignore"):
            x = np.sqrt(((states[:, None] - states[None]) ** 2).sum(axis=-1))
    if not len(x):
        with pytest.raises(DataError, match="empty"):
            tt.lyapunov(x, method=method, metric=metric, surrogates=9)
        return
    check(tt.lyapunov(x, method=method, metric=metric, surrogates=9))


@pytest.mark.parametrize("average", ["mean-log", "log-mean", "rms"])
def test_twins_get_a_verdict_and_a_reason_or_a_sentence(x, average):
    states = np.asarray(x, dtype=np.float64) if np.asarray(x).dtype.kind != "f" else x
    with np.errstate(all="ignore"):
        copies = [states, states + np.float16(0.001), states * 2]
    if not len(states):
        with pytest.raises(DataError, match="have no states"):
            tt.lyapunov((states, copies), average=average)
        return
    check(tt.lyapunov((states, copies), average=average), (*NOTHING, "diverging"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"window": 5}, r"two steps, \(start, stop\)"),
        ({"average": "median"}, "there is no average 'median'"),
        ({"average": "rms"}, "applies to twins and to kantz, not to rosenstein"),
        ({"neighbors": 5}, "must be a NearestK .* for rosenstein; got 5"),
        ({"neighbors": tt.WithinRadius(0.1), "method": "wolf"}, "must be a NearestK .* for wolf"),
        ({"neighbors": "near", "method": "kantz"}, "must be a NearestK or a WithinRadius for kantz"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_not_ignored(wrong, words):
    with pytest.raises(TrajtoolsError, match=words):
        tt.lyapunov(chaos(200), **wrong)


@pytest.mark.parametrize("estimate", [tt.rosenstein, tt.kantz, tt.wolf, tt.hybrid], ids=lambda f: f.__name__)
def test_the_curves_are_finite_or_refused_in_a_sentence(x, estimate):
    said = ""
    try:
        curve = estimate(x, theiler=2, horizon=4).log_distance
    except TrajtoolsError as refused:
        said, curve = str(refused), np.zeros(1)
    assert not said or len(said) > 20
    assert np.isfinite(curve[0])
    assert not np.isinf(curve).any()


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e308])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("index", [0, 350, -1, slice(300, 320)], ids=str)
def test_states_that_are_no_numbers_change_nothing_else(value, method, index):
    clean = tt.lyapunov(chaos(), method=method, null=None)
    found = tt.lyapunov(spoiled(chaos(), value, index), method=method, null=None)
    # What is finite and far away is a state as any other: it may only make the answer more doubtful.
    if np.isfinite(found.value):
        assert abs(found.value - clean.value) < 0.1
    assert found.verdict in VERDICTS
    assert np.isfinite(found.value) or np.isfinite(value)


@pytest.mark.parametrize("method", METHODS)
def test_a_hundred_thousand_weights_are_analysed(method):
    x = np.random.default_rng(22).standard_normal((60, 100_000)).astype(np.float32)
    found = tt.lyapunov(x, method=method, surrogates=1)
    check(found)
    assert "random projection" in found.settings["checked_in"]


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One run of one member per kind of poor data that a recorder can be given."""
    folder, found = tmp_path_factory.mktemp("poor"), {}
    for name in ("one state", "three states", "constant", "all NaN", "one entry inf", "duplicates", "huge", "integers"):
        states = np.asarray(POOR[name], dtype=np.float64)
        found[name] = write(folder / f"{name.replace(' ', '_')}.h5", states[:, None], members=[Member("only")])
    return found


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_the_command_answers_or_says_why_not(files, method):
    answered = call("lyapunov", *files.values(), "--method", method, "--surrogates", "9", "--json")
    document = json.loads(answered.stdout)
    assert len(document["results"]) == len(files)
    for result in document["results"]:
        assert result["exponent"]["verdict"] in NOTHING
        assert result["exponent"]["reasons"]


def test_one_member_has_no_twins_and_the_command_says_so(files):
    refused = call("lyapunov", files["constant"], "--method", "twins", code=1)
    assert "no perturbed copy" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_strict_tells_what_is_inconclusive(files):
    call("lyapunov", files["three states"], "--strict", code=3)


@pytest.mark.parametrize("wrong", [None, 3.0, [1, 2], np.zeros(3), [["a.h5"]]], ids=repr)
@pytest.mark.parametrize("read", [tt.open, tt.open_runs, tt.sweep], ids=lambda f: f.__name__)
def test_what_is_no_path_is_refused_in_a_sentence(read, wrong):
    with pytest.raises(DataError, match="got a"):
        read(wrong)
