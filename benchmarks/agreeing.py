"""Tangent vectors, shadows and twins of one training, each with an interval: the ground of `agreement.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import copysign, hypot, inf, sqrt

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

import trajtools as tt
from recorders.tangents import by_blocks
from recorders.torch import Shadow, Tangents, Twins, tangent_exponents
from trajtools.systems import heavy_ball, linear_network, logistic, quadratic_descent, quartic_descent, softmax_map
from trajtools.systems.system import System

FULL = torch.float64
LEVEL = 0.95
SETTLING = 200  # steps that vectors have to turn before they count
DECAY = (5.0, 25.0)  # steps: in twins that meet within 40 steps no exponential regime is found, so it is named
OFFSET = 1e-8  # of shadows, over the weights
ROUNDING = 10 * OFFSET  # per step, the least half-interval: a linear map scatters nowhere, but offsets are finite
STARTS, FEWER_STARTS, COPIES = 100, 24, 3


@dataclass(frozen=True)
class Estimate:
    """A number with its half-intervals below and above."""

    value: float
    below: float
    above: float | None = None

    @property
    def upward(self) -> float:
        return self.below if self.above is None else self.above

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.value - self.below:.4f}, {self.value + self.upward:.4f}]"


def apart(a: Estimate, b: Estimate) -> float:
    """a - b in units of the joint half-interval; 1 is the limit of agreement."""
    low, high = sorted((a, b), key=lambda one: one.value)
    gap, joint = a.value - b.value, hypot(low.upward, high.below)
    return gap / joint if joint else copysign(inf, gap) if gap else 0.0


def agree(a: Estimate, b: Estimate) -> bool:
    return abs(apart(a, b)) <= 1


def over_copies(values: np.ndarray) -> Estimate:
    """Mean of independent copies with Student's interval."""
    half = stdtrit(len(values) - 1, 0.5 + LEVEL / 2) * values.std(ddof=1) / sqrt(len(values))
    return Estimate(float(values.mean()), float(half))


def between(value: float, interval: Sequence[float]) -> Estimate:
    return Estimate(float(value), max(float(value - interval[0]), ROUNDING), max(float(interval[1] - value), ROUNDING))


# ------------------------------------------------------------------------------------- trainings with known exponents


class Loss(nn.Module):
    """A loss as a function of a few weights; called on what the batch brings."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], start: np.ndarray) -> None:
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.tensor(start, dtype=FULL))

    def forward(self, given: Tensor) -> Tensor:
        return self.function(self.w, given)


def itself(output: Tensor) -> Tensor:
    return output


@dataclass(frozen=True)
class Known:
    """A training whose exponent is known: its loss, its optimiser, and where it may start.

    `given` draws what the loss is called on at each step; twins of a chaotic one start where its system's orbits go.
    """

    name: str
    exact: float
    loss: Callable[[Tensor, Tensor], Tensor]
    rate: float
    starts: Callable[[np.random.Generator, int], np.ndarray]
    momentum: float = 0.0
    given: Callable[[np.random.Generator], float] = lambda rng: 1.0
    epsilon: float = 1e-12
    region: str | tuple[float, float] = "auto"
    system: System | None = None
    chaotic: bool = False

    def optimizer(self, parameters: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.rate, momentum=self.momentum)

    def batches(self, rng: np.random.Generator, steps: int) -> list[tuple[Tensor]]:
        return [(torch.tensor(self.given(rng), dtype=FULL),) for _ in range(steps)]


def quadratic(curvatures: Sequence[float]) -> Callable[[Tensor, Tensor], Tensor]:
    h = torch.tensor(curvatures, dtype=FULL)
    return lambda w, given: given * 0.5 * (h * w**2).sum()


def quartic(w: Tensor, given: Tensor) -> Tensor:
    return given * ((w**2 - 1) ** 2 / 4).sum()


def product(w: Tensor, given: Tensor) -> Tensor:
    return given * (w[0] * w[1] - 1) ** 2 / 2


def cross_entropy(z: Tensor, given: Tensor) -> Tensor:
    return given * (torch.logsumexp(z, 0) - z.mean())


def cubic(w: Tensor, given: Tensor) -> Tensor:
    return given * (4 * w**3 / 3 - 3 * w**2 / 2).sum()


def origin(n: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Where a quadratic that is unstable stays finite."""
    return lambda rng, count: np.zeros((count, n))


def visited(system: System) -> Callable[[np.random.Generator, int], np.ndarray]:
    """States as long orbits visit them."""
    return lambda rng, count: system.trajectories(count, 1, rng=rng)[:, 0]


