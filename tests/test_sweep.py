"""Sweeps: many runs against their hyper-parameters, the onset of chaos, the fastest training, scaling."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_sweeps import RATES, made, point

import trajtools as tt
from recorders import Recorder
from recorders.iris import record
from trajtools.errors import DataError, FormatError, SelectionError
from trajtools.reasons import Reason, codes
from trajtools.sweeps import cache
from trajtools.sweeps.onset import median
from trajtools.sweeps.sweep import mean_growth, training_times

DENSE = np.geomspace(0.1, 10, 13)  # the first grid on which the ratio can be known within a factor of 4


def planted(onset=1.0, noise=0.0, seed=0, rates=RATES):
    """Exponents 0.001 x below the onset and 0.2 ln(x / onset) beyond it; times 100 / x up to the onset, then longer."""
    rng = np.random.default_rng(seed)
    points = []
    for x in rates:
        value = 0.001 * x + max(0.0, 0.2 * np.log(x / onset)) + noise * rng.standard_normal()
        time = 100 / x if x <= onset * 1.01 else 100 * x
        times = time * rng.lognormal(0, 0.05, 9)
        points.append(point(x, value, "chaotic" if x > onset else "regular", times, error=max(noise, 1e-4)))
    return made(points)


def test_a_planted_onset_is_found():
    found = planted(onset=1.2).onset()
    assert found.found
    assert 1.0 <= found.value <= RATES[9]  # no more can be known from the values of the sweep
    assert found.interval[0] <= 1.2 <= found.interval[1]
    assert found.bracket == pytest.approx((1.0, RATES[9]))
    assert found.above == pytest.approx(0.01)  # one e-fold in 100 steps


def test_the_interval_of_the_onset_covers_it_when_exponents_are_noisy():
    covered = [planted(1.2, noise=0.01, seed=seed).onset(above=0.01, rng=seed) for seed in range(40)]
    assert sum(f.found and f.interval[0] <= 1.25 <= f.interval[1] for f in covered) >= 36


def test_no_onset_is_said_with_the_way_out():
    low = made(point(x, 0.001 * x) for x in RATES).onset()
    assert not low.found
    assert low.reasons[0].code == "onset-above-range"
    high = made(point(x, 0.5, "chaotic") for x in RATES).onset()
    assert not high.found
    assert high.reasons[0].code == "onset-below-range"
    assert not made([point(1.0, 0.5, "chaotic")]).onset().found


def test_noise_that_hides_the_onset_is_said():
    found = made([point(0.1, -0.001, error=0.5), point(1.0, 0.02, "sensitive", error=0.5)]).onset(above=0.0)
    assert not found.found
    assert "hidden-by-noise" in codes(found.reasons)


def test_a_single_sensitive_value_between_stable_ones_is_no_onset():
    values = np.where(np.arange(13) == 6, 0.3, 0.0)
    found = made(point(x, v, "transient" if v else "regular") for x, v in zip(RATES, values, strict=True)).onset()
    assert not found.found
    assert "1 isolated values" in found.reasons[0].text


def test_slow_growth_along_negative_curvature_is_not_an_onset():
    points = [point(x, 0.02 * x, duration := "regular") for x in RATES[:9]]
    assert duration == "regular"
    points += [point(x, 0.02 * x + 0.4 * np.log(x), "transient") for x in RATES[9:]]
    found = made(points).onset()
    assert found.found
    assert found.value > 0.99


def test_onset_does_not_depend_on_the_unit_of_the_rate():
    scaled = made(
        point(1000 * p.x, p.exponent.value, p.exponent.verdict, p.times[0], error=1e-4) for p in planted(1.2).points
    )
    assert scaled.onset(rng=1).value == pytest.approx(1000 * planted(1.2).onset(rng=1).value, rel=1e-9)


def test_the_fastest_rate_is_found_with_its_neighbours():
    found = planted(onset=1.0).fastest()
    assert found.value == pytest.approx(1.0)
    assert found.inside
    assert found.interval == pytest.approx((RATES[7], RATES[9]))
    assert found.within[0] <= found.value <= found.within[1]


def test_a_minimum_at_the_end_of_the_range_is_said():
    found = made(point(x, 0.0, times=[100 / x] * 5) for x in RATES).fastest()
    assert not found.inside
    assert "end-of-range" in codes(found.reasons)


def test_runs_that_never_arrive_count_as_infinite():
    points = [
        point(0.1, times=[50.0] * 4),
        point(1.0, times=[5.0, np.inf, np.inf, np.inf]),
        point(10.0, times=[np.inf]),
    ]
    assert made(points).fastest().value == 0.1
    assert np.isnan(made(points[2:]).fastest().value)


def test_the_lower_middle_value_counts_where_the_upper_is_infinite():
    assert median(np.array([3.0, np.inf])) == 3.0
    assert median(np.array([3.0, 5.0])) == 4.0
    assert median(np.array([3.0, np.inf, np.inf])) == np.inf


def test_onset_and_minimum_coincide_where_they_were_planted_together_and_not_else():
    together = planted(rates=DENSE).coincidence()
    assert together.verdict == "coincide"
    assert together.ratio == pytest.approx(1.0, rel=0.1)
    apart = made(retimed(planted(rates=DENSE).points, fastest=0.2)).coincidence()
    assert apart.verdict == "differ"
    assert apart.interval[1] < 1
    assert apart.interval[1] <= 4 * apart.interval[0]


def retimed(points, fastest):
    """The same exponents, with training times that are smallest at another rate."""
    return [
        point(p.x, p.exponent.value, p.exponent.verdict, [100 * abs(np.log(p.x / fastest)) + 1] * 6, error=1e-4)
        for p in points
    ]


@pytest.mark.parametrize("fastest", [0.03, 1.0])
def test_a_coarse_grid_decides_nothing_and_names_its_gaps(fastest):
    rates = np.array([0.001, 0.01, 0.03, 0.5, 1.0, 2.0])
    found = made(retimed(planted(onset=0.2, rates=rates).points, fastest)).coincidence()
    assert found.verdict == "not decided"
    assert found.interval[1] > 4 * found.interval[0]
    assert {"wide-ratio", "sparse-grid"} <= set(codes(found.reasons))
    assert np.isnan(found.ratio)
    assert "fastest-over-onset" not in codes(found.reasons)
    assert "fastest rate lies between" in " ".join(str(found).split())
    (gap,) = (reason for reason in found.onset.reasons if reason.code == "sparse-grid")
    assert (gap.numbers["low"], gap.numbers["high"]) == (0.03, 0.5)
    assert "sparse-grid" not in codes(planted(rates=DENSE).coincidence().onset.reasons)


def test_a_single_initial_condition_or_an_unknown_error_decides_nothing():
    points = planted(rates=DENSE).points
    single = made(replace(p, times=p.times[:, :1]) for p in points).coincidence()
    assert single.verdict == "not decided"
    assert "interval-unknown" in codes(single.reasons)
    unknown = (np.nan, np.nan)
    blind = made(replace(p, exponent=replace(p.exponent, interval=unknown)) for p in points).coincidence()
    assert blind.verdict == "not decided"
    assert "interval-unknown" in codes(blind.reasons)
    assert np.isnan(blind.ratio)
    assert "fastest-over-onset" not in codes(blind.reasons)  # a ratio to an onset that is not known


def test_a_minimum_at_the_end_of_the_range_or_no_onset_decides_nothing():
    end = made(retimed(planted(rates=DENSE).points, fastest=0.1)).coincidence()
    assert end.verdict == "not decided"
    assert "end-of-range" in codes(end.reasons)
    none = made(point(x, 0.001, times=[10.0 + abs(np.log(x))] * 5) for x in DENSE).coincidence()
    assert none.verdict == "not decided"
    assert "onset-above-range" in codes(none.reasons)


@pytest.mark.parametrize("word", ["chaotic", "transient", "sensitive"])
def test_every_kind_of_exponential_growth_counts_as_sensitive(word):
    points = [
        replace(p, exponent=replace(p.exponent, verdict=word)) if p.exponent.verdict == "chaotic" else p
        for p in planted(1.2).points
    ]
    found = made(points).onset()
    assert found.value == planted(1.2).onset().value
    assert found.bracket == pytest.approx((1.0, RATES[9]))


def test_the_verdict_and_not_the_size_of_the_exponent_says_on_which_side_a_value_lies():
    # Diffusion of twins has a rate, too: a third of it would hide an onset that every single run shows.
    points = [point(x, 0.03, "regular", error=1e-4) for x in RATES[:9]]
    points += [point(x, 0.05, "sensitive", error=1e-4) for x in RATES[9:]]
    found = made(points).onset()
    assert found.found
    assert found.interval == pytest.approx((RATES[8], RATES[9]))


@pytest.mark.parametrize(
    ("change", "why", "code"),
    [
        ({"verdict": "inconclusive"}, "inconclusive", "inconclusive"),
        ({"verdict": "diverging", "growth": "diverging"}, "diverging", "diverging"),
        ({"warnings": (Reason("not-converged", "a second epsilon differs"),)}, "not converged", "not-converged"),
        ({"outcome": "diverged"}, "diverged", "diverged"),
        ({"outcome": "dead"}, "dead", "dead"),
    ],
)
def test_runs_without_a_tested_exponent_do_not_vote_and_are_counted(change, why, code):
    # The four largest values are far below the onset's limit: they would hide it.
    points, lost = list(planted(rates=DENSE).points), slice(-4, None)
    for k in range(len(points))[lost]:
        exponent = replace(points[k].exponent, value=-0.3, interval=(-0.31, -0.29))
        if "outcome" in change:
            points[k] = replace(points[k], exponent=exponent, **change)
        else:
            points[k] = replace(points[k], exponent=replace(exponent, **change))
    sweep = made(points)
    found = sweep.onset()
    assert found.found
    assert found.interval[0] <= 1.0 <= found.interval[1]
    (reason,) = (reason for reason in found.reasons if reason.code == code)
    assert (reason.numbers["count"], reason.numbers["runs"]) == (4, 13)
    assert found.settings["points"] == 9
    assert found.settings["left_out"] == {why: DENSE[lost].tolist()}
    curve = sweep.exponents()
    assert curve.verdict[-4:] == (why,) * 4
    assert curve.votes.tolist() == [True] * 9 + [False] * 4
    assert why in [text.get_text() for text in sweep.plot().axes[0].get_legend().get_texts()]


def test_a_run_without_a_vote_leaves_the_other_seeds_of_its_value_alone():
    points = [replace(p, path=f"{seed}") for p in planted(1.2).points for seed in range(3)]
    points[30] = replace(points[30], exponent=replace(points[30].exponent, verdict="inconclusive", value=99.0))
    found = made(points).onset()
    assert found.value == pytest.approx(planted(1.2).onset().value)
    assert "inconclusive" in codes(found.reasons)


def test_inconclusive_values_at_the_onset_widen_it():
    points = [
        replace(p, exponent=replace(p.exponent, verdict="inconclusive")) if 0.5 < p.x < 2.2 else p
        for p in planted(rates=DENSE).points
    ]
    found = made(points).coincidence()
    assert found.verdict == "not decided"
    assert "sparse-grid" not in codes(found.onset.reasons)  # something was run there, and is counted
    assert found.onset.interval[0] < 0.5
    assert found.onset.interval[1] > 2.2


def test_values_that_are_not_positive_have_no_ratio():
    points = [
        point(x, 0.3 if x > 0 else 1e-3, "chaotic" if x > 0 else "regular", [10 + abs(x)] * 5, error=1e-4)
        for x in (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    ]
    found = made(points).coincidence()
    assert found.onset.found
    assert found.verdict == "not decided"
    assert "no-ratio" in codes(found.reasons)


def test_negative_and_diverged_runs_never_count_as_stable_in_a_law():
    points = [point(x, 0.0, times=[1 / x] * 5) for x in RATES[:8]]
    points += [replace(point(x, 0.0, times=[50.0] * 5), outcome="dead") for x in RATES[8:10]]
    points += [point(RATES[10], 0.0, "diverging", times=[50.0] * 5)]
    law = made(points).scaling()
    assert law.n_used == 8
    assert law.powers == pytest.approx([-1])
    (reason,) = (reason for reason in law.reasons if reason.code == "diverged")
    assert reason.numbers["count"] == 3


def trained(folder, rate, states, **metrics):
    """Record weights and metrics of one member with the shadow's growth per step."""
    with Recorder(folder / f"lr={rate:g}.h5", {"w": states[0]}, hparams={"lr": rate}, quiet=True) as recorder:
        for t, state in enumerate(states):
            recorder.record({"w": state}, **{name: values[t] for name, values in metrics.items()})


