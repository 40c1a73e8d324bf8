"""What the framework-free recorder stores, and at which step."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import trajtools as tt
from recorders import AtSteps, LogSpaced, Recorder, perturb
from recorders.adapter import Pending
from trajtools.errors import RecordingError, RunExistsError, SelectionError
from trajtools.wiring import Member

pytestmark = pytest.mark.recorders
WRITERS = pytest.mark.parametrize("writer", ["thread", "direct"])


def network(seed=0, dtype="float32", width=10):
    rng = np.random.default_rng(seed)
    shapes = {"0.weight": (width, 4), "0.bias": (width,), "2.weight": (3, width), "2.bias": (3,)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def updated(params, step):
    return {name: (array + np.float32(0.01 * (step + 1))).astype(array.dtype) for name, array in params.items()}


def flat(params):
    return np.concatenate([np.asarray(array).reshape(-1) for array in params.values()])


def read(path, run="run"):
    with tt.open(path) as run:
        found = file[run]
        return {
            "weights": np.asarray(found.weights),
            "step": found.step,
            "metrics": {name: np.asarray(values) for name, values in found.metrics.items()},
            "status": found.status,
            "overhead": found.overhead,
            "provenance": found.provenance,
            "members": found.members,
            "parameters": found.parameters,
            "hparams": found.hparams,
        }


@WRITERS
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 200])
def test_every_state_is_stored_bit_for_bit(tmp_path, writer, n):
    params = network()
    kept = [flat(params)]
    with Recorder(tmp_path / "a.h5", params, writer=writer) as rec:
        for step in range(n):
            params = updated(params, step)
            kept.append(flat(params))
            rec.record(params, loss=float(step))
    found = read(tmp_path / "a.h5")
    assert_array_equal(found["weights"][:, 0].view("u4"), np.array(kept).view("u4"))
    assert_array_equal(found["step"], np.arange(n + 1))
    if n:
        assert_array_equal(found["metrics"]["loss"], [np.nan, *range(n)])
    assert found["status"] == "complete"


@pytest.mark.parametrize("width", [1, 10, 3000, 40_000])
def test_states_of_any_size_fit_the_chunks(tmp_path, width):
    params = network(width=width)
    with Recorder(tmp_path / "a.h5", params) as rec:
        for step in range(3):
            params = updated(params, step)
            rec.record(params)
    assert_array_equal(read(tmp_path / "a.h5")["weights"][-1, 0], flat(params))


def test_recording_before_and_after_the_update_count_alike(tmp_path):
    for name, before in (("before.h5", True), ("after.h5", False)):
        params = network()
        with Recorder(tmp_path / name, params) as rec:
            for step in range(5):
                if before:
                    rec.record(params, loss=float(step))
                params = updated(params, step)
                if not before:
                    rec.record(params, loss=float(step))
    before, after = read(tmp_path / "before.h5"), read(tmp_path / "after.h5")
    assert before["step"].tolist() == [0, 1, 2, 3, 4]
    assert after["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert_array_equal(before["weights"], after["weights"][:5])
    assert before["metrics"]["loss"].tolist() == [0, 1, 2, 3, 4]
    assert_array_equal(after["metrics"]["loss"], [np.nan, 0, 1, 2, 3, 4])


def test_metrics_without_a_state_belong_to_the_newest_one(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params) as rec:
        for step in range(130):
            rec.record(loss=float(step))
            params = updated(params, step)
            rec.advance(params)
            assert rec.step == step + 1
        rec.record(loss=130.0)
    found = read(tmp_path / "a.h5")
    assert_array_equal(found["metrics"]["loss"], np.arange(131.0))
    assert_array_equal(found["step"], np.arange(131))


def test_a_state_is_never_stored_twice(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params) as rec:
        rec.record(params, step=0, loss=1.0)
        rec.record(params, step=4, loss=2.0)
        rec.record(params, step=4, loss=3.0)
        with pytest.raises(RecordingError, match="step 3 comes after step 4"):
            rec.record(params, step=3)
        rec.record(params)
        assert rec.n_recorded == 3
    found = read(tmp_path / "a.h5")
    assert found["step"].tolist() == [0, 4, 5]
    assert_array_equal(found["metrics"]["loss"], [1, 3, np.nan])


def test_an_unchanged_state_after_the_first_record_is_a_step(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params) as rec:
        for _ in range(3):
            rec.record(params)
    assert read(tmp_path / "a.h5")["step"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("every", "steps"),
    [(4, [0, 4, 8]), (LogSpaced(2), [0, 1, 3, 10]), (AtSteps([2, 9]), [0, 2, 9]), (lambda s: s == 5, [0, 5])],
)
def test_the_policy_says_which_steps_are_stored(tmp_path, every, steps):
    params = network()
    with Recorder(tmp_path / "a.h5", params, every=every) as rec:
        for step in range(10):
            params = updated(params, step)
            rec.record(params, loss=float(step + 1))
        assert rec.step == 10
    found = read(tmp_path / "a.h5")
    assert found["step"].tolist() == steps
    assert_array_equal(found["metrics"]["loss"][1:], steps[1:])


def test_blocks_of_states_equal_states_one_by_one(tmp_path):
    states = [network()]
    for step in range(149):
        states.append(updated(states[-1], step))
    stack = {name: np.stack([s[name] for s in states]) for name in states[0]}
    losses = np.arange(150.0)
    with Recorder(tmp_path / "blocks.h5", states[0]) as rec:
        for a, b in ((0, 7), (7, 100), (100, 150)):
            rec.record_block({name: array[a:b] for name, array in stack.items()}, loss=losses[a:b])
    with Recorder(tmp_path / "single.h5", states[0]) as rec:
        for state, loss in zip(states, losses, strict=True):
            rec.record(state, loss=float(loss))
    blocks, single = read(tmp_path / "blocks.h5"), read(tmp_path / "single.h5")
    assert_array_equal(blocks["weights"], single["weights"])
    assert_array_equal(blocks["step"], single["step"])
    assert_array_equal(blocks["metrics"]["loss"], losses)


def test_a_block_may_name_its_steps(tmp_path):
    params = network()
    stack = {name: np.stack([array] * 3) for name, array in params.items()}
    with Recorder(tmp_path / "a.h5", params) as rec:
        rec.record_block(stack, step=[2, 4, 8])
        rec.record_block(stack, step=10)
        with pytest.raises(RecordingError, match="3 increasing steps"):
            rec.record_block(stack, step=[20, 20, 21])
        with pytest.raises(RecordingError, match="leading axis of 3 states"):
            rec.record_block(stack, loss=[1.0, 2.0])
    assert read(tmp_path / "a.h5")["step"].tolist() == [0, 2, 4, 8, 10, 11, 12]


def test_members_may_come_as_a_list_or_on_a_leading_axis(tmp_path):
    params = network()
    twins = perturb(params, 0.1, 2, 3)
    members = [params, *twins]
    stack = {name: np.stack([m[name] for m in members]) for name in params}
    with Recorder(tmp_path / "list.h5", members) as rec:
        rec.record([updated(m, 0) for m in members])
    table = [Member("reference"), *twins.members]
    with Recorder(tmp_path / "stack.h5", stack, members=table) as rec:
        rec.record({name: np.stack([updated(m, 0)[name] for m in members]) for name in params})
    listed, stacked = read(tmp_path / "list.h5"), read(tmp_path / "stack.h5")
    assert listed["weights"].shape == (2, 3, sum(a.size for a in params.values()))
    assert_array_equal(listed["weights"], stacked["weights"])
    # NaN of the reference's epsilon is equal to itself only as text.
    assert repr(listed["members"]) == repr(stacked["members"]) == repr(tuple(table))


def test_metrics_may_be_numbers_or_per_member(tmp_path):
    members = [network(seed) for seed in range(3)]
    with Recorder(tmp_path / "a.h5", members) as rec:
        rec.record(
            members, loss=[1, 2, 3], spectrum=np.arange(6).reshape(3, 2), rate=np.float32(0.5), epoch=np.array(2)
        )
    found = read(tmp_path / "a.h5")["metrics"]
    assert {name: values.shape for name, values in found.items()} == {
        "loss": (1, 3),
        "spectrum": (1, 3, 2),
        "rate": (1,),
        "epoch": (1,),
    }
    assert found["spectrum"][0].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_one_network_may_have_several_numbers_per_metric(tmp_path):
    with Recorder(tmp_path / "a.h5", network()) as rec:
        rec.record(eigenvalues=[3.0, 2.0])
    assert read(tmp_path / "a.h5")["metrics"]["eigenvalues"].shape == (1, 1, 2)


def test_a_metric_that_is_not_given_is_nan(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params, metrics=("loss", "accuracy")) as rec:
        for step in range(140):
            rec.record(loss=1.0) if step % 2 else rec.record(accuracy=0.5)
            params = updated(params, step)
            rec.advance(params)
    found = read(tmp_path / "a.h5")["metrics"]
    assert_array_equal(np.isnan(found["loss"]), [step % 2 == 0 or step == 140 for step in range(141)])
    assert_array_equal(np.isnan(found["accuracy"]), [step % 2 == 1 or step == 140 for step in range(141)])


@pytest.mark.parametrize("given", [None, ("loss",), {"loss": ()}])
def test_a_new_metric_is_refused_with_the_way_out(tmp_path, given):
    with Recorder(tmp_path / "a.h5", network(), metrics=given) as rec:
        rec.record(loss=1.0)
        with pytest.raises(RecordingError, match=r"'accuracy' is new; .* metrics=\('loss', 'accuracy',?\)"):
            rec.record(accuracy=1.0)
        rec.record(loss=2.0)
    assert read(tmp_path / "a.h5")["metrics"]["loss"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("high", "neither a real number"),
        (1j, "neither a real number"),
        ([1.0, 2.0, 3.0], r"shape \(3,\) per state; with 2 members"),
        (np.ones((2, 2, 2)), r"may be a number \(\), \(2,\) or \(2, k\)"),
        (object(), "neither a real number"),
    ],
)
def test_what_is_no_metric_is_refused(tmp_path, value, words):
    with (
        Recorder(tmp_path / "a.h5", [network(0), network(1)]) as rec,
        pytest.raises(RecordingError, match=words),
    ):
        rec.record(loss=value)


def test_a_metric_that_would_be_a_path_is_refused_and_the_recorder_goes_on(tmp_path):
    with Recorder(tmp_path / "a.h5", network()) as rec:
        with pytest.raises(RecordingError, match="'val/loss' is not a valid name in a file; call it 'val_loss'"):
            rec.record(**{"val/loss": 1.0})
        rec.record(val_loss=1.0)
    assert read(tmp_path / "a.h5")["metrics"]["val_loss"].tolist() == [1.0]
    with pytest.raises(RecordingError, match="call it 'a_b'"):
        Recorder(tmp_path / "b.h5", network(), metrics=("a/b",))


def test_the_shape_of_a_metric_stays(tmp_path):
    with Recorder(tmp_path / "a.h5", [network(0), network(1)]) as rec:
        rec.record(loss=[1.0, 2.0])
        with pytest.raises(RecordingError, match=r"shape \(\) per state, its first value had shape \(2,\)"):
            rec.record(loss=1.0)


def test_include_and_exclude_choose_parameters(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params, include="*.weight", exclude=["2.*"]) as rec:
        rec.record(updated(params, 0))
    found = read(tmp_path / "a.h5")
    assert [p.name for p in found["parameters"]] == ["0.weight"]
    assert_array_equal(found["weights"][1, 0], updated(params, 0)["0.weight"].reshape(-1))
    with pytest.raises(SelectionError, match=r"no parameter matches 'conv\*'; the parameters are '0.weight', '0.bias'"):
        Recorder(tmp_path / "b.h5", params, include=("*", "conv*"))
    with pytest.raises(SelectionError, match="select no parameter"):
        Recorder(tmp_path / "b.h5", params, exclude="*")
    assert not (tmp_path / "b.h5").exists()


def test_the_parameters_table_carries_kinds_and_node_sets(tmp_path):
    params = network()
    Recorder(tmp_path / "a.h5", params, kinds={"2.weight": "recurrent"}).close()
    table = {p.name: p for p in read(tmp_path / "a.h5")["parameters"]}
    assert table["0.weight"].kind == "dense"
    assert table["0.weight"].source == "input"
    assert table["2.weight"].kind == "recurrent"
    assert [p.offset for p in table.values()] == [0, 40, 50, 80]


def test_several_runs_fit_one_file_and_none_is_overwritten(tmp_path):
    path = tmp_path / "a.h5"
    Recorder(path, network(), run="one", hparams={"lr": 0.1}).close()
    with pytest.raises(FileExistsError, match="mode='a'"):
        Recorder(path, network(), run="two")
    Recorder(path, network(), run="two", mode="a", reference="one").close()
    with pytest.raises(RunExistsError, match="one"):
        Recorder(path, network(), run="one", mode="a")
    with tt.open(path) as run:
        assert set(file) == {"one", "two"}
        assert file["two"].reference == "one"
        assert file["one"].hparams == {"lr": 0.1}


def test_the_recorder_changes_nothing(tmp_path):
    params = network()
    params["0.weight"] = np.asfortranarray(params["0.weight"])
    params["2.weight"] = params["2.weight"][:, ::-1]
    before = {name: (id(array), array.tobytes()) for name, array in params.items()}
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  (the global generator is what must not move)
    states = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    with Recorder(tmp_path / "a.h5", params, store="weights") as rec:
        rec.record(params, loss=1.0)
        rec.record(params, loss=1.0)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states  # noqa: NPY002
    assert {name: (id(array), array.tobytes()) for name, array in params.items()} == before
    assert_array_equal(read(tmp_path / "a.h5")["weights"][1, 0], flat(params))


def test_states_are_copied_before_record_returns(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params) as rec:
        for step in range(70):
            for array in params.values():
                array[...] = step + 1
            rec.record(params)
    assert_array_equal(read(tmp_path / "a.h5")["weights"][:, 0, 0][1:], np.arange(1, 71))


def test_read_only_arrays_can_be_recorded(tmp_path):
    params = network()
    for array in params.values():
        array.flags.writeable = False
    Recorder(tmp_path / "a.h5", params).close()
    assert_array_equal(read(tmp_path / "a.h5")["weights"][0, 0], flat(params))


def test_nan_and_inf_are_normal_data(tmp_path):
    params = {"w": np.array([[np.nan, np.inf], [-np.inf, -0.0]])}
    params["w"].view("u8")[0, 0] = 0x7FF8_0000_DEAD_BEEF  # a NaN with a payload
    with Recorder(tmp_path / "a.h5", params) as rec:
        rec.record(params, loss=float("nan"))
    assert_array_equal(read(tmp_path / "a.h5")["weights"].view("u8").reshape(-1), params["w"].view("u8").reshape(-1))


def test_the_forecast_says_what_a_run_will_take(tmp_path, caplog):
    params = {"w": np.zeros((100, 250), np.float32)}
    with caplog.at_level(logging.INFO, logger="recorders"):
        rec = Recorder(tmp_path / "a.h5", params, every=AtSteps(range(0, 1000, 10)))
    rec.close()
    assert 100_000 <= rec.forecast.bytes_per_state < 101_000  # a little padding
    assert rec.forecast.states == 100
    assert rec.forecast.bytes == 100 * rec.forecast.bytes_per_state
    assert "0.1 MB per state, 100 states, 0.01 GB in all" in caplog.text
    unknown = Recorder(tmp_path / "b.h5", params).forecast
    assert unknown.states is None
    assert "enough for about" in unknown.summary
    assert Recorder(tmp_path / "c.h5", params, every=10, expected_steps=1000).forecast.states == 101


def test_a_run_that_cannot_fit_is_refused_before_the_first_step(tmp_path):
    params = {"w": np.zeros((100, 250), np.float32)}
    with pytest.raises(RecordingError, match=r"will not fit on the disk: .* every=, include=, store='sketch'"):
        Recorder(tmp_path / "a.h5", params, expected_steps=10**12)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(
    "option", [{"kinds": {"bais": "bias"}}, {"axes": {"bais": (-1, 0)}}, {"wiring": {"bais": None}}]
)
def test_a_misspelt_parameter_is_told_before_a_file_is_made(tmp_path, option):
    with pytest.raises(SelectionError, match=rf"{next(iter(option))}.*'bais'.*0\.weight.*0\.bias"):
        Recorder(tmp_path / "a.h5", network(), quiet=True, **option)
    assert not (tmp_path / "a.h5").exists()
    # What is left out of the recording may be named all the same.
    with Recorder(tmp_path / "a.h5", network(), kinds={"0.bias": "bias"}, exclude="*.bias", quiet=True):
        pass


def test_the_file_says_what_recording_cost_and_where_it_came_from(tmp_path):
    params = network()
    with Recorder(tmp_path / "a.h5", params, provenance={"data": "iris"}) as rec:
        rec.record(updated(params, 0))
        assert rec.overhead["states"] == 2
    found = read(tmp_path / "a.h5")
    assert found["overhead"]["states"] == 2
    assert found["overhead"]["skipped"] == 0
    assert 0 < found["overhead"]["seconds_in_record"] < found["overhead"]["seconds_total"]
    assert found["provenance"]["software"]["numpy"] == np.__version__
    assert found["provenance"]["software"]["trajtools"] == tt.__version__
    assert found["provenance"]["user"] == {"data": "iris"}
    assert found["provenance"]["recorder"]["every"] == {"Every": {"k": 1}}
    assert {"command", "start_time", "machine", "seeds"} <= found["provenance"].keys()


class Device(Recorder):
    """An adapter whose copies arrive late."""

    def _host(self, leaves):
        late = [np.full_like(leaf, -1) for leaf in leaves]
        self.open = getattr(self, "open", 0) + 1
        assert self.open <= 2, "more than one older copy was open"

        def wait():
            self.open -= 1
            for target, leaf in zip(late, values, strict=True):
                target[...] = leaf

        values = [leaf.copy() for leaf in leaves]
        return Pending(late, wait)


@WRITERS
def test_a_device_may_deliver_states_later(tmp_path, writer):
    params = network()
    kept = []
    with Device(tmp_path / "a.h5", params, writer=writer, flush_seconds=0.001) as rec:
        for step in range(200):
            kept.append(flat(params))
            rec.record(params, loss=float(step))
            params = updated(params, step)
    assert_array_equal(read(tmp_path / "a.h5")["weights"][:, 0], np.array(kept))
