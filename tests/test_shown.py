"""Every public result shows itself: a few lines, HTML, tables."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from command_line import ROOT
from made_sweeps import made, point
from networks_drawn import mlp, size, trajectory
from test_edge import RATES, planted
from test_probes import PROBES
from test_tangent_exponents import follow

import recorders
import trajtools as tt
from trajtools.exponents.applicability import probe
from trajtools.results import MOST_LINES, Result, Shown
from trajtools.statistics import fit_slope
from trajtools.store import RunSpec, RunWriter
from trajtools.wiring import Member, Parameter
from trajtools.wording import WIDTH, columns

FRAMEWORKS = ("torch", "jax", "lightning", "huggingface", "keras", "__main__", "orbax")
INSIDE = {"Measures", "Result", "Survey", "ShardedRun"}  # bases, and kinds of Run


def logistic(n: int = 400, x: float = 0.3) -> np.ndarray:
    out = np.empty(n)
    for t in range(n):
        out[t] = x = 3.9 * x * (1 - x)
    return out


X = logistic()
PATH = np.cumsum(np.random.default_rng(0).standard_normal((60, 4)), axis=0)
SINES = np.c_[np.sin(np.arange(400) / 5), np.cos(np.arange(400) / 5)]
TWINS = [(logistic(80, x), [logistic(80, x + 1e-9), logistic(80, x - 1e-9)]) for x in (0.2, 0.3, 0.4, 0.6)]


def layers() -> tt.Trajectory:
    tables = (
        Parameter("a", "dense", (1, 2), "float64", 0, 2, "in", "out", 1, 0),
        Parameter("b", "bias", (2,), "float64", 2, 2),
    )
    return tt.Trajectory.from_array(PATH, parameters=tables)


def swept() -> object:
    values = [(0.1, 0.0, "regular"), (0.3, 0.001, "regular"), (0.5, 0.2, "sensitive"), (1.0, 0.3, "chaotic")]
    return made([point(x, value, verdict, times=(10 / x,)) for x, value, verdict in values])


def grid() -> object:
    points = [point(x, 0.3 * x, "chaotic" if x > 1 else "regular", y=y) for x in (0.5, 1.0, 2.0) for y in (0.0, 0.9)]
    return made(points, "momentum")


def stored(path: object, **hparams: object) -> tt.Run:
    table = [Parameter("w", "other", (3,), "float64", 0, 3)]
    RunWriter.create(path, RunSpec(parameters=table, members=[Member("a")], dtype="float64", hparams=hparams)).close()
    return tt.open(path)


def curvature(folder: object) -> object:
    with recorders.Recorder(folder / "c.h5", {"w": np.zeros(2)}, hparams={"lr": 0.1}, quiet=True) as rec:
        for t in range(100):
            rec.record({"w": np.full(2, float(t))}, step=t, h_max_full=min(20.0, 2.0 + t / 2), loss=1 / (1 + t))
    return tt.training.curvature(tt.open(folder / "c.h5"))


def checkpoints(folder: object) -> object:
    (folder / "points").mkdir()
    for step in (1, 2, 3):
        np.savez(folder / "points" / f"step_{step}.npz", w=np.full(3, float(step)))
    return tt.convert(folder / "points", folder / "converted.h5")


def networks() -> tuple[tt.Trajectory, tt.Trajectory]:
    tables = mlp(3, 4, 2)
    states = np.random.default_rng(0).standard_normal((2, 5, size(tables[0])))
    return trajectory(states[0], tables), trajectory(states[1], tables)


def trunk() -> object:
    w = np.random.default_rng(0).standard_normal((5, 5))
    return tt.training.iterated_trunk(lambda x: np.tanh(x @ w), np.ones((3, 5)), steps=30)


MAKE = {
    "Alignment": lambda _: tt.align(*networks()),
    "Autocorrelation": lambda _: tt.autocorrelation(PATH, surrogates=19),
    "BatchSharpness": lambda _: PROBES.batch_sharpness(np.eye(2), None, (6.0, 2.0), (5.0, 1.0)),
    "BoundaryLaw": lambda _: grid().phase_diagram().boundary_law(lambda y: 1 - y, "1 - momentum"),
    "ChangePoints": lambda _: tt.structure.change_points(PATH),
    "Choice": lambda _: tt.embedding.estimate_delay(X),
    "Coincidence": lambda _: swept().coincidence(),
    "Contributions": lambda _: tt.distances.contributions(layers(), layers()),
    "Conversion": checkpoints,
    "CorrelationSum": lambda _: tt.correlation_dimension(SINES).correlation_sums[0],
    "Curvature": curvature,
    "Cycles": lambda _: tt.structure.find_cycles(SINES),
    "Dimension": lambda _: tt.correlation_dimension(SINES),
    "Distances": lambda _: tt.pairwise(PATH),
    "Divergence": lambda _: tt.twins(TWINS),
    "Edge": lambda _: planted(np.where(RATES > 1.5, 0.4, 0.001), noise=0.002),
    "Exponent": lambda _: tt.twins(TWINS).fit(),
    "Fastest": lambda _: swept().fastest(),
    "Fit": lambda _: fit_slope(np.arange(9.0), np.arange(9.0) ** 2),
    "Lines": lambda _: tt.recurrence(SINES).lines,
    "LyapunovSpectrum": lambda _: tt.lyapunov_spectrum(tt.systems.henon().trajectory(1000, rng=0)),
    "MeanField": lambda _: tt.training.mean_field(1.5),
    "NodeCorrelation": lambda _: tt.structure.node_correlation(PATH.reshape(-1, 2, 2), lag=1),
    "Observables": lambda _: tt.structure.observables(layers()),
    "Onset": lambda _: swept().onset(),
    "OrbitalStability": lambda _: tt.orbital_stability(TWINS),
    "OrderChaos": lambda _: tt.training.order_chaos(np.random.default_rng(0).standard_normal((30, 4, 4))),
    "PhaseDiagram": lambda _: grid().phase_diagram(),
    "Probe": lambda _: probe(X[:, None], theiler=2, dtype=X.dtype),
    "Projection": lambda _: tt.structure.pca(PATH),
    "Recurrence": lambda _: tt.recurrence(SINES),
    "RecurrenceIntervals": lambda _: tt.recurrence(SINES).bootstrap(n=100),
    "RecurrenceNetwork": lambda _: tt.recurrence(SINES).network_measures(),
    "Repair": lambda folder: tt.repair(stored(folder / "r.h5").path),
    "Run": lambda folder: stored(folder / "a.h5", lr=0.1),
    "Runs": lambda folder: [stored(folder / f"{k}.h5", lr=0.1 * k) for k in range(40)] and tt.open_runs(folder),
    "Scaling": lambda _: made([point(x, 0.0, times=(10 / x,)) for x in (0.1, 0.2, 0.4, 0.8)]).scaling(),
    "Sharpness": lambda _: PROBES.sharpness(np.diag(np.arange(5.0)), None, of="full"),
    "SpectralDensity": lambda _: PROBES.spectral_density(np.diag(np.arange(9.0)), None, steps=4, samples=3, of="full"),
    "Spectrum": lambda _: tt.systems.henon().exponents(200, n=5, rng=0),
    "Sweep": lambda _: swept(),
    "SweepPoint": lambda _: swept().points[0],
    "SystemStates": lambda _: tt.structure.system_states(np.r_[PATH, PATH + 100]),
    "TangentExponents": lambda _: follow([np.diag([1.1, 0.9])] * 60, k=2),
    "ToOrbit": lambda _: tt.to_orbit(PATH, PATH[::2]),
    "Trace": lambda _: PROBES.trace(np.eye(3), None, samples=3, of="full"),
    "Trajectory": lambda _: layers(),
    "Trend": lambda _: tt.orbital_stability(TWINS).orbital,
    "TrunkStability": lambda _: trunk(),
    "WindowedRecurrence": lambda _: tt.recurrence(SINES).windowed(100),
    "Windows": lambda _: tt.lyapunov_windows(TWINS, window=40),
    "ZeroOne": lambda _: tt.structure.zero_one_test(X),
}


class Page(HTMLParser):
    """Every end tag closes the element that was opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def subclasses(cls: type) -> set[type]:
    below = set(cls.__subclasses__())
    return below | {one for child in below for one in subclasses(child)}