def test_dead_and_diverged_trainings_are_recognised_in_recorded_runs(tmp_path):
    t = np.arange(80)
    walk = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    falling, chance, late = np.exp(-t / 20.0), np.full(80, 2.3), np.where(t < 5, 2.4, 2.3)
    growing = np.where(t < 40, np.exp(t / 2.0), np.nan)
    trained(tmp_path, 0.1, walk, loss=falling, accuracy=1 - falling / 2)
    trained(tmp_path, 0.2, np.where(t[:, None] < 40, walk, np.nan), loss=growing, accuracy=falling)
    trained(tmp_path, 0.3, walk, loss=np.where(t < 40, falling, np.inf), accuracy=chance)
    trained(tmp_path, 0.4, walk, loss=late, accuracy=np.full(80, 0.1))
    trained(tmp_path, 0.5, walk, loss=np.where(t < 5, 80.0, 2.3), accuracy=np.full(80, 0.1))
    trained(tmp_path, 0.6, walk, loss=np.where(t < 40, falling, falling[40]), accuracy=0.1 + np.minimum(t, 40) / 50)
    trained(tmp_path, 0.7, walk, accuracy=np.full(80, 0.1))
    trained(tmp_path, 0.8, walk, loss=np.where(t % 2, np.nan, falling), accuracy=np.where(t % 2, np.nan, 1 - falling))
    found = {p.x: p.outcome for p in tt.sweep(tmp_path, exponent=None).points}
    assert found == {
        0.1: "trained",
        0.2: "diverged",
        0.3: "diverged",
        0.4: "dead",
        0.5: "dead",  # it fell from a large loss to that of chance
        0.6: "trained",  # it has learned, and rests
        0.7: "trained",  # without a loss nothing is said
        0.8: "trained",
    }
    assert "(dead)" in str(tt.sweep(tmp_path, exponent=None))


