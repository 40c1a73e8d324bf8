"""One trajectory, given as distances, in any metric, as graphs, or with the buffers of its optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import call
from numpy.testing import assert_allclose

import trajtools as tt
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.exponents.one_trajectory import full_state, read_record, scaled
from trajtools.reasons import codes
from trajtools.store import RunSpec, RunWriter
from trajtools.wiring import Member, Parameter

METHODS = ("rosenstein", "kantz", "wolf", "hybrid")


def euclidean(x):
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=-1))


@pytest.fixture(scope="module")
def henon():
    return tt.systems.henon().trajectory(1500, rng=np.random.default_rng(1), transient=1000)


@pytest.fixture(scope="module")
def matrix(henon):
    return euclidean(henon)


# -- distances ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_distances_give_the_answer_of_their_states(henon, matrix, method):
    # The balls that lyapunov takes by itself are thinned in the order of the search, which is another one here.
    rule = tt.WithinRadius(0.05) if method in ("kantz", "hybrid") else None
    options = {"method": method, "neighbors": rule, "theiler": 5, "horizon": 12, "surrogates": 19}
    by_states = tt.lyapunov(henon, **options)
    by_matrix = tt.lyapunov(matrix, metric="precomputed", **options)
    by_object = tt.lyapunov(Distances.from_array(matrix, metric="l2"), **options)
    for found in (by_matrix, by_object):
        assert_allclose(found.value, by_states.value, rtol=1e-9)
        assert_allclose(found.interval, by_states.interval, rtol=1e-6)
        assert found.verdict == by_states.verdict
        assert_allclose(found.p_value, by_states.p_value)
    assert by_object.curve.metric == "l2"
    assert by_matrix.curve.metric == "precomputed"
    assert by_matrix.unit == "1/sample"


def test_what_is_chosen_from_distances_is_what_their_states_choose(henon, matrix):
    by_states, by_matrix = tt.lyapunov(henon), tt.lyapunov(matrix, metric="precomputed")
    for name in ("contrast", "time_apart", "drift", "unequal", "repeats", "saturation", "rise"):
        assert_allclose(by_matrix.settings["probe"][name], by_states.settings["probe"][name], rtol=1e-6, atol=1e-9)
    assert by_matrix.settings["theiler"] == by_states.settings["theiler"]
    assert by_matrix.verdict == by_states.verdict == "chaotic"
    assert "2 coordinates" in by_matrix.settings["tested_in"]


def test_classical_scaling_gives_the_states_back_up_to_a_rotation(henon, matrix):
    states, share = scaled(matrix, np.arange(len(matrix)))
    assert states.shape == (1500, 2)
    assert share < 1e-9
    assert_allclose(euclidean(states), matrix, atol=1e-9)
    many = np.random.default_rng(0).standard_normal((300, 200))
    assert scaled(euclidean(many), np.arange(300))[0].shape == (300, 64)
    holes = np.r_[np.arange(40), np.arange(50, 300)]
    assert len(scaled(euclidean(many), holes)[0]) == 250


def test_distances_that_are_not_euclidean_have_no_null_and_say_so(henon):
    manhattan = np.abs(henon[:, None] - henon[None]).sum(axis=-1)
    found = tt.lyapunov(Distances.from_array(manhattan, metric="l1"))
    assert_allclose(found.value, 0.42, atol=0.04)
    assert found.verdict == "inconclusive"
    assert np.isnan(found.p_value)
    assert found.reasons[-1].code == "not-euclidean"
    assert "give the states" in found.reasons[-1].text
    assert tt.lyapunov(henon, metric="l1").verdict == "chaotic"


def regular_records():
    rng = np.random.default_rng(7)
    yield "sine", np.stack([np.sin(0.13 * np.arange(900)), np.cos(0.13 * np.arange(900))], axis=1)
    yield "noise", rng.standard_normal((900, 3))
    yield "noise in 50 dimensions", rng.standard_normal((500, 50))
    yield "walk", rng.standard_normal((900, 5)).cumsum(axis=0)
    yield "descent", 0.99 ** np.arange(800)[:, None] * rng.standard_normal(6)


@pytest.mark.parametrize(("name", "x"), list(regular_records()), ids=lambda one: one if isinstance(one, str) else "")
def test_distances_of_what_is_not_chaos_are_not_called_so(name, x):
    found = tt.lyapunov(euclidean(x), metric="precomputed")
    assert found.verdict in ("regular", "inconclusive")
    assert found.reasons


def test_states_without_distances_are_left_out(henon):
    x = henon.copy()
    x[700] = np.nan
    found = tt.lyapunov(euclidean(x), metric="precomputed", null=None)
    assert_allclose(found.value, 0.42, atol=0.04)
    assert found.curve.settings["left_out"]["not_finite"] == 1


@pytest.mark.parametrize(
    ("matrix", "verdict"),
    [
        (np.zeros((200, 200)), "regular"),  # nothing moves: a fixed point
        (np.full((60, 60), np.nan), "inconclusive"),
        (np.ones((3, 3)) - np.eye(3), "inconclusive"),
    ],
    ids=["zeros", "unknown", "three states"],
)
def test_poor_distances_get_a_verdict_and_a_reason(matrix, verdict):
    found = tt.lyapunov(matrix, metric="precomputed")
    assert found.verdict == verdict
    assert found.reasons


def test_an_empty_matrix_is_refused():
    with pytest.raises(DataError, match="the trajectory is empty"):
        tt.lyapunov(np.zeros((0, 0)), metric="precomputed")


def test_windows_and_time_of_distances_are_kept(matrix):
    given = Distances.from_array(matrix, metric="l2", step=np.arange(1500) * 2, dt=0.5, time_unit="epoch")
    found = tt.lyapunov(given, window=(0, 2000), null=None)
    by_hand = tt.lyapunov(matrix[:1000, :1000], metric="precomputed", null=None)
    assert_allclose(found.value, by_hand.value)  # 2 steps of 0.5 epochs are one
    assert found.unit == "1/epoch"
    assert found.settings["steps_per_sample"] == 2


def test_wrong_distances_are_refused_with_the_way_out(matrix, monkeypatch):
    from trajtools.exponents import one_trajectory

    with pytest.raises(DataError, match=r"\(T, T\)"):
        tt.lyapunov(np.ones((5, 4)), metric="precomputed")
    with pytest.raises(DataError, match="negative"):
        tt.lyapunov(-matrix, metric="precomputed")
    with pytest.raises(DataError, match="give the states"):
        tt.lyapunov(matrix, metric="precomputed", dim=3)
    with pytest.raises(DataError, match="in the metric 'l2'"):
        tt.lyapunov(Distances.from_array(matrix, metric="l2"), metric="l1")
    monkeypatch.setattr(one_trajectory, "MOST_DISTANCES", 1000)
    with pytest.raises(TooLargeError, match="window="):
        tt.lyapunov(matrix, metric="precomputed")
    crooked = matrix.copy()
    crooked[3, 700] *= 2
    monkeypatch.undo()
    assert "not symmetric" in tt.lyapunov(crooked, metric="precomputed").reasons[0].text


# -- metrics -----------------------------------------------------------------------------------------------------------


def largest(a, b):
    return np.abs(a - b).max(axis=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_metric_by_name_by_object_and_by_function_is_the_same(henon, method):
    x = henon[:500]
    options = {"method": method, "theiler": 5, "horizon": 8, "null": None}
    for name, same in (("l1", tt.distances.METRICS["l1"]), ("linf", largest), ("rms", tt.distances.METRICS["rms"])):
        ours, theirs = (tt.lyapunov(x, metric=metric, **options) for metric in (name, same))
        assert_allclose(theirs.value, ours.value, rtol=1e-6)
        assert_allclose(theirs.curve.log_distance, ours.curve.log_distance, atol=1e-9)
        assert ours.curve.metric == name
    assert theirs.curve.metric == "rms"
    assert "Euclidean" in theirs.settings["checked_with"]


def test_rms_is_the_euclidean_distance_of_an_average_weight(henon):
    found, plain = (tt.rosenstein(henon, metric=name, theiler=3, horizon=5) for name in ("rms", "l2"))
    assert_allclose(found.log_distance, plain.log_distance - np.log(2) / 2, atol=1e-12)
    assert_allclose(np.exp(found.log_distance[0]), 0.7071 * np.exp(plain.log_distance[0]), rtol=1e-4)


def test_registered_metrics_are_known_and_unknown_ones_listed(henon):
    if "first_coordinate" not in tt.distances.METRICS:
        tt.distances.register_metric("first_coordinate", lambda a, b: np.abs(a[:, 0] - b[:, 0]))
    found = tt.lyapunov(henon[:600], metric="first_coordinate", null=None, theiler=3, horizon=6)
    alone = tt.lyapunov(henon[:600, 0], dim=1, null=None, theiler=3, horizon=6)
    assert_allclose(found.curve.log_distance, alone.curve.log_distance, atol=1e-9)
    with pytest.raises(UnknownNameError, match=r"l1, l2, linf, rms.*graph-l1.*precomputed"):
        tt.lyapunov(henon, metric="no such")


def test_graphs_are_compared_by_their_links(henon):
    rng = np.random.default_rng(3)
    weights = henon[:600] @ rng.standard_normal((2, 12))
    graphs = np.zeros((600, 4, 4))
    graphs[:, ~np.eye(4, dtype=bool)] = weights
    options = {"theiler": 5, "horizon": 8, "null": None}
    plain = tt.lyapunov(weights, metric="l1", **options)
    for method in METHODS:
        found = tt.lyapunov(graphs, metric="graph-l1", method=method, **options)
        direct = getattr(tt, method)(graphs, metric="graph-l1", theiler=5, horizon=8)
        assert_allclose(found.curve.log_distance, direct.log_distance, atol=1e-9)
        assert found.curve.metric == found.settings["metric"] == "graph-l1"
    by_rows = tt.lyapunov(weights, metric="graph-l1", nodes=4, **options)
    assert_allclose(by_rows.value, plain.value)
    assert_allclose(by_rows.intercept, plain.intercept - np.log(12))
    assert_allclose(by_rows.curve.log_distance, plain.curve.log_distance - np.log(12))
    with pytest.raises(DataError, match="give nodes=N"):
        tt.lyapunov(weights, metric="graph-l1")
    with pytest.raises(DataError, match="applies to metric 'graph-l1'"):
        tt.lyapunov(weights, nodes=4)


# -- optimiser buffers -------------------------------------------------------------------------------------------------


def heavy_ball(length, seed):
    """Two weights and their momentum: a chaotic map of four numbers."""
    state, out = np.random.default_rng(seed).uniform(-0.1, 0.1, 2), []
    velocity = np.zeros(2)
    for _ in range(length + 500):
        out.append(np.concatenate([state, velocity]))
        gradient = np.array([2.8 * state[0] ** 2 - 2, -0.6 * state[0]])
        velocity = 0.3 * velocity[::-1] - 0.5 * gradient
        state = np.tanh(1.5 * (state[::-1] + velocity))
    return np.array(out[500:])


def record(path, states, buffers, table, hparams):
    """One member with buffers beside its weights; all weights are one parameter."""
    width = states.shape[1]
    writer = RunWriter.create(
        path,
        RunSpec(
            parameters=[Parameter("layer.kernel", "other", (width,), "float64", 0, width)],
            nodes=[],
            members=[Member("m0")],
            dtype="float64",
            hparams=hparams,
            optimizer={"parameters": table, "dtype": "float64"},
        ),
    )
    for start in range(0, len(states), writer.layout.rows):
        count = min(writer.layout.rows, len(states) - start)
        tiles, more = writer.layout.new_tiles(), writer.layouts["optimizer"].new_tiles()
        for row in range(count):
            writer.layout.put(tiles, row, 0, states[start + row])
            writer.layouts["optimizer"].put(more, row, 0, buffers[start + row])
        writer.write(start, count, step=np.arange(start, start + count), weights=tiles, optimizer=more, final=True)
    writer.close()
    return path


@pytest.fixture(scope="module")
def momentum(tmp_path_factory):
    whole = heavy_ball(1200, 0)
    buffers = np.concatenate([1e4 * whole[:, 2:], np.arange(1200.0)[:, None]], axis=1)
    table = [
        Parameter("layer.kernel.momentum_buffer", "other", (2,), "float64", 0, 2),
        Parameter("layer.kernel.step", "other", (1,), "float64", 2, 1),
    ]
    path = record(tmp_path_factory.mktemp("buffers") / "momentum.h5", whole[:, :2], buffers, table, {"momentum": 0.3})
    return path, whole


def test_recorded_buffers_make_the_state_whole(momentum):
    path, whole = momentum
    with tt.open(path) as run:
        states, settings = full_state(run)
        joined = tt.lyapunov(run, null=None)
        alone = tt.lyapunov(run, null=None, buffers=False)
    assert states.shape == (1200, 4)  # the counter is time, not state
    assert_allclose(np.asarray(states)[:, :2], whole[:, :2])
    scale = settings["buffer_scales"]["momentum_buffer"]
    assert_allclose(np.asarray(states)[:, 2:], 1e4 * scale * whole[:, 2:])
    spread = np.asarray(states).var(axis=0)
    assert_allclose(spread[:2].sum(), spread[2:].sum())
    by_hand = tt.lyapunov(tt.Trajectory.from_array(np.asarray(states)), null=None)
    assert_allclose(joined.value, by_hand.value)
    assert "weights and the buffers" in joined.settings["state"]
    assert "hidden-state" not in codes(joined.reasons)
    assert alone.reasons[0].code == "hidden-state"
    assert "record the buffers" in alone.reasons[0].text


def test_delay_coordinates_take_the_place_of_buffers(momentum):
    with tt.open(momentum[0]) as run:
        delayed = tt.lyapunov(run, null=None, dim=2, delay=1)
        weights = tt.lyapunov(np.asarray(run.trajectory()), null=None, dim=2, delay=1)
    assert_allclose(delayed.value, weights.value)
    assert "state" not in delayed.settings


def test_a_window_joins_the_buffers_of_its_own_steps(momentum):
    path, whole = momentum
    with tt.open(path) as run:
        record = read_record(run, metric=None, dt=None, window=(100, 400), dim=None, nodes=None, buffers=None)
    assert_allclose(record.states[:, :2], whole[100:400, :2])
    ratio = record.states[:, 2:] / whole[100:400, 2:]
    assert_allclose(ratio, ratio[0, 0])


def test_too_few_buffers_leave_the_objection(tmp_path):
    whole = heavy_ball(300, 1)
    table = [Parameter("exp_avg/layer.kernel", "other", (2,), "float64", 0, 2)]
    path = record(tmp_path / "adam.h5", whole[:, :2], whole[:, 2:], table, {"optimizer": "Adam"})
    with tt.open(path) as run:
        found = tt.lyapunov(run, null=None)
        assert "2 recorded entries of the optimiser's buffers do not cover 2 weights" in found.reasons[0].text
    plain = call("lyapunov", path, "--null", "none", "--buffers").stdout
    assert "do not cover" in plain


def test_buffers_on_the_command_line(momentum, tmp_path):
    path, _ = momentum
    assert "not the state" not in call("lyapunov", path, "--null", "none").stdout
    assert "weights alone are not the state" in call("lyapunov", path, "--null", "none", "--no-buffers").stdout


def test_buffers_that_are_not_there_are_told(henon, tmp_path):
    from command_line import write

    with pytest.raises(DataError, match="not a Run"):
        tt.lyapunov(henon, buffers=True)
    path = write(tmp_path / "plain.h5", henon[:300, None], members=[Member("m0")])
    with tt.open(path) as run, pytest.raises(DataError, match=r"has no buffers .* delay coordinates"):
        tt.lyapunov(run, buffers=True)
    pair = (henon[:50], [henon[:50] + 1e-6])
    with pytest.raises(DataError, match="omit them for twins"):
        tt.lyapunov(pair, buffers=True)


def test_the_command_knows_the_optimiser_that_the_recorder_found(tmp_path):
    torch = pytest.importorskip("torch")
    from recorders.torch import Recorder

    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with Recorder(tmp_path / "adam.h5", model, optimizer=optimizer, quiet=True):
        for _ in range(150):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().mean().backward()
            optimizer.step()
    with tt.open(tmp_path / "adam.h5") as run:
        assert tt.lyapunov(run).reasons[0].code == "hidden-state"
    assert "the weights alone are not the state" in call("lyapunov", tmp_path / "adam.h5").stdout
