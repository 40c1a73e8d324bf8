"""Training of a torch module and its perturbed copies in lock-step, on common batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recorders.torch import lockstep
from recorders.torch.modules import trainable, unwrap
from recorders.torch.perturbed import MARK, perturb
from trajtools.errors import RecordingError
from trajtools.parameters import Member

LossFunction = Callable[..., Tensor]


class Twins:
    """A reference and its perturbed copies, trained in lock-step on common batches with common noise.

    Parameters
    ----------
    model : torch.nn.Module
        The reference. It is copied and never changed; train/eval mode is taken over.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    optimizer_factory : callable
        ``optimizer_factory(parameters)`` -> torch.optim.Optimizer, called with the parameters of one member.
    epsilon, members, seed, distribution, only, allow_rounded
        As for `perturb`.
    scheduler_factory : callable or None
        ``scheduler_factory(optimizer)`` -> scheduler; `schedule` steps it.
    max_norm : float or None
        Clip the gradient of every member to this 2-norm, as `torch.nn.utils.clip_grad_norm_`.
    vectorize : {"auto", True, False}
        False: every member its own passes and its own optimiser. "auto": all members in one vectorised pass where
        that gives equal members equal bits, which the first batch of every shape is used to find out. True:
        vectorised even if equal members are rounded differently; an error if it cannot be done at all.

    Attributes
    ----------
    models : tuple of torch.nn.Module
        The reference copy and its twins, always up to date; evaluate with them, do not move or replace them.
    members : tuple of Member
        Entries of the members table.
    made : dict
        Settings of the perturbation and the fraction that was rounded away.
    optimizers, schedulers : tuple
        One for all members where the optimiser works entry by entry (SGD, Adam, ...), else one a member.

    Raises
    ------
    PerturbationError, ArchitectureError
        As for `perturb`.
    ValueError
        If ``vectorize=True`` and the optimiser mixes entries (LBFGS, Adafactor, Muon, ...).

    Notes
    -----
    Common noise: what a forward pass draws (dropout) is drawn once and the same for all members; the global generators
    of torch, numpy and random then stand where one pass would have left them.

    Examples
    --------
    >>> model = nn.Linear(4, 3)
    >>> twins = Twins(model, nn.CrossEntropyLoss(), torch.optim.SGD, epsilon=1e-3, members=2, seed=0)
    >>> twins.step(torch.ones(8, 4), torch.zeros(8, dtype=torch.long)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        optimizer_factory: Callable[[Any], Any],
        *,
        epsilon: float | Mapping[str, Any],
        members: int,
        seed: int,
        distribution: str = "uniform",
        only: str | Sequence[str] = "weights",
        allow_rounded: bool = False,
        scheduler_factory: Callable[[Any], Any] | None = None,
        max_norm: float | None = None,
        vectorize: bool | str = "auto",
    ) -> None:
        if vectorize not in (True, False, "auto"):
            raise ValueError(f'vectorize={vectorize!r}: it must be True, False or "auto"')
        model = unwrap(model)
        copies = perturb(
            model, epsilon, members, seed, distribution=distribution, only=only, allow_rounded=allow_rounded
        )
        self.models: tuple[nn.Module, ...] = (deepcopy(model), *copies)
        self.members: tuple[Member, ...] = (Member("reference"), *(getattr(copy, MARK).member for copy in copies))
        self.made: dict[str, Any] = getattr(copies[0], MARK).made
        self._loss_fn = loss_fn
        self._max_norm = max_norm
        self._vectorize = vectorize
        self._plans: dict[Any, tuple[bool, str]] = {}
        self._plan: tuple[bool, str] | None = None
        self._recorder: Any = None
        self._stacked: dict[str, Tensor] | None = None
        self.optimizers: tuple[Any, ...] = self._make_optimizers(optimizer_factory)
        factory = scheduler_factory
        self.schedulers: tuple[Any, ...] = tuple(map(factory, self.optimizers)) if factory else ()

    def _make_optimizers(self, factory: Callable[[Any], Any]) -> tuple[Any, ...]:
        """One optimiser over all members where that is the same, else one for each."""
        first = factory(list(trainable(self.models[0]).values()))
        if self._vectorize is False:
            self._plan = (False, "vectorize=False")
        elif type(first) not in lockstep.ELEMENTWISE:
            self._plan = (False, f"{type(first).__name__} is not known to update every entry by itself")
            if self._vectorize is True:
                raise ValueError(
                    f'vectorize=True: {self._plan[1]}, so one of it cannot hold all members; use vectorize="auto"'
                )
        else:
            self._stacked = lockstep.stack(self.models)
            return (lockstep.one_optimizer(self.models, self._stacked, first),)
        return (first, *(factory(list(trainable(model).values())) for model in self.models[1:]))

    def __len__(self) -> int:
        return len(self.models)

    @property
    def vectorized(self) -> bool | None:
        """Whether the last step computed all members in one vectorised pass; None before the first."""
        return self._plan[0] if self._plan else None

    @property
    def reason(self) -> str:
        """Why the steps are vectorised or not, in words; empty before the first step."""
        return self._plan[1] if self._plan else ""

    @property
    def state(self) -> dict[str, Tensor]:
        """Trainable parameters of all members, name -> Tensor (M, ...), detached."""
        if self._stacked is not None:
            return {name: values.detach() for name, values in self._stacked.items()}
        rows = [trainable(model) for model in self.models]
        return {name: torch.stack([row[name].detach() for row in rows]) for name in rows[0]}

    @property
    def leaves(self) -> list[dict[str, Any]]:
        """The very tensors that the optimisers hold, by name: one mapping (M, ...), or one for each member."""
        if self._stacked is not None:
            return [self._stacked]
        return [dict(trainable(model)) for model in self.models]

    def reference(self) -> dict[str, Tensor]:
        """Give the state of the reference back, to be loaded into the user's model.

        Returns
        -------
        dict of str to Tensor
            A copied ``state_dict``, buffers included: ``model.load_state_dict(twins.reference())``.
        """
        return {name: value.detach().clone() for name, value in self.models[0].state_dict().items()}

    def step(self, x: Any, *targets: Any) -> Tensor:
        """Train every member on the same batch, one update each.

        Parameters
        ----------
        x : Tensor, tuple or dict
            Input of the model: one argument, several, or keywords.
        *targets : object
            Passed on to the loss function after the output.

        Returns
        -------
        Tensor of shape (M,)
            Losses of the members before the update, detached.

        Raises
        ------
        RuntimeError
            If ``vectorize=True`` and the model cannot be vectorised.
        """
        batch = (x, *targets)
        losses = self._step_apart(batch) if self._stacked is None else self._step_together(self._stacked, batch)
        if self._recorder is not None:
            self._recorder.advance(self)
        return losses

    def _step_apart(self, batch: Any) -> Tensor:
        """Each member its own passes and its own optimiser, under the same noise."""
        losses: list[Tensor] = []

        def closure(i: int) -> Callable[[], Tensor]:
            def evaluate() -> Tensor:
                self.optimizers[i].zero_grad()
                loss = lockstep.scalar(self._loss_fn(lockstep.call(self.models[i], batch[0]), *batch[1:]))
                loss.backward()
                if self._max_norm is not None:
                    nn.utils.clip_grad_norm_(self.models[i].parameters(), self._max_norm)
                return loss

            return evaluate

        with lockstep.same_noise(lockstep.devices_of(self.models[0].parameters())) as rewind:
            for i, optimizer in enumerate(self.optimizers):
                if i:
                    rewind()
                losses.append(optimizer.step(closure(i)).detach())
        found = torch.stack(losses)
        self._note(found)
        return found

    def _step_together(self, stacked: dict[str, Tensor], batch: Any) -> Tensor:
        """All members under one optimiser; their gradients in one pass or one after the other."""
        self._plan = self._planned(stacked, batch)
        optimizer = self.optimizers[0]
        optimizer.zero_grad()
        with torch.enable_grad():
            if self.vectorized:
                losses = lockstep.losses_at_once(self.models[0], self._loss_fn, stacked, batch)
                losses.sum().backward()
            else:
                losses = lockstep.gradients_one_by_one(self.models, self._loss_fn, stacked, batch)
        if self._max_norm is not None:
            lockstep.clip(stacked, self._max_norm)
        self._note(losses.detach())
        optimizer.step()
        return losses.detach()

    def _planned(self, stacked: dict[str, Tensor], batch: Any) -> tuple[bool, str]:
        """Vectorised or not, and why, for batches of this shape."""
        key = (_shape(batch), tuple(module.training for module in self.models[0].modules()))
        if key not in self._plans:
            impossible, uneven = lockstep.why_not_at_once(self.models[0], self._loss_fn, stacked, batch)
            if self._vectorize is True and impossible:
                raise RuntimeError(f'vectorize=True: {impossible}; use vectorize="auto"')
            if impossible or (uneven and self._vectorize == "auto"):
                self._plans[key] = (False, impossible or uneven)
            else:
                self._plans[key] = (True, f"vectorize=True although {uneven}" if uneven else "vectorised")
        return self._plans[key]

    def schedule(self, *arguments: Any) -> None:
        """Step every scheduler.

        Parameters
        ----------
        *arguments : object
            Passed on to ``scheduler.step``, the same for all.
        """
        for scheduler in self.schedulers:
            scheduler.step(*arguments)

    def _note(self, losses: Tensor) -> None:
        """Hand the losses to the recorder, before the update that follows them."""
        if self._recorder is not None:
            self._recorder.record(loss=losses)

    def attach(self, recorder: Any) -> None:
        """Let a recorder follow every step; a recorder opened on the twins does this by itself.

        Parameters
        ----------
        recorder : Recorder or None
            What is told the losses and the new state; None ends it.

        Raises
        ------
        RecordingError
            If another recorder follows already.
        """
        if recorder is not None and self._recorder is not None:
            raise RecordingError("a recorder follows these twins already: close it before another one is opened")
        self._recorder = recorder


def _shape(batch: Any) -> Any:
    """What of a batch decides how kernels divide their work."""
    if isinstance(batch, Tensor):
        return tuple(batch.shape), batch.dtype
    if isinstance(batch, Mapping):
        return tuple((key, _shape(value)) for key, value in batch.items())
    if isinstance(batch, list | tuple):
        return tuple(map(_shape, batch))
    return np.shape(batch) if isinstance(batch, np.ndarray) else type(batch)