def ball(rate: float, momentum: float, curvatures: Sequence[float]) -> float:
    return max(heavy_ball(rate, momentum, h).exact[0] for h in curvatures)


def known() -> list[Known]:
    """All of them; systems of `trajtools.systems` where they are gradient descents."""
    bowl, steep = quadratic_descent(0.1), quadratic_descent(0.3)
    chaos, well = quartic_descent(2.0), quartic_descent(0.3)
    line, calm, wild, parabola = linear_network(), softmax_map(5.0), softmax_map(10.0), logistic()
    # The only one without a closed form: its tangent map, followed for long.
    wilder = float(wild.exponents(10_000, rng=np.random.default_rng(1), k=1).values[0])
    drawn = lambda rng: float(rng.choice([1.0, 3.0]))  # noqa: E731
    at = lambda rate: float(0.5 * np.log(abs(1 - rate)) + 0.5 * np.log(abs(1 - 3 * rate)))  # noqa: E731
    noisy = Known("curvature 1 or 3, rate 1.5", at(1.5), quadratic([1.0]), 1.5, origin(1), given=drawn)
    h = [1.0, 4.0, 9.0]
    return [
        Known("quadratic, below 2 / h", bowl.exact[0], quadratic(h), 0.1, bowl.start, epsilon=1e-4, system=bowl),
        Known("quadratic, beyond 2 / h", steep.exact[0], quadratic(h), 0.3, origin(3), system=steep),
        Known("heavy ball, stable", ball(0.1, 0.9, h), quadratic(h), 0.1, bowl.start, 0.9, epsilon=1e-4),
        Known("heavy ball, beyond (2 + 2 beta) / h", ball(0.5, 0.9, h), quadratic(h), 0.5, origin(3), 0.9),
        replace(noisy, name="curvature 1 or 3, rate 0.9", exact=at(0.9), rate=0.9, epsilon=1e-4, region=DECAY),
        noisy,
        Known("quartic, rate 0.3", well.exact[0], quartic, 0.3, well.start, epsilon=1e-4, region=DECAY, system=well),
        Known("quartic, rate 2", chaos.exact[0], quartic, 2.0, chaos.start, system=chaos, chaotic=True),
        Known(
            "cubic, rate 1 (logistic map)",
            parabola.exact[0],
            cubic,
            1.0,
            visited(parabola),
            system=parabola,
            chaotic=True,
        ),
        Known("linear network, rate 2", line.exact[0], product, 2.0, line.start, system=line, chaotic=True),
        Known("softmax, gain 5", calm.exact[0], cross_entropy, 5.0, calm.start, epsilon=1e-4, system=calm),
        Known("softmax, gain 10", wilder, cross_entropy, 10.0, visited(wild), system=wild, chaotic=True),
    ]


def of_known(training: Known, steps: int, *, seed: int = 0) -> tuple[Estimate, Estimate, Estimate]:
    """Exponents of tangent vectors and of a shadow along one orbit, and of twins from many starts."""
    rng = np.random.default_rng(seed)
    start = training.starts(rng, 1)[0]
    model = Loss(training.loss, start)
    opt = training.optimizer(model.parameters())
    batches = training.batches(rng, SETTLING + steps)
    exact = tangent_exponents(model, itself, opt, batches, vectors="kept", discard=SETTLING)
    shadow = Shadow(model, itself, opt, directions=("forward",), epsilon=OFFSET * max(1.0, np.linalg.norm(start)))
    growth = []
    for batch in batches:
        opt.zero_grad()
        shadow.backward(*batch)
        opt.step()
        growth.append(shadow.growth)
    counted = np.array(growth)[SETTLING:, None]
    twins = tt.twins(pairs_of(training, rng), metric="l2").fit(training.region)
    return (
        between(exact.values[0], exact.intervals[0]),
        between(counted.mean(), by_blocks(counted, LEVEL)[0]),
        between(twins.value, twins.interval),
    )


def pairs_of(training: Known, rng: np.random.Generator, steps: int = 60) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """References and their perturbed copies on common batches, from many starts."""
    if training.system is not None and training.chaotic:
        return training.system.twins(STARTS, COPIES, steps, epsilon=training.epsilon, rng=rng)
    starts = training.starts(rng, FEWER_STARTS)
    return [twins_of(training, one, rng, seed=i, steps=steps) for i, one in enumerate(starts)]


