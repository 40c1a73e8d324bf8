"""The page of `trajtools report`: everything that applies, nothing that does not, and nothing from the network."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from command_line import call, write
from made_divergences import analysis
from matplotlib.figure import Figure
from test_report import check_self_contained

import trajtools as tt
from recorders import Recorder, iris
from trajtools.report.collect import STATES, RunReport, collect
from trajtools.report.render import FEW, PIXELS, Figures, runs_page
from trajtools.wiring import Member


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for rate in (0.05, 1.0):
        iris.record(folder, rate, inits=4, copies=2, steps=100, seed=0)
    return folder


def test_the_page_names_every_run_and_verdict_and_loads_nothing(trained, tmp_path):
    out = tmp_path / "page.html"
    call("report", trained, "-o", out)
    page = out.read_text(encoding="utf-8")
    check_self_contained(page)
    for words in (
        "<b>eta=0.05</b>",
        "<b>eta=1</b>",
        "Recurrence plot",
        "Return to the orbit?",
        "Against the learning rate",
        "regular",
    ):
        assert words in page
    # The answer and its figure come first; of each run: exponent, accuracy, loss, distances and recurrences.
    answer, figure = page.index('<p class="answer">'), page.index("<svg")
    assert answer < figure < page.index("<nav") < page.index("<table")
    assert re.search(r'<p class="answer">At learning rates? .*nearby trainings', page)
    assert page.count('<details class="run">') == 2
    labels = re.findall(r'<svg[^>]* aria-label="([^"]*)"', page)
    assert [label.split(" over ")[0].split(":")[0] for label in labels] == [
        *["Exponent and training time against lr"] * 2,  # for wide and for narrow screens
        *["Distance", "accuracy", "loss", "Distance between states", "Recurrence plot"] * 2,
    ]
    assert page.count("data:image/png;base64,") == 6  # the distances with their colours, and the recurrences


def test_what_does_not_apply_is_left_out_with_the_reason(tmp_path):
    path = tmp_path / "alone.h5"
    rng = np.random.default_rng(0)
    with Recorder(path, {"w": np.zeros(4)}, quiet=True) as rec:
        for _ in range(60):
            rec.record({"w": rng.standard_normal(4)}, loss=1.0)
    with tt.open(path) as run:
        report = collect(run)
    assert report.analysis is None
    assert report.curvature is None
    assert pytest.approx(0.05, abs=0.01) == report.recurrence.RR
    assert any("no twins" in words for words in report.left_out)


def test_a_run_that_keeps_distances_has_no_recurrence(tmp_path):
    path = tmp_path / "distances.h5"
    states = [{"w": np.zeros(3)}, {"w": np.full(3, 1e-6)}]
    members = [tt.wiring.Member("a"), tt.wiring.Member("b", 0, 1e-6)]
    with Recorder(path, states, members=members, store="distances", quiet=True) as rec:
        for t in range(20):
            rec.record([{"w": np.full(3, float(t))}, {"w": t + np.full(3, 1e-6 * (t + 1))}])
    with tt.open(path) as run:
        report = collect(run)
    assert report.recurrence is None
    assert report.analysis is not None
    assert any("stores distances" in words for words in report.left_out)


def test_long_trajectories_are_thinned(tmp_path):
    T = 2 * STATES + 11
    path = write(tmp_path / "long.h5", np.sin(np.arange(T) / 40)[:, None, None] * np.ones(3))
    with tt.open(path) as run:
        report = collect(run)
    assert len(report.distances) == len(report.distances.step) == -(-T // 3)
    assert report.distances.step[-1] < T
    assert np.nanmean(report.recurrence.image(PIXELS)) == pytest.approx(0.05, abs=0.02)


def test_states_that_are_not_finite_leave_holes_and_no_crash(tmp_path):
    states = np.random.default_rng(0).standard_normal((40, 1, 3))
    states[5] = np.nan
    path = write(tmp_path / "nan.h5", states)
    with tt.open(path) as run:
        report = collect(run)
    assert np.isnan(report.distances[5]).all()
    assert np.isnan(report.recurrence.image(PIXELS)[5]).all()
    call("report", path, "-o", tmp_path / "page.html")


def test_names_of_strangers_stay_text(tmp_path):
    path = write(tmp_path / "odd.h5", np.random.default_rng(0).standard_normal((30, 1, 2)), name="<script>alert(1)")
    call("report", path, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script" in page


def test_an_empty_selection_and_the_file_itself_are_refused(trained, tmp_path):
    assert (
        "no run is named 'none'" in call("report", trained, "--run", "none", "-o", tmp_path / "a.html", code=1).stderr
    )
    assert "one of the input files" in call("report", trained, "-o", trained / "eta=1.h5", code=1).stderr
    assert "width" in call("report", trained, "--x", "width", "-o", tmp_path / "a.html", code=1).stderr


def test_a_hyperparameter_that_compares_nothing_is_answered(trained, tmp_path):
    one, page = trained / "eta=1.h5", tmp_path / "a.html"
    assert "no run with the hyper-parameter 'width'" in call("report", one, "--x", "width", "-o", page, code=1).stderr
    assert not page.exists()
    assert (
        "--x eta: nothing to compare, since only one run has it."
        in call("report", one, "--x", "eta", "-o", page).stderr
    )
    assert "nothing to compare" not in call("report", one, "-o", page).stderr
    assert "nothing to compare" not in call("report", trained, "--x", "eta", "-o", page).stderr
    both = tmp_path / "both"
    both.mkdir()
    for name in ("a.h5", "b.h5"):
        shutil.copy(one, both / name)
    said = call("report", both, "--x", "eta", "-o", page).stderr
    assert "--x eta: nothing to compare, since all runs have the value 1." in said


def axes_of(draw):
    """The axes that a figure of the report is drawn on."""
    figures, seen = Figures(), []
    figures.draw = lambda label, plot, **size: seen.append(plot(Figure().add_subplot()))
    draw(figures)
    return seen[0]


def test_the_recurrence_plot_stands_at_the_steps_of_its_distances():
    x = np.random.default_rng(0).standard_normal(30)
    distances = tt.Distances.from_array(np.abs(x[:, None] - x), step=np.arange(500, 560, 2))
    ax = axes_of(lambda figures: figures.recurrence(tt.recurrence(distances), distances.time[0]))
    assert ax.get_xlim() == ax.get_ylim() == (499, 559)


@pytest.mark.parametrize("values", [np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_a_constant_matrix_is_drawn(values):
    assert "<image" in Figures().distances(tt.Distances.from_array(values))


def test_runs_of_one_name_in_several_files_are_told_apart(tmp_path):
    states = np.random.default_rng(0).normal(size=(12, 1, 3))
    for folder, name in (("a", "low"), ("a", "high"), ("b", "low")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write(tmp_path / folder / f"{name}.h5", states)
    out, first, second = tmp_path / "page.html", tmp_path / "a" / "low.h5", tmp_path / "a" / "high.h5"
    for files, names in (
        ((first, second), ("low", "high")),
        ((first, tmp_path / "b" / "low.h5"), ("a/low.h5", "b/low.h5")),
    ):
        call("report", *files, "-o", out)
        page = out.read_text(encoding="utf-8")
        links, targets = re.findall(r'<a href="#(run-[^"]+)"', page), re.findall(r'<div id="(run-[^"]+)"', page)
        assert sorted(set(links)) == sorted(targets) == ["run-0", "run-1"]
        headings = re.findall(r"<summary><b>([^<]+)<", page)
        assert len(headings) == 2
        assert all(heading.endswith(name) for heading, name in zip(headings, names, strict=True))


def test_the_page_of_one_run_begins_with_its_answer(trained, tmp_path):
    out = tmp_path / "page.html"
    call("report", trained / "eta=1.h5", "-o", out)
    page = out.read_text(encoding="utf-8")
    (answer,) = re.findall('<p class="answer">(.*?)</p>', page)
    with tt.open(trained / "eta=1.h5") as run:
        results = [tt.twins(run).fit(rng=0), tt.orbital_stability(run, rng=0)]
    questions = ("nearby trainings part exponentially", "perturbed trainings come back to the orbit")
    for result, question in zip(results, questions, strict=True):
        assert (question in answer) == (result.verdict == "inconclusive")
        assert (result.summary() in answer) == (result.verdict != "inconclusive")
    assert re.search(r"The loss went from \S+ to \S+ in 100 steps\.$", answer)
    assert '<details class="run" open>' in page
    assert all(meaning in page for meaning in ("determinism: share of recurrences", "if the trajectory drifts"))
    assert "By chance: if the same states came in random order." in page


@pytest.mark.parametrize("verdict", ["chaotic", "regular", "inconclusive"])
@pytest.mark.parametrize("returns", ["unstable", "inconclusive", None])
def test_the_answer_says_what_is_open_and_what_is_not(trained, verdict, returns):
    with tt.open(trained / "eta=1.h5") as run:
        stability = replace(tt.orbital_stability(run, rng=0), verdict=returns) if returns else None
    one = analysis(verdict=verdict)
    page = runs_page("title", [RunReport("run", {}, one, stability)], None, {})
    (answer,) = re.findall('<p class="answer">(.*?)</p>', page)
    undecided = answer.startswith("The data do not decide whether nearby trainings part exponentially")
    assert undecided == (verdict == "inconclusive")
    assert answer.startswith(one.exponent.summary()) == (verdict != "inconclusive")
    assert answer.count("The data do not decide") == ("inconclusive" in (verdict, returns))
    assert ("leave the orbit" in answer) == (returns == "unstable")
    assert ("whether perturbed trainings come back" in answer) == (returns == "inconclusive")
    assert "reasons say" not in answer


def test_every_metric_is_shown(tmp_path):
    path = tmp_path / "metrics.h5"
    with Recorder(path, {"w": np.zeros(2)}, quiet=True) as rec:
        for t in range(20):
            values = {"loss": max(0.0, 1.0 - t / 12), "accuracy": t / 20, "reward": -1.0 + t, "lr": 0.1}
            rec.record({"w": np.full(2, float(t))}, step=t, **values)
    with tt.open(path) as run:
        assert list(collect(run).metrics) == ["accuracy", "loss", "lr", "reward"]
    call("report", path, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(f"<h3>{name}</h3>" in page for name in ("loss", "accuracy", "reward", "lr"))
    assert "8 at or below 0" in page
    assert "No perturbed copies were recorded" in page


def test_fifty_runs_are_folded(trained, tmp_path):
    with tt.open(trained / "eta=1.h5") as run:
        report = collect(run)
    reports = [replace(report, run=f"run {k}") for k in range(FEW + 1)]
    page = runs_page("many", reports, None, {})
    assert f"Table of all {FEW + 1} runs" in page
    assert len(page) < 120_000 * len(reports)
    assert "Nearby trainings" in page


def test_files_that_are_not_on_the_page_stand_below_the_answer(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in ("first", "second"):
        write(folder / f"{name}.h5", np.random.default_rng(0).random((30, 2, 3)), name=name)
    whole = (folder / "first.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 8])
    (folder / "text.h5").write_text("loss\n")
    call("report", folder, "-o", tmp_path / "page.html", code=1)
    page = (tmp_path / "page.html").read_text()
    check_self_contained(page)
    top = page[page.index('<p class="answer">') : page.index("<nav") if "<nav" in page else page.index("<section")]
    assert "2 of 4 files are not on this page" in top
    assert "<li>cut.h5: was cut short" in top
    assert "<li>text.h5: is not an HDF5 file" in top
    assert str(tmp_path) not in top
    call("report", folder / "first.h5", "-o", tmp_path / "page.html")
    assert "not on this page" not in (tmp_path / "page.html").read_text()


def test_the_page_begins_with_the_step_at_which_a_training_is_lost(tmp_path):
    x = np.random.default_rng(0).random((60, 1, 3)).cumsum(axis=0)
    x[40:] = np.nan
    path = write(tmp_path / "lost.h5", x, members=[Member("only")])
    call("report", path, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert '<p class="answer">The training ends in NaN or infinity, from step 40 on.' in page
    write(tmp_path / "kept.h5", np.ones((9, 1, 3)), members=[Member("only")], name="kept")
    call("report", tmp_path, "-o", tmp_path / "page.html")
    assert "no twins, NaN from step 40" in (tmp_path / "page.html").read_text()


def test_a_run_of_one_state_is_advised_as_a_run(tmp_path):
    path = write(tmp_path / "one.h5", np.ones((1, 1, 3)), members=[Member("only")])
    said = call("lyapunov", path).stdout
    assert "the trajectory has one state, of step 0" in said
    assert "every=1" in said
    assert "x.T" not in said
    for command in ("recurrence", "dimension", "correlation", "distances"):
        assert "record more steps" in call(command, path, code=1).stderr
    assert "x is a row, shape (1, 3)" in str(tt.lyapunov(np.ones((1, 3))).reasons[0])
