"""A Lightning callback that records every optimiser step of a fit with `recorders.torch`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from recorders.opening import explain_taken
from recorders.torch import Recorder
from trajtools.errors import MissingDependencyError


class RecorderHooks:
    """Hooks of `RecorderCallback`, which record a fit.

    Use it as ``Trainer(callbacks=[RecorderCallback("lr=0.1.h5")])``.

    Parameters
    ----------
    path : path-like
        The file.
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
    optimiser there is a state for every step, with several one a batch.

    The metric ``loss`` belongs to the state that it was computed from; over accumulated batches it is their mean. With
    several optimisers there is one loss for each, ``loss_0``, ``loss_1``, ... in the order of
    ``configure_optimizers``; those that a batch computes after an update of another optimiser are from mid-batch.

    A fit that resumes from a checkpoint (``ckpt_path=``) goes on in its file with ``resume=True``; see
    `recorders.Recorder` for states that it computes again. An exception or Ctrl-C closes the file, and its run is
    marked as interrupted.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__()
        self.path = path
        self.options = options
        self.recorder: Recorder | None = None
        self._losses: list[Any] = []
        self._noted: set[str] = set()  # losses of the newest state; LBFGS computes others on its way

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the file; the weights are now on their device, and those of a checkpoint are loaded."""
        self._close()
        options = {"optimizer": list(trainer.optimizers), "step": trainer.global_step, **self.options}
        with explain_taken("fit", "RecorderCallback"):
            self.recorder = Recorder(self.path, pl_module, **options)
        self.recorder._unhook()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Keep the loss of a batch."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Record the loss of the state before its update."""
        losses, self._losses = self._losses, []
        if self.recorder is None:
            return
        several = len(trainer.optimizers) > 1
        if not several:
            self._take_updates(trainer)
        name = f"loss_{trainer.optimizers.index(optimizer)}" if several else "loss"
        if losses and name not in self._noted:
            # Lightning divides each by the number of accumulated batches, which are fewer at the end of an epoch.
            share = trainer.accumulate_grad_batches / len(losses) if pl_module.automatic_optimization else 1
            self.recorder.record(**{name: sum(losses) * share})
            self._noted.add(name)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Record the state after the updates of a batch."""
        self._take_updates(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the file."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the file and mark the run as interrupted."""
        self._close(exception)

    def _take_updates(self, trainer: Any) -> None:
        if self.recorder is not None and trainer.global_step > self.recorder.step:
            self.recorder._updated(trainer.global_step)
            self._noted.clear()

    def _close(self, exception: BaseException | None = None) -> None:
        recorder, self.recorder = self.recorder, None
        self._losses, self._noted = [], set()
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
