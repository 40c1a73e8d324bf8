"""Lock-step training of a torch module and its perturbed copies on common batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from recorders import twins
from recorders.planting import check_replant
from recorders.torch.modules import call, devices_of, refuse_sharded, roles, same_noise, scalar, trainable, unwrap
from recorders.torch.transfer import from_host, squared_gaps, to_host
from recorders.twins import Perturbation, Twin
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.wiring import Member

LossFunction = Callable[..., Tensor]
MARK = "_trajtools_twin"
"""Attribute of a perturbed module with its member entry; neither a parameter nor a buffer."""
PROBES = 16
"""Draws of the check that equal members get equal bits; a single draw misses differences at most 13 of 16 times."""
FEW = 3
"""Members up to which separate passes are always faster on the CPU; see benchmarks/training.py."""
LARGEST_EACH = 25_000
"""Weights up to which one pass over all members is faster, for every further member: it saves more calls."""
LARGEST_AT_ONCE = 150_000
LARGEST_PRODUCT = 2e8
"""Members x rows of a batch x weights above which batched matrix products on the CPU can be 20 times slower."""
ELEMENTWISE = frozenset(
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop", "Rprop", "ASGD")
)
"""Optimisers with entrywise updates, so that one of them can train all members."""


class ModuleTwins(twins.Twins):
    """What twins of torch modules share: how their weights are read, wherever they train.

    Attributes
    ----------
    models : tuple of torch.nn.Module
        The reference and its copies, always up to date.
    optimizers : tuple
        Those of the reference first.
    """

    models: tuple[nn.Module, ...]
    optimizers: tuple[Any, ...]

    @property
    @abstractmethod
    def leaves(self) -> list[dict[str, Any]]:
        """The tensors of the optimisers by name: one mapping (M, ...), or one per member."""

    @property
    def state(self) -> dict[str, Tensor]:
        """Trainable parameters of all members, name -> Tensor (M, ...), detached."""
        rows = self.leaves
        if len(rows) == 1:
            return {name: values.detach() for name, values in rows[0].items()}
        return {name: torch.stack([row[name].detach() for row in rows]) for name in rows[0]}

    def reference(self) -> dict[str, Tensor]:
        """Return the state of the reference, to load into a model.

        Returns
        -------
        dict of str to Tensor
            A copied ``state_dict``, buffers included: ``model.load_state_dict(twins.reference())``.
        """
        return {name: value.detach().clone() for name, value in self.models[0].state_dict().items()}

    def _network(self) -> dict[str, np.ndarray]:
        """Return the parameters of the reference on the host."""
        rows = self.leaves
        first = {name: values.detach()[0] for name, values in rows[0].items()} if len(rows) == 1 else rows[0]
        return dict(zip(first, to_host(first.values()), strict=True))

    def _distances(self, copies: Sequence[int]) -> np.ndarray:
        """Measure copies where they are; only one number a copy is transferred."""
        rows = self.leaves
        each: Any = zip(*(row.values() for row in rows), strict=True) if len(rows) > 1 else rows[0].values()
        squares: Any = sum(squared_gaps([members[i] for i in (0, *copies)]) for members in each)
        return np.sqrt(squares.cpu().numpy() if isinstance(squares, Tensor) else squares)


class Twins(ModuleTwins):
    """A reference and its perturbed copies, trained in lock-step on common batches with common noise.

    Parameters
    ----------
    model : torch.nn.Module
        The reference. It is copied and not modified; the copies keep its train/eval mode.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    optimizer_factory : callable
        ``optimizer_factory(parameters)`` -> torch.optim.Optimizer, called with the parameters of one member.
    epsilon, members, seed, distribution, only, allow_rounded
        As in `perturb`; epsilon from the dtype and the weights if not given. A list, ``epsilon=[1e-8, 1e-11]``: the
        copies take its sizes in turn, and `tt.twins` tests whether their rates agree.
    replant : {"auto", "saturation"}, int or None
        When copies are planted anew beside the reference: its weights plus a fresh perturbation, and all else of the
        training copied. "auto": those that have saturated, merged or come near the rounding floor, and otherwise at
        doubling ages, in cohorts, so that a training has several starts. "saturation": all of them, when they have
        saturated or merged. k: all of them, every k steps. None: never. See Notes.
    scheduler_factory : callable or None
        ``scheduler_factory(optimizer)`` -> scheduler; `schedule` steps it.
    max_norm : float or None
        Clip the gradient of every member to this 2-norm, like `torch.nn.utils.clip_grad_norm_`.
    vectorize : {"auto", True, False}
        False: separate passes and a separate optimiser for every member. "auto": all members in one vectorised pass if
        equal members then get equal bits, as tested on the first batch of every shape; on the CPU only with more than
        three members, reference included, for networks of at most 25,000 weights for each further one (and 150,000),
        and members x rows of the batch x weights of at most 2e8, since separate passes are as fast or faster beyond.
        True: vectorised even if equal members are rounded differently; an error if impossible.

    Attributes
    ----------
    models : tuple of torch.nn.Module
        The reference copy and its twins, always up to date; for evaluation, not to be moved or replaced.
    members : tuple of Member
        Entries of the members table.
    made : dict
        Settings of the perturbation and the fraction lost to rounding.
    plantings : list of Planting
        Every planting so far, those at step 0 included.
    room : Room
        Room of the perturbation, in e-folds: ``above`` up to saturation (before any: up to the size of the weights),
        ``below`` down to rounding.
    optimizers, schedulers : tuple
        One for all members if the optimiser is entrywise (SGD, Adam, ...) and the network is not too large to be
        vectorised, else one per member.

    Raises
    ------
    PerturbationError, ArchitectureError
        As in `perturb`.
        ArchitectureError also if the optimiser trains none of the parameters that `optimizer_factory` gets.
    RecordingError
        If `optimizer_factory` is no function that returns an optimiser.
    ValueError
        If ``vectorize=True`` and the optimiser mixes entries (LBFGS, Adafactor, Muon, ...).

    Notes
    -----
    Common noise: random numbers of a forward pass (dropout) are drawn once, the same for all members; the global
    generators of torch, numpy and random then advance as by one pass.

    The reference trains as without twins, to the bit; only copies are planted anew. State s of a recorded run shows
    what was planted at step s, and `tt.twins` reads every stretch from one planting to the next as one start. While a
    recorder follows, copies are planted only at steps that it stores, and never with an `every` that is no number
    (curves of uneven spacing cannot be compared). `recorders.planting` says when copies count as saturated, and why
    they are planted in cohorts.
    A planting copies the parameters, buffers (BatchNorm), state and settings of the optimiser and scheduler of the
    reference.

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
        epsilon: float | Sequence[float] | Mapping[str, Any] | None = None,
        members: int,
        seed: int,
        distribution: str = "uniform",
        only: str | Sequence[str] = "weights",
        allow_rounded: bool = False,
        replant: str | int | None = "auto",
        scheduler_factory: Callable[[Any], Any] | None = None,
        max_norm: float | None = None,
        vectorize: bool | str = "auto",
    ) -> None:
        twins.check_vectorize(vectorize)
        model = unwrap(model)
        check_replant(replant)
        copies, perturbation = _perturbed(
            model, epsilon, members, seed, distribution=distribution, only=only, allow_rounded=allow_rounded
        )
        self.models = (deepcopy(model), *copies)
        table = (Member("reference"), *(getattr(copy, MARK).member for copy in copies))
        made = getattr(copies[0], MARK).made
        super().__init__(table, made, vectorize, perturbation=perturbation, replant=replant)
        self._loss_fn = loss_fn
        self._max_norm = max_norm
        self._stacked: dict[str, Tensor] | None = None
        self._slower = _slower_at_once(self.models)
        self.optimizers = self._make_optimizers(optimizer_factory)
        apart = [dict(trainable(model)) for model in self.models]
        self._leaves: list[dict[str, Any]] = apart if self._stacked is None else [self._stacked]
        self._devices = devices_of(self.models[0].parameters())
        if self._plan is None and vectorize == "auto" and self._slower:
            self._plan = (False, self._slower)
        path = "at once where equal members then get equal bits" if self._plan is None else self._plan[1]
        self.made |= {"vectorize": vectorize, "path": "at once" if vectorize is True else path}
        factory = scheduler_factory
        self.schedulers: tuple[Any, ...] = tuple(map(factory, self.optimizers)) if factory else ()
        self._start()

    def _make_optimizers(self, factory: Callable[[Any], Any]) -> tuple[Any, ...]:
        """Create one optimiser for all members if equivalent, else one per member."""
        first = _created(factory, self.models[0])
        if self._vectorize is not False and type(first) not in ELEMENTWISE:
            self._plan = (False, f"{type(first).__name__} is not known to update entrywise")
            if self._vectorize is True:
                raise ValueError(
                    f'vectorize=True: {self._plan[1]}, so it cannot train all members at once; use vectorize="auto"'
                )
        elif self._vectorize is True or (self._vectorize == "auto" and not self._slower):
            self._stacked = stack(self.models)
            return (one_optimizer(self.models, self._stacked, first),)
        return (first, *(_created(factory, model) for model in self.models[1:]))

    @property
    def leaves(self) -> list[dict[str, Any]]:
        """The tensors of the optimisers by name: one mapping (M, ...), or one per member."""
        return self._leaves

    def step(self, x: Any, *targets: Any) -> Tensor:
        """Train every member on the same batch, one update each.

        Parameters
        ----------
        x : Tensor, tuple or dict
            Input of the model: one argument, several, or keywords.
        *targets : object
            Arguments of the loss function after the output.

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
        self._replant()
        if self._recorder is not None:
            self._recorder.advance(self)
        return losses

    def _step_apart(self, batch: Any) -> Tensor:
        """Train each member with its own passes and optimiser, under the same noise."""
        losses: list[Tensor] = []

        def closure(i: int) -> Callable[[], Tensor]:
            def evaluate() -> Tensor:
                self.optimizers[i].zero_grad()
                loss = scalar(self._loss_fn(call(self.models[i], batch[0]), *batch[1:]))
                loss.backward()
                if self._max_norm is not None:
                    nn.utils.clip_grad_norm_(self.models[i].parameters(), self._max_norm)
                return loss

            return evaluate

        with same_noise(self._devices) as rewind:
            for i, optimizer in enumerate(self.optimizers):
                if i:
                    rewind()
                losses.append(optimizer.step(closure(i)).detach())
        stacked = torch.stack(losses)
        self._note(stacked)
        return stacked

    def _step_together(self, stacked: dict[str, Tensor], batch: Any) -> Tensor:
        """Train all members with one optimiser; gradients in one pass or one after the other."""
        self._plan = self._planned(stacked, batch)
        optimizer = self.optimizers[0]
        optimizer.zero_grad()
        with torch.enable_grad():
            if self.vectorized:
                losses = losses_at_once(self.models[0], self._loss_fn, stacked, batch)
                losses.sum().backward()
            else:
                losses = gradients_one_by_one(self.models, self._loss_fn, stacked, batch)
        if self._max_norm is not None:
            clip(stacked, self._max_norm)
        self._note(losses.detach())
        optimizer.step()
        return losses.detach()

    def _planned(self, stacked: dict[str, Tensor], batch: Any) -> tuple[bool, str]:
        """Whether to vectorise batches of this shape, and why."""
        if self._vectorize == "auto":
            slower = _slower_at_once(self.models, batch[0])
            if slower:
                return False, slower
        key = (_shape(batch), tuple(module.training for module in self.models[0].modules()))
        if key not in self._plans:
            impossible, uneven = why_not_at_once(self.models[0], self._loss_fn, stacked, batch)
            if self._vectorize is True and impossible:
                raise RuntimeError(f'vectorize=True: {impossible}; use vectorize="auto"')
            if impossible or (uneven and self._vectorize == "auto"):
                self._plans[key] = (False, impossible or uneven)
            else:
                self._plans[key] = (True, f"vectorize=True although {uneven}" if uneven else "vectorised")
        return self._plans[key]

    def _plant(self, moved: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Make members anew from the reference."""
        with torch.no_grad():
            for i, arrays in moved.items():
                for name, parameter in trainable(self.models[i]).items():
                    from_host(arrays[name], parameter)
                for ours, theirs in zip(self.models[i].buffers(), self.models[0].buffers(), strict=True):
                    ours.copy_(theirs)
                if self._stacked is None:
                    copy_optimizer(self.optimizers[0], self.optimizers[i])
                    for scheduler in self.schedulers[i : i + 1]:
                        scheduler.load_state_dict(deepcopy(self.schedulers[0].state_dict()))
            if self._stacked is not None:
                _copy_rows(self.optimizers[0], list(moved))

    def schedule(self, *arguments: Any) -> None:
        """Step every scheduler.

        Parameters
        ----------
        *arguments : object
            Arguments of ``scheduler.step``, the same for all.
        """
        for scheduler in self.schedulers:
            scheduler.step(*arguments)

    def _note(self, losses: Tensor) -> None:
        """Pass the losses to the recorder before the update."""
        if self._recorder is not None:
            self._recorder.record(loss=losses)


