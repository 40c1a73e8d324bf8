"""Loops as people write them: warm-ups, accumulation, averages of weights, two networks, networks that change."""

import numpy as np
import pytest

import trajtools as tt
from recorders import Recorder, RecordingWarning
from trajtools.errors import ArchitectureError

pytestmark = pytest.mark.recorders


def states(path):
    with tt.open(path) as run:
        return run.states[:, 0], run.step.tolist(), {name: run.metrics[name] for name in run.metrics}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def jax():
    return pytest.importorskip("jax")


def flat(model):
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


# ---------------------------------------------------------------------------------------------- what changes, or not


def test_a_network_that_changes_ends_the_recording_and_not_the_training(tmp_path):
    w = {"w": np.zeros(3)}
    with Recorder(tmp_path / "a.h5", w, quiet=True) as rec:
        rec.record(w, loss=1.0)
        with pytest.warns(RecordingWarning, match=r"has the new 'v'.*without being recorded"):
            rec.record({**w, "v": np.ones(2)}, loss=2.0)
        for _ in range(3):  # silently
            rec.record({**w, "v": np.ones(2)}, loss=3.0)
            rec.advance({**w, "v": np.ones(2)})
    with tt.open(tmp_path / "a.h5") as run:
        assert run.step.tolist() == [0]
        assert run.metrics["loss"].tolist() == [1.0]
        assert "has the new 'v'" in run.notes["remarks"][0]
    with Recorder(tmp_path / "b.h5", w, strict=True, quiet=True) as rec, pytest.raises(ArchitectureError, match="'v'"):
        rec.record({**w, "v": np.ones(2)})


@pytest.mark.torch
@pytest.mark.parametrize("hooked", [True, False])
def test_a_warm_up_from_0_counts_in_torch(tmp_path, torch, hooked):
    model = torch.nn.Linear(2, 1)
    from recorders.torch import Recorder

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 3))
    wanted = [flat(model)]
    with Recorder(tmp_path / "a.h5", model, optimizer=optimizer if hooked else None, quiet=True) as rec:
        for step in range(5):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).square().sum().backward()
            rec.record(**({} if hooked else {"state": model}), number=step)
            optimizer.step()
            schedule.step()
            wanted.append(flat(model))
        if not hooked:
            rec.record(model)
    found, steps, metrics = states(tmp_path / "a.h5")
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found[0], found[1])
    assert steps == list(range(6))
    assert metrics["number"][:5].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.jax
