"""The training of the Iris network from many initial conditions at once, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from recorders.iris.network import (
    COPIES,
    LATE,
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
from recorders.twins import Twin, perturb
from trajtools.errors import SelectionError
from trajtools.parameters import Member
from trajtools.store import open as open_file

# Members whose work arrays (about 50 kB each) stay in the second-level cache together: measured 8 us a member and step
# with 8 to 16 of them, 12 us with 64.
MEMBERS_AT_ONCE = 16


def ensemble(
    *, inits: int, copies: int, epsilon: float, seed: int, allow_rounded: bool = False
) -> tuple[State, list[Member]]:
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
    allow_rounded : bool
        Accept an epsilon that float64 rounds away in more than 1 % of the entries, as 1e-14 does.

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
        for k, twin in enumerate(_copies(start, epsilon, copies, copies_seed, allow_rounded)):
            states.append(twin)
            members.append(replace(twin.member, name=f"init {i} copy {k}", reference=reference))
    return {name: np.stack([state[name] for state in states]) for name in states[0]}, members


def _copies(start: State, epsilon: float, copies: int, seed: int, allow_rounded: bool) -> list[Twin]:
    return perturb(start, epsilon, copies, seed, allow_rounded=allow_rounded) if copies else []


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


def restarted_name(rate: float, step: int) -> str:
    """Name of the run of one learning rate that was perturbed late.

    Parameters
    ----------
    rate : float
        Learning rate.
    step : int
        Step of the perturbation.

    Returns
    -------
    str
        Such as ``eta=0.01 from 4000``.
    """
    return f"{run_name(rate)} from {step}"


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
    allow_rounded: bool = False,
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
    allow_rounded : bool
        Accept an epsilon that float64 rounds away in more than 1 % of the entries, as 1e-14 does.
    progress : callable, optional
        Called with the number of the step before each one.

    Returns
    -------
    str
        The name of the run.
    """
    state, members = ensemble(inits=inits, copies=copies, epsilon=epsilon, seed=seed, allow_rounded=allow_rounded)
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


def restart(
    path: str | Path,
    rate: float,
    step: int,
    *,
    copies: int = 20,
    epsilon: float = 1e-8,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Perturb a recorded training late: train copies of its states at one step to its end, as a run of their own.

    This is how the stability of what was learned is tested [1]_: 20 copies from step 4000 of 5000, at the rate 0.01.

    Parameters
    ----------
    path : str or Path
        A file that holds the run of this learning rate, complete.
    rate : float
        Learning rate.
    step : int
        Step at which the copies leave their reference; it must have been recorded.
    copies : int
        Perturbed copies of each initial condition.
    epsilon : float
        Every weight (no bias) of a copy is moved by Uniform(-epsilon, epsilon).
    progress : callable, optional
        Called with the number of the step before each one.

    Returns
    -------
    str
        The name of the new run, ``eta=<rate> from <step>``. Its members are the copies and, before them, their
        references; its steps go on from `step`, and it names the run that it was perturbed from.

    Raises
    ------
    SelectionError
        If the run did not record this step, or ends there.

    References
    ----------
    .. [1] P. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), doi:10.3389/fcpxs.2024.1367957
    """
    with open_file(path) as file:
        run = file[run_name(rate)]
        row, last = int(np.searchsorted(run.step, step)), int(run.step[-1])
        if row == len(run.step) or run.step[row] != step or step >= last:
            raise SelectionError(
                f"run {run.name!r} recorded steps {run.step[0]} to {last}, and a restart needs one of them before the "
                f"last; {step} is none"
            )
        seed, free = int(run.hparams["seed"]), [m for m, member in enumerate(run.members) if member.reference < 0]
        weights, names = run.states(slice(row, row + 1))[0], [run.members[m].name for m in free]
        table, hparams = run.parameters, run.hparams
    states: list[State] = []
    members: list[Member] = []
    for i, (m, name) in enumerate(zip(free, names, strict=True)):
        start = {p.name: weights[m, p.offset : p.offset + p.size].reshape(p.shape) for p in table}
        reference = len(members)
        states.append(start)
        members.append(Member(name))
        for k, twin in enumerate(perturb(start, epsilon, copies, derived_seed(seed, LATE, i))):
            states.append(twin)
            members.append(replace(twin.member, name=f"{name} copy {k}", reference=reference))
    state = {name: np.stack([one[name] for one in states]) for name in states[0]}
    hparams = {**hparams, "copies": copies, "epsilon": epsilon, "perturbed_at": step}
    name = restarted_name(rate, step)
    with Recorder(
        path,
        state,
        run=name,
        mode="a",
        members=members,
        hparams=hparams,
        step=step,
        reference=run_name(rate),
        quiet=True,
    ) as recorder:
        for done, (loss, right) in enumerate(steps_of(state, split(seed), rate, last - step)):
            if progress is not None:
                progress(done)
            recorder.record(state, loss=loss, accuracy=right)
    return name
