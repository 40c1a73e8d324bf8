"""Iris from many initial conditions at once: the training of Danovski, Soriano and Lacasa (2024), in NumPy only.

A 4-10-3 network (sigmoid hidden units, softmax out) learns Fisher's 150 flowers by full-batch gradient descent on the
mean cross-entropy, in float64: W ~ N(0, 1), b = 0, no scaling of the features, no momentum. A seeded random subset of
120 rows trains, the other 30 test. Every initial condition is followed by copies whose weights (not biases) were moved
by Uniform(-epsilon, epsilon), and all of them are the members of one run, one run per learning rate:

    python -m recorders.iris iris.h5 --rates 0.01,1 --inits 100 --copies 5 --steps 200

The initial conditions, the copies and the split depend on the seed only, so that every learning rate starts from the
same states.

References
----------
.. [1] P. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), arXiv:2404.05782
.. [2] R. A. Fisher, Annals of Eugenics 7, 179 (1936), doi:10.1111/j.1469-1809.1936.tb02137.x
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recorders.iris_network import (
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
from trajtools.store import Member, TrajtoolsError

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


class Progress:
    """Where the training stands, on stderr: one line that is rewritten on a terminal, one line per run elsewhere."""

    def __init__(self, name: str, steps: int, quiet: bool) -> None:
        self._name, self._steps, self._quiet, self._started = name, steps, quiet, time.monotonic()
        self._live = sys.stderr.isatty() and not quiet
        self._shown = -1.0

    def __call__(self, step: int) -> None:
        """Say that `step` is being taken."""
        now = time.monotonic()
        if self._live and (now - self._shown > 0.1 or step == self._steps):
            self._shown = now
            print(f"\r{self._name}: step {step} of {self._steps}", end="", file=sys.stderr, flush=True)

    def done(self, members: int) -> None:
        """Say that the run is recorded.

        Parameters
        ----------
        members : int
            How many networks were trained.
        """
        if self._quiet:
            return
        start = "\r" if self._live else ""
        took = time.monotonic() - self._started
        words = f"{start}{self._name}: {members} networks, {self._steps} steps, {took:.1f} s"
        print(words, file=sys.stderr, flush=True)


def _rates(text: str) -> list[float]:
    rates = [float(word) for word in text.split(",")]
    if not all(np.isfinite(rates)):
        raise ValueError(text)
    return list(dict.fromkeys(rates))


def _count(text: str) -> int:
    if int(text) < 0:
        raise ValueError(text)
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recorders.iris", description="Train the Iris network of Danovski et al. (2024) and record it."
    )
    parser.add_argument("file", type=Path, help="HDF5 file to write; it must not exist")
    parser.add_argument("--rates", type=_rates, default=[0.01, 0.3, 1.0, 5.0], metavar="R,R,...", help="learning rates")
    parser.add_argument("--inits", type=_count, default=100, help="initial conditions (default %(default)s)")
    parser.add_argument("--copies", type=_count, default=5, help="perturbed copies of each (default %(default)s)")
    parser.add_argument("--steps", type=_count, default=200, help="updates (default %(default)s)")
    parser.add_argument("--epsilon", type=float, default=1e-8, help="size of the perturbation (default %(default)s)")
    parser.add_argument("--seed", type=_count, default=0, help="of split, weights and copies (default %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the name of the program; the command line of the process if not given.

    Returns
    -------
    int
        Exit status: 0 done, 1 error.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.inits < 1:
        parser.error("--inits must be at least 1")
    try:
        for number, rate in enumerate(chosen.rates):
            progress = Progress(run_name(rate), chosen.steps, chosen.quiet)
            record(
                chosen.file, rate, inits=chosen.inits, copies=chosen.copies, steps=chosen.steps,
                epsilon=chosen.epsilon, seed=chosen.seed, mode="a" if number else "x", progress=progress,
            )  # fmt: skip
            progress.done(chosen.inits * (1 + chosen.copies))
    except (TrajtoolsError, OSError) as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted; what was recorded stays in {chosen.file}.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