def test_no_public_result_is_left_out_or_prints_itself_in_its_own_way() -> None:
    for package in (tt, recorders):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(name in module.name for name in FRAMEWORKS):
                importlib.import_module(module.name)
    ours = [cls for cls in subclasses(Shown) if cls.__module__.partition(".")[0] in ("trajtools", "recorders")]
    assert {cls.__name__ for cls in ours} - INSIDE == set(MAKE)
    own = {name for cls in ours for name in ("__repr__", "__str__", "_repr_html_") if name in vars(cls)}
    assert not own


@pytest.mark.parametrize("name", sorted(MAKE))
def test_a_result_is_a_few_lines_valid_html_and_tables(name: str, tmp_path) -> None:
    result = MAKE[name](tmp_path)
    assert type(result).__name__ == name
    lines = repr(result).splitlines()
    assert str(result) == repr(result)
    assert len(lines) <= MOST_LINES
    assert all(len(line) <= 2 * WIDTH for line in lines)
    assert lines[0].startswith(f"{name}: ")
    assert result.summary().split()[0] in repr(result)
    page = Page()
    html = result._repr_html_()
    page.feed(html)
    assert page.open == []
    assert len(html) < 400_000
    if (hasattr(result, "plot") and not getattr(result, "y_name", "")) or name == "PhaseDiagram":
        assert "data:image/png;base64," in html
    if isinstance(result, Result) or name in ("Run", "Runs"):
        table = result.to_dataframe()
        assert len(table.columns)
        assert table.columns.is_unique
    if isinstance(result, Result) or name == "Run":
        dataset = result.to_xarray()
        for axis, length in dataset.sizes.items():
            assert axis
            assert length >= 0


