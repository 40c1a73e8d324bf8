"""Training on Iris from many initial conditions (Danovski, Soriano and Lacasa 2024), in NumPy only.

A 4-10-3 network (sigmoid hidden units, softmax out) learns Fisher's 150 flowers by full-batch gradient descent on the
mean cross-entropy, in float64: W ~ N(0, 1), b = 0, no scaling of the features, no momentum. A seeded random subset of
120 rows trains, the other 30 test. Every initial condition is followed by copies whose weights (not biases) were moved
by Uniform(-epsilon, epsilon), and all of them are the members of one run, one file per learning rate:

    python -m recorders.iris iris --rates 0.01,1 --inits 100 --copies 5 --steps 200

Copies are planted anew beside their references as in `recorders.planting` (``--replant none``: never, as in the paper;
of several starts, the paper's procedure uses the first). With ``--restart 4000`` the copies of a second run,
``eta=<rate> from 4000.h5``, leave their references late, to test the stability of what was learned.

Initial conditions, copies and split depend on the seed only, so every learning rate starts from the
same states.

References
----------
.. [1] P. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), arXiv:2404.05782
.. [2] R. A. Fisher, Annals of Eugenics 7, 179 (1936), doi:10.1111/j.1469-1809.1936.tb02137.x
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from recorders.planting import Planting, Replant, Schedule, check_replant, seed_of
from recorders.recorder import Recorder
from recorders.twins import Twin, are_beside, floor_of, perturb
from trajtools.errors import SelectionError, TrajtoolsError
from trajtools.store import Run
from trajtools.types import Floats, Ints
from trajtools.wiring import Member

__all__ = ["ensemble", "record", "restart", "restarted_name", "run_name", "steps_of"]

State = dict[str, Floats]
SPECIES = ("setosa", "versicolor", "virginica")
HIDDEN = 10
TRAINED = 120
# Purposes of a seed: split, weights and perturbations use separate streams.
SPLIT, WEIGHTS, COPIES, LATE = range(4)
# Members whose work arrays (about 50 kB each) fit into the L2 cache together: 8 us per member and step with 8 to 16 of
# them, 12 us with 64 (measured).
MEMBERS_AT_ONCE = 16


def record(
    folder: str | Path,
    rate: float,
    *,
    inits: int,
    copies: int = 5,
    steps: int = 200,
    epsilon: float | Sequence[float] = 1e-8,
    seed: int = 0,
    mode: str = "x",
    allow_rounded: bool = False,
    replant: Replant = "auto",
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Train at one learning rate and record it as ``eta=<rate>.h5``.

    Parameters
    ----------
    folder : str or Path
        Where the file goes; it must exist.
    rate : float
        Learning rate.
    inits : int
        Number of initial conditions.
    copies : int
        Number of perturbed copies of each.
    steps : int
        Updates; steps + 1 states are recorded.
    epsilon : float or list of float
        Every weight of a copy is perturbed by Uniform(-epsilon, epsilon); of a list, the copies take the sizes in turn.
    seed : int
        Seed of the split, the weights and the perturbations.
    mode : str
        ``"x"``: the file must not exist; ``"next"``, ``"w"``: as in `Recorder`.
    allow_rounded : bool
        Accept an epsilon that float64 rounds away in more than 1 % of the entries, such as 1e-14.
    replant : {"auto", "saturation"}, int or None
        When copies are planted anew, as in `recorders.torch.Twins`.
    progress : callable, optional
        Called with the number of the step before each one.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> from recorders.iris import record
    >>> record(".", 0.5, inits=2, copies=1, steps=5).name
    'eta=0.5.h5'
    """
    state, members = ensemble(inits=inits, copies=copies, epsilon=epsilon, seed=seed, allow_rounded=allow_rounded)
    path = Path(folder) / f"{run_name(rate)}.h5"
    hparams = {
        "learning_rate": rate, "steps": steps, "initial_conditions": inits, "copies": copies, "epsilon": epsilon,
        "seed": seed, "network": "4-10-3, sigmoid, softmax", "data": "Iris, 120 rows train, 30 test, unscaled",
        "optimizer": "full-batch gradient descent", "replant": replant,
    }  # fmt: skip
    nursery = Nursery(state, members, None if epsilon == 0 else replant)
    nursery.plant(0)
    options: dict[str, Any] = {"mode": mode, "members": members, "hparams": hparams, "quiet": True}
    with Recorder(path, state, plantings=nursery.take(), **options) as recorder:
        for step, (loss, right) in enumerate(steps_of(state, split(seed), rate, steps, nursery)):
            if progress is not None:
                progress(step)
            recorder.plant(nursery.take())
            recorder.record(state, loss=loss, accuracy=right)
    return recorder.path


