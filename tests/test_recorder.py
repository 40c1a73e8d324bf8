"""What the framework-free recorder stores, and at which step."""

from __future__ import annotations

import json
import logging
import random
import re
import warnings
from types import MappingProxyType

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import trajtools as tt
from recorders import AtSteps, LogSpaced, Recorder, RecordingWarning, perturb
from recorders.adapter import Pending
from trajtools.errors import ArchitectureError, FileBusyError, RecordingError, SelectionError
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


def read(path):
    with tt.open(path) as run:
        return {
            "weights": run.states[:],
            "step": run.step,
            "metrics": dict(run.metrics),
            "status": run.status,
            "overhead": run.overhead,
            "provenance": run.provenance,
            "members": run.members,
            "parameters": run.parameters,
            "hparams": run.hparams,
            "unstored": run.unstored,
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


def test_a_state_is_never_stored_twice_and_its_metrics_are_averaged(tmp_path):
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
    assert_array_equal(found["metrics"]["loss"], [1, 2.5, np.nan])


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
    with Recorder(tmp_path / "a.h5", params, strict=True) as rec:
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


@pytest.mark.parametrize("declared", [None, ("loss",), {"loss": ()}])
@pytest.mark.parametrize("late", [3, 64, 100])
def test_a_metric_may_come_late(tmp_path, declared, late):
    params = network()
    with Recorder(tmp_path / "a.h5", params, metrics=declared, flush_seconds=0.001) as rec:
        for step in range(130):
            rec.record(loss=float(step))
            if step >= late:
                rec.record(**{"val/accuracy": step / 130})
            params = updated(params, step)
            rec.advance(params)
    metrics = read(tmp_path / "a.h5")["metrics"]
    assert_array_equal(metrics["loss"], [*range(130), np.nan])
    assert_array_equal(metrics["val/accuracy"], [*[np.nan] * late, *(np.arange(late, 130) / 130), np.nan])


def lines(path):
    """The lines of the metrics beside a file, by step; the last line of a step holds."""
    listed = map(json.loads, path.with_name(f"{path.name}.metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {line.pop("step"): line for line in listed}


@WRITERS
def test_metrics_without_a_column_are_one_warning_and_go_beside_the_file(tmp_path, writer):
    path = tmp_path / "a.h5"
    names = [f"m{i}" for i in range(32)]

    def train(params):
        with Recorder(path, params, writer=writer, flush_seconds=0.001) as rec:
            for step in range(150):
                rec.record(params, **{name: step + i for i, name in enumerate(names)})
                if step >= 70:
                    rec.record(late=float(step), spectrum=[1.0, step])
                    rec.record(late=step + 0.5)
                params = updated(params, step)
            for k in range(8):
                rec.record(**{f"member {k}": [0.25]})
            rec.record(ninth=[np.inf])

    with pytest.warns(RecordingWarning) as warned:
        train(network())
    texts = [str(one.message) for one in warned]
    assert sum("'late'" in text for text in texts) == 1
    assert sum("'ninth'" in text for text in texts) == 1
    assert all("no free column" in text and "metrics=" in text and "a.h5.metrics.jsonl" in text for text in texts)
    run = read(path)
    assert set(run["metrics"]) == {*names, "spectrum", *(f"member {k}" for k in range(6))}
    assert set(run["unstored"]) == {"late", "ninth", "member 6", "member 7"}
    assert_array_equal(run["metrics"]["m31"], np.arange(150) + 31)
    assert_array_equal(run["metrics"]["spectrum"][70:], [[[1, step]] for step in range(70, 150)])
    beside = lines(path)
    assert sorted(beside) == list(range(70, 150))
    assert all(beside[step]["late"] == step + 0.25 for step in beside)
    assert beside[149] == {"late": 149.25, "ninth": [np.inf], "member 6": [0.25], "member 7": [0.25]}
    assert not tt.validate(path)


def test_metrics_beside_a_file_go_on_with_it_and_go_with_it(tmp_path):
    path, params = tmp_path / "a.h5", network()
    names = [f"m{i}" for i in range(33)]
    for step in range(3):
        with pytest.warns(RecordingWarning, match="'m32'"), Recorder(path, params, resume=True) as rec:
            rec.record(params, step=step, **dict.fromkeys(names, float(step)))
        assert read(path)["unstored"] == ("m32",)
    assert lines(path) == {step: {"m32": float(step)} for step in range(3)}
    Recorder(path, params, mode="w").close()
    assert read(path)["unstored"] == ()
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_declared_metrics_have_columns_however_many_they_are(tmp_path):
    path, params = tmp_path / "a.h5", [network(0), network(1)]
    numbers = {f"m{i}": () for i in range(50)}
    with Recorder(path, params, metrics={**numbers, "losses": (2,), "spectrum": (2, 20)}) as rec:
        rec.record(losses=[1.0, 2.0], spectrum=np.arange(40.0).reshape(2, 20), **dict.fromkeys(numbers, 3.0))
    metrics = read(path)["metrics"]
    assert len(metrics) == 52
    assert_array_equal(metrics["spectrum"], np.arange(40.0).reshape(1, 2, 20))
    assert_array_equal(metrics["m49"], [3.0])


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
        Recorder(tmp_path / "a.h5", [network(0), network(1)], strict=True) as rec,
        pytest.raises(RecordingError, match=words),
    ):
        rec.record(loss=value)


class Result(dict):
    metrics = MappingProxyType({"h_max": 1.0})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("abc", "'loss' is a str that is neither a real number.*'abc'; pass a number"),
        ({"a": 1}, "'loss' is a dict .*under a name of its own"),
        (1j, r"'loss' is a complex .*abs\(value\)"),
        (10**400, "'loss' is a int .*pass a number"),
        (Result(), r"'loss' is a Result .*\*\*result\.metrics"),
        ([1.0, 2.0, 3.0], r"'loss' has shape \(3,\) per state"),
    ],
)
def test_what_is_no_metric_does_not_end_the_training(tmp_path, value, words):
    path, params = tmp_path / "a.h5", [network(0), network(1)]
    with warnings.catch_warnings(record=True) as warned, Recorder(path, params) as rec:
        warnings.simplefilter("always")
        for step in range(3):
            rec.record(params, step=step, loss=value, good=float(step))
    (warning,) = warned
    assert warning.category is RecordingWarning
    assert re.search(words, str(warning.message))
    with tt.open(path) as run:
        assert run.status == "complete"
        assert list(run.metrics) == ["good"]
        assert run.metrics["good"].tolist() == [0.0, 1.0, 2.0]
        (remark,) = run.remarks
    assert re.search(words, remark)


