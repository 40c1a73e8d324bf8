"""A callback for the Trainer of transformers that records every optimiser step with `recorders.torch`."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Mapping
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Any

from recorders.opening import explain_taken
from recorders.torch import Recorder
from trajtools.errors import MissingDependencyError

DURATIONS = ("_runtime", "_per_second")


class RecorderHooks:
    """Hooks of `RecorderCallback`, which record a training.

    Use it as ``Trainer(..., callbacks=[RecorderCallback("seed=0.h5")])``.

    Parameters
    ----------
    path : path-like
        The file.
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
    ``loss`` is that of the Trainer before the update, over accumulated batches their mean (of the first rank, where
    there are several), ``learning_rate`` that of the update to come, in the first group of
    parameters; numbers of an evaluation (``eval_loss``, ...)
    belong to the state that was evaluated.

    A training that resumes from a checkpoint goes on in its file with ``resume=True``; see `recorders.Recorder` for
    states that it computes again. An exception or Ctrl-C closes the file, and its run is marked as interrupted. A
    callback that was added by ``trainer.add_callback`` sees, in the first ``train``, only exceptions of the training
    step; call `close` after others.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__()
        self.path = path
        self.options = options
        self.recorder: Recorder | None = None
        self._losses: list[Any] = []
        self._watched: Callable[[], Any] = lambda: None  # the Trainer, held weakly

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Watch the Trainer for exceptions."""
        self._watch()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open the file; the weights are now on their device, and those of a checkpoint are loaded."""
        self.close("interrupted")
        self._watch()
        optimizer = kwargs.get("optimizer")
        options = {"optimizer": "any" if optimizer is None else optimizer, "step": state.global_step}
        options |= {"learning_rate": False, **self.options}
        with explain_taken("train", "RecorderCallback"):
            self.recorder = Recorder(self.path, model, **options)
        self.recorder._unhook()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Record the loss of the state before its update, and the rate of that."""
        losses, self._losses = self._losses, []
        if self.recorder is None:
            return
        metrics: dict[str, Any] = (
            {"loss": sum(losses)} if losses else {}
        )  # the Trainer has divided each by their number
        if optimizer is not None:
            metrics["learning_rate"] = float(optimizer.param_groups[0]["lr"])
        self.recorder.record(**metrics)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the state after an update."""
        if self.recorder is not None:
            self.recorder._updated(state.global_step)

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
        recorder, self.recorder, self._losses = self.recorder, None, []
        if recorder is not None:
            recorder.close(status)

    def _watch(self) -> None:
        """Wrap the Trainer's methods that raise exceptions and know the losses: it passes neither to callbacks."""
        trainer = _calling_trainer()
        if trainer is None or trainer is self._watched():
            return
        self._watched = weakref.ref(trainer)
        train, training_step = trainer.train, trainer.training_step

        @wraps(train)
        def watched_train(*args: Any, **kwargs: Any) -> Any:
            with _Closing(self):
                return train(*args, **kwargs)

        @wraps(training_step)
        def watched_step(*args: Any, **kwargs: Any) -> Any:
            with _Closing(self):
                loss = training_step(*args, **kwargs)
            if self.recorder is not None:
                self._losses.append(loss.detach())
            return loss

        trainer.train, trainer.training_step = watched_train, watched_step


class _Closing:
    """Closes a callback's file as interrupted if an exception passes by."""

    def __init__(self, callback: RecorderHooks) -> None:
        self._callback = callback

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        recorder = self._callback.recorder
        if kind is not None and recorder is not None:
            self._callback.recorder = None
            recorder.__exit__(kind, error, trace)


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
else:

    def __getattr__(name: str) -> Any:
        # The class needs its framework, this module does not: create it on first use.
        if name != "RecorderCallback":
            raise AttributeError(f"recorders.huggingface has no {name!r}; it has RecorderCallback")
        made = type(
            name, (RecorderHooks, _callback_class()), {"__doc__": RecorderHooks.__doc__, "__module__": __name__}
        )
        globals()[name] = made
        return made
