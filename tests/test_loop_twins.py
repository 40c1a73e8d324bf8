"""Twins of any torch loop: copies make its steps to the bit, and the loop does not notice them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import batches, flat  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import RecordingWarning  # noqa: E402
from recorders.torch import LoopTwins, Recorder  # noqa: E402
from trajtools.errors import ArchitectureError, RecordingError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

nn = torch.nn


class Dropout(nn.Dropout):
    """Remembers its last mask."""

    def forward(self, x):
        y = super().forward(x)
        self.mask = (y == 0).detach()
        return y


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), Dropout(0.3), nn.Linear(9, 3))


OPTIMISERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


def step_on(batch, accumulate=1, is_first=True, is_last=True):
    """The step of the loop on a batch."""

    def update(model, optimizer):
        def closure():
            if is_first:
                optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
            (loss / accumulate).backward()
            return loss

        if accumulate == 1:
            return optimizer.step(closure)
        loss = closure()
        if is_last:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return loss

    return update


def train(model, optimizer, twins=None, steps=8, accumulate=1):
    """A loop with clipping, accumulated batches and a schedule; the losses and one random number after it."""
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    torch.manual_seed(3)
    losses = []
    for i, batch in enumerate(batches(steps * accumulate)):
        is_last = i % accumulate == accumulate - 1
        update = step_on(batch, accumulate, i % accumulate == 0, is_last)
        losses.append(update(model, optimizer).item() if twins is None else twins.step(update)[0].item())
        if is_last:
            schedule.step()
    return losses, torch.rand(1)


@pytest.mark.parametrize(("name", "accumulate"), [("momentum", 3), ("adamw", 1), ("adamw", 3), ("lbfgs", 1)])
def test_the_loop_is_the_same_and_exact_copies_are_too(name, accumulate):
    model, alone = network(), network()
    optimizer = OPTIMISERS[name](model.parameters())
    twins = LoopTwins(model, optimizer, epsilon=0.0)
    with_twins = train(model, optimizer, twins, accumulate=accumulate)
    assert with_twins == train(alone, OPTIMISERS[name](alone.parameters()), accumulate=accumulate)
    for key, value in alone.state_dict().items():  # BatchNorm's running averages included
        for other in twins.models:
            assert torch.equal(value, other.state_dict()[key])


def test_dropout_masks_are_common_and_running_averages_are_not():
    model = network()
    optimizer = OPTIMISERS["momentum"](model.parameters())
    twins = LoopTwins(model, optimizer, epsilon=1e-3)
    train(model, optimizer, twins)
    reference, *copies = twins.models
    for copy in copies:
        assert torch.equal(copy[3].mask, reference[3].mask)
        assert not torch.equal(copy[1].running_mean, reference[1].running_mean)
    model.eval()
    twins.replay(lambda copy: copy.model(batches(1)[0][0]))
    assert not any(module.training for copy in copies for module in copy.modules())


def test_a_planting_copies_weights_buffers_and_the_state_of_the_optimiser(tmp_path):
    model = network().double()
    optimizer = OPTIMISERS["adamw"](model.parameters())
    twins = LoopTwins(model, optimizer, replant=5)

    with Recorder(tmp_path / "run.h5", twins, quiet=True) as recorder:
        for batch in batches(5, dtype=torch.float64):
            twins.step(step_on(batch))
        assert recorder.live["twin_starts"] == 1
    reference, *copies = twins.models
    for copy, own in zip(copies, twins.optimizers[1:], strict=True):
        for theirs, ours in zip(reference.buffers(), copy.buffers(), strict=True):
            assert torch.equal(theirs, ours)
        for theirs, ours in zip(optimizer.state.values(), own.state.values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    with tt.open(tmp_path / "run.h5") as run:
        assert run.plantings["step"].tolist() == [0, 0, 5, 5]
        assert run.step.tolist() == list(range(6))
        np.testing.assert_array_equal(run.states[:][5, 0], flat(model))


def test_frozen_weights_are_shared_until_they_are_trained():
    model = network()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    twins = LoopTwins(model, optimizer, epsilon=0.0)
    train(model, optimizer, twins, steps=2)
    assert all(copy[0].weight is model[0].weight for copy in twins.models)
    model[0].requires_grad_(True)
    optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.05})
    train(model, optimizer, twins, steps=4)
    for copy in twins.models[1:]:
        assert copy[0].weight is not model[0].weight
        assert torch.equal(copy[0].weight, model[0].weight)


def test_a_training_that_cannot_be_repeated_is_a_warning_with_the_difference(tmp_path):
    class Counting(nn.Linear):
        calls = 0  # common to all copies: no generator knows it

        def forward(self, x):
            Counting.calls += 1
            return super().forward(x) + 1e-3 * Counting.calls

    torch.manual_seed(0)
    model = nn.Sequential(Counting(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    twins = LoopTwins(model, optimizer)
    away = pytest.warns(RecordingWarning, match=r"an exact copy of the model is .* away from it after 3 updates")
    with Recorder(tmp_path / "run.h5", twins, quiet=True), away:
        train(model, optimizer, twins)
    with tt.open(tmp_path / "run.h5") as run:
        assert run.n_states == 9
        assert "cannot be repeated" in run.notes["remarks"][0]


def test_a_forward_that_is_bound_to_the_original_is_noticed_before_it_trains_it(tmp_path):
    model, alone = network(), network()
    model.forward = lambda x: type(model).forward(model, x)
    optimizer = OPTIMISERS["momentum"](model.parameters())
    with pytest.raises(RecordingError, match="reached the weights of the original"):
        train(model, optimizer, LoopTwins(model, optimizer), steps=1)
    optimizer = OPTIMISERS["momentum"](model.parameters())
    model.load_state_dict(alone.state_dict())
    twins, lost = LoopTwins(model, optimizer), pytest.warns(RecordingWarning, match="goes on without being recorded")
    with Recorder(tmp_path / "run.h5", twins, quiet=True), lost:
        train(model, optimizer, twins)
    train(alone, OPTIMISERS["momentum"](alone.parameters()))
    np.testing.assert_array_equal(flat(model), flat(alone))


def test_what_cannot_have_twins_is_refused_in_one_sentence(monkeypatch):
    model = network()
    optimizer = OPTIMISERS["momentum"](model.parameters())
    model.stream = (x for x in range(3))
    with pytest.raises(RecordingError, match=r"cannot be copied: TypeError.*without twins"):
        LoopTwins(model, optimizer)
    del model.stream
    with pytest.raises(ArchitectureError, match="trains no parameter of this model"):
        LoopTwins(model, OPTIMISERS["momentum"](network().parameters()))
    with pytest.raises(RecordingError, match=r"optimizer='sgd': pass a torch\.optim\.Optimizer"):
        LoopTwins(model, "sgd")
    with pytest.raises(ArchitectureError, match=r"must be a torch\.nn\.Module, got str"):
        LoopTwins("model", optimizer)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(RecordingError, match=r"LoopTwins\(\.\.\., scaler=scaler\)"):
        LoopTwins(model, optimizer).step(lambda *_: scaler.update())
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    with pytest.raises(RecordingError, match="in 4 processes, and its model is not wrapped in DistributedDataParallel"):
        LoopTwins(model, optimizer)


def scaled_loop(twins_of=None, overflow=3, steps=12):
    """Float16 with a scaler that doubles every two steps; the gradients of one call overflow, of all members."""
    model = network()
    optimizer = OPTIMISERS["adamw"](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    scales = []
    torch.manual_seed(4)
    twins = twins_of and twins_of(model, optimizer, scaler)
    for i, (x, y) in enumerate(batches(steps)):

        def update(model, optimizer, x=x, y=y, i=i):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = nn.functional.cross_entropy(model(x), y) * (1e30 if i == overflow else 1)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            return loss

        if twins is None:
            update(model, optimizer)
        else:
            twins.step(update)
        scales.append(scaler.get_scale())
    return model, scales


def test_copies_in_float16_are_scaled_as_the_model_and_do_not_wear_out_its_scaler(tmp_path):
    alone, scales = scaled_loop()
    assert min(scales) < scales[2] < max(scales)  # it grows, and backs off once
    made = []

    def twins_of(model, optimizer, scaler):
        made.append(LoopTwins(model, optimizer, scaler=scaler, epsilon=0.0))
        made.append(Recorder(tmp_path / "run.h5", made[0], quiet=True))
        return made[0]

    model, with_twins = scaled_loop(twins_of)
    made[1].close()
    assert with_twins == scales
    for key, value in alone.state_dict().items():
        for other in made[0].models:
            assert torch.equal(value, other.state_dict()[key])
    with tt.open(tmp_path / "run.h5") as run:
        assert run.step.tolist() == list(range(12))  # the step that overflowed is no update
        np.testing.assert_array_equal(run.states[:, 0][-1], flat(model))


def test_a_copy_whose_gradients_overflow_misses_its_step_and_the_model_does_not():
    model = nn.Linear(6, 3)
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=4.0)
    twins = LoopTwins(model, optimizer, epsilon=0.0, scaler=scaler)
    before = model.weight.detach().clone()

    def update(one, optimizer):
        optimizer.zero_grad()
        loss = one(batches(1)[0][0]).square().mean() * (np.inf if one is twins.copies[0].model else 1)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    twins.step(update)
    first, second = (copy.model.weight for copy in twins.copies)
    assert torch.equal(first, before)
    assert torch.equal(second, model.weight)
    assert not torch.equal(second, before)
    assert scaler.get_scale() == 4.0


def test_accelerate_in_float16_steps_the_copies_by_its_own_scaler():
    accelerate = pytest.importorskip("accelerate")
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    accelerate.Accelerator(cpu=True)
    optimizer = accelerate.optimizer.AcceleratedOptimizer(OPTIMISERS["momentum"](model.parameters()), False, scaler)
    twins = LoopTwins(model, optimizer, epsilon=0.0)
    before = flat(model)
    for x, y in batches(4):

        def update(model, optimizer, x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.scaler.scale(loss).backward()
            optimizer.step()
            return loss

        twins.step(update)
    assert (flat(model) != before).any()
    for copy in twins.copies:
        np.testing.assert_array_equal(flat(copy.model), flat(model))
        assert not copy.optimizers[0].step_was_skipped
    assert scaler.get_scale() == 8.0 * 2**4
