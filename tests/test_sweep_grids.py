"""Sweeps over several hyper-parameters: the boundary of chaos, laws of the training time, figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_sweeps import RATES, made, point

import trajtools as tt
from trajtools.errors import DataError, SelectionError
from trajtools.plots.sweeps import _layout
from trajtools.reasons import codes
from trajtools.sweeps.diagram import _medians
from trajtools.sweeps.onset import median

MOMENTA = (0.0, 0.5, 0.8, 0.9)


def grid(onset, *, ys=MOMENTA, error=1e-4, unit=1.0, **hparams):
    """Exponents that leave zero at onset(y) times a unit."""
    points = []
    for y in ys:
        for x in np.geomspace(0.01, 10, 25):
            value = max(0.0, 0.3 * np.log(x / onset(y))) + 1e-4
            points.append(point(unit * x, value, "chaotic" if x > onset(y) else "regular", y=y, error=error, **hparams))
    return made(points, "momentum")


def complement(momentum):
    return 1 - momentum


def flow(x, m, _):
    return (1 - m) / x


def timed(time, *, batches=(16, 64), noise=0.01, seed=0, rates=RATES[:9]):
    """Stable runs with training times time(lr, momentum, batch)."""
    rng = np.random.default_rng(seed)
    return made(
        (
            point(x, 0.0, times=time(x, m, b) * rng.lognormal(0, noise, 5), y=m, momentum=m, batch_size=b, seed=k)
            for k, (m, x, b) in enumerate((m, x, b) for m in MOMENTA for x in rates for b in batches)
        ),
        "momentum",
    )


def delayed(x, m, _):
    return 5 * (1 - m) / x + 10


def test_each_row_of_the_diagram_has_its_onset_with_an_interval():
    found = grid(lambda m: 3 * (1 - m)).phase_diagram()
    assert (found.x_name, found.y_name) == ("lr", "momentum")
    for m, value, (low, high) in zip(MOMENTA, found.boundary, found.intervals, strict=True):
        assert low <= 3 * (1 - m) <= high
        assert low <= value <= high
        assert high / low < 2.5
    assert [str(reason).split(":")[0] for reason in found.reasons] == [f"momentum={m:g}" for m in MOMENTA]


def test_a_row_without_an_onset_says_why():
    found = grid(lambda m: 50 if m == 0.5 else 1.0).phase_diagram()
    assert np.isfinite(found.boundary).tolist() == [True, False, True, True]
    assert np.isnan(found.intervals[1]).all()
    assert any(r.code == "onset-above-range" and r.numbers["momentum"] == 0.5 for r in found.reasons)


def test_an_onset_that_noise_hides_is_not_drawn_as_one():
    quiet = grid(lambda m: 1.0).points
    noisy = [point(p.x, 0.001, "inconclusive", y=0.95, error=0.5) for p in quiet if p.y == 0.9]
    found = made([*quiet, *noisy], "momentum").phase_diagram()
    assert np.isnan(found.boundary[-1])
    assert np.isfinite(found.boundary[:-1]).all()
    assert any(reason.numbers.get("momentum") == 0.95 for reason in found.reasons)


def test_a_cell_that_mixes_runs_says_in_what_they_differ():
    small, large = (grid(lambda m, at=at: at, batch_size=b).points for at, b in ((1.0, 16), (4.0, 64)))
    both = made([*small, *large], "momentum")
    assert any("differ in batch_size;" in words.text for words in both.phase_diagram().reasons)
    alone = both.where(runs=lambda p: p.hparams["batch_size"] == 64)
    assert "runs-differ" not in codes(alone.phase_diagram().reasons)
    assert alone.phase_diagram().boundary == pytest.approx(np.full(4, 4.0), rel=0.2)


def test_runs_are_kept_by_what_they_are():
    sweep = grid(lambda m: 1.0)
    kept = sweep.where(runs=lambda p: p.x < 1)
    assert kept.y_name == "momentum"
    assert all(p.x < 1 for p in kept.points)
    both = sweep.where(0.5, runs=lambda p: p.x < 1)
    assert both.y_name == ""
    assert {p.y for p in both.points} == {0.5}
    with pytest.raises(SelectionError, match=r"selects none of the 100 runs"):
        sweep.where(runs=lambda p: p.x > 100)
    with pytest.raises(SelectionError, match=r"no run has momentum=0.3; there are 0, 0.5, 0.8, 0.9"):
        sweep.where(0.3)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_boundary_follows_the_factor_that_was_planted_and_not_another(unit):
    found = grid(lambda m: 3 * (1 - m), unit=unit).phase_diagram()
    law = found.boundary_law(complement)
    assert law.interval[0] <= 1 <= law.interval[1]
    assert law.power == pytest.approx(1, abs=0.1)
    assert law.proportional
    assert law.constant[0] <= 3 * unit <= law.constant[1]
    assert law.n_used == 4
    other = found.boundary_law(lambda m: 1 + m)
    assert not other.proportional
    assert np.isnan(other.constant).all()
    assert not found.boundary_law(lambda m: 1.0).proportional


def test_a_boundary_that_stays_where_it_is_follows_nothing():
    found = grid(lambda m: 1.0).phase_diagram()
    law = found.boundary_law(complement)
    assert law.interval[0] <= 0 <= law.interval[1]
    same = found.boundary_law(lambda m: 1.0)
    assert same.proportional
    assert np.isnan(same.power)


def test_a_law_of_the_boundary_is_said_in_words():
    found = grid(lambda m: 3 * (1 - m)).phase_diagram()
    assert found.boundary_law(complement, "1 - m").summary().endswith("]; it may be proportional to 1 - m.")
    assert found.boundary_law(lambda m: 1 + m, "1 + m").summary().endswith("]; it is not proportional to 1 + m.")
    assert found.boundary_law(lambda m: 1.0, "1").summary() == "it is not proportional to 1."
    none = grid(lambda m: 50).phase_diagram().boundary_law(complement, "1 - m")
    assert none.summary() == "no law in 1 - m."
    assert str(none.reasons[0]) == "4 of 4 values of momentum have no onset"


def test_a_law_of_the_boundary_needs_two_onsets_and_a_positive_factor():
    single = grid(lambda m: 50 if m else 1.0).phase_diagram().boundary_law(complement)
    assert (single.n_used, single.proportional) == (1, False)
    assert np.isnan(single.power)
    assert codes(single.reasons) == ("no-onset", "too-few-values")
    assert str(single.reasons[0]) == "3 of 4 values of momentum have no onset"
    with pytest.raises(DataError, match="positive at each momentum"):
        grid(lambda m: 1.0).phase_diagram().boundary_law(lambda m: m)


def test_a_law_is_found_where_it_holds_and_its_end_is_said():
    sweep = timed(delayed)
    assert "no-power-law" in codes(sweep.scaling(("lr", "1-momentum")).reasons)
    law = sweep.scaling(("lr", "1-momentum", "batch_size"), runs=lambda p: p.x / (1 - p.y) <= 0.02)
    slow = sweep.scaling(("lr", "1-momentum", "batch_size"), runs=lambda p: p.x / (1 - p.y) <= 1.1)
    assert law.powers == pytest.approx([-1, 1, 0], abs=0.08)
    assert abs(slow.powers[0]) < 0.95
    assert law.n_used == law.used.sum() == sum(p.x / (1 - p.y) <= 0.02 for p in sweep.points)
    assert codes(law.reasons) == ("not-selected",)
    assert law.reasons[0].numbers == {"count": 72 - law.n_used, "runs": 72}
    assert f"{law.n_used} of 72 runs" in str(law)
    # The law is known for the runs that did not enter, too: they are what shows where it ends.
    x, rest, batch = law.factors.T
    by_hand = np.exp(law.constant) * x ** law.powers[0] * rest ** law.powers[1] * batch ** law.powers[2]
    assert law.predicted == pytest.approx(by_hand)
    off = law.times / law.predicted
    assert off[law.used] == pytest.approx(1, abs=0.1)
    assert off[~law.used].max() > 3


def test_how_far_a_law_holds_is_where_the_first_run_leaves_it():
    law = timed(delayed, noise=0.0).scaling(("lr", "1-momentum"), runs=lambda p: p.x / (1 - p.y) <= 0.02)
    rate = law.factors[:, 0] / law.factors[:, 1]
    off = np.maximum(law.times / law.predicted, law.predicted / law.times) > 1.25
    assert law.holds_to(rate) == max(r for r in rate if r < rate[off].min())
    assert law.holds_to(rate, within=100.0) == rate.max()
    assert np.isnan(law.holds_to(rate, off))
    one = law.factors[:, 1] == 1 - 0.9
    assert law.holds_to(rate, one) == max(rate[one & ~off])
    late = replace(law, times=np.where(rate > 0.05, np.inf, law.times))  # they do not arrive
    assert late.holds_to(rate) == max(r for r in rate if r <= 0.05)
    unknown = replace(law, times=np.where(off, np.nan, law.times))
    assert unknown.holds_to(rate) == rate[~off].max()


def test_a_pure_power_law_is_not_called_bent():
    said = [timed(flow, seed=seed, noise=0.2).scaling(("lr", "1-momentum")) for seed in range(30)]
    said += [timed(flow, noise=0.0).scaling(("lr", "1-momentum"))]  # what is left is rounding, and may look bent
    assert sum("no-power-law" in codes(law.reasons) for law in said) == 0


def test_medians_of_many_rows_are_those_of_each():
    rng = np.random.default_rng(3)
    rows = [rng.choice([1.0, 2.0, 5.0, np.inf], n) for n in (1, 2, 3, 4, 7, 7, 6, 2)]
    padded = np.array([[*row, *[np.nan] * (7 - len(row))] for row in rows])
    assert _medians(padded, np.array([len(row) for row in rows])).tolist() == [median(row) for row in rows]


def test_the_interval_of_a_power_covers_it():
    laws = [timed(flow, seed=seed, noise=0.3).scaling(("lr", "1-momentum")) for seed in range(40)]
    covered = [
        [low <= power <= high for power, (low, high) in zip((-1, 1), law.intervals, strict=True)] for law in laws
    ]
    assert np.mean(covered) >= 0.9


def test_runs_that_are_not_shown_to_be_stable_do_not_enter_a_law():
    stable = [point(x, 0.0, times=[1 / x] * 3) for x in RATES[:6]]
    points = [*stable, *(point(x, 0.2, "inconclusive", times=[7.0] * 3) for x in RATES[6:9])]
    points += [point(x, 0.9, "transient", times=[9.0] * 3) for x in RATES[9:11]]
    points += [point(x, 0.0, times=[np.inf] * 3) for x in RATES[11:]]
    law = made(points).scaling()
    assert law.powers == pytest.approx([-1])
    assert law.used.tolist() == [True] * 6 + [False] * 7
    assert np.isinf(law.times).tolist() == [False] * 11 + [True] * 2
    assert [reason.numbers["count"] for reason in law.reasons] == [2, 3, 2]
    assert law.reasons[1].code == "inconclusive"


def test_a_run_left_out_may_lack_a_factor():
    points = [point(x, 0.0, times=[1 / x] * 3, width=b) for x in RATES[:6] for b in (8, 16)]
    law = made([*points, point(50.0, 2.0, "chaotic")]).scaling(("lr", "width"))
    assert np.isnan(law.factors[-1]).all()
    assert np.isnan(law.predicted[-1])
    with pytest.raises(SelectionError, match="no number 'width'"):
        made([*points, point(0.5, 0.0)]).scaling(("lr", "width"))


def test_the_table_shows_what_tells_the_runs_apart():
    lines = [line for line in str(timed(delayed)).splitlines() if "  " in line]
    assert lines[0].split()[:4] == ["lr", "momentum", "batch_size", "run"]
    assert lines[1].split()[2] == "16"
    assert "seed" not in lines[0]


def test_values_are_drawn_evenly():
    assert _layout(np.array([1.0, 2.0, 3.0]))[0] == "linear"
    assert _layout(np.array([0.1, 1.0, 10.0]))[0] == "log"
    scale, places, edges = _layout(np.array([0.0, 0.9, 0.95]))
    assert scale == "index"
    assert places.tolist() == [0, 1, 2]
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert _layout(np.array([0.0, 0.9]))[0] == "index"  # nothing says how two values go on
    assert _layout(np.array([0.9]))[2].tolist() == [-0.5, 0.5]


def test_the_diagram_draws_every_row_and_marks_what_is_unsure():
    points = [p for p in grid(lambda m: 50 if m == 0.5 else 1.0).points if not (p.y == 0.9 and p.x < 0.02)]
    points[3] = point(points[3].x, 0.1, "inconclusive", y=0.0)
    ax = made(points, "momentum").phase_diagram().plot()
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "learning rate", "momentum")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "0.5", "0.8", "0.9"]
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["inconclusive or mixed"].get_ydata().tolist() == [0]
    bars = ax.containers[0]
    assert bars.get_label() == "onset, 95%"
    assert bars.lines[0].get_ydata().tolist() == [0, 2, 3]  # the row without an onset is left out
    assert bars.lines[0].get_xdata() == pytest.approx([1.0] * 3, rel=0.2)


def test_a_law_is_drawn_with_the_runs_that_did_not_enter_it():
    points = [*timed(delayed).points, point(20.0, 1.0, "chaotic", [np.inf], y=0.0, momentum=0.0, batch_size=16)]
    law = made(points, "momentum").scaling(("lr", "1-momentum", "batch_size"), runs=lambda p: p.x / (1 - p.y) <= 0.1)
    ax = law.plot()
    filled = [line for line in ax.get_lines() if line.get_label().startswith("batch_size")]
    assert [line.get_label() for line in filled] == ["batch_size = 16", "batch_size = 64"]
    assert sum(len(line.get_xdata()) for line in filled) == law.n_used
    drawn = sum(len(line.get_xdata()) for line in ax.get_lines() if line.get_marker() in ("o", "^"))
    assert drawn == law.n_total == 73
    assert [words.get_text().strip() for words in ax.texts] == ["not reached"]
    assert len(tt.plots.scaling(law, "1-momentum").get_legend().get_texts()) == 5
    with pytest.raises(SelectionError, match="no factor 'width'; choose from lr"):
        tt.plots.scaling(law, "width")


def test_the_figure_of_a_law_shows_its_runs_and_no_empty_decades():
    law = timed(lambda x, m, b: 5000 * flow(x, m, b)).scaling(("lr", "1-momentum"))
    ax = tt.plots.scaling(law)
    low, high = ax.get_xlim()
    assert low > 0.5 * np.nanmin(law.predicted)
    assert high < 2 * np.nanmax(law.predicted)


def test_what_makes_no_law_and_no_diagram_is_refused_with_the_reason():
    stable = [point(x, 0.0, y=y, times=(10 * x * y,)) for x in (1.0, 2.0, 4.0) for y in (1.0, 2.0)]
    with pytest.raises(DataError, match="level"):
        made(stable, "scale").scaling(level=2)
    with pytest.raises(DataError, match=r"1 stable runs reach 0.9; .* needs at least 4$"):
        made(stable[:1], "scale").scaling()
    with pytest.raises(DataError, match=r"6 of 6 runs have no recorded accuracy$"):
        made([replace(p, times=np.empty((1, 0))) for p in stable], "scale").scaling()
    with pytest.raises(DataError, match="one value for each run"):
        made(stable, "scale").scaling().holds_to(np.ones(5))
    with pytest.raises(SelectionError, match="all 6 of them are"):
        made([replace(p, control=True) for p in stable], "scale").phase_diagram()


def test_times_of_nothing_are_drawn_on_a_linear_axis():
    _, below = tt.plots.sweep(made([point(x, 0.0, times=(0.0,)) for x in (1.0, 2.0)])).axes
    assert below.get_yscale() == "linear"
