"""Callbacks for the Trainer of transformers that record every optimiser step, with or without twins."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from recorders.torch.loop_twins import Copy
from recorders.torch.modules import innermost
from recorders.torch.trainers import TrainerRecording, WithTwins, callbacks, with_copies
from trajtools.errors import MissingDependencyError

DURATIONS = ("_runtime", "_per_second")


class RecorderHooks(TrainerRecording):
    """Hooks of `RecorderCallback`, which record a training.

    Use it as ``Trainer(..., callbacks=[RecorderCallback("seed=0.h5")])``.

    Parameters
    ----------
    path : path-like
        The file.
    probe : callable or None
        ``probe(model, inputs)`` -> numbers by name, measured before a batch and recorded with the state, see
        `recorders.torch.sharpness` and `recorders.torch.Shadow`.
    probe_every : int
        Steps from one probe to the next.
    **options : object
        Options of `recorders.torch.Recorder`: ``every``, ``buffers``, ``resume``, ... A second ``train`` with the
        callback, or a notebook cell that is run again, finds its file there: ``mode="next"`` takes the next free name,
        ``mode="w"`` overwrites it, ``resume=True`` continues it.

    Attributes
    ----------
    recorder : recorders.torch.Recorder or None
        While a training is recorded.

    Notes
    -----
    The step of a state is the Trainer's ``global_step``. Metrics belong to the state that they were computed from:
    ``loss`` is that of the Trainer before the update, over accumulated batches and over ranks their mean,
    ``learning_rate`` that of the update to come, in the first group of parameters; numbers of an evaluation
    (``eval_loss``, ...) belong to the state that was evaluated.

    Whenever the Trainer logs a loss (``logging_steps``), the numbers of twins and probes are logged with it.

    A training that resumes from a checkpoint goes on in its file with ``resume=True``; see `recorders.Recorder` for
    states that it computes again. An exception or Ctrl-C closes the file, and its run is marked as interrupted. A
    callback that was added by ``trainer.add_callback`` sees, in the first ``train``, only exceptions of the training
    step; call `close` after others.
    """

    _watched: Callable[[], Any] = staticmethod(lambda: None)  # the Trainer, held weakly
    _replaying = False

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Watch the Trainer for exceptions."""
        self._watch()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open the file; the weights are now on their device, and those of a checkpoint are loaded."""
        self.close("interrupted")
        self._watch()
        optimizer, trainer = kwargs.get("optimizer"), self._watched()
        self._losses: list[list[Any]] = []
        self._open(
            "train", model, "any" if optimizer is None else optimizer, step=state.global_step,
            wrapped=None if trainer is None else trainer.model_wrapped, learning_rate=False,
        )  # fmt: skip

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Record the loss of the state before its update, and the rate of that; update the copies."""
        if self.recorder is None:
            return
        losses, self._losses = self._losses, []
        metrics: dict[str, Any] = {}
        if losses:  # the Trainer has divided each by their number
            first, *others = (torch.stack(member).sum(0) for member in zip(*losses, strict=False))
            metrics["loss"] = with_copies(first, others)
        if optimizer is not None:
            metrics["learning_rate"] = float(optimizer.param_groups[0]["lr"])
        if state.epoch is not None:
            metrics["epoch"] = float(state.epoch)
        self.recorder.record(**metrics)
        if self.twins is not None:
            scaler = self._watched().accelerator.scaler
            self.twins.replay(lambda copy: _update(copy, args.max_grad_norm, scaler))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the state after an update."""
        self._take(state.global_step)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Record what was measured of the newest state."""
        numbers: dict[str, Any] = {
            name: float(value)
            for name, value in (metrics or {}).items()
            if isinstance(value, int | float) and name != "epoch" and not name.endswith(DURATIONS)
        }
        if self.recorder is not None and numbers:
            self.recorder.record(**numbers)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the states so far, so that a training that resumes from the checkpoint finds them."""
        if self.recorder is not None:
            self.recorder.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the file."""
        self.close()

    def close(self, status: str = "complete") -> None:
        """Close the file; a second call does nothing.

        Parameters
        ----------
        status : {"complete", "interrupted"}
            Status of the run in the file.
        """
        self._end(status)

    def _watch(self) -> None:
        """Wrap methods of the Trainer, which passes neither exceptions nor losses nor logs to callbacks."""
        trainer = _calling_trainer()
        if trainer is None or trainer is self._watched():
            return
        self._watched = weakref.ref(trainer)
        train, training_step, log = trainer.train, trainer.training_step, trainer.log

        @wraps(train)
        def watched_train(*args: Any, **kwargs: Any) -> Any:
            with _Closing(self):
                return train(*args, **kwargs)

        @wraps(training_step)
        def watched_step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            with _Closing(self):
                if self.recorder is not None and not self._losses:
                    self._run_probe(model, inputs, trainer.state.global_step)
                of_copies = self._train_copies(lambda copy: training_step(copy, deepcopy(inputs), *args, **kwargs))
                loss = training_step(model, inputs, *args, **kwargs)
            if self.recorder is not None:
                self._losses.append([loss.detach(), *of_copies])
            return loss

        @wraps(log)
        def watched_log(logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if not self._replaying:
                log({**logs, **self.live} if "loss" in logs else logs, *args, **kwargs)

        trainer.train, trainer.training_step, trainer.log = watched_train, watched_step, watched_log

    def _train_copies(self, training_step: Callable[[Any], Any]) -> list[Any]:
        """Forward and backward pass of the copies, whose logs the Trainer does not get; their losses."""
        if self.twins is None:
            return []
        self._replaying = True
        try:
            return self.twins.replay(lambda copy: training_step(copy.model).detach())
        finally:
            self._replaying = False


def _update(copy: Copy, max_norm: float, scaler: Any) -> None:
    """Update a copy by its gradients, as the Trainer does: without the scale of the loss, clipped."""
    parameters = [parameter for parameter in copy.model.parameters() if parameter.grad is not None]
    is_finite = True
    if scaler is not None and scaler.is_enabled():
        inverse = 1 / scaler.get_scale()
        for parameter in parameters:
            parameter.grad.mul_(inverse)
            is_finite &= bool(parameter.grad.isfinite().all())
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    if is_finite:
        for optimizer in copy.optimizers:
            innermost(optimizer).step()
    copy.model.zero_grad()


class _Closing:
    """Closes a callback's file as interrupted if an exception passes by."""

    def __init__(self, callback: RecorderHooks) -> None:
        self._callback = callback

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._callback._end("interrupted", error)


def _calling_trainer() -> Any:
    """Return the Trainer that calls this callback, which it does not pass."""
    from transformers import Trainer

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer):
            return caller
        frame = frame.f_back
    return None


def _callback_class() -> Any:
    """Return the base class of callbacks of transformers."""
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise MissingDependencyError("recorders.huggingface needs transformers: pip install transformers") from error
    return TrainerCallback


if TYPE_CHECKING:
    from transformers import TrainerCallback as Callback

    class RecorderCallback(RecorderHooks, Callback):
        """Record a training run, see `RecorderHooks`."""

    class TwinsCallback(WithTwins, RecorderHooks, Callback):
        """Record a training run with twins, see `WithTwins`."""
else:
    __getattr__ = callbacks(__name__, RecorderHooks, _callback_class)
