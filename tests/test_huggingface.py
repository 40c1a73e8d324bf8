"""What only the Trainer of transformers has: its own log, evaluation, accelerate, callbacks that are added later."""

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from torch_training import flat  # noqa: E402
from trainer_runs import QUIET, assert_as_seen, contents, huggingface_trainer  # noqa: E402

import trajtools as tt  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders, *QUIET]

HUGGINGFACE = huggingface_trainer()
transformers, model, train = HUGGINGFACE.module, HUGGINGFACE.model, HUGGINGFACE.train
Snapshots, Failing, trainer_of = HUGGINGFACE.Snapshots, HUGGINGFACE.Failing, HUGGINGFACE.trainer
RecorderCallback, TwinsCallback = HUGGINGFACE.RecorderCallback, HUGGINGFACE.TwinsCallback


def test_rates_and_evaluations_are_recorded(tmp_path):
    seen, net = Snapshots(), model()
    train(tmp_path, seen, RecorderCallback(tmp_path / "run.h5"), net=net, warmup_steps=2, evaluate=True)
    states, _, metrics, _ = contents(tmp_path / "run.h5")
    np.testing.assert_array_equal(states[0], states[1])  # a warm-up from rate 0
    np.testing.assert_allclose(metrics["learning_rate"], [*seen.rates.values(), np.nan])
    assert np.flatnonzero(np.isfinite(metrics["eval_loss"])).tolist() == [3, 6]
    other = model()
    train(tmp_path, net=other, warmup_steps=2, evaluate=True)
    np.testing.assert_array_equal(flat(other), flat(net))


def test_every_state_has_its_loss_however_seldom_the_trainer_logs(tmp_path):
    often, seldom = Snapshots(), RecorderCallback(tmp_path / "run.h5")
    train(tmp_path, often)
    train(tmp_path, seldom, log_every=4)
    np.testing.assert_allclose(contents(tmp_path / "run.h5")[2]["loss"][:-1], [*often.losses.values()], rtol=1e-6)


def test_the_loss_of_accumulated_batches_is_their_mean(tmp_path):
    seen = Snapshots()
    callback = RecorderCallback(tmp_path / "run.h5", buffers=True)
    train(tmp_path, seen, callback, steps=4, accumulate=5)  # 12 batches: 5, 5 and 2
    assert_as_seen(tmp_path / "run.h5", seen)
    np.testing.assert_allclose(contents(tmp_path / "run.h5")[2]["loss"], [*seen.losses.values(), np.nan], rtol=1e-6)
    with tt.open(tmp_path / "run.h5") as run:
        assert run.optimizer is not None
        assert (run.optimizer[:][4] != 0).any()


def test_ctrl_c_leaves_an_interrupted_run_that_resumes_as_if_nothing_had_been(tmp_path):
    whole = Snapshots()
    train(tmp_path / "whole", whole, steps=8)
    with pytest.raises(KeyboardInterrupt, match="the machine went away"):
        train(tmp_path, RecorderCallback(tmp_path / "run.h5"), Failing(5, KeyboardInterrupt), steps=8, save=True)
    assert contents(tmp_path / "run.h5")[3] == "interrupted"
    train(tmp_path, RecorderCallback(tmp_path / "run.h5", resume=True), steps=8, save=True, resume=4)
    assert_as_seen(tmp_path / "run.h5", whole)
    np.testing.assert_allclose(contents(tmp_path / "run.h5")[2]["loss"][:-1], [*whole.losses.values()], rtol=1e-6)


def test_a_callback_that_was_added_later_sees_a_step_that_fails_and_can_be_closed(tmp_path):
    class Stopping(transformers.Trainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 2:
                raise RuntimeError("out of memory")
            return super().training_step(*args, **kwargs)

    trainer = trainer_of(tmp_path)
    trainer.__class__ = Stopping
    callback = RecorderCallback(tmp_path / "run.h5")
    trainer.add_callback(callback)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    _, steps, _, status = contents(tmp_path / "run.h5")
    assert (steps, status) == ([0, 1, 2], "interrupted")
    assert callback.recorder is None
    callback.close()


def test_copies_in_bfloat16_take_the_forward_that_accelerate_has_patched(tmp_path):
    net = model()
    train(tmp_path, TwinsCallback(tmp_path / "run.h5", epsilon=0.0), net=net, bf16=True, steps=4)
    assert_exact(tmp_path / "run.h5")
    other = model()
    train(tmp_path, net=other, bf16=True, steps=4)
    np.testing.assert_array_equal(flat(other), flat(net))


def assert_exact(path):
    """Copies with epsilon 0 are the reference, to the bit."""
    with tt.open(path) as run:
        states = run.states[:]
    np.testing.assert_array_equal(states[:, 1:], states[:, :1].repeat(states.shape[1] - 1, 1))


def test_copies_in_float16_are_scaled_as_the_model_and_leave_its_scaler_alone(tmp_path):
    class Overflowing(transformers.Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * (1e30 if self.state.global_step == 3 else 1)

    def fit(*callbacks):
        net = model()
        trainer = trainer_of(tmp_path, *callbacks, net=net, steps=8, fp16=True)
        trainer.__class__ = Overflowing
        # accelerate leaves float16 out on the CPU; this is what it does on a GPU.
        trainer.accelerator.native_amp = True
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        trainer.train()
        return flat(net), trainer.accelerator.scaler.get_scale()

    weights, scale = fit(TwinsCallback(tmp_path / "run.h5", epsilon=0.0))
    alone, expected = fit()
    np.testing.assert_array_equal(weights, alone)
    assert scale == expected
    assert_exact(tmp_path / "run.h5")
    states, steps, _, _ = contents(tmp_path / "run.h5")
    assert steps == list(range(9))
    unchanged = [(a == b).all() for a, b in pairwise(states)]
    assert unchanged == [step == 3 for step in range(8)]  # its gradients overflow, and the Trainer counts the step


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_recorded_and_copied_as_they_are(tmp_path, dtype):
    net, other = model().to(dtype), model().to(dtype)
    train(tmp_path, TwinsCallback(tmp_path / "run.h5", epsilon=0.0), net=net, steps=4)
    train(tmp_path, net=other, steps=4)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert_exact(tmp_path / "run.h5")
    with tt.open(tmp_path / "run.h5") as run:
        assert run.logical_dtype == str(dtype).removeprefix("torch.")


def test_numbers_of_twins_are_logged_with_the_loss(tmp_path):
    class Wordy(transformers.Trainer):
        def compute_loss(self, *args, **kwargs):
            self.log({"wordy": 1.0})
            return super().compute_loss(*args, **kwargs)

    trainer = trainer_of(tmp_path, TwinsCallback(tmp_path / "run.h5"), steps=8, log_every=4)
    trainer.__class__ = Wordy
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["step"] for row in rows] == [4, 8]
    assert all(row["twin_distance"] > 0 and np.isfinite(row["twin_exponent"]) for row in rows)
    # What the trainer itself logs in a step is not logged for the copies.
    assert sum("wordy" in row for row in trainer.state.log_history) == 8