def _shape(batch: Any) -> Any:
    """Properties of a batch that determine the division of work in kernels."""
    if isinstance(batch, Tensor):
        return tuple(batch.shape), batch.dtype
    if isinstance(batch, Mapping):
        return tuple((key, _shape(value)) for key, value in batch.items())
    if isinstance(batch, list | tuple):
        return tuple(map(_shape, batch))
    return np.shape(batch) if isinstance(batch, np.ndarray) else type(batch)


def _copy_rows(optimizer: Any, members: list[int]) -> None:
    """Give members the optimiser state of the first; what has no member axis (clocks) is common to all."""
    for parameter, held in optimizer.state.items():
        for value in held.values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[members] = value[:1].clone()


def copy_optimizer(source: Any, target: Any) -> None:
    """Copy state and settings between optimisers of equal networks, without the casts of `load_state_dict`."""
    for ours, theirs in zip(target.param_groups, source.param_groups, strict=True):
        ours.update({k: deepcopy(v) for k, v in theirs.items() if k not in ("params", "param_names")})
        for parameter, other in zip(ours["params"], theirs["params"], strict=True):
            target.state.pop(parameter, None)
            if other in source.state:
                target.state[parameter] = deepcopy(source.state[other])


def perturb(
    model: nn.Module,
    epsilon: float | Sequence[float] | Mapping[str, Any] | None,
    members: int,
    seed: int,
    *,
    distribution: str = "uniform",
    only: str | Sequence[str] = "weights",
    allow_rounded: bool = False,
) -> list[nn.Module]:
    """Create perturbed copies of a model.

    Parameters
    ----------
    model : torch.nn.Module
        The reference; not modified. The copies are unwrapped from torch.compile and data parallelism.
    epsilon : float, list of float, {glob: float or array} or None
        Size of the perturbation of an entry, see `recorders.perturb`.
    members : int
        Number of copies.
    seed : int
        Copy i draws from ``numpy.random.default_rng([seed, i])``: the same bits as in numpy and JAX.
    distribution : {"uniform", "gaussian"}
        Uniform(-epsilon, epsilon), or normal with standard deviation epsilon.
    only : {"weights", "all"} or globs of parameter names
        "weights": every trainable parameter that is neither a bias nor belongs to a normalisation.
    allow_rounded : bool
        Accept an epsilon lost to rounding.

    Returns
    -------
    list of torch.nn.Module
        Deep copies with their member entries, as used by ``Recorder(path, [model, *twins])``.

    Raises
    ------
    PerturbationError
        If the dtype of the weights rounds more than 1 % of the perturbed entries away.
    ArchitectureError
        If the model is sharded or has no trainable parameters.

    Notes
    -----
    Frozen parameters and buffers are not perturbed. No torch generator is used.

    Examples
    --------
    >>> import torch
    >>> copies = perturb(torch.nn.Linear(4, 3), 1e-4, 2, 0)
    >>> len(copies), type(copies[0]).__name__
    (2, 'Linear')
    """
    return _perturbed(model, epsilon, members, seed, distribution=distribution, only=only, allow_rounded=allow_rounded)[
        0
    ]


