"""Runs are written and read back bit for bit: by trajtools, and by a reader made from FORMAT.md alone."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import damaged_runs as dr
import naive_store
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from stored_runs import (
    MEMBERS,
    NODES,
    PARAMETERS,
    M,
    P,
    assert_holds,
    assert_whole,
    block_of,
    create,
    go_on,
    numbers,
    record,
    resume,
    states,
    write,
)

import trajtools as tt
from trajtools.errors import (
    ArchitectureError,
    DamagedError,
    FileBusyError,
    MissingDependencyError,
    RecordingError,
    SelectionError,
    TooLargeError,
)
from trajtools.store import Run, RunSpec, RunWriter, StreamLayout, chunks, open_runs, promote, widen
from trajtools.wiring import Member, Parameter

BITS = {"float16": np.uint16, "float32": np.uint32, "float64": np.uint64, "bfloat16": np.uint16}
COMPRESSIONS = [None, "gzip", "zstd"]
ANYWHERE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def flat(size, dtype="float32", name="w"):
    return [Parameter(name, "other", (size,), dtype, 0, size)]


def small(path, *, n_members=1, size=3, dtype="float32", **options):
    members = [Member(str(i)) for i in range(n_members)]
    return RunWriter.create(path, RunSpec(parameters=flat(size, dtype), members=members, dtype=dtype, **options))


def put(writer, start, count, *, metrics=None, final=True):
    """States whose content does not matter."""
    tiles = writer.layout.new_tiles()
    writer.write(start, count, step=np.arange(start, start + count), metrics=metrics, weights=tiles, final=final)


# ------------------------------------------------------------------------------------------------------------- states


@settings(ANYWHERE, max_examples=40)
@given(
    dtype=st.sampled_from(sorted(BITS)),
    n_states=st.integers(0, 150),
    n_members=st.integers(1, 9),
    n_parameters=st.integers(1, 700),
    compress=st.sampled_from(COMPRESSIONS),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_bits_come_back_as_they_were(  # noqa: PLR0917
    tmp_path_factory, dtype, n_states, n_members, n_parameters, compress, seed
):
    path = tmp_path_factory.mktemp("bits") / "run.h5"
    rng = np.random.default_rng(seed)
    kind = BITS[dtype]
    bits = rng.integers(0, np.iinfo(kind).max, (n_states, n_members, n_parameters), kind, endpoint=True)
    writer = small(path, n_members=n_members, size=n_parameters, dtype=dtype, compress=compress)
    layout = writer.layout
    for start in range(0, n_states, layout.rows):
        block = bits[start : start + layout.rows]
        tiles = block_of(layout, block.view(layout.dtype))
        np.testing.assert_array_equal(layout.take(tiles, len(block)).view(kind), block)
        writer.write(start, len(block), step=np.arange(start, start + len(block)), weights=tiles, final=True)
    writer.close()
    np.testing.assert_array_equal(naive_store.read(path)["weights"].view(kind), bits)
    with Run(path) as run:
        assert run.logical_dtype == dtype
        np.testing.assert_array_equal(run.states.read(raw=True).view(kind), bits)
        if dtype == "bfloat16":
            assert run.states.dtype == np.float32
            np.testing.assert_array_equal(run.states.read().view(np.uint32), bits.astype(np.uint32) << 16)
        rows = rng.integers(-n_states, n_states, 5) if n_states else np.zeros(0, int)
        columns, chosen = rng.integers(0, n_parameters, 4), [n_members - 1, 0]
        part = run.states.read(rows, chosen, columns, raw=True)
        np.testing.assert_array_equal(part.view(kind), bits[rows][:, chosen][:, :, columns])
        strided = run.states.read(slice(None, None, 7), slice(0, 1), slice(1, None, 3), raw=True)
        np.testing.assert_array_equal(strided.view(kind), bits[::7, :1, 1::3])
        whole = run.states.by_member(slice(None), range(n_members), slice(None))
        np.testing.assert_array_equal(whole, run.states.read().transpose(1, 0, 2))
        few = run.states.by_member(slice(1, None), chosen, slice(1, n_parameters - 1))
        np.testing.assert_array_equal(few, run.states.read(slice(1, None), chosen, slice(1, -1)).transpose(1, 0, 2))
    with Run(path) as run:
        for row in range(0, n_states, 11):  # first out of chunks that nobody has read, then out of known ones
            for own in (slice(None), slice(1, None), slice(0, 1)):
                state = run.states.read(slice(row, row + 1), own, slice(1, None), raw=True)
                np.testing.assert_array_equal(state.view(kind), bits[row : row + 1, own, 1:])


@settings(ANYWHERE, max_examples=15)
@given(data=st.data(), optimizer=st.booleans(), stored=st.sampled_from(["weights", "sketch", "distances"]))
def test_blocks_may_be_written_in_any_parts(tmp_path_factory, data, optimizer, stored):
    """Each block grows by flushes of any length, the same length again included; a reader agrees after each."""
    path = tmp_path_factory.mktemp("parts") / "run.h5"
    writer = create(path, stored=stored, optimizer=optimizer)
    for start in (0, 64, 128):
        last = 64 if start < 128 else 40
        for count in [*data.draw(st.lists(st.integers(1, last), max_size=5).map(sorted)), last]:
            write(writer, start, count)
            with Run(path) as run:
                assert_whole(run, start + count)
            if data.draw(st.booleans()):
                assert_holds(naive_store.read(path), start + count)
    writer.close()
    assert_holds(naive_store.read(path), 168)


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("optimizer", [False, True])
@pytest.mark.parametrize("stored", ["weights", "sketch", "distances"])
def test_every_kind_of_run_comes_back(tmp_path, stored, optimizer, compress):
    path = tmp_path / "run.h5"
    record(path, 150, stored=stored, optimizer=optimizer, compress=compress, overhead={"seconds": 1.0})
    assert_holds(naive_store.read(path), 150)
    with Run(path) as run:
        assert_whole(run, 150)
        assert (run.stored, run.status, run.overhead) == (stored, "complete", {"seconds": 1.0})
        assert (run.optimizer is not None) == optimizer


def test_wide_states_are_cut_into_even_chunks(tmp_path):
    layout = StreamLayout.choose(100_001, 2, "float32")
    assert (layout.rows, layout.n_column_chunks) == (64, 24)
    assert layout.columns * layout.n_column_chunks - 100_001 < layout.n_column_chunks
    assert StreamLayout.choose(10**7, 1, "float32").rows == 1
    assert StreamLayout.choose(10**6, 100, "float64").rows == 1
    path, size, rows = tmp_path / "wide.h5", 100_001, 55
    writer = create(path, parameters=flat(size), nodes=())
    assert writer.layout.rows == rows
    truth = states(0, rows, size)
    tiles = block_of(writer.layout, truth)
    writer.write(0, rows, step=np.arange(rows), weights=tiles)
    writer.close()
    np.testing.assert_array_equal(naive_store.read(path)["weights"].view(np.uint32), truth.view(np.uint32))
    with Run(path) as run:
        weights = run.states
        np.testing.assert_array_equal(weights[:].view(np.uint32), truth.view(np.uint32))
        for key in (
            np.s_[5],
            np.s_[..., 77],
            np.s_[3:50:4, 1, 4000:90_000],
            np.s_[:, [2, 0], 100_000],
            np.s_[-1, -1, -1],
        ):
            np.testing.assert_array_equal(weights[key].view(np.uint32), truth[key].view(np.uint32))
        mask = np.arange(rows) % 9 == 0
        np.testing.assert_array_equal(weights[mask, 1].view(np.uint32), truth[mask, 1].view(np.uint32))
        with pytest.raises(IndexError, match="index 55"):
            weights[[55]]
        with pytest.raises(IndexError, match="not by"):
            weights["a"]
    columns = writer.layout.columns
    flip(path, place_of(path, "weights", 0, 1, columns) + 4 * 40 * columns)  # rows of such chunks are read one by one
    with Run(path) as run:
        with pytest.raises(DamagedError, match=r"weights of the states 0 to 54 \(member 1\)"):
            run.states[:]
        np.testing.assert_array_equal(run.states[:, [0, 2]].view(np.uint32), truth[:, [0, 2]].view(np.uint32))


def test_blocks_of_one_state(tmp_path):
    path = tmp_path / "run.h5"
    writer = small(path, size=1000, n_members=2)
    writer.abort()
    path.unlink()
    large = StreamLayout.choose(40 * 2**20, 1, "float32")
    assert (large.rows, large.n_column_chunks) == (1, 160)


def test_promotion_loses_nothing():
    assert promote(["float16", "float16"]) == "float16"
    assert promote(["bfloat16", "float16"]) == "float32"
    assert promote(["bfloat16", "float32"]) == "float32"
    assert promote(["float16", "float64"]) == "float64"
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    np.testing.assert_array_equal(widen(bits).view(np.uint32) >> 16, bits)
    assert widen(np.array([0x3F80, 0xC000], np.uint16)).tolist() == [1.0, -2.0]


def test_optimiser_buffers_of_another_dtype_and_size(tmp_path):
    path = tmp_path / "run.h5"
    buffers = flat(500, "float64", "momentum")
    writer = create(path, optimizer={"parameters": buffers, "dtype": "float64"})
    truth = np.random.default_rng(1).standard_normal((9, M, 500))
    tiles = block_of(writer.layouts["optimizer"], truth)
    writer.write(0, 9, step=np.arange(9), weights=writer.layout.new_tiles(), optimizer=tiles)
    with pytest.raises(ValueError, match="optimizer: this run stores them"):
        put(writer, 0, 9)
    writer.close()
    with Run(path) as run:
        assert run.optimizer_parameters == tuple(buffers)
        np.testing.assert_array_equal(run.optimizer[:], truth)
    np.testing.assert_array_equal(naive_store.read(path)["optimizer"], truth)


def test_runs_without_weights_say_what_they_store(tmp_path):
    record(tmp_path / "d.h5", 70, stored="distances")
    record(tmp_path / "s.h5", 70, stored="sketch")
    with Run(tmp_path / "d.h5") as run:
        assert (run.stored, run.distance_metric, run.sketch) == ("distances", "l1", None)
        with pytest.raises(SelectionError, match="stores distances of each state"):
            run.trajectory()
    with Run(tmp_path / "s.h5") as run:
        assert (run.stored, run.sketch_settings, run.distances) == ("sketch", {"k": 16, "seed": 3}, None)
        with pytest.raises(SelectionError, match="store='weights'"):
            _ = run.states


# ------------------------------------------------------------------------------------------------------------ metrics


def test_a_late_metric_is_nan_before_it_came(tmp_path):
    path = tmp_path / "run.h5"
    writer = small(path, n_members=2)
    put(writer, 0, 64, metrics={"loss": np.arange(64.0)})
    put(writer, 64, 10, metrics={"loss": np.arange(64.0, 74.0)})
    put(writer, 64, 20, metrics={"loss": np.arange(64.0, 84.0), "late": np.ones((20, 2, 3))})
    put(writer, 64, 20, metrics={"last": np.full(20, 5.0)})
    put(writer, 64, 30, metrics={"late": np.ones((30, 2, 3))})
    writer.close()
    content = naive_store.read(path)["metrics"]
    with Run(path) as run:
        assert sorted(run.metrics) == ["last", "late", "loss"]
        for name in run.metrics:
            np.testing.assert_array_equal(run.metrics[name], content[name])
        late, last, loss = (run.metrics[name] for name in ("late", "last", "loss"))
        assert late.shape == (94, 2, 3)
        np.testing.assert_array_equal(late, np.where(np.arange(94) < 64, np.nan, 1)[:, None, None] * np.ones((2, 3)))
        np.testing.assert_array_equal(last[64:84], np.full(20, 5.0))
        assert np.isnan(last[np.r_[:64, 84:94]]).all()
        np.testing.assert_array_equal(loss[:84], np.arange(84.0))  # a block that grows keeps what it has
        assert np.isnan(loss[84:]).all()
        step, latest = run.latest(5)
        assert step.tolist() == [89, 90, 91, 92, 93]
        assert latest["late"].shape == (5, 2, 3)


NAMES = ["a/b", "ß µ", "日本語", "x" * 64, "loss[0]", "with space", ".", "..", "/"]


def test_names_of_metrics_are_free(tmp_path):
    path = tmp_path / "run.h5"
    writer = small(path, n_members=2)
    for at, name in enumerate(NAMES):
        put(writer, 0, 5, metrics={name: np.full(5, float(at)), f"{name[:30]}'": np.full((5, 2), float(at))})
    writer.close()
    content = naive_store.read(path)["metrics"]
    with Run(path) as run:
        for at, name in enumerate(NAMES):
            np.testing.assert_array_equal(run.metrics[name], np.full(5, float(at)))
            np.testing.assert_array_equal(content[name], np.full(5, float(at)))
        with pytest.raises(KeyError, match="no metric 'los'"):
            run.metrics["los"]


@pytest.mark.parametrize("name", ["", "a\0", "\udce9", "x" * 65, "é" * 33])
def test_a_name_that_no_column_can_hold_is_noted(tmp_path, name):
    path = tmp_path / "run.h5"
    writer = small(path)
    put(writer, 0, 5, metrics={"loss": np.zeros(5), name: np.ones(5)})
    put(writer, 0, 6, metrics={"loss": np.zeros(6), name: np.ones(6)})
    assert writer.unstored == (name,)
    writer.close()
    naive_store.read(path)
    with Run(path) as run:
        assert list(run.metrics) == ["loss"]
        assert run.unstored == (name,)


def test_more_metrics_than_columns_are_noted(tmp_path):
    path = tmp_path / "run.h5"
    writer = small(path, n_members=2)
    put(writer, 0, 5, metrics={f"m{i}": np.full(5, float(i)) for i in range(40)})
    put(writer, 0, 6, metrics={"v": np.zeros((6, 2, 7)), "w": np.zeros((6, 2, 2)), "u": np.zeros((6, 2))})
    assert writer.unstored == (*(f"m{i}" for i in range(32, 40)), "w")
    writer.close()
    with Run(path) as run:
        assert run.unstored == writer.unstored
        assert set(run.metrics) == {"v", "u", *(f"m{i}" for i in range(32))}
        assert run.metrics["v"].shape == (6, 2, 7)


def test_a_metric_that_is_announced_has_a_column(tmp_path):
    path = tmp_path / "run.h5"
    names = [f"m{i}" for i in range(100)]
    writer = small(path, metrics=names)
    put(writer, 0, 5, metrics={name: np.full(5, float(at)) for at, name in enumerate(names)})
    assert writer.unstored == ()
    writer.close()
    content = naive_store.read(path)["metrics"]
    assert [content[name][0] for name in names] == list(range(100))


def test_metrics_beyond_the_room_for_their_names_are_noted(tmp_path):
    path = tmp_path / "run.h5"
    names = [f"{i:03d} {'x' * 55}" for i in range(400)]
    writer = small(path, metrics=names)
    for name in names:
        put(writer, 0, 5, metrics={name: np.ones(5)})
    assert len(writer.unstored) + len(writer.metrics) == 400
    writer.close(overhead={"seconds": 1.0})
    for number in range(20):
        writer = RunWriter.resume(
            path,
            RunSpec(
                parameters=flat(3),
                members=[Member("0")],
                dtype="float32",
                provenance={"number": number, "x": "y" * 900},
            ),
        )
        put(writer, 0, 5, metrics=dict.fromkeys(names, np.ones(5)))
        writer.close(overhead={"seconds": 2.0})
    with Run(path) as run:
        assert run.overhead == {"seconds": 2.0}
        assert run.notes["resumed"][-1]["number"] == 19
        assert 150 < len(run.metrics) < 400
        assert all((run.metrics[name] == 1).all() for name in run.metrics)


def test_columns_of_a_vector_are_not_those_of_another_metric(tmp_path):
    path = tmp_path / "run.h5"
    writer = small(path, n_members=2)
    put(writer, 0, 5, metrics={"v[1]": np.full((5, 2), 7.0)})
    put(writer, 0, 5, metrics={"v": np.ones((5, 2, 3))})
    assert writer.unstored == ("v",)
    writer.close()
    with Run(path) as run:
        assert list(run.metrics) == ["v[1]"]
        assert (run.metrics["v[1]"] == 7).all()


def test_a_metric_of_another_shape_is_refused(tmp_path):
    writer = small(tmp_path / "run.h5", n_members=2)
    put(writer, 0, 5, metrics={"loss": np.zeros(5)})
    for shape in ((5, 3), (5, 2, 2, 2)):
        with pytest.raises(ValueError, match=r"needed \(\), \(M,\) or \(M, k\)"):
            put(writer, 0, 5, metrics={"new": np.zeros(shape)})
    with pytest.raises(ValueError, match=r"metric 'loss' has shape \(2,\) per state, in the file it has \(\)"):
        put(writer, 0, 5, metrics={"loss": np.zeros((5, 2))})
    put(writer, 0, 6, metrics={"loss": np.zeros(6)})
    writer.close()


# -------------------------------------------------------------------------------------------------- tables and texts


def test_tables_and_settings_come_back(tmp_path):
    path = tmp_path / "run.h5"
    hparams = {
        "lr": np.float32(0.5),
        "layers": (1, 2),
        "file": Path("x"),
        "nan": float("nan"),
        "ß": {"deep": [None, True]},
    }
    record(path, 3, name="eta=0.1 / ß", hparams=hparams, reference="other", time_unit="update")
    with Run(path) as run:
        assert run.parameters == PARAMETERS
        assert run.nodes == NODES
        assert repr(run.members) == repr(MEMBERS)
        assert np.isnan(run.hparams.pop("nan"))
        assert run.hparams == {"lr": 0.5, "layers": [1, 2], "file": "x", "ß": {"deep": [None, True]}}
        assert (run.name, run.reference, run.time_unit, run.overhead) == ("eta=0.1 / ß", "other", "update", None)
        assert (run.n_states, run.n_members, run.n_parameters, run.stored) == (3, M, P, "weights")
        assert len(run.uuid) == 32
        np.testing.assert_array_equal(run.time, [0.0, 2.0, 4.0])


def test_the_name_of_a_run_is_that_of_its_file(tmp_path):
    record(tmp_path / "lr=0.1.h5", 1)
    assert Run(tmp_path / "lr=0.1.h5").name == "lr=0.1"


@pytest.mark.parametrize("size", [50, 70_000, 3_000_000])
def test_large_hyperparameters_fit(tmp_path, size):
    path = tmp_path / "run.h5"
    hparams = {f"name {i}": "x" * 50 for i in range(size // 60)}
    record(path, 1, hparams=hparams)
    with Run(path) as run:
        assert run.hparams == hparams
    assert naive_store.read(path)["attributes"]["hparams"].startswith("{")


def test_what_is_not_utf_8_comes_back(tmp_path):
    argument = os.fsdecode(b"/data/caf\xe9")
    path = tmp_path / "run.h5"
    record(path, 3, provenance={"command": ["python", argument], argument: Path(argument)}, name=argument)
    naive_store.read(path)
    with Run(path) as run:
        assert run.provenance == {"command": ["python", argument], argument: argument}
        assert "caf" in run.name


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_the_name_of_a_file_may_be_any_bytes(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.h5")
    record(os.fsdecode(path), 70)
    writer = resume(os.fsdecode(path))
    go_on(writer, 90)
    writer.close()
    with Run(os.fsdecode(path)) as run:
        assert_whole(run, 90)


def test_parameters_of_size_zero(tmp_path):
    path = tmp_path / "run.h5"
    parameters = [
        Parameter("0.weight", "dense", (4, 0), "float32", 0, 0),
        Parameter("0.bias", "bias", (4,), "float32", 0, 4),
        Parameter("scale", "other", (), "float32", 4, 1),
        Parameter("last", "other", (0,), "float32", 5, 0),
    ]
    writer = RunWriter.create(path, RunSpec(parameters=parameters, members=[Member("one")], dtype="float32"))
    put(writer, 0, 7)
    writer.close()
    assert naive_store.read(path)["weights"].shape == (7, 1, 5)
    with Run(path) as run:
        assert run.parameters == tuple(parameters)
    RunWriter.resume(path, RunSpec(parameters=parameters, members=[Member("one")], dtype="float32")).close()


def test_many_members(tmp_path):
    path = tmp_path / "run.h5"
    writer = small(path, n_members=300, size=5)
    truth = states(0, 10, 5, 300)
    distances = numbers(0, 10, 1, 300)[:, :, 0]
    writer.write(0, 10, step=np.arange(10), weights=block_of(writer.layout, truth), metrics={"d": distances})
    writer.close()
    with Run(path) as run:
        np.testing.assert_array_equal(run.states[:].view(np.uint32), truth.view(np.uint32))
        np.testing.assert_array_equal(run.metrics["d"], distances)


# ---------------------------------------------------------------------------------------------------------- plantings


@pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
def test_plantings_come_back(tmp_path, count):
    path = tmp_path / "run.h5"
    writer = small(path)
    put(writer, 0, 10)
    rows = [(2 * i, i % 3, i / 7, 2**40 + i, i / 3) for i in range(count)]
    for i, row in enumerate(rows):
        if i in (5, 64, 100):  # a resumed run goes on in the same block
            writer.close()
            writer = RunWriter.resume(path, RunSpec(parameters=flat(3), members=[Member("0")], dtype="float32"))
        writer.plant(*row)
    with Run(path) as run:
        assert len(run.plantings["step"]) == count
    writer.close()
    expected = dict(zip(("step", "member", "epsilon", "seed", "norm"), np.array(rows).T, strict=True))
    content = naive_store.read(path)["plantings"]
    with Run(path) as run:
        for name, values in expected.items():
            np.testing.assert_array_equal(run.plantings[name], values)
            np.testing.assert_array_equal(content[name], values)


# ------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stored", ["weights", "sketch", "distances"])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_run_goes_on_from_any_length(tmp_path, stored, end):
    path = tmp_path / "run.h5"
    writer = create(path, stored=stored, optimizer=True)
    lengths = [0, 1, 2, 63, 64, 65, 69, 70, 71, 127, 128, 129, 191, 192, 200]
    for at, count in enumerate(lengths):
        go_on(writer, count)
        getattr(writer, end)()
        with Run(path) as run:
            assert_whole(run, count)
            assert run.status == ("complete" if end == "close" else "interrupted")
        writer = resume(path, stored=stored, optimizer=True, provenance={"time": at})
        assert (writer.committed, writer.last_step) == (count, 2 * count - 2 if count else -1)
        assert (writer.tail is None) == (count % 64 == 0)
        if writer.tail is not None:
            assert (writer.tail.start, writer.tail.count) == (count // 64 * 64, count % 64)
            np.testing.assert_array_equal(writer.tail.step, 2 * np.arange(count)[count // 64 * 64 :])
    writer.close()
    assert_holds(naive_store.read(path), 200)
    with Run(path) as run:
        assert [entry["time"] for entry in run.notes["resumed"]] == list(range(len(lengths)))
        assert run.cells.generation == 1 + len(lengths)


def test_the_tail_is_written_again_as_it_was(tmp_path):
    """What `resume` returns is enough to write the block again, a metric that comes late included."""
    path = tmp_path / "run.h5"
    writer = create(path, optimizer=True)
    go_on(writer, 90)
    writer.abort()
    writer = resume(path, optimizer=True)
    tail = writer.tail
    writer.write(tail.start, tail.count, step=tail.step, metrics=tail.metrics, **tail.content)
    with Run(path) as run:
        assert_whole(run, 90)
    extra = {"extra": np.arange(26.0)}  # the other metrics of the block stay, though they are not given again
    writer.write(tail.start, tail.count, step=tail.step, metrics=extra, **tail.content)
    writer.close()
    assert_holds(naive_store.read(path), 90)
    with Run(path) as run:
        assert_whole(run, 90)
        np.testing.assert_array_equal(run.metrics["extra"][64:], np.arange(26.0))


def test_an_index_with_many_chunks_of_dropped_states_is_whole(tmp_path):
    path, members = tmp_path / "run.h5", [Member(str(i)) for i in range(200)]
    spec = RunSpec(flat(1), members, "float32")
    writer = RunWriter.create(path, spec)
    for start in range(0, 64 * 60, 64):
        writer.write(start, 64, step=np.arange(start, start + 64), weights=np.ones((64, 200, 1), np.float32))
    writer.close()
    RunWriter.resume(path, spec, keep=lambda run: 10).close()
    flip(path, place_of(path, "weights", 0, 7, 0))
    with Run(path) as run, pytest.raises(DamagedError, match=r"member 7.*do not match their checksums"):
        run.states[:]


def test_an_index_that_claims_more_than_the_file_holds_is_left():
    stream, passed = chunks.Stream("weights", 64, (1, 3), (1, 3), np.dtype("<f4")), []

    class Endless:
        shape = (2**40, 1, 3)

        def chunk_iter(self, visit):
            for block in range(10**6):
                passed.append(block)
                if visit(SimpleNamespace(chunk_offset=(64 * block, 0, 0), byte_offset=4096, size=768)):
                    return

        def get_chunk_info_by_coord(self, place):
            return SimpleNamespace(byte_offset=4096, size=768)

    places, _, indexed = chunks._places(Endless(), stream, 2, 2**16)
    assert places.tolist() == [[4096], [4096]]
    assert not indexed
    assert len(passed) < 20_000


def test_steps_rise_across_a_resume(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 64)
    writer = resume(path)
    tiles = writer.layout.new_tiles()
    with pytest.raises(ValueError, match="increasing numbers above 126"):
        writer.write(64, 1, step=np.array([126]), weights=tiles)
    with pytest.raises(ValueError, match="right behind the 64 committed"):
        writer.write(0, 64, step=2 * np.arange(64), weights=tiles)  # that block is of another writer, and full
    go_on(writer, 80)
    writer.close()
    with Run(path) as run:
        assert_whole(run, 80)


def test_many_continuations_fit_into_the_notes(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 3)
    for number in range(40):
        resume(path, provenance={"number": number, "command": "x" * 1000}).close(overhead={"seconds": number})
    with Run(path) as run:
        assert_whole(run, 3)
        assert run.notes["resumed"][-1]["number"] == 39
        assert run.notes["resumed_dropped"] + len(run.notes["resumed"]) == 40
        assert run.overhead == {"seconds": 39}
    naive_store.read(path)


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_compressed_runs_take_whole_blocks(tmp_path, compress):
    path = tmp_path / "run.h5"
    writer = create(path, compress=compress)
    with pytest.raises(ValueError, match="whole blocks only"):
        write(writer, 0, 10)
    write(writer, 0, 64)
    write(writer, 64, 10, final=True)
    writer.close()
    writer = resume(path)
    assert writer.filtered
    write(writer, 64, 64)
    write(writer, 128, 1, final=True)
    writer.close()
    assert_holds(naive_store.read(path), 129)
    with Run(path) as run:
        assert_whole(run, 129)


def test_zstandard_is_named_where_it_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    record(path, 100, compress="zstd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDependencyError, match=r"pip install trajtools\[zstd\]"), Run(path) as run:
        run.states.read()
    with Run(path) as run:
        assert len(run.step) == 100


def test_resume_refuses_another_run(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 10)
    other = (*PARAMETERS[:2], Parameter("norm.scale", "norm", (14,), "float32", 217, 14))
    for change, words in (
        ({"parameters": other}, r"'norm.scale' \(13,\) float32 in the file is 'norm.scale' \(14,\)"),
        ({"members": MEMBERS[:2]}, "3 members in the file, 2 now"),
        ({"members": (*MEMBERS[:2], Member("x"))}, "member .*twin 2.* in the file is"),
        ({"dtype": "float64"}, "float32 in the file, float64 now"),
        ({"stored": "distances", "distance_metric": "l1"}, "the file stores weights"),
        ({"optimizer": {"parameters": flat(3), "dtype": "float32"}}, "0 optimiser buffers in the file, 1 now"),
    ):
        with pytest.raises(ArchitectureError, match=words):
            resume(path, **change)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        resume(tmp_path / "none.h5")
    with Run(path) as run:
        assert_whole(run, 10)
        assert run.status == "complete"
        assert run.cells.generation == 1


# ------------------------------------------------------------------------------------------------------ modes, errors


def test_modes(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 3)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="mode='next'"):
        create(path)
    assert path.read_bytes() == before
    for number in (2, 3):
        writer = create(path, "next")
        assert writer.path == tmp_path / f"run-{number}.h5"
        write(writer, 0, number)
        writer.close()
    record(path, 7, "w")
    runs = open_runs(tmp_path)
    assert {name: run.n_states for name, run in runs.items()} == {"run": 7, "run-2": 2, "run-3": 3}
    assert sorted(os.listdir(tmp_path)) == ["run-2.h5", "run-3.h5", "run.h5"]


def test_a_live_run_is_not_overwritten(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 5)
    with pytest.raises(FileBusyError, match="mode='w' does not overwrite"):
        create(path, "w")
    write(writer, 0, 6)
    writer.close()
    with Run(path) as run:
        assert_whole(run, 6)


@pytest.mark.parametrize("links", [True, False])
def test_a_path_is_claimed_at_once(tmp_path, monkeypatch, links):
    if not links:  # as on FAT and some network file systems
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    path = tmp_path / "run.h5"
    writer = create(path)
    with pytest.raises(FileExistsError, match="is not overwritten"):
        create(path)
    go_on(writer, 70)
    writer.close()
    assert os.listdir(tmp_path) == ["run.h5"]
    with Run(path) as run:
        assert_whole(run, 70)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dtype": "complex64"}, ArchitectureError, "real and imaginary parts"),
        ({"dtype": "int64"}, ArchitectureError, "dtype int64 cannot be recorded"),
        ({"parameters": PARAMETERS[1:]}, ArchitectureError, "offsets must follow each other"),
        ({"parameters": ()}, ArchitectureError, "the state is empty"),
        ({"parameters": [replace(PARAMETERS[0], name="a\0")]}, ArchitectureError, "NUL"),
        ({"members": ()}, ArchitectureError, "at least one member"),
        ({"members": [Member("a"), Member("a")]}, ArchitectureError, "share a name"),
        ({"members": [Member("a", 0)]}, ArchitectureError, "index of another member"),
        ({"hparams": {"f": print}}, TypeError, "cannot be stored as JSON"),
        ({"stored": "pictures"}, ValueError, "needed one of weights"),
        ({"stored": "sketch", "sketch": None}, ValueError, "settings of the sketch"),
        ({"stored": "distances", "distance_metric": None}, ValueError, "name of the metric"),
        ({"mode": "a"}, ValueError, "needed 'x'"),
        ({"compress": "lzf"}, ValueError, "'zstd' or 'gzip'"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_a_file_is_made(tmp_path, change, error, words):
    fixed = {"parameters": PARAMETERS, "nodes": NODES, "members": MEMBERS, "dtype": "float32"}
    with pytest.raises(error, match=words):
        create(tmp_path / "run.h5", **fixed | change)
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_do_not_fit_are_refused_and_do_no_harm(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    write(writer, 0, 20)
    tiles, step = writer.layout.new_tiles(), np.arange(100, 120)
    for change, words in (
        ({"start": 3}, "from a multiple of 64 on"),
        ({"start": 64}, "right behind the 20 committed"),
        ({"count": 5, "step": step[:5]}, "would drop some"),
        ({"count": 65, "step": np.arange(65)}, "needed 1 to 64 states"),
        ({"step": step[::-1]}, "increasing numbers"),
        ({"step": -step[::-1]}, "increasing numbers above -1"),
        ({"weights": None}, "needed float32 of the shape"),
        ({"weights": tiles[:, :, :3]}, "or a C-contiguous block"),
        ({"weights": tiles.astype("f8")}, "got float64 of the shape"),
        ({"distances": np.zeros((20, M))}, "does not store them"),
    ):
        block = {"start": 0, "count": 20, "step": step, "weights": tiles} | change
        with pytest.raises(ValueError, match=words):
            writer.write(block.pop("start"), block.pop("count"), **block)
    write(writer, 0, 25)
    writer.close()
    with pytest.raises(RecordingError, match="is closed"):
        write(writer, 0, 30)
    writer.close()
    writer.abort()
    writer.beat()
    with Run(path) as run:
        assert_whole(run, 25)
        assert run.status == "complete"


def test_a_status_that_does_not_exist_is_refused(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    with pytest.raises(ValueError, match="'complete' or 'interrupted'"):
        writer.close("finished")
    writer.close("interrupted")
    assert Run(path).status == "interrupted"


# ------------------------------------------------------------------------------------------------------------- damage


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def place_of(path, name, *coordinates):
    with naive_store.open_file(path) as file:
        return file[name].id.get_chunk_info_by_coord(coordinates).byte_offset


def test_a_damaged_chunk_is_named_and_the_rest_is_read(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 150)
    flip(path, place_of(path, "weights", 64, 1, 0) + 100)
    with pytest.raises(naive_store.DamageError, match="weights, block 1"):
        naive_store.read(path)
    with Run(path) as run:
        with pytest.raises(DamagedError, match=r"weights of the states 64 to 127 \(member 1\).*--salvage"):
            run.states[70, 1]
        for part in (np.s_[:64], np.s_[128:], np.s_[:, 0], np.s_[:, 2]):
            np.testing.assert_array_equal(run.states[part].view(np.uint32), states(0, 150).view(np.uint32)[part])
        np.testing.assert_array_equal(run.metrics["loss"], numbers(0, 150, 1)[:, 0, 0])


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_no_flipped_bit_of_a_chunk_is_returned(tmp_path, compress):
    path = tmp_path / "run.h5"
    record(path, 64, compress=compress)
    whole = path.read_bytes()
    start = place_of(path, "weights", 0, 0, 0)
    for at in range(start, start + 20_000, 997):
        path.write_bytes(whole)
        flip(path, at)
        with Run(path) as run:
            try:
                part = run.states[:, 0]
            except DamagedError as error:
                assert "states 0 to 63" in str(error)  # noqa: PT017
            else:  # a byte that the decompressor does not need
                assert compress is not None
                np.testing.assert_array_equal(part.view(np.uint32), states(0, 64)[:, 0].view(np.uint32))


def test_damaged_steps_and_metrics_are_refused(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100)
    whole = path.read_bytes()
    for name, place, read in (
        ("step", (64,), lambda run: run.step),
        ("metrics", (64, 0), lambda run: run.metrics["loss"]),
        ("member_metrics", (0, 0, 0), lambda run: run.metrics["accuracy"]),
    ):
        path.write_bytes(whole)
        flip(path, place_of(path, name, *place) + 3)
        with Run(path) as run, pytest.raises(DamagedError, match=f"^{name} of the states"):
            read(run)


def test_swapped_chunks_are_refused(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 128)
    data = bytearray(path.read_bytes())
    a, b = place_of(path, "weights", 0, 0, 0), place_of(path, "weights", 64, 0, 0)
    size = 64 * P * 4
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    path.write_bytes(data)
    with Run(path) as run, pytest.raises(DamagedError, match="states 0 to 63"):
        run.states[:, 0]


def test_damaged_cells_are_refused(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 10)
    with naive_store.open_file(path) as file:
        place = file["store/cells"].id.get_offset()
    flip(path, place)
    os.utime(path, (0, 0))
    with pytest.raises(DamagedError, match="count of committed states"):
        Run(path)


def test_damaged_notes_cost_no_state(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100)
    with naive_store.open_file(path) as file:
        place, slot = file["store/notes"].id.get_offset(), int(file["store/cells"][6])
    flip(path, place + slot * 16384 + 40)
    with pytest.raises(naive_store.DamageError, match="notes"):
        naive_store.read(path)
    with Run(path) as run:
        with pytest.raises(DamagedError, match="the names of its metrics"):
            run.metrics["loss"]
        np.testing.assert_array_equal(run.states[:].view(np.uint32), states(0, 100).view(np.uint32))


def test_a_damaged_name_of_a_metric_names_nothing_else(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 10)
    with naive_store.open_file(path) as file:
        place = file["metric"].id.get_offset()
    flip(path, place)
    with pytest.raises(naive_store.DamageError, match="names in metric"):
        naive_store.read(path)
    with Run(path) as run:  # by the notes, which have a checksum
        assert_whole(run, 10)


def test_a_damaged_table_is_one_of_other_programs_only(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 10)
    with naive_store.open_file(path) as file:
        place = file["parameters/name"].id.get_offset()
    flip(path, place)
    os.utime(path, (0, 0))
    with pytest.raises(naive_store.DamageError, match="parameters/name"):
        naive_store.read(path)
    with Run(path) as run:  # by the text of the structure, which has a checksum
        assert_whole(run, 10)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_cut_file_returns_what_is_whole_and_nothing_else(tmp_path, share):
    path = tmp_path / "run.h5"
    record(path, 300)
    os.truncate(path, int(path.stat().st_size * share))
    truth = states(0, 300).view(np.uint32)
    whole = 0
    with Run(path) as run:
        assert run.is_cut
        for block in range(5):
            for member in range(M):
                rows = slice(block * 64, min(300, block * 64 + 64))
                try:
                    part = run.states[rows, member]
                except DamagedError:
                    continue
                np.testing.assert_array_equal(part.view(np.uint32), truth[rows, member])
                whole += 1
    assert 15 * share - 5 < whole <= 15


# ----------------------------------------------------------------------------------------------------------- the rest


def test_a_trajectory_outlives_the_file_and_pickles(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100)
    with Run(path) as run:
        x = run.trajectory(1)
        with pytest.raises(SelectionError, match="there is no member 3"):
            run.trajectory(3)
    truth = states(0, 100)[:, 1].view(np.uint32)
    np.testing.assert_array_equal(np.asarray(x).view(np.uint32), truth)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(x))).view(np.uint32), truth)
    chosen = x.select("*.weight")
    np.testing.assert_array_equal(chosen.read(3, 70).view(np.uint32), truth[3:70, :210])


def test_too_large_an_array_is_refused_with_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    record(path, 10)
    monkeypatch.setattr("trajtools.store.reading.LARGEST_BYTES", 1000)
    with Run(path) as run, pytest.raises(TooLargeError, match="read a part"):
        np.asarray(run.states)


def test_many_runs_are_a_mapping(tmp_path):
    for folder, names in (("a", ("lr=0.5", "lr=10")), ("b", ("lr=2",))):
        (tmp_path / folder).mkdir()
        for name in names:
            record(tmp_path / folder / f"{name}.h5", 3)
    (tmp_path / "a" / "note.txt").write_text("no run")
    assert list(open_runs(tmp_path / "a")) == ["lr=0.5", "lr=10"]
    runs = open_runs(tmp_path / "*" / "*.h5")
    assert list(runs) == ["lr=0.5", "lr=10", "lr=2"]
    assert_whole(runs["lr=2"], 3)
    assert runs["lr=2"] is not None
    assert list(open_runs([tmp_path / "b", tmp_path / "a" / "lr=10.h5"])) == ["lr=2", "lr=10"]
    with pytest.raises(KeyError, match="there is no run 'x'"):
        runs["x"]
    for place, words in ((tmp_path, "holds no"), (tmp_path / "*.h5", "no file matches"), (tmp_path / "x", "not exist")):
        with pytest.raises(FileNotFoundError, match=words):
            open_runs(place)


def test_nothing_is_logged_where_all_is_well(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "trajtools")
    record(tmp_path / "run.h5", 70)
    resume(tmp_path / "run.h5").close()
    assert caplog.records == []


# ------------------------------------------------------------------------------------------------- states in pieces


@pytest.mark.parametrize("piece", [32, 1000, 20_000])
def test_pieces_are_the_states(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(chunks, "PIECE_BYTES", piece)  # from parts of one state of a chunk to many states
    monkeypatch.setattr(chunks, "PASS_BYTES", 4 * piece)
    record(tmp_path / "run.h5", 150)
    truth = states(0, 150)
    members = [2, 0]
    with Run(tmp_path / "run.h5") as run:
        for turn in range(2):  # unknown chunks, and known ones
            for rows in (slice(0, 150), slice(0, 64), slice(60, 130), slice(128, 129)):
                for columns in (slice(0, P), slice(3, P - 1)):
                    shape = (2, rows.stop - rows.start, columns.stop - columns.start)
                    together, times = np.zeros(shape, np.float32), np.zeros(shape, int)
                    for here, there, part in run.states.pieces(rows, members, columns):
                        together[:, here, there] = part
                        times[:, here, there] += 1
                    assert (times == 1).all()
                    expected = truth[rows, :, columns][:, members].transpose(1, 0, 2)
                    np.testing.assert_array_equal(
                        together.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32)
                    )
            assert len(list(run.states.pieces(slice(0, 64), members, slice(0, P)))) > 1, turn


@pytest.mark.parametrize("size", [2, 3, 128])  # with gaps between the chunks, and without
def test_pieces_of_many_small_members(tmp_path, size):
    values = np.random.default_rng(0).standard_normal((64, 1100, size)).astype(np.float32)
    parameters = [Parameter("w", "other", (size,), "float32", 0, size)]
    writer = RunWriter.create(
        tmp_path / "run.h5", RunSpec(parameters, [Member(str(i)) for i in range(1100)], "float32")
    )
    for start in range(0, 64, writer.layout.rows):
        rows = slice(start, start + writer.layout.rows)
        writer.write(start, writer.layout.rows, step=np.arange(rows.start, rows.stop), weights=values[rows])
    writer.close()
    together = np.zeros((1100, 64, size), np.float32)
    with Run(tmp_path / "run.h5") as run:
        for here, there, part in run.states.pieces(slice(0, 64), range(1100), slice(0, size)):
            together[:, here, there] = part
        np.testing.assert_array_equal(run.states[:], values)
    np.testing.assert_array_equal(together, values.transpose(1, 0, 2))


@pytest.mark.parametrize("rows", [slice(0, 400), slice(1, 399), slice(63, 193), slice(64, 192), slice(100, 140)])
def test_whole_blocks_among_some_rows(tmp_path, rows):
    path = tmp_path / "run.h5"
    truth = dr.write(path, 400, 20)["weights"]
    for members in ([2], [2, 0]):
        with Run(path) as run:
            for _ in range(2):  # unknown chunks, and known ones
                np.testing.assert_array_equal(run.states.read(rows, members), truth[rows, members])
                part = run.states.by_member(rows, members, slice(0, 20))
                np.testing.assert_array_equal(part, truth[rows, members].transpose(1, 0, 2))
    flip(path, dr.chunk_place(path, "weights", 2, 2) + 5)
    os.utime(path, (0, 0))
    with Run(path) as run:
        if rows.stop > 128:
            with pytest.raises(DamagedError, match=r"states 128 to 191 \(member 2\)"):
                run.states.read(rows, [2])
        np.testing.assert_array_equal(run.states.read(rows, [0]), truth[rows, [0]])


def test_damage_is_found_at_the_end_of_the_pieces_of_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "PIECE_BYTES", 1000)
    path = tmp_path / "run.h5"
    record(path, 150)
    flip(path, dr.chunk_place(path, "weights", 1, 2) + 5)
    os.utime(path, (0, 0))
    with Run(path) as run:
        for members, rows in (([2, 0], slice(0, 64)), ([1, 0], slice(0, 150))):
            assert list(run.states.pieces(rows, members, slice(0, P)))
        with pytest.raises(DamagedError, match=r"states 64 to 127 \(member 2\)"):
            list(run.states.pieces(slice(0, 150), [2, 0], slice(0, P)))
        with pytest.raises(DamagedError, match=r"states 64 to 127 \(member 2\)"):
            tt.twins(run)


def test_chunks_that_were_cut_off_since_they_were_verified_are_no_zeros(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "PIECE_BYTES", 1000)
    path = tmp_path / "run.h5"
    record(path, 150)
    with Run(path) as run:
        run.states[:]
        os.truncate(path, dr.chunk_place(path, "weights", 1, 0))
        np.testing.assert_array_equal(run.states[5].view(np.uint32), states(5, 1)[0].view(np.uint32))
        for read in (
            lambda: run.states[70],
            lambda: run.states[64:128],
            lambda: list(run.states.pieces(slice(64, 128), [0], slice(0, P))),
        ):
            with pytest.raises(DamagedError):
                read()
