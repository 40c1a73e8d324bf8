"""The torch recorder under data parallelism, sharding and the trainers of other packages."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import trajtools as tt  # noqa: E402
from trajtools.errors import MissingDependencyError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

ROOT = Path(__file__).resolve().parents[1]


RANK = """
import os, sys, time
from datetime import timedelta
import numpy as np, torch, torch.distributed as dist
from recorders.torch import Recorder

rank, folder = int(sys.argv[1]), sys.argv[2]
where, patience = f"file://{folder}/rendezvous", timedelta(seconds=60)
dist.init_process_group("gloo", init_method=where, timeout=patience, rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Recorder(f"{folder}/run.h5", model, optimizer=optimizer, quiet=True) as recorder:
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(torch.randn(5, 4) + rank).square().mean()
        loss.backward()
        recorder.record(loss=loss)
        optimizer.step()
    print(recorder.step, recorder.n_recorded, recorder.n_skipped, len(recorder.overhead) > 0, len(recorder.names))
np.save(f"{folder}/last{rank}.npy", np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]))
sys.stdout.flush()
for _ in range(600):  # neither leaves while the other may still wait for its gradients
    if all(os.path.exists(f"{folder}/last{other}.npy") for other in (0, 1)):
        break
    time.sleep(0.05)
os._exit(0)  # gloo's own threads sometimes abort the interpreter on its way out, when all is done
"""


def test_of_data_parallel_ranks_the_first_records(tmp_path):
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        told = [rank.communicate(timeout=120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], told
    assert [out.split() for out, _ in told] == [["4", "5", "0", "True", "2"], ["0", "0", "0", "False", "0"]]
    with tt.open(tmp_path / "run.h5") as run:
        assert [p.name for p in run.parameters] == ["weight", "bias"]
        for rank in (0, 1):
            np.testing.assert_array_equal(run.states[4:5][0, 0], np.load(tmp_path / f"last{rank}.npy"))


@pytest.mark.parametrize("name", ["lightning", "huggingface"])
def test_a_missing_framework_is_named(name, monkeypatch):
    import importlib

    for package in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"recorders.{name}", raising=False)
    module = importlib.import_module(f"recorders.{name}")
    with pytest.raises(MissingDependencyError, match="pip install"):
        module.RecorderCallback  # noqa: B018
