"""The callback for transformers: steps are the Trainer's, losses those of the states they were computed from."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from torch_training import flat  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.huggingface import RecorderCallback  # noqa: E402
from trajtools.errors import RecordingError  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.recorders,
    # Of transformers and torch themselves, on what they find here.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("error::recorders.RecordingWarning"),
]
transformers.logging.set_verbosity_error()


def model():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def sentences(n=48):
    rng = np.random.default_rng(0)
    return [{"input_ids": row, "labels": row} for row in torch.tensor(rng.integers(0, 11, (n, 6)))]


class Snapshots(transformers.TrainerCallback):
    """What the recorder should have seen, and what the Trainer logged."""

    def __init__(self, fail_at=None, error=RuntimeError):
        self.states, self.losses, self.rates = {}, {}, {}
        self.fail_at, self.error = fail_at, error

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.states[state.global_step] = flat(model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.states[state.global_step] = flat(model)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses[state.global_step - 1] = logs["loss"]
            self.rates[state.global_step - 1] = logs["learning_rate"]

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.fail_at:
            raise self.error("the machine went away")


def trainer_of(tmp_path, *callbacks, steps=6, net=None, evaluate=False, **options):
    often = {"eval_strategy": "steps", "eval_steps": 3}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.01,
        report_to=[], disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3,
        **{"save_strategy": "no", "logging_steps": 1, **(often if evaluate else {}), **options},
    )  # fmt: skip
    return transformers.Trainer(
        net or model(), arguments, train_dataset=sentences(), eval_dataset=sentences(8) if evaluate else None,
        callbacks=list(callbacks),
    )  # fmt: skip


def contents(path):
    with tt.open(path) as run:
        return run.states[:][:, 0], run.step.tolist(), {k: np.asarray(v) for k, v in run.metrics.items()}, run.status


def assert_as_seen(path, snapshots):
    states, steps, _, _ = contents(path)
    assert steps == sorted(snapshots.states)
    np.testing.assert_array_equal(states, [snapshots.states[step] for step in steps])


def test_states_steps_losses_and_rates_are_the_trainers(tmp_path):
    seen, net = Snapshots(), model()
    trainer_of(tmp_path, seen, RecorderCallback(tmp_path / "run.h5"), net=net, warmup_steps=2, evaluate=True).train()
    assert_as_seen(tmp_path / "run.h5", seen)
    states, steps, metrics, status = contents(tmp_path / "run.h5")
    assert steps == list(range(7))
    assert status == "complete"
    np.testing.assert_array_equal(states[0], states[1])  # a warm-up from rate 0
    np.testing.assert_allclose(metrics["loss"], [*seen.losses.values(), np.nan], rtol=1e-6)
    np.testing.assert_allclose(metrics["learning_rate"], [*seen.rates.values(), np.nan])
    assert np.flatnonzero(np.isfinite(metrics["eval_loss"])).tolist() == [3, 6]
    other = model()
    trainer_of(tmp_path, net=other, warmup_steps=2, evaluate=True).train()
    np.testing.assert_array_equal(flat(other), flat(net))


def test_every_state_has_its_loss_however_seldom_the_trainer_logs(tmp_path):
    often, seldom = Snapshots(), RecorderCallback(tmp_path / "run.h5")
    trainer_of(tmp_path, often).train()
    trainer_of(tmp_path, seldom, logging_steps=4).train()
    np.testing.assert_allclose(contents(tmp_path / "run.h5")[2]["loss"][:-1], [*often.losses.values()], rtol=1e-6)


def test_the_loss_of_accumulated_batches_is_their_mean(tmp_path):
    seen = Snapshots()
    callback = RecorderCallback(tmp_path / "run.h5", buffers=True)
    trainer_of(tmp_path, seen, callback, steps=4, gradient_accumulation_steps=5).train()  # 12 batches: 5, 5 and 2
    assert_as_seen(tmp_path / "run.h5", seen)
    np.testing.assert_allclose(contents(tmp_path / "run.h5")[2]["loss"], [*seen.losses.values(), np.nan], rtol=1e-6)
    with tt.open(tmp_path / "run.h5") as run:
        assert run.optimizer is not None
        assert (run.optimizer[:][4] != 0).any()


@pytest.mark.parametrize("checkpoint", [4, 7])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_training_that_failed_is_closed_and_resumes_at_its_place(tmp_path, checkpoint, error):
    whole = Snapshots()
    trainer_of(tmp_path / "whole", whole, steps=10).train()
    often = {"save_strategy": "steps", "save_steps": 1}
    first = trainer_of(
        tmp_path, RecorderCallback(tmp_path / "run.h5"), Snapshots(fail_at=7, error=error), steps=10, **often
    )
    with pytest.raises(error, match="the machine went away"):
        first.train()
    _, steps, _, status = contents(tmp_path / "run.h5")
    assert steps == list(range(8))
    assert status == "interrupted"
    second = trainer_of(tmp_path, RecorderCallback(tmp_path / "run.h5", resume=True), steps=10, **often)
    second.train(resume_from_checkpoint=str(tmp_path / "out" / f"checkpoint-{checkpoint}"))
    assert_as_seen(tmp_path / "run.h5", whole)
    _, _, metrics, status = contents(tmp_path / "run.h5")
    assert status == "complete"
    np.testing.assert_allclose(metrics["loss"][:-1], [*whole.losses.values()], rtol=1e-6)


def test_a_callback_that_was_added_later_sees_a_step_that_fails_and_can_be_closed(tmp_path):
    class Failing(transformers.Trainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 2:
                raise RuntimeError("out of memory")
            return super().training_step(*args, **kwargs)

    trainer = trainer_of(tmp_path)
    trainer.__class__ = Failing
    callback = RecorderCallback(tmp_path / "run.h5")
    trainer.add_callback(callback)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    _, steps, _, status = contents(tmp_path / "run.h5")
    assert (steps, status) == ([0, 1, 2], "interrupted")
    assert callback.recorder is None
    callback.close()


def test_a_training_that_does_not_continue_the_run_is_refused(tmp_path):
    trainer_of(tmp_path, RecorderCallback(tmp_path / "run.h5"), steps=4).train()
    other = transformers.GPT2LMHeadModel(model().config)
    with pytest.raises(RecordingError, match=r"another state for that step.*mode='next'"):
        trainer_of(tmp_path, RecorderCallback(tmp_path / "run.h5", resume=True), net=other).train()


def test_a_second_train_takes_the_next_name_or_overwrites(tmp_path):
    callback = RecorderCallback(tmp_path / "run.h5")
    trainer = trainer_of(tmp_path, callback, steps=2)
    trainer.train()
    with pytest.raises(FileExistsError, match=r"mode='next'.*mode='w'.*RecorderCallback\(path"):
        trainer.train()
    trainer = trainer_of(tmp_path, RecorderCallback(tmp_path / "run.h5", mode="next"), steps=3)
    trainer.train()
    trainer.train()
    trainer_of(tmp_path, RecorderCallback(tmp_path / "run.h5", mode="w"), steps=5).train()
    assert [len(contents(tmp_path / f"{name}.h5")[1]) for name in ("run", "run-2", "run-3")] == [6, 4, 4]
    losses = [contents(tmp_path / f"{name}.h5")[2]["loss"] for name in ("run", "run-2")]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-6)
