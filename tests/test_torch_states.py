"""What of a torch module is its state, how it is described, and who the members are."""

from contextlib import nullcontext
from importlib import import_module

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import OPTIMISERS, backward, batches, flat, network, opened, read  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import RecordingWarning  # noqa: E402
from recorders.torch import perturb  # noqa: E402
from recorders.torch.transfer import distances  # noqa: E402
from trajtools.errors import ArchitectureError, RecordingError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

nn = torch.nn


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
    with tt.open(tmp_path / "run.h5") as run:
        assert [p.name for p in run.parameters] == ["encoder.weight"]
        assert run.provenance["torch"]["aliases"] == {"decoder.weight": "encoder.weight"}
        assert run.provenance["torch"]["frozen"] == ["frozen.weight", "frozen.bias"]


@pytest.mark.parametrize("strict", [False, True])
def test_a_parameter_frozen_later_stays_and_one_unfrozen_later_is_left_out(tmp_path, strict):
    model = network()
    model[3].requires_grad_(False)
    with opened(tmp_path, model, strict=strict) as recorder:
        model[0].bias.requires_grad_(False)
        recorder.record()
        recorder.record()
        assert recorder.n_recorded == 2
        model[3].bias.requires_grad_(True)
        if strict:
            with pytest.raises(RecordingError, match=r"3\.bias.*trainable now"):
                recorder.record()
            return
        with pytest.warns(RecordingWarning, match=r"3\.bias.*trainable now"):
            recorder.record()
        recorder.record()
    with tt.open(tmp_path / "run.h5") as run:
        assert run.n_states == 4
        assert "'3.bias'" in run.notes["remarks"][0]


@pytest.mark.parametrize("strict", [False, True])
def test_a_network_that_changes_ends_the_recording_and_not_the_training(tmp_path, strict):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with opened(tmp_path, model, optimizer=optimizer, strict=strict) as recorder:
        optimizer.step()
        import_module("torch.nn.utils.prune").random_unstructured(model[0], "weight", 0.5)
        optimizer.add_param_group({"params": [model[0].weight_orig.detach().clone().requires_grad_()], "lr": 0.5})
        if strict:
            with pytest.raises(ArchitectureError, match=r"lacks '0\.weight'"):
                optimizer.step()
            return
        with pytest.warns(RecordingWarning, match=r"lacks '0\.weight'.*without being recorded"):
            optimizer.step()
        for _ in range(3):
            recorder.record(loss=1.0)
            optimizer.step()
    with tt.open(tmp_path / "run.h5") as run:
        assert run.n_states == 2
        assert "lacks '0.weight'" in run.notes["remarks"][0]


@pytest.mark.parametrize("buffers", [False, True])
def test_new_groups_and_late_metrics_are_recorded(tmp_path, buffers):
    model = network()
    optimizer = torch.optim.Adam(model[0].parameters(), lr=0.1)
    with opened(tmp_path, model, optimizer=optimizer, buffers=buffers) as recorder:
        for step in range(4):
            if step == 2:
                optimizer.add_param_group({"params": model[3].parameters(), "lr": 0.5})
            model(torch.ones(2, 6)).sum().backward()
            expected = pytest.warns(RecordingWarning, match="exp_avg") if buffers and step == 2 else nullcontext()
            recorder.record(loss=1.0, **({"val_loss": 2.0} if step == 3 else {}))
            with expected:
                optimizer.step()
    states, _, metrics = read(tmp_path)
    np.testing.assert_array_equal(states[-1], flat(model))
    np.testing.assert_array_equal(metrics["val_loss"], [np.nan] * 3 + [2.0, np.nan])
    np.testing.assert_array_equal(metrics["learning_rate_1"], [np.nan] * 2 + [0.5] * 2 + [np.nan])


def test_a_replaced_layer_is_seen(tmp_path):
    model = network()
    with opened(tmp_path, model, strict=True) as recorder:
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

    with pytest.raises(ArchitectureError, match="fully_shard"):
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
    with tt.open(tmp_path / "run.h5") as run:
        found = {p.name: (p.kind, p.source_axis, p.target_axis) for p in run.parameters}
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
    with tt.open(tmp_path / "run.h5") as run:
        assert run.step.tolist() == [0, 1, 2, 3]
        assert [(m.reference, m.norm) for m in run.members] == [(-1, ""), (0, "uniform"), (0, "uniform")]
        assert [m.epsilon for m in run.members[1:]] == [1e-3, 1e-3]
        np.testing.assert_array_equal(run.states[3:4][0], [flat(one) for one in models])
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
    with tt.open(tmp_path / "run.h5") as run:
        assert (run.n_states, run.n_members) == (4, 5)
        last = run.states[3:4][0]
    expected = torch.cat([stacked["weight"].detach().flatten(1), stacked["bias"].detach()], 1)
    np.testing.assert_array_equal(last, expected)


def test_distances_of_twins_are_kept_without_their_weights(tmp_path):
    model = network(torch.float64)
    models = [model, *perturb(model, 1e-3, 2, 4)]
    with opened(tmp_path, models, store="distances") as recorder:
        with torch.no_grad():
            models[1][0].bias += 1
        recorder.record()
    with tt.open(tmp_path / "run.h5") as run:
        found = run.distances[1]
    expected = [np.abs(flat(one) - flat(model)).sum() for one in models[1:]]
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], expected, rtol=1e-12)


@pytest.mark.parametrize("stacked", [False, True])
def test_distances_on_a_device_are_those_of_the_host(stacked):
    generator = torch.Generator().manual_seed(0)
    members = [{"a": torch.randn(5, 3, generator=generator), "b": torch.randn(4, generator=generator)} for _ in "abc"]
    rows = np.stack([torch.cat([v.flatten() for v in one.values()]).double().numpy() for one in members])
    mappings = [{name: torch.stack([one[name] for one in members]) for name in "ab"}] if stacked else members
    gaps = np.abs(rows - rows[1])
    for metric, expected in {
        "l1": gaps.sum(1),
        "l2": np.sqrt((gaps**2).sum(1)),
        "linf": gaps.max(1),
        "rms": np.sqrt((gaps**2).mean(1)),
    }.items():
        found = distances(mappings, ["a", "b"], [1, -1, 1], metric)
        assert np.isnan(found[1])
        np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-12)
