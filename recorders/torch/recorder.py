"""The recorder of torch modules: via the step hook of the optimiser, explicit calls, or any trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from recorders import recorder as framework_free
from recorders.adapter import Beside, Pending
from recorders.opening import member_table
from recorders.shards import OtherRank
from recorders.torch.modules import (
    Walk,
    clean,
    describe,
    innermost,
    refuse_unreadable,
    roles,
    trainable,
    unwrap,
    wiring,
)
from recorders.torch.ranks import is_first_rank, n_ranks
from recorders.torch.shards import is_sharded, shards_of
from recorders.torch.transfer import HostReader, distances
from recorders.torch.twins import MARK, ModuleTwins
from recorders.twins import Twin
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.wiring import is_selected, listed, select

CLOCKS = frozenset(("step", "mu_product", "eta", "mu"))
"""Scalar buffers that count or schedule steps; `eta` and `mu` belong to ASGD, `mu_product` to NAdam."""
Shapes = dict[str, tuple[int, ...]]
Option = tuple[str, str]
MOMENTS = ("exp_avg", "exp_avg_sq")
KEPT: tuple[tuple[str, tuple[str, ...], tuple[Option, ...]], ...] = (
    ("SGD", (), (("momentum_buffer", "momentum"),)),
    ("Adam", MOMENTS, (("max_exp_avg_sq", "amsgrad"),)),
    ("AdamW", MOMENTS, (("max_exp_avg_sq", "amsgrad"),)),
    ("NAdam", MOMENTS, ()),
    ("RAdam", MOMENTS, ()),
    ("SparseAdam", MOMENTS, ()),
    ("Adamax", ("exp_avg", "exp_inf"), ()),
    ("Adadelta", ("square_avg", "acc_delta"), ()),
    ("Adagrad", ("sum",), ()),
    ("RMSprop", ("square_avg",), (("momentum_buffer", "momentum"), ("grad_avg", "centered"))),
    ("Rprop", ("prev", "step_size"), ()),
    ("ASGD", ("ax",), ()),
    ("Muon", ("momentum_buffer",), ()),
)
"""Class in torch.optim; its permanent buffers; buffers that depend on an option of the group."""


class Recorder(framework_free.Recorder):
    """Record the trainable parameters of a module, or of several trained in lock-step.

    Parameters
    ----------
    path : path-like
        The file.
    state : torch.nn.Module, list of them, Twins, or {name: Tensor}
        One network; members of one run (``[model, *perturb(model, ...)]``); `Twins` or `LoopTwins`, which are then
        recorded automatically at every step; or tensors, with a leading member axis if `members` is set
        (``torch.func.stack_module_state``). torch.compile and DistributedDataParallel are unwrapped.
    optimizer : torch.optim.Optimizer, list of them, "any" or None
        Every step of it stores a state. With several, a state is stored after each step of the last one in the list.
        "any": every step of any optimiser that owns a parameter of the state, wherever a trainer created it.
        None: `record` stores the state.
    buffers : bool, str or sequence of str
        Record the buffers of the optimiser (``momentum_buffer``, ``exp_avg``, ...) with every state, as
        ``<parameter>.<buffer>`` in a separate table. True: every tensor of ``optimizer.state`` of the recorded
        parameters, except step counts. Names: only those, each of the size of its parameter. A buffer that the
        optimiser has not created yet is zero.
    model_buffers : bool, str or sequence of str
        Record the buffers of the module (running statistics of BatchNorm, ...) beside every state, never in it: all of
        floating-point numbers, or those that match globs.
    learning_rate : bool or None
        Record the learning rates of the optimiser as metrics ``learning_rate`` (several parameter groups:
        ``learning_rate_0``, ...). None: True with one optimiser, and for twins.
    every_rank : bool
        Under torch.distributed only rank 0 records by default, and the other recorders do nothing, because data
        parallel ranks have equal weights; metrics are those of rank 0, and the provenance says so. True: this rank
        trains a separate network and records it to its own path.
    **options : object
        Options of `recorders.Recorder`: ``name``, ``hparams``, ``every``, ``include``, ``store``, ...

    Raises
    ------
    ArchitectureError
        If the model is wrapped in FullyShardedDataParallel, has no trainable parameters, or is not trained by the
        optimiser.
    RecordingError
        As in `recorders.Recorder`.

    Notes
    -----
    The state is the set of parameters with ``requires_grad`` when the recorder opens, tied weights once; frozen
    parameters and aliases are listed in the provenance. A parameter frozen later stays in the state. A parameter
    unfrozen later is not recorded, and one that is pruned or removed ends the recording: each is one
    `RecordingWarning` and a remark in the notes of the file, or with ``strict=True`` an error. Unfreeze everything
    before opening the recorder.

    An update is a completed call of ``optimizer.step``: accumulated micro-batches count once, steps skipped by a
    GradScaler not at all, LBFGS once for all its inner iterates. A copied optimiser (``copy.deepcopy``) loses the hook:
    the recorder warns on closing. Optimisers that run inside the backward pass, one per parameter, fire once each:
    record those explicitly.

    With momentum, the weights alone do not determine the next step; weights and buffers do. Buffers make a run two
    (momentum) or three times (Adam) as large. An optimiser without buffers records none.

    A model that is sharded (FSDP2's `fully_shard`, DTensor parameters) is recorded by every rank: each writes the part
    that it holds to ``<name>.rank<i>.h5``, and nothing is gathered. `trajtools.open` reads these files as one run. All
    ranks open the recorder, with the same arguments, and none of them waits for another afterwards; if one cannot open
    its file, none records. Copies of a network for twins are made and marked by `perturb` before the model is sharded.

    On CUDA a state is cloned on the device, and the clone is transferred to pinned memory on a separate stream; see
    `recorders.torch.transfer.CudaReader`.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with Recorder("loop.h5", model, optimizer=optimizer, quiet=True) as recorder:
    ...     for _ in range(3):
    ...         loss = model(torch.ones(4, 2)).square().mean()
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         recorder.record(loss=loss)
    ...         optimizer.step()
    >>> recorder.n_recorded
    4
    """

    _shards: Any

    def __new__(  # noqa: D102
        cls, path: str | PathLike[str], state: Any, *, every_rank: bool = False, **options: Any
    ) -> Self:
        shards = shards_of(_simplest(state))
        if options.get("model_buffers") and (shards is not None or isinstance(state, ModuleTwins)):
            raise RecordingError(
                "model_buffers= are those of one whole network or of a list of them, not of twins or of a sharded one"
            )
        if shards is None:
            records = every_rank or is_first_rank()
        else:
            shards.agree(path, **options)
            records = shards.is_recording
        made: Any = object.__new__(cls if records else _OtherRank)
        made._shards = shards
        return made

    def __init__(
        self,
        path: str | PathLike[str],
        state: nn.Module | Sequence[nn.Module] | ModuleTwins | Mapping[str, Tensor],
        *,
        optimizer: Optimizer | Sequence[Optimizer] | str | None = None,
        buffers: bool | str | Sequence[str] = False,
        model_buffers: bool | str | Sequence[str] = False,
        learning_rate: bool | None = None,
        every_rank: bool = False,
        **options: Any,
    ) -> None:
        self._handles: list[Any] = []
        self._left_out: set[str] = set()
        self._updates = self._calls = 0
        self._by_hook = optimizer is not None or isinstance(state, ModuleTwins)
        self._owners: WeakKeyDictionary[Any, tuple[int, bool]] = WeakKeyDictionary()
        self._optimizers = followed(optimizer, state)
        self._own_globs = ("*",) if model_buffers is True else names_of(model_buffers)
        self._held = OptimizerBuffers(self._optimizers, buffers) if buffers else None
        one = isinstance(state, ModuleTwins) or len(self._optimizers) == 1
        self._with_rate = one if learning_rate is None else learning_rate
        if self._with_rate and not self._optimizers:
            raise RecordingError("learning_rate=True needs optimizer=: the rate is read from the optimiser")
        mean_loss = options.pop("_mean_loss", False) or isinstance(state, ModuleTwins)  # of several ranks
        self._state = _simplest(state)
        self._walks = [Walk(model) for model in _modules(self._state)]
        self._reader = HostReader()
        if self._walks:
            first = self._walks[0].model
            roles_by_name = roles(first)
            options.setdefault("kinds", {name: role.kind for name, role in roles_by_name.items()})
            options.setdefault("axes", {n: (role.source_axis, role.target_axis) for n, role in roles_by_name.items()})
            self._wire(first, options)
            self._origin = _provenance(first)
            if n_ranks() > 1 and self._shards is None:
                self._origin["torch"]["ranks"] = _of_ranks(mean_loss, every_rank)
        settings = [_settings(one) for one in self._optimizers]
        if settings and all(one == settings[0] for one in settings):
            self._origin = {**self._origin, "optimizer": settings[0]}
        if isinstance(state, ModuleTwins):
            self._twins = state
            options["members"] = list(state.members)
            options["plantings"] = state._newest_plantings()
            options["metrics"] = self._with_twin_metrics(len(state), options.get("metrics"))
            self._origin = {**self._origin, "perturbations": [state.made]}
            state.attach(self)
        self._members = options.get("members")
        try:
            with self._shards.opening(self) if self._shards else nullcontext():
                place = self._shards.path if self._shards else path
                super().__init__(place, self._state, buffers=self._held, **options)
        except BaseException:
            if isinstance(state, ModuleTwins):
                state.attach(None)
            raise
        self._writes = self._count_writes(self._state)
        self._changes = 0  # how often weights were seen to change without a step
        self._hook_up(optimizer)

    @staticmethod
    def _wire(model: nn.Module, options: dict[str, Any]) -> None:
        """Add what attention connects to the wiring of the user, of the parameters that are recorded."""
        known = wiring(model)
        if known is not None:
            names = select(list(trainable(model)), options.get("include", ()), options.get("exclude", ()))
            own = options.get("wiring") or {}
            options["wiring"] = {name: ends for name, ends in known.items() if name in names} | dict(own)

    # -- reading a state, for recorders.recorder

    def _named(self, state: Any) -> list[Mapping[str, Any]]:
        """Return name -> parameter for each member."""
        whole = self._whole(state)
        if self._shards is None:
            return whole
        return [_like(mapping, self._shards.local(mapping, i)) for i, mapping in enumerate(whole)]

    def _whole(self, state: Any) -> list[Mapping[str, Any]]:
        """Return name -> parameter for each member, sharded ones as the optimiser knows them."""
        if isinstance(state, ModuleTwins):
            self._look_for_unfrozen()
            return list(state.leaves)
        if isinstance(state, Mapping):
            return [state]
        models = [unwrap(model) for model in ([state] if isinstance(state, nn.Module) else state)]
        if len(models) != len(self._walks) or any(m is not w.model for m, w in zip(models, self._walks, strict=True)):
            self._walks = [Walk(model) for model in _simplest(models)]
        mappings = [_with_member(walk.named(), walk.model) for walk in self._walks]
        self._look_for_unfrozen()
        return mappings

    def _look_for_unfrozen(self) -> None:
        """Warn once of parameters that train and are not recorded."""
        if any(walk.is_incomplete for walk in self._walks):
            return  # the network has changed, which is refused
        self._leave_out(
            {name for walk in self._walks for name in walk.unfrozen()},
            "frozen or absent when the recorder opened, and trainable now. To record everything, open the recorder "
            "while all that will ever train has requires_grad=True, and freeze afterwards",
        )

    def _leave_out(self, names: set[str], why: str) -> None:
        """Warn once of arrays that are not recorded."""
        news = sorted(names - self._left_out)
        if news:
            self._left_out |= names
            self._tape.remark(f"not recorded: {listed(news)}, {why}", "The training goes on, and all else is recorded.")

    def _host(self, leaves: Sequence[Tensor]) -> list[np.ndarray] | Pending:
        """Return host arrays of the leaves, or a pending transfer."""
        return self._reader.read(leaves)

    def _named_buffers(self, buffers: Any) -> list[Mapping[str, Any]]:
        """Return the current buffers of each member."""
        if self._held is None:
            raise RecordingError(
                "the buffers of torch optimisers are read from the optimiser: open the recorder with buffers=True"
            )
        names = self._structure.names
        found = [self._held.named(leaves, names) for leaves in self._leaves()]
        if self._shards is not None:
            found = [self._shards.local(one) for one in found]
        if self._buffers is None:
            return list(found)
        known = set(self._buffers.all_names)
        self._leave_out(set().union(*found) - known, "buffers that the optimiser did not have when the recorder opened")
        return [{name: value for name, value in one.items() if name in known} for one in found]

    def _named_own(self, state: Any) -> list[Mapping[str, Any]]:
        """Return name -> buffer of the module, for each member."""
        if not self._own_globs or isinstance(state, Mapping):
            return []
        models = [unwrap(model) for model in ([state] if isinstance(state, nn.Module) else state)]
        return [
            {
                name: buffer
                for name, buffer in ((clean(raw), one) for raw, one in model.named_buffers())
                if buffer.is_floating_point() and is_selected(name, self._own_globs, ())
            }
            for model in models
        ]

    def _leaves(self) -> list[Mapping[str, Any]]:
        """Return name -> parameter for each member, as the optimiser knows it."""
        return self._whole(self._state) if self._shards is None else self._shards.kept

    def _beside(self, state: Any, buffers: Any) -> Any:
        """Return the state with the buffers of the optimisers."""
        if self._held is None:
            return super()._beside(state, buffers)
        if self._buffers is None and any(self._named_buffers(None)):
            raise RecordingError(
                "the optimiser had no buffers when the recorder opened, and has some now (was momentum switched "
                "on?): they cannot be added to the run. Open the recorder after momentum is set"
            )
        return state if self._buffers is None else Beside(state)

    def _device_distances(self, state: Any) -> np.ndarray | None:
        """Distances of the twins, computed on the device to transfer only M numbers."""
        mappings = self._named(state)
        if not all(leaf.is_cuda for mapping in mappings for leaf in mapping.values()):
            return None
        references = [member.reference for member in member_table(mappings, self._members)[0]]
        return distances(mappings, self.names, references, self.metric)

    def _count_writes(self, state: Any) -> dict[int, int]:
        """Number of writes to each tensor so far, by its place in memory; torch counts them."""
        leaves = [leaf for mapping in self._named(state) for leaf in mapping.values() if not leaf.is_inference()]
        return {leaf.data_ptr(): leaf._version for leaf in leaves if leaf.numel()}

    def _is_untouched(self, state: Any) -> bool:
        """Whether no tensor of the opening was written since; copies say nothing."""
        now = self._count_writes(state.state if isinstance(state, Beside) else state)
        return all(now.get(place, count) == count for place, count in self._writes.items())

    def _thresholds(self) -> dict[str, float]:
        """Largest curvatures at which the first group of parameters is stable."""
        from trajtools.training.curvature import thresholds

        if not self._optimizers:
            return {}
        settings = _settings(self._optimizers[0])
        return thresholds(settings, settings["lr"])

    def _busy_cores(self) -> int:
        """Number of cores used by the training."""
        leaves = [leaf for mapping in self._named(self._state) for leaf in mapping.values()]
        return 1 if all(leaf.is_cuda for leaf in leaves) else torch.get_num_threads()

    # -- hooks

    def _hook_up(self, optimizer: Any) -> None:
        """Register the step hook, excluded from the compilation of a compiled step."""
        if isinstance(optimizer, str):
            self._handles.append(register_optimizer_step_post_hook(torch.compiler.disable(self._after_any)))
        elif optimizer is not None:
            hook = torch.compiler.disable(self._after_step)
            self._handles.append(self._optimizers[-1].register_step_post_hook(hook))

    def _unhook(self) -> None:
        """Remove the hooks; a trainer that counts its own steps calls `_updated` instead."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _updated(self, step: int) -> None:
        """Store the state after the update that a trainer counts as this step."""
        self._advance(step)

    def _advance(self, step: int | None = None) -> None:
        """Store the state after an update."""
        self._updates += 1
        self.advance(self._state, step=step)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Store the state after a step; the signature is that of torch."""
        if not skipped(optimizer):
            self._advance()

    def _after_any(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Store the state after a step of any optimiser that trains it."""
        size = sum(len(group["params"]) for group in optimizer.param_groups)
        cached = self._owners.get(optimizer)
        if cached is None or cached[0] != size:
            cached = self._owners[optimizer] = size, owns(optimizer, self._state)
        if cached[1]:
            self._after_step(optimizer, args, kwargs)

    # -- public methods

    def record(self, state: Any = None, *, step: int | None = None, **metrics: Any) -> None:
        """Record metrics of the current state; without an optimiser, also the state.

        Parameters
        ----------
        state : torch.nn.Module, list of them, {name: Tensor} or None
            None: the state from the opening. With an optimiser it is redundant.
        step : int or None
            Number of updates before this state; None: one more than the last, see `recorders.Recorder.record`.
        **metrics : float or Tensor
            Numbers, or one per member. Tensors are read only.

        Raises
        ------
        RecordingError
            As in `recorders.Recorder.record`, and for a state that the optimiser does not train.
        """
        self._calls += 1
        if self._by_hook:
            self._refuse_foreign(state)
            state = None
        elif state is None:
            state = self._state
        if self._with_rate:
            metrics = {**self._rates(), **metrics}
        super().record(state, step=step, **metrics)
        if self._by_hook and not self._updates and self._calls.bit_count() == 1:
            self._look_for_changes()

    def _look_for_changes(self) -> None:
        """Warn, while the training runs, if weights change and the optimiser that stores them never steps."""
        now = {} if isinstance(self._state, ModuleTwins) else self._count_writes(self._state)
        if now != self._writes:
            self._writes, self._changes = now, self._changes + 1
            if self._changes == 2:
                self._tape.remark(*self._unseen())

    def _unseen(self) -> tuple[str, str]:
        """What is wrong if the optimiser never stepped, and the way out."""
        return (
            f"only the first state is recorded: record() was called {self._calls} times, but the optimiser of the "
            "recorder never stepped",
            "Was the optimiser copied or recreated after the recorder opened, or are the weights updated without one? "
            'Pass the one that steps, optimizer="any", or no optimizer= and record(model) after every update.',
        )

    def _refuse_foreign(self, state: Any) -> None:
        """Raise for another state than that of the hook, because two sources would mix up the steps."""
        ours, passed = (list(map(id, one if isinstance(one, list | tuple) else [one])) for one in (self._state, state))
        if isinstance(state, nn.Module):
            passed = [id(unwrap(state))]
        if state is not None and passed != ours:
            raise RecordingError(
                "every step of the optimiser stores the state that this recorder was opened with, but record() got "
                "another one: call record(**metrics) without a state, or open the recorder without optimizer="
            )

    def _rates(self) -> dict[str, float]:
        """Current learning rates of the parameter groups."""
        rates = [float(group["lr"]) for group in self._optimizers[0].param_groups]
        if len(rates) == 1:
            return {"learning_rate": rates[0]}
        return {f"learning_rate_{i}": rate for i, rate in enumerate(rates)}

    def _with_twin_metrics(self, members: int, metrics: Any) -> Any:
        """Merge the metrics of twins with those of the user."""
        rates = self._rates() if self._with_rate else {}
        theirs: dict[str, tuple[int, ...]] = {"loss": (members,), **dict.fromkeys(rates, ())}
        if metrics is None or isinstance(metrics, Mapping):
            return {**theirs, **(metrics or {})}
        return [*theirs, *((metrics,) if isinstance(metrics, str) else metrics)]

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Remove the hook, write the remaining states and close the file.

        Parameters
        ----------
        *args, **kwargs : object
            As in `recorders.Recorder.close`.

        Warns
        -----
        RecordingWarning
            If `record` was called repeatedly but the optimiser never stepped; the file says so, too.
        """
        watched = bool(self._handles)
        self._unhook()
        if isinstance(self._state, ModuleTwins):
            self._state.attach(None)
        try:
            if watched and not self._updates and self._calls > 1 and self._changes < 2 and not self._tape.dead:
                self._tape.remark(*self._unseen())
        finally:
            super().close(*args, **kwargs)


def names_of(selection: bool | str | Sequence[str]) -> tuple[str, ...]:
    """Return the globs of a selection; none for False."""
    return () if isinstance(selection, bool) else (selection,) if isinstance(selection, str) else tuple(selection)


class _OtherRank(OtherRank, Recorder):
    """Recorder of a rank whose weights another rank records."""


def _simplest(state: Any) -> Any:
    """Unwrap the state to a list of modules, twins, or a mapping."""
    if isinstance(state, ModuleTwins):
        return state
    if isinstance(state, Mapping):
        return state
    models = list(state) if isinstance(state, Iterable) and not isinstance(state, str | nn.Module) else [state]
    for model in models:
        if not isinstance(model, nn.Module):
            raise ArchitectureError(
                "a state is a torch module, a list of modules, Twins or a mapping name -> Tensor; "
                f"got {type(model).__name__}"
            )
        refuse_unreadable(model)
    return [unwrap(model) for model in models]


def _modules(state: Any) -> list[nn.Module]:
    """Modules of a state; none for a mapping."""
    if isinstance(state, ModuleTwins):
        return [state.models[0]]
    return [] if isinstance(state, Mapping) else state


def _like(mapping: Mapping[str, Any], leaves: dict[str, Any]) -> Mapping[str, Any]:
    """Return other leaves with the member entry of a mapping."""
    return Twin(leaves, member=mapping.member, made=mapping.made) if isinstance(mapping, Twin) else leaves


def _with_member(named: dict[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """Attach the member entry to a mapping, as the framework-free twins do."""
    mark = getattr(model, MARK, None)
    return named if mark is None else Twin(named, member=mark.member, made=mark.made)


def _provenance(model: nn.Module) -> dict[str, Any]:
    """Provenance of torch."""
    return {
        "torch": {
            "threads": torch.get_num_threads(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "device": str(next(model.parameters()).device),
            **describe(model),
        }
    }


def _settings(optimizer: Optimizer) -> dict[str, Any]:
    """Name of an optimiser of torch, and the settings of its first group of parameters."""
    kinds = [kind for kind in type(optimizer).__mro__ if kind.__module__.startswith("torch.optim")]
    name = kinds[0].__name__ if kinds[:1] != [Optimizer] else type(optimizer).__name__
    group = optimizer.param_groups[0]
    plain = {key: value for key, value in group.items() if isinstance(value, bool | int | float | str)}
    pairs = {"betas": list(group["betas"])} if "betas" in group else {}
    return {**plain, **pairs, "name": name, "lr": float(group["lr"])}  # a group may have a name of its own


def _of_ranks(mean_loss: bool, every_rank: bool) -> dict[str, Any]:
    """Whose numbers the metrics of a training in several processes are."""
    if every_rank:
        return {"count": n_ranks(), "recorded": torch.distributed.get_rank()}
    return {"count": n_ranks(), "loss": "mean of all" if mean_loss else "of the first", "other metrics": "of the first"}


def followed(optimizer: Any, state: Any) -> list[Any]:
    """Unwrap the optimisers and check that they train the state."""
    if isinstance(state, ModuleTwins):
        if optimizer is not None:
            raise RecordingError("twins report their own steps: omit optimizer=")
        return list(state.optimizers)
    if optimizer is None or (isinstance(optimizer, str) and optimizer == "any"):
        return []
    optimizers = [
        innermost(one) for one in (optimizer if isinstance(optimizer, list | tuple) and optimizer else [optimizer])
    ]
    for one in optimizers:
        if not isinstance(one, Optimizer):
            raise RecordingError(f'optimizer={one!r:.60}: pass a torch.optim.Optimizer, a list of them, "any" or None')
    if not any(owns(one, state) for one in optimizers):
        raise ArchitectureError(
            "the optimiser trains no parameter of this model. Was the model replaced after the optimiser was created? "
            "Create the optimiser from model.parameters() of the recorded model"
        )
    return optimizers


def owns(optimizer: Any, state: Any) -> bool:
    """Whether an optimiser trains a parameter of a state."""
    if isinstance(state, Mapping):
        leaves: Iterable[Any] = state.values()
    else:
        models = [state] if isinstance(state, nn.Module) else state
        leaves = (parameter for model in models for parameter in model.parameters())
    ours = {id(leaf) for leaf in leaves}
    return any(id(parameter) in ours for group in optimizer.param_groups for parameter in group["params"])


def skipped(optimizer: Any) -> bool:
    """Whether the last step was skipped because a gradient was not finite."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


class OptimizerBuffers:
    """The buffers of the optimisers that train a state."""

    def __init__(self, optimizers: Sequence[Any], selection: bool | Sequence[str]) -> None:
        if not optimizers:
            raise RecordingError(
                'buffers= needs optimizer=: the optimisers themselves (not "any"), which hold the buffers'
            )
        for one in optimizers:
            if isinstance(one, torch.optim.LBFGS):
                raise RecordingError(
                    "LBFGS has a history of varying length, which a table of buffers cannot hold; omit buffers="
                )
        self._optimizers = tuple(optimizers)
        names = (selection,) if isinstance(selection, str) else selection
        self._selected: tuple[str, ...] | None = None if isinstance(names, bool) else tuple(names)
        self._owners: dict[int, tuple[Any, Any, Any]] = {}
        self._sizes: list[int] = []

    def named(self, leaves: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
        """Return the buffers of one network."""
        self._update_owners()
        buffers = {}
        for name in names:
            leaf = leaves[name]
            _, optimizer, group = self._owners.get(id(leaf), (None, None, None))
            if optimizer is None:
                continue
            held = optimizer.state.get(leaf) or {}
            for key, shape in self._expected(name, leaf, optimizer, group, held).items():
                value = held.get(key)
                value = _zeros(leaf, shape) if value is None else value
                if not value.dtype.is_floating_point:
                    raise RecordingError(
                        f"the buffer {key!r} of {name!r} is {value.dtype}, and only real floating-point numbers can be "
                        "recorded; name real ones with buffers=(...), or omit buffers="
                    )
                buffers[f"{name}.{key}"] = value.detach()
        return buffers

    def _update_owners(self) -> None:
        """Update the owners of parameters after groups changed."""
        sizes = [len(group["params"]) for one in self._optimizers for group in one.param_groups]
        if sizes != self._sizes:
            self._sizes = sizes
            self._owners = {
                id(leaf): (leaf, one, group)
                for one in self._optimizers
                for group in one.param_groups
                for leaf in group["params"]
            }

    def _expected(self, name: str, leaf: Tensor, optimizer: Any, group: Any, present: Mapping[str, Any]) -> Shapes:
        """Shapes of the current and future buffers of one parameter."""
        shape = tuple(leaf.shape)
        if self._selected is not None:
            return dict.fromkeys(self._selected, shape)
        current = {
            key: tuple(value.shape)
            for key, value in present.items()
            if isinstance(value, Tensor) and not (value.ndim == 0 and key in CLOCKS)
        }
        promised = promised_buffers(optimizer, group, shape)
        if promised is None and not present:
            raise ArchitectureError(
                f"{type(optimizer).__name__} has not stepped yet, so its buffers are unknown for "
                f"{name!r}; name them, e.g. buffers=('exp_avg', 'exp_avg_sq'), or record from its first step on"
            )
        return {**(promised or {}), **current}


def _zeros(leaf: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return zeros like a parameter; those of one that is not sharded take no memory."""
    return torch.zeros_like(leaf) if is_sharded(leaf) else leaf.detach().new_zeros(()).expand(shape)


def promised_buffers(optimizer: Any, group: Mapping[str, Any], shape: tuple[int, ...]) -> Shapes | None:
    """Buffers that a torch optimiser will create for a parameter; None if unknown."""
    if isinstance(optimizer, getattr(torch.optim, "Adafactor", ())):
        if len(shape) < 2:
            return {"variance": shape}
        return {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}
    for kind, always, sometimes in KEPT:
        if isinstance(optimizer, getattr(torch.optim, kind, ())):
            return dict.fromkeys((*always, *(key for key, option in sometimes if group.get(option))), shape)
    return None
