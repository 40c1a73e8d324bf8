"""What the callbacks of all trainers share: the file, its metrics, twins, a probe, and the numbers to log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from recorders.opening import explain_taken
from recorders.torch.loop_twins import LoopTwins
from recorders.torch.modules import devices_of, same_noise
from recorders.torch.ranks import is_first_rank, n_ranks, over_ranks
from recorders.torch.recorder import Recorder

Probe = Callable[[Any, Any], Mapping[str, Any]]


class TrainerRecording:
    """Recording of one training by a callback; each trainer adds its hooks.

    Parameters
    ----------
    path : path-like
        The file.
    probe : callable or None
        ``probe(model, batch)`` -> numbers by name, such as the ``metrics`` of `sharpness` or of a `Shadow`; called
        before a batch, every `probe_every` steps. The numbers are metrics of the state before the batch.
    probe_every : int
        Steps from one probe to the next.
    **options : object
        Options of `recorders.torch.Recorder`.

    Attributes
    ----------
    recorder : Recorder or None
        While a training is recorded.
    twins : LoopTwins or None
        While a training with twins is recorded.
    """

    _twin_options: dict[str, Any] | None = None

    def __init__(
        self, path: str | os.PathLike[str], *, probe: Probe | None = None, probe_every: int = 50, **options: Any
    ) -> None:
        super().__init__()
        if probe_every < 1:
            raise ValueError(f"probe_every={probe_every}: it must be at least 1 step")
        self.path = path
        self.options = options
        self.recorder: Recorder | None = None
        self.twins: LoopTwins | None = None
        self._probe, self._probe_every = probe, probe_every
        self._probes, self._probed = probe is not None, -1
        self._step = 0  # of the newest state

    def _open(
        self,
        call: str,
        model: Any,
        optimizers: Any,
        *,
        step: int,
        wrapped: Any = None,
        schedulers: Sequence[Any] = (),
        **defaults: Any,
    ) -> None:
        """Open the file; the weights are on their device, and those of a checkpoint are loaded."""
        state: Any = model
        if self._twin_options is None:
            defaults["optimizer"] = optimizers
        else:
            inner = model if wrapped is None else wrapped
            state = self.twins = LoopTwins(inner, optimizers, schedulers=schedulers, step=step, **self._twin_options)
        self._probes, self._probed = self._probe is not None, -1
        self._step = step
        with explain_taken(call, type(self).__name__):
            options = {**defaults, "step": step, **self.options}
            options["hparams"] = {**(defaults.get("hparams") or {}), **(self.options.get("hparams") or {})}
            if n_ranks() > 1:
                options["_mean_loss"] = True  # see `with_copies`
            self.recorder = Recorder(self.path, state, **options)
        self.recorder._unhook()

    def _take(self, step: int) -> None:
        """Record the state after an update, and plant twins."""
        self._step = step
        if self.recorder is None:
            return
        if self.twins is None:
            self.recorder._updated(step)
        else:
            self.twins.updated(step)

    def _run_probe(self, model: Any, batch: Any, step: int) -> None:
        """Record the numbers of the probe; an error ends it with a warning."""
        if not self._probes or self.recorder is None or step % self._probe_every or step == self._probed:
            return
        assert self._probe is not None
        self._probed = step
        try:
            with same_noise(devices_of(model.parameters())) as rewind:
                try:
                    numbers = self._probe(model, batch)
                finally:
                    rewind()
            self.recorder.record(**numbers)
        except Exception as error:
            self._probes = False
            text = f"the probe failed at step {step}: {type(error).__name__}: {error}"
            if is_first_rank():
                self.recorder._tape.remark(text, "It is not called any more.")

    @property
    def live(self) -> dict[str, float]:
        """The numbers to log: what twins and probes measured, those that are known."""
        if self.recorder is None:
            return {}
        own = ("loss", "learning_rate", "epoch")
        return {n: v for n, v in self.recorder.live.items() if isfinite(v) and not n.startswith((*own, "eval_"))}

    def _end(self, status: str, error: BaseException | None = None) -> None:
        """Close the file; a second call does nothing."""
        recorder, self.recorder, self.twins = self.recorder, None, None
        if recorder is None:
            return
        if error is None:
            recorder.close(status)
        else:
            recorder.__exit__(type(error), error, None)


class WithTwins:
    """Adds twins to the recording of a trainer's callback.

    Parameters
    ----------
    path : path-like
        The file.
    members : int
        Number of copies.
    epsilon, seed, distribution, only, allow_rounded, replant
        As in `recorders.torch.LoopTwins`.
    **options : object
        As for ``RecorderCallback``: options of `recorders.torch.Recorder`, ``probe``, ``probe_every``. For large models
        ``store="distances"`` keeps one number a copy in the file.

    Attributes
    ----------
    recorder : Recorder or None
        While a training is recorded.
    twins : LoopTwins or None
        While a training is recorded.

    Notes
    -----
    The training is that without the callback, to the bit. Each step costs that of ``members + 1`` trainings. The copies
    take the trainer's own training step, with its precision, accumulation and clipping, on the same batches with the
    same random numbers; see `recorders.torch.LoopTwins` for dropout, batch normalisation, and what a planting copies.
    Evaluation is left to the model of the trainer. A training that resumes plants its copies anew: they are in no
    checkpoint.

    The metric ``loss`` is that of every member. ``twin_exponent`` with its interval, ``twin_distance`` and
    ``twin_starts`` go to the loggers of the trainer whenever it logs (`recorders.live.Growth`).
    """

    _twin_options: dict[str, Any] | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        members: int = 2,
        epsilon: float | Mapping[str, Any] | None = None,
        seed: int = 0,
        distribution: str = "uniform",
        only: str | Sequence[str] = "weights",
        allow_rounded: bool = False,
        replant: str | int | None = "auto",
        **options: Any,
    ) -> None:
        super().__init__(path, **options)  # type: ignore[call-arg]
        self._twin_options = {
            "members": members,
            "epsilon": epsilon,
            "seed": seed,
            "distribution": distribution,
            "only": only,
            "allow_rounded": allow_rounded,
            "replant": replant,
        }


def with_copies(loss: Tensor, of_copies: Sequence[Tensor]) -> Tensor:
    """Losses of all members, for the metric of twins, or that of the model; of several ranks, their mean."""
    losses = torch.stack([loss, *(one.to(loss.device) for one in of_copies)]) if of_copies else loss
    return over_ranks(losses)


def callbacks(module: str, hooks: type, base: Callable[[], Any]) -> Callable[[str], Any]:
    """``__getattr__`` of a module of callbacks: the classes need their framework, the module does not."""
    kinds = {"RecorderCallback": (hooks,), "TwinsCallback": (WithTwins, hooks)}

    def of_module(name: str) -> Any:
        if name not in kinds:
            raise AttributeError(f"{module} has no {name!r}; it has {', '.join(kinds)}")
        made = type(name, (*kinds[name], base()), {"__doc__": kinds[name][0].__doc__, "__module__": module})
        setattr(sys.modules[module], name, made)
        return made

    return of_module
