"""Processes that train one network together by data parallelism: who records, and means over them."""

from __future__ import annotations

import torch
from torch import Tensor


def n_ranks() -> int:
    """Number of processes of the training."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_first_rank() -> bool:
    """Whether this process is the one that records."""
    return n_ranks() == 1 or torch.distributed.get_rank() == 0


def over_ranks(numbers: Tensor) -> Tensor:
    """Mean of numbers over the ranks, all of which call this."""
    if n_ranks() == 1:
        return numbers
    total = numbers.detach().clone()
    torch.distributed.all_reduce(total)
    return total / n_ranks()


def from_first_rank(marks: Tensor) -> Tensor:
    """The numbers of the first rank; all of them call this."""
    torch.distributed.broadcast(marks, 0)
    return marks