def test_a_loss_without_accuracy_and_without_a_value_for_the_last_state_is_shown(tmp_path):
    walk = np.random.default_rng(0).standard_normal((20, 3)).cumsum(axis=0)
    loss = np.append(np.exp(-np.arange(19) / 20.0), np.nan)  # no forward pass after the last step
    trained(tmp_path, 0.1, walk, loss=loss)
    trained(tmp_path, 0.2, np.where(np.arange(20)[:, None] < 9, walk, np.nan), loss=loss)
    found = tt.sweep(tmp_path, exponent=None)
    assert [p.final_loss.tolist() for p in found.points] == [[loss[18]], [pytest.approx(np.nan, nan_ok=True)]]
    assert not {"accuracy", "sharpness"} & set(str(found).splitlines()[1].split())
    assert "2 runs (lr=0.1, ...): no metric 'accuracy'" in str(found)
    assert "no run has the metric" in str(found.fastest())
    assert found.plot().axes[1].get_ylabel() == "last loss"


@pytest.mark.parametrize(("at_the_end", "code"), [(5.0, "control-faster"), (500.0, "control-no-faster")])
def test_the_control_says_what_makes_the_minimum(at_the_end, code):
    points = [*planted(onset=1.0).points, *(point(x, times=[at_the_end] * 5, control=True) for x in RATES[10:])]
    assert code in codes(made(points).coincidence().reasons)
    assert "no-control" in codes(planted(1.0).coincidence().reasons)


