"""Buffers of torch optimisers, recorded beside the weights: those of optimizer.state, bit for bit."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import backward, batches, network, opened, train  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.torch import Twins, perturb  # noqa: E402
from recorders.torch.recorder import CLOCKS  # noqa: E402
from trajtools.errors import ArchitectureError, RecordingError  # noqa: E402
from trajtools.reasons import codes  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]
nn = torch.nn

OPTIMISERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), 1),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True), 3),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True), 2),
    "nadam": (lambda p: torch.optim.NAdam(p, lr=0.01), 2),
    "radam": (lambda p: torch.optim.RAdam(p, lr=0.01), 2),
    "adamax": (lambda p: torch.optim.Adamax(p, lr=0.01), 2),
    "adadelta": (torch.optim.Adadelta, 2),
    "adagrad": (lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.5), 1),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True), 3),
    "rprop": (lambda p: torch.optim.Rprop(p, lr=0.01), 2),
    "asgd": (lambda p: torch.optim.ASGD(p, lr=0.01), 1),
    "adafactor": (lambda p: torch.optim.Adafactor(p, lr=0.01), None),
}


def held(model, optimizer):
    """Every tensor that the optimiser holds, but for clocks, read without the recorder's help."""
    return {
        f"{name}.{key}": value.detach().numpy().copy()
        for name, p in model.named_parameters()
        for key, value in optimizer.state[p].items()
        if isinstance(value, torch.Tensor) and key not in CLOCKS
    }


def buffers_of(tmp_path):
    """Name -> (T, M, ...), as recorded."""
    with tt.open(tmp_path / "run.h5") as run:
        all_of = run.optimizer.read(slice(None))
        assert not tt.validate(tmp_path / "run.h5")
        return {p.name: all_of[..., p.offset : p.offset + p.size].reshape(*all_of.shape[:2], *p.shape)
                for p in run.optimizer_parameters}  # fmt: skip


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_recorded_buffers_are_those_of_the_optimiser_bit_for_bit(tmp_path, kind):
    factory, each = OPTIMISERS[kind]
    model = network()
    optimizer = factory(model.parameters())
    first = held(model, optimizer) if optimizer.state else {}
    wanted = []
    with opened(tmp_path, model, optimizer=optimizer, buffers=True) as rec:
        for x, y in batches(5):
            optimizer.zero_grad()
            rec.record(loss=backward(model, x, y))
            optimizer.step()
            wanted.append(held(model, optimizer))
    found = buffers_of(tmp_path)
    assert set(found) == set(wanted[0])
    assert each is None or len(found) == 4 * each
    for name, values in found.items():
        assert values.dtype == wanted[0][name].dtype
        np.testing.assert_array_equal(values[0, 0], first.get(name, np.zeros_like(values[0, 0])))
        np.testing.assert_array_equal(values[1:, 0], [at[name] for at in wanted])


def test_training_is_the_same_with_buffers_recorded(tmp_path):
    runs = []
    for record in (True, False):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        rec = opened(tmp_path, model, optimizer=optimizer, buffers=True) if record else None
        runs.append(train(model, optimizer, rec)[0])
        if rec:
            rec.close()
    np.testing.assert_array_equal(*runs)


def test_bfloat16_and_frozen_and_left_out_parameters(tmp_path):
    model = network(torch.bfloat16)
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with opened(tmp_path, model, optimizer=optimizer, buffers=True, exclude="3.bias"):
        for x, y in batches(3, dtype=torch.bfloat16):
            backward(model, x, y)
            optimizer.step()
    found = buffers_of(tmp_path)
    assert set(found) == {"0.weight.momentum_buffer", "3.weight.momentum_buffer"}
    want = optimizer.state[model[3].weight]["momentum_buffer"].float().numpy()
    np.testing.assert_array_equal(found["3.weight.momentum_buffer"][-1, 0], want)


def test_members_and_twins_have_buffers_of_their_own(tmp_path):
    model = network()
    models = [model, *perturb(model, 1e-3, members=2, seed=0)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in models]
    with opened(tmp_path, models, optimizer=optimizers, buffers=True):
        for x, y in batches(3):
            for one, optimizer in zip(models, optimizers, strict=True):
                backward(one, x, y)
                optimizer.step()
    found = buffers_of(tmp_path)
    for k, (one, optimizer) in enumerate(zip(models, optimizers, strict=True)):
        for name, want in held(one, optimizer).items():
            np.testing.assert_array_equal(found[name][-1, k], want)


