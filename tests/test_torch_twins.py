"""Twins of torch modules: how they are made, and that they train as they would alone."""

import contextlib
import copy
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import trajtools as tt  # noqa: E402
from recorders import RecordingWarning, perturb as perturb_arrays  # noqa: E402
from recorders.torch import Recorder, Twins, perturb  # noqa: E402
from recorders.torch.modules import same_noise  # noqa: E402
from trajtools.errors import ArchitectureError, PerturbationError, RecordingError  # noqa: E402

pytestmark = pytest.mark.torch

nn = torch.nn
STEPS, BATCH = 25, 17


def network(kind="relu"):
    torch.manual_seed(0)
    middle = {
        "relu": [nn.ReLU()],
        "gelu": [nn.GELU()],
        "dropout": [nn.Tanh(), nn.Dropout(0.4)],
        "batchnorm": [nn.BatchNorm1d(9), nn.ReLU()],
    }[kind]
    return nn.Sequential(nn.Linear(6, 9), *middle, nn.Linear(9, 3)).double()


def batches(steps=STEPS, size=BATCH):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(steps, size, 6, generator=generator, dtype=torch.float64)
    return list(zip(x, torch.randint(0, 3, (steps, size), generator=generator), strict=True))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def trained(model, factory, *, epsilon, vectorize, members=3, data=None, **options):
    twins = Twins(
        model, nn.CrossEntropyLoss(), factory, epsilon=epsilon, members=members, seed=3, vectorize=vectorize, **options
    )
    torch.manual_seed(7)
    losses = [twins.step(x, y) for x, y in data or batches()]
    return twins, torch.stack(losses)


def distances(twins):
    return sum((values - values[:1]).abs().flatten(1).sum(1) for values in twins.state.values())


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twins_have_the_bits_of_the_numpy_twins(dtype, distribution):
    model = network().to(dtype)
    arrays = {name: p.detach().numpy() for name, p in model.named_parameters()}
    weights = ["0.weight", "2.weight"]
    ours = perturb(model, 1e-3, 4, 11, distribution=distribution)
    theirs = perturb_arrays(arrays, 1e-3, 4, 11, distribution=distribution, only=weights)
    for twin, expected in zip(ours, theirs, strict=True):
        for name, p in twin.named_parameters():
            np.testing.assert_array_equal(p.detach().numpy(), expected[name])


def test_only_weights_are_perturbed_unless_told_otherwise():
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Embedding(3, 2))
    reference = dict(model.named_parameters())
    (twin,) = perturb(model, 1e-2, 1, 0)
    moved = {name for name, p in twin.named_parameters() if not torch.equal(p, reference[name])}
    assert moved == {"0.weight", "2.weight"}
    (twin,) = perturb(model, 1e-2, 1, 0, only="all")
    assert all(not torch.equal(p, reference[name]) for name, p in twin.named_parameters())
    (twin,) = perturb(model, 1e-2, 1, 0, only=["0.*"])
    moved = {name for name, p in twin.named_parameters() if not torch.equal(p, reference[name])}
    assert moved == {"0.weight", "0.bias"}