class Nursery:
    """Plants the copies of every initial condition anew, each family by a schedule of its own.

    Parameters
    ----------
    state : dict of str to ndarray of float64
        As of `ensemble`; what is planted is written to it.
    members : list of Member
        As of `ensemble`.
    replant : {"auto", "saturation"}, int or None
        As in `record`.
    """

    def __init__(self, state: State, members: Sequence[Member], replant: Replant) -> None:
        self._state, self._members = state, members
        self._reference = np.array([i if m.reference < 0 else m.reference for i, m in enumerate(members)])
        families = {
            i: [k for k, m in enumerate(members) if m.reference == i] for i, m in enumerate(members) if m.reference < 0
        }
        self._families = {i: copies for i, copies in families.items() if copies}
        self._schedules = {i: Schedule(copies, replant) for i, copies in self._families.items()}
        self._new: list[Planting] = []

    def take(self) -> list[Planting]:
        """Return what was planted since the last call.

        Returns
        -------
        list of Planting
            For `Recorder.plant`, before the state that shows it is recorded.
        """
        new, self._new = self._new, []
        return new

    def plant(self, step: int) -> None:
        """Plant what is to be planted in the state of a step; at step 0, note what stands there.

        Parameters
        ----------
        step : int
            Number of updates.
        """
        families = {i: c for i, c in self._families.items() if step == 0 or self._schedules[i].looks(step)}
        if families:
            distances = self._distances()
            for i, copies in families.items():
                apart = distances[copies[0] : copies[-1] + 1].tolist()
                if step == 0:
                    self._note(0, i, copies, apart)
                elif due := self._schedules[i].due(step, partial(_known, apart), partial(self._network, i)):
                    self._replant(step, i, due, apart)

    def _network(self, member: int) -> State:
        return {name: values[member] for name, values in self._state.items()}

    def _replant(self, step: int, reference: int, due: Sequence[int], apart: list[float]) -> None:
        start = self._network(reference)
        first = self._families[reference][0]
        member = self._members[due[0]]
        sizes = [self._members[k].epsilon for k in self._families[reference]]
        copies = perturb(start, sizes, len(apart), seed_of(member.seed, step), allow_rounded=True)
        if not are_beside(start, [copies[k - first] for k in due]):
            self._schedules[reference].is_over = True  # a training that has diverged does not come back
            return
        for k in due:
            for name, values in copies[k - first].items():
                self._state[name][k] = values
            gaps = [copies[k - first][name] - start[name] for name in start]
            apart[k - first] = float(np.sqrt(sum((gap**2).sum() for gap in gaps)))
        self._note(step, reference, due, apart)

    def _note(self, step: int, reference: int, copies: Sequence[int], apart: list[float]) -> None:
        floor = floor_of(self._network(reference))
        self._schedules[reference].planted(step, copies, apart, floor)
        first = self._families[reference][0]
        for k in copies:
            member = self._members[k]
            self._new.append(Planting(step, k, member.epsilon, seed_of(member.seed, step), apart[k - first]))

    def _distances(self) -> Floats:
        squares: Any = 0.0
        for values in self._state.values():
            gaps = values - values[self._reference]
            squares = squares + (gaps**2).reshape(len(values), -1).sum(axis=1)
        return np.asarray(np.sqrt(squares))


