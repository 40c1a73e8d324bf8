"""Whether exponents of tangent vectors, of renormalised shadows and of twins agree, and where they must not.

    python benchmarks/agreement.py                     # everything, 3 to 4 minutes on one core
    python benchmarks/agreement.py --parts delayed     # systems, windows or delayed

Three tables. `systems`: trainings whose exponent is known. `windows`: a network on digits, window by window, below and
beyond the onset of chaos; every estimator begins each window with random perturbations of its own, and its interval
comes from them. `delayed`: a training that becomes unstable long after it could, where only what begins at the
window sees it.

Two estimates agree if they lie no further apart than the root of the sum of squares of their half-intervals (95 %).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import copysign, hypot, inf, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__":  # before numba and torch are imported; whoever imports this keeps his threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

import trajtools as tt
from recorders.tangents import by_blocks
from recorders.torch import Recorder, Shadow, Tangents, Twins, tangent_exponents
from trajtools.systems import heavy_ball, linear_network, logistic, quadratic_descent, quartic_descent, softmax_map
from trajtools.systems.system import System

FULL = torch.float64
LEVEL = 0.95
SETTLING = 200  # steps that vectors have to turn before they count
DECAY = (5.0, 25.0)  # steps: in twins that meet within 40 steps no exponential regime is found, so it is named
OFFSET = 1e-8  # of shadows, over the weights
ROUNDING = 10 * OFFSET  # per step, the least half-interval: a linear map scatters nowhere, but offsets are finite
STARTS, FEWER_STARTS, COPIES = 100, 24, 3
NETWORK_RUNS = ((0.1, 0.0), (1.5, 0.0), (2.0, 0.0), (0.02, 0.9), (1.0, 0.9))
WINDOW, WINDOWS, WINDOW_COPIES, BATCH = (
    25,
    16,
    12,
    64,
)  # beyond the onset 50 steps grow by up to 36 nats, past saturation
RATE, SPAN, FRESH = 0.4, 100, 6  # of the toy, and copies that begin in each window


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


# ---------------------------------------------------------------------------------------------- the three tables


def systems(steps: int) -> None:
    """Exact, tangent, shadow and twin exponents of trainings whose exponent is known."""
    print("| training | exact | tangent | shadow | twins | furthest pair | exact within |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    worst, inside, count = 0.0, 0, 0
    for training in known():
        found = of_known(training, steps)
        exact = Estimate(training.exact, 0.0)
        pair = max(abs(apart(a, b)) for i, a in enumerate(found) for b in found[:i])
        hits = [agree(one, exact) for one in found]
        worst, inside, count = max(worst, pair), inside + sum(hits), count + len(hits)
        cells = " | ".join(map(str, found))
        print(f"| {training.name} | {training.exact:.5f} | {cells} | {pair:.2f} | {sum(hits)} of 3 |", flush=True)
    print(f"\nFurthest pair: {worst:.2f} joint intervals. The exact value lies in {inside} of {count} intervals.\n")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).to(FULL)


def windows(copies: int) -> None:
    """Tangent vectors, shadows and twins of a network on digits, in windows of the training."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
    from datasets import load

    data = load()
    x, y = torch.as_tensor(data.train), torch.as_tensor(data.labels)
    rng = np.random.default_rng(0)
    picks = [torch.as_tensor(rng.choice(len(x), BATCH, replace=False)) for _ in range(WINDOW * WINDOWS)]
    batches = [(x[pick], y[pick]) for pick in picks]
    signed, within = [], 0
    for rate, momentum in NETWORK_RUNS:
        model = network()
        opt = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
        found = in_windows(model, nn.functional.cross_entropy, opt, batches, window=WINDOW, copies=copies)
        print(f"rate {rate}, momentum {momentum}, loss {found.losses[0]:.3g} to {found.losses[-1]:.3g}\n")
        print("| steps | tangent, fresh | shadow | twins | `lyapunov_windows` | tangent, kept | furthest pair |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for w, (tangent, shadow, twin) in enumerate(found.estimates):
            signed.append([apart(tangent, shadow), apart(tangent, twin), apart(shadow, twin)])
            low, high = found.library.interval[w]
            within += bool(low <= tangent.value <= high)
            library = f"{found.library.value[w]:.4f} [{low:.4f}, {high:.4f}]"
            span = f"{w * WINDOW} to {(w + 1) * WINDOW}"
            far = np.abs(signed[-1]).max()
            print(f"| {span} | {tangent} | {shadow} | {twin} | {library} | {found.kept[w]:.4f} | {far:.2f} |")
        for words in found.words:
            print(f"\n{words}")
        print(flush=True)
    in_all(np.array(signed), within)


def in_all(signed: np.ndarray, within: int) -> None:
    """What all windows say together: signed distances (windows, 3 pairs) in joint half-intervals."""
    far, count = np.abs(signed), len(signed)
    print(
        f"{np.sum(far.max(axis=1) <= 1)} of {count} windows agree in all three pairs, {np.mean(far <= 1):.1%} of the "
        f"pairs do (equal means: about 95 %); the furthest pair is {far.max():.2f} joint intervals apart. The tangent "
        f"exponent lies in the interval of `lyapunov_windows` in {within} of {count}."
    )
    for name, mean in zip(("tangent - shadow", "tangent - twins", "shadow - twins"), signed.mean(axis=0), strict=True):
        print(f"Mean of {name}: {mean:+.3f} joint intervals; chance alone: within {1 / sqrt(count):.3f}.")
    print()


def toy() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """1-100-1 tanh network on Chebyshev's fourth polynomial, 20 points (Cohen et al. 2021)."""
    model = nn.Sequential(nn.Linear(1, 100), nn.Tanh(), nn.Linear(100, 1, bias=False)).to(FULL)
    torch.manual_seed(0)
    nn.init.xavier_normal_(model[0].weight, gain=1.9)
    nn.init.xavier_normal_(model[2].weight)
    nn.init.zeros_(model[0].bias)
    x = torch.linspace(-1, 1, 20, dtype=FULL)[:, None]
    return model, x, 8 * x**4 - 8 * x**2 + 1


def half_mse(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 0.5 * ((output - target) ** 2).mean()


def followed(path: Path, steps: int, **options: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Growth of a forward shadow of the toy at every step, and what it and the curvature of its run warn of."""
    model, x, y = toy()
    opt = torch.optim.SGD(model.parameters(), lr=RATE)
    shadow, growth = Shadow(model, half_mse, opt, of="full", **options), []
    with Recorder(path, model, hparams={"lr": RATE}, quiet=True) as rec:
        for _ in range(steps):
            opt.zero_grad()
            shadow.backward(x, y)
            opt.step()
            rec.record(model, **shadow.metrics)
            growth.append(shadow.growth)
    with tt.open(path) as run:
        late = [one for one in tt.training.curvature(run).warnings if one.code == "delayed-loss-of-stability"]
    return np.array(growth), (*shadow.warnings, *late)


def old_twins(steps: int, epsilon: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Mean growth of the distance of four twins perturbed at step 0 at every step, and what their windows warn of."""
    model, x, y = toy()
    twins = Twins(
        model, half_mse, lambda p: torch.optim.SGD(p, lr=RATE), epsilon=epsilon, members=4, seed=0, only="all",
        vectorize=False, replant=None,
    )  # fmt: skip
    states = [rows(twins.models)]
    for _ in range(steps):
        twins.step(x, y)
        states.append(rows(twins.models))
    moved = np.array(states)
    growth = tt.twins((moved[:, 0], [moved[:, i] for i in range(1, 5)]), metric="l2")
    return np.diff(growth.log_distance), tt.lyapunov_windows(growth, window=SPAN).warnings


def delayed(steps: int) -> None:
    """The exponents of a training that loses its stability late, by what began when."""
    model, x, y = toy()
    opt = torch.optim.SGD(model.parameters(), lr=RATE)
    means, words = {}, {}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is printed below
        fresh = in_windows(model, half_mse, opt, [(x, y)] * steps, window=SPAN, copies=FRESH)
        words["tangents, fresh shadows and twins"] = fresh.words
        for epsilon in (1e-8, 1e-6, 1e-4):
            name = f"shadow of step 0, {epsilon:.0e}"
            growth, words[name] = followed(Path(folder) / f"{name}.h5", steps, epsilon=epsilon)
            means[name] = growth.reshape(-1, SPAN).mean(1)
    for epsilon in (1e-12, 1e-8, 1e-4):
        name = f"twins of step 0, {epsilon:.0e}"
        growth, words[name] = old_twins(steps, epsilon)
        means[name] = growth.reshape(-1, SPAN).mean(1)
    shown = [w for w in range(steps // SPAN) if w >= 3]
    print(f"| nats per step | 0 to {steps} | {' | '.join(f'{SPAN * w} to {SPAN * w + SPAN}' for w in shown)} |")
    print("| --- " * (len(shown) + 2) + "|")
    columns = zip(*fresh.estimates, strict=True)
    for name, column in zip(("tangent, fresh", "shadow, fresh", "twins, fresh"), columns, strict=True):
        mean = np.mean([one.value for one in column])
        print(f"| {name} | {mean:.4f} | {' | '.join(str(column[w]) for w in shown)} |")
    for name, values in {"tangent, kept": fresh.kept, **means}.items():
        print(f"| {name} | {values.mean():.4f} | {' | '.join(f'{values[w]:.4f}' for w in shown)} |")
    print("\nWhat the library says:\n")
    for name, said in words.items():
        print(f"- {name}: {' '.join(f'({i}) {one}' for i, one in enumerate(said, 1)) or 'nothing'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("systems", "windows", "delayed"), default=None)
    parser.add_argument("--steps", type=int, default=2000, help="of each training with a known exponent")
    parser.add_argument(
        "--copies", type=int, default=WINDOW_COPIES, help="perturbations of each estimator in each window"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    parts = options.parts or ("systems", "windows", "delayed")
    if "systems" in parts:
        systems(options.steps)
    if "windows" in parts:
        windows(options.copies)
    if "delayed" in parts:
        delayed(1000)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