def drawn(model: nn.Module, epsilon: Any, members: int, seed: int, **options: Any) -> twins.TwinList:
    """Draw the parameters of perturbed copies, as arrays."""
    refuse_sharded(model)
    parameters = trainable(model)
    return twins.perturb(
        dict(zip(parameters, to_host(parameters.values()), strict=True)),
        epsilon,
        members,
        seed,
        **options,
        # Torch knows the role of each parameter; the framework-free code would guess it from the name.
        kinds={name: role.kind for name, role in roles(model).items()},
    )


def _perturbed(
    model: nn.Module, epsilon: Any, members: int, seed: int, **options: Any
) -> tuple[list[nn.Module], Perturbation]:
    """Create perturbed copies, and return what perturbed them."""
    model = unwrap(model)
    perturbed = drawn(model, epsilon, members, seed, **options)
    copies = []
    for values in perturbed:
        twin = deepcopy(model)
        with torch.no_grad():
            for name, parameter in trainable(twin).items():
                from_host(values[name], parameter)
        setattr(twin, MARK, Twin({}, member=values.member, made=values.made))
        copies.append(twin)
    assert perturbed.perturbation is not None
    return copies, perturbed.perturbation


def stack(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Stack the trainable parameters of equal models, and let the models share the storage.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        M copies of one model, owned by the caller.

    Returns
    -------
    dict of str to Tensor, each of shape (M, ...)
        Leaves that require gradients. ``models[i]`` and row i share all later changes.
    """
    rows = [trainable(model) for model in models]
    stacked = {}
    for name in rows[0]:
        whole = torch.stack([row[name].detach() for row in rows])
        for i, row in enumerate(rows):
            row[name].data = whole[i]
        stacked[name] = whole.requires_grad_()
    return stacked


def losses_at_once(model: nn.Module, loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any) -> Tensor:
    """Losses of all members in one vectorised pass, with common random numbers."""
    x, *targets = batch

    def one(parameters: dict[str, Tensor]) -> Tensor:
        arguments, keywords = ((), x) if isinstance(x, dict) else (x if isinstance(x, tuple) else (x,), {})
        return scalar(loss_fn(functional_call(model, parameters, arguments, keywords), *targets))

    return vmap(one, randomness="same")(stacked)


def _created(factory: Callable[[Any], Any], model: nn.Module) -> Any:
    """Create the optimiser of a member, and check that it trains this member."""
    parameters = list(trainable(model).values())
    optimizer = factory(parameters) if callable(factory) else factory
    if not callable(factory) or not hasattr(optimizer, "param_groups"):
        raise RecordingError(
            "optimizer_factory must be a function of the parameters of one member that returns an optimiser, since "
            f"each has its own: lambda params: torch.optim.SGD(params, lr=0.1); got {type(optimizer).__name__}"
        )
    own = {id(parameter) for parameter in parameters}
    if not any(id(one) in own for group in optimizer.param_groups for one in group["params"]):
        raise ArchitectureError(
            "the optimiser of optimizer_factory trains none of the parameters that the function gets, so no member "
            "would learn: pass these to it, lambda params: torch.optim.SGD(params, lr=0.1)"
        )
    return optimizer


def _slower_at_once(models: Sequence[nn.Module], x: Any = None) -> str:
    """Why one pass over all members is not worth it, by sizes alone (those of a batch included); empty if it is."""
    parameters = trainable(models[0]).values()
    weights, members = sum(parameter.numel() for parameter in parameters), len(models)
    largest = min(LARGEST_EACH * max(members - FEW, 0), LARGEST_AT_ONCE)
    if devices_of(parameters):
        return ""
    if not largest:
        return f"{members} members on the CPU: separate passes are as fast or faster"
    if weights > largest:
        return (
            f"{weights} weights on the CPU, more than {largest} for {members} members: separate passes are as fast or "
            "faster"
        )
    rows = _rows(x)
    if members * rows * weights > LARGEST_PRODUCT:
        return f"{members} members x {rows} rows x {weights} weights on the CPU: separate passes are faster"
    return ""


def _rows(x: Any) -> int:
    """Rows of the matrix products of a batch: examples, or tokens of sequences; 0 where that is unknown."""
    if isinstance(x, Mapping | list | tuple):
        return max(map(_rows, x.values() if isinstance(x, Mapping) else x), default=0)
    if not isinstance(x, Tensor) or not x.ndim:
        return 0
    if not x.is_floating_point():
        return x.numel()
    return int(np.prod(x.shape[: 2 if x.ndim == 3 else 1]))


def why_not_at_once(
    model: nn.Module, loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any
) -> tuple[str, str]:
    """Test on one batch whether a vectorised pass equals separate passes of the members.

    Notes
    -----
    The second is common. Elementwise kernels process the end of an array, which does not fill a SIMD register, with
    other instructions; with several members in one array that end belongs to the last of them. Sigmoid, GELU, SiLU and
    others then round the members differently, and d(t) = 0 is lost for epsilon = 0.
    """
    scratch = deepcopy(model)
    buffers = {name: buffer.clone() for name, buffer in scratch.named_buffers()}
    with same_noise(devices_of(stacked.values())) as rewind:
        with torch.no_grad():
            loss_fn(call(scratch, batch[0]), *batch[1:])
        rewind()
        after = dict(scratch.named_buffers())
        changed = [name for name, old in buffers.items() if not torch.equal(old, after[name])]
        if changed:
            return f"a forward pass changes the buffer {changed[0]!r}, and each member needs its own", ""
        try:
            uneven = _rounds_unevenly(scratch, loss_fn, stacked, batch)
        except Exception as error:
            # vmap raises various exceptions (.item(), recurrent kernels, ...); all mean: loop.
            return f"torch.func.vmap cannot do it ({type(error).__name__}: {str(error).splitlines()[0][:200]})", ""
        finally:
            rewind()
    return "", uneven


def _rounds_unevenly(model: nn.Module, loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any) -> str:
    """Compare outputs of equal members bit by bit, for several draws."""
    generator = torch.Generator().manual_seed(0)
    for draw in range(PROBES):
        equal = {}
        for name, values in stacked.items():
            row = values.detach()[0]
            if draw:
                factor = 1 + 0.3 * torch.randn(row.shape, generator=generator, dtype=torch.float32)
                row = row * factor.to(row)
            equal[name] = row.expand_as(values).clone().requires_grad_()
        with torch.enable_grad():
            losses = losses_at_once(model, loss_fn, equal, batch)
            gradients = torch.autograd.grad(losses.sum(), list(equal.values()), allow_unused=True)
        for rows in (losses, *gradients):
            if rows is not None and not _same_rows(rows):
                return "vectorised kernels round equal members differently for batches of this shape"
    return ""


def _same_rows(values: Tensor) -> bool:
    """Whether all rows are equal; NaN equals NaN."""
    first = values[:1].expand_as(values)
    return bool(((values == first) | (values.isnan() & first.isnan())).all())


def gradients_one_by_one(
    models: Sequence[nn.Module], loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any
) -> Tensor:
    """Losses and gradients of the members one after the other; the gradients are stored in ``stacked[name].grad``."""
    losses: list[Tensor] = []
    # Into their place at once: besides them, memory holds the gradients of one member.
    gradients: dict[str, Tensor] = {}
    sparse: dict[str, list[Tensor]] = {name: [] for name in stacked}
    counts = dict.fromkeys(stacked, 0)
    with same_noise(devices_of(stacked.values())) as rewind:
        for i, model in enumerate(models):
            if i:
                rewind()
            loss = scalar(loss_fn(call(model, batch[0]), *batch[1:]))
            row = torch.autograd.grad(loss, list(trainable(model).values()), allow_unused=True)
            for name, gradient in zip(stacked, row, strict=True):
                if gradient is None:
                    continue
                counts[name] += 1
                if gradient.layout is not torch.strided:
                    sparse[name].append(gradient)
                    continue
                if name not in gradients:
                    gradients[name] = torch.empty_like(stacked[name], memory_format=torch.contiguous_format)
                gradients[name][i].copy_(gradient)
            losses.append(loss.detach())
            del row, gradient
    for name, values in stacked.items():
        if 0 < counts[name] < len(models):
            # One optimiser for all members cannot skip some of them.
            raise RuntimeError(
                f"parameter {name!r} got a gradient in {counts[name]} of {len(models)} members: they took different "
                "paths through the model. Pass vectorize=False, which gives each member its own optimiser"
            )
        values.grad = torch.stack(sparse[name]) if sparse[name] else gradients.get(name)
    return torch.stack(losses)


def clip(stacked: dict[str, Tensor], max_norm: float) -> None:
    """Clip the gradient norm of every member, like `torch.nn.utils.clip_grad_norm_` for one model."""
    gradients = [values.grad for values in stacked.values() if values.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    factors = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.to(gradient).reshape(-1, *[1] * (gradient.ndim - 1)))


def one_optimizer(models: Sequence[nn.Module], stacked: dict[str, Tensor], optimizer: Any) -> Any:
    """Create one optimiser for the stacked parameters, with the groups of the one for a single member."""
    whole = {id(row): stacked[name] for name, row in trainable(models[0]).items()}
    groups = []
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        groups.append({**settings, "params": [whole[id(p)] for p in group["params"] if id(p) in whole]})
    return type(optimizer)(groups)
