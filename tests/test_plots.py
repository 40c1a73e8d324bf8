import subprocess
import sys
import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from command_line import ROOT
from made_divergences import divergence, exponent
from made_sweeps import made, point

import trajtools as tt
from trajtools import plots
from trajtools.errors import SelectionError
from trajtools.exponents.exponent import VERDICTS
from trajtools.plots._axes import (
    LARGEST,
    VERDICT_COLORS,
    interval,
    legend_above,
    literal,
    logarithmic,
    new_figure,
    number,
    save_figure,
    styled,
    window,
)


def labelled(ax):
    return {line.get_label(): line for line in ax.lines}


def thin_lines(ax):
    return [line for line in ax.lines if line.get_linewidth() == 0.5]


def test_figure_shows_every_initial_condition_their_mean_the_fit_and_the_floor():
    growth = divergence(slope=0.3, inits=6)
    growth.floor[:] = 1e-10
    stretches = np.array([[10.0, -15.0, 40.0, -6.0], [12.0, -14.0, 30.0, -5.0]])
    ax = plots.divergence(growth, exponent(growth, 0.3, saturation_level=-1.0, stretches=stretches))
    lines = labelled(ax)
    assert len(thin_lines(ax)) == 6
    assert {"6 curves", "mean of all curves", "rounding floor"} <= set(lines)
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel() == "time since the perturbation (step)"
    assert ax.get_ylabel() == "distance to the reference (l1)"
    fit = lines["0.300 [0.280, 0.330] 1/step"]
    np.testing.assert_allclose(fit.get_ydata(), 1e-8 * np.exp(0.3 * np.array([10.0, 40.0])), rtol=1e-12)
    np.testing.assert_allclose(lines["mean of all curves"].get_ydata(), np.exp(growth.log_distance), rtol=1e-12)
    np.testing.assert_allclose(lines["rounding floor"].get_ydata(), 1e-10, rtol=1e-12)
    np.testing.assert_allclose(lines["fitted stretches"].get_xdata(), [10, 40])
    np.testing.assert_allclose(lines["fitted stretches"].get_ydata(), np.exp([-15, -6]))
    np.testing.assert_allclose(lines["saturation"].get_ydata(), np.exp(-1.0))


def test_every_verdict_has_a_colour_of_its_own():
    assert set(VERDICT_COLORS) == set(VERDICTS)
    assert len(set(VERDICT_COLORS.values())) == len(VERDICTS)


def test_a_phase_diagram_marks_what_is_unsure_and_what_diverged():
    words = ("regular", "inconclusive", "sensitive", "diverging", "chaotic")
    points = [
        point(x, 0.1, word, y=y) for x, word in zip((0.1, 0.2, 0.4, 0.8, 1.6), words, strict=True) for y in (1, 2)
    ]
    lines = labelled(plots.phase_diagram(made(points, "scale").phase_diagram()))
    assert lines["inconclusive or mixed"].get_xdata().tolist() == [0.2, 0.2]
    assert lines["diverged or dead"].get_xdata().tolist() == [0.8, 0.8]


def test_figure_without_a_fit_says_so():
    growth = divergence()
    ax = plots.divergence(growth, exponent(growth, np.nan, verdict="inconclusive"))
    assert "inconclusive: nothing fitted" in labelled(ax)


def test_results_draw_themselves():
    growth = divergence()
    assert len(thin_lines(growth.plot())) == 6
    assert "0.300 [0.280, 0.330] 1/step" in labelled(exponent(growth).plot())


@pytest.mark.parametrize(("most", "drawn"), [(1, 1), (2, 2), (40, 40), (49, 49), (50, 50), (1000, 50)])
def test_the_curves_that_are_drawn_are_spread_over_all(most, drawn):
    growth = divergence(inits=50, copies=1)
    ax = plots.divergence(growth, max_curves=most)
    lines = thin_lines(ax)
    assert len(lines) == drawn
    curves = np.exp(growth.orbit_curves())
    np.testing.assert_array_equal(lines[0].get_ydata(), curves[0])
    if drawn > 1:
        np.testing.assert_array_equal(lines[-1].get_ydata(), curves[-1])
    assert ("50 curves" if drawn == 50 else f"{drawn} of 50 curves") in labelled(ax)


