"""A callback for the Trainer of transformers that records every optimiser step with `recorders.torch`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from recorders.torch import Recorder
from trajtools.errors import MissingDependencyError


class RecorderHooks:
    """Hooks of `RecorderCallback`, which record a training run.

    Use it as ``Trainer(..., callbacks=[RecorderCallback("seed=0.h5")])``.

    Notes
    -----
    The metrics are those logged by the Trainer: ``loss``, its mean since the last log, and ``learning_rate``; they are
    stored with the state after the last update that they cover. ``logging_steps=1`` gives a loss for every state.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__()
        self.path = path
        self.options = options
        self.recorder: Recorder | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open the file; the weights are now on their device."""
        self.recorder = Recorder(self.path, model, **{"optimizer": "any", **self.options})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Record logged metrics; the final summary has no loss."""
        if self.recorder is not None and logs and "loss" in logs:
            nan = float("nan")
            self.recorder.record(loss=float(logs["loss"]), learning_rate=float(logs.get("learning_rate", nan)))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the file."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close()


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