def test_a_power_law_of_the_training_time_is_found_where_training_is_stable():
    rng = np.random.default_rng(0)
    points = [
        point(x, 0.0, times=200 * (1 - m) / x * rng.lognormal(0, 0.02, 7), y=m, momentum=m)
        for x in RATES[:8]
        for m in (0.0, 0.5, 0.9)
    ]
    points.append(point(20.0, 1.0, "chaotic", times=[1.0], y=0.0, momentum=0.0))
    found = made(points, "momentum").scaling(("lr", "1-momentum"))
    assert found.powers == pytest.approx([-1, 1], abs=0.03)
    assert all(low <= power <= high for (low, high), power in zip(found.intervals, (-1, 1), strict=True))
    assert (found.n_used, found.n_total) == (24, 25)
    assert found.scatter < 0.05
    assert "sensitive" in codes(found.reasons)


def test_a_law_with_too_few_runs_is_refused():
    with pytest.raises(DataError, match="needs at least 3"):
        made([point(0.1), point(0.2)]).scaling()
    with pytest.raises(SelectionError, match="no number 'batch'"):
        made(point(x) for x in RATES).scaling(("batch",))


def test_a_single_factor_needs_no_tuple():
    sweep = made(point(x) for x in RATES)
    assert sweep.scaling("lr").powers.tolist() == sweep.scaling(("lr",)).powers.tolist()


