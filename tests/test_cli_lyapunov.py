"""`trajtools lyapunov` on one trajectory, in several units, window by window."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command_line import ROOT, call, process, write
from numpy.testing import assert_allclose

import trajtools as tt
from recorders import Recorder, iris
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.wiring import Member


@pytest.fixture(scope="module")
def henon(tmp_path_factory):
    """One member on the Henon map, its first coordinate recorded as loss, in two stretches of learning rate."""
    path = tmp_path_factory.mktemp("lyapunov") / "henon.h5"
    states = tt.systems.henon().trajectory(1500, rng=np.random.default_rng(0))
    rates = np.where(np.arange(1500) < 750, 0.1, 0.2)
    with Recorder(path, {"layer.kernel": states[0]}, hparams={"steps_per_epoch": 50}, quiet=True) as recorder:
        for t, state in enumerate(states):
            recorder.record({"layer.kernel": state}, loss=float(state[0]), learning_rate=rates[t])
    return path


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    return iris.record(tmp_path_factory.mktemp("twins"), 1.0, inits=12, copies=2, steps=150, seed=0)


def result(*arguments):
    (found,) = json.loads(call("lyapunov", *arguments, "--json").stdout)["results"]
    return found


# One trajectory


def test_a_run_without_twins_is_answered_from_its_recurrences(henon):
    found = result(henon)["exponent"]
    with tt.open(henon) as run:
        wanted = tt.lyapunov(run)
    assert found["value"] == wanted.value
    assert found["method"] == "rosenstein"
    assert found["verdict"] == "chaotic"
    assert abs(found["value"] - 0.419) < 0.03


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--method", "kantz", "--neighbors", "0.1"], {"method": "kantz", "neighbors": WithinRadius(0.1)}),
        (["--method", "wolf"], {"method": "wolf"}),
        (["--neighbors", "4", "--theiler", "7", "--horizon", "9"],
         {"neighbors": NearestK(4), "theiler": 7, "horizon": 9}),
        (["--embed", "3,2", "--null", "none"], {"dim": 3, "delay": 2, "null": None}),
        (["--metric", "l1", "--window", "100:900", "--seed", "3"], {"metric": "l1", "window": (100, 900), "rng": 3}),
    ],
)  # fmt: skip
def test_options_reach_the_estimator(henon, words, options):
    found = result(henon, *words)["exponent"]
    with tt.open(henon) as run:
        wanted = tt.lyapunov(run, **options)
    assert found["value"] == wanted.value
    assert found["verdict"] == wanted.verdict
    assert found["settings"]["theiler"] == wanted.settings["theiler"]


def test_a_metric_is_embedded_and_analysed(henon):
    found = result(henon, "--series", "loss")["exponent"]
    with tt.open(henon) as run:
        wanted = tt.lyapunov(np.asarray(run.metrics["loss"]))
    assert found["value"] == wanted.value
    assert found["settings"]["dim"] >= 2
    assert found["settings"]["series"] == "loss"
    assert found["unit"] == "1/step"
    assert "it has learning_rate, loss" in call("lyapunov", henon, "--series", "los", code=1).stderr


def test_one_member_of_many_is_looked_at_on_demand(tmp_path):
    states = np.stack([tt.systems.henon().trajectory(400, rng=np.random.default_rng(i)) for i in range(2)], axis=1)
    path = write(tmp_path / "two.h5", states, members=[Member("a"), Member("b")])
    with tt.open(path) as run:
        wanted = [tt.lyapunov(run.trajectory(m)).value for m in (0, 1)]
    assert [result(path, "--member", m)["exponent"]["value"] for m in (0, 1)] == wanted
    assert wanted[0] != wanted[1]
    assert "member 0 of 2; --member" in call("lyapunov", path).stdout
    assert "there is no member 2" in call("lyapunov", path, "--member", "2", code=1).stderr


def test_momentum_is_a_doubt_whichever_member_is_chosen(tmp_path):
    states = tt.systems.henon().trajectory(400, rng=np.random.default_rng(0))
    path = tmp_path / "momentum.h5"
    with Recorder(path, {"w": states[0]}, hparams={"momentum": 0.9}, quiet=True) as recorder:
        for state in states:
            recorder.record({"w": state})
    for more in ([], ["--member", "0"], ["--select", "w"]):
        assert "weights alone are not the state" in call("lyapunov", path, *more).stdout


def test_options_of_neighbours_turn_from_twins_to_one_trajectory(twins):
    assert result(twins)["exponent"]["method"] == "twins"
    assert result(twins, "--member", "0")["exponent"]["method"] == "rosenstein"
    said = call("lyapunov", twins, "--method", "twins", "--theiler", "5", code=1).stderr
    assert "--theiler: only for the neighbours of one trajectory" in said


def test_a_run_without_weights_has_no_neighbours(tmp_path):
    path = tmp_path / "distances.h5"
    members = [Member("m0"), Member("m1", reference=0, epsilon=1e-8)]
    state = np.ones((2, 4))
    with Recorder(path, {"w": state}, members=members, store="distances", quiet=True) as recorder:
        for t in range(30):
            recorder.record({"w": state + np.array([[0], [1e-8 * 1.1**t]])})
    assert "no weights" in call("lyapunov", path, "--method", "kantz", code=1).stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["--neighbors", "0"],
        ["--neighbors", "near"],
        ["--neighbors", "-0.1"],
        ["--embed", "3,2,1"],
        ["--embed", "0"],
        ["--windows", "1"],
        ["--windows", "50,0"],
        ["--windows", "a"],
        ["--per", "second"],
        ["--steps-per-epoch", "0"],
        ["--theiler", "-1"],
        ["--method", "guess"],
    ],
)
def test_wrong_words_are_usage_errors(henon, wrong):
    assert "Error: Invalid value" in call("lyapunov", henon, *wrong, code=2).stderr


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--neighbors", "0.05"], "a radius is for --method kantz and hybrid"),
        (["--null", "white"], "there is no null 'white'"),
        (["--procedure", "danovski2024"], "is for twins"),
        (["--series", "loss", "--select", "x"], "drop one of the two"),
        (["--select", "no_such"], "no_such"),
        (["--window", "5000:6000"], "no state"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(henon, wrong, words):
    said = call("lyapunov", henon, *wrong, code=1).stderr
    assert words in said
    assert len(said.splitlines()) == 1


def test_options_of_neighbours_are_named_as_they_were_given(twins):
    said = call("lyapunov", twins, "--method", "twins", "--theiler", "0", "--embed", "2,1", code=1).stderr
    assert "--theiler, --embed: only for the neighbours" in said


# Units


def test_exponents_per_epoch_come_from_the_run_or_from_the_user(henon):
    one = result(henon)["exponent"]["value"]
    found = result(henon, "--per", "epoch")["exponent"]
    assert_allclose(found["value"], 50 * one, rtol=1e-12)
    assert found["unit"] == "1/epoch"
    assert found["settings"]["conversion"]["steps_per_epoch"] == 50
    given = result(henon, "--per", "epoch", "--steps-per-epoch", "8")["exponent"]
    assert_allclose(given["value"], 8 * one, rtol=1e-12)
    assert "exponent (1/epoch)" in call("lyapunov", henon, "--per", "epoch").stdout


def test_exponents_per_learning_rate_differ_by_window(henon):
    found = result(henon, "--per", "learning-rate", "--windows", "750")["windows"]
    plain = result(henon, "--windows", "750")["windows"]
    assert_allclose(np.array(plain["value"]) / np.array(found["value"]), [0.1, 0.2], rtol=1e-12)
    assert found["unit"] == "1/integrated learning rate"
    assert found["gain"] == plain["gain"]


def test_a_run_that_does_not_know_the_unit_is_refused(tmp_path):
    path = iris.record(tmp_path, 1.0, inits=3, copies=1, steps=40, seed=0)
    assert "give --steps-per-epoch" in call("lyapunov", path, "--per", "epoch", code=1).stderr


# Windows


def test_windows_stand_below_the_answer_for_the_whole(tmp_path):
    # Perturbed once: with fresh twins, nothing hides a late loss of stability.
    twins = iris.record(tmp_path, 1.0, inits=12, copies=2, steps=150, seed=0, replant=None)
    said = call("lyapunov", twins, "--windows", "50").stdout
    assert "eta=1, window by window" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("0-", "50-", "100-"))] == [
        "0-50", "50-100", "100-150",
    ]  # fmt: skip
    assert "largest cumulative gain" in said
    assert "delayed loss of stability" in said
    with tt.open(twins) as run:
        wanted = tt.lyapunov_windows(run, window=50)
    found = result(twins, "--windows", "50")["windows"]
    assert_allclose(np.array(found["value"], dtype=float), wanted.value, equal_nan=True)
    assert found["verdict"] == list(wanted.verdict)
    assert result(twins, "--windows", "50,25")["windows"]["start"] == [0, 25, 50, 75, 100]


def test_windows_lie_inside_the_window(henon):
    found = result(henon, "--windows", "400", "--window", "100:900", "--null", "none")["windows"]
    assert (found["start"], found["stop"]) == ([100, 500], [500, 900])


# Figures, processes


def test_figure_shows_curve_interval_null_and_windows(henon, tmp_path):
    figure = tmp_path / "figure.svg"
    call("lyapunov", henon, "--windows", "750", "--plot", figure)
    assert figure.read_bytes().startswith(b"<?xml")
    assert figure.stat().st_size > 10_000


def test_strict_counts_neighbours_too(henon):
    call("lyapunov", henon, "--strict")
    call("lyapunov", henon, "--null", "none", "--strict", code=3)


def test_the_fast_path_loads_no_slow_package(henon):
    code = (
        "import sys\n"
        "from trajtools.cli import cli\n"
        f"cli.main(['lyapunov', {str(henon)!r}], standalone_mode=False)\n"
        "slow = {'scipy.stats', 'scipy.interpolate', 'networkx', 'matplotlib', 'torch', 'jax'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_runs_are_pooled_into_one_exponent(twins, tmp_path):
    other = iris.record(tmp_path, 1.0, inits=12, copies=2, steps=150, seed=1)
    pooled = result(twins, other, "--pool")
    runs = [tt.open(twins), tt.open(other)]
    whole = tt.twins(runs).fit()
    assert_allclose(pooled["exponent"]["value"], whole.value)
    assert pooled["exponent"]["n_total"] == whole.n_total == 24
    assert pooled["facts"]["files"] == [str(twins), str(other)]
    assert pooled["facts"]["twins"] == 48
    assert "runs-differ" not in [warning["code"] for warning in pooled["exponent"]["warnings"]]


def test_a_pool_of_other_trainings_says_so(twins, tmp_path):
    other = iris.record(tmp_path, 0.5, inits=3, copies=2, steps=150, seed=1)
    (warning,) = [one for one in result(twins, other, "--pool")["exponent"]["warnings"] if one["code"] == "runs-differ"]
    assert "learning_rate" in warning["text"]
    refused = call("lyapunov", twins, other, "--pool", "--per", "learning-rate", code=1)
    assert "learning" in refused.stderr


def test_a_pool_leaves_no_run_out(twins, henon, tmp_path):
    for other in (henon, tmp_path / "missing.h5"):
        refused = call("lyapunov", twins, other, "--pool", code=1)
        assert not refused.stdout
        assert other.name in refused.stderr


def test_a_pool_counts_no_run_twice(twins, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(twins.read_bytes())
    for other in (twins, copy):
        refused = call("lyapunov", twins, other, "--pool", code=1)
        assert not refused.stdout
        assert "count twice" in refused.stderr


def test_an_error_of_a_pool_is_part_of_its_document(twins, henon):
    document = json.loads(call("lyapunov", twins, henon, "--pool", "--json", code=1).stdout)
    assert not document["results"]
    assert "no perturbed copy" in document["errors"][0]["error"]


def test_a_switch_is_named_without_a_value(twins):
    said = call("lyapunov", twins, "--method", "rosenstein", "--buffers", code=1).stderr
    assert "--buffers" in said
    assert "True" not in said


def test_compiling_is_said_while_it_happens_and_not_again(twins, tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "trajtools", "lyapunov", str(twins), "--json"]
    said = []
    for more in ([], []):
        done = subprocess.run([*line, *more], capture_output=True, text=True, env=environment, timeout=120, check=True)
        assert json.loads(done.stdout)["results"]
        said.append(done.stderr)
    assert said == ["Compiling kernels, once; they are cached ...\n", ""]


def test_a_warm_process_says_nothing_but_the_answer(henon):
    call("lyapunov", henon)
    assert process("lyapunov", henon, "--json").stderr == ""