def _known(distances: list[float], _copies: Sequence[int]) -> list[float]:
    """Distances of all copies, whichever are asked for."""
    return distances


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

    Examples
    --------
    >>> run_name(0.5)
    'eta=0.5'
    """
    return f"eta={rate:.12g}"


def restart(
    folder: str | Path,
    rate: float,
    step: int,
    *,
    copies: int = 20,
    epsilon: float = 1e-8,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Perturb a recorded training late: train copies of its states at one step to its end, as a run of their own.

    This tests the stability of the trained network [1]_: 20 copies from step 4000 of 5000, at rate 0.01.

    Parameters
    ----------
    folder : str or Path
        Where the run of this learning rate is, complete; the new file goes there, too.
    rate : float
        Learning rate.
    step : int
        Step of the perturbation; it must have been recorded.
    copies : int
        Perturbed copies of each initial condition.
    epsilon : float
        Every weight (no bias) of a copy is perturbed by Uniform(-epsilon, epsilon).
    progress : callable, optional
        Called with the number of the step before each one.

    Returns
    -------
    Path
        The new file, ``eta=<rate> from <step>.h5``. Its members are the copies and, before them, their
        references; its steps go on from `step`, and it names the run that it was perturbed from.

    Raises
    ------
    SelectionError
        If the run did not record this step, or ends there.

    References
    ----------
    .. [1] P. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), doi:10.3389/fcpxs.2024.1367957

    Examples
    --------
    >>> from recorders.iris import record, restart
    >>> path = record(".", 0.7, inits=2, copies=1, steps=10)
    >>> restart(".", 0.7, 5, copies=1).name
    'eta=0.7 from 5.h5'
    """
    with Run(Path(folder) / f"{run_name(rate)}.h5") as run:
        row, last = int(np.searchsorted(run.step, step)), int(run.step[-1])
        if row == len(run.step) or run.step[row] != step or step >= last:
            raise SelectionError(
                f"run {run.name!r} recorded steps {run.step[0]} to {last}, and a restart needs one of them before "
                f"the last, not {step}"
            )
        seed, free = int(run.hparams["seed"]), [m for m, member in enumerate(run.members) if member.reference < 0]
        weights, names = run.states[row], [run.members[m].name for m in free]
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
    nursery = Nursery(state, members, None)
    nursery.plant(0)
    with Recorder(
        Path(folder) / f"{restarted_name(rate, step)}.h5",
        state,
        members=members,
        hparams=hparams,
        step=step,
        plantings=nursery.take(),
        reference=run_name(rate),
        quiet=True,
    ) as recorder:
        for done, (loss, right) in enumerate(steps_of(state, split(seed), rate, last - step)):
            if progress is not None:
                progress(done)
            recorder.record(state, loss=loss, accuracy=right)
    return recorder.path


def restarted_name(rate: float, step: int) -> str:
    """Name of the run of one learning rate with a late perturbation.

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

    Examples
    --------
    >>> restarted_name(0.5, 100)
    'eta=0.5 from 100'
    """
    return f"{run_name(rate)} from {step}"


