"""Networks sharded over processes: each rank's file is a part, and the files together are one run."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import Executor, Future

import numpy as np
import pytest
from command_line import call

import trajtools as tt
from recorders import Sketch
from trajtools.errors import ArchitectureError, DataError, FormatError
from trajtools.store import Box, Place, RunSpec, RunWriter, Shard
from trajtools.wiring import Member, NodeSet, Parameter, describe

SHAPES = {"a": (5, 3), "b": (3,), "c": (2, 3, 4), "d": ()}
WHOLE, NODES = describe({name: (shape, "float64") for name, shape in SHAPES.items()})
P = sum(p.size for p in WHOLE)
# Rank 0, 1, 3; rank 2 holds copies only. Rows, columns, and two boxes of one array.
BOXES = {
    0: [[Box((0, 0), (3, 3))], [], [Box((0, 0, 0), (1, 3, 1)), Box((1, 0, 1), (1, 3, 3))], []],
    1: [[Box((3, 0), (1, 3))], [Box((0,), (3,))], [Box((0, 0, 1), (1, 3, 3))], [Box((), ())]],
    3: [[Box((4, 0), (1, 3))], [], [Box((1, 0, 0), (1, 3, 1))], []],
}
MEMBERS = [Member("reference"), Member("twin", reference=0, epsilon=1e-3)]
T = 7


def states() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(T, 2, P))


def held(place: Place, whole: np.ndarray) -> np.ndarray:
    """What a file holds of whole states, box after box."""
    parts = []
    for p, boxes in zip(place.parameters, place.boxes, strict=True):
        array = whole[..., p.offset : p.offset + p.size].reshape((*whole.shape[:-1], *p.shape))
        for box in boxes:
            cut = tuple(slice(a, a + n) for a, n in zip(box.start, box.shape, strict=True))
            parts.append(array[(..., *cut)].reshape((*whole.shape[:-1], -1)))
    return np.concatenate(parts, axis=-1)


def place_of(rank: int) -> Place:
    return Place(WHOLE, tuple(map(tuple, BOXES[rank])))


def write(folder, *, stored="weights", metric="l2", lengths=None, uuid="0" * 32, buffers=False, name="net"):
    """The files of the ranks, written one by one."""
    whole = states()
    for rank in BOXES:
        place = place_of(rank)
        mine = held(place, whole)
        sizes = place.sizes
        table = [
            Parameter(p.name, p.kind, (size,), p.dtype, int(np.sum(sizes[:i])), size)
            for i, (p, size) in enumerate(zip(WHOLE, sizes, strict=True))
        ]
        shard = Shard(rank, tuple(BOXES), {"dp": 2, "tp": 2}, place, NODES, place if buffers else None)
        spec = RunSpec(
            parameters=table, members=MEMBERS, dtype="float64", stored=stored, name=name, uuid=uuid,
            sketch=Sketch(16, 3).settings if stored == "sketch" else None,
            distance_metric=metric if stored == "distances" else None,
            optimizer={"parameters": table, "dtype": "float64"} if buffers else None,
            shard=shard.to_text(), hparams={"lr": 0.1},
        )  # fmt: skip
        writer = RunWriter.create(folder / f"{name}.rank{rank}.h5", spec)
        n = (lengths or {}).get(rank, T)
        content = {}
        if stored == "weights":
            content["weights"] = writer.layout.new_tiles()
            for row, member in np.ndindex(n, 2):
                writer.layout.put(content["weights"], row, member, mine[row, member])
            if buffers:
                content["optimizer"] = 2 * content["weights"]
        elif stored == "distances":
            gap = np.abs(mine[:, 1] - mine[:, 0])
            d = {"l1": gap.sum(1), "l2": np.sqrt((gap**2).sum(1)), "linf": gap.max(1)}
            d["rms"] = np.sqrt((gap**2).mean(1))
            content["distances"] = np.stack([np.full(n, np.nan), d[metric][:n]], axis=1)
        else:
            entries = place.entries(0, mine.shape[-1])
            only = np.zeros_like(whole)
            only[:, :, entries] = mine
            content["sketch"] = Sketch(16, 3)(only)[:n]
        losses = {"loss": np.arange(n) + rank, **({"own": np.ones(n)} if rank == 1 else {})}
        writer.write(0, n, step=3 * np.arange(n), metrics=losses, final=True, **content)
        writer.plant(3, 1, 1e-3, 0, float(rank))
        writer.close()
    return f"{folder}/{name}.rank*.h5"


@pytest.mark.parametrize("rank", BOXES)
def test_boxes_find_their_entries(rank):
    place, whole = place_of(rank), np.arange(P)
    mine = held(place, whole)
    np.testing.assert_array_equal(place.entries(0, len(mine)), mine)
    np.testing.assert_array_equal(place.entries(2, 5), mine[2:5])
    for columns in (slice(0, P), slice(7, 23), slice(4, 4), np.array([40, 3, 17, 16, 30]), np.arange(P)[::-1]):
        wanted = whole[columns]
        found = np.full(len(wanted), -1)
        for local, target in place.cut(columns):
            found[target] = mine[local]
        np.testing.assert_array_equal(found, np.where(np.isin(wanted, mine), wanted, -1))
    again = Shard.from_text(Shard(rank, (0, 1, 3), {"dp": 2}, place, NODES).to_text(), "here")
    assert (again.weights, again.nodes, again.optimizer) == (place, NODES, None)


def test_the_files_of_all_ranks_are_one_run(tmp_path):
    pattern, whole = write(tmp_path, buffers=True), states()
    with tt.open(pattern) as run:
        assert (run.name, run.status, run.n_states, run.n_parameters) == ("net", "complete", T, P)
        assert (run.parameters, run.nodes) == (WHOLE, NODES)
        np.testing.assert_array_equal(run.states.read(), whole)
        np.testing.assert_array_equal(run.optimizer.read(), 2 * whole)
        np.testing.assert_array_equal(run.states[2:5, 1, [44 % P, 3, 17]], whole[2:5, 1][:, [44 % P, 3, 17]])
        np.testing.assert_array_equal(run.trajectory(1).select("c").read(1, 3), whole[1:3, 1, 18:42])
        np.testing.assert_array_equal(run.step, 3 * np.arange(T))
        np.testing.assert_allclose(run.metrics["loss"], np.arange(T) + 4 / 3)
        np.testing.assert_array_equal(run.metrics["own"], 1)
        assert run.plantings["norm"].tolist() == [np.sqrt(10)]
        assert run.trajectory().network(0).number_of_edges() == 15 + 3
        again = pickle.loads(pickle.dumps(run.trajectory(1)))
        np.testing.assert_array_equal(again.read(), whole[:, 1])
    assert not [problem for path in tmp_path.iterdir() for problem in tt.validate(path)]


def test_one_of_the_files_a_list_and_a_folder_stand_for_the_run(tmp_path):
    pattern, whole = write(tmp_path), states()
    write(tmp_path, name="other", uuid="1" * 32, stored="sketch")
    files = sorted(tmp_path.glob("net*.h5"))
    for one in (files[1], str(files[2]), files[::-1], [pattern]):
        with tt.open(one) as run:
            np.testing.assert_array_equal(run.states.read(), whole)
    assert list(tt.open_runs(tmp_path)) == ["net", "other"]
    assert tt.open_runs(f"{tmp_path}/*.h5")["net"].n_parameters == P
    for place in (str(tmp_path / "net.rank3.h5"), str(tmp_path / "*.h5"), str(tmp_path)):
        assert call("info", place).stdout.count(f"parameters  {P} ") == (1 if "rank3" in place else 2)
    with tt.open(files[0], isolated=True) as run:
        assert run.n_parameters == P


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms"])
def test_distances_add_over_shards(tmp_path, metric):
    pattern, whole = write(tmp_path, stored="distances", metric=metric), states()
    gap = np.abs(whole[:, 1] - whole[:, 0])
    wanted = {"l1": gap.sum(1), "l2": np.linalg.norm(gap, axis=1), "linf": gap.max(1)}
    wanted["rms"] = wanted["l2"] / np.sqrt(P)
    with tt.open(pattern) as run:
        np.testing.assert_allclose(run.distances[:, 1], wanted[metric], rtol=1e-14)
        curve = tt.twins(run, metric=metric)
        np.testing.assert_allclose(curve.distances[-1][: T - 1], wanted[metric][1:], rtol=1e-14)


class Elsewhere(Executor):
    """Hands over tasks and results as another process would get them."""

    def submit(self, task, /, *arguments):
        future = Future()
        task, arguments = pickle.loads(pickle.dumps((task, arguments)))
        future.set_result(pickle.loads(pickle.dumps(task(*arguments))))
        return future


def test_analyses_of_shards_run_on_any_executor(tmp_path, monkeypatch):
    pattern, whole = write(tmp_path), states()
    monkeypatch.setattr("trajtools.sweeps.cache.SETTLED", -3600.0)
    with tt.open(pattern) as run:
        for metric in ("l1", "l2", "linf"):
            found = tt.pairwise(run.trajectory(1), metric=metric, block=2, executor=Elsewhere())
            np.testing.assert_array_equal(found[:], tt.pairwise(whole[:, 1], metric=metric)[:])
    known = []
    for executor in (None, Elsewhere(), Elsewhere()):
        kept = {"cache": tmp_path / "kept.jsonl", "progress": lambda done, total: known.append((done, total))}
        assert tt.sweep(pattern, executor=executor, **kept).to_json() == tt.sweep(pattern).to_json()
    assert known == 3 * [(0, 1), (1, 1)]  # a change of another rank's file would not be noticed: nothing is kept


def test_sketches_add_over_shards(tmp_path):
    with tt.open(write(tmp_path, stored="sketch")) as run:
        np.testing.assert_allclose(run.sketch, Sketch(16, 3)(states()), rtol=0, atol=1e-13)


def test_a_missing_rank_is_named(tmp_path):
    pattern = write(tmp_path)
    (tmp_path / "net.rank1.h5").unlink()
    for one in (pattern, tmp_path / "net.rank3.h5"):
        with pytest.raises(DataError, match=r"rank 1 is missing.*net\.rank1\.h5"):
            tt.open(one)
    assert "rank 1 is missing" in call("info", tmp_path, code=1).stderr


def test_files_that_are_not_one_run_are_refused(tmp_path):
    pattern = write(tmp_path)
    shutil.copy(tmp_path / "net.rank0.h5", tmp_path / "net.rank00.h5")
    with pytest.raises(DataError, match="are both rank 0"):
        tt.open(pattern)
    (tmp_path / "net.rank00.h5").unlink()
    write(tmp_path, name="other", uuid="1" * 32)
    with pytest.raises(DataError, match=r"6 files, and not the shards of one run.*open_runs"):
        tt.open(f"{tmp_path}/*.h5")


def test_a_state_is_there_when_all_ranks_have_it(tmp_path):
    with tt.open(write(tmp_path, lengths={1: 4})) as run:
        assert run.step.tolist() == [0, 3, 6, 9]
        np.testing.assert_array_equal(run.states.read(), states()[:4])


def test_another_part_does_not_continue_a_file(tmp_path):
    write(tmp_path)
    path = tmp_path / "net.rank0.h5"
    with tt.open(path) as run:
        table, other = run.shards[0].parameters, run.shards[1].shard
    with pytest.raises(ArchitectureError, match="another part of the sharded network"):
        RunWriter.resume(path, RunSpec(parameters=table, members=MEMBERS, dtype="float64", shard=other.to_text()))


def test_a_repaired_file_stays_a_shard(tmp_path):
    write(tmp_path)
    path = tmp_path / "net.rank1.h5"
    tt.repair(path, salvage=tmp_path / "new.h5")
    shutil.move(tmp_path / "new.h5", path)
    with tt.open(path) as run:
        np.testing.assert_array_equal(run.states.read(), states())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace('"ranks": [0, 1, 3]', '"ranks": [1, 3]'), "a rank, the rising ranks"),
        (lambda text: text.replace("[[[0, 0], [3, 3]]]", "[[[3, 0], [3, 3]]]"), "outside"),
        (lambda text: text.replace("[[[0, 0], [3, 3]]]", "[[[0, 0], [2, 3]]]"), "contradict"),
        (lambda text: text.replace("[[[0, 0], [3, 3]]]", "7"), "shard, weights is wrong"),
        (lambda text: "[]", "JSON object"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(tmp_path, change, words):
    shard = Shard(0, (0, 1, 3), {"dp": 2}, place_of(0), (NodeSet("x", 1),))
    table = [Parameter(p.name, "other", (n,), "float64", 0, n) for p, n in zip(WHOLE, place_of(0).sizes, strict=True)]
    with pytest.raises(FormatError, match=words):
        Shard.from_text(change(shard.to_text()), "here").check(table, (), "here")