@pytest.mark.parametrize("average", ["mean-log", "log-mean", "rms"])
def test_there_is_one_thin_curve_per_initial_condition(average):
    growth = divergence(inits=4, copies=3, average=average)
    curves = growth.orbit_curves()
    assert curves.shape == (4, len(growth.time))
    first = growth.distances[:3]
    expected = {
        "mean-log": np.log(first).mean(axis=0),
        "log-mean": np.log(first.mean(axis=0)),
        "rms": 0.5 * np.log((first**2).mean(axis=0)),
    }[average]
    np.testing.assert_allclose(curves[0], expected, rtol=1e-12)


def test_perturbations_at_other_times_are_curves_of_their_own():
    growth = divergence(inits=2, copies=2)
    growth.start[:] = [0, 50, 0, 50]
    assert len(growth.orbit_curves()) == 4


def test_the_mean_does_not_jump_where_curves_end():
    t = np.arange(60.0)
    rows = [1e-9 * np.exp(0.2 * t[:n]) * (1 + 30 * k) for k, n in enumerate((20, 35, 60, 60, 60))]
    growth = tt.Divergence.from_distances(rows)
    lines = {line.get_label(): line for line in growth.plot().get_lines()}
    drawn = np.log(lines["mean of the 3 longest curves"].get_ydata())
    np.testing.assert_allclose(np.diff(drawn), 0.2, rtol=1e-9)
    assert np.abs(np.diff(growth.log_distance)).max() > 0.5


def test_floor_is_the_median_over_the_twins_and_unknown_where_it_is_unknown():
    growth = divergence(inits=3, copies=1)
    growth.floor[:, 1:] = np.array([[1e-13], [2e-13], [4e-13]])
    growth.floor[:, 0] = np.nan
    floor = growth.floor_curve()
    assert np.isnan(floor[0])
    np.testing.assert_allclose(np.exp(floor[1:]), 2e-13, rtol=1e-12)


def areas(ax, label=None):
    """Corners of the filled areas."""
    return [c.get_paths()[0].vertices for c in ax.collections if label is None or c.get_label() == label]


def test_the_interval_is_a_wedge_of_slopes_from_the_start_of_the_fit():
    growth = divergence()
    fitted = exponent(growth, 0.3)
    ends, low, high = fitted.interval_lines()
    np.testing.assert_allclose(ends, [10, 40])
    np.testing.assert_allclose(high - low, [0, 30 * 0.05], atol=1e-12)
    wedge = next(area for area in areas(plots.divergence(growth, fitted)) if len(area) > 4)
    assert wedge[:, 1].max() == pytest.approx(np.exp(high[1]))
    unknown = replace(fitted, interval=(np.nan, np.nan))
    assert unknown.interval_lines() is None
    assert not areas(plots.divergence(growth, unknown))


def test_the_null_is_a_band_in_the_time_of_the_curve():
    growth = replace(divergence(), method="rosenstein")
    curves = {"lag": np.arange(3), "record": np.log([1e-3, 1e-2, 1e-1])}
    curves |= {"low": np.log([0.1, 0.2, 0.3]), "high": np.log([0.4, 0.5, 0.6])}
    fitted = exponent(growth, 0.3, null_band=curves, dt=0.5, interpolated=4)
    np.testing.assert_allclose(fitted.null_band()["time"], [0, 2, 4])
    ax = plots.divergence(growth, fitted)
    (band,) = areas(ax, "null: 90% of the surrogates")
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.1, 0.6))
    tested = labelled(ax)["tested curve"]
    np.testing.assert_allclose(tested.get_ydata(), [1e-3, 1e-2, 1e-1])
    assert ax.get_ylabel() == "distance of neighbours (l1)"
    assert exponent(growth, 0.3).null_band() is None
    unknown = curves | {"low": np.full(3, np.nan), "high": np.full(3, np.nan)}
    assert exponent(growth, 0.3, null_band=unknown).null_band() is None


