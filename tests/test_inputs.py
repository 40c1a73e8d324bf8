"""Every public function reads alike what users have: masks, tables with clocks, tensors, graphs, units, durations."""

from __future__ import annotations

import inspect
import warnings
from datetime import timedelta
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest

import trajtools as tt
from trajtools.clocks import Duration, duration, even_clock, parse_dates
from trajtools.errors import DataError, InputWarning, UnknownNameError
from trajtools.inputs import ENTRYWISE, graph_states
from trajtools.reasons import codes

EXPONENT = 0.41922  # of the Henon map
METRICS = dict(tt.distances.METRICS)  # before other tests register theirs


def henon(n):
    x, y, states = 0.1, 0.1, []
    for _ in range(n + 100):
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
        states.append((x, y))
    return np.array(states[100:])


H = henon(3000)
GAPS = np.random.default_rng(1).random(240) < 0.05
SHORT = H[:240]
WITH_NAN = np.where(GAPS[:, None], np.nan, SHORT)


# Public functions that take states: how each is called with some, (T, 2), and a part of its result.
CALLS = {
    "distance": lambda x: tt.distance(x, SHORT + 1),
    "contributions": None,  # needs a table of parameters
    "rounding_floor": tt.distances.rounding_floor,
    "pairwise": lambda x: tt.pairwise(x).values,
    "align": None,  # needs a table of parameters
    "to_orbit": lambda x: tt.to_orbit(x, SHORT + 0.1).distance,
    "find_nearest": lambda x: tt.neighbors.find_nearest(x, theiler=1).distance,
    "theiler_window": lambda x: tt.embedding.theiler_window(x).statistic,
    "embed": lambda x: tt.embedding.embed(x, 2),
    "kantz": lambda x: tt.kantz(x, theiler=1, horizon=5).log_distance,
    "rosenstein": lambda x: tt.rosenstein(x, theiler=1, horizon=5).log_distance,
    "wolf": lambda x: tt.wolf(x, theiler=1, horizon=2).log_distance,
    "hybrid": lambda x: tt.hybrid(x, theiler=1, horizon=2).log_distance,
    "lyapunov_spectrum": lambda x: tt.lyapunov_spectrum(x, theiler=1).values,
    "lyapunov": lambda x: tt.lyapunov(x, null=None).value,
    "lyapunov_windows": lambda x: tt.lyapunov_windows(x, window=120, null=None).value,
    "twins": lambda x: tt.twins((SHORT, [x])).log_distance,
    "recurrence": lambda x: tt.recurrence(x)["DET"],
    "orbital_stability": lambda x: tt.orbital_stability(SHORT, [x]).frechet,
    "correlation_dimension": lambda x: tt.correlation_dimension(x, theiler=1).value,
    "correlation_sum": lambda x: tt.structure.correlation_sum(x, theiler=1).counts,
    "find_cycles": lambda x: tt.structure.find_cycles(x).period,
    "system_states": lambda x: tt.structure.system_states(x, count=2).labels,
    "pca": lambda x: tt.structure.pca(x).coordinates,
    "mds": lambda x: tt.structure.mds(x).coordinates,
    "autocorrelation": lambda x: tt.autocorrelation(x, surrogates=19).values,
    "node_correlation": None,  # adjacency matrices; see below
    "change_points": lambda x: tt.structure.change_points(x).index,
    "observables": lambda x: tt.structure.observables(x).norm,
    "zero_one_test": None,  # a series; see below
    "estimate_delay": None,
    "estimate_dimension": None,
    "order_chaos": None,  # kernels along a training
    "iterated_trunk": lambda x: tt.training.iterated_trunk(np.tanh, x, steps=4, product=False).by_norm,
}
SERIES = {
    "zero_one_test": lambda x: tt.structure.zero_one_test(x).value,
    "estimate_delay": lambda x: tt.embedding.estimate_delay(x).statistic,
    "estimate_dimension": lambda x: tt.embedding.estimate_dimension(x, delay=1, max_dim=3).statistic,
    "theiler_window": CALLS["theiler_window"],
    "embed": CALLS["embed"],
    "lyapunov": CALLS["lyapunov"],
    "recurrence": CALLS["recurrence"],
    "change_points": CALLS["change_points"],
    "autocorrelation": CALLS["autocorrelation"],
    "correlation_dimension": CALLS["correlation_dimension"],
}
STATES = {name: call for name, call in CALLS.items() if call is not None}


