"""The training of the Iris network from many initial conditions at once, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from recorders.iris.network import (
    COPIES,
    WEIGHTS,
    Floats,
    Split,
    State,
    accuracy,
    derived_seed,
    initial_weights,
    loss_and_gradient,
    split,
)
from recorders.recorder import Recorder
from recorders.twins import perturb
from trajtools.store import Member

# Members whose work arrays (about 50 kB each) stay in the second-level cache together: measured 8 us a member and step
# with 8 to 16 of them, 12 us with 64.
MEMBERS_AT_ONCE = 16


def ensemble(*, inits: int, copies: int, epsilon: float, seed: int) -> tuple[State, list[Member]]:
    """Draw the initial conditions and their perturbed copies.

    Parameters
    ----------
    inits : int
        Number of initial conditions.
    copies : int
        Perturbed copies of each.
    epsilon : float
        Every weight (no bias) of a copy is moved by Uniform(-epsilon, epsilon).
    seed : int
        The seed of the whole training.

    Returns
    -------
    state : dict of str to ndarray of float64
        As `initial_weights`, with a leading axis of ``inits * (1 + copies)`` members: each initial condition is
        followed by its copies.
    members : list of Member
        Who is whose copy.
    """
    states: list[State] = []
    members: list[Member] = []
    for i in range(inits):
        weights_seed, copies_seed = derived_seed(seed, WEIGHTS, i), derived_seed(seed, COPIES, i)
        reference, start = len(members), initial_weights(weights_seed)
        states.append(start)
        members.append(Member(f"init {i}", seed=weights_seed))
        for k, twin in enumerate(perturb(start, epsilon, copies, copies_seed) if copies else ()):
            states.append(twin)
            members.append(replace(twin.member, name=f"init {i} copy {k}", reference=reference))
    return {name: np.stack([state[name] for state in states]) for name in states[0]}, members


def steps_of(state: State, data: Split, rate: float, steps: int) -> Iterator[tuple[Floats, Floats]]:
    """Train all members in lock-step; `state` is updated in place, after each pair is taken.

    Parameters
    ----------
    state : dict of str to ndarray of float64
        With a leading axis of m members; changed in place.
    data : Split
        What trains and what tests.
    rate : float
        Learning rate of the gradient descent.
    steps : int
        Number of updates.

    Yields
    ------
    loss, accuracy : ndarray of float64, shape (m,)
        Of the state as it stands: steps + 1 pairs, the last after the last update.
    """
    members = len(state["hidden.bias"])
    chunks = [slice(start, start + MEMBERS_AT_ONCE) for start in range(0, members, MEMBERS_AT_ONCE)]
    loss, right = np.empty(members), np.empty(members)
    gradient = {name: np.empty_like(values) for name, values in state.items()}
    for step in range(steps + 1):
        for chunk in chunks:
            part = {name: values[chunk] for name, values in state.items()}
            loss[chunk], found = loss_and_gradient(part, data.train, data.labels)
            right[chunk] = accuracy(part, data.test, data.test_labels)
            for name, values in found.items():
                gradient[name][chunk] = values
        yield loss, right
        if step < steps:
            for name in state:
                gradient[name] *= rate
                state[name] -= gradient[name]


def run_name(rate: float) -> str:
    """Name of the run of one learning rate.

    Parameters
    ----------
    rate : float
        Learning rate.

    Returns
    -------
    str
        Such as ``eta=0.01``.
    """
    return f"eta={rate:.12g}"


def record(
    path: str | Path,
    rate: float,
    *,
    inits: int,
    copies: int = 5,
    steps: int = 200,
    epsilon: float = 1e-8,
    seed: int = 0,
    mode: str = "x",
    progress: Callable[[int], None] | None = None,
) -> str:
    """Train at one learning rate and record it as the run ``eta=<rate>``.

    Parameters
    ----------
    path : str or Path
        The file.
    rate : float
        Learning rate.
    inits : int
        Number of initial conditions.
    copies : int
        Perturbed copies of each.
    steps : int
        Updates; steps + 1 states are recorded.
    epsilon : float
        Every weight of a copy is moved by Uniform(-epsilon, epsilon).
    seed : int
        Of the split, the weights and the perturbations.
    mode : str
        ``"x"``: the file must not exist; ``"a"``: the run is added to it.
    progress : callable, optional
        Called with the number of the step before each one.

    Returns
    -------
    str
        The name of the run.
    """
    state, members = ensemble(inits=inits, copies=copies, epsilon=epsilon, seed=seed)
    name = run_name(rate)
    hparams = {
        "learning_rate": rate, "steps": steps, "initial_conditions": inits, "copies": copies, "epsilon": epsilon,
        "seed": seed, "network": "4-10-3, sigmoid, softmax", "data": "Iris, 120 rows train, 30 test, unscaled",
        "optimizer": "full-batch gradient descent",
    }  # fmt: skip
    with Recorder(path, state, run=name, mode=mode, members=members, hparams=hparams, quiet=True) as recorder:
        for step, (loss, right) in enumerate(steps_of(state, split(seed), rate, steps)):
            if progress is not None:
                progress(step)
            recorder.record(state, loss=loss, accuracy=right)
    return name
