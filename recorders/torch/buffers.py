"""What torch optimisers keep beside the weights from one step to the next. Reads only, changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recorders.torch.twins import Twins
from trajtools.errors import ArchitectureError, RecordingError

CLOCKS = frozenset(("step", "mu_product", "eta", "mu"))
"""Single numbers that say how late it is; `eta` and `mu` are those of ASGD, `mu_product` that of NAdam."""

Shapes = dict[str, tuple[int, ...]]


class OptimizerBuffers:
    """The buffers of the optimisers that train a state."""

    def __init__(self, optimizers: Sequence[Any], wanted: bool | Sequence[str]) -> None:
        if not optimizers:
            raise RecordingError(
                'buffers= needs optimizer=: the optimisers themselves (not "any"), which are asked for what they keep'
            )
        for one in optimizers:
            if isinstance(one, torch.optim.LBFGS):
                raise RecordingError(
                    "LBFGS keeps a history of changing length, which no table of buffers describes; leave buffers= out"
                )
        self._optimizers = tuple(optimizers)
        names = (wanted,) if isinstance(wanted, str) else wanted
        self._wanted: tuple[str, ...] | None = None if isinstance(names, bool) else tuple(names)
        self._owners: dict[int, tuple[Any, Any, Any]] = {}
        self._sizes: list[int] = []

    def named(self, leaves: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
        """Give the buffers of one network."""
        self._look()
        found = {}
        for name in names:
            leaf = leaves[name]
            _, optimizer, group = self._owners.get(id(leaf), (None, None, None))
            if optimizer is None:
                continue
            held = optimizer.state.get(leaf) or {}
            for key, shape in self._expected(name, leaf, optimizer, group, held).items():
                value = held.get(key)
                value = leaf.detach().new_zeros(()).expand(shape) if value is None else value
                if not value.dtype.is_floating_point:
                    raise RecordingError(
                        f"the buffer {key!r} of {name!r} is {value.dtype}, and only real floating-point numbers can be "
                        "recorded; name those that are, with buffers=(...), or leave buffers out"
                    )
                found[f"{name}.{key}"] = value.detach()
        return found

    def _look(self) -> None:
        """Note who trains what, again where parameters came to a group."""
        sizes = [len(group["params"]) for one in self._optimizers for group in one.param_groups]
        if sizes != self._sizes:
            self._sizes = sizes
            self._owners = {
                id(leaf): (leaf, one, group)
                for one in self._optimizers
                for group in one.param_groups
                for leaf in group["params"]
            }

    def _expected(self, name: str, leaf: Tensor, optimizer: Any, group: Any, held: Mapping[str, Any]) -> Shapes:
        """Buffers of one parameter and their shapes: those it has, and those that it will have."""
        shape = tuple(leaf.shape)
        if self._wanted is not None:
            return dict.fromkeys(self._wanted, shape)
        there = {
            key: tuple(value.shape)
            for key, value in held.items()
            if isinstance(value, Tensor) and not (value.ndim == 0 and key in CLOCKS)
        }
        promised = kept(optimizer, group, shape)
        if promised is None and not held:
            raise ArchitectureError(
                f"{type(optimizer).__name__} has not stepped yet, and nobody knows which buffers it will keep for "
                f"{name!r}; name them, e.g. buffers=('exp_avg', 'exp_avg_sq'), or record from its first step on"
            )
        return {**(promised or {}), **there}


def kept(optimizer: Any, group: Mapping[str, Any], shape: tuple[int, ...]) -> Shapes | None:
    """Say which buffers one of torch's own optimisers keeps for a parameter, before it has made them."""
    if isinstance(optimizer, getattr(torch.optim, "Adafactor", ())):
        if len(shape) < 2:
            return {"variance": shape}
        return {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}
    for kind, always, sometimes in KEPT:
        if isinstance(optimizer, getattr(torch.optim, kind, ())):
            return dict.fromkeys((*always, *(key for key, option in sometimes if group.get(option))), shape)
    return None


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
"""Class in torch.optim; buffers that it always keeps; buffers that an option of the group brings."""


def of_twins(buffers: OptimizerBuffers, twins: Twins, names: Sequence[str]) -> dict[str, Tensor]:
    """Give the buffers of twins, with a leading member axis."""
    rows = [buffers.named(leaves, names) for leaves in twins.leaves]
    if len(rows) == 1:
        return rows[0]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