def test_perturbing_leaves_the_model_and_its_state_dict_alone():
    model = network("batchnorm")
    before = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    (twin,) = perturb(model, 1e-3, 1, 0)
    assert list(twin.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize("vectorize", [True, False, "auto"])
def test_a_factory_that_trains_nothing_of_a_member_is_refused(vectorize):
    model = network()
    options = {"epsilon": 1e-3, "members": 2, "seed": 0, "vectorize": vectorize}
    with pytest.raises(ArchitectureError, match="trains none of the parameters that the function gets"):
        Twins(model, nn.CrossEntropyLoss(), lambda parameters: sgd(model.parameters()), **options)
    for wrong in (sgd(model.parameters()), "sgd", lambda parameters: None):
        with pytest.raises(RecordingError, match="must be a function of the parameters of one member"):
            Twins(model, nn.CrossEntropyLoss(), wrong, **options)


def test_an_epsilon_that_the_dtype_swallows_is_refused():
    with pytest.raises(PerturbationError):
        perturb(network().float(), 1e-12, 2, 0)


def test_bfloat16_twins_differ_from_their_model_by_about_epsilon():
    pytest.importorskip("ml_dtypes")
    torch.manual_seed(0)
    model = nn.Linear(40, 40).to(torch.bfloat16)
    (twin,) = perturb(model, 0.5, 1, 0)
    moved = (twin.weight.double() - model.weight.double()).abs()
    assert 0.49 < moved.max() <= 0.5 + 0.01
    assert torch.equal(twin.bias, model.bias)


def test_a_model_without_anything_to_train_has_no_twins():
    model = network().requires_grad_(False)
    with pytest.raises(ArchitectureError, match="requires_grad=True"):
        perturb(model, 1e-3, 1, 0)


@pytest.mark.parametrize("kind", ["relu", "gelu", "dropout", "batchnorm"])
@pytest.mark.parametrize("factory", [sgd, adam])
@pytest.mark.parametrize("vectorize", ["auto", False])
def test_an_unperturbed_twin_stays_on_its_reference_to_the_bit(kind, factory, vectorize):
    twins, losses = trained(network(kind), factory, epsilon=0.0, vectorize=vectorize)
    assert distances(twins).tolist() == [0.0] * 4
    assert bool((losses == losses[:, :1]).all())


@pytest.mark.parametrize("kind", ["relu", "dropout"])
@pytest.mark.parametrize("factory", [sgd, adam, torch.optim.Adagrad, torch.optim.AdamW, torch.optim.RMSprop])
def test_vectorised_training_equals_the_loop_to_rounding(kind, factory):
    # "auto" vectorises only where the processor's kernels round equal members equally.
    fast, fast_losses = trained(network(kind), factory, epsilon=1e-4, vectorize=True)
    slow, slow_losses = trained(network(kind), factory, epsilon=1e-4, vectorize=False)
    assert fast.vectorized is True
    assert slow.vectorized is False
    torch.testing.assert_close(fast_losses, slow_losses, rtol=1e-10, atol=1e-12)
    for name, values in fast.state.items():
        torch.testing.assert_close(values, slow.state[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("vectorize", ["auto", False])
@pytest.mark.parametrize("kind", ["relu", "dropout"])
def test_the_reference_trains_as_the_model_would_alone(vectorize, kind):
    model = network(kind)
    twins, _ = trained(model, adam, epsilon=1e-4, vectorize=vectorize)
    alone = copy.deepcopy(model)
    optimizer = adam(alone.parameters())
    torch.manual_seed(7)
    for x, y in batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(alone(x), y).backward()
        optimizer.step()
    # The same masks: a draw more or fewer a step would leave the generator elsewhere, and the weights far away.
    for name, value in twins.reference().items():
        torch.testing.assert_close(value, alone.state_dict()[name], rtol=1e-9, atol=1e-11)


def test_the_generators_stand_where_one_pass_would_have_left_them():
    x, y = batches(1)[0]
    model = network("dropout")
    states = []
    for vectorize in ("auto", False, None):
        torch.manual_seed(1)
        random.seed(1)
        if vectorize is None:
            model(x)
        else:
            Twins(model, nn.CrossEntropyLoss(), sgd, epsilon=1e-3, members=2, seed=0, vectorize=vectorize).step(x, y)
        states.append((torch.get_rng_state().tolist(), random.getstate()))
    assert states[0] == states[1] == states[2]


def test_noise_from_numpy_and_random_is_common_too():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x) * (1 + random.random()) + np.random.random()  # noqa: NPY002

    twins, _ = trained(Noisy().double(), sgd, epsilon=0.0, vectorize=False)
    assert distances(twins).tolist() == [0.0] * 4


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_noise_of_numpy_is_drawn_again_with_normal_numbers_left_over(kind, before):
    users = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(kind(0))
        np.random.standard_normal(before)  # noqa: NPY002
        for count in (0, 1, 1, 2, 3, 1):
            with same_noise([]) as rewind:
                first = np.random.standard_normal(count).tolist()  # noqa: NPY002
                end = str(np.random.get_state(legacy=False))  # noqa: NPY002
                rewind()
                assert np.random.standard_normal(count).tolist() == first  # noqa: NPY002
                assert str(np.random.get_state(legacy=False)) == end  # noqa: NPY002
    finally:
        np.random.set_bit_generator(users)


def test_noise_of_numpy_is_drawn_again_where_the_user_goes_back_to_a_normal_number_left_over():
    """As for two trainings under the same noise; the words are the same with and without that number."""
    users = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.MT19937(0))
        np.random.standard_normal()  # noqa: NPY002
        left_over = np.random.get_state()  # noqa: NPY002
        for _ in range(2):
            np.random.set_state(left_over)  # noqa: NPY002
            for _ in range(2):
                with same_noise([]) as rewind:
                    first = np.random.standard_normal()  # noqa: NPY002
                    rewind()
                    assert np.random.standard_normal() == first  # noqa: NPY002
    finally:
        np.random.set_bit_generator(users)


@pytest.mark.parametrize("vectorize", ["auto", False])
def test_distance_on_a_quadratic_loss_shrinks_by_one_minus_eta_h(vectorize):
    # loss = h/2 |w|^2 through a linear model: w(t) = (1 - eta h)^t w(0), member by member
    eta, h = 0.05, 3.0
    model = nn.Linear(5, 1, bias=False).double()
    x = torch.eye(5, dtype=torch.float64)
    twins = Twins(
        model,
        lambda output: h / 2 * output.square().sum(),
        lambda parameters: torch.optim.SGD(parameters, lr=eta),
        epsilon=1e-2,
        members=4,
        seed=0,
        vectorize=vectorize,
        replant=None,
    )
    start = distances(twins)[1:]
    for t in range(1, 61):
        twins.step(x)
        torch.testing.assert_close(distances(twins)[1:], abs(1 - eta * h) ** t * start, rtol=1e-6, atol=0)


def test_batchnorm_goes_through_the_loop_and_says_why():
    twins, _ = trained(network("batchnorm"), sgd, epsilon=1e-3, vectorize="auto")
    assert twins.vectorized is False
    assert "running_mean" in twins.reason
    means = torch.stack([model[1].running_mean for model in twins.models])
    assert not torch.equal(means[0], means[1])


@pytest.mark.parametrize(("vectorize", "at_once"), [("auto", False), (True, True)])
def test_large_networks_go_through_the_loop_unless_forced(vectorize, at_once):
    twins = Twins(
        torch.nn.Linear(300, 200), torch.nn.MSELoss(), sgd, epsilon=1e-3, members=3, seed=0, vectorize=vectorize
    )
    twins.step(torch.ones(2, 300), torch.zeros(2, 200))
    assert twins.vectorized is at_once
    assert twins.made["vectorize"] == vectorize
    if not at_once:
        assert twins.made["path"] == twins.reason
        assert "60200 weights on the CPU" in twins.reason


def test_kernels_that_round_members_differently_go_through_the_loop_unless_forced():
    # 17 x 9 activations of a member do not fill the last SIMD register: which one they share differs by member.
    auto, _ = trained(network("gelu"), sgd, epsilon=1e-3, vectorize="auto")
    forced, _ = trained(network("gelu"), sgd, epsilon=1e-3, vectorize=True)
    assert forced.vectorized is True
    if auto.vectorized:
        pytest.skip("this machine's kernels round all members alike")
    assert "round equal members differently" in auto.reason
    assert "although" in forced.reason
    for name, values in auto.state.items():
        torch.testing.assert_close(values, forced.state[name], rtol=1e-9, atol=1e-11)


def test_an_optimiser_that_mixes_entries_gets_one_for_each_member():
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)

    twins, _ = trained(network(), lbfgs, epsilon=1e-6, vectorize="auto", data=batches(5))
    assert twins.vectorized is False
    assert "LBFGS" in twins.reason
    assert len(twins.optimizers) == 4
    with pytest.raises(ValueError, match="LBFGS"):
        trained(network(), lbfgs, epsilon=1e-6, vectorize=True)


