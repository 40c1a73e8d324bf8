"""The callback for Lightning: steps are the Trainer's, losses those of the states they were computed from."""

import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning")

from torch_training import batches, flat, network  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import RecordingWarning  # noqa: E402
from recorders.lightning import RecorderCallback  # noqa: E402
from trajtools.errors import RecordingError  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.recorders,
    # Of Lightning itself, on what it finds here.
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

nn = torch.nn


class Classifier(lightning.LightningModule):
    def __init__(self, rate=0.1, warm_up=False):
        super().__init__()
        self.net = network()
        self.rate, self.warm_up = rate, warm_up
        self.losses, self.fail_at = [], None

    def training_step(self, batch, i):
        if self.trainer.global_step == self.fail_at:
            raise ValueError("a batch was bad")
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)
        if not self.warm_up:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 2))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Snapshots(lightning.Callback):
    """What the recorder should have seen."""

    def __init__(self):
        self.states = {}

    def on_train_start(self, trainer, pl_module):
        self.states[trainer.global_step] = flat(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.states[trainer.global_step] = flat(pl_module)


def loader(steps):
    return torch.utils.data.DataLoader(batches(steps), batch_size=None)


def fit(module, *callbacks, steps=6, ckpt_path=None, root=None, loader_steps=12, **options):
    trainer = lightning.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=any(hasattr(c, "best_model_path") for c in callbacks),
        default_root_dir=root, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(module, loader(loader_steps), ckpt_path=ckpt_path)
    return trainer


def checkpoints(tmp_path):
    return lightning.pytorch.callbacks.ModelCheckpoint(
        dirpath=tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1
    )


def contents(path):
    with tt.open(path) as run:
        return run.states[:][:, 0], run.step.tolist(), {k: np.asarray(v) for k, v in run.metrics.items()}, run.status


def assert_as_seen(path, snapshots):
    states, steps, _, _ = contents(path)
    assert steps == sorted(snapshots.states)
    np.testing.assert_array_equal(states, [snapshots.states[step] for step in steps])


def test_states_steps_losses_and_rates_are_the_trainers(tmp_path):
    module, seen = Classifier(), Snapshots()
    torch.manual_seed(1)
    fit(module, seen, RecorderCallback(tmp_path / "run.h5", name="fit"))
    assert_as_seen(tmp_path / "run.h5", seen)
    _, steps, metrics, status = contents(tmp_path / "run.h5")
    assert steps == list(range(7))
    assert status == "complete"
    np.testing.assert_allclose(metrics["loss"], [*module.losses, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(metrics["learning_rate"], [0.1] * 6 + [np.nan])
    other = Classifier()
    torch.manual_seed(1)
    fit(other)
    np.testing.assert_array_equal(flat(other), flat(module))


def test_the_loss_of_accumulated_batches_is_their_mean_also_where_an_epoch_ends(tmp_path):
    module = Classifier()
    fit(module, RecorderCallback(tmp_path / "run.h5"), steps=4, loader_steps=5, accumulate_grad_batches=4)
    _, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2, 3, 4]
    parts = [module.losses[:4], module.losses[4:5], module.losses[5:9], module.losses[9:10]]
    np.testing.assert_allclose(metrics["loss"], [*map(np.mean, parts), np.nan], rtol=1e-6)


def test_a_warm_up_from_rate_0_counts(tmp_path):
    module = Classifier(warm_up=True)
    fit(module, RecorderCallback(tmp_path / "run.h5"), steps=4)
    states, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[1] != states[2]).any()
    np.testing.assert_allclose(metrics["learning_rate"], [0, 0.05, 0.1, 0.1, np.nan])


def test_lbfgs_is_one_step_with_the_loss_of_its_start(tmp_path):
    class Second(Classifier):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    module, seen = Second(), Snapshots()
    fit(module, seen, RecorderCallback(tmp_path / "run.h5"), steps=2)
    assert_as_seen(tmp_path / "run.h5", seen)
    _, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2]
    assert metrics["loss"][0] == np.float32(module.losses[0])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_optimisers_make_one_state_a_batch_with_both_losses(tmp_path, order):
    class Pair(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.parts = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])
            self.automatic_optimization = False
            self.losses = [[], []]

        def training_step(self, batch, i):
            optimizers = self.optimizers()
            for k in (0, 1):
                loss = nn.functional.cross_entropy(self.parts[k](batch[0]), batch[1])
                optimizers[order[k]].zero_grad()
                self.manual_backward(loss)
                optimizers[order[k]].step()
                self.losses[order[k]].append(loss.item())

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parts[order[k]].parameters(), lr=0.1) for k in (0, 1)]

    module, seen = Pair(), Snapshots()
    fit(module, seen, RecorderCallback(tmp_path / "run.h5"), steps=6)
    assert_as_seen(tmp_path / "run.h5", seen)
    _, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 2, 4, 6]  # the Trainer counts the steps of both
    for k in (0, 1):
        np.testing.assert_allclose(metrics[f"loss_{k}"], [*module.losses[k], np.nan], rtol=1e-6)