def test_surrogates_leave_their_curves_for_the_figure():
    x = tt.systems.henon().trajectory(600, rng=np.random.default_rng(0))
    band = tt.lyapunov(x, dt=0.5).null_band()
    assert band["time"][0] == 0
    assert (band["low"] <= band["high"]).all()
    # Chaos keeps its neighbours closer than noise with the same spectrum does, until they saturate.
    assert (band["record"][:4] < band["low"][:4]).all()


def test_the_band_of_twins_is_what_the_null_comes_to_for_each_curve():
    rng = np.random.default_rng(0)
    rates = 0.3 + 0.1 * rng.standard_normal((12, 70))
    pairs = [(np.ones((70, 1)), [1 + 1e-9 * np.exp(one.cumsum())[:, None]]) for one in rates]
    fitted = tt.twins(pairs).fit()
    band = fitted.null_band()
    assert band["time"][0] >= fitted.window[0] - 1  # the median onset, which half of the curves have reached
    assert np.all(band["low"] <= band["high"])
    # No power law up to the third rises so far: it begins above the curve and ends below it.
    assert band["low"][0] > band["record"][0]
    assert band["high"][-1] < band["record"][-1]
    ax = plots.divergence(fitted.curve, fitted)
    assert len(areas(ax, "null: 90% of the surrogates")) == 1
    assert "tested curve" not in labelled(ax)  # of twins it is the mean
    assert tt.twins(pairs).fit(null=None).null_band() is None


def test_several_divergences_share_a_figure():
    growth = divergence()
    figure = plots.divergences([("a", growth, exponent(growth)), ("b", growth, None), ("c", growth, None)])
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c"]
    assert {ax.get_ylim() for ax in figure.axes} == {figure.axes[0].get_ylim()}


def test_the_signal_of_change_points_is_named_in_words():
    x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    ax = plots.change_points(tt.structure.change_points(x))
    assert ax.get_ylabel() == ax.lines[0].get_label() == "step length"


def test_a_loss_is_logarithmic_and_counts_what_is_not_positive():
    ax = plots.metric([0, 10, 20, 30], [3.0, 0.0, 0.5, np.nan], "loss")
    line, rest = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 10, 20, 30])
    np.testing.assert_array_equal(line.get_ydata(), [3.0, np.nan, 0.5, np.nan])
    assert rest.get_label() == "1 at or below 0"
    assert rest.get_xdata().tolist() == [10]
    assert ax.get_ylim() == pytest.approx((0.5 / 1.15, 3 * 1.15))
    assert ax.get_xlim() == (0, 30)
    assert (ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "step", "loss")


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("accuracy", [0.1, 0.9], "linear"),
        ("test_acc", [0.0, 1.0], "linear"),
        ("loss", [1.0, 1.0], "log"),
        ("reward", [-1.0, 5.0], "linear"),
        ("grad_norm", [0.1, 5.0], "log"),
        ("grad_norm", [1.0, 5.0], "linear"),
        ("accuracy", [10.0, 90.0], "linear"),
        ("elbo_loss", [-5.0, -1.0], "linear"),
        ("nothing", [np.nan, np.nan], "linear"),
    ],
)
def test_a_metric_has_the_axis_of_its_values(name, values, scale):
    ax = plots.metric([0, 1], values, name)
    assert ax.get_yscale() == scale
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    known = [value for value in values if np.isfinite(value)]
    assert all(low <= value <= high for value in known)


def test_figures_of_our_own_have_our_style_and_those_of_the_caller_theirs():
    before = dict(matplotlib.rcParams)
    ours = plots.metric([0, 1], [1.0, 2.0], "loss")
    assert ours.xaxis.label.get_fontsize() == plots.style["font.size"]
    assert ours.figure.get_size_inches()[0] == 3.5
    with matplotlib.rc_context({"font.size": 20}):
        ax = matplotlib.figure.Figure().add_subplot()
        assert plots.metric([0, 1], [1.0, 2.0], "loss", ax=ax).xaxis.label.get_fontsize() == 20
    assert dict(matplotlib.rcParams) == before


