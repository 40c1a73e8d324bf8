"""Twins of torch that are planted anew: the reference as without them, the rest of the training copied."""

import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import trajtools as tt  # noqa: E402
from recorders.torch import Recorder, Twins  # noqa: E402
from trajtools.store import validate  # noqa: E402

pytestmark = pytest.mark.torch

nn = torch.nn
ONE = torch.ones(1, 1, dtype=torch.float64)


def quartic(eta, *, steps, dtype=torch.float64, recorder=None, width=1, **options):
    """Gradient descent on w^4 / 4 - w^2 / 2 in each weight: chaotic at eta = 1.8, contracting at eta = .4."""
    model = nn.Linear(1, width, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(0.4, 0.5, width)[:, None])
    twins = Twins(
        model,
        lambda y: (y**4 / 4 - y**2 / 2).sum(),
        lambda parameters: torch.optim.SGD(parameters, lr=eta),
        **{"members": 4, "seed": 0, **options},
    )
    if recorder is None:
        for _ in range(steps):
            twins.step(ONE.to(dtype))
        return twins
    path, settings = recorder
    with Recorder(path, twins, quiet=True, **settings):
        for _ in range(steps):
            twins.step(ONE.to(dtype))
    return twins


def network(kind="relu"):
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(9) if kind == "batchnorm" else nn.ReLU()
    return nn.Sequential(nn.Linear(6, 9), middle, nn.Linear(9, 3)).double()


def batches(steps, size=16):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(steps, size, 6, generator=generator, dtype=torch.float64)
    return list(zip(x, torch.randint(0, 3, (steps, size), generator=generator), strict=True))


FACTORIES = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


def trained(steps, factory="momentum", kind="relu", **options):
    twins = Twins(network(kind), nn.CrossEntropyLoss(), FACTORIES[factory], members=3, seed=1, **options)
    for x, y in batches(steps):
        twins.step(x, y)
        twins.schedule()
    return twins


def gaps(run, planted):
    row = np.searchsorted(run.step, planted["step"])
    states = run.states[:]
    return np.linalg.norm(states[row, planted["member"]] - states[row, 0], axis=1)


@pytest.mark.parametrize("vectorize", ["auto", False])
@pytest.mark.parametrize("factory", ["momentum", "adam"])
def test_the_reference_is_the_same_to_the_bit(vectorize, factory):
    options = {"factory": factory, "vectorize": vectorize}
    never, often = trained(40, replant=None, **options), trained(40, replant=7, **options)
    assert len(never.plantings) == 3
    assert {row.step for row in often.plantings} == {0, 7, 14, 21, 28, 35}
    for name, value in never.reference().items():
        assert torch.equal(value, often.reference()[name])
    for name, values in never.state.items():
        assert torch.equal(values[0], often.state[name][0])
        assert not torch.equal(values[1], often.state[name][1])


@pytest.mark.parametrize("vectorize", ["auto", False])
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_planting_copies_the_optimiser_and_the_scheduler(factory, vectorize):
    def halving(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.5)

    options = {"factory": factory, "vectorize": vectorize, "scheduler_factory": halving}
    twins = trained(10, replant=10, **options)
    assert [row.step for row in twins.plantings] == [0] * 3 + [10] * 3
    first, *others = [optimizer.state_dict() for optimizer in twins.optimizers]
    if not others:
        for parameter, held in twins.optimizers[0].state.items():
            for value in held.values():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    assert torch.equal(value, value[:1].expand_as(value))
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)
    assert len({scheduler.last_epoch for scheduler in twins.schedulers}) == 1
    # As near to the reference as the perturbation, whatever the momentum.
    later = trained(11, replant=10, **options)
    apart = torch.stack([(v - v[:1]).abs().flatten(1).max(1).values for v in later.state.values()]).max(0).values
    assert apart[1:].max() < 100 * later.made["epsilon"]


