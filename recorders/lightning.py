"""Lightning callbacks that record every optimiser step of a fit, with or without twins."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from math import isfinite
from threading import get_ident
from typing import TYPE_CHECKING, Any

from torch import Tensor

from recorders.torch.loop_twins import Copy
from recorders.torch.modules import unwrap
from recorders.torch.trainers import TrainerRecording, WithTwins, callbacks, with_copies
from trajtools.errors import MissingDependencyError


class RecorderHooks(TrainerRecording):
    """Hooks of `RecorderCallback`, which record a fit.

    Use it as ``Trainer(callbacks=[RecorderCallback("lr=0.1.h5")])``.

    Parameters
    ----------
    path : path-like
        The file.
    probe : callable or None
        ``probe(module, batch)`` -> numbers by name, measured before a batch and recorded with the state, see
        `recorders.torch.sharpness` and `recorders.torch.Shadow`.
    probe_every : int
        Steps from one probe to the next.
    **options : object
        Options of `recorders.torch.Recorder`: ``every``, ``buffers``, ``resume``, ... A second ``fit`` with the
        callback, or a notebook cell that is run again, finds its file there: ``mode="next"`` takes the next free name,
        ``mode="w"`` overwrites it, ``resume=True`` continues it.

    Attributes
    ----------
    recorder : recorders.torch.Recorder or None
        While a fit is recorded.

    Notes
    -----
    The step of a state is the ``global_step`` of the Trainer, which counts the steps of all optimisers. With one
    optimiser there is a state for every step, with several one a batch, and with twins one a batch.

    The metric ``loss`` belongs to the state that it was computed from; over accumulated batches it is their mean. With
    several optimisers there is one loss for each, ``loss_0``, ``loss_1``, ... in the order of
    ``configure_optimizers``; those that a batch computes after an update of another optimiser are from mid-batch.

    The metric ``epoch`` counts the epochs before a state, with the share of the present one where its length is known.
    Numbers and texts of ``save_hyperparameters()`` are hyper-parameters of the run; ``hparams=`` adds to them.

    Every ``log_every_n_steps`` the numbers of twins and probes go to the loggers of the Trainer.

    A fit that resumes from a checkpoint (``ckpt_path=``) goes on in its file with ``resume=True``; see
    `recorders.Recorder` for states that it computes again. An exception or Ctrl-C closes the file, and its run is
    marked as interrupted.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the file; the weights are now on their device, and those of a checkpoint are loaded."""
        self._end("interrupted")
        self._of_reference = Losses()
        configs = trainer.lr_scheduler_configs
        self._open(
            "fit", pl_module, list(trainer.optimizers), step=trainer.global_step, wrapped=trainer.strategy.model,
            schedulers=[] if pl_module.automatic_optimization else [config.scheduler for config in configs],
            hparams={name: value for name, value in pl_module.hparams.items() if isinstance(value, int | float | str)},
        )  # fmt: skip
        self._epoch = _epoch(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.ready)
        self._replay(trainer, "on_train_start")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the epoch for the copies."""
        self._replay(trainer, "on_train_epoch_start")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Run the probe, and train the copies on the batch."""
        self._run_probe(pl_module, batch, trainer.global_step)
        if self.twins is not None:
            self.twins.replay(lambda copy: _train(trainer, copy, deepcopy(batch), batch_idx))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Keep the loss of a batch."""
        if self.recorder is not None:
            self._of_reference.add(loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Record the loss of the state before its update."""
        if self.recorder is None:
            return
        if self.twins is None and len(trainer.optimizers) == 1:
            self._take_updates(trainer)
        name = self._of_reference.take(trainer, pl_module, optimizer)
        if name:
            copies = [] if self.twins is None else [copy.kept.known[name] for copy in self.twins.copies]
            metrics = {name: with_copies(self._of_reference.known[name], copies), "epoch": self._epoch}
            self.recorder.record(**metrics)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the state after the updates of a batch, and log its numbers."""
        if not self._take_updates(trainer):
            return
        self._epoch = _epoch(trainer, batch_idx + 1)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            numbers = self.live
            for logger in trainer.loggers if numbers else ():
                logger.log_metrics(numbers, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End the epoch for the copies."""
        self._replay(trainer, "on_train_epoch_end")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        """Write the states so far, so that a fit that resumes from the checkpoint finds them."""
        if self.recorder is not None:
            self.recorder.flush()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the file."""
        self._end("complete")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the file and mark the run as interrupted."""
        self._end("interrupted", exception)

    def _replay(self, trainer: Any, hook: str) -> None:
        """Call a hook of the module for the copies."""

        def call(copy: Copy) -> None:
            with _in_its_place(trainer, copy):
                _call(unwrap(copy.model), hook)

        if self.twins is not None:
            self.twins.replay(call)

    def _take_updates(self, trainer: Any) -> bool:
        """Record the newest state if there was an update."""
        if self.recorder is None or trainer.global_step <= self._step:
            return False
        self._take(trainer.global_step)
        for losses in (self._of_reference, *(copy.kept for copy in (self.twins.copies if self.twins else ()))):
            losses.known.clear()
        return True


def _epoch(trainer: Any, n_batches: int) -> float:
    """The epoch after so many batches of the present one, with a fraction where its length is known."""
    total = trainer.num_training_batches
    return float(trainer.current_epoch + (n_batches / total if isfinite(total) else 0))


class Losses:
    """Losses of one network since its last update: those of micro-batches, and the mean for each optimiser."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []
        self.known: dict[str, Tensor] = {}  # LBFGS computes others on its way; the first counts

    def add(self, loss: Tensor) -> None:
        """Keep the loss of a batch."""
        self.waiting.append(loss.detach())

    def take(self, trainer: Any, module: Any, optimizer: Any) -> str:
        """Make a metric of what waits for a step of an optimiser; its name, empty if there is none."""
        waiting, self.waiting = self.waiting, []
        name = f"loss_{trainer.optimizers.index(optimizer)}" if len(trainer.optimizers) > 1 else "loss"
        if not waiting or name in self.known:
            return ""
        # Lightning divides each by the number of accumulated batches, which are fewer at the end of an epoch.
        share = trainer.accumulate_grad_batches / len(waiting) if module.automatic_optimization else 1
        self.known[name] = sum(waiting[1:], waiting[0]) * share
        return name


def _train(trainer: Any, copy: Copy, batch: Any, batch_idx: int) -> None:
    """Train a copy on a batch by the Trainer's own loop."""
    module = unwrap(copy.model)
    with _in_its_place(trainer, copy, batch) as loop:
        if _call(module, "on_train_batch_start", batch, batch_idx) == -1:
            return
        arguments = loop._build_kwargs(OrderedDict(), batch, batch_idx)
        if module.automatic_optimization:
            outputs = loop.automatic_optimization.run(trainer.optimizers[0], batch_idx, arguments)
        else:
            outputs = loop.manual_optimization.run(arguments)
        _call(module, "on_train_batch_end", outputs, batch, batch_idx)


def _call(module: Any, hook: str, *arguments: Any) -> Any:
    """Call a hook as the Trainer does: ``module.log`` looks at its name."""
    before, module._current_fx_name = module._current_fx_name, hook
    try:
        return getattr(module, hook)(*arguments)
    finally:
        module._current_fx_name = before


@contextmanager
def _in_its_place(trainer: Any, copy: Copy, batch: Any = None) -> Iterator[Any]:
    """Let the Trainer train a copy: no callback, logger or counter of the fit sees it. Gives the loop of the epoch."""
    package = _callback_class().__module__.partition(".callbacks")[0]
    loop, strategy, connector = trainer.fit_loop.epoch_loop, trainer.strategy, trainer._logger_connector
    module = unwrap(copy.model)
    if copy.kept is None:
        copy.kept = Losses()
        module.trainer = trainer
        _compile_alike(module, strategy.lightning_module)
    results = type(loop._results)(training=True)
    results.batch = batch
    schedulers = iter(copy.schedulers)
    logger = import_module(f"{package}.loggers.logger").DummyLogger
    places: list[tuple[Any, str, Any]] = [
        (strategy, "_lightning_module", module),
        (strategy, "_model", copy.model),
        (strategy, "_optimizers", None),
        (strategy, "_lightning_optimizers", None),
        (strategy, "lr_scheduler_configs", [replace(c, scheduler=s) for c, s in zip(
            strategy.lr_scheduler_configs, schedulers, strict=False)]),
        (trainer, "callbacks", _CallbacksOfStep([_collector(copy.kept)], trainer.callbacks)),
        (trainer, "_loggers", [logger() for _ in trainer.loggers]),
        (trainer, "profiler", import_module(f"{package}.profilers").PassThroughProfiler()),
        (trainer, "should_stop", trainer.should_stop),
        (loop, "_results", results),
        (loop.automatic_optimization, "optim_progress", deepcopy(loop.automatic_optimization.optim_progress)),
        (loop.manual_optimization, "optim_step_progress", deepcopy(loop.manual_optimization.optim_step_progress)),
        (connector, "_current_fx", connector._current_fx),
        (connector, "_first_loop_iter", connector._first_loop_iter),
    ]  # fmt: skip
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None:
        places.append((trainer.precision_plugin, "scaler", deepcopy(scaler)))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    try:
        for owner, name, value in places:
            setattr(owner, name, value)
        strategy.optimizers = copy.optimizers
        yield loop
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


class _CallbacksOfStep(list[Any]):
    """The callbacks of a copy's step; another thread, such as that of a progress bar, sees those of the fit."""

    def __init__(self, own: Iterable[Any], fit: Iterable[Any]) -> None:
        super().__init__(own)
        self._fit, self._thread = fit, get_ident()

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if get_ident() == self._thread else iter(self._fit)


def _compile_alike(module: Any, original: Any) -> None:
    """Compile the methods of a copy where those of the original are: `torch.compile` binds them to the original."""
    context = getattr(original, "_compiler_ctx", None)
    if context is not None:
        for name in ("forward", "training_step"):
            vars(module).pop(name, None)
            setattr(module, name, context["dynamo_ctx"](getattr(module, name)))


def _collector(losses: Losses) -> Any:
    """A callback that keeps the losses of a copy."""

    def on_before_optimizer_step(self: Any, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        losses.take(trainer, pl_module, optimizer)

    def on_before_backward(self: Any, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        losses.add(loss)

    hooks = {"on_before_optimizer_step": on_before_optimizer_step, "on_before_backward": on_before_backward}
    return type("Collector", (_callback_class(),), hooks)()


def _callback_class() -> Any:
    """Return the Callback class of Lightning, from either of its two packages."""
    try:
        from lightning.pytorch.callbacks import Callback
    except ImportError:
        try:
            from pytorch_lightning.callbacks import Callback
        except ImportError as error:
            raise MissingDependencyError(
                "recorders.lightning needs Lightning: pip install lightning (or pytorch-lightning)"
            ) from error
    return Callback


if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    class RecorderCallback(RecorderHooks, Callback):
        """Record a training run, see `RecorderHooks`."""

    class TwinsCallback(WithTwins, RecorderHooks, Callback):
        """Record a training run with twins, see `WithTwins`."""
else:
    __getattr__ = callbacks(__name__, RecorderHooks, _callback_class)
