"""A Lightning callback that records every optimiser step of a fit with `recorders.torch`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from recorders.torch import Recorder
from trajtools.errors import MissingDependencyError


class RecorderHooks:
    """Hooks of `RecorderCallback`, which record a fit.

    Use it as ``Trainer(callbacks=[RecorderCallback("lr=0.1.h5")])``.

    Notes
    -----
    The metric ``loss`` belongs to the state that it was computed from; over accumulated batches it is their mean.
    An exception in the fit leaves a valid file whose run is marked as interrupted.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__()
        self.path = path
        self.options = options
        self.recorder: Recorder | None = None
        self._loss: Any = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the file; the weights are now on their device."""
        self.recorder = Recorder(self.path, pl_module, **{"optimizer": list(trainer.optimizers), **self.options})

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Accumulate the loss; Lightning has divided it by the number of accumulated batches."""
        self._loss = self._loss + loss.detach()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Record the loss of the state before its update."""
        if self.recorder is not None:
            self.recorder.record(loss=self._loss)
        self._loss = 0.0

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the file."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the file and mark the run as interrupted."""
        self._close(exception)

    def _close(self, exception: BaseException | None = None) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.__exit__(type(exception) if exception else None, exception, None)


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
else:

    def __getattr__(name: str) -> Any:
        # The class needs its framework, this module does not: create it on first use.
        if name != "RecorderCallback":
            raise AttributeError(f"recorders.lightning has no {name!r}; it has RecorderCallback")
        made = type(
            name, (RecorderHooks, _callback_class()), {"__doc__": RecorderHooks.__doc__, "__module__": __name__}
        )
        globals()[name] = made
        return made
