"""The recorder of torch modules: every update, once, bit for bit, and nothing of the training changed."""

import copy
import random
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import OPTIMISERS, backward, batches, flat, network, opened, read, train  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import RecordingWarning  # noqa: E402
from trajtools.errors import ArchitectureError, RecordingError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders]

nn = torch.nn


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


def test_a_full_disk_is_one_warning_and_the_training_stays_the_same(tmp_path, full_disk):
    plain = network()
    expected, _ = train(plain, OPTIMISERS["adam"](plain.parameters()), steps=200)
    model = network()
    optimizer = OPTIMISERS["adam"](model.parameters())

    def recorded():
        with opened(tmp_path, model, optimizer=optimizer) as recorder:
            return train(model, optimizer, recorder, steps=200)[0]

    full_disk()
    with pytest.warns(RecordingWarning, match="No space left on device. The training goes on") as warned:
        states = recorded()
    assert len(warned) == 1
    np.testing.assert_array_equal(states, expected)
    stored, step, _ = read(tmp_path)
    np.testing.assert_array_equal(stored, expected[:64])
    assert step == list(range(64))
    with tt.open(tmp_path / "run.h5") as run:
        assert run.status == "interrupted"


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


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_gradscaler_skips_are_no_updates(tmp_path, fused):
    # A fused optimiser is called in any case and skips the update by itself.
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
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


def test_compiled_models_steps_and_whole_updates_are_recorded(tmp_path):
    model = network()
    model[2].p = 0.0
    optimizer = OPTIMISERS["sgd"](model.parameters())
    compiled = torch.compile(model, backend="eager")
    step = torch.compile(optimizer.step, backend="eager")

    @torch.compile(backend="eager")
    def update(x, y):
        optimizer.zero_grad()
        backward(model, x, y)
        optimizer.step()

    expected = [flat(model)]
    with opened(tmp_path, compiled, optimizer=optimizer) as recorder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for x, y in batches(3):
            optimizer.zero_grad()
            backward(compiled, x, y)
            step()
            expected.append(flat(model))
            update(x, y)
            expected.append(flat(model))
    # Torch deprecates parts of itself; what it says of code that it cannot trace would be about the recorder.
    assert not [one for one in told if "trace" in str(one.message)]
    assert list(recorder.names) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    stored, steps, _ = read(tmp_path)
    assert steps == list(range(7))
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


def test_no_state_is_refused(tmp_path):
    with pytest.raises(ArchitectureError, match=r"a state is a torch module.*; got NoneType"):
        opened(tmp_path, None)


def test_an_optimiser_of_another_model_is_refused(tmp_path):
    with pytest.raises(ArchitectureError, match="trains no parameter of this model"):
        opened(tmp_path, network(), optimizer=OPTIMISERS["sgd"](network().parameters()))


def test_a_state_given_along_with_an_optimiser_is_not_stored_twice(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    with opened(tmp_path, model, optimizer=optimizer) as recorder:
        for x, y in batches(3):
            optimizer.zero_grad()
            loss = backward(model, x, y)
            optimizer.step()
            recorder.record(model, loss=loss)
        with pytest.raises(RecordingError, match="without a state"):
            recorder.record(network(), loss=0.0)
    assert read(tmp_path)[1] == [0, 1, 2, 3]


@pytest.mark.parametrize("optimizer", ["adam", 3, [], [None]])
def test_what_is_no_optimiser_is_refused(tmp_path, optimizer):
    with pytest.raises(RecordingError, match="optimizer="):
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


def test_policies_and_selections_are_those_of_every_recorder(tmp_path):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    with opened(tmp_path, model, optimizer=optimizer, every=4, include="*.weight", exclude="3.*") as recorder:
        states, _ = train(model, optimizer, recorder)
    stored, step, metrics = read(tmp_path)
    assert step == [0, 4, 8, 12]
    np.testing.assert_array_equal(stored, states[::4, :54])
    assert np.isfinite(metrics["loss"][:3]).all()


@pytest.mark.parametrize("before", [True, False])
def test_an_update_that_changes_nothing_counts(tmp_path, before):
    model = network()
    optimizer = OPTIMISERS["sgd"](model.parameters())
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step, 2) / 2)
    expected = [flat(model)]
    with opened(tmp_path, model) as recorder:
        for x, y in batches(4):
            if before:
                recorder.record(model)
            optimizer.zero_grad()
            backward(model, x, y)
            optimizer.step()
            warm_up.step()
            expected.append(flat(model))
            if not before:
                recorder.record(model)
    stored, step, _ = read(tmp_path)
    assert step == list(range(4 if before else 5))
    np.testing.assert_array_equal(stored, expected[: len(step)])
    np.testing.assert_array_equal(stored[0], stored[1])