def test_a_planting_copies_the_buffers_of_the_model():
    twins = trained(12, kind="batchnorm", replant=6)
    reference, *copies = [dict(model.named_buffers()) for model in twins.models]
    for copy in copies:
        for name, value in reference.items():
            assert torch.equal(value, copy[name])
    apart = trained(11, kind="batchnorm", replant=6)
    assert not torch.equal(apart.models[0][1].running_mean, apart.models[1][1].running_mean)


@pytest.mark.recorders
@pytest.mark.parametrize("members", [1, 2, 4, 8])
def test_a_chaotic_training_gives_several_starts_by_itself(tmp_path, members):
    twins = quartic(1.8, steps=200, members=members, recorder=(tmp_path / "a.h5", {}))
    assert not validate(tmp_path / "a.h5")
    with tt.open(tmp_path / "a.h5") as run:
        planted = run.plantings
        for name in planted:
            np.testing.assert_array_equal(planted[name], [getattr(row, name) for row in twins.plantings])
        np.testing.assert_allclose(gaps(run, planted), planted["norm"], rtol=1e-6)
        growth = tt.twins(run, metric="l2")
        states = run.states[:, 0, 0]
        replant = run.provenance["perturbations"][0]["replant"]
    assert replant == "auto"
    reached = [start for start in np.unique(growth.start) if np.nanmax(growth.distances[growth.start == start]) > 0.01]
    assert len(reached) >= 3
    # Each grows as the tangent along the reference does; near a turning point the distance is no tangent for once.
    slope = np.log(np.abs(1 - 1.8 * (3 * states**2 - 1)))
    errors = []
    for start, row in zip(growth.start, growth.distances, strict=True):
        known = np.flatnonzero((row > 1e-8) & (row < 1e-6))
        if len(known) > 1 and np.all(np.diff(known) == 1):
            a, b = known[0], known[-1]
            errors.append(abs(np.log(row[b] / row[a]) - slope[start + a : start + b].sum()))
    assert np.median(errors) < 0.01


@pytest.mark.recorders
def test_a_contracting_training_is_planted_near_the_floor(tmp_path):
    # 1 - 2 eta = .2: -1.6 e-folds a step, 11 - ln 50 of room. One weight would merge to the bit.
    twins = quartic(0.4, steps=150, width=30, recorder=(tmp_path / "a.h5", {}))
    for member in range(1, 5):
        ages = np.diff([row.step for row in twins.plantings if row.member == member])
        assert ages.min() >= 8
        assert ages.max() <= 40
        assert len(ages) >= 3


@pytest.mark.recorders
def test_copies_are_planted_at_recorded_steps_only(tmp_path):
    twins = quartic(1.8, steps=300, recorder=(tmp_path / "a.h5", {"every": 10}))
    assert {row.step % 10 for row in twins.plantings} == {0}
    with tt.open(tmp_path / "a.h5") as run:
        np.testing.assert_allclose(gaps(run, run.plantings), run.plantings["norm"], rtol=1e-6)
        growth = tt.twins(run)
    assert len(np.unique(growth.start)) >= 3
    from recorders import LogSpaced

    assert {
        row.step for row in quartic(1.8, steps=200, recorder=(tmp_path / "b.h5", {"every": LogSpaced(10)})).plantings
    } == {0}


@pytest.mark.recorders
def test_plantings_count_from_the_step_of_the_recorder(tmp_path):
    quartic(1.8, steps=100, recorder=(tmp_path / "a.h5", {"step": 1000}))
    with tt.open(tmp_path / "a.h5") as run:
        assert run.plantings["step"][0] == 1000
        np.testing.assert_allclose(gaps(run, run.plantings), run.plantings["norm"], rtol=1e-6)
        assert [row.start for row in run.stretches(1)][:1] == [0]


def test_exact_copies_are_never_planted_anew():
    twins = quartic(1.8, steps=300, epsilon=0.0)
    assert {row.step for row in twins.plantings} == {0}
    assert all(torch.equal(v, v[:1].expand_as(v)) for v in twins.state.values())