def test_no_legend_hides_data_or_leaves_the_figure():
    growth = divergence()
    figure = plots.divergence(growth, exponent(growth, saturation_level=-1.0)).figure
    figure.draw_without_rendering()
    (ax,) = figure.axes
    box, inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert box.y0 >= inside.y1 - 1
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_a_sweep_gives_its_figure_exponents_and_median_times():
    points = [point(x, 0.1 * x, times=(x, 3 * x)) for x in (1.0, 2.0)]
    points += [point(2.0, times=(5.0, np.inf, np.inf), control=True)]
    swept = made(points)
    curve = swept.exponents()
    np.testing.assert_allclose(curve.x, [1, 2])
    np.testing.assert_allclose(curve.value, [0.1, 0.2])
    accuracy, x, times = swept.times()
    assert accuracy == 0.9
    np.testing.assert_allclose(x, [1, 2])
    np.testing.assert_allclose(times, [2, 4])
    assert swept.times(control=True)[2].tolist() == [np.inf]
    with pytest.raises(SelectionError):
        swept.times(0.5)
    above, below = plots.sweep(swept).axes
    np.testing.assert_allclose(labelled(below)["training"].get_ydata(), [2, 4])
    assert "stable control" not in labelled(below)
    np.testing.assert_allclose(labelled(below)["stable control: not reached"].get_xdata(), [2])
    assert "training: not reached" not in labelled(below)
    np.testing.assert_allclose(above.containers[0].lines[0].get_ydata(), [0.1, 0.2])


def test_what_does_not_reach_the_accuracy_stands_at_the_top_of_the_figure_whatever_its_limits():
    swept = made([point(x, 0.1, times=(x, 3 * x)) for x in (1.0, 2.0)] + [point(4.0, 0.1, times=(8.0, np.inf, np.inf))])
    figure = plots.sweep(swept)
    below = figure.axes[1]
    mark = labelled(below)["training: not reached"]
    assert mark.get_xdata().tolist() == [4]
    assert np.isfinite(labelled(below)["training"].get_ydata()).tolist() == [True, True, False]
    for limits in ((1.0, 1e4), (1.0, 2.0)):
        below.set_ylim(limits)
        (_, height), (_, top) = mark.get_transform().transform([(4, 0.95), (4, 1.0)])
        low, high = below.bbox.y0, below.bbox.y1
        assert low < height < high == pytest.approx(top)


def test_a_backend_that_the_first_figure_loads_goes_on_showing_figures():
    @styled
    def first(ax=None):
        matplotlib.interactive(True)  # as the backend of notebooks does when it is loaded

    before = matplotlib.is_interactive()
    try:
        matplotlib.interactive(False)
        first()
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(before)


def test_a_legend_has_as_many_columns_as_fit():
    ax = matplotlib.figure.Figure(figsize=(8, 4)).add_subplot()
    for label in ("onset in this range", "regular", "sensitive", "chaotic"):
        ax.plot([0, 1], [0, 1], label=label)
    columns = []
    for width in (8, 4, 1):
        ax.figure.set_size_inches(width, 4)
        legend_above(ax)
        columns.append(ax.get_legend()._ncols)
        ax.figure.draw_without_rendering()
        assert width == 1 or ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1
    assert columns[0] == 4 > columns[1] > columns[2] == 1


def test_names_from_files_are_not_read_as_mathematics():
    name = "a$b_{$ c$\x00"
    assert literal(name) == "a\\$b_{\\$ c\\$\N{REPLACEMENT CHARACTER}"
    ax = plots.metric([0, 1], [1.0, 2.0], name)
    ax.figure.canvas.draw()  # mathematics that is none would raise here
    growth = replace(divergence(), time_unit="$\\frac$", metric="$x")
    plots.divergences([("run $\\alpha{$", growth, replace(exponent(growth), unit="1/$\\frac$"))]).canvas.draw()


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, monkeypatch, kind):
    growth = divergence()
    written = []
    for k in range(2):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1_000_000_000 + k))
        save_figure(plots.divergence(growth, exponent(growth)).figure, tmp_path / f"{k}.{kind}")
        written.append((tmp_path / f"{k}.{kind}").read_bytes())
    assert written[0] == written[1]
    assert len(written[0]) > 1000
    assert matplotlib.rcParams["svg.hashsalt"] is None