def test_two_hyper_parameters_make_a_diagram():
    points = [
        point(x, 0.2 * np.log(x * y) + 0.001, "chaotic" if x * y > 1 else "regular", y=y, error=1e-3)
        for x in RATES
        for y in (0.5, 1.0, 2.0)
    ]
    found = made(points, "scale").phase_diagram()
    assert found.exponent.shape == (3, 13) == found.count.shape
    assert found.boundary == pytest.approx([2.0, 1.0, 0.5], rel=0.2)
    assert found.verdict[0][0] == "regular"
    assert found.verdict[2][12] == "chaotic"
    with pytest.raises(SelectionError, match="two hyper-parameters"):
        made(points, "scale").onset()
    assert made(points, "scale").where(1.0).onset().found


def test_training_times_are_those_of_a_slow_search():
    rng = np.random.default_rng(1)
    accuracy = rng.uniform(0, 1, (40, 5))
    accuracy[rng.uniform(size=accuracy.shape) < 0.3] = np.nan
    step = 3 * np.arange(40)
    for stays in (1, 2, 3):
        found = training_times(step, accuracy, (0.5, 0.8, 1.1), stays)
        for row, threshold in enumerate((0.5, 0.8, 1.1)):
            for column in range(5):
                known = [(s, a) for s, a in zip(step, accuracy[:, column], strict=True) if not np.isnan(a)]
                hits = [
                    known[k][0]
                    for k in range(len(known) - stays + 1)
                    if all(a >= threshold for _, a in known[k : k + stays])
                ]
                assert found[row, column] == (hits[0] if hits else np.inf)


def test_mean_growth_covers_the_mean_of_correlated_growth():
    covered = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).standard_normal(600)
        series = 0.1 + np.convolve(noise, np.ones(5) / 5, "same")
        _, (low, high) = mean_growth(series[:, None], np.random.default_rng(seed))
        covered += low <= 0.1 <= high
    assert covered >= 52


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for rate in (0.05, 0.3, 2.0):
        record(folder, rate, inits=6, copies=2, steps=150)
    return folder


