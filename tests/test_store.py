"""Runs are written and read back bit for bit, by one process or several, whatever happens around them."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from stored_runs import MEMBERS, METRICS, NODES, PARAMETERS, M, P, assert_whole, create, record, resume, states, write

import trajtools as tt
from trajtools.store import (
    ArchitectureError,
    Member,
    MissingDependencyError,
    Parameter,
    RecordingError,
    RunNotFoundError,
    RunWriter,
    SelectionError,
    StreamLayout,
    TooLargeError,
    h5,
    promote,
    validate,
    widen,
)

BITS = {"float16": np.uint16, "float32": np.uint32, "float64": np.uint64, "bfloat16": np.uint16}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(sorted(BITS)),
    n_states=st.integers(0, 150),
    n_members=st.integers(1, 4),
    n_parameters=st.integers(1, 700),
    compress=st.sampled_from([None, "gzip"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_bits_come_back_as_they_were(  # noqa: PLR0917
    tmp_path_factory, dtype, n_states, n_members, n_parameters, compress, seed
):
    path = tmp_path_factory.mktemp("bits") / "run.h5"
    rng = np.random.default_rng(seed)
    kind = BITS[dtype]
    bits = rng.integers(0, np.iinfo(kind).max, (n_states, n_members, n_parameters), kind, endpoint=True)
    writer = RunWriter.create(
        path,
        "a=1.5",
        parameters=[Parameter("w", "other", (n_parameters,), dtype, 0, n_parameters)],
        nodes=[],
        members=[Member(str(i)) for i in range(n_members)],
        dtype=dtype,
        compress=compress,
    )
    writer.begin()
    layout = writer.layout
    for start in range(0, n_states, layout.rows):
        block = bits[start : start + layout.rows]
        tiles = layout.new_tiles()
        for row in range(len(block)):
            for member in range(n_members):
                layout.put(tiles, row, member, block[row, member].view(layout.dtype))
        np.testing.assert_array_equal(layout.take(tiles, len(block)).view(kind), block)
        writer.write(start, len(block), step=np.arange(start, start + len(block)), tiles=tiles, final=True)
    writer.close()
    with tt.open(path) as file:
        run = file["a=1.5"]
        assert run.logical_dtype == dtype
        np.testing.assert_array_equal(run.states(raw=True).view(kind), bits)
        if dtype == "bfloat16":
            assert run.states().dtype == np.float32
            np.testing.assert_array_equal(run.states().view(np.uint32), bits.astype(np.uint32) << 16)
        rows, columns = rng.integers(-n_states, n_states, 5) if n_states else [], rng.integers(0, n_parameters, 4)
        picked = run.states(np.asarray(rows, int), [n_members - 1, 0], columns, raw=True)
        np.testing.assert_array_equal(
            picked.view(kind), bits[np.asarray(rows, int)][:, [n_members - 1, 0]][:, :, columns]
        )
        strided = run.states(slice(None, None, 7), slice(0, 1), slice(1, None, 3), raw=True)
        np.testing.assert_array_equal(strided.view(kind), bits[::7, :1, 1::3])
    assert validate(path) == []


def test_wide_states_are_cut_into_even_chunks(tmp_path):
    layout = StreamLayout.choose(100_001, 2, "float32")
    assert (layout.rows, layout.n_column_chunks) == (64, 24)
    assert layout.columns * layout.n_column_chunks - 100_001 < layout.n_column_chunks
    assert StreamLayout.choose(10**7, 1, "float32").rows == 1
    assert StreamLayout.choose(83, 2000, "float32").chunk == (64, 1, 83)
    assert StreamLayout.choose(10**6, 100, "float64").rows == 1
    path = tmp_path / "wide.h5"
    size, rows = 100_001, 55
    wide = [Parameter("w", "other", (size,), "float32", 0, size)]
    writer = RunWriter.create(path, "r", parameters=wide, nodes=[], members=MEMBERS, dtype="f4")
    writer.begin()
    assert writer.layout.rows == rows
    tiles = writer.layout.new_tiles()
    truth = states(0, rows, size)
    for row in range(rows):
        for member in range(M):
            writer.layout.put(tiles, row, member, truth[row, member])
    writer.write(0, rows, step=np.arange(rows), tiles=tiles)
    writer.close()
    with tt.open(path) as file:
        weights = file["r"].weights
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


def test_tables_and_settings_come_back(tmp_path):
    path = tmp_path / "run.h5"
    hparams = {
        "lr": np.float32(0.5),
        "layers": (1, 2),
        "file": Path("x"),
        "nan": float("nan"),
        "ß": {"deep": [None, True]},
    }
    record(path, 3, hparams=hparams, reference="other", time_unit="update", overhead={"seconds": 2.0})
    with tt.open(path) as file:
        run = file["run"]
        assert run.parameters == PARAMETERS
        assert run.nodes == NODES
        assert repr(run.members) == repr(MEMBERS)
        assert np.isnan(run.hparams.pop("nan"))
        assert {k: v for k, v in run.hparams.items() if k != "nan"} == {
            "lr": 0.5,
            "layers": [1, 2],
            "file": "x",
            "ß": {"deep": [None, True]},
        }
        assert (run.reference, run.time_unit, run.overhead) == ("other", "update", {"seconds": 2.0})
        assert (run.n_states, run.n_members, run.n_parameters, run.stored) == (3, M, P, "weights")
        assert set(run.metrics) == set(METRICS)
        with pytest.raises(KeyError, match="no metric 'los'"):
            run.metrics["los"]


def test_a_large_set_of_hyperparameters_fits(tmp_path):
    path = tmp_path / "run.h5"
    hparams = {f"name {i}": "x" * 50 for i in range(5000)}
    record(path, 1, hparams=hparams)
    with tt.open(path) as file:
        assert file["run"].hparams == hparams


def test_a_file_is_a_mapping_of_its_runs(tmp_path):
    path = tmp_path / "run.h5"
    for index in range(12):  # more than HDF5 keeps in the head of a group
        record(path, 3, f"eta={index}", "a")
    with tt.open(path) as file:
        assert len(file) == 12
        assert set(file) == {f"eta={i}" for i in range(12)}
        assert "eta=3" in file
        with pytest.raises(RunNotFoundError, match="holds no run 'eta'; it has 'eta=0'"):
            file["eta"]
        for run in file.values():
            assert_whole(run, 3)
    with pytest.raises(ValueError, match="is closed"):
        file["eta=1"]
    assert validate(path) == []


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 3)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="is never overwritten"):
        create(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_names_that_hdf5_takes_for_paths_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="run name"):
        create(tmp_path / "run.h5", name)
    assert not (tmp_path / "run.h5").exists()


def refused(**changes):
    given = {"parameters": PARAMETERS, "nodes": NODES, "members": MEMBERS, "dtype": "float32"} | changes
    return lambda path: RunWriter.create(path, "run", **given)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (refused(dtype="complex64"), ArchitectureError, "real and imaginary parts"),
        (refused(dtype="int64"), ArchitectureError, "dtype int64 cannot be recorded"),
        (refused(parameters=PARAMETERS[1:]), ArchitectureError, "offsets must follow each other"),
        (refused(parameters=()), ArchitectureError, "the state is empty"),
        (refused(members=()), ArchitectureError, "at least one member"),
        (refused(members=[Member("a"), Member("a")]), ArchitectureError, "share a name"),
        (refused(members=[Member("a", 0)]), ArchitectureError, "index of another member"),
        (refused(hparams={"f": print}), TypeError, "cannot be stored as JSON"),
        (refused(stored="pictures"), ValueError, "needed one of weights"),
        (refused(stored="sketch"), ValueError, "settings of the sketch"),
        (refused(stored="distances"), ValueError, "name of the metric"),
        (refused(mode="w"), ValueError, "needed 'x'"),
        (refused(compress="lzf"), ValueError, "'zstd' or 'gzip'"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_a_file_is_made(tmp_path, make, error, words):
    with pytest.raises(error, match=words):
        make(tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_do_not_fit_are_refused_and_do_no_harm(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    with pytest.raises(RecordingError, match="begin"):
        write(writer, 0, 10)
    with pytest.raises(ArchitectureError, match="one row for each of the 3 members"):
        writer.begin({"loss": (2,)})
    writer.begin(METRICS)
    with pytest.raises(RecordingError, match="has already begun"):
        writer.begin(METRICS)
    write(writer, 0, 20)
    tiles, step = writer.layout.new_tiles(), np.arange(100, 120)
    metrics = {"loss": np.zeros(20), "accuracy": np.zeros((20, M))}
    for change, error, words in (
        ({"start": 3}, ValueError, "from a multiple of 64 on"),
        ({"start": 64}, ValueError, "right behind the 20 committed"),
        ({"count": 5, "step": step[:5]}, ValueError, "would drop some"),
        ({"step": step[::-1]}, ValueError, "increasing numbers"),
        ({"tiles": None}, ValueError, "this run stores them"),
        ({"tiles": tiles[:, :, :3]}, ValueError, "needed a C-contiguous array"),
        ({"tiles": tiles.astype("f8")}, ValueError, "needed a C-contiguous array"),
        ({"distances": np.zeros((20, M))}, RecordingError, "names and shapes of metrics are fixed"),
        ({"metrics": metrics | {"new": np.zeros(20)}}, RecordingError, "names and shapes of metrics are fixed"),
        ({"metrics": {"loss": np.zeros(20)}}, RecordingError, "names and shapes of metrics are fixed"),
        ({"metrics": metrics | {"loss": np.zeros(3)}}, ValueError, "needed shape"),
    ):
        given = {"start": 0, "count": 20, "step": step, "metrics": metrics, "tiles": tiles} | change
        with pytest.raises(error, match=words):
            writer.write(given.pop("start"), given.pop("count"), **given)
    write(writer, 0, 25)
    writer.close()
    with pytest.raises(RecordingError, match="is closed"):
        write(writer, 0, 30)
    with tt.open(path) as file:
        assert_whole(file["run"], 25)


def test_compressed_runs_take_whole_blocks(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path, compress="gzip")
    writer.begin(METRICS)
    with pytest.raises(ValueError, match="whole blocks only"):
        write(writer, 0, 10)
    write(writer, 0, 64)
    write(writer, 64, 10, final=True)
    writer.close()
    writer = resume(path)
    assert writer.filtered
    writer.begin()
    write(writer, 64, 64)
    write(writer, 128, 1, final=True)
    writer.close()
    with tt.open(path) as file:
        assert_whole(file["run"], 129)


def test_zstd_is_read_or_the_missing_plugin_is_named(tmp_path, monkeypatch):
    pytest.importorskip("hdf5plugin")
    path = tmp_path / "run.h5"
    record(path, 100, compress="zstd")
    with tt.open(path) as file:
        assert_whole(file["run"], 100)
    monkeypatch.setattr(h5.h5py.h5z, "filter_avail", lambda number: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(MissingDependencyError, match=r"pip install trajtools\[zstd\]"), tt.open(path) as file:
        file["run"].states()


def test_resume_refuses_another_run(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 10)
    other = (*PARAMETERS[:2], Parameter("norm.scale", "norm", (14,), "float32", 217, 14))
    given = {"parameters": PARAMETERS, "members": MEMBERS, "dtype": "float32"}
    for change, words in (
        ({"parameters": other}, r"'norm.scale' \(13,\) float32 in the file is 'norm.scale' \(14,\)"),
        ({"members": MEMBERS[:2]}, "3 members in the file, 2 now"),
        ({"members": (*MEMBERS[:2], Member("x"))}, "member .*twin 2.* in the file is"),
        ({"dtype": "float64"}, "float32 in the file, float64 now"),
        ({"stored": "distances", "distance_metric": "l1"}, "the file stores weights"),
    ):
        with pytest.raises(ArchitectureError, match=words):
            RunWriter.resume(path, "run", **given | change)
    with pytest.raises(RunNotFoundError, match="it has 'run'"):
        RunWriter.resume(path, "walk", **given)
    writer = resume(path)
    with pytest.raises(RecordingError, match="fixed at the first record"):
        writer.begin({"loss": ()})
    writer.close()
    with tt.open(path) as file:
        assert_whole(file["run"], 10)


def test_optimiser_buffers_are_stored_beside_the_weights(tmp_path):
    path = tmp_path / "run.h5"
    buffers = [Parameter("momentum", "other", (500,), "float64", 0, 500)]
    writer = create(path, optimizer={"parameters": buffers, "dtype": "float64"})
    writer.begin()
    layout = writer.optimizer_layout
    assert layout is not None
    tiles = layout.new_tiles()
    truth = np.random.default_rng(1).standard_normal((9, M, 500))
    for row in range(9):
        for member in range(M):
            layout.put(tiles, row, member, truth[row, member])
    writer.write(0, 9, step=np.arange(9), tiles=writer.layout.new_tiles(), optimizer_tiles=tiles)
    writer.close()
    with tt.open(path) as file:
        run = file["run"]
        assert run.optimizer_parameters == tuple(buffers)
        np.testing.assert_array_equal(run.optimizer[:], truth)
    assert validate(path) == []


def test_runs_without_weights_say_what_they_store(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 70, "d", stored="distances")
    record(path, 70, "s", "a", stored="sketch")
    with tt.open(path) as file:
        assert_whole(file["d"], 70, stored="distances")
        assert_whole(file["s"], 70, stored="sketch")
        assert (file["d"].stored, file["d"].distance_metric, file["d"].sketch) == ("distances", "l1", None)
        assert (file["s"].stored, file["s"].sketch_settings, file["s"].distances) == (
            "sketch",
            {"k": 16, "seed": 3},
            None,
        )
        with pytest.raises(SelectionError, match="stores distances of each state"):
            file["d"].trajectory()
        with pytest.raises(SelectionError, match="store='weights'"):
            _ = file["s"].weights


def test_a_trajectory_outlives_the_file_and_pickles(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100)
    with tt.open(path) as file:
        x = file["run"].trajectory(1)
        with pytest.raises(SelectionError, match="there is no member 3"):
            file["run"].trajectory(3)
    truth = states(0, 100)[:, 1].view(np.uint32)
    np.testing.assert_array_equal(np.asarray(x).view(np.uint32), truth)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(x))).view(np.uint32), truth)
    chosen = x.select("*.weight")
    np.testing.assert_array_equal(chosen.read(3, 70).view(np.uint32), truth[3:70, :210])


def test_too_large_an_array_is_refused_with_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    record(path, 10)
    monkeypatch.setattr("trajtools.store.states.LARGEST_BYTES", 1000)
    with tt.open(path) as file, pytest.raises(TooLargeError, match="read a part"):
        np.asarray(file["run"].weights)


def test_promotion_loses_nothing():
    assert promote(["float16", "float16"]) == "float16"
    assert promote(["bfloat16", "float16"]) == "float32"
    assert promote(["bfloat16", "float32"]) == "float32"
    assert promote(["float16", "float64"]) == "float64"
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    np.testing.assert_array_equal(widen(bits).view(np.uint32) >> 16, bits)
    assert widen(np.array([0x3F80, 0xC000], np.uint16)).tolist() == [1.0, -2.0]
