"""A callback of Keras 3 that records every update of a fit, on its torch, JAX and TensorFlow backends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from recorders import recorder as framework_free
from recorders.background import warn
from recorders.opening import explain_taken
from trajtools.errors import MissingDependencyError


class RecorderHooks:
    """Hooks of `RecorderCallback`, which record a fit.

    Use it as ``model.fit(x, y, callbacks=[RecorderCallback("seed=0.h5")])``.

    Parameters
    ----------
    path : path-like
        The file.
    buffers : bool
        Record the variables of the optimiser (momenta, second moments, ...) with every state, in a separate table.
    model_buffers : bool
        Record the other variables of the model (moving statistics of BatchNorm, ...) beside every state.
    **options : object
        Options of `recorders.Recorder`: ``every``, ``store``, ``resume``, ... A second ``fit`` with the callback, or a
        notebook cell that is run again, finds its file there: ``mode="next"`` takes the next free name, ``mode="w"``
        overwrites it, ``resume=True`` continues it.

    Attributes
    ----------
    recorder : recorders.Recorder or None
        While a fit is recorded.

    Notes
    -----
    The state is the model's trainable variables when ``fit`` begins. Its step is ``optimizer.iterations``, so that
    accumulated batches count once, and a loaded model goes on where it was. With ``steps_per_execution=k`` Keras calls
    its callbacks, and a state is recorded, after every k updates.

    Keras logs running means over the epoch. The callback takes them apart: ``loss`` and every metric that is a mean
    (such as accuracy) are those of one batch, and belong to the state that they were computed from; over accumulated
    batches they are means. ``val_loss`` and the like belong to the state that was validated, ``learning_rate`` to the
    update to come.

    On TensorFlow, a model without an input shape has no weights before its first batch: its first state is then the one
    after the first update, and a warning says so.

    Keras tells its callbacks nothing of exceptions. A fit that ends by one, or by Ctrl-C, leaves the file open: use the
    callback as a context manager (``with RecorderCallback("fit.h5") as callback: model.fit(...)``) or call `close`;
    otherwise the file is closed by the next fit, or at exit.
    """

    model: Any

    def __init__(
        self, path: str | os.PathLike[str], *, buffers: bool = False, model_buffers: bool = False, **options: Any
    ) -> None:
        super().__init__()
        self.path = path
        self.options = options
        self.recorder: framework_free.Recorder | None = None
        self._buffers, self._model_buffers = buffers, model_buffers
        self._means: dict[str, tuple[float, float]] = {}  # total and count of each metric before the batch

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the file; the weights are built, and those of a checkpoint are loaded."""
        self.close("interrupted")
        if self.model.trainable_variables:
            self._open()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the running means before the batch."""
        self._means = dict(_running_means(self.model))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Record the metrics of the state before the update, then the state after it."""
        model = self.model
        if self.recorder is None:
            self._open()
            warn(
                "the model had no weights before its first batch, so its first recorded state is that of step "
                f"{_updates(model)}. Give it an input shape, or call model.build(...), to record step 0"
            )
            return
        metrics: dict[str, Any] = {}
        for name, (total, count) in _running_means(model):
            before = self._means.get(name, (0.0, 0.0))
            if count > before[1]:
                metrics[name] = (total - before[0]) / (count - before[1])
        self.recorder.record(**metrics)
        step = _updates(model)
        if step > self.recorder.step:
            self.recorder.advance(model, step=step, buffers=model if self._buffers else None)
            self.recorder.record(learning_rate=_learning_rate(model))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record what was measured of the newest state."""
        numbers: dict[str, Any] = {
            name: float(value) for name, value in (logs or {}).items() if name.startswith("val_")
        }
        if self.recorder is not None and numbers:
            self.recorder.record(**numbers)

    def on_train_end(self, logs: Any = None) -> None:
        """Close the file."""
        self.close()

    def close(self, status: str = "complete") -> None:
        """Close the file; a second call does nothing.

        Parameters
        ----------
        status : {"complete", "interrupted"}
            Status of the run in the file.
        """
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is not None and error is None:  # `on_train_end` has not come
            recorder.close("interrupted")
        elif recorder is not None:
            recorder.__exit__(kind, error, trace)

    def _open(self) -> None:
        model = self.model
        options = {"step": _updates(model), **self.options}
        if self._buffers:
            if not model.optimizer.built:  # TensorFlow does so with the first batch
                model.optimizer.build(model.trainable_variables)
            options["buffers"] = model
        with explain_taken("fit", "RecorderCallback"):
            self.recorder = _ModelRecorder(self.path, model, self._model_buffers, **options)
        self.recorder.record(learning_rate=_learning_rate(model))


class _ModelRecorder(framework_free.Recorder):
    """Records the trainable variables of a Keras model."""

    def __init__(self, path: str | os.PathLike[str], state: Any, model_buffers: bool, **options: Any) -> None:
        import keras

        self._to_numpy = keras.ops.convert_to_numpy
        self._with_own = model_buffers
        origin: dict[str, Any] = {"keras": {"version": keras.__version__, "backend": keras.backend.backend()}}
        self._origin = {**origin, "optimizer": _settings(state)}
        super().__init__(path, state, **options)

    def _named(self, state: Any) -> list[Mapping[str, Any]]:
        return [_named_variables(state.trainable_variables)]

    def _named_own(self, state: Any) -> list[Mapping[str, Any]]:
        variables = state.non_trainable_variables if self._with_own else []
        return [_named_variables([v for v in variables if str(v.dtype).startswith(("float", "bfloat"))])]

    def _named_buffers(self, buffers: Any) -> list[Mapping[str, Any]]:
        optimizer = buffers.optimizer
        skipped = {id(optimizer.iterations), id(optimizer.learning_rate)}
        kept = [v for v in optimizer.variables if id(v) not in skipped and str(v.dtype).startswith(("float", "bfloat"))]
        return [_named_variables([v for v in kept if not v.path.endswith("learning_rate")])]

    def _host(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        return [np.asarray(self._to_numpy(leaf)) for leaf in leaves]


def _named_variables(variables: Sequence[Any]) -> dict[str, Any]:
    """Path -> variable; where layers share a name, numbered."""
    named: dict[str, Any] = {}
    for variable in variables:
        path, n = variable.path, 1
        while path in named:
            n += 1
            path = f"{variable.path}_{n}"
        named[path] = variable
    return named


def _updates(model: Any) -> int:
    import keras

    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def _learning_rate(model: Any) -> float:
    import keras

    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


def _settings(model: Any) -> dict[str, Any]:
    """Name and settings of the optimiser, as torch names them."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # of a loss scale
    config = optimizer.get_config()
    found = {"name": type(optimizer).__name__, "lr": float(f"{_learning_rate(model):.6g}")}
    found |= {name: config[name] for name in ("momentum", "nesterov") if name in config}
    if "beta_1" in config:
        found["betas"] = [config["beta_1"], config["beta_2"]]
    if config.get("weight_decay"):
        found |= {"weight_decay": config["weight_decay"], "decoupled_weight_decay": True}
    return found | {"clips": any(config.get(name) for name in ("clipnorm", "global_clipnorm", "clipvalue"))}


