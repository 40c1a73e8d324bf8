"""Twins of a training that a loop or a trainer does: copies of its model and optimisers that make the same steps."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from recorders.background import RecordingWarning
from recorders.planting import check_replant, seed_of
from recorders.torch.modules import Walk, devices_of, innermost, refuse_sharded, same_noise, unwrap
from recorders.torch.ranks import from_first_rank, is_first_rank, n_ranks, over_ranks
from recorders.torch.recorder import followed
from recorders.torch.transfer import from_host
from recorders.torch.twins import ModuleTwins, copy_optimizer, drawn
from trajtools.errors import RecordingError
from trajtools.wiring import Member

_log = logging.getLogger("recorders")

STEP_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
CONTROLLED = 3
"""Updates for which an exact copy is trained; the first changes nothing where the rate rises from 0."""


@dataclass(eq=False)
class Copy:
    """One copy of what is trained.

    Attributes
    ----------
    model : torch.nn.Module
        As the loop has it, wrapped where the original is.
    optimizers, schedulers : list
        In the order of the originals.
    scaler : dict
        State of the loss scaling.
    kept : object
        What a trainer keeps with the copy.
    """

    model: nn.Module
    optimizers: list[Any]
    schedulers: list[Any]
    scaler: dict[str, Any] = field(default_factory=dict)
    kept: Any = None


class LoopTwins(ModuleTwins):
    """Twins of a training with a loop of its own: every step is made for the model, and for perturbed copies of it.

    The model of the loop is the reference; it is trained by the loop, not copied. The copies are trained by the same
    function on the same batches with the same random numbers.

    Parameters
    ----------
    model : torch.nn.Module
        What the loop trains, as it comes out of ``accelerator.prepare`` or `torch.compile`.
    optimizer : torch.optim.Optimizer or sequence of them
        Optimisers of the loop, with the wrappers of accelerate or without.
    epsilon, members, seed, distribution, only, allow_rounded
        As in `perturb`; epsilon from the dtype and the weights if not given.
    replant : {"auto", "saturation"}, int or None
        As in `Twins`.
    schedulers : sequence of LRScheduler
        Only those that the training step itself steps; each copy gets one of its own.
    scaler : torch.amp.GradScaler or None
        That of the loop, for fp16; of accelerate it is known. Each copy is scaled as the reference is, and skips the
        steps whose own gradients overflow.
    step : int
        Updates made before.

    Attributes
    ----------
    copies : list of Copy
        Empty once they could not be trained any more.
    models, members, made, plantings, room
        As in `Twins`; ``models[0]`` is the model of the loop.
    optimizers : tuple
        Those of the loop first, then those of the copies.

    Raises
    ------
    PerturbationError, ArchitectureError
        As in `perturb`; ArchitectureError also if the optimiser trains no parameter of the model.
    RecordingError
        If `optimizer` is none, or the model cannot be copied, or is trained by several processes and not wrapped in
        DistributedDataParallel.

    Notes
    -----
    The training of the model is the same to the bit as without twins: its weights, gradients and buffers, the random
    generators and the batch are as if the copies were not there. A step with n copies costs n + 1 steps. A copy takes
    the memory of the weights that are trained, of their gradients and of the optimiser; what is frozen is shared.

    Random numbers (dropout masks) are drawn once, the same for all. Before each step the copies take from the reference
    the train or eval mode of every module, what is frozen, and the settings of the optimisers: schedules are those of
    the reference. Buffers are their own: batch normalisation uses the statistics of the batch, which differ as the
    activations do, and keeps running averages for each copy. A planting copies weights, buffers and the state of the
    optimisers; other attributes of modules stay those of the copy.

    In the first three updates an exact copy is trained, too. If it differs from the reference then, the training cannot
    be repeated, and a `RecordingWarning` says how far it is. Copies that cannot be trained (an exception, no memory)
    end the recording with a warning, not the training.

    Under DistributedDataParallel every rank makes the twins, with the same arguments. A copy is wrapped as the model
    is, so that its gradients are averaged over the ranks, too. The first rank records, and decides when copies are
    planted anew; losses are means over the ranks. A copy that fails on one rank only (no memory there) leaves the
    others waiting until the process group times out.

    Examples
    --------
    >>> model = nn.Linear(4, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> twins = LoopTwins(model, optimizer, epsilon=1e-3, members=2)
    >>> x, y = torch.ones(8, 4), torch.zeros(8, dtype=torch.long)
    >>> def update(model, optimizer):
    ...     optimizer.zero_grad()
    ...     loss = nn.functional.cross_entropy(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> twins.step(update).shape
    torch.Size([3])
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        epsilon: float | Mapping[str, Any] | None = None,
        members: int = 2,
        seed: int = 0,
        distribution: str = "uniform",
        only: str | Sequence[str] = "weights",
        allow_rounded: bool = False,
        replant: str | int | None = "auto",
        schedulers: Sequence[Any] = (),
        scaler: Any = None,
        step: int = 0,
    ) -> None:
        check_replant(replant)
        _check_processes(model)
        perturbed = drawn(
            unwrap(model), epsilon, members, seed, distribution=distribution, only=only, allow_rounded=allow_rounded
        )
        assert perturbed.perturbation is not None
        table = (Member("reference"), *perturbed.members)
        super().__init__(table, perturbed[0].made, False, perturbation=perturbed.perturbation, replant=replant)
        followed(optimizer, [unwrap(model)])  # copies of an optimiser of another model would train nothing
        self._single = not isinstance(optimizer, list | tuple)
        optimizers = [optimizer] if self._single else list(optimizer)
        self._original = Copy(model, optimizers, list(schedulers))
        scalers = [scaler, *(getattr(one, "scaler", None) for one in optimizers)]
        self._scaler = next((one for one in scalers if one is not None and one.is_enabled()), None)
        self._shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.copies = [self._copied() for _ in range(members)]
        self._control: Copy | None = self._copied()
        self._controlled = 0
        self.models = (unwrap(model), *(unwrap(copy.model) for copy in self.copies))
        every = [*optimizers, *(one for copy in self.copies for one in copy.optimizers)]
        self.optimizers = tuple(map(innermost, every))
        self._walks = [Walk(one) for one in self.models]
        self._losses: list[Tensor] = []
        self._updates = step
        seed = seed_of(seed, step)
        self._plant({i: self._perturbation.moved(self._network(), seed, i - 1) for i in range(1, members + 1)})
        self._start()
        size = sum(p.numel() * p.element_size() for p in self.leaves[0].values())
        _log.info(
            "%d twins: a step costs that of %d trainings, and %.3g MB hold their weights and gradients; each has the "
            "optimiser state of the training, too", members, members + 1, 2e-6 * size * members,
        )  # fmt: skip

    def _copied(self) -> Copy:
        """An exact copy of what is trained; frozen parameters are shared."""
        memo: dict[int, Any] = dict(self._shared)
        original = self._original
        try:
            model = deepcopy(original.model, memo)
            optimizers = [_copied_optimizer(one, memo) for one in original.optimizers]
            return Copy(model, optimizers, [deepcopy(one, memo) for one in original.schedulers])
        except Exception as error:
            raise RecordingError(
                f"twins are trained copies, and this training cannot be copied: {type(error).__name__}: {error}. "
                "Remove from the model what `copy.deepcopy` does not take (files, graphs of a loss, locks), or record "
                "it without twins"
            ) from error

    @property
    def leaves(self) -> list[dict[str, Any]]:
        """The trained tensors by name, one mapping per member: what had ``requires_grad`` at the start."""
        return [walk.named() for walk in self._walks]

    # -- training

    def step(self, update: Callable[[Any, Any], Tensor | None]) -> Tensor | None:
        """Make one step of the loop for the model and for every copy.

        Parameters
        ----------
        update : callable
            ``update(model, optimizer)`` -> loss: the step of the loop, ``zero_grad``, forward, backward and ``step``,
            on the current batch (several optimisers: as a list). Schedulers are stepped outside. A call in which the
            optimiser does not step (accumulated gradients) is part of the update that follows.

        Returns
        -------
        Tensor of shape (M,), or None
            Losses of the members, detached; None if `update` returns none. The loss of the model alone once the copies
            could not be trained.
        """
        if self._scaler is None:
            _refuse_unknown_scaler(update)
        rows = self.replay(lambda copy: update(copy.model, copy.optimizers[0] if self._single else copy.optimizers))
        stepped: list[bool] = []
        last = innermost(self._original.optimizers[-1])
        handle = last.register_step_post_hook(lambda *_: stepped.append(True))
        try:
            optimizers = self._original.optimizers
            loss = update(self._original.model, optimizers[0] if self._single else optimizers)
        finally:
            handle.remove()
        losses = None if loss is None else torch.stack([one.detach() for one in (loss, *rows)])
        if losses is not None:
            self._losses.append(losses)
        if stepped:
            known, self._losses = self._losses, []
            if known and self.copies:
                mean = over_ranks(torch.stack(known).mean(0))
                if self._recorder is not None:
                    self._recorder.record(loss=mean)
            self.updated()
        return losses

    def replay(self, train: Callable[[Copy], Any]) -> list[Any]:
        """Train every copy as the reference is about to be trained.

        Parameters
        ----------
        train : callable
            ``train(copy)``; called for each copy with the random generators as they are now, and as they are left.

        Returns
        -------
        list
            What `train` returns for the copies; empty once they could not be trained any more.
        """
        if not self.copies:
            return []
        try:
            self._follow()
            with self._reference_untouched() as rewind:
                results = []
                for copy in self._followers():
                    rewind()
                    with self._scaled_alike(copy):
                        results.append(train(copy))
        except Exception as error:
            self._lose(error)
            return []
        return results[: len(self.copies)]

    def updated(self, step: int | None = None) -> None:
        """Take that the reference and the copies were updated: plant what is due, and record the state.

        Parameters
        ----------
        step : int or None
            Step of the state, as a trainer counts it; one more than the last if None.
        """
        if not self.copies:
            return
        self._compare_control()
        self._replant(step=step)
        if self._recorder is not None:
            self._recorder._advance(step)

    def _followers(self) -> list[Copy]:
        return self.copies if self._control is None else [*self.copies, self._control]

    @contextmanager
    def _reference_untouched(self) -> Iterator[Callable[[], None]]:
        """Keep generators and gradients of the reference; a copy that trains the original is an error."""
        gradients = [(parameter, parameter.grad) for parameter in self.models[0].parameters()]
        for parameter, _ in gradients:
            parameter.grad = None
        strayed = False
        with same_noise(devices_of(parameter for parameter, _ in gradients)) as rewind:
            try:
                yield rewind
            finally:
                rewind()
                for parameter, gradient in gradients:
                    strayed |= parameter.grad is not None
                    parameter.grad = gradient
        if strayed:
            raise RecordingError(
                "a pass of a copy reached the weights of the original: an attribute of the model is bound to it (a "
                "compiled or patched forward), and does not follow a copy"
            )

    def _follow(self) -> None:
        """Give the copies what the loop has changed in the reference since the last step."""
        original = self._original
        modules = list(original.model.modules())
        theirs = list(original.model.parameters())
        thawed = [parameter for parameter in theirs if parameter.requires_grad and id(parameter) in self._shared]
        for copy in self._followers():
            for mine, module in zip(copy.model.modules(), modules, strict=True):
                mine.training = module.training
                if isinstance(module, nn.parallel.DistributedDataParallel):  # off in `no_sync`
                    mine.require_backward_grad_sync = module.require_backward_grad_sync
            if thawed:
                _unshare(copy.model, thawed)
            for ours, parameter in zip(copy.model.parameters(), theirs, strict=True):
                if ours.requires_grad != parameter.requires_grad:
                    ours.requires_grad_(parameter.requires_grad)
            self._follow_settings(copy)
            for scheduler, one in zip(copy.schedulers, original.schedulers, strict=True):
                scheduler.load_state_dict(deepcopy(one.state_dict()))
        for parameter in thawed:
            del self._shared[id(parameter)]

    @contextmanager
    def _scaled_alike(self, copy: Copy) -> Iterator[None]:
        """Give the scaler of the loop to a copy: the scale of the reference, and its own record of overflows."""
        if self._scaler is None:
            yield
            return
        held = vars(self._scaler)
        original = dict(held)
        shared = {name: value.clone() for name, value in original.items() if isinstance(value, Tensor)}
        own = copy.scaler or {"_per_optimizer_states": deepcopy(original["_per_optimizer_states"])}
        held.update({**shared, **own})
        try:
            yield
        finally:
            copy.scaler = {"_per_optimizer_states": held["_per_optimizer_states"]}
            held.clear()
            held.update(original)

    def _due(self, step: int) -> tuple[int, ...]:
        """Copies to plant in the state of a step; the first of several ranks decides, as only it knows the recorder."""
        if n_ranks() == 1:
            return super()._due(step)
        due = super()._due(step) if is_first_rank() else ()
        marks = torch.zeros(len(self.members), dtype=torch.uint8, device=next(self.models[0].parameters()).device)
        marks[list(due)] = 1
        return tuple(from_first_rank(marks).nonzero().flatten().tolist())

    def _follow_settings(self, copy: Copy) -> None:
        """Copy rates and other settings of the optimisers, and add the groups of parameters that were added."""
        for mine, theirs in zip(copy.optimizers, self._original.optimizers, strict=True):
            ours, source = innermost(mine).param_groups, innermost(theirs).param_groups
            if len(ours) < len(source):
                pairs = zip(self._original.model.parameters(), copy.model.parameters(), strict=True)
                partner = {id(parameter): other for parameter, other in pairs}
                for group in source[len(ours) :]:
                    innermost(mine).add_param_group({**group, "params": [partner[id(p)] for p in group["params"]]})
            for group, other in zip(ours, source, strict=True):
                group.update({name: value for name, value in other.items() if name not in ("params", "param_names")})

    def _compare_control(self) -> None:
        """Compare the exact copy with the reference after the first updates, and drop it."""
        self._controlled += 1
        if self._control is None or self._controlled < CONTROLLED:
            return
        control, self._control = self._control, None
        gaps = []
        with torch.no_grad():
            for ours, theirs in zip(control.model.parameters(), self._original.model.parameters(), strict=True):
                if not bool(((ours == theirs) | (ours.isnan() & theirs.isnan())).all()):
                    gaps.append(float(torch.linalg.vector_norm((ours - theirs).double())))
        if not gaps:
            return
        text = (
            f"an exact copy of the model is {np.sqrt(np.square(gaps).sum()):.2g} away from it after {CONTROLLED} "
            "updates on the same batches with the same random numbers: this training cannot be repeated to the bit "
            "(kernels that sum in any order, random numbers of its own, a hook that copies do not have). The distances "
            "of its twins contain that difference, too"
        )
        if self._recorder is not None:
            self._recorder._tape.remark(text, "They are recorded.")
        else:
            warnings.warn(text, RecordingWarning, stacklevel=3)

    def _lose(self, error: Exception) -> None:
        """Free copies that cannot be trained; without a recorder, raise."""
        self.copies, self._control = [], None
        self.models, self._walks = self.models[:1], self._walks[:1]
        self.optimizers = self.optimizers[: len(self._original.optimizers)]
        if self._recorder is None and is_first_rank():
            raise error
        if self._recorder is None:
            warnings.warn(f"the twins could not be trained: {type(error).__name__}: {error}", RecordingWarning, 4)
            return
        self._recorder._tape.stop(f"the twins could not be trained: {type(error).__name__}: {error}", error)

    def _plant(self, moved: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Make copies anew from the reference."""
        reference = self._original
        with torch.no_grad():
            for i, arrays in moved.items():
                copy = self.copies[i - 1]
                for ours, theirs in zip(copy.model.parameters(), reference.model.parameters(), strict=True):
                    if ours is not theirs:
                        ours.copy_(theirs)
                for name, parameter in self._walks[i].named().items():
                    from_host(arrays[name], parameter)
                for ours, theirs in zip(copy.model.buffers(), reference.model.buffers(), strict=True):
                    ours.copy_(theirs)
                for mine, one in zip(copy.optimizers, reference.optimizers, strict=True):
                    copy_optimizer(innermost(one), innermost(mine))


def _check_processes(model: nn.Module) -> None:
    """Raise for a training in several processes, unless they are known to have common gradients."""
    shell = nn.parallel.DistributedDataParallel
    if n_ranks() > 1 and not any(isinstance(module, shell) for module in model.modules()):
        refuse_sharded(unwrap(model))
        raise RecordingError(
            f"this training runs in {n_ranks()} processes, and its model is not wrapped in DistributedDataParallel: "
            "how its gradients are put together is not known, so that copies cannot be trained alike. Wrap it, train "
            "in one process, or record without twins"
        )


def _refuse_unknown_scaler(update: Callable[..., Any]) -> None:
    """Raise if the step of a loop scales its loss by a scaler that would count the steps of the copies, too."""
    try:
        names = inspect.getclosurevars(update)
    except (TypeError, ValueError):  # no function of Python, or one with variables that have no value yet
        return
    known = (*names.nonlocals.values(), *names.globals.values(), *(getattr(update, "__defaults__", None) or ()))
    if any(isinstance(one, torch.amp.GradScaler) and one.is_enabled() for one in known):
        raise RecordingError("the loop scales its loss: pass its GradScaler, LoopTwins(..., scaler=scaler)")


def _copied_optimizer(optimizer: Any, memo: dict[int, Any]) -> Any:
    """Copy an optimiser, and the wrapper of a trainer around it, for the copies of its parameters in `memo`."""
    copy = object.__new__(type(optimizer))
    memo[id(optimizer)] = copy
    inner = vars(optimizer).get("optimizer")
    held = {name: value for name, value in vars(optimizer).items() if name != "step"}  # schedulers replace it
    if isinstance(inner, Optimizer):
        vars(copy).update({**held, "optimizer": _copied_optimizer(inner, memo)})
        if held.get("scaler") is not None:
            copy.__setstate__({})  # accelerate patches the step of the optimiser that it wraps
        return copy
    for name, value in held.items():
        if name in STEP_HOOKS:  # functions of the loop; those of a recorder are not for copies
            theirs = {key: hook for key, hook in value.items() if not str(hook.__module__).startswith("recorders")}
            vars(copy)[name] = type(value)(theirs)
        elif name.startswith("_optimizer_"):
            vars(copy)[name] = type(value)()
        else:
            vars(copy)[name] = deepcopy(value, memo)
    return copy


def _unshare(model: nn.Module, thawed: Sequence[nn.Parameter]) -> None:
    """Give a copy parameters of its own for those that train from now on; tied ones once."""
    own = {id(parameter): nn.Parameter(parameter.detach().clone()) for parameter in thawed}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if id(parameter) in own:
                module._parameters[key] = own[id(parameter)]