@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_gradients_are_clipped_member_by_member_as_torch_does(kind):
    fast, _ = trained(network(kind), sgd, epsilon=1e-3, vectorize="auto", max_norm=0.1)
    slow, _ = trained(network(kind), sgd, epsilon=1e-3, vectorize=False, max_norm=0.1)
    free, _ = trained(network(kind), sgd, epsilon=1e-3, vectorize=False)
    for name, values in fast.state.items():
        torch.testing.assert_close(values, slow.state[name], rtol=1e-9, atol=1e-11)
        assert (values - free.state[name]).abs().max() > 1e-3
    same, _ = trained(network(kind), sgd, epsilon=0.0, vectorize="auto", max_norm=0.1)
    assert distances(same).tolist() == [0.0] * 4


def test_a_model_that_vmap_cannot_trace_loops_or_is_refused():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            y = self.layer(x)
            return y if y.sum().item() > 0 else 2 * y

    twins, _ = trained(Branching().double(), sgd, epsilon=1e-3, vectorize="auto", data=batches(2))
    assert twins.vectorized is False
    assert "vmap" in twins.reason
    with pytest.raises(RuntimeError, match='vectorize="auto"'):
        trained(Branching().double(), sgd, epsilon=1e-3, vectorize=True)


def test_recurrent_networks_can_have_twins():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(6, 4, batch_first=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.cell(x[:, None])[0][:, -1])

    twins, _ = trained(Reader().double(), sgd, epsilon=0.0, vectorize="auto", data=batches(4))
    assert distances(twins).tolist() == [0.0] * 4
    twins, _ = trained(Reader().double(), sgd, epsilon=1e-3, vectorize="auto", data=batches(4))
    assert float(distances(twins)[1:].min()) > 0