def test_a_warm_up_from_0_counts_in_optax(tmp_path, jax):
    optax = pytest.importorskip("optax")
    from recorders.jax import Recorder

    optimizer = optax.adam(optax.linear_schedule(0.0, 0.1, 3))
    params = {"linear": {"w": jax.numpy.ones((2, 2)), "b": jax.numpy.zeros(2)}}  # as haiku names them
    opt_state, wanted = optimizer.init(params), []
    with Recorder(tmp_path / "a.h5", params, quiet=True) as rec:
        for number in range(4):
            wanted.append(np.asarray(params["linear"]["w"]))
            rec.record(params, number=number)
            gradient = jax.grad(lambda p: (p["linear"]["w"] ** 2).sum() + p["linear"]["b"].sum())(params)
            updates, opt_state = optimizer.update(gradient, opt_state)
            params = optax.apply_updates(params, updates)
    found, steps, metrics = states(tmp_path / "a.h5")
    assert steps == [0, 1, 2, 3]
    np.testing.assert_array_equal(found[:, 2:].reshape(4, 2, 2), wanted)
    assert metrics["number"].tolist() == [0, 1, 2, 3]
    with tt.open(tmp_path / "a.h5") as run:
        assert [(p.name, p.kind, p.source) for p in run.parameters] == [
            ("linear.b", "bias", "bias"), ("linear.w", "dense", "input")
        ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ micro-batches


def test_what_comes_more_than_once_for_a_state_is_averaged(tmp_path):
    w = {"w": np.zeros(3)}
    with Recorder(tmp_path / "a.h5", w, quiet=True) as rec:
        for step in range(3):
            for loss in (0.1, 0.1, 0.1, 0.1, 0.1):
                rec.record(loss=loss, rising=step + loss, wild=np.inf if loss else 0.0)
            rec.record(rising=step + 0.7, broken=np.nan)
            rec.record(broken=1.0)
            rec.advance({"w": np.full(3, step + 1.0)})
    _, steps, metrics = states(tmp_path / "a.h5")
    assert steps == [0, 1, 2, 3]
    assert metrics["loss"][:3].tolist() == [0.1] * 3  # every bit
    np.testing.assert_allclose(metrics["rising"][:3], np.arange(3) + 1.2 / 6, rtol=1e-15)
    assert metrics["wild"][:3].tolist() == [np.inf] * 3
    assert np.isnan(metrics["broken"]).all()


@pytest.mark.torch
def test_accumulated_batches_are_one_update_with_the_mean_of_their_losses(tmp_path, torch):
    from recorders.torch import Recorder

    model = torch.nn.Linear(2, 1)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    with Recorder(tmp_path / "a.h5", model, optimizer=optimizer, quiet=True) as rec:
        for number in range(12):
            loss = (model(torch.full((1, 2), number / 9)) - 1).square().mean()
            (loss / 4).backward()
            losses.append(loss.item())
            rec.record(loss=loss)
            if number % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    _, steps, metrics = states(tmp_path / "a.h5")
    assert steps == [0, 1, 2, 3]
    np.testing.assert_allclose(metrics["loss"][:3], np.reshape(losses, (3, 4)).mean(axis=1), rtol=1e-12)
    assert metrics["learning_rate"][:3].tolist() == [0.1] * 3


@pytest.mark.jax
@pytest.mark.parametrize("told", ["buffers", "step"])
def test_multi_steps_count_updates_and_not_micro_steps(tmp_path, jax, told):
    optax = pytest.importorskip("optax")
    from recorders.jax import Recorder

    optimizer = optax.MultiSteps(optax.sgd(0.1, momentum=0.9), every_k_schedule=3)
    params = {"w": jax.numpy.arange(3.0)}
    opt_state, wanted = optimizer.init(params), [np.arange(3.0)]
    with Recorder(
        tmp_path / "a.h5", params, **({"buffers": opt_state} if told == "buffers" else {}), quiet=True
    ) as rec:
        for number in range(9):
            rec.record(loss=number)
            updates, opt_state = optimizer.update({"w": params["w"] + number}, opt_state, params)
            params = optax.apply_updates(params, updates)
            rec.record(params, **{told: opt_state if told == "buffers" else int(opt_state.gradient_step)})
            if optimizer.has_updated(opt_state):
                wanted.append(np.asarray(params["w"]))
    found, steps, metrics = states(tmp_path / "a.h5")
    assert steps == [0, 1, 2, 3]
    np.testing.assert_array_equal(found, wanted)
    assert metrics["loss"][:3].tolist() == [1, 4, 7]


# -------------------------------------------------------------------------------------------------- nothing recorded


def updated_by_hand(torch, model, rec):
    for _ in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.1)
        rec.record(loss=1.0)


@pytest.mark.torch
def test_a_training_that_goes_past_the_optimiser_is_noticed_while_it_runs(tmp_path, torch):
    from recorders.torch import Recorder

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path / "a.h5", model, optimizer=optimizer, quiet=True) as rec:
        with pytest.warns(RecordingWarning, match=r"only the first state is recorded.*never stepped"):
            updated_by_hand(torch, model, rec)
        with tt.open(tmp_path / "a.h5") as run:
            assert "never stepped" in run.notes["remarks"][0]
    with tt.open(tmp_path / "a.h5") as run:
        assert len(run.notes["remarks"]) == 1


