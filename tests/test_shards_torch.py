"""FSDP2 and DTensor on two processes: the files of both are the run of the unsharded network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed.fsdp", reason="this torch has no FSDP2")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)

import sharded_training  # noqa: E402

import trajtools as tt  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of the sharded files, folder of the unsharded ones, and what both ranks said."""
    sharded, whole = tmp_path_factory.mktemp("sharded"), tmp_path_factory.mktemp("whole")
    ranks = [
        subprocess.Popen(
            [sys.executable, sharded_training.__file__, str(number), str(sharded)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in (0, 1)
    ]  # fmt: skip
    try:
        for name, options in sharded_training.WHAT.items():
            sharded_training.train(whole / f"{name}.h5", **options)
        answers = [process.communicate(timeout=240) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], answers
    return sharded, whole, [out.splitlines() for out, _ in answers]


def test_states_buffers_and_tables_are_those_of_the_unsharded_network(trained):
    sharded, whole, _ = trained
    with tt.open(sharded / "weights.rank*.h5") as run, tt.open(whole / "weights.h5") as one:
        assert (run.name, run.status, run.n_parameters) == ("weights", "complete", one.n_parameters)
        assert (run.parameters, run.nodes) == (one.parameters, one.nodes)
        assert str(run.members) == str(one.members)
        assert len(run.shards) == 2
        assert max(shard.n_parameters for shard in run.shards) < one.n_parameters
        np.testing.assert_array_equal(run.step, one.step)
        np.testing.assert_allclose(run.states.read(), one.states.read(), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(run.states[0], one.states[0])
        assert [p.name for p in run.optimizer_parameters] == [p.name for p in one.optimizer_parameters]
        np.testing.assert_allclose(run.optimizer.read(), one.optimizer.read(), rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(run.metrics["loss"], one.metrics["loss"], rtol=1e-6)
    assert not [problem for path in sharded.glob("weights.*.h5") for problem in tt.validate(path)]


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_distances_of_twins_are_those_of_the_unsharded_network(trained, metric):
    sharded, whole, _ = trained
    with tt.open(sharded / f"{metric}.rank*.h5") as run, tt.open(whole / f"{metric}.h5") as one:
        # The gradients of the ranks are summed in another order, so that weights differ by rounding.
        np.testing.assert_allclose(run.distances, one.distances, rtol=1e-6)
        np.testing.assert_allclose(
            tt.twins(run, metric=metric).distances, tt.twins(one, metric=metric).distances, rtol=1e-6
        )


def test_sketches_are_those_of_the_unsharded_network(trained):
    sharded, whole, _ = trained
    with tt.open(sharded / "sketch.rank*.h5") as run, tt.open(whole / "sketch.h5") as one:
        np.testing.assert_allclose(run.sketch, one.sketch, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(run.sketch[0], one.sketch[0])


def test_columns_copies_and_plain_tensors_are_each_stored_once_and_resumed(trained):
    sharded, _, _ = trained
    torch.manual_seed(2)
    start = torch.cat([torch.randn(3, 5).ravel(), torch.randn(4), torch.randn(2)]).numpy()
    with tt.open(sharded / "tensors.rank1.h5") as run:
        assert [(p.name, p.shape) for p in run.parameters] == [("columns", (3, 5)), ("copies", (4,)), ("plain", (2,))]
        assert [shard.n_parameters for shard in run.shards] == [9 + 4 + 2, 6]
        assert run.step.tolist() == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(run.states[:, 0], start * 2.0 ** np.arange(5)[:, None])
        np.testing.assert_array_equal(run.metrics["rank"][1:4], 0.5)


def test_a_rank_of_copies_writes_nothing(trained):
    sharded, _, (first, second) = trained
    assert (first[0], second[0]) == ("Recorder", "_OtherRank")
    assert not (sharded / "copies.rank1.h5").exists()
    with tt.open(sharded / "copies.rank0.h5") as run:
        assert run.metrics["loss"].tolist() == [0.5]


def test_all_ranks_record_or_none(trained):
    sharded, _, (first, second) = trained
    assert first[1].startswith("RecordingError")
    assert "rank 1 could not open its file (FileExistsError" in first[1]
    assert second[1].startswith("FileExistsError")
    assert not (sharded / "taken.rank0.h5").exists()


def test_the_next_free_name_is_the_same_on_all_ranks(trained):
    sharded, _, _ = trained
    with tt.open(sharded / "weights-2.rank*.h5") as run:
        assert (run.name, len(run.shards)) == ("weights-2", 2)
    assert {"weights", "weights-2", "l1", "sketch"} <= set(tt.open_runs(sharded))


def test_the_program_of_the_page_records_twins_of_a_sharded_network(tmp_path):
    page = (ROOT / "docs" / "loops.md").read_text()
    (program,) = [one for one in re.findall(r"^```python\n(.*?)^```$", page, flags=re.S | re.M) if "fully_shard" in one]
    tmp_path.joinpath("program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "program.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 curves from 1 initial condition" in done.stdout
    with tt.open(tmp_path / "sharded.rank*.h5") as run:
        assert (run.status, run.n_states, len(run.shards)) == ("complete", 101, 2)
        assert (run.distances[:, 1:] > 0).all()
        assert run.provenance["optimizer"]["lr"] == 0.1


def test_twins_that_copy_a_sharded_network_name_the_way(trained):
    _, _, (first, second) = trained
    for said in (first, second):
        (line,) = [line for line in said if "LoopTwins" in line]
        assert "make copies by `perturb` before it is sharded, shard each of them, and record the list" in line
