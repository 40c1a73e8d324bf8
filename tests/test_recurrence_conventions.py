"""Every convention reproduces its package: golden values that were made with it, and the package itself where it is."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from trajtools.recurrences.measures import CONVENTIONS, MEASURES

# The 33 recurrences of the 10 x 11 matrix that RecurrenceAnalysis.jl is tested with, from 1 on.
CELLS = (
    "1,1 2,2 3,2 6,2 7,2 8,2 6,3 7,3 10,3 2,4 4,4 1,5 2,5 3,5 5,5 9,5 10,5 2,6 3,6 6,6 7,6 10,6 3,7 8,7 4,8 1,9 5,9 "
    "7,9 9,9 9,10 10,10 3,11 7,11"
)
# DET, L, Lmax, LAM, TT, MRT as fractions; ENTR, TREND, RTE to the digits that the package publishes; NMPRT.
PUBLISHED = {
    (0, 1): ("33/110", "1", "33/20", 5, "1", "33/23", "33/12", 0.996, -33.8, 1.286, 4),
    (2, 1): ("22/110", "1", "22/14", 5, "1", "22/15", "24/6", 0.830, -17.9, 1.011, 3),
    (0, 2): ("33/110", "22/33", "22/9", 5, "18/33", "18/8", "33/12", 0.684, -33.8, 1.286, 4),
    (2, 2): ("22/110", "13/22", "13/5", 5, "12/22", "12/5", "24/6", 0.500, -17.9, 1.011, 3),
}
# A walk of 120 exact binary fractions, embedded with dim=2 and delay=3; maximum norm, threshold 0.7. Made with
# pyunicorn 1.0.0, and with PyRQA 8.1.0 in double precision on the CPU (theiler 1 and 3).
PYUNICORN = {
    "RR": 0.25852874570823287, "DET": 0.8983050847431376, "L": 5.1233333332479445, "Lmax": 116,
    "ENTR": 2.020136253069981, "LAM": 0.9203164735775069, "TT": 6.687885010129612, "Vmax": 36,
    "VENTR": 2.5604829712046273, "MRT": 12.09773539914067, "RTE": 2.6805502371502983,
}  # fmt: skip
PYRQA = {
    "RR": 0.25852874570823287, "LAM": 0.9203164735801074, "TT": 6.687885010266941, "Vmax": 36,
    "VENTR": 2.560482971236671, "MRT": 19.474206349206348, "RTE": 3.3423988760501726,
}  # fmt: skip
PYRQA_DIAGONALS = {
    1: {"DET": 0.8983050847457628, "L": 5.123333333333333, "Lmax": 116, "ENTR": 2.020136253086983},
    3: {"DET": 0.8851802403204272, "L": 4.620209059233449, "Lmax": 29, "ENTR": 1.966123446341582},
}


def golden_matrix():
    matrix = np.zeros((10, 11), dtype=bool)
    for cell in CELLS.split():
        row, column = (int(number) - 1 for number in cell.split(","))
        matrix[row, column] = True
    return matrix


def golden(theiler, least, convention, **options):
    return tt.recurrence(
        1.0 - golden_matrix(),
        metric="precomputed",
        threshold=0.5,
        theiler=theiler,
        lmin=least,
        vmin=least,
        convention=convention,
        trend_border=1,
        **options,
    )


def binary_walk(length=120):
    """The same on every machine, and exact in single precision: packages cast to it."""
    steps, state = [], 12345
    for _ in range(length):
        state = (1103515245 * state + 12345) % 2**31
        steps.append((state >> 15) / 2**16 - 0.5)
    return np.cumsum(steps)


@pytest.mark.parametrize(("theiler", "least"), PUBLISHED)
def test_recurrenceanalysis_convention_has_the_published_values(theiler, least):
    rate, det, mean, lmax, lam, trapping, times, entropy, trend, time_entropy, most = PUBLISHED[theiler, least]
    found = golden(theiler, least, "recurrenceanalysis")
    assert found.kind == "cross"
    exact = {"RR": rate, "DET": det, "L": mean, "LAM": lam, "TT": trapping, "MRT": times}
    for name, fraction in exact.items():
        assert found[name] == float(Fraction(fraction)), name
    assert (found.Lmax, found.DIV, found.Vmax, found.NMPRT) == (lmax, 1 / lmax, 3, most)
    assert_allclose([found.ENTR, found.RTE], [entropy, time_entropy], atol=1e-3)
    assert_allclose(found.TREND, trend, atol=0.1)


def test_recurrenceanalysis_convention_has_the_published_histograms():
    for theiler, wanted in (
        (0, ([11, 7, 1, 0, 1], [15, 6, 2], [3, 1, 4, 4])),
        (2, ([9, 4, 0, 0, 1], [10, 3, 2], [1, 0, 3, 0, 0, 0, 2])),
    ):
        lines = golden(theiler, 1, "recurrenceanalysis").lines
        for histogram, numbers in zip((lines.diagonal, lines.vertical, lines.times), wanted, strict=True):
            assert histogram[1:].tolist() == numbers


def test_standard_convention_on_the_golden_matrix():
    # Worked out by hand from the drawing of the matrix: cells outside the window 81, lines and times in its columns.
    found = golden(2, 2, "standard")
    exact = {"RR": "22/81", "DET": "13/22", "L": "13/5", "LAM": "12/22", "TT": "12/5", "MRT": "14/4"}
    for name, fraction in exact.items():
        assert found[name] == float(Fraction(fraction)), name
    assert found.lines.times.tolist() == [0, 0, 1, 0, 3]
    whole = golden(0, 2, "standard")
    assert whole.lines.outside(0) == (33, 110)
    assert whole.lines.times.tolist() == [0, 0, 3, 0, 8, 1]
    # The least-squares slope of the recurrence rate over the lag.
    assert_allclose([whole.TREND, found.TREND], [-35.10, -19.03], atol=0.005)


def test_pyunicorn_convention_has_the_values_of_the_package():
    found = tt.recurrence(binary_walk(), dim=2, delay=3, metric="linf", threshold=0.7, convention="pyunicorn")
    for name, value in PYUNICORN.items():
        assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("theiler", [1, 3])
def test_pyrqa_convention_has_the_values_of_the_package(theiler):
    found = tt.recurrence(
        binary_walk(), dim=2, delay=3, metric="linf", threshold=0.7, convention="pyrqa", theiler=theiler
    )
    for name, value in (PYRQA | PYRQA_DIAGONALS[theiler]).items():
        assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_conventions_differ_where_they_say():
    found = {
        name: tt.recurrence(binary_walk(), dim=2, delay=3, metric="linf", threshold=0.7, convention=name)
        for name in CONVENTIONS
    }
    standard = found["standard"]
    assert standard.RR == found["recurrenceanalysis"].RR < found["pyrqa"].RR
    assert standard.LAM == found["recurrenceanalysis"].LAM != found["pyrqa"].LAM
    for name in ("DET", "L", "Lmax", "ENTR"):
        assert_allclose(found["pyunicorn"][name], standard[name], rtol=1e-9)
    edge = (
        tt.recurrence([0.0, 1.0, 5.0], threshold=1.0).RR,
        tt.recurrence([0.0, 1.0, 5.0], threshold=1.0, convention="pyrqa").RR,
    )
    assert edge == (1 / 3, 3 / 9)  # a distance of 1 recurs in the one; in the other only the line of identity does


def test_measures_of_no_lines_are_those_of_each_package():
    for name, (mean, entropy) in {
        "standard": (np.nan, np.nan),
        "pyunicorn": (0.0, 0.0),
        "pyrqa": (np.nan, 0.0),
        "recurrenceanalysis": (0.0, np.nan),
    }.items():
        found = tt.recurrence(np.arange(9.0), threshold=0.5, convention=name)
        assert_array_equal([found.L, found.ENTR], [mean, entropy], err_msg=name)


def compare(found, wanted, context):
    for name, value in wanted.items():
        assert name in MEASURES
        assert_allclose(found[name], float(value), rtol=1e-12, atol=1e-12, err_msg=f"{name} {context}")


def random_series():
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=130)
        yield (x.cumsum() if seed else x).astype(np.float32).astype(np.float64)


def test_pyunicorn_itself_gives_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timeseries = pytest.importorskip("pyunicorn.timeseries")
    for x in random_series():
        for metric, word in (("linf", "supremum"), ("l2", "euclidean"), ("l1", "manhattan")):
            for dim, delay, least, threshold in ((1, 1, 2, 0.4), (3, 2, 3, 1.6)):
                plot = timeseries.RecurrencePlot(
                    x, metric=word, dim=dim, tau=delay, threshold=threshold, silence_level=2
                )
                found = tt.recurrence(
                    x,
                    metric=metric,
                    dim=dim,
                    delay=delay,
                    threshold=threshold,
                    lmin=least,
                    vmin=least,
                    convention="pyunicorn",
                )
                wanted = {
                    "RR": plot.recurrence_rate(),
                    "DET": plot.determinism(least),
                    "L": plot.average_diaglength(least),
                    "Lmax": plot.max_diaglength(),
                    "ENTR": plot.diag_entropy(least),
                    "LAM": plot.laminarity(least),
                    "TT": plot.trapping_time(least),
                    "Vmax": plot.max_vertlength(),
                    "VENTR": plot.vert_entropy(least),
                    "MRT": plot.mean_recurrence_time(),
                    "RTE": plot.white_vert_entropy(),
                }
                compare(found, wanted, (metric, dim))
                scaled = timeseries.RecurrencePlot(
                    x, metric=word, dim=dim, tau=delay, threshold_std=0.3, silence_level=2
                )
                ours = tt.recurrence(
                    x,
                    metric=metric,
                    dim=dim,
                    delay=delay,
                    threshold=tt.neighbors.ScaledRadius(0.3),
                    convention="pyunicorn",
                )
                assert_allclose(ours.RR, scaled.recurrence_rate(), atol=2e-3)  # its deviation is in single precision
                network = timeseries.RecurrenceNetwork(
                    x, metric=word, dim=dim, tau=delay, threshold=threshold, silence_level=2
                )
                measures = found.network_measures()
                assert_allclose(measures.transitivity, network.transitivity(), rtol=1e-10)
                assert_allclose(measures.density, network.link_density, rtol=1e-12)
                assert_allclose(measures.average_clustering, network.global_clustering(), rtol=1e-10)


def test_joint_plots_of_pyunicorn_are_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timeseries = pytest.importorskip("pyunicorn.timeseries")
    _, x, y = random_series()
    plot = timeseries.JointRecurrencePlot(x, y, threshold=(1.0, 2.0), metric=("supremum", "supremum"), silence_level=2)
    found = tt.recurrence(x, y=y, kind="joint", threshold=(1.0, 2.0), metric="linf", convention="pyunicorn")
    wanted = {"RR": plot.recurrence_rate(), "DET": plot.determinism(2), "LAM": plot.laminarity(2)}
    compare(found, wanted, "joint")


def pyrqa_measures(series, analysis, metric, threshold, theiler):
    """Measures of PyRQA in double precision; its own recurrence rate is a single precision number."""
    from pyrqa import metric as metrics
    from pyrqa.computation import RQAComputation
    from pyrqa.neighbourhood import FixedRadius
    from pyrqa.settings import Settings

    kind = {"linf": metrics.MaximumMetric, "l2": metrics.EuclideanMetric, "l1": metrics.TaxicabMetric}[metric]
    settings = Settings(
        series,
        analysis_type=analysis,
        neighbourhood=FixedRadius(threshold),
        similarity_measure=kind,
        theiler_corrector=theiler,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = RQAComputation.create(settings, verbose=False).run()
    cells = settings.number_of_vectors_x * settings.number_of_vectors_y
    return {
        "RR": int(found.number_of_recurrence_points) / cells,
        "DET": found.determinism,
        "L": found.average_diagonal_line,
        "Lmax": found.longest_diagonal_line,
        "DIV": found.divergence,
        "ENTR": found.entropy_diagonal_lines,
        "LAM": found.laminarity,
        "TT": found.trapping_time,
        "Vmax": found.longest_vertical_line,
        "VENTR": found.entropy_vertical_lines,
        "MRT": found.average_white_vertical_line,
        "RTE": found.entropy_white_vertical_lines,
    }


def test_pyrqa_itself_gives_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pyrqa.computation")
        from pyrqa.analysis_type import Classic, Cross
        from pyrqa.time_series import TimeSeries
    import pyopencl

    try:
        platforms = pyopencl.get_platforms()
    except pyopencl.Error as missing:
        pytest.skip(f"PyRQA is installed, OpenCL is not: {missing}")
    assert platforms

    def series(x, dim=1, delay=1):
        return TimeSeries(x, embedding_dimension=dim, time_delay=delay, dtype=np.float64)

    _, x, y = random_series()
    for metric in ("linf", "l2", "l1"):
        for dim, delay, theiler in ((1, 1, 1), (3, 2, 0), (2, 5, 4)):
            wanted = pyrqa_measures(series(x, dim, delay), Classic, metric, 1.2, theiler)
            options = {"metric": metric, "dim": dim, "delay": delay, "threshold": 1.2, "theiler": theiler}
            compare(tt.recurrence(x, convention="pyrqa", **options), wanted, options)
    # Its first series runs along the columns.
    wanted = pyrqa_measures((series(x), series(y[:90])), Cross, "l2", 1.2, 0)
    compare(tt.recurrence(y[:90], y=x, threshold=1.2, convention="pyrqa"), wanted, "cross")