def public_functions():
    """Public functions that take states, with the names of these arguments."""
    found = {}
    places = [tt, *(getattr(tt, name) for name in tt._MODULES if name != "plots")]
    for place in places:
        for name in getattr(place, "__all__", [n for n in vars(place) if not n.startswith("_")]):
            function = getattr(place, name)
            if not inspect.isfunction(function) or not function.__module__.startswith("trajtools"):
                continue
            taken = [
                argument
                for argument, parameter in inspect.signature(function).parameters.items()
                if any(word in str(parameter.annotation) for word in ("StatesLike", "TwinsLike", "Pair"))
            ]
            if taken:
                found[function.__name__] = (function, taken)
    return found


def test_every_public_function_that_takes_states_looks_at_them_and_is_tested_here():
    functions = public_functions()
    assert set(functions) <= set(CALLS), "a new function takes states: add a call here"
    for name, (function, taken) in functions.items():
        assert set(taken) <= set(getattr(function, "states", ())), f"{name} does not read its arguments {taken}"
    assert len(functions) > 25


def same(one, other):
    one, other = (np.asarray(each, dtype=np.float64) for each in (one, other))
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)


def outcome(call, x):
    """A result, or the sentence in which it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return call(x)
        except DataError as error:
            return str(error)


def check_alike(call, x, plain):
    wanted, found = outcome(call, plain), outcome(call, x)
    if isinstance(wanted, str) or isinstance(found, str):
        assert wanted == found
    else:
        same(wanted, found)


@pytest.mark.parametrize("name", STATES)
def test_masked_entries_are_missing_in_every_function(name):
    masked = np.ma.array(np.where(GAPS[:, None], -9999.0, SHORT), mask=np.repeat(GAPS[:, None], 2, axis=1))
    check_alike(STATES[name], masked, WITH_NAN)


@pytest.mark.parametrize("name", SERIES)
def test_masked_samples_are_missing_in_every_function_of_a_series(name):
    masked = np.ma.masked_values(np.where(GAPS, -9999.0, SHORT[:, 0]), -9999.0)
    check_alike(SERIES[name], masked, WITH_NAN[:, 0])


@pytest.mark.parametrize("name", STATES)
def test_objects_lists_and_tables_are_arrays_in_every_function(name):
    pd = pytest.importorskip("pandas")
    for x in (SHORT.astype(object), SHORT.tolist(), list(SHORT), pd.DataFrame(SHORT, columns=["x", "y"])):
        check_alike(STATES[name], x, SHORT)


@pytest.mark.parametrize("name", STATES)
def test_a_falling_index_is_sorted_and_uneven_or_repeated_stamps_are_refused_in_every_function(name):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(SHORT, pd.date_range("2015", periods=len(SHORT), freq="h"), columns=["x", "y"])
    call = STATES[name]
    if name == "orbital_stability":
        assert "1 step, one of the perturbed trajectory 1 hour" in outcome(call, table[::-1])
    else:
        check_alike(call, table[::-1], SHORT)
    for wrong, words in ((table.drop(table.index[[3, 50]]), "uneven"), (pd.concat([table, table[:5]]), "repeats")):
        assert words in outcome(call, wrong)


@pytest.mark.parametrize("name", STATES)
def test_tensors_are_arrays_in_every_function(name):
    torch = pytest.importorskip("torch")
    check_alike(STATES[name], torch.tensor(SHORT, requires_grad=True), SHORT)
    check_alike(STATES[name], [torch.tensor(state, requires_grad=True) for state in SHORT], SHORT)


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize(
    ("x", "words"),
    [
        ("run.csv", "is text"),
        (SHORT + 1j, "real and imaginary part"),
        (np.array([["a", "b"]] * 30, dtype=object), "'a' in row"),
        (SHORT.astype(str), "convert it to numbers"),
        ([[1.0, 2.0], [3.0]], "differ in shape"),
        (SimpleNamespace(), "holds no numbers"),
        (3.0, "is one number"),
        (None, "holds no numbers"),
    ],
)
def test_what_is_no_states_is_refused_in_one_sentence_in_every_function(name, x, words):
    if name in ("twins", "orbital_stability") and isinstance(x, (list, float)):
        words = "twins need|differ in shape|one architecture"
    with pytest.raises(DataError, match=words):
        STATES[name](x)


@pytest.mark.parametrize(
    "name", sorted(set(STATES) & {"kantz", "rosenstein", "recurrence", "autocorrelation", "observables"})
)
def test_a_row_where_a_series_was_meant_is_named(name):
    with pytest.raises(DataError, match=r"x is a row, shape \(1, 240\).*x\[0\]"):
        STATES[name](SHORT[None, :, 0])
    (reason, *_) = tt.lyapunov(SHORT[None, :, 0]).reasons
    assert "x is a row" in str(reason)


def test_numbers_of_any_kind_keep_their_values():
    whole = (SHORT * 100).astype(np.int32)
    for x in (whole, whole.astype(object), np.ma.array(whole), whole.astype(np.float32)):
        same(tt.pairwise(x).values, tt.pairwise(whole.astype(np.float64)).values)
    array = SHORT.copy()
    assert np.shares_memory(np.asarray(tt.Trajectory.from_array(array)), array)


# Time


def test_a_masked_series_has_the_exponent_of_one_with_gaps():
    gaps = np.random.default_rng(0).random(len(H)) < 0.05
    masked = np.ma.masked_values(np.where(gaps, -9999.0, H[:, 0]), -9999.0)
    low, high = tt.lyapunov(masked, null=None).interval
    assert low < EXPONENT < high


def test_the_index_of_a_series_is_its_clock():
    pd = pytest.importorskip("pandas")
    hourly = pd.Series(H[:, 0], pd.date_range("2015", periods=len(H), freq="h"))
    falling = tt.lyapunov(hourly[::-1], null=None)
    assert falling.unit == "1/hour"
    assert "sorted-by-time" in codes(falling.warnings)
    low, high = falling.interval
    assert low < EXPONENT < high
    kept = np.random.default_rng(0).random(len(H)) > 0.07
    kept[:6] = True, True, True, True, False, True
    with pytest.raises(DataError, match=r"the index of x is uneven: row \d+ .* after 2 hours.*asfreq\('1h'\)"):
        tt.lyapunov(hourly[kept])
    low, high = tt.lyapunov(hourly[kept].asfreq("h"), null=None).interval
    assert low < EXPONENT < high


def spectrum(x, **options):
    return tt.rosenstein(x, theiler=1, horizon=3, **options)


@pytest.mark.parametrize(
    ("freq", "dt", "unit"),
    [("h", 1, "hour"), ("15min", 15, "minute"), ("D", 1, "day"), ("36h", 36, "hour"), ("MS", 1, "month"),
     ("ME", 1, "month"), ("YS", 1, "year"), ("250ms", 250, "millisecond"), ("QS", 3, "month")],
)  # fmt: skip
def test_dt_comes_in_the_unit_of_the_index(freq, dt, unit):
    pd = pytest.importorskip("pandas")
    index = pd.date_range("2001", periods=len(SHORT), freq=freq)
    for clock in (index, index.tz_localize("UTC")) if freq == "h" else (index, index.astype(str)):
        growth = spectrum(pd.Series(SHORT[:, 0], clock))
        assert growth.time_unit == unit
        np.testing.assert_allclose(growth.time, np.arange(4) * dt)


def test_numbers_of_rows_are_no_clock_and_dropped_rows_are_noticed():
    pd = pytest.importorskip("pandas")
    series = pd.Series(SHORT[:, 0])
    for x in (series, series[::1].set_axis(range(5, 245)), series.set_axis(np.arange(1800, 2040))):
        assert spectrum(x).time_unit == "sample"
    with pytest.raises(DataError, match=r"row 7 .* follows row 6 .*reindex"):
        spectrum(series.drop(7))
    periods = series.set_axis(pd.period_range("2001", periods=240, freq="M"))
    assert spectrum(periods).time_unit == "month"
    seconds = spectrum(series.set_axis(np.arange(240) * 0.1))
    assert seconds.time_unit == "time"
    np.testing.assert_allclose(seconds.time, [0, 0.1, 0.2, 0.3])
    levels = pd.MultiIndex.from_product([["a", "b"], range(120)])
    with pytest.raises(DataError, match="several series"):
        spectrum(series.set_axis(levels))


def test_tables_that_begin_at_different_times_have_no_distance_at_equal_times():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(SHORT, pd.date_range("2001", periods=240, freq="D"))
    same(tt.distance(table[:100], table[:100] + 1), np.full(100, 2.0))
    with pytest.raises(DataError, match="a at 2001-01-01, b at 2001-01-21"):
        tt.distance(table[:100], table[20:120])


def test_a_column_of_times_is_the_clock_of_a_table():
    pd = pytest.importorskip("pandas")
    for name, clock, unit in (
        ("time", np.arange(240) * 0.5, "time"),
        ("t [ms]", np.arange(240) * 0.5, "millisecond"),
        ("step", np.arange(240) * 10, "step"),
        ("when", pd.date_range("2001", periods=240, freq="D"), "day"),
        ("when", pd.date_range("2001", periods=240, freq="D").strftime("%d/%m/%Y"), "day"),
    ):
        growth = spectrum(pd.DataFrame({"x": SHORT[:, 0], name: clock, "y": SHORT[:, 1]}))
        assert growth.time_unit == unit
        assert "clock-column" in codes(growth.warnings)
        same(growth.log_distance, spectrum(SHORT).log_distance)
    with pytest.raises(DataError, match=r"'city' holds text .* such as x\[\['x'\]\]"):
        spectrum(pd.DataFrame({"city": ["Oslo"] * 240, "x": SHORT[:, 0]}))
    with pytest.warns(InputWarning, match="the column 'time' is the clock"):
        tt.embedding.embed(pd.DataFrame({"x": SHORT[:, 0], "time": np.arange(240)}), 2)


def test_booleans_beside_numbers_are_numbers():
    pd = pytest.importorskip("pandas")
    high = SHORT[:, 0] > 0
    table = pd.DataFrame({"x": SHORT[:, 0], "high": high})
    same(tt.pairwise(table)[:], tt.pairwise(np.c_[SHORT[:, 0], high])[:])


def test_rows_out_of_the_order_of_their_numbers_are_sorted():
    pd = pytest.importorskip("pandas")
    even, whole = pd.DataFrame(SHORT), spectrum(SHORT)
    for table in (even[::-1], even.sort_values(0), even.set_axis(range(0, 480, 2))[::-1]):
        growth = spectrum(table)
        assert "sorted-by-time" in codes(growth.warnings)
        assert growth.time_unit == whole.time_unit
        same(growth.time, whole.time)
        same(growth.log_distance, whole.log_distance)
    assert not spectrum(pd.concat([even[:120], even[:120]])).warnings  # numbers that repeat are names
    with pytest.raises(DataError, match="reset_index"):
        spectrum(even.sort_values(0)[:200])


def test_missing_numbers_of_pandas_are_nan():
    pd = pytest.importorskip("pandas")
    column = pd.array([1, None, 3], dtype="Int64")
    same(tt.embedding.embed(pd.Series(column), 1)[:, 0], [1, np.nan, 3])
    same(tt.embedding.embed(pd.DataFrame({"x": column, "y": [1.0, 2, 3]}), 1), [[1, 1], [np.nan, 2], [3, 3]])
    same(tt.embedding.embed(np.array([1, None, 3], dtype=object), 1)[:, 0], [1, np.nan, 3])


def test_the_time_coordinate_of_xarray_is_the_clock():
    xr = pytest.importorskip("xarray")
    pd = pytest.importorskip("pandas")
    time = pd.date_range("2001", periods=240, freq="15min")
    table = xr.DataArray(SHORT, dims=("time", "place"), coords={"time": time})
    for x in (table, table.T, table[::-1], table.to_dataset("place").rename({0: "a", 1: "b"})):
        growth = spectrum(x)
        assert growth.time_unit == "minute"
        assert growth.time[1] == 15
        same(growth.log_distance, spectrum(SHORT).log_distance)
    with pytest.raises(DataError, match=r"the coordinate 'time' of x is uneven.*resample"):
        spectrum(table.drop_isel(time=[5]))
    seconds = xr.DataArray(SHORT[:, 0], dims="t", coords={"t": ("t", np.arange(240) * 0.1, {"units": "s"})})
    assert spectrum(seconds).time_unit == "second"
    assert spectrum(xr.DataArray(SHORT, dims=("row", "place"))).time_unit == "sample"


COLUMNS = {
    "x": SHORT[:, 0],
    "when": np.datetime64("2001-01-01T00:00:00", "us") + np.arange(240) * np.timedelta64(1, "h"),
    "y": SHORT[:, 1],
}


def test_tables_of_polars_are_read():
    polars = pytest.importorskip("polars")
    for table in (polars.DataFrame(COLUMNS), polars.LazyFrame(COLUMNS)):
        growth = spectrum(table)
        assert growth.time_unit == "hour"
        same(growth.log_distance, spectrum(SHORT).log_distance)
    holes = polars.DataFrame({"x": [1, None, 3]})
    same(tt.embedding.embed(holes, 1)[:, 0], [1, np.nan, 3])
    same(tt.embedding.embed(holes["x"], 1)[:, 0], [1, np.nan, 3])
    uneven = polars.DataFrame(COLUMNS).filter(polars.col("x") > -0.5)
    with pytest.raises(DataError, match="uneven"):
        spectrum(uneven)


def test_tables_of_arrow_and_records_of_numpy_are_read():
    tables = [np.rec.fromarrays(list(COLUMNS.values()), names=list(COLUMNS))]
    try:
        import pyarrow

        tables.append(pyarrow.table(COLUMNS))
    except ImportError:
        pass
    for table in tables:
        growth = spectrum(table)
        assert growth.time_unit == "hour"
        same(growth.log_distance, spectrum(SHORT).log_distance)


@pytest.mark.parametrize(
    ("dt", "value", "unit"),
    [
        ("1h", 1, "hour"),
        ("90 min", 90, "minute"),
        ("120min", 2, "hour"),
        ("0.5s", 500, "millisecond"),
        ("2 weeks", 14, "day"),
        (np.timedelta64(1, "h"), 1, "hour"),
        (np.timedelta64(3, "M"), 3, "month"),
        (timedelta(minutes=5), 5, "minute"),
        (np.arange(240) * 0.25, 0.25, "time"),
        (np.datetime64("2001") + np.arange(240) * np.timedelta64(2, "D"), 2, "day"),
        (0.5, 0.5, "time"),
        (np.float32(0.5), 0.5, "time"),
        (None, 1, "sample"),
    ],
)
def test_dt_may_be_a_duration_or_the_times_of_all_samples(dt, value, unit):
    growth = spectrum(SHORT, dt=dt)
    assert growth.time_unit == unit
    np.testing.assert_allclose(growth.time, value * np.arange(4))
    pairs = (SHORT, [SHORT + 1e-3])
    if dt is not None and np.ndim(dt) == 0:
        assert tt.twins(pairs, dt=dt).time_unit == unit
        trajectory = tt.Trajectory.from_array(SHORT, dt=dt)
        assert (trajectory.dt, trajectory.time_unit) == (value, unit)
        assert tt.recurrence(SHORT, dt=dt).time_unit == unit


def test_a_timedelta_of_pandas_is_a_duration():
    pd = pytest.importorskip("pandas")
    found = duration(pd.Timedelta("1h"))
    assert (found, found.unit) == (1, "hour")
    assert spectrum(SHORT, dt=pd.date_range("2001", periods=240, freq="h")).time_unit == "hour"
    assert (duration(pd.Timedelta(7, "ns")), duration(pd.Timedelta(7, "ns")).unit) == (7, "nanosecond")


@pytest.mark.parametrize(
    ("dt", "words"),
    [
        ("soon", "is no duration"),
        ("1 parsec", "is no duration"),
        (-1, "positive"),
        ("0h", "positive"),
        (np.arange(7), "7 times for 240 samples"),
        (np.cumsum(np.arange(240.0)), "uneven|repeats"),
        (np.timedelta64("NaT", "h"), "no length"),
        ({}, "the time between two samples"),
    ],
)
def test_what_is_no_time_between_samples_is_refused(dt, words):
    with pytest.raises(DataError, match=words):
        spectrum(SHORT, dt=dt)


def test_clocks_are_even_up_to_the_rounding_of_their_stamps():
    n = np.arange(1000)
    assert even_clock(np.round(n / 30, 2), "t").dt == pytest.approx(1 / 30, rel=1e-3)
    assert even_clock((n * 0.01).astype(np.float32), "t").dt == pytest.approx(0.01, rel=1e-4)
    assert even_clock(n * 0.1, "t").dt == 0.1
    jittered = n + np.random.default_rng(0).normal(0, 1e-3, 1000)
    assert even_clock(jittered, "t").dt == pytest.approx(1, rel=1e-4)
    for at in (1, 2, 500, 998):
        with pytest.raises(DataError, match="uneven"):
            even_clock(np.delete(np.round(n * 0.03, 2), at), "t")
    with pytest.raises(DataError, match="row 3"):
        even_clock(np.array([0, 1, 2, np.nan, 4]), "t")
    assert even_clock(np.array([1.0]), "t") is None
    shuffled = np.random.default_rng(0).permutation(100)
    clock = even_clock(shuffled.astype(float), "t")
    assert codes(clock.reasons) == ("sorted-by-time",)
    np.testing.assert_array_equal(shuffled[clock.order], np.arange(100))


@pytest.mark.parametrize(
    ("texts", "first", "step"),
    [
        (["5/6/1984", "6/6/1984", "7/6/1984"], "1984-06-05", "D"),
        (["5/30/1984", "5/31/1984", "6/1/1984"], "1984-05-30", "D"),
        (["1/1/2000", "2/1/2000", "3/1/2000", "4/1/2000"], "2000-01-01", "D"),
        (["12/1/1999", "1/1/2000", "2/1/2000"], "1999-12-01", "M"),
        (["2015-01-01T00:00:00Z", "2015-01-01T01:00:00Z"], "2015-01-01", "h"),
        (["2015-01-01 00:00", "2015-01-01 01:00"], "2015-01-01", "h"),
        (["2015-01-01T00:00+02:00", "2015-01-01T01:00+02:00"], "2014-12-31T22:00", "h"),
        (["1.2.2015", "2.2.2015"], "2015-02-01", "D"),
        (["2015-1-5", "2015-1-6"], "2015-01-05", "D"),
    ],
)
def test_dates_in_text_are_read(texts, first, step):
    stamps = parse_dates(texts)
    assert stamps[0] == np.datetime64(first)
    assert np.all(np.diff(stamps.astype(f"datetime64[{step}]")) == np.timedelta64(1, step))


def test_other_text_is_no_date():
    for texts in (["1.5", "2.5"], ["a", "b"], ["2015-01-01", "soon"], [""], ["3,5"]):
        assert parse_dates(texts) is None


# Columns


def test_columns_of_other_units_are_named_and_scaled_on_request():
    small = np.c_[H[1:, 0], 1e-3 * H[:-1, 0]]
    plain = tt.lyapunov(small, null=None)
    (warning,) = [one for one in plain.warnings if one.code == "columns-unequal"]
    assert "column 0" in str(warning)
    assert "scale='std'" in str(warning)
    for states in (small, np.c_[H[1:, 0], 1e3 * H[:-1, 0]]):
        scaled = tt.lyapunov(states, scale="std", null=None)
        low, high = scaled.interval
        assert low < EXPONENT < high
        assert "columns-unequal" not in codes(scaled.warnings)
        assert scaled.settings["scale"] == "std"
    noise = np.c_[H, 1e3 * np.random.default_rng(0).standard_normal(len(H))]
    assert "columns-unequal" in codes(tt.lyapunov(noise, null=None).warnings)
    assert "columns-unequal" not in codes(tt.lyapunov(H, null=None).warnings)


def test_every_function_of_distances_between_states_can_scale():
    functions = public_functions().values()
    scaled = {function.__name__ for function, _ in functions if "scale" in inspect.signature(function).parameters}
    wanted = {"lyapunov", "kantz", "rosenstein", "wolf", "hybrid", "lyapunov_spectrum", "lyapunov_windows", "pairwise"}
    wanted |= {"distance", "to_orbit", "find_nearest", "recurrence", "correlation_sum", "correlation_dimension"}
    assert wanted | {"find_cycles", "system_states", "mds", "pca", "orbital_stability"} == scaled


SCALED = {
    "pairwise": lambda x: tt.pairwise(x, scale="std"),
    "kantz": lambda x: tt.kantz(x, theiler=1, horizon=3, scale="std").log_distance,
    "rosenstein": lambda x: tt.rosenstein(x, theiler=1, horizon=3, scale="std").log_distance,
    "recurrence": lambda x: tt.recurrence(x, scale="std")["DET"],
    "correlation_sum": lambda x: tt.structure.correlation_sum(x, theiler=1, scale="std").counts,
    "find_nearest": lambda x: tt.neighbors.find_nearest(x, theiler=1, scale="std").distance,
    "mds": lambda x: np.abs(tt.structure.mds(x, scale="std").coordinates),
}


@pytest.mark.parametrize("name", SCALED)
def test_scaled_columns_do_not_depend_on_their_units(name):
    plain = np.asarray(SCALED[name](SHORT))
    for other in (SHORT * [1e-3, 1e4], SHORT / SHORT.std(axis=0)):
        np.testing.assert_allclose(np.asarray(SCALED[name](other)), plain, rtol=1e-6)


def test_scale_is_for_columns():
    with pytest.raises(UnknownNameError, match="no scale 'max'"):
        tt.lyapunov(SHORT, scale="max")
    with pytest.raises(DataError, match="scale='std' divides the columns"):
        tt.recurrence(tt.pairwise(SHORT), scale="std")
    flat = np.c_[SHORT, np.ones(240)]
    same(tt.pairwise(flat, scale="std").values, tt.pairwise(SHORT, scale="std").values)
    timed = tt.Trajectory.from_array(SHORT * [1, 1e3], dt=0.5)
    assert tt.kantz(timed, theiler=1, horizon=3, scale="std").time[1] == 0.5


# Graphs


def test_graphs_have_the_distances_of_their_matrices():
    graphs = [nx.gnp_random_graph(9, 0.4, seed=seed) for seed in range(4)]
    matrices = np.array([nx.to_numpy_array(graph) for graph in graphs])
    for metric in ("graph-l1", "strengths", "deltacon", "adjacency-spectrum", "laplacian-spectrum", "heat-trace"):
        wanted = tt.pairwise(graphs, metric=metric).values
        same(tt.pairwise(matrices, metric=metric).values, wanted)
        same(tt.pairwise(list(matrices), metric=metric).values, wanted)
        same(tt.distance(graphs[0], graphs[1], metric=metric), [wanted[0, 1]])
        same(tt.distance(matrices[0], matrices[1], metric=metric), [wanted[0, 1]])
        assert wanted[0, 1] > 0
    spectra = np.sort(np.linalg.eigvalsh(matrices), axis=1)
    found = tt.distance(graphs[0], graphs[1], metric="adjacency-spectrum")[0]
    assert found == pytest.approx(np.linalg.norm(spectra[0] - spectra[1]))
    laplacians = np.array([nx.laplacian_matrix(graph).toarray() for graph in graphs[:2]], dtype=float)
    apart = np.subtract(*np.linalg.eigvalsh(laplacians))
    assert tt.distance(graphs[0], graphs[1], metric="laplacian-spectrum")[0] == pytest.approx(np.linalg.norm(apart))
    for metric in (
        "adjacency-spectrum",
        "laplacian-spectrum",
        "heat-trace",
        "singular-values",
        "strength-distribution",
    ):
        assert tt.distance(graphs[0], matrices[0][::-1, ::-1], metric=metric)[0] == pytest.approx(0, abs=1e-9)
    links = np.abs(matrices[0] - matrices[1]).sum() / (9 * 8)
    assert tt.distance(graphs[0], graphs[1], metric="graph-l1")[0] == pytest.approx(links)


def test_metrics_of_networks_are_known_from_those_of_entries():
    networks = {name for name, metric in METRICS.items() if metric.bind is not None}
    assert not networks & set(ENTRYWISE)
    assert set(METRICS) - networks <= set(ENTRYWISE)


def test_wrong_calls_are_named_by_python():
    for wrong in (tt.kantz, lambda: tt.distance(SHORT, SHORT, "l1"), lambda: tt.pairwise(SHORT, nothing=1)):
        with pytest.raises(TypeError):
            wrong()


def test_graphs_may_be_directed_weighted_and_of_different_nodes():
    one, other = nx.Graph(), nx.Graph()
    one.add_edge("a", "b", weight=2.0)
    other.add_weighted_edges_from([("b", "a", 2.0), ("c", "a", 3.0)])
    # Three nodes; the link a-c of weight 3 stands in both directions.
    assert tt.distance(one, other, metric="l1")[0] == pytest.approx(6)
    assert tt.distance(one, other, metric="graph-l1")[0] == pytest.approx(1)
    forth, back = nx.DiGraph([(0, 1)]), nx.DiGraph([(1, 0)])
    assert tt.distance(forth, back, metric="l1")[0] == pytest.approx(2)
    assert tt.distance(forth, back, metric="adjacency-spectrum")[0] == pytest.approx(0)
    assert tt.distance(forth, nx.Graph([(0, 1)]), metric="adjacency-spectrum")[0] > 0
    states = graph_states(np.array([[[0, 2.0], [0, 0]]]))
    assert not states.parameters[0].undirected
    assert states.network(0).number_of_edges() == 4


def test_temporal_networks_are_taken_as_lists_of_graphs():
    graphs = [nx.gnp_random_graph(6, 0.5, seed=seed) for seed in range(60)]
    matrices = np.array([nx.to_numpy_array(graph) for graph in graphs])
    wanted = tt.rosenstein(matrices, metric="graph-l1", theiler=1, horizon=3).log_distance
    same(tt.rosenstein(graphs, metric="graph-l1", theiler=1, horizon=3).log_distance, wanted)
    correlation = tt.structure.node_correlation(matrices, lag=1)
    same(tt.structure.node_correlation(graphs, lag=1).covariance, correlation.covariance)
    masked = np.ma.array(matrices, mask=np.zeros(matrices.shape, dtype=bool))
    masked[3] = np.ma.masked
    holes = np.where(np.arange(60)[:, None, None] == 3, np.nan, matrices)
    same(
        tt.structure.node_correlation(masked, lag=1).covariance, tt.structure.node_correlation(holes, lag=1).covariance
    )


# Tensors, lists and runs


def test_flat_tensors_of_each_step_are_a_trajectory():
    torch = pytest.importorskip("torch")
    t = np.arange(40.0)
    reference = np.stack([1.1**t, 1.05**t], axis=1)
    copy = reference + 1e-9 * 1.5 ** t[:, None]
    wanted = tt.twins((reference, [copy])).log_distance
    flat, twin = ([torch.tensor(state, requires_grad=True) for state in states] for states in (reference, copy))
    for pair in ((flat, [twin]), (flat, twin), [flat, [twin]], [(flat, [twin])], (list(reference), [list(copy)])):
        same(tt.twins(pair).log_distance, wanted)
        same(tt.lyapunov(pair, null=None).curve.log_distance, wanted)
    dicts = [[{"w": state[:1], "b": state[1:]} for state in states] for states in (reference, copy)]
    same(tt.twins((dicts[0], [dicts[1]])).log_distance, wanted)
    both = tt.twins([(flat, [twin]), (flat, [twin])])
    assert both.n_references == 1  # the same object is one initial condition
    series = tt.twins((torch.tensor(reference[:, 0]), [torch.tensor(copy[:, 0])]))
    same(series.log_distance, tt.twins((reference[:, 0], [copy[:, 0]])).log_distance)
    halves = torch.tensor(SHORT).bfloat16()
    same(tt.pairwise(halves).values, tt.pairwise(halves.float().numpy()).values)


def test_arrays_of_jax_are_read():
    jnp = pytest.importorskip("jax.numpy")
    x = jnp.asarray(SHORT, dtype=jnp.float32)
    same(tt.pairwise(x).values, tt.pairwise(SHORT.astype(np.float32)).values)
    same(tt.pairwise(list(x[:50])).values, tt.pairwise(SHORT[:50].astype(np.float32)).values)
    halves = x.astype(jnp.bfloat16)
    same(tt.pairwise(halves).values, tt.pairwise(np.asarray(halves).astype(np.float32)).values)


class OneRun:
    """A run of `count` members, as far as functions of states see it."""

    def __init__(self, count):
        self.members, self.name = [None] * count, "a"

    def trajectory(self, member=0):
        return tt.Trajectory.from_array(SHORT)


@pytest.mark.parametrize("function", [tt.structure.observables, tt.pairwise, tt.autocorrelation])
def test_a_run_of_one_member_is_its_trajectory_and_one_of_several_gets_the_hint(function):
    wanted, found = function(SHORT), function(OneRun(1))
    assert type(wanted) is type(found)
    with pytest.raises(DataError, match=r"run 'a' of 3 members.*run.trajectory\(0\)"):
        function(OneRun(3))


def test_a_name_of_a_module_is_named_where_it_is():
    with pytest.raises(AttributeError, match=r"it is in tt.structure: tt.structure.observables"):
        tt.observables(OneRun(1))
    with pytest.raises(AttributeError, match=r"it has .*lyapunov"):
        tt.nothing()


def test_systems_take_a_seed():
    system = tt.systems.henon()
    same(system.trajectory(20, rng=0), system.trajectory(20, rng=np.random.default_rng(0)))
    same(system.trajectories(2, 20), system.trajectories(2, 20, rng=0))
    assert len(system.twins(2, 1, 20, epsilon=1e-6, rng=3)) == 2
    same(system.exponents(50, rng=1, n=2).values, system.exponents(50, rng=np.random.default_rng(1), n=2).values)
    same(tt.systems.white_networks(4, 9, rng=1), tt.systems.white_networks(4, 9, rng=np.random.default_rng(1)))
    with pytest.raises(DataError, match="rng must be a seed"):
        system.trajectory(20, rng="seed")


def test_durations_know_their_unit():
    import pickle

    one = pickle.loads(pickle.dumps(Duration(2.0, "h")))
    assert (one, one.unit) == (2.0, "h")
    assert isinstance(duration(0.5), float)


def test_masks_are_gaps_outside_states_too():
    matrix = np.random.default_rng(0).random((5, 5))
    matrix = matrix + matrix.T
    masked = np.ma.array(matrix, mask=False)
    masked[2], masked[:, 2] = np.ma.masked, np.ma.masked
    assert tt.Distances.from_array(masked, dt="1h").n_excluded == 1
    assert tt.Distances.from_array(masked, dt="1h").time_unit == "hour"
    fit = tt.statistics.fit_slope(np.arange(5.0), np.ma.masked_equal([0, 2, 99, 6, 8], 99))
    assert fit.slope == pytest.approx(2)
    series = np.r_[np.zeros(40), np.ones(40)] + np.random.default_rng(0).normal(0, 0.1, 80)
    loss = np.where(np.arange(80) % 3 > 0, -9999.0, 1.0)
    found = tt.structure.change_points(series, metrics={"loss": np.ma.masked_equal(loss, -9999.0)})
    assert len(found.index)
    np.testing.assert_array_equal(found.around["loss"], np.ones((len(found.index), 2)))


@pytest.mark.parametrize("function", [tt.lyapunov, tt.lyapunov_spectrum, tt.correlation_dimension])
@pytest.mark.parametrize(("columns", "noun"), [(1, "samples"), (2, "states")])
def test_what_is_not_finite_is_counted_in_a_warning(function, columns, noun):
    x = henon(600)[:, :columns].squeeze()
    assert "not-finite" not in codes(function(x).warnings)
    x[300] = np.nan
    (warning,) = [each for each in function(x).warnings if each.code == "not-finite"]
    assert warning.numbers == {"excluded": 1, "states": 600, "first": 300}
    assert warning.text == f"1 of 600 {noun} are missing (NaN) or infinite, the first at index 300: left out"
    x[500:] = np.inf
    steps = tt.Trajectory.from_array(x, step=np.arange(600) * 10)
    (warning, *_) = [each for each in function(steps).warnings if each.code == "not-finite"]
    assert warning.numbers == {"excluded": 101, "states": 600, "first": 3000}