@pytest.mark.torch
@pytest.mark.filterwarnings("error")
def test_batches_before_the_first_update_are_no_reason_to_warn(tmp_path, torch):
    from recorders.torch import Recorder

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path / "a.h5", model, optimizer=optimizer, quiet=True) as rec:
        for _ in range(40):
            model(torch.ones(1, 2)).sum().backward()
            rec.record(loss=1.0)
        optimizer.step()
    assert states(tmp_path / "a.h5")[1] == [0, 1]


# --------------------------------------------------------------------------------------------- more than one network


@pytest.mark.torch
def test_an_average_of_the_weights_is_a_second_member(tmp_path, torch):
    from recorders.torch import Recorder

    model = torch.nn.Linear(2, 1)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer, wanted = torch.optim.SGD(model.parameters(), lr=0.1), [(flat(model), flat(average.module))]
    with Recorder(tmp_path / "a.h5", [model, average.module], quiet=True) as rec:
        for step in range(1, 5):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).square().sum().backward()
            optimizer.step()
            average.update_parameters(model)
            rec.record([model, average.module], step=step)  # after both
            wanted.append((flat(model), flat(average.module)))
    with tt.open(tmp_path / "a.h5") as run:
        np.testing.assert_array_equal(run.states.read(), wanted)
        assert [member.reference for member in run.members] == [-1, -1]


@pytest.mark.torch
def test_generator_and_critic_are_two_runs(tmp_path, torch):
    from recorders.torch import Recorder

    networks = {"g": torch.nn.Linear(2, 2), "d": torch.nn.Linear(2, 1)}
    optimizers = {name: torch.optim.Adam(one.parameters(), lr=0.01) for name, one in networks.items()}
    wanted = {name: [flat(one)] for name, one in networks.items()}
    with (
        Recorder(tmp_path / "g.h5", networks["g"], optimizer=optimizers["g"], quiet=True) as g,
        Recorder(tmp_path / "d.h5", networks["d"], optimizer=optimizers["d"], quiet=True) as d,
    ):
        for _ in range(4):
            for name, recorder in (("d", d), ("d", d), ("g", g)):  # two steps of the critic for one of the generator
                optimizers[name].zero_grad()
                score = networks["d"](networks["g"](torch.ones(3, 2))).mean() * (1 if name == "d" else -1)
                score.backward()
                recorder.record(loss=score)
                optimizers[name].step()
                wanted[name].append(flat(networks[name]))
    for name in networks:
        found, steps, metrics = states(tmp_path / f"{name}.h5")
        assert steps == list(range(len(wanted[name])))
        np.testing.assert_array_equal(found, wanted[name])
        assert np.isfinite(metrics["loss"][:-1]).all()


# -------------------------------------------------------------------------------------------------- trees of JAX


@pytest.mark.jax
def test_params_of_nnx_are_the_state_and_statistics_are_not(tmp_path, jax):
    nnx = pytest.importorskip("flax.nnx")
    from recorders.jax import Recorder

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.out = nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, x):
            return self.out(self.norm(self.first(x)))

    def loss_of(model, x):
        return (model(x) ** 2).mean()

    optax = pytest.importorskip("optax")
    model = Network(nnx.Rngs(0))
    optimizer, wanted = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param), []
    names = ["first.bias", "first.kernel", "norm.bias", "norm.scale", "out.bias", "out.kernel"]
    with Recorder(tmp_path / "a.h5", model, quiet=True) as rec:
        assert list(rec.names) == names
        for number in range(3):
            loss, gradient = nnx.value_and_grad(loss_of)(model, jax.numpy.ones((5, 3)) * number)
            rec.record(model, loss=loss)
            wanted.append(np.asarray(model.first.kernel[...]).ravel())
            optimizer.update(model, gradient)
    found, steps, _ = states(tmp_path / "a.h5")
    assert steps == [0, 1, 2]
    np.testing.assert_array_equal(found[:, 4:16], wanted)
    with tt.open(tmp_path / "a.h5") as run:
        assert {p.name: p.kind for p in run.parameters}["norm.scale"] == "norm"