def test_a_reference_that_diverges_ends_the_planting():
    twins = quartic(30.0, steps=60)
    assert not np.isfinite(next(iter(twins.reference().values())).numpy()).all()
    assert max(row.step for row in twins.plantings) < 60
    assert len(twins.plantings) < 30


def test_float32_twins_say_what_room_they_leave(caplog):
    with caplog.at_level(logging.WARNING, "recorders"):
        twins = quartic(1.8, steps=150, dtype=torch.float32, width=20)
    assert len([one for one in caplog.records if "float32" in one.message]) == 1
    assert twins.made["room"]["above"] > 9
    assert twins.room.below > np.log(50)
    assert len({row.step for row in twins.plantings}) >= 3
    caplog.clear()
    with caplog.at_level(logging.WARNING, "recorders"):
        wide = quartic(1.8, steps=150, width=20)
    assert not caplog.records
    assert wide.made["room"]["above"] > 24
    assert wide.made["room"]["below"] > 10
    # Once a copy has saturated, the room ends where it saturated.
    assert wide.room.above != wide.made["room"]["above"]


def test_other_policies_are_refused():
    with pytest.raises(ValueError, match="replant="):
        quartic(1.8, steps=0, replant="often")


@pytest.mark.recorders
def test_a_perturbation_with_little_room_is_a_warning(tmp_path):
    for name, epsilon in (("large", 1e-3), ("default", None)):
        quartic(1.8, steps=20, recorder=(tmp_path / f"{name}.h5", {}), epsilon=epsilon)
    with tt.open(tmp_path / "large.h5") as run:
        (warning,) = [one for one in tt.twins(run).warnings if one.code == "little-room"]
        assert warning.numbers["above"] == pytest.approx(np.log(0.4 / 1e-3), abs=1.5)
        assert "smaller epsilon" in str(warning)
    with tt.open(tmp_path / "default.h5") as run:
        assert "little-room" not in [one.code for one in tt.twins(run).warnings]


@pytest.mark.recorders
def test_a_resumed_run_plants_its_copies_beside_the_weights_of_the_checkpoint(tmp_path):
    path = tmp_path / "a.h5"
    first = quartic(1.8, steps=70, recorder=(path, {}))
    model = nn.Linear(1, 1, bias=False).double()
    model.load_state_dict(first.reference())
    second = Twins(
        model,
        lambda y: (y**4 / 4 - y**2 / 2).sum(),
        lambda parameters: torch.optim.SGD(parameters, lr=1.8),
        members=4,
        seed=0,
    )
    assert second.members != first.members  # epsilon follows the weights
    with Recorder(path, second, quiet=True, resume=True):
        for _ in range(70):
            second.step(ONE)
    assert not validate(path)
    with tt.open(path) as run:
        planted = run.plantings
        n = len(first.plantings)
        np.testing.assert_array_equal(planted["step"][:n], [row.step for row in first.plantings])
        # The state of the checkpoint, its copies planted anew, is the one after the last.
        assert planted["step"][n : n + 4].tolist() == [71] * 4
        assert planted["epsilon"][n] == second.members[1].epsilon
        np.testing.assert_allclose(gaps(run, planted), planted["norm"], rtol=1e-6)


@pytest.mark.recorders
def test_a_planting_keeps_the_epsilon_of_its_copy():
    twins = trained(40, epsilon=[1e-6, 1e-9], replant=8)
    assert {(row.member, row.epsilon) for row in twins.plantings} == {(1, 1e-6), (2, 1e-9), (3, 1e-6)}
    assert max(row.step for row in twins.plantings) == 40
    norms = {epsilon: [row.norm for row in twins.plantings if row.epsilon == epsilon] for epsilon in (1e-6, 1e-9)}
    assert max(norms[1e-9]) < 1e-2 * min(norms[1e-6])