def test_a_script_that_the_font_lacks_is_no_warning(tmp_path):
    ax = plots.metric([0, 1], [1.0, 2.0], "\N{HANGUL SYLLABLE GA}")
    save_figure(ax.figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_drawing_loads_no_pyplot_which_would_choose_a_backend(tmp_path):
    code = (
        "import sys, numpy as np, trajtools as tt\n"
        "from trajtools.plots._axes import save_figure\n"
        f"save_figure(tt.plots.metric([0, 1], [1.0, 2.0], 'loss').figure, {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False,
                          env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_numbers_are_written_with_what_they_mean():
    assert number(0.27651) == "0.277"
    assert number(0.04821) == "0.0482"
    assert number(0.00123) == "0.0012"
    assert number(-0.00001) == "-1.0e-05"
    assert number(0.0) == "0.000"
    assert (number(90.977), number(1231.114), number(26210.0)) == ("90.98", "1231", "26210")
    assert number(float("nan")) == "unknown"
    growth = divergence()
    assert interval(exponent(growth)) == "[0.280, 0.330]"
    assert interval(exponent(growth, np.nan)) == "unknown"
    assert window(exponent(growth)) == "10-40"
    assert window(exponent(growth, np.nan)) == ""


def test_spread_and_used_fraction_are_of_the_initial_conditions_that_were_used():
    fitted = replace(exponent(divergence()), values=np.array([0.1, np.nan, 0.3]), n_used=2, n_total=3)
    assert fitted.spread == pytest.approx(0.1)
    assert fitted.used_fraction == pytest.approx(2 / 3)
    alone = replace(fitted, values=np.array([0.1, np.nan]), n_used=0, n_total=0)
    assert np.isnan(alone.spread)
    assert alone.used_fraction == 0


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (2, 7, ["2", "3", "4", "5", "6", "7"]),
        (0.02, 0.9, ["0.02", "0.03", "0.04", "0.06", "0.1", "0.2", "0.3", "0.4", "0.6"]),
        (3, 4.5, ["3", "4"]),
        (0.5, 20, ["1", "10"]),
        (1e-5, 7e-5, None),
        (0.1, 1000, None),
    ],
)
def test_a_short_logarithmic_axis_has_plain_numbers(low, high, labels):
    ax = new_figure(6, 4).add_subplot()
    logarithmic(ax, "x")
    ax.set_xlim(low, high)
    ax.figure.canvas.draw()
    ticks = [tick for minor in (False, True) for tick in ax.get_xticklabels(minor=minor)]
    shown = [tick.get_text() for tick in ticks if tick.get_text() and low <= tick.get_position()[0] <= high]
    if labels is None:
        assert len(shown) >= 2
        assert all("10^{" in text for text in shown)
    else:
        assert sorted(shown, key=float) == labels


def test_a_loss_that_overflows_is_drawn(tmp_path):
    ax = tt.plots.metric(np.arange(4), [1e-2, 1e100, 1.7e308, np.inf], "loss")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(ax.figure, tmp_path / "loss.svg")
    assert np.nanmax(ax.lines[0].get_ydata()) == LARGEST


def test_figures_of_two_panels_draw_into_axes_of_the_caller():
    result = made([point(x, value, times=(10.0 / x,)) for x, value in ((0.1, 0.0), (1.0, 0.1))])
    axes = new_figure(6, 3).subplots(1, 2)
    assert plots.sweep(result, ax=axes) is result.plot(ax=axes) is axes[0].figure
    assert [ax.get_ylabel() for ax in axes] == ["exponent (1/step)", "steps to accuracy 0.9"]
    assert [ax.get_xscale() for ax in axes] == ["log", "log"]
