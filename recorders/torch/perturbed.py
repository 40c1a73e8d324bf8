"""Perturbed copies of a torch module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from recorders import twins as framework_free
from recorders.torch.modules import refuse_sharded, roles, trainable, unwrap
from recorders.torch.transfer import from_host, to_host
from recorders.twins import Twin

MARK = "_trajtools_twin"
"""Attribute of a perturbed module that says how it was made; it is no parameter and no buffer."""


def perturb(
    model: nn.Module,
    epsilon: float | Mapping[str, Any],
    members: int,
    seed: int,
    *,
    distribution: str = "uniform",
    only: str | Sequence[str] = "weights",
    allow_rounded: bool = False,
) -> list[nn.Module]:
    """Make perturbed copies of a model.

    Parameters
    ----------
    model : torch.nn.Module
        The reference. It is not changed. Shells of torch.compile and data parallelism are left off the copies.
    epsilon : float or {glob: float or array}
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
        Accept an epsilon that the dtype rounds away.

    Returns
    -------
    list of torch.nn.Module
        Deep copies; ``Recorder(path, [model, *twins])`` knows from them how they were made.

    Raises
    ------
    PerturbationError
        If the dtype of the weights rounds more than 1 % of the perturbed entries away.
    ArchitectureError
        If the model is sharded or has nothing to train.

    Notes
    -----
    Frozen parameters and buffers are not perturbed. No torch generator is drawn from.
    """
    model = unwrap(model)
    refuse_sharded(model)
    drawn = framework_free.perturb(
        dict(zip(trainable(model), to_host(trainable(model).values()), strict=True)),
        epsilon,
        members,
        seed,
        distribution=distribution,
        only=only,
        allow_rounded=allow_rounded,
        # Torch knows what each parameter is, the framework-free code could only guess from its name.
        kinds={name: role.kind for name, role in roles(model).items()},
    )
    twins = []
    for values in drawn:
        twin = deepcopy(model)
        with torch.no_grad():
            for name, parameter in trainable(twin).items():
                from_host(values[name], parameter)
        setattr(twin, MARK, Twin({}, member=values.member, made=values.made))
        twins.append(twin)
    return twins