def test_groups_and_schedulers_are_those_of_the_user():
    def grouped(parameters):
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim == 1]
        return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "lr": 0.002}])

    def halving(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)

    results = []
    for vectorize in ("auto", False):
        twins = Twins(
            network(), nn.CrossEntropyLoss(), grouped, epsilon=1e-3, members=3, seed=0,
            scheduler_factory=halving, vectorize=vectorize,
        )  # fmt: skip
        for x, y in batches(6):
            twins.step(x, y)
            twins.schedule()
        results.append(twins)
    fast, slow = results
    assert [[group["lr"] for group in optimizer.param_groups] for optimizer in fast.optimizers] == [
        [0.001 / 8, 0.002 / 8]
    ]
    assert len(slow.schedulers) == 4
    for name, values in fast.state.items():
        torch.testing.assert_close(values, slow.state[name], rtol=1e-9, atol=1e-11)


def test_tied_and_frozen_parameters_stay_tied_and_frozen():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.last = nn.Linear(6, 3)
            self.second.weight = self.first.weight
            self.last.bias.requires_grad_(False)

        def forward(self, x):
            return self.last(torch.relu(self.second(torch.relu(self.first(x)))))

    torch.manual_seed(0)
    model = Tied().double()
    fast, _ = trained(model, sgd, epsilon=1e-3, vectorize="auto")
    slow, _ = trained(model, sgd, epsilon=1e-3, vectorize=False)
    assert fast.vectorized is True
    assert list(fast.state) == ["first.weight", "first.bias", "second.bias", "last.weight"]
    for member in (*fast.models, *slow.models):
        assert member.second.weight is member.first.weight
        assert torch.equal(member.last.bias, model.last.bias)
    for name, values in fast.state.items():
        torch.testing.assert_close(values, slow.state[name], rtol=1e-9, atol=1e-11)


def test_the_users_model_and_its_mode_are_left_alone():
    model = network("dropout").eval()
    before = copy.deepcopy(model.state_dict())
    twins, _ = trained(model, adam, epsilon=1e-3, vectorize="auto")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(member.training for member in twins.models)
    model.load_state_dict(twins.reference())
    assert torch.equal(model[0].weight, twins.models[0][0].weight)


@pytest.mark.parametrize("vectorize", ["auto", False])
def test_a_loss_that_is_no_number_is_refused(vectorize):
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    twins = Twins(network(), loss_fn, sgd, epsilon=1e-3, members=1, seed=0, vectorize=vectorize)
    with pytest.raises(ValueError, match="take the mean or the sum"):
        twins.step(*batches(1)[0])


def test_an_unknown_way_to_vectorise_is_refused():
    with pytest.raises(ValueError, match='True, False or "auto"'):
        trained(network(), sgd, epsilon=1e-3, vectorize="yes")


@pytest.mark.recorders
@pytest.mark.parametrize("factory", [adam, lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2)])
def test_recorded_twins_hold_every_step_every_loss_and_their_origin(tmp_path, factory):
    twins = Twins(network(), nn.CrossEntropyLoss(), factory, epsilon=1e-5, members=2, seed=9)
    states, losses = [twins.state], []
    with Recorder(tmp_path / "twins.h5", twins, quiet=True):
        for x, y in batches(10):
            losses.append(twins.step(x, y))
            states.append({name: values.clone() for name, values in twins.state.items()})
    expected = np.stack([np.concatenate([v.flatten(1).numpy() for v in s.values()], axis=1) for s in states[1:]])
    with tt.open(tmp_path / "twins.h5") as run:
        np.testing.assert_array_equal(run.states[1:11], expected)
        assert run.step.tolist() == list(range(11))
        np.testing.assert_array_equal(run.metrics["loss"][:10], torch.stack(losses).numpy())
        assert np.isnan(run.metrics["loss"][10]).all()
        assert run.metrics["learning_rate"][:10].tolist() == [twins.optimizers[0].param_groups[0]["lr"]] * 10
        assert [(m.reference, m.epsilon, m.norm, m.seed, m.noise) for m in run.members[1:]] == [
            (0, 1e-5, "uniform", run.members[1].seed, "common"),
            (0, 1e-5, "uniform", run.members[2].seed, "common"),
        ]
        assert run.members[0].reference == -1