def test_recorded_runs_become_a_sweep(iris):
    found = tt.sweep(iris, "lr", thresholds=(0.8, 0.6))
    assert [p.x for p in found.points] == [0.05, 0.3, 2.0]
    assert found.thresholds == (0.6, 0.8)
    for p in found.points:
        assert p.times.shape == (2, 6)  # references only, not their twins
        with tt.open(p.path) as run:
            references = [k for k, m in enumerate(run.members) if m.reference < 0]
            accuracy = run.metrics["accuracy"][:, references]
            assert p.final_accuracy == pytest.approx(accuracy[-1])
            assert p.times[0] == pytest.approx(training_times(run.step, accuracy, (0.6,))[0])
            assert p.exponent.value == tt.lyapunov(run).value
    assert found.points[0].exponent.value < found.points[2].exponent.value
    assert tt.sweep(tt.open_runs(iris), thresholds=(0.8, 0.6)).to_json() == found.to_json()
    assert "lr" in str(found)
    assert str(found).count("\n") >= 3
    found.to_json()


def test_an_executor_gives_the_same_sweep(iris):
    with ThreadPoolExecutor(2) as pool:
        counted = []
        other = tt.sweep(iris, executor=pool, progress=lambda done, total: counted.append((done, total)))
    assert other.to_json() == tt.sweep(iris).to_json()
    assert counted == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.fixture
def kept(iris, tmp_path, monkeypatch):
    """Copies of the runs, whose times of change count as old, and a function that sweeps them with a cache."""
    shutil.copytree(iris, tmp_path / "runs")
    monkeypatch.setattr(cache, "SETTLED", -3600.0)

    def sweep(stop=None, **options):
        known = []

        def progress(done, total):
            known.append(done)
            if done == stop:
                raise KeyboardInterrupt

        result = tt.sweep(tmp_path / "runs", cache=tmp_path / "kept.jsonl", progress=progress, **options)
        return known[0], result

    return sweep


def test_an_interrupted_sweep_goes_on(kept, tmp_path):
    whole = tt.sweep(tmp_path / "runs", thresholds=(0.6,))
    with pytest.raises(KeyboardInterrupt):
        kept(stop=2, thresholds=(0.6,))
    with open(tmp_path / "kept.jsonl", "ab") as file:  # a writer that was killed
        file.write(b"0123456789abcdef0123456789abcdef 00000000 {")
    for known in (2, 3):
        found, result = kept(thresholds=(0.6,))
        assert found == known
        assert json.dumps(cache.encode(result)) == json.dumps(cache.encode(whole))
        assert result.to_json() == whole.to_json()
        assert str(result) == str(whole)
    assert kept(thresholds=(0.7,))[0] == 0


def test_a_run_whose_file_or_result_was_changed_is_measured_again(kept, tmp_path):
    _, before = kept()
    first = Path(before.points[0].path)
    record(tmp_path / "runs", 0.05, inits=6, copies=2, steps=120, mode="w")
    os.utime(first, ns=(first.stat().st_atime_ns, 10**18))  # whatever times are set
    known, after = kept()
    assert known == 2
    assert [p.steps for p in after.points] == [120, 150, 150]
    shutil.copy(before.points[1].path, tmp_path / "copy.h5")
    os.replace(tmp_path / "copy.h5", before.points[1].path)
    assert kept()[0] == 2  # the same content in another file: nothing says so without reading it
    lines = (tmp_path / "kept.jsonl").read_bytes().split(b"\n")
    lines[-2] = lines[-2].replace(b"150", b"151")
    (tmp_path / "kept.jsonl").write_bytes(b"\n".join(lines))
    assert kept()[0] == 2


