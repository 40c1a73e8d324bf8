"""How SGD, with or without momentum, moves the difference of two networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recorders.torch.objective import Objective
from trajtools.errors import ArchitectureError


@dataclass(frozen=True)
class Moves:
    """How SGD moves an offset: its settings for every weight, read when they are needed.

    Attributes
    ----------
    groups : list of dict or None
        The parameter group of each weight; None for one that the optimiser does not move.
    parameters : list of torch.nn.Parameter
        The weights, as the optimiser knows them.
    optimizer : torch.optim.SGD or None
        The user's.
    """

    groups: list[dict[str, Any] | None]
    parameters: list[Any]
    optimizer: Any = None

    @classmethod
    def of(cls, objective: Objective, optimizer: Any, wanted: bool) -> Moves:
        """Look the weights of a model up in an optimiser."""
        if not wanted:
            return cls([None] * len(objective.names), [])
        if type(optimizer) is not torch.optim.SGD:
            raise ArchitectureError(
                f"the forward shadow moves as torch.optim.SGD does, with or without momentum; "
                f"{_named(optimizer)} came. Use tangent_exponents, which goes through the steps of other optimisers, "
                'or directions=("reverse",), which needs none'
            )
        owner = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        groups = [owner.get(id(p)) for p in objective.parameters()]
        if not any(group is not None for group in groups):
            raise ArchitectureError(
                "the optimiser trains no parameter of this model: make it from model.parameters() of the same model"
            )
        return cls(groups, objective.parameters(), optimizer)

    @property
    def rate(self) -> float:
        """The largest learning rate."""
        return max((float(group["lr"]) for group in self.groups if group is not None), default=math.nan)

    @property
    def momentum(self) -> bool:
        """Whether any weight has momentum."""
        return any(group is not None and group["momentum"] != 0 for group in self.groups)

    def rates(self) -> list[float]:
        """Learning rate of each weight; 0 for those that do not move."""
        return [0.0 if group is None else float(group["lr"]) for group in self.groups]

    def apply(self, d: list[Tensor], q: list[Tensor], v: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Move an offset by one step, exactly as the difference of two steps of SGD."""
        moved, kept = [], []
        for i, group in enumerate(self.groups):
            if group is None:
                moved.append(d[i])
                kept.extend(v[i : i + 1])
                continue
            change = (-q[i] if group["maximize"] else q[i]) + group["weight_decay"] * d[i]
            if v and group["momentum"] != 0:
                buffer = group["momentum"] * v[i] + self._undamped(i, group) * change
                kept.append(buffer)
                change = change + group["momentum"] * buffer if group["nesterov"] else buffer
            else:
                kept.extend(v[i : i + 1])
            moved.append(d[i] - float(group["lr"]) * change)
        return moved, kept

    def _undamped(self, i: int, group: dict[str, Any]) -> float:
        """Share of a gradient that enters the buffer; torch leaves the dampening out of the very first step."""
        begun = self.optimizer.state.get(self.parameters[i], {}).get("momentum_buffer") is not None
        return 1 - float(group["dampening"]) if begun else 1.0


def _named(optimizer: Any) -> str:
    return "no optimiser" if optimizer is None else type(optimizer).__name__