@pytest.mark.recorders
def test_twins_go_on_where_the_disk_is_full(tmp_path, full_disk):
    def trained(**recorded):
        twins = Twins(network(), nn.CrossEntropyLoss(), sgd, epsilon=1e-5, members=2, seed=9, vectorize=False)
        with Recorder(tmp_path / "twins.h5", twins, quiet=True) if recorded else contextlib.nullcontext():
            for _ in range(8):
                for x, y in batches():
                    twins.step(x, y)
        return distances(twins)

    expected = trained()
    full_disk()
    with pytest.warns(RecordingWarning, match="The training goes on") as warned:
        found = trained(recorded=True)
    assert len(warned) == 1
    np.testing.assert_array_equal(found, expected)
    with tt.open(tmp_path / "twins.h5") as run:
        assert run.n_states == 64


def test_twins_are_followed_by_one_recorder_at_a_time(tmp_path):
    twins = Twins(network(), nn.CrossEntropyLoss(), sgd, epsilon=1e-5, members=1, seed=9)
    with (
        Recorder(tmp_path / "a.h5", twins, quiet=True),
        pytest.raises(RecordingError, match="already follows these twins"),
    ):
        Recorder(tmp_path / "b.h5", twins, quiet=True)
    with Recorder(tmp_path / "c.h5", twins, quiet=True) as recorder:
        twins.step(*batches(1)[0])
        assert recorder.step == 1


def test_batches_of_another_shape_are_judged_anew():
    data = batches(6, size=16) + batches(2, size=5) + batches(2, size=16)
    fast, fast_losses = trained(network("gelu"), adam, epsilon=1e-4, vectorize="auto", data=data)
    slow, slow_losses = trained(network("gelu"), adam, epsilon=1e-4, vectorize=False, data=data)
    assert len(fast._plans) == 2
    torch.testing.assert_close(fast_losses, slow_losses, rtol=1e-10, atol=1e-12)
    for name, values in fast.state.items():
        torch.testing.assert_close(values, slow.state[name], rtol=1e-9, atol=1e-11)


def test_members_that_take_different_paths_need_optimisers_of_their_own():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.paths = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            path = self.paths[int(self.gate.item() > 0)]
            return path(x) + self.gate

    model = Routed().double()
    options = {"epsilon": 1e-3, "only": ["gate"], "members": 8, "data": batches(2)}
    with pytest.raises(RuntimeError, match="vectorize=False"):
        trained(model, adam, vectorize="auto", **options)
    twins, _ = trained(model, adam, vectorize=False, **options)
    assert {int(member.gate > 0) for member in twins.models} == {0, 1}


def test_inputs_may_be_several_or_named():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, a, b):
            return self.layer(a + b)

    x, y = batches(1)[0]
    found = []
    for given in ((x, 2 * x), {"a": x, "b": 2 * x}):
        for vectorize in ("auto", False):
            torch.manual_seed(0)
            _, losses = trained(Sum().double(), sgd, epsilon=1e-3, vectorize=vectorize, data=[(given, y)])
            found.append(losses)
    for losses in found[1:]:
        torch.testing.assert_close(losses, found[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("sizes", "members", "rows", "words"),
    [
        ((6, 3), 2, 32, "3 members"),
        ((784, 64), 4, 32, "more than 50000 for 5 members"),
        ((784, 64), 5, 32, ""),
        ((784, 256), 20, 32, "more than 150000"),
        ((784, 64), 5, 2000, "6 members x 2000 rows"),
        ((64, 64), 3, 2000, ""),
    ],
)
def test_the_path_on_the_cpu_follows_from_sizes_of_network_ensemble_and_batch(sizes, members, rows, words) -> None:
    twins = Twins(
        nn.Linear(*sizes), nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=0.1), epsilon=1e-3, members=members, seed=0
    )
    twins.step(torch.ones(rows, sizes[0]), torch.zeros(rows, sizes[1]))
    assert twins.vectorized == (not words)
    assert words in twins._plan[1]


def test_networks_too_large_for_one_pass_have_an_optimiser_for_each_member():
    model, batch = nn.Linear(240, 240), (torch.ones(4, 240), torch.zeros(4, 240))
    found = []
    for vectorize in ("auto", False):
        twins = Twins(model, nn.MSELoss(), torch.optim.SGD, epsilon=1e-3, members=2, seed=0, vectorize=vectorize)
        assert twins.vectorized is False
        assert len(twins.optimizers) == 3
        twins.step(*batch)
        found.append(twins.state["weight"])
    assert torch.equal(*found)
