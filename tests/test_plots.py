import builtins
from dataclasses import replace

import numpy as np
import pytest
from made_answers import divergence, exponent

import trajtools as tt
from trajtools import plots
from trajtools.errors import MissingDependencyError
from trajtools.plots.canvas import logarithmic, new_figure
from trajtools.plots.curves import floor_curve, null_band, orbit_curves, slopes


@pytest.fixture(autouse=True)
def agg():
    pytest.importorskip("matplotlib").use("Agg")


def test_figure_shows_every_initial_condition_their_mean_the_fit_and_the_floor():
    growth = divergence(slope=0.3, inits=6)
    ax = plots.divergence(growth, exponent(growth, 0.3))
    labels = [line.get_label() for line in ax.lines]
    assert sum(line.get_linewidth() == 0.5 for line in ax.lines) == 6
    assert {"6 initial conditions", "mean", "rounding floor"} <= set(labels)
    assert "0.300 1/step, 95% interval [0.280, 0.330]" in labels
    assert ax.get_yscale() == "log"
    fit = next(line for line in ax.lines if "interval" in line.get_label())
    np.testing.assert_allclose(fit.get_ydata(), 1e-8 * np.exp(0.3 * np.array([10.0, 40.0])), rtol=1e-12)
    mean = next(line for line in ax.lines if line.get_label() == "mean")
    np.testing.assert_allclose(mean.get_ydata(), np.exp(growth.log_distance), rtol=1e-12)


def test_figure_without_a_fit_says_so():
    growth = divergence()
    ax = plots.divergence(growth, exponent(growth, np.nan, verdict="inconclusive"))
    assert "inconclusive: nothing fitted" in [line.get_label() for line in ax.lines]


def test_results_draw_themselves():
    growth = divergence()
    assert growth.plot().lines
    assert exponent(growth).plot().lines


@pytest.mark.parametrize("average", ["mean-log", "log-mean", "rms"])
def test_there_is_one_thin_curve_per_initial_condition(average):
    growth = divergence(inits=4, copies=3, average=average)
    curves = orbit_curves(growth)
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
    assert len(orbit_curves(growth)) == 4


def test_floor_is_the_median_over_the_twins_and_unknown_where_it_is_unknown():
    growth = divergence(inits=3, copies=1)
    growth.floor[:, 1:] = np.array([[1e-13], [2e-13], [4e-13]])
    growth.floor[:, 0] = np.nan
    floor = floor_curve(growth)
    assert np.isnan(floor[0])
    np.testing.assert_allclose(np.exp(floor[1:]), 2e-13, rtol=1e-12)


def band(figure_or_ax, label=None):
    """Corners of the filled areas."""
    return [c.get_paths()[0].vertices for c in figure_or_ax.collections if label is None or c.get_label() == label]


def test_the_interval_is_a_wedge_of_slopes_from_the_start_of_the_fit():
    growth = divergence()
    found = exponent(growth, 0.3)
    ends, low, high = slopes(found)
    np.testing.assert_allclose(ends, [10, 40])
    np.testing.assert_allclose(high - low, [0, 30 * 0.05], atol=1e-12)
    (wedge,) = band(plots.divergence(growth, found))
    assert wedge[:, 1].max() == pytest.approx(np.exp(high[1]))
    unknown = replace(found, interval=(np.nan, np.nan))
    assert slopes(unknown) is None
    assert not band(plots.divergence(growth, unknown))


def test_the_null_is_a_band_in_the_time_of_the_curve():
    growth = replace(divergence(), method="rosenstein")
    curves = {"lag": np.arange(3), "record": np.log([1e-3, 1e-2, 1e-1])}
    curves |= {"low": np.log([0.1, 0.2, 0.3]), "high": np.log([0.4, 0.5, 0.6])}
    found = exponent(growth, 0.3, null_band=curves, dt=0.5, interpolated=4)
    np.testing.assert_allclose(null_band(found)["time"], [0, 2, 4])
    ax = plots.divergence(growth, found)
    (drawn,) = band(ax, "90 % of the null")
    assert (drawn[:, 1].min(), drawn[:, 1].max()) == pytest.approx((0.1, 0.6))
    assert ax.get_ylabel() == "distance of neighbours (l1)"
    assert null_band(exponent(growth, 0.3)) is None
    unknown = curves | {"low": np.full(3, np.nan), "high": np.full(3, np.nan)}
    assert null_band(exponent(growth, 0.3, null_band=unknown)) is None


def test_surrogates_leave_their_curves_for_the_figure():
    x = tt.systems.henon().trajectory(600, rng=np.random.default_rng(0))
    found = null_band(tt.lyapunov(x, dt=0.5))
    assert found["time"][0] == 0
    assert (found["low"] <= found["high"]).all()
    # Chaos keeps its neighbours closer than noise with the same spectrum does, until they saturate.
    assert (found["record"][:4] < found["low"][:4]).all()


def test_several_divergences_share_a_figure(tmp_path):
    growth = divergence()
    figure = plots.divergences([("a", growth, exponent(growth)), ("b", growth, None), ("c", growth, None)])
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == ["a", "b", "c"]
    figure.savefig(tmp_path / "all.svg")
    assert (tmp_path / "all.svg").stat().st_size > 1000


def test_without_matplotlib_the_way_out_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r'pip install "trajtools\[plot\]"'):
        plots.divergence(divergence())


def test_the_band_of_twins_is_what_the_null_comes_to_for_each_curve():
    rng = np.random.default_rng(0)
    rates = 0.3 + 0.1 * rng.standard_normal((12, 70))
    pairs = [(np.ones((70, 1)), [1 + 1e-9 * np.exp(one.cumsum())[:, None]]) for one in rates]
    found = tt.twins(pairs).fit()
    shown = null_band(found)
    assert shown["time"][0] >= found.window[0] - 1e-9
    assert np.all(shown["low"] <= shown["high"])
    # No power law up to the third rises so far: it begins above the curve and ends below it.
    assert shown["low"][0] > shown["record"][0]
    assert shown["high"][-1] < shown["record"][-1]
    ax = plots.divergence(found.curve, found)
    assert "90 % of the null" in ax.get_legend_handles_labels()[1]
    assert null_band(tt.twins(pairs).fit(null=None)) is None


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
