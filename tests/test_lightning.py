"""What only Lightning has: several optimisers, LBFGS, ends of epochs, callbacks that unfreeze, Ctrl-C, loggers."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from torch_training import flat  # noqa: E402
from trainer_runs import QUIET, assert_as_seen, contents, lightning_trainer  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import RecordingWarning  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders, *QUIET]

nn = torch.nn
LIGHTNING = lightning_trainer()
lightning, Classifier, Snapshots = LIGHTNING.module, LIGHTNING.model, LIGHTNING.Snapshots
RecorderCallback, TwinsCallback, train = LIGHTNING.RecorderCallback, LIGHTNING.TwinsCallback, LIGHTNING.train


def assert_exact(path):
    """Copies with epsilon 0 are the reference, to the bit."""
    with tt.open(path) as run:
        states = run.states[:]
    np.testing.assert_array_equal(states[:, 1:], states[:, :1].repeat(states.shape[1] - 1, 1))


def test_the_loss_of_accumulated_batches_is_their_mean_also_where_an_epoch_ends(tmp_path):
    module = Classifier()
    recorder = TwinsCallback(tmp_path / "run.h5", epsilon=0.0)
    train(tmp_path, recorder, net=module, steps=4, batches_an_epoch=5, accumulate=4)
    _, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2, 3, 4]
    parts = [module.losses[:4], module.losses[4:5], module.losses[5:9], module.losses[9:10]]
    for member in range(3):
        np.testing.assert_allclose(metrics["loss"][:, member], [*map(np.mean, parts), np.nan], rtol=1e-6)


def test_the_thread_of_a_progress_bar_sees_the_bar_while_a_copy_makes_its_step(tmp_path):
    class Bar(lightning.pytorch.callbacks.Callback):
        calls = 0

        def on_train_batch_start(self, *_arguments):
            self.calls += 1

    class Watched(Classifier):
        def training_step(self, batch, index):
            with ThreadPoolExecutor(1) as threads:
                seen.append(threads.submit(list, self.trainer.callbacks).result())
            return super().training_step(batch, index)

    seen, bar = [], Bar()
    train(tmp_path, bar, TwinsCallback(tmp_path / "run.h5", members=2), net=Watched(), steps=3)
    assert all(bar in callbacks for callbacks in seen)
    assert len(seen) > bar.calls == 3  # copies make steps, too, which the bar does not see


def test_a_warm_up_from_rate_0_counts(tmp_path):
    train(tmp_path, RecorderCallback(tmp_path / "run.h5"), net=Classifier(warm_up=True), steps=4)
    states, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[1] != states[2]).any()
    np.testing.assert_allclose(metrics["learning_rate"], [0, 0.05, 0.1, 0.1, np.nan])


@pytest.mark.parametrize("kind", [RecorderCallback, TwinsCallback])
def test_lbfgs_is_one_step_with_the_loss_of_its_start(tmp_path, kind):
    class Second(Classifier):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    module, seen = Second(), Snapshots()
    options = {"epsilon": 0.0} if kind is TwinsCallback else {}
    train(tmp_path, seen, kind(tmp_path / "run.h5", **options), net=module, steps=2)
    assert_as_seen(tmp_path / "run.h5", seen)
    assert_exact(tmp_path / "run.h5")
    _, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2]
    assert (metrics["loss"][0] == np.float32(module.losses[0])).all()


class Pair(lightning.LightningModule):
    """Two parts with an optimiser and a schedule each, trained by hand."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList([nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 3)), nn.Linear(6, 3)])
        self.automatic_optimization = False
        self.order, self.losses, self.each = order, [], [[], []]

    def training_step(self, batch, i):
        for k in (0, 1):
            optimizer, schedule = self.optimizers()[self.order[k]], self.lr_schedulers()[self.order[k]]
            self.toggle_optimizer(optimizer)
            loss = nn.functional.cross_entropy(self.parts[k](batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            schedule.step()
            self.untoggle_optimizer(optimizer)
            self.each[self.order[k]].append(loss.item())

    def configure_optimizers(self):
        optimizers = [torch.optim.SGD(self.parts[self.order[k]].parameters(), lr=0.1, momentum=0.5) for k in (0, 1)]
        return optimizers, [torch.optim.lr_scheduler.StepLR(one, 2, 0.5) for one in optimizers]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_optimisers_make_one_state_a_batch_with_both_losses(tmp_path, order):
    module, seen, twins = Pair(order), Snapshots(), TwinsCallback(tmp_path / "twins.h5", epsilon=0.0)
    train(tmp_path, seen, RecorderCallback(tmp_path / "run.h5"), twins, net=module, steps=6)
    for name in ("run", "twins"):
        assert_as_seen(tmp_path / f"{name}.h5", seen)
        _, steps, metrics, _ = contents(tmp_path / f"{name}.h5")
        assert steps == [0, 2, 4, 6]  # the Trainer counts the steps of both
        for k in (0, 1):
            losses = metrics[f"loss_{k}"].reshape(4, -1)[:, 0]
            np.testing.assert_allclose(losses, [*module.each[k], np.nan], rtol=1e-6)
    assert_exact(tmp_path / "twins.h5")
    other = Pair(order)
    train(tmp_path, net=other, steps=6)
    np.testing.assert_array_equal(flat(other), flat(module))


def test_a_backbone_that_is_unfrozen_does_not_end_the_fit_and_copies_follow(tmp_path):
    class Finetuned(Classifier):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(6, 6), nn.Linear(3, 3)

        def training_step(self, batch, i):
            scores = self.head(self.net(self.backbone(batch[0])))
            return nn.functional.cross_entropy(scores, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

    class Last(lightning.Callback):
        def on_train_batch_end(self, *_):
            self.models = recorder.twins.models

    torch.manual_seed(0)
    finetuning = lightning.pytorch.callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False)
    recorder, last = TwinsCallback(tmp_path / "run.h5", epsilon=0.0), Last()
    with pytest.warns(RecordingWarning, match=r"not recorded.*'backbone\.bias'"):
        trainer = train(tmp_path, finetuning, recorder, last, net=Finetuned(), steps=6, batches_an_epoch=3)
    assert trainer.global_step == 6
    _, steps, metrics, _ = contents(tmp_path / "run.h5")
    assert steps == list(range(7))
    assert np.isfinite(metrics["learning_rate_1"][4])
    assert_exact(tmp_path / "run.h5")
    reference, *copies = last.models
    for copy in copies:
        assert copy.backbone.weight is not reference.backbone.weight
        assert torch.equal(copy.backbone.weight, reference.backbone.weight)


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # torch on Python 3.13.0
def test_copies_of_a_compiled_module_are_compiled_too(tmp_path):
    class Quiet(Classifier):
        def training_step(self, batch, i):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    module, other = Quiet(), Quiet()
    twins = TwinsCallback(tmp_path / "run.h5", epsilon=0.0)
    train(tmp_path, twins, net=torch.compile(module, backend="eager"), steps=4)
    assert_exact(tmp_path / "run.h5")
    assert contents(tmp_path / "run.h5")[1] == [0, 1, 2, 3, 4]
    train(tmp_path, net=torch.compile(other, backend="eager"), steps=4)
    np.testing.assert_array_equal(flat(other), flat(module))


def test_copies_in_float16_are_scaled_as_the_module_and_leave_its_scaler_alone(tmp_path):
    class Overflowing(Classifier):
        def training_step(self, batch, i):
            return super().training_step(batch, i) * (1e30 if i == 3 else 1)

    def fit(*callbacks):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        precision = lightning.pytorch.plugins.MixedPrecision("16-mixed", "cpu", scaler)
        module = Overflowing()
        train(tmp_path, *callbacks, net=module, steps=8, plugins=[precision])
        return flat(module), scaler.get_scale()

    weights, scale = fit(TwinsCallback(tmp_path / "run.h5", epsilon=0.0))
    alone, expected = fit()
    np.testing.assert_array_equal(weights, alone)
    assert scale == expected
    assert_exact(tmp_path / "run.h5")


def test_ctrl_c_leaves_an_interrupted_run(tmp_path):
    class Stopped(Classifier):
        def training_step(self, batch, i):
            if i == 3:
                raise KeyboardInterrupt
            return super().training_step(batch, i)

    with pytest.raises(SystemExit):
        train(tmp_path, TwinsCallback(tmp_path / "run.h5"), net=Stopped())
    _, steps, _, status = contents(tmp_path / "run.h5")
    assert steps == [0, 1, 2, 3]
    assert status == "interrupted"


def test_numbers_of_twins_and_probes_go_to_the_loggers_and_those_of_copies_do_not(tmp_path):
    class Logger(lightning.pytorch.loggers.logger.DummyLogger):
        def __init__(self):
            super().__init__()
            self.rows = []

        def log_metrics(self, metrics, step):
            self.rows.append((step, metrics))

    logger, module = Logger(), Classifier()
    recorder = TwinsCallback(tmp_path / "run.h5", probe=lambda module, batch: {"h_max_batch": 4.0}, probe_every=5)
    train(tmp_path, recorder, net=module, steps=12, log_every=4, logger=logger)
    own = [(step, metrics) for step, metrics in logger.rows if "twin_exponent" in metrics]
    assert [step for step, _ in own] == [4, 8, 12]
    assert own[-1][1]["h_max_batch_over_threshold"] == pytest.approx(4.0 * 0.1 / (2 + 2 * 0.9))
    with tt.open(tmp_path / "run.h5") as run:
        states = run.states[:]
    gaps = np.linalg.norm(states[4, 1:].astype(float) - states[4, 0].astype(float), axis=1)
    assert own[0][1]["twin_distance"] == pytest.approx(np.exp(np.log(gaps).mean()), rel=1e-4)
    seen = {step + 1: metrics["seen"] for step, metrics in logger.rows if "seen" in metrics}
    np.testing.assert_allclose(list(seen.values()), [module.losses[step - 1] for step in seen], rtol=1e-6)
    assert len(seen) == 3
    assert len(module.losses) == 12


def test_saved_hyper_parameters_and_epochs_are_in_the_file(tmp_path):
    class Saving(Classifier):
        def __init__(self, rate=0.1, name="small", widths=(3, 4)):
            super().__init__(rate)
            self.save_hyperparameters()

    train(tmp_path, RecorderCallback(tmp_path / "run.h5", hparams={"seed": 3}), net=Saving(), batches_an_epoch=4)
    with tt.open(tmp_path / "run.h5") as run:
        assert run.hparams == {"rate": 0.1, "name": "small", "seed": 3}
        np.testing.assert_allclose(run.metrics["epoch"][:-1], run.step[:-1] / 4)