def twins_of(
    training: Known, start: np.ndarray, rng: np.random.Generator, *, seed: int, steps: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A reference and its copies, trained by torch."""
    twins = Twins(
        Loss(training.loss, start), itself, training.optimizer, epsilon=training.epsilon, members=COPIES, seed=seed,
        only="all", vectorize=False, replant=None,
    )  # fmt: skip
    states = []
    for batch in training.batches(rng, steps):
        states.append(twins.state["w"].numpy().copy())
        twins.step(*batch)
    moved = np.array(states)
    return moved[:, 0], [moved[:, i] for i in range(1, 1 + COPIES)]


# ------------------------------------------------------------------------------------------------ a network in windows


@dataclass(frozen=True)
class InWindows:
    """What the windows of one training gave.

    estimates: (tangent, shadow, twins) of each window; kept: exponent of the kept tangent vector in each; library:
    `tt.lyapunov_windows` of the same twins; losses: of every step; words: warnings of all results.
    """

    estimates: list[tuple[Estimate, Estimate, Estimate]]
    kept: np.ndarray
    library: object
    losses: list[float]
    words: tuple[str, ...]


def in_windows(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    opt: torch.optim.Optimizer,
    batches: Sequence[tuple[Tensor, ...]],
    *,
    window: int,
    copies: int,
    epsilon: float = 1e-12,
) -> InWindows:
    """Train on the batches, with tangent vectors, shadows and twins that begin afresh in every window.

    All follow the same orbit on the same batches; each of the `copies` begins in a random direction of its own, so
    that the copies of the three estimators are independent samples of one quantity. `epsilon` is the 2-norm of the
    twins' offsets.
    """
    kinds = ["both", *["fresh"] * (copies - 1)]
    tangents = [Tangents(model, loss_fn, opt, window=window, vectors=v, seed=i) for i, v in enumerate(kinds)]
    seeds = range(copies, 2 * copies)
    shadows = [Shadow(model, loss_fn, opt, directions=("forward",), window=window, seed=i) for i in seeds]
    growth, losses, pairs = np.empty((copies, len(batches))), [], []
    for t, (x, *targets) in enumerate(batches):
        if t % window == 0:
            twins = begun(model, loss_fn, opt, epsilon=epsilon, copies=copies, seed=1000 + t)
            states = [rows(twins.models)]
        for follower in tangents:
            follower.step(x, *targets)
        opt.zero_grad()
        loss = loss_fn(model(x), *targets)
        loss.backward()
        losses.append(loss.item())
        for i, follower in enumerate(shadows):
            follower.step(x, *targets, gradients=[p.grad for p in model.parameters()])
            growth[i, t] = follower.growth
        opt.step()
        twins.step(x, *targets)
        states.append(rows(twins.models))
        if not np.array_equal(states[-1][:1], rows([model])):
            raise RuntimeError(f"the reference of the twins left the training at step {t}")
        if len(states) > window:
            moved = np.array(states)
            pairs.append((moved[:, 0], [moved[:, i] for i in range(1, 1 + copies)]))
    results = [follower.result() for follower in tangents]
    by_tangent = np.array([found.windows[:, 0] for found in results])
    by_shadow = growth.reshape(copies, -1, window).mean(2)
    distances = tt.twins(pairs, metric="l2", start=[window * w for w in range(len(pairs))])
    logs = np.log(distances.distances)
    by_twins = ((logs[:, window] - logs[:, 0]) / window).reshape(len(pairs), -1).T
    library = tt.lyapunov_windows(distances, window=window)
    three = [tuple(over_copies(one[:, w]) for one in (by_tangent, by_shadow, by_twins)) for w in range(len(pairs))]
    words = dict.fromkeys([*(w for s in shadows for w in s.warnings), *results[0].warnings, *library.warnings])
    return InWindows(three, results[0].window_kept, library, losses, tuple(map(str, words)))


def begun(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    opt: torch.optim.Optimizer,
    *,
    epsilon: float,
    copies: int,
    seed: int,
) -> Twins:
    """Twins of the training as it stands, the buffers of its optimiser included."""
    state = deepcopy(opt.state_dict())

    def same(parameters: object) -> torch.optim.Optimizer:
        made = type(opt)(parameters, lr=opt.param_groups[0]["lr"])
        made.load_state_dict(deepcopy(state))
        return made

    size = epsilon / sqrt(sum(p.numel() for p in model.parameters()))
    return Twins(
        model, loss_fn, same, epsilon=size, members=copies, seed=seed, distribution="gaussian", only="all",
        vectorize=False, replant=None,
    )  # fmt: skip


def rows(models: Sequence[nn.Module]) -> np.ndarray:
    """Weights of each model as a row, copied."""
    return np.stack([nn.utils.parameters_to_vector(m.parameters()).detach().numpy().copy() for m in models])
