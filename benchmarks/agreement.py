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
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]

from agreeing import Estimate, agree, apart, in_windows, known, of_known, rows  # noqa: E402
from datasets import load  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.torch import Recorder, Shadow, Twins  # noqa: E402

NETWORK_RUNS = ((0.1, 0.0), (1.5, 0.0), (2.0, 0.0), (0.02, 0.9), (1.0, 0.9))
WINDOW, WINDOWS, COPIES, BATCH = 25, 16, 12, 64  # beyond the onset 50 steps grow by up to 36 nats, past saturation
FULL = torch.float64
RATE, SPAN, FRESH = 0.4, 100, 6  # of the toy, and copies that begin in each window


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
    data = load()
    x, y = torch.as_tensor(data.train), torch.as_tensor(data.labels)
    rng = np.random.default_rng(0)
    rows = [torch.as_tensor(rng.choice(len(x), BATCH, replace=False)) for _ in range(WINDOW * WINDOWS)]
    batches = [(x[some], y[some]) for some in rows]
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
    parser.add_argument("--copies", type=int, default=COPIES, help="perturbations of each estimator in each window")
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
