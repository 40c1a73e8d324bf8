"""The recorder of torch modules: every update, once, bit for bit, and nothing of the training changed."""

import copy
import os
import random
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import trajtools as tt  # noqa: E402
from recorders.torch import Recorder, perturb  # noqa: E402
from trajtools.errors import ArchitectureError, MissingDependencyError, RecordingError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

nn = torch.nn
ROOT = Path(__file__).resolve().parents[1]


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Dropout(0.3), nn.Linear(9, 3)).to(dtype)


def batches(steps=12, size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(steps, size, 6, generator=generator).to(dtype)
    return list(zip(x, torch.randint(0, 3, (steps, size), generator=generator), strict=True))


def flat(model):
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in model.parameters() if p.requires_grad])


def backward(model, x, y):
    loss = nn.functional.cross_entropy(model(x).float(), y)
    loss.backward()
    return loss


def opened(tmp_path, model, **options):
    return Recorder(tmp_path / "run.h5", model, quiet=True, **options)


def read(tmp_path, name="run"):
    with tt.open(tmp_path / "run.h5") as file:
        run = file[name]
        return run.states(slice(None))[:, 0], run.step.tolist(), {k: np.asarray(v) for k, v in run.metrics.items()}


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def train(model, optimizer, recorder=None, steps=12):
    torch.manual_seed(3)
    states, losses = [flat(model)], []
    for x, y in batches(steps):
        optimizer.zero_grad()
        loss = backward(model, x, y)
        if recorder:
            recorder.record(loss=loss)
        optimizer.step()
        losses.append(loss.item())
        states.append(flat(model))
    return np.stack(states), losses


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_training_is_bit_identical_with_and_without_a_recorder(tmp_path, kind):
    plain = network()
    expected, expected_losses = train(plain, OPTIMISERS[kind](plain.parameters()))
    generators = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    model = network()
    optimizer = OPTIMISERS[kind](model.parameters())
    with opened(tmp_path, model, optimizer=optimizer) as recorder:
        states, losses = train(model, optimizer, recorder)
    assert (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()) == generators  # noqa: NPY002
    np.testing.assert_array_equal(states, expected)
    assert losses == expected_losses
    assert all(module.training for module in model.modules())

    stored, step, metrics = read(tmp_path)
    np.testing.assert_array_equal(stored, expected)
    assert step == list(range(13))
    np.testing.assert_array_equal(metrics["loss"], [*expected_losses, np.nan])
    rate = optimizer.param_groups[0]["lr"]
    np.testing.assert_array_equal(metrics["learning_rate"], [rate] * 12 + [np.nan])