def ensemble(
    *, inits: int, copies: int, epsilon: float | Sequence[float], seed: int, allow_rounded: bool = False
) -> tuple[State, list[Member]]:
    """Draw the initial conditions and their perturbed copies.

    Parameters
    ----------
    inits : int
        Number of initial conditions.
    copies : int
        Number of perturbed copies of each.
    epsilon : float or list of float
        Every weight (no bias) of a copy is perturbed by Uniform(-epsilon, epsilon); of a list, the copies take the
        sizes in turn.
    seed : int
        Seed of the split, the weights and the perturbations.
    allow_rounded : bool
        Accept an epsilon that float64 rounds away in more than 1 % of the entries, such as 1e-14.

    Returns
    -------
    state : dict of str to ndarray of float64
        As in `initial_weights`, with a leading axis of ``inits * (1 + copies)`` members: each initial condition is
        followed by its copies.
    members : list of Member
        Entries of the members table, with the reference of each copy.

    Examples
    --------
    >>> state, members = ensemble(inits=2, copies=3, epsilon=1e-8, seed=0)
    >>> len(members)
    8
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


def _copies(start: State, epsilon: float | Sequence[float], copies: int, seed: int, allow_rounded: bool) -> list[Twin]:
    return perturb(start, epsilon, copies, seed, allow_rounded=allow_rounded) if copies else []


def steps_of(
    state: State, data: Split, rate: float, steps: int, nursery: Nursery | None = None
) -> Iterator[tuple[Floats, Floats]]:
    """Train all members in lock-step; `state` is updated in place, after each pair is yielded.

    Parameters
    ----------
    state : dict of str to ndarray of float64
        State with a leading axis of m members; modified in place.
    data : Split
        Training and test set.
    rate : float
        Learning rate of the gradient descent.
    steps : int
        Number of updates.
    nursery : Nursery, optional
        What plants copies anew after each update; at first they stand.

    Yields
    ------
    loss, accuracy : ndarray of float64, shape (m,)
        Values at the current state: steps + 1 pairs, the last after the last update.

    Examples
    --------
    >>> state, members = ensemble(inits=1, copies=1, epsilon=1e-8, seed=0)
    >>> len(list(steps_of(state, split(0), 0.5, steps=3)))
    4
    """
    members = len(state["hidden.bias"])
    chunks = [slice(start, start + MEMBERS_AT_ONCE) for start in range(0, members, MEMBERS_AT_ONCE)]
    loss, right = np.empty(members), np.empty(members)
    gradient = {name: np.empty_like(values) for name, values in state.items()}
    for step in range(steps + 1):
        for chunk in chunks:
            part = {name: values[chunk] for name, values in state.items()}
            loss[chunk], slope = loss_and_gradient(part, data.train, data.labels)
            right[chunk] = accuracy(part, data.test, data.test_labels)
            for name, values in slope.items():
                gradient[name][chunk] = values
        yield loss, right
        if step < steps:
            for name in state:
                gradient[name] *= rate
                state[name] -= gradient[name]
            if nursery is not None:
                nursery.plant(step + 1)


def split(seed: int) -> Split:
    """Draw the 120 training rows; the other 30 are the test set."""
    features, species = load()
    order = np.random.default_rng(derived_seed(seed, SPLIT)).permutation(len(species))
    training, rest = np.sort(order[:TRAINED]), np.sort(order[TRAINED:])
    return Split(
        np.ascontiguousarray(features[training].T),
        species[training],
        np.ascontiguousarray(features[rest].T),
        species[rest],
    )


@dataclass(frozen=True)
class Split:
    """The training set and the test set.

    Attributes
    ----------
    train, test : ndarray of float64, shape (4, 120) and (4, 30), in cm
        Features, one flower per column, so that all sums run over contiguous memory.
    labels, test_labels : ndarray of int64, shape (120,) and (30,)
        Index into `SPECIES`.
    """

    train: Floats
    labels: Ints
    test: Floats
    test_labels: Ints


def load() -> tuple[Floats, Ints]:
    """Load Fisher's Iris data from the package."""
    text = (files("recorders") / "iris.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))[1:]
    features = np.array([row[:4] for row in rows], dtype=np.float64)
    return features, np.array([SPECIES.index(row[4]) for row in rows], dtype=np.int64)


def derived_seed(seed: int, purpose: int, index: int = 0) -> int:
    """Return a seed of 63 bits, independent for every (purpose, index)."""
    return int(np.random.SeedSequence([seed, purpose, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def initial_weights(seed: int) -> State:
    """Draw one initial condition: weights from N(0, 1), biases 0."""
    rng = np.random.default_rng(seed)
    return {
        "hidden.kernel": rng.standard_normal((4, HIDDEN)),
        "hidden.bias": np.zeros(HIDDEN),
        "output.kernel": rng.standard_normal((HIDDEN, len(SPECIES))),
        "output.bias": np.zeros(len(SPECIES)),
    }


def loss_and_gradient(state: State, features: Floats, labels: Ints) -> tuple[Floats, State]:
    """Mean cross-entropy of all members, and its gradient."""
    hidden, error = forward(state, features)
    onehot = (np.arange(len(SPECIES))[:, None] == labels).astype(np.float64)
    error -= error.max(axis=1, keepdims=True)
    right = np.einsum("mkn,kn->mn", error, onehot)
    np.exp(error, out=error)
    total = error.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) - right).mean(axis=1)
    error /= total
    error -= onehot
    error /= len(labels)  # d loss / d logits
    back = np.matmul(state["output.kernel"], error)
    back *= hidden
    gradient = {"output.kernel": np.matmul(hidden, error.swapaxes(1, 2)), "output.bias": error.sum(axis=2)}
    np.subtract(1.0, hidden, out=hidden)
    back *= hidden  # d loss / d (input of the hidden units)
    gradient["hidden.kernel"] = np.matmul(features, back.swapaxes(1, 2))
    gradient["hidden.bias"] = back.sum(axis=2)
    return loss, gradient


def accuracy(state: State, features: Floats, labels: Ints) -> Floats:
    """Fraction of flowers that each member classifies correctly."""
    return np.asarray((forward(state, features)[1].argmax(axis=1) == labels).mean(axis=1))


def forward(state: State, features: Floats) -> tuple[Floats, Floats]:
    """Hidden activations and logits of all members."""
    # matmul over the members, not one large product, so that equal members stay equal.
    hidden = np.matmul(state["hidden.kernel"].swapaxes(1, 2), features)
    hidden += state["hidden.bias"][:, :, None]
    np.negative(hidden, out=hidden)
    with np.errstate(over="ignore"):  # exp(710) is inf and 1 / (1 + inf) is 0, the correct limit
        np.exp(hidden, out=hidden)
    hidden += 1.0
    np.reciprocal(hidden, out=hidden)
    logits = np.matmul(state["output.kernel"].swapaxes(1, 2), hidden)
    logits += state["output.bias"][:, :, None]
    return hidden, logits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.inits < 1:
        parser.error("--inits must be at least 1")
    if args.restart is not None and not (args.restart < args.steps and args.copies):
        parser.error("--restart must be below --steps, and needs --copies")
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
        for rate in args.rates:
            progress = Progress(run_name(rate), args.steps, args.quiet)
            record(
                args.folder, rate, inits=args.inits, copies=args.copies, steps=args.steps,
                epsilon=args.epsilon, seed=args.seed, replant=args.replant, progress=progress,
            )  # fmt: skip
            progress.done(args.inits * (1 + args.copies))
            if args.restart is not None:
                progress = Progress(restarted_name(rate, args.restart), args.steps - args.restart, args.quiet)
                restart(args.folder, rate, args.restart, copies=args.copies, epsilon=args.epsilon, progress=progress)
                progress.done(args.inits * (1 + args.copies))
    except (TrajtoolsError, OSError) as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted; the recorded states are in {args.folder}.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recorders.iris", description="Train the Iris network of Danovski et al. (2024) and record it."
    )
    parser.add_argument("folder", type=Path, help="folder for the runs; made if it does not exist")
    parser.add_argument("--rates", type=_rates, default=[0.01, 0.3, 1.0, 5.0], metavar="R,R,...", help="learning rates")
    parser.add_argument("--inits", type=_count, default=100, help="initial conditions (default %(default)s)")
    parser.add_argument("--copies", type=_count, default=5, help="perturbed copies of each (default %(default)s)")
    parser.add_argument("--steps", type=_count, default=200, help="updates (default %(default)s)")
    parser.add_argument("--epsilon", type=float, default=1e-8, help="size of the perturbation (default %(default)s)")
    parser.add_argument(
        "--seed", type=_count, default=0, help="seed of split, weights and copies (default %(default)s)"
    )
    parser.add_argument(
        "--restart", type=_count, metavar="STEP",
        help="also train copies perturbed at this step, as the run 'eta=<rate> from <STEP>'",
    )  # fmt: skip
    parser.add_argument(
        "--replant", type=_replant, default="auto", metavar="auto|saturation|K|none",
        help="when copies are planted anew (default %(default)s); K: every K steps",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def _rates(text: str) -> list[float]:
    rates = [float(word) for word in text.split(",")]
    if not all(np.isfinite(rates)):
        raise ValueError(text)
    return list(dict.fromkeys(rates))


def _replant(text: str) -> Replant:
    policy: Replant = None if text == "none" else int(text) if text.isdigit() else text
    check_replant(policy)
    return policy


def _count(text: str) -> int:
    if int(text) < 0:
        raise ValueError(text)
    return int(text)


class Progress:
    """Progress on stderr: a line that is updated on a terminal, one line per run elsewhere."""

    def __init__(self, name: str, steps: int, quiet: bool) -> None:
        self._name, self._steps, self._quiet, self._started = name, steps, quiet, time.monotonic()
        self._live = sys.stderr.isatty() and not quiet
        self._last_update = -1.0

    def __call__(self, step: int) -> None:
        """Report the current step."""
        now = time.monotonic()
        if self._live and (now - self._last_update > 0.1 or step == self._steps):
            self._last_update = now
            print(f"\r{self._name}: step {step} of {self._steps}", end="", file=sys.stderr, flush=True)

    def done(self, members: int) -> None:
        """Report the end of a run."""
        if self._quiet:
            return
        start = "\r" if self._live else ""
        took = time.monotonic() - self._started
        line = f"{start}{self._name}: {members} networks, {self._steps} steps, {took:.1f} s"
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