@pytest.mark.parametrize("vectorize", [True, False])
def test_buffers_of_twins_in_lock_step(tmp_path, vectorize):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def factory(parameters):
        return torch.optim.Adam(parameters, lr=0.01)

    twins = Twins(model, nn.CrossEntropyLoss(), factory, epsilon=1e-3, members=2, seed=0, vectorize=vectorize)
    with opened(tmp_path, twins, buffers=True):
        for x, y in batches(3):
            twins.step(x, y)
    found = buffers_of(tmp_path)["0.weight.exp_avg"]
    if not vectorize:
        want = [o.state[m[0].weight]["exp_avg"] for o, m in zip(twins.optimizers, twins.models, strict=True)]
    else:
        want = list(twins.optimizers[0].state[twins.leaves[0]["0.weight"]]["exp_avg"])
    np.testing.assert_array_equal(found[-1], [one.numpy() for one in want])
    assert not np.array_equal(found[-1, 0], found[-1, 1])
    assert not found[0].any()


def test_a_resumed_training_goes_on_with_its_buffers(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for part in range(2):
        with opened(tmp_path, model, optimizer=optimizer, buffers=True, resume=bool(part)) as rec:
            assert rec.step == 4 * part
            for x, y in batches(4):
                optimizer.zero_grad()
                backward(model, x, y)
                optimizer.step()
    found = buffers_of(tmp_path)
    for name, want in held(model, optimizer).items():
        assert found[name].shape[0] == 9
        np.testing.assert_array_equal(found[name][-1, 0], want)


class Own(torch.optim.Optimizer):
    """An optimiser that torch does not bring."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            trace = self.state[p].setdefault("trace", torch.zeros_like(p))
            trace.mul_(0.5).add_(p.grad)
            p.sub_(trace, alpha=0.1)


def test_optimisers_of_ones_own_are_asked_or_told(tmp_path):
    model = network()
    optimizer = Own(model.parameters())
    with pytest.raises(ArchitectureError, match=r"Own has not stepped yet, .* name them"):
        opened(tmp_path, model, optimizer=optimizer, buffers=True)
    with opened(tmp_path, model, optimizer=optimizer, buffers="trace"):
        for x, y in batches(3):
            backward(model, x, y)
            optimizer.step()
    found = buffers_of(tmp_path)
    for name, want in held(model, optimizer).items():
        np.testing.assert_array_equal(found[name][-1, 0], want)
    with opened(tmp_path, model, optimizer=optimizer, buffers=True, name="again"):
        pass  # it has stepped, and shows what it keeps
    with tt.open(tmp_path / "again.h5") as run:
        assert [p.name for p in run.optimizer_parameters] == list(found)


def test_buffers_that_cannot_be_had_are_refused(tmp_path):
    model = network()
    for optimizer in (None, "any"):
        with pytest.raises(RecordingError, match="needs optimizer="):
            opened(tmp_path, model, optimizer=optimizer, buffers=True)
    with pytest.raises(RecordingError, match="LBFGS has a history"):
        opened(tmp_path, model, optimizer=torch.optim.LBFGS(model.parameters()), buffers=True)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with opened(tmp_path, model, optimizer=plain, buffers=True):
        x, y = batches(1)[0]
        backward(model, x, y)
        plain.step()
        plain.param_groups[0]["momentum"] = 0.9
        with pytest.raises(RecordingError, match="had no buffers when the recorder opened"):
            plain.step()
    with tt.open(tmp_path / "run.h5") as run:
        assert run.optimizer is None
        assert run.n_states == 2


def test_lyapunov_takes_recorded_buffers_for_the_rest_of_the_state(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(2, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x = torch.randn(64, 2, dtype=torch.float64)
    settings = {"optimizer": "SGD", "momentum": 0.9}
    for name, buffers in (("whole", True), ("half", False)):
        with opened(tmp_path, model, name, optimizer=optimizer, buffers=buffers, hparams=settings):
            for t in range(400):
                optimizer.zero_grad()
                ((model(x) ** 2 - 1) ** 2 + 0.3 * np.sin(t) * model(x)).mean().backward()
                optimizer.step()
    runs = tt.open_runs(tmp_path)
    whole, half = (tt.lyapunov(runs[name], null=None) for name in ("whole", "half"))
    assert whole.settings["buffer_entries"] == whole.settings["weight_entries"] == 3
    assert set(whole.settings["buffer_scales"]) == {"momentum_buffer"}
    assert "hidden-state" in codes(half.reasons)
    assert "hidden-state" not in codes(whole.reasons)