def test_a_file_that_was_just_written_is_not_kept(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", 3600.0)
    assert [kept()[0], kept()[0]] == [0, 0]


def test_a_cache_is_never_another_file(kept, tmp_path):
    (tmp_path / "kept.jsonl").write_text("my notes")
    with pytest.raises(DataError, match="is no cache of a sweep"):
        kept()
    assert (tmp_path / "kept.jsonl").read_text() == "my notes"


@pytest.mark.parametrize("exponent", ["metric:loss", "trajectory", "auto"])
def test_every_kind_of_exponent_is_kept_whole(kept, exponent):
    assert kept(exponent=exponent)[1].to_json() == kept(exponent=exponent)[1].to_json()


def test_runs_without_the_hyper_parameter_are_named(iris, tmp_path):
    path = tmp_path / "odd.h5"
    with Recorder(path, {"w": np.zeros(3)}, hparams={"lr": "high"}, quiet=True) as recorder:
        recorder.record({"w": np.ones(3)})
    found = tt.sweep([iris, path], exponent=None)
    assert len(found.points) == 3
    assert "odd" in found.warnings[0].text
    with pytest.raises(DataError, match="no run with the hyper-parameter 'width'"):
        tt.sweep(iris, "width")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        tt.sweep(str(tmp_path / "none*.h5"))


def test_recorded_growth_is_an_exponent(tmp_path):
    path = tmp_path / "growth.h5"
    rng = np.random.default_rng(0)
    with Recorder(path, {"w": np.zeros(2)}, hparams={"lr": 0.1}, quiet=True) as recorder:
        for _ in range(200):
            recorder.record({"w": rng.standard_normal(2)}, growth=0.05 + 0.02 * rng.standard_normal())
    found = tt.sweep(path, exponent="metric:growth").points[0].exponent
    assert found.value == pytest.approx(0.05, abs=0.01)
    assert found.interval[0] < 0.05 < found.interval[1]
    assert (found.verdict, found.growth, found.persistence) == ("sensitive", "exponential", "not tested")
    assert tt.sweep(path).points[0].exponent is None
    with pytest.raises(SelectionError, match="no metric 'shrinkage'"):
        tt.sweep(path, exponent="metric:shrinkage")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"thresholds": ()}, "at least one"), ({"stays": 0}, "stays=0"), ({"thresholds": (np.nan,)}, "at least one")],
)
def test_nonsense_is_refused(iris, arguments, words):
    with pytest.raises(DataError, match=words):
        tt.sweep(iris, **arguments)


@pytest.mark.parametrize(
    ("mean", "noise", "verdict", "growth"),
    [
        (-0.05, 0.02, "regular", "contracting"),
        (0.0, 1e-4, "regular", "none"),
        (0.0, 0.5, "inconclusive", "undecided"),
        (np.nan, 0.0, "inconclusive", "undecided"),
    ],
)
def test_recorded_growth_is_judged_on_both_sides(tmp_path, mean, noise, verdict, growth):
    rng = np.random.default_rng(0)
    path, values = tmp_path / "growth.h5", mean + noise * rng.standard_normal(400)
    with Recorder(path, {"w": np.zeros(2)}, hparams={"lr": 0.1}, quiet=True) as recorder:
        for value in values - np.mean(values) + mean:
            recorder.record({"w": rng.standard_normal(2)}, growth=value)
    found = tt.sweep(path, exponent="metric:growth").points[0].exponent
    assert (found.verdict, found.growth) == (verdict, growth)
    assert found.reasons


def test_sweeps_and_diagrams_are_drawn():
    figure = planted(1.2).plot()
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]
    points = [point(x, np.log(x * y), y=y) for x in RATES for y in (0.5, 2.0)]
    ax = tt.plots.phase_diagram(made(points, "scale").phase_diagram(), ("lr", "scale"))
    assert ax.get_xlabel() == "lr"


def test_a_constant_rate_that_was_recorded_is_the_learning_rate(tmp_path):
    for name, rates in (("constant", [0.1, 0.1, 0.1]), ("falling", [0.1, 0.05, 0.01])):
        with Recorder(tmp_path / f"{name}.h5", {"w": np.zeros(2)}, quiet=True) as recorder:
            for step, rate in enumerate(rates, 1):
                recorder.record({"w": np.full(2, float(step))}, learning_rate=rate)
    result = tt.sweep(tmp_path, "lr", exponent=None)
    assert [(point.run, point.x) for point in result.points] == [("constant", 0.1)]
    assert codes(result.warnings) == ("no-hyper-parameter",)
    assert "not constant" in str(result.warnings[0])


def test_no_files_and_only_unreadable_ones_are_errors(tmp_path):
    with pytest.raises(DataError, match="no files to compare"):
        tt.sweep([])
    (tmp_path / "text.h5").write_text("no run")
    with pytest.raises(FormatError, match=r"text\.h5"):
        tt.sweep(tmp_path / "text.h5")
