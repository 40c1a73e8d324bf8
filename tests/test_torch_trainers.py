"""The torch recorder under data parallelism, sharding and the trainers of other packages."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import OPTIMISERS, backward, batches, flat, network, read  # noqa: E402

import trajtools as tt  # noqa: E402
from trajtools.errors import MissingDependencyError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

nn = torch.nn
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


SHARDED = """
import sys
import torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from recorders.torch import Recorder

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/rendezvous", rank=0, world_size=1)
mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
whole = torch.nn.Linear(4, 3)
spread = torch.nn.Linear(4, 3)
spread.weight = torch.nn.Parameter(dist.tensor.distribute_tensor(spread.weight.detach(), mesh))
for model in (fully_shard(whole, mesh=mesh), spread):
    assert isinstance(model.weight, DTensor)
    try:
        Recorder(f"{sys.argv[1]}/run.h5", model, quiet=True)
    except Exception as error:
        print(type(error).__name__, error)
dist.destroy_process_group()
"""


def test_sharded_and_distributed_parameters_are_refused_with_the_way_out(tmp_path):
    pytest.importorskip("torch.distributed.fsdp")
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("ArchitectureError")
    assert "FSDP" in first
    assert "get_model_state_dict" in first
    assert "DTensor" in second
    assert "full_tensor()" in second
    assert not (tmp_path / "run.h5").exists()


@pytest.fixture
def fake_frameworks(monkeypatch):
    def package(name, **contents):
        module = types.ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)

    class Callback:
        """Of Lightning."""

    class TrainerCallback:
        """Of transformers."""

    package("lightning")
    package("lightning.pytorch")
    package("lightning.pytorch.callbacks", Callback=Callback)
    package("transformers", TrainerCallback=TrainerCallback)
    for name in ("recorders.lightning", "recorders.huggingface"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return types.SimpleNamespace(Callback=Callback, TrainerCallback=TrainerCallback)


def test_a_lightning_fit_is_recorded_with_the_mean_loss_of_its_micro_batches(tmp_path, fake_frameworks):
    from recorders.lightning import RecorderCallback

    model = network()
    model[2].p = 0.0
    optimizer = OPTIMISERS["adam"](model.parameters())
    trainer = types.SimpleNamespace(optimizers=[optimizer])
    callback = RecorderCallback(tmp_path / "run.h5", name="fit", quiet=True)
    assert isinstance(callback, fake_frameworks.Callback)
    callback.on_train_start(trainer, model)
    expected, losses = [flat(model)], []
    for i, (x, y) in enumerate(batches(6)):
        loss = nn.functional.cross_entropy(model(x), y) / 2
        callback.on_before_backward(trainer, model, loss)
        loss.backward()
        losses.append(loss.item())
        if i % 2:
            callback.on_before_optimizer_step(trainer, model, optimizer)
            optimizer.step()
            optimizer.zero_grad()
            expected.append(flat(model))
    callback.on_train_end(trainer, model)
    stored, _, metrics = read(tmp_path)
    np.testing.assert_array_equal(stored, expected)
    np.testing.assert_allclose(metrics["loss"], [*np.reshape(losses, (3, 2)).sum(1), np.nan], rtol=1e-6)
    with tt.open(tmp_path / "run.h5") as run:
        assert run.name == "fit"


def test_a_lightning_fit_that_fails_leaves_an_interrupted_run(tmp_path, fake_frameworks):
    from recorders.lightning import RecorderCallback

    model = network()
    trainer = types.SimpleNamespace(optimizers=[OPTIMISERS["sgd"](model.parameters())])
    callback = RecorderCallback(tmp_path / "run.h5", quiet=True)
    callback.on_train_start(trainer, model)
    trainer.optimizers[0].step()
    callback.on_exception(trainer, model, KeyboardInterrupt())
    with tt.open(tmp_path / "run.h5") as run:
        assert run.status == "interrupted"
        assert run.n_states == 2


def test_a_training_of_transformers_is_recorded(tmp_path, fake_frameworks):
    from recorders.huggingface import RecorderCallback

    model = network()
    callback = RecorderCallback(tmp_path / "run.h5", quiet=True)
    assert isinstance(callback, fake_frameworks.TrainerCallback)
    callback.on_train_begin(None, None, None, model=model)
    optimizer = OPTIMISERS["adamw"](model.parameters())
    for i, (x, y) in enumerate(batches(3)):
        backward(model, x, y)
        optimizer.step()
        callback.on_log(None, None, None, logs={"loss": float(i), "learning_rate": 0.01, "epoch": 0.1})
    callback.on_log(None, None, None, logs={"train_runtime": 1.0})
    callback.on_train_end(None, None, None)
    stored, step, metrics = read(tmp_path)
    assert step == [0, 1, 2, 3]
    np.testing.assert_array_equal(stored[-1], flat(model))
    np.testing.assert_array_equal(metrics["loss"], [np.nan, 0, 1, 2])


@pytest.mark.parametrize("name", ["lightning", "huggingface"])
def test_a_missing_framework_is_named(name, monkeypatch):
    import importlib

    for package in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"recorders.{name}", raising=False)
    module = importlib.import_module(f"recorders.{name}")
    with pytest.raises(MissingDependencyError, match="pip install"):
        module.RecorderCallback  # noqa: B018