@pytest.mark.parametrize("checkpoint", [4, 7])
def test_a_fit_that_failed_and_resumes_finds_its_place(tmp_path, checkpoint):
    first, seen = Classifier(), Snapshots()
    first.fail_at = 7
    saved = checkpoints(tmp_path)
    with pytest.raises(ValueError, match="a batch was bad"):
        fit(first, seen, RecorderCallback(tmp_path / "run.h5"), saved, steps=10)
    assert_as_seen(tmp_path / "run.h5", seen)
    _, steps, _, status = contents(tmp_path / "run.h5")
    assert steps == list(range(8))
    assert status == "interrupted"
    # The loader begins again, so steps after the checkpoint see other batches than the first time.
    second, resumed = Classifier(), RecorderCallback(tmp_path / "run.h5", resume=True)
    fit(second, seen, resumed, saved, steps=10, ckpt_path=tmp_path / f"step={checkpoint}.ckpt")
    assert_as_seen(tmp_path / "run.h5", seen)
    _, steps, metrics, status = contents(tmp_path / "run.h5")
    assert steps == list(range(11))
    assert status == "complete"
    losses = [*first.losses[:checkpoint], *second.losses]
    np.testing.assert_allclose(metrics["loss"], [*losses, np.nan], rtol=1e-6)


def test_a_training_that_does_not_continue_the_run_is_refused(tmp_path):
    fit(Classifier(), RecorderCallback(tmp_path / "run.h5"), steps=5)
    saved, resumed = checkpoints(tmp_path), RecorderCallback(tmp_path / "run.h5", resume=True)
    fit(Classifier(rate=0.2), saved, steps=3)
    with pytest.raises(RecordingError, match=r"another state for that step.*mode='next'"):
        fit(Classifier(), saved, resumed, ckpt_path=tmp_path / "step=3.ckpt", steps=8)
    with pytest.raises(RecordingError, match=r"begins again at step 0.*mode='next'"):
        fit(Classifier(), resumed, steps=8)
    assert contents(tmp_path / "run.h5")[1] == list(range(6))


def test_a_backbone_that_is_unfrozen_does_not_end_the_fit(tmp_path):
    class Finetuned(Classifier):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(6, 6), nn.Linear(3, 3)

        def training_step(self, batch, i):
            scores = self.head(self.net(self.backbone(batch[0])))
            return nn.functional.cross_entropy(scores, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

    finetuning = lightning.pytorch.callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False)
    with pytest.warns(RecordingWarning, match=r"not recorded.*'backbone\.bias'"):
        trainer = fit(Finetuned(), finetuning, RecorderCallback(tmp_path / "run.h5"), steps=6, loader_steps=3)
    assert trainer.global_step == 6
    _, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == list(range(7))
    assert np.isfinite(metrics["learning_rate_1"][4])


def test_a_second_fit_takes_the_next_name_or_overwrites(tmp_path):
    callback = RecorderCallback(tmp_path / "run.h5")
    fit(Classifier(), callback, steps=2)
    with pytest.raises(FileExistsError, match=r"mode='next'.*mode='w'.*RecorderCallback\(path"):
        fit(Classifier(), callback, steps=3)
    callback = RecorderCallback(tmp_path / "run.h5", mode="next")
    for steps in (3, 4):
        fit(Classifier(), callback, steps=steps)
    fit(Classifier(), RecorderCallback(tmp_path / "run.h5", mode="w"), steps=5)
    lengths = [len(contents(tmp_path / f"{name}.h5")[1]) for name in ("run", "run-2", "run-3")]
    assert lengths == [6, 4, 5]


def test_ctrl_c_leaves_an_interrupted_run(tmp_path):
    class Stopped(Classifier):
        def training_step(self, batch, i):
            if i == 3:
                raise KeyboardInterrupt
            return super().training_step(batch, i)

    with pytest.raises(SystemExit):
        fit(Stopped(), RecorderCallback(tmp_path / "run.h5"))
    _, steps, _, status = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2, 3]
    assert status == "interrupted"