def test_hyper_parameters_are_a_mapping(tmp_path):
    with pytest.raises(RecordingError, match="hparams=3: pass a mapping"):
        Recorder(tmp_path / "a.h5", network(), hparams=3)
    assert not (tmp_path / "a.h5").exists()


def test_a_metric_that_cannot_be_named_is_refused_and_the_recorder_goes_on(tmp_path):
    with Recorder(tmp_path / "a.h5", network(), strict=True) as rec:
        for name in ("", "a\0b", "x" * 65):
            with pytest.raises(RecordingError, match="needs a name of 1 to 64 bytes without NUL"):
                rec.record(**{name: 1.0})
        rec.record(**{"val/loss": 1.0, "x" * 64: 2.0})
    metrics = read(tmp_path / "a.h5")["metrics"]
    assert {name: values.tolist() for name, values in metrics.items()} == {"val/loss": [1.0], "x" * 64: [2.0]}
    with pytest.raises(RecordingError, match="without NUL"):
        Recorder(tmp_path / "b.h5", network(), metrics=("a\0b",))
    assert not (tmp_path / "b.h5").exists()


def test_a_metric_named_as_a_part_of_another_takes_none_of_its_columns(tmp_path):
    members = [network(0), network(1)]
    rec = Recorder(tmp_path / "a.h5", members)
    rec.record(a=[[1, 2], [3, 4]], b=[5, 6])
    rec.record(**{"a[1]": [7, 8], "b[0]": [[9], [10]]})
    with pytest.warns(RecordingWarning, match=r"'a\[1\]'"):
        rec.close()
    metrics = read(tmp_path / "a.h5")["metrics"]
    assert {name: values[0].tolist() for name, values in metrics.items()} == {
        "a": [[1, 2], [3, 4]],
        "b": [5, 6],
        "b[0]": [[9], [10]],
    }
    assert lines(tmp_path / "a.h5") == {0: {"a[1]": [7, 8]}}


def test_no_number_of_names_keeps_states_from_being_recorded(tmp_path):
    path, params = tmp_path / "a.h5", network()
    names = [f"gradient norm of layer {i:04d} of the network" for i in range(500)]

    def train(first):
        with Recorder(path, params, metrics=names, resume=True) as rec:
            for step in range(first, first + 3):
                rec.record(params, step=step, **dict.fromkeys(names, float(step)))

    for first in (0, 3):
        with pytest.warns(RecordingWarning, match="no free column for the metrics") as warned:
            train(first)
        assert len(warned) == 1
    run = read(path)
    beside = lines(path)
    assert run["step"].tolist() == sorted(beside) == list(range(6))
    assert {*run["metrics"], *beside[0]} == set(names)
    assert run["status"] == "complete"
    for step in range(6):
        assert {values[step] for values in run["metrics"].values()} == {step} == set(beside[step].values())


def test_the_shape_of_a_metric_stays(tmp_path):
    with Recorder(tmp_path / "a.h5", [network(0), network(1)], strict=True) as rec:
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


def test_a_file_holds_one_run_and_none_is_overwritten_unasked(tmp_path):
    path = tmp_path / "one.h5"
    Recorder(path, network(), hparams={"lr": 0.1}).close()
    content = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"one\.h5.*mode='next'.*resume=True"):
        Recorder(path, network())
    with pytest.raises(RecordingError, match="mode='a': it must be one of x, next, w; a file holds one run"):
        Recorder(path, network(), mode="a")
    with Recorder(path, network(), mode="next", name="two", reference="one") as rec:
        assert rec.path == tmp_path / "one-2.h5"
    with Recorder(path, network(), mode="next") as rec:
        assert rec.path == tmp_path / "one-3.h5"
    assert path.read_bytes() == content
    runs = tt.open_runs(tmp_path)
    assert {key: (run.name, run.reference, run.hparams) for key, run in runs.items()} == {
        "one": ("one", None, {"lr": 0.1}),
        "one-2": ("two", "one", {}),
        "one-3": ("one-3", None, {}),
    }
    Recorder(path, network(1), mode="w").close()
    assert_array_equal(read(path)["weights"][0, 0], flat(network(1)))


def test_a_file_that_is_recorded_is_not_overwritten(tmp_path):
    path = tmp_path / "a.h5"
    with Recorder(path, network()) as rec:
        for mode in ({"mode": "w"}, {"resume": True}):
            with pytest.raises(FileBusyError):
                Recorder(path, network(1), **mode)
        rec.record(updated(network(), 0))
    assert_array_equal(read(path)["weights"][1, 0], flat(updated(network(), 0)))


def test_a_run_of_another_network_is_not_continued(tmp_path):
    Recorder(tmp_path / "a.h5", network()).close()
    with pytest.raises(ArchitectureError, match="cannot be resumed"):
        Recorder(tmp_path / "a.h5", network(width=11), resume=True)


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