def test_a_table_has_the_numbers_of_the_arrays_with_their_labels() -> None:
    growth = tt.twins(TWINS)
    table = growth.to_dataframe()
    one = table[(table["curve"] == 3) & (table["time"] == 7)]
    assert one["distances"].item() == growth.distances[3, 7]
    assert one["start"].item() == growth.start[3]
    assert one["log_distance"].item() == growth.log_distance[7]
    dataset = growth.to_xarray()
    assert dataset["distances"].sel(time=7.0).to_numpy()[3] == growth.distances[3, 7]
    assert dataset.attrs["metric"] == "l1"
    exponent = growth.fit()
    row = exponent.to_dataframe()
    assert (row["value"].item(), row["interval_low"].item()) == (exponent.value, exponent.interval[0])
    apart = tt.pairwise(PATH)
    np.testing.assert_array_equal(apart.to_dataframe().to_numpy(), apart.values)
    frame = grid().phase_diagram().to_dataframe()
    cell = frame[(frame["x"] == 2.0) & (frame["y"] == 0.9)]
    assert cell["exponent"].item() == pytest.approx(0.6)
    rates = MAKE["Edge"](None).to_dataframe()
    assert {"interval_low", "interval_high"} <= set(rates.columns)


def test_a_sweep_answers_in_a_sentence() -> None:
    assert swept().summary() == (
        "At learning rates up to 0.3 nearby trainings stay together; from 0.5 on they part, twice as far every 2.3 to "
        "3.5 steps. Training is fastest at learning rate 1 (10 steps to accuracy 0.9), an end of the range."
    )
    same = made([point(x, 0.2, "chaotic", times=()) for x in (0.1, 1.0)])
    assert same.summary() == ("At learning rates 0.1 and 1 nearby trainings part, twice as far every 3.5 steps.")
    values = ((1, 0.2, "chaotic"), (2, 0.0, "regular"), (3, 0.1, "inconclusive"))
    mixed = made([point(x, value, verdict, times=()) for x, value, verdict in values])
    assert mixed.summary() == (
        "At learning rate 2 nearby trainings stay together; at 1 they part, twice as far every 3.5 steps; at 3 the "
        "data do not decide."
    )
    seeds = [
        (1, 0.0, "regular"),
        (1, 0.1, "inconclusive"),
        (2, 0.2, "chaotic"),
        (2, 0.0, "regular"),
        (3, 0.2, "chaotic"),
    ]
    split = made([point(x, value, verdict, times=()) for x, value, verdict in seeds])
    assert split.summary() == (
        "At learning rate 1 nearby trainings stay together; at 3 they part, twice as far every 3.5 steps; at 2 it "
        "depends on the run."
    )
    assert made([point(1.0, times=())]).summary() == "No exponent was measured."


def test_what_is_long_is_cut_and_says_where_the_rest_is() -> None:
    from dataclasses import replace

    from trajtools.reasons import Reason

    exponent = tt.twins(TWINS).fit()
    many = replace(exponent, reasons=tuple(Reason("growth", f"reason {k}") for k in range(40)))
    text = repr(many)
    assert len(text.splitlines()) <= MOST_LINES
    assert "more, in .reasons" in text
    assert columns(["a"], [[str(k)] for k in range(30)])[-1] == "... and 10 more"


def test_names_from_files_are_escaped(tmp_path) -> None:
    run = stored(tmp_path / "<b>.h5", note="<script>")
    assert "<script>" not in run._repr_html_()
    assert "<script>" not in tt.open_runs(tmp_path)._repr_html_()


def test_runs_that_cannot_be_read_say_so_in_their_row(tmp_path) -> None:
    stored(tmp_path / "a.h5", lr=0.1)
    (tmp_path / "b.h5").write_bytes(b"no file of ours")
    assert "cannot be read" in repr(tt.open_runs(tmp_path))
    assert list(tt.open_runs(tmp_path).to_dataframe()["run"]) == ["a", "b"]


def test_the_metrics_of_a_run_are_a_table(tmp_path) -> None:
    with recorders.Recorder(tmp_path / "m.h5", {"w": np.zeros(2)}, quiet=True) as rec:
        for t in range(5):
            rec.record({"w": np.full(2, float(t))}, step=t, loss=1.0 / (t + 1))
    with tt.open(tmp_path / "m.h5") as run:
        table = run.to_dataframe()
        assert list(table.columns) == ["step", "loss"]
        np.testing.assert_allclose(table["loss"], 1 / np.arange(1, 6))
        assert run.to_xarray()["loss"].dims == ("step",)


def test_without_pandas_one_sentence_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['pandas'] = sys.modules['xarray'] = None\n"
        "import numpy as np, trajtools as tt\n"
        "from trajtools.errors import MissingDependencyError\n"
        "result = tt.pairwise(np.arange(6.0)[:, None])\n"
        "for convert in (result.to_dataframe, result.to_xarray):\n"
        "    try: convert()\n"
        "    except MissingDependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines() == [
        f"this needs {name}, which is not installed: pip install {name}" for name in ("pandas", "xarray")
    ], done.stderr
