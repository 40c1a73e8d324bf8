"""Which optimisers a recorder listens to, and whether they train what it records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer

from recorders.torch.twins import Twins
from trajtools.errors import ArchitectureError, RecordingError


def followed(given: Any, state: Any) -> list[Any]:
    """The torch optimisers that a recorder follows, out of any wrappers, checked to train the state."""
    if isinstance(state, Twins):
        if given is not None:
            raise RecordingError("twins tell of their steps by themselves: leave optimizer= out")
        return list(state.optimizers)
    if given is None or (isinstance(given, str) and given == "any"):
        return []
    found = [innermost(one) for one in (given if isinstance(given, list | tuple) and given else [given])]
    for one in found:
        if not isinstance(one, Optimizer):
            raise RecordingError(f'optimizer={one!r:.60}: give a torch.optim.Optimizer, a list of them, "any" or None')
    if not any(owns(one, state) for one in found):
        raise ArchitectureError(
            "the optimiser trains no parameter of this model. Was the model replaced after the optimiser was made? "
            "Make the optimiser from model.parameters() of the model that is recorded"
        )
    return found


def innermost(optimizer: Any) -> Any:
    """Find the torch optimiser inside the wrappers of trainers."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def owns(optimizer: Any, state: Any) -> bool:
    """Say whether an optimiser trains a parameter of a state."""
    if isinstance(state, Mapping):
        leaves: Iterable[Any] = state.values()
    else:
        models = [state] if isinstance(state, nn.Module) else state
        leaves = (parameter for model in models for parameter in model.parameters())
    ours = {id(leaf) for leaf in leaves}
    return any(id(parameter) in ours for group in optimizer.param_groups for parameter in group["params"])


def skipped(optimizer: Any) -> bool:
    """Say whether a step that has just returned left the weights alone because a gradient was not finite."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