def _running_means(model: Any) -> Iterator[tuple[str, tuple[float, float]]]:
    """Name, total and count of each metric that is a mean, those inside of containers included."""
    import keras

    waiting = list(model.metrics)
    while waiting:
        metric = waiting.pop(0)
        waiting += getattr(metric, "metrics", ())
        if hasattr(metric, "total") and hasattr(metric, "count"):
            total, count = (float(keras.ops.convert_to_numpy(one)) for one in (metric.total, metric.count))
            yield metric.name, (total, count)


def _callback_class() -> Any:
    """Return the Callback class of Keras."""
    try:
        from keras.callbacks import Callback
    except ImportError as error:
        raise MissingDependencyError(
            "recorders.keras needs Keras 3 and one of its backends: pip install keras"
        ) from error
    return Callback


if TYPE_CHECKING:
    from keras.callbacks import Callback

    class RecorderCallback(RecorderHooks, Callback):
        """Record a training run, see `RecorderHooks`."""
else:

    def __getattr__(name: str) -> Any:
        # The class needs its framework, this module does not: create it on first use.
        if name != "RecorderCallback":
            raise AttributeError(f"recorders.keras has no {name!r}; it has RecorderCallback")
        made = type(
            name, (RecorderHooks, _callback_class()), {"__doc__": RecorderHooks.__doc__, "__module__": __name__}
        )
        globals()[name] = made
        return made
