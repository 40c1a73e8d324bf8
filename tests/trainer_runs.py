"""One small training under Lightning and under the Trainer of transformers: same calls, same file.

Each of `MAKERS` gives the same names: ``model()``, ``train(folder, *callbacks, net=, steps=, ...)`` and
the callbacks ``Snapshots`` (what should be recorded) and ``Failing`` (an exception when the step is reached).
"""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import batches, flat, network  # noqa: E402

import trajtools as tt  # noqa: E402

nn = torch.nn
# Of the trainers and of torch, on what they find here; warnings of ours are errors.
QUIET = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("error::recorders.RecordingWarning"),
]


def contents(path):
    with tt.open(path) as run:
        return run.states[:][:, 0], run.step.tolist(), {k: np.asarray(v) for k, v in run.metrics.items()}, run.status


def assert_as_seen(path, snapshots):
    states, steps, _, _ = contents(path)
    assert steps == sorted(snapshots.states)
    np.testing.assert_array_equal(states, [snapshots.states[step] for step in steps])


def reference_losses(metrics):
    """Losses of the model, whether the run has twins or not."""
    return metrics["loss"] if metrics["loss"].ndim == 1 else metrics["loss"][:, 0]


def lightning_trainer():
    lightning = pytest.importorskip("lightning")
    from recorders.lightning import RecorderCallback, TwinsCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Classifier(lightning.LightningModule):
        def __init__(self, rate=0.1, warm_up=False, net=None):
            super().__init__()
            self.net = net or network()
            self.rate, self.warm_up = rate, warm_up
            self.losses = []

        def training_step(self, batch, i):
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            self.log("seen", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)
            if not self.warm_up:
                return optimizer
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 2))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Snapshots(lightning.Callback):
        def __init__(self):
            self.states, self.losses, self.begun, self.step = {}, {}, 0, 0

        def on_train_start(self, trainer, pl_module):
            self.step, self.begun = trainer.global_step, len(pl_module.losses)
            self.states[self.step] = flat(pl_module)

        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step > self.step:
                new = pl_module.losses[self.begun :]
                self.losses[self.step] = sum(new) / len(new) if new else np.nan
                self.step, self.begun = trainer.global_step, len(pl_module.losses)
                self.states[self.step] = flat(pl_module)

    class Failing(lightning.Callback):
        def __init__(self, at):
            self.at = at

        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == self.at:
                raise RuntimeError("the machine went away")

    def loader(n):
        return torch.utils.data.DataLoader(batches(n), batch_size=None)

    def train(
        folder, *callbacks, net=None, steps=6, accumulate=1, clip=None, resume=None, save=False, log_every=50,
        batches_an_epoch=12, logger=False, **options,
    ):  # fmt: skip
        if save:
            model_checkpoint = lightning.pytorch.callbacks.ModelCheckpoint
            callbacks = (
                *callbacks, model_checkpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
            )  # fmt: skip
        trainer = lightning.Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", logger=logger, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=save, default_root_dir=folder, callbacks=list(callbacks),
            accumulate_grad_batches=accumulate, gradient_clip_val=clip, log_every_n_steps=log_every, **options,
        )  # fmt: skip
        torch.manual_seed(1)
        checkpoint = None if resume is None else folder / f"step={resume}.ckpt"
        trainer.fit(Classifier() if net is None else net, loader(batches_an_epoch), ckpt_path=checkpoint)
        return trainer

    return SimpleNamespace(
        name="lightning", model=Classifier, train=train, Snapshots=Snapshots, Failing=Failing, loader=loader,
        RecorderCallback=RecorderCallback, TwinsCallback=TwinsCallback, module=lightning,
    )  # fmt: skip


def huggingface_trainer():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from recorders.huggingface import RecorderCallback, TwinsCallback

    transformers.logging.set_verbosity_error()

    def model():
        torch.manual_seed(0)
        config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        return transformers.GPT2LMHeadModel(config)

    def sentences(n=48):
        rng = np.random.default_rng(0)
        return [{"input_ids": row, "labels": row} for row in torch.tensor(rng.integers(0, 11, (n, 6)))]

    class Snapshots(transformers.TrainerCallback):
        def __init__(self):
            self.states, self.losses, self.rates = {}, {}, {}

        def on_train_begin(self, args, state, control, model=None, **kwargs):
            self.states[state.global_step] = flat(model)

        def on_step_end(self, args, state, control, model=None, **kwargs):
            self.states[state.global_step] = flat(model)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                self.losses[state.global_step - 1] = logs["loss"]
                self.rates[state.global_step - 1] = logs["learning_rate"]

    class Failing(transformers.TrainerCallback):
        def __init__(self, at, error=RuntimeError):
            self.at, self.error = at, error

        def on_save(self, args, state, control, **kwargs):
            if state.global_step == self.at:
                raise self.error("the machine went away")

    def trainer(
        folder, *callbacks, net=None, steps=6, accumulate=1, clip=None, save=False, log_every=1, evaluate=False,
        **options,
    ):  # fmt: skip
        often = {"eval_strategy": "steps", "eval_steps": 3} if evaluate else {}
        arguments = transformers.TrainingArguments(
            output_dir=str(folder / "out"), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.01,
            disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3,
            gradient_accumulation_steps=accumulate, max_grad_norm=1.0 if clip is None else clip, save_steps=1,
            save_strategy="steps" if save else "no", logging_steps=log_every, **{"report_to": [], **often, **options},
        )  # fmt: skip
        return transformers.Trainer(
            net or model(), arguments, train_dataset=sentences(), eval_dataset=sentences(8) if evaluate else None,
            callbacks=list(callbacks),
        )  # fmt: skip

    def train(folder, *callbacks, resume=None, **options):
        made = trainer(folder, *callbacks, **options)
        made.train(resume_from_checkpoint=None if resume is None else str(folder / "out" / f"checkpoint-{resume}"))
        return made

    return SimpleNamespace(
        name="huggingface", model=model, train=train, trainer=trainer, Snapshots=Snapshots, Failing=Failing,
        sentences=sentences, RecorderCallback=RecorderCallback, TwinsCallback=TwinsCallback, module=transformers,
    )  # fmt: skip


MAKERS = {"lightning": lightning_trainer, "huggingface": huggingface_trainer}
