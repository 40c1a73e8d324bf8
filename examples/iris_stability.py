"""P1: three regimes of learning on Iris; the exponent against the perturbation; what a late perturbation does.

    python examples/iris_stability.py --out p1

After Danovski, Soriano and Lacasa (arXiv 2404.05782): a 4-10-3 network in float64, full-batch gradient descent. All
runs share their initial conditions.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from studies import Progress, options, recorded, table

import trajtools as tt
from recorders.iris import record, restart, restarted_name, run_name

EPSILONS = ((1e-8, 1e-2), (1e-14, 1e-11, 1e-8, 1e-5, 1e-2, 1e-1), tuple(np.logspace(-14, -1, 14)))
REGIMES = (0.01, 1.0, 5.0)
INITS, STEPS = (4, 60, 500), 200
LATE = ((200, 100, 3), (5000, 4000, 20), (5000, 4000, 20))  # steps, step of the perturbation, copies
GAINS = (5.0, 10.0, 15.0, 20.0)


def curve(folder: Path, rate: float, epsilon: float, inits: int, copies: int = 5) -> tuple[object, object]:
    """Record, if it is not there yet, and fit: the papers' procedure and ours."""
    path = folder / f"{run_name(rate)}.h5"
    if not recorded(path):
        once = {"epsilon": epsilon, "seed": 0, "allow_rounded": True, "replant": None}  # as the paper does
        record(folder, rate, inits=inits, copies=copies, steps=STEPS, **once)
    with tt.open(path) as run:
        growth = tt.twins(run, metric="l1")
        return growth.fit(procedure="danovski2024", null=None), growth.fit()


def late(folder: Path, size: int) -> tuple[object, object]:
    """Perturb a training that has learned; the relative distance, and what orbital stability says."""
    steps, at, copies = LATE[size]
    whole, rest = (folder / f"{name}.h5" for name in (run_name(0.01), restarted_name(0.01, at)))
    if not recorded(whole):
        record(folder, 0.01, inits=2 if size else 1, copies=0, steps=steps, seed=0)
    if not recorded(rest):
        restart(folder, 0.01, at, copies=copies, epsilon=1e-8)
    with tt.open(rest) as run:
        growth = tt.twins(run, metric="l1")
        return growth.distances.mean(axis=0) / (1e-8 * 70), tt.orbital_stability(run, metric="l1")


def folder(out: Path, name: str) -> Path:
    """A folder for the runs that share everything but the learning rate."""
    (out / name).mkdir(exist_ok=True)
    return out / name


def main() -> None:
    """The regimes, the exponents, the late perturbation and the map of eta = 5."""
    chosen, say = options(__doc__), Progress().say
    inits, rows, values = INITS[chosen.size], [], []
    jobs = [(f"eta = {rate:g}", rate, 1e-8) for rate in REGIMES]
    jobs += [(f"epsilon = {epsilon:.0e}", 1.0, epsilon) for epsilon in EPSILONS[chosen.size]]
    for name, rate, epsilon in jobs:
        theirs, ours = curve(folder(chosen.out, f"epsilon={epsilon:.0e}"), rate, epsilon, inits)
        kept, (low, high) = theirs.values[np.isfinite(theirs.values)], ours.interval
        values.append((theirs.value, float(kept.std()) if len(kept) else np.nan, ours.value, low, high))
        counts = f"{theirs.n_used} of {theirs.n_total}"
        rows.append([
            name, theirs.value, counts, ours.value, f"[{low:.3g}, {high:.3g}]", ours.waiting[1], ours.from_perturbation,
            ours.verdict,
        ])  # fmt: skip
        say(name)
    head = [
        "regime, or epsilon at eta = 1", "papers' procedure", "kept", "ours, while growing", "95 %", "waiting",
        "since the perturbation", "verdict",
    ]  # fmt: skip
    table(head, rows, chosen.out / "iris.md")
    figure = Figure((12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    found = np.array(values[len(REGIMES) :])
    left.errorbar(EPSILONS[chosen.size], found[:, 0], found[:, 1], fmt="o-", label="papers' procedure, s.d.")
    spread = np.abs(found[:, 3:].T - found[:, 2])
    left.errorbar(EPSILONS[chosen.size], found[:, 2], spread, fmt="s-", label="ours, 95 %")
    left.set(xscale="log", xlabel="epsilon", ylabel="exponent per step, eta = 1")
    left.legend(fontsize="small")
    distance, stability = late(folder(chosen.out, "late"), chosen.size)
    print(f"late perturbation: d / (eps N) goes {distance[0]:.3f} -> {distance[-1]:.3f}: {stability.verdict}")
    print("\n".join(f"- {words}" for words in stability.reasons))
    middle.plot(distance)
    middle.set(xlabel="steps since the late perturbation", ylabel="d / (eps N)", ylim=(0, 1.1 * distance.max()))
    exponents, said = [], []
    for gain in GAINS:
        system = tt.systems.softmax_map(gain)
        every = system.exponents(3000, rng=np.random.default_rng(0)).values
        truth = np.delete(every, np.argmin(np.abs(every))).max()  # one is zero: the sum of the logits is conserved
        states = system.trajectory(3000, rng=np.random.default_rng(1))
        estimate = tt.lyapunov(states, surrogates=99) if chosen.size else tt.lyapunov(states[:600], surrogates=9)
        exponents.append(float(truth))
        said.append([f"{gain:g}", float(truth), estimate.value, estimate.verdict])
        say(f"map with gain {gain:g}")
    table(["gain of the eta = 5 map", "exact", "from the states", "verdict"], said, chosen.out / "map.md")
    right.plot(GAINS, exponents, "o-")
    right.axhline(0, color="0.7", linewidth=0.8)
    right.set(xlabel="gain g = eta (1 + saturated units)", ylabel="exponent of the map per step")
    figure.savefig(chosen.out / "iris.png")


if __name__ == "__main__":
    main()