def test_nothing_of_the_model_is_touched(tmp_path):
    model = network().eval()
    before = copy.deepcopy(model.state_dict())
    versions = [p._version for p in model.parameters()]
    with opened(tmp_path, model) as recorder:
        recorder.record()
        with torch.no_grad():
            recorder.record()
        with torch.inference_mode():
            recorder.record()
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [p._version for p in model.parameters()] == versions
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_optimiser_is_free_again_when_the_recorder_is_closed(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    with opened(tmp_path, model, optimizer=optimizer) as recorder:
        train(model, optimizer, recorder, steps=3)
    train(model, optimizer, steps=2)
    assert not optimizer._optimizer_step_post_hooks
    assert read(tmp_path)[1] == [0, 1, 2, 3]


def test_accumulated_micro_batches_are_one_update(tmp_path):
    model = network()
    optimizer = OPTIMISERS["adam"](model.parameters())
    expected = [flat(model)]
    with opened(tmp_path, model, optimizer=optimizer):
        for i, (x, y) in enumerate(batches(12)):
            backward(model, x, y)
            if i % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
                expected.append(flat(model))
    stored, step, _ = read(tmp_path)
    assert step == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(stored, expected)


def test_steps_that_a_gradscaler_skips_are_no_updates(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    expected = [flat(model)]
    with opened(tmp_path, model, optimizer=optimizer):
        for i, (x, y) in enumerate(batches(10)):
            optimizer.zero_grad()
            scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
            if i in (2, 6):
                model[0].weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
            if i not in (2, 6):
                expected.append(flat(model))
    stored, step, _ = read(tmp_path)
    assert step == list(range(9))
    np.testing.assert_array_equal(stored, expected)


def test_the_scheduled_rate_stands_at_the_state_that_it_moves(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    with opened(tmp_path, model, optimizer=optimizer) as recorder:
        for x, y in batches(4):
            optimizer.zero_grad()
            recorder.record(loss=backward(model, x, y))
            optimizer.step()
            scheduler.step()
    np.testing.assert_allclose(read(tmp_path)[2]["learning_rate"], [0.1, 0.05, 0.025, 0.0125, np.nan], rtol=1e-12)


def test_every_group_has_a_learning_rate(tmp_path):
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[3].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    with opened(tmp_path, model, optimizer=optimizer) as recorder:
        recorder.record()
        optimizer.step()
    metrics = read(tmp_path)[2]
    assert (metrics["learning_rate_0"][0], metrics["learning_rate_1"][0]) == (0.1, 0.2)


def test_learning_rate_needs_an_optimiser(tmp_path):
    with pytest.raises(RecordingError, match="optimizer="):
        opened(tmp_path, network(), learning_rate=True)


def test_lbfgs_is_recorded_once_for_its_inner_iterates(tmp_path):
    model = network(torch.float64)
    model[2].p = 0.0
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    with opened(tmp_path, model, optimizer=optimizer):
        for x, y in batches(3, dtype=torch.float64):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)
    stored, step, _ = read(tmp_path)
    assert step == [0, 1, 2, 3]
    np.testing.assert_array_equal(stored[-1], flat(model))


def test_a_compiled_step_and_a_compiled_model_are_recorded(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    step = torch.compile(optimizer.step, backend="eager")
    compiled = torch.compile(model, backend="eager")
    expected = [flat(model)]
    with warnings.catch_warnings(), opened(tmp_path, compiled, optimizer=optimizer) as recorder:
        warnings.simplefilter("ignore")  # torch's own, about graph breaks and deprecations inside the compiler
        for x, y in batches(4):
            optimizer.zero_grad()
            backward(compiled, x, y)
            step()
            expected.append(flat(model))
    assert recorder.names == ("0.weight", "0.bias", "3.weight", "3.bias") or list(recorder.names) == [
        "0.weight", "0.bias", "3.weight", "3.bias",
    ]  # fmt: skip
    stored, steps, _ = read(tmp_path)
    assert steps == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(stored, expected)


def test_several_optimisers_make_one_state_a_round(tmp_path):
    model = network()
    first, last = (torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 3))
    expected = [flat(model)]
    with opened(tmp_path, model, optimizer=[first, last]):
        for x, y in batches(3):
            model.zero_grad()
            backward(model, x, y)
            first.step()
            last.step()
            expected.append(flat(model))
    stored, step, _ = read(tmp_path)
    assert step == [0, 1, 2, 3]
    np.testing.assert_array_equal(stored, expected)


def test_any_optimiser_of_the_model_is_followed_and_no_other(tmp_path):
    model, other = network(), network()
    expected = [flat(model)]
    with opened(tmp_path, model, optimizer="any"):
        optimizer = OPTIMISERS["adam"](model.parameters())
        foreign = OPTIMISERS["adam"](other.parameters())
        for x, y in batches(4):
            optimizer.zero_grad()
            backward(model, x, y)
            backward(other, x, y)
            foreign.step()
            optimizer.step()
            expected.append(flat(model))
    optimizer.step()
    stored, step, _ = read(tmp_path)
    assert step == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(stored, expected)


def test_a_copied_optimiser_is_noticed_at_close(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    recorder = opened(tmp_path, model, optimizer=optimizer)
    copied = copy.deepcopy(optimizer)
    for _ in range(3):
        recorder.record(loss=1.0)
        copied.step()
    with pytest.warns(UserWarning, match="never stepped"):
        recorder.close()
    assert read(tmp_path)[1] == [0]


def test_an_optimiser_of_another_model_is_refused(tmp_path):
    with pytest.raises(ArchitectureError, match="trains no parameter of this model"):
        opened(tmp_path, network(), optimizer=OPTIMISERS["sgd"](network().parameters()))


@pytest.mark.parametrize("optimizer", ["adam", 3])
def test_what_is_no_optimiser_is_refused(tmp_path, optimizer):
    with pytest.raises((RecordingError, TypeError)):
        opened(tmp_path, network(), optimizer=optimizer)


def test_without_an_optimiser_record_stores_the_state(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    expected = [flat(model)]
    with opened(tmp_path, model) as recorder:
        for x, y in batches(4):
            optimizer.zero_grad()
            loss = backward(model, x, y)
            optimizer.step()
            recorder.record(loss=loss)
            expected.append(flat(model))
    stored, step, _ = read(tmp_path)
    assert step == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(stored, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_is_stored_without_loss(tmp_path, dtype):
    model = network(dtype)
    with torch.no_grad():
        model[0].weight[0, :3] = torch.tensor([torch.nan, torch.inf, -0.0], dtype=dtype)
    with opened(tmp_path, model) as recorder:
        with torch.no_grad():
            model[3].bias += 1
        recorder.record()
    stored = read(tmp_path)[0]
    bits = torch.cat([p.detach().ravel() for p in model.parameters()])
    widened = bits.double().numpy()
    np.testing.assert_array_equal(stored[1].astype(np.float64), widened)
    assert np.signbit(stored[1][2])


def test_mixed_dtypes_are_widened_exactly(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3).to(torch.bfloat16), nn.Linear(3, 2).to(torch.float16))
    with opened(tmp_path, model):
        pass
    stored = read(tmp_path)[0]
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored[0], torch.cat([p.detach().float().ravel() for p in model.parameters()]))


def test_channels_last_kernels_are_stored_in_the_order_of_their_axes(tmp_path):
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert not model.weight.is_contiguous()
    with opened(tmp_path, model):
        pass
    np.testing.assert_array_equal(read(tmp_path)[0][0], flat(model))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(7, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.decoder = nn.Linear(5, 7, bias=False)
        self.decoder.weight = self.encoder.weight


def test_tied_weights_are_stored_once_and_frozen_ones_not_at_all(tmp_path):
    model = Tied()
    with opened(tmp_path, model):
        pass
    with tt.open(tmp_path / "run.h5") as file:
        run = file["run"]
        assert [p.name for p in run.parameters] == ["encoder.weight"]
        assert run.provenance["user"]["torch"]["aliases"] == {"decoder.weight": "encoder.weight"}
        assert run.provenance["user"]["torch"]["frozen"] == ["frozen.weight", "frozen.bias"]


def test_a_parameter_frozen_later_stays_and_one_unfrozen_later_is_refused(tmp_path):
    model = network()
    model[3].requires_grad_(False)
    with opened(tmp_path, model) as recorder:
        model[0].bias.requires_grad_(False)
        recorder.record()
        recorder.record()
        assert recorder.n_recorded == 2
        model[3].bias.requires_grad_(True)
        with pytest.raises(ArchitectureError, match=r"3\.bias.*trainable now"):
            recorder.record()


def test_a_replaced_layer_is_seen(tmp_path):
    model = network()
    with opened(tmp_path, model) as recorder:
        model[3] = nn.Linear(9, 3)
        recorder.record(step=1)
        model[3] = nn.Linear(9, 4)
        with pytest.raises(ArchitectureError, match=r"3\.weight"):
            recorder.record(step=2)
        model[3] = nn.Linear(9, 3)
        expected = flat(model)
        recorder.record(step=3)
    np.testing.assert_array_equal(read(tmp_path)[0][-1], expected)


def test_a_model_with_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(ArchitectureError, match="requires_grad=True"):
        opened(tmp_path, network().requires_grad_(False))
    assert not (tmp_path / "run.h5").exists()


def test_what_does_not_lie_whole_in_this_process_is_refused(tmp_path):
    class FullyShardedDataParallel(nn.Linear):
        """Named like torch's, which cannot be made without several devices."""

    with pytest.raises(ArchitectureError, match="get_model_state_dict"):
        opened(tmp_path, nn.Sequential(FullyShardedDataParallel(2, 2)))
    with pytest.raises(ArchitectureError, match="lazy"):
        opened(tmp_path, nn.LazyLinear(3))
    with pytest.raises(ArchitectureError, match="meta"):
        opened(tmp_path, nn.Linear(3, 3, device="meta"))
    with pytest.raises(ArchitectureError, match="list of modules"):
        opened(tmp_path, [1, 2])


KINDS = {
    "linear.weight": ("dense", 1, 0),
    "linear.bias": ("bias", -1, 0),
    "conv.weight": ("conv", 1, 0),
    "up.weight": ("conv", 0, 1),
    "depthwise.weight": ("conv", -1, -1),
    "norm.weight": ("norm", -1, -1),
    "norm.bias": ("norm", -1, -1),
    "batch.weight": ("norm", -1, -1),
    "table.weight": ("embedding", 0, 1),
    "lstm.weight_ih_l0": ("recurrent", 1, 0),
    "lstm.bias_hh_l0": ("bias", -1, 0),
    "attention.in_proj_weight": ("dense", 1, 0),
    "attention.out_proj.weight": ("dense", 1, 0),
    "attention.in_proj_bias": ("bias", -1, 0),
    "slope.weight": ("other", -1, -1),
}


def test_the_modules_say_what_their_parameters_are(tmp_path):
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(4, 3),
            "conv": nn.Conv2d(3, 5, 3),
            "up": nn.ConvTranspose2d(5, 2, 2),
            "depthwise": nn.Conv2d(4, 4, 3, groups=4),
            "norm": nn.LayerNorm(4),
            "batch": nn.BatchNorm2d(5),
            "table": nn.Embedding(6, 4),
            "lstm": nn.LSTM(4, 3),
            "attention": nn.MultiheadAttention(4, 2),
            "slope": nn.PReLU(3),
        }
    )
    with opened(tmp_path, model):
        pass
    with tt.open(tmp_path / "run.h5") as file:
        found = {p.name: (p.kind, p.source_axis, p.target_axis) for p in file["run"].parameters}
    assert {name: found[name] for name in KINDS} == KINDS


def test_models_and_their_twins_are_members(tmp_path):
    model = network()
    twins = perturb(model, 1e-3, 2, 4)
    models = [model, *twins]
    optimizers = [OPTIMISERS["sgd"](one.parameters()) for one in models]
    with opened(tmp_path, models, optimizer=optimizers) as recorder:
        for x, y in batches(3):
            losses = []
            for one, optimizer in zip(models, optimizers, strict=True):
                optimizer.zero_grad()
                losses.append(backward(one, x, y))
            recorder.record(loss=torch.stack(losses))
            for optimizer in optimizers:
                optimizer.step()
    with tt.open(tmp_path / "run.h5") as file:
        run = file["run"]
        assert run.step.tolist() == [0, 1, 2, 3]
        assert [(m.reference, m.norm) for m in run.members] == [(-1, ""), (0, "uniform"), (0, "uniform")]
        assert [m.epsilon for m in run.members[1:]] == [1e-3, 1e-3]
        np.testing.assert_array_equal(run.states(slice(3, 4))[0], [flat(one) for one in models])
        assert run.metrics["loss"].shape == (4, 3)


def test_a_stacked_ensemble_is_recorded_as_members(tmp_path):
    models = [nn.Linear(4, 3) for _ in range(5)]
    stacked, _ = torch.func.stack_module_state(models)
    optimizer = torch.optim.SGD(stacked.values(), lr=0.1)
    x = torch.ones(2, 4)
    with opened(tmp_path, stacked, members=5, optimizer=optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            torch.func.vmap(lambda p: torch.func.functional_call(models[0], p, (x,)).square().mean())(
                stacked
            ).sum().backward()
            optimizer.step()
    with tt.open(tmp_path / "run.h5") as file:
        run = file["run"]
        assert (run.n_states, run.n_members) == (4, 5)
        last = run.states(slice(3, 4))[0]
    expected = torch.cat([stacked["weight"].detach().flatten(1), stacked["bias"].detach()], 1)
    np.testing.assert_array_equal(last, expected)


def test_a_training_continues_in_the_same_run(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    with opened(tmp_path, model, optimizer=optimizer) as recorder:
        first, _ = train(model, optimizer, recorder, steps=3)
    with opened(tmp_path, model, optimizer=optimizer, resume=True) as recorder:
        second, _ = train(model, optimizer, recorder, steps=2)
    stored, step, _ = read(tmp_path)
    assert step == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(stored, [*first, *second[1:]])


# -- several processes


RANK = """
import sys
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
dist.destroy_process_group()
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
    with tt.open(tmp_path / "run.h5") as file:
        run = file["run"]
        assert [p.name for p in run.parameters] == ["weight", "bias"]
        for rank in (0, 1):
            np.testing.assert_array_equal(run.states(slice(4, 5))[0, 0], np.load(tmp_path / f"last{rank}.npy"))


# -- callbacks, over small fakes of their frameworks


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
    callback = RecorderCallback(tmp_path / "run.h5", run="fit", quiet=True)
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
    stored, _, metrics = read(tmp_path, "fit")
    np.testing.assert_array_equal(stored, expected)
    np.testing.assert_allclose(metrics["loss"], [*np.reshape(losses, (3, 2)).sum(1), np.nan], rtol=1e-6)


def test_a_lightning_fit_that_fails_leaves_an_interrupted_run(tmp_path, fake_frameworks):
    from recorders.lightning import RecorderCallback

    model = network()
    trainer = types.SimpleNamespace(optimizers=[OPTIMISERS["sgd"](model.parameters())])
    callback = RecorderCallback(tmp_path / "run.h5", quiet=True)
    callback.on_train_start(trainer, model)
    trainer.optimizers[0].step()
    callback.on_exception(trainer, model, KeyboardInterrupt())
    with tt.open(tmp_path / "run.h5") as file:
        assert file["run"].status == "interrupted"
        assert file["run"].n_states == 2


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


# -- CUDA


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_on_cuda_are_read_before_the_next_step_overwrites_them(tmp_path, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10)).to("cuda", dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(64, 2048, device="cuda", dtype=dtype)
    expected = [torch.cat([p.detach().ravel() for p in model.parameters()])]
    with opened(tmp_path, model, optimizer=optimizer):
        for _ in range(20):
            optimizer.zero_grad()
            model(x).float().square().mean().backward()
            optimizer.step()
            expected.append(torch.cat([p.detach().ravel() for p in model.parameters()]))
    stored = read(tmp_path)[0]
    np.testing.assert_array_equal(stored.astype(np.float32), torch.stack(expected).float().cpu().numpy())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_is_bit_identical_with_and_without_a_recorder(tmp_path):
    results = []
    for recorded in (False, True):
        model = network().cuda()
        optimizer = OPTIMISERS["sgd"](model.parameters())
        recorder = opened(tmp_path, model, optimizer=optimizer) if recorded else None
        torch.cuda.manual_seed(3)
        for x, y in batches(12):
            optimizer.zero_grad()
            backward(model, x.cuda(), y.cuda())
            optimizer.step()
        if recorder:
            recorder.close()
        results.append((flat(model), torch.cuda.get_rng_state().tolist()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
