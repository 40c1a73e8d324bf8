"""The commands of one analysis: stability, recurrence, distances, correlation, dimension, sweep."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import call, write

import trajtools as tt
from recorders import Recorder, iris
from trajtools.wiring import Member

COMMANDS = ("stability", "recurrence", "distances", "correlation", "dimension", "sweep")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analyses")
    for rate in (0.05, 1.0):
        iris.record(folder, rate, inits=4, copies=2, steps=120, seed=0)
    return folder


@pytest.fixture(scope="module")
def henon(tmp_path_factory):
    states = tt.systems.henon().trajectory(3000, rng=np.random.default_rng(0))
    return write(tmp_path_factory.mktemp("henon") / "henon.h5", states[:, None, :])


def results(*arguments):
    return [one["result"] for one in json.loads(call(*arguments, "--json").stdout)["results"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_run_is_named_in_the_text(trained, command):
    said = call(command, trained).stdout
    assert "eta=0.05" in said
    assert "eta=1" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_without_nan(trained, command):
    said = call(command, trained, "--json").stdout
    found = json.loads(said, parse_constant=pytest.fail)
    assert found["schema"] == f"trajtools/{command}/1"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_figure_is_drawn(trained, command, tmp_path):
    call(command, trained, "--plot", tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")
    call(command, trained, "--plot", tmp_path / "figure.docx", code=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_not_there_is_an_error_in_one_sentence(command, tmp_path):
    said = call(command, tmp_path / "none.h5", code=1).stderr
    assert said.count("Error") == 1
    assert "does not exist" in said


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_a_run_that_is_not_there_is_an_error_that_lists_the_runs(trained, command):
    assert "eta=0.05" in call(command, trained, "--run", "eta=7", code=1).stderr


def test_recurrence_says_what_the_library_says(henon):
    with tt.open(henon) as run:
        truth = tt.recurrence(run.trajectory(), threshold=tt.RecurrenceRate(0.02), theiler=3)
    (found,) = results("recurrence", henon, "--rate", "0.02", "--theiler", "3")
    assert found["DET"] == truth.DET
    assert found["RR"] == pytest.approx(0.02, abs=1e-4)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--threshold", "0.1", tt.WithinRadius(0.1)),
        ("--scaled", "0.1", tt.neighbors.ScaledRadius(0.1)),
        ("--neighbors", "5", tt.NearestK(5)),
    ],
)
def test_each_rule_of_what_recurs_reaches_the_library(henon, option, value, rule):
    with tt.open(henon) as run:
        truth = tt.recurrence(run.trajectory(), threshold=rule)
    assert results("recurrence", henon, option, value)[0]["RR"] == truth.RR


def test_two_rules_are_refused(henon):
    assert "only one rule" in call("recurrence", henon, "--rate", "0.1", "--threshold", "1", code=2).stderr


def test_a_run_that_diverged_is_told_to_take_the_states_before(tmp_path):
    states = np.random.default_rng(0).normal(size=(200, 2))
    states[150:190] *= 10.0 ** np.linspace(1, 150, 40)[:, None]
    states[190:] = np.nan
    run = write(tmp_path / "diverged.h5", states[:, None, :])
    said = " ".join(call("recurrence", run, code=1).stderr.split())
    assert "the states grow up to" in said
    assert "diverges" in said
    assert "--window START:STOP" in said
    assert "--metric l1" in said
    assert "--threshold" not in said
    call("recurrence", run, "--window", "0:150")
    call("recurrence", run, "--metric", "l1")


def test_windows_are_said(henon):
    said = call("recurrence", henon, "--windows", "1000").stdout
    assert "0-1000" in said
    assert "2000-3000" in said


def test_the_dimension_of_the_henon_map_is_near_what_is_known(henon):
    (found,) = results("dimension", henon)
    assert found["value"] == pytest.approx(1.22, abs=0.06)


def test_an_inconclusive_verdict_is_status_three_if_asked(trained):
    call("dimension", trained, "--strict", code=3)


def test_stability_says_what_the_library_says(trained):
    with tt.open(trained / "eta=1.h5") as run:
        truth = tt.orbital_stability(run, rng=0)
    (found,) = results("stability", trained, "--run", "eta=1")
    assert found["verdict"] == truth.verdict
    assert found["frechet"] == pytest.approx(truth.frechet)


def test_correlation_says_what_the_library_says(trained):
    with tt.open(trained / "eta=1.h5") as run:
        truth = tt.autocorrelation(run.trajectory().window(20, 121), lags=30, rng=0)
    (found,) = results("correlation", trained, "--run", "eta=1", "--window", "20:121", "--lags", "30")
    assert found["values"] == pytest.approx(truth.values)


def test_correlation_prints_times_only_where_they_are_not_the_lags(trained, tmp_path):
    np.savetxt(tmp_path / "x.csv", np.sin(np.arange(60.0)))
    assert call("correlation", tmp_path / "x.csv").stdout.splitlines()[1].split()[:2] == ["lag", "autocorrelation"]
    np.savetxt(tmp_path / "y.csv", np.c_[0.5 * np.arange(60), np.sin(np.arange(60.0))], header="time x", comments="")
    head, *rows = call("correlation", tmp_path / "y.csv").stdout.splitlines()[1:]
    assert head.split()[:3] == ["lag", "time", "autocorrelation"]
    assert rows[1].split()[:2] == ["1", "0.5"]


def test_distances_are_summarised_and_kept(trained, tmp_path):
    kept = tmp_path / "kept"
    (found,) = results("distances", trained, "--run", "eta=1", "--metric", "l1", "--save", kept)
    with tt.open(trained / "eta=1.h5") as run:
        x = np.asarray(run.trajectory())
    truth = np.abs(x[:, None] - x[None]).sum(axis=2)
    others = truth[~np.eye(len(x), dtype=bool)]
    assert found["smallest"] == pytest.approx(others.min())
    assert found["mean"] == pytest.approx(others.mean())
    assert found["largest"] == pytest.approx(others.max())
    assert found["step"] == pytest.approx(np.median(np.diagonal(truth, 1)))
    assert np.asarray(tt.Distances.open(kept)) == pytest.approx(truth)


def test_two_runs_do_not_fit_into_one_matrix(trained, tmp_path):
    said = call("distances", trained, "--save", tmp_path / "kept", code=1)
    assert "choose with --run" in said.stderr


def test_a_sweep_says_onset_and_minimum(trained):
    said = call("sweep", trained, "--threshold", "0.6", "--threshold", "0.7").stdout
    for words in ("onset of chaos", "fastest training", "do they coincide", "no stable control"):
        assert words in said
    found = json.loads(call("sweep", trained, "--json", "--threshold", "0.6").stdout)
    assert [point["x"] for point in found["sweep"]["points"]] == [0.05, 1.0]
    assert found["coincidence"]["verdict"] == "not decided"
    codes = {reason["code"] for reason in found["coincidence"]["reasons"]}
    assert codes & {
        "too-few-values",
        "wide-ratio",
        "no-onset",
        "onset-below-range",
        "onset-above-range",
        "end-of-range",
    }
    assert "do they coincide: not decided" in said
    reasons = [line for line in said.splitlines() if line.startswith("  - ")]
    assert len(set(reasons)) == len(reasons)
    assert "is not auto, trajectory, metric:NAME or none" in call("sweep", trained, "--exponent", "x", code=2).stderr
    assert "no run with the hyper-parameter 'width'" in call("sweep", trained, "--x", "width", code=1).stderr


@pytest.mark.parametrize(("store", "metric"), [("sketch", "l2"), ("distances", "linf")])
def test_runs_without_weights_are_compared_in_the_metric_that_they_store(tmp_path, store, metric):
    members = [Member("m0"), Member("m1", reference=0, epsilon=1e-8)]
    chosen = {"metric": metric} if store == "distances" else {}
    for rate in (0.1, 1.0):
        path, state = tmp_path / f"{rate}.h5", np.ones((2, 4))
        options = {"members": members, "hparams": {"lr": rate}, "store": store, "quiet": True, **chosen}
        with Recorder(path, {"w": state}, **options) as recorder:
            for t in range(60):
                recorder.record({"w": state + np.array([[0], [1e-8 * np.exp(rate * t / 10)]])})
    found = json.loads(call("sweep", tmp_path, "--json").stdout)["sweep"]
    assert [point["exponent"]["settings"]["metric"] for point in found["points"]] == [metric] * 2
    call("report", tmp_path, "-o", tmp_path / "page.html")
    assert "use metric" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_two_hyper_parameters_give_a_diagram_and_a_law(trained, tmp_path):
    said = call("sweep", trained, "--y", "copies").stdout
    assert "onset in lr" in said
    assert "  - copies=2: " in said
    found = json.loads(call("sweep", trained, "--y", "copies", "--json").stdout, parse_constant=pytest.fail)
    assert found["phase_diagram"]["x"] == [0.05, 1.0]
    assert len(found["phase_diagram"]["intervals"][0]) == 2
    for rate in (0.02, 0.04, 0.08, 0.16):
        iris.record(tmp_path, rate, inits=3, copies=1, steps=300, seed=0)
    law = call("sweep", tmp_path, "--exponent", "none", "--threshold", "0.6", "--scaling", "lr").stdout
    assert "steps to 0.6 ~ (lr)^-" in law
    assert "4 of 4 runs have no exponent and count as stable" in law


def test_several_processes_give_the_same_sweep(trained):
    assert call("sweep", trained, "--workers", "2").stdout == call("sweep", trained).stdout


def test_a_series_and_a_member_can_be_chosen(trained):
    (found,) = results("correlation", trained, "--run", "eta=1", "--series", "loss", "--member", "3")
    with tt.open(trained / "eta=1.h5") as run:
        loss = run.metrics["loss"][:, 3]
    assert found["values"] == pytest.approx(tt.autocorrelation(loss, rng=0).values)
