"""How right and how honest the exponents are: accuracy, coverage, detection and false alarms, as one table.

    python benchmarks/validation.py --seeds 20                  # everything, prints Markdown
    python benchmarks/validation.py --seeds 5 --systems henon lorenz
    python benchmarks/validation.py --seeds 100 --results validation.jsonl

Every row is run with the defaults of `trajtools.lyapunov`; rows named after a method name that, and nothing else.
Results are appended to the file of results, and what is in it is not run again, so that a run can be stopped and go
on. Delete the file after a change of the code. `--jobs 1` uses one process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before numba and torch are imported; whoever imports this keeps his threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from twin_families import rate_of
from unseen import SECOND, THIRD, UNSEEN, halvorsen, holmes, lozi

import trajtools as tt
from trajtools.exponents.exponent import VERDICTS
from trajtools.systems import SYSTEMS
from trajtools.systems.system import System

IRIS = Path(__file__).parent.parent / "recorders" / "iris.csv"
ALARMS = ("chaotic", "sensitive", "transient")
TRUTH = -1  # the seed under which the file of results holds the true value of a row


@dataclass(frozen=True)
class Chaotic:
    """A chaotic row. `seen`: the rules of the fit were chosen while looking at this system."""

    make: Callable[[], System]
    length: int
    transient: int = 1000
    column: int | None = None
    seen: bool = False
    twins: bool = False
    method: str = "auto"


def named(name: str, **parameters: Any) -> Callable[[], System]:
    return lambda: SYSTEMS[name](**parameters)


CHAOTIC = {
    "logistic": Chaotic(named("logistic"), 5000, seen=True),
    "quartic GD, eta 2": Chaotic(named("quartic_descent"), 5000, seen=True),
    "henon": Chaotic(named("henon"), 5000, seen=True),
    "henon, x only": Chaotic(named("henon"), 5000, column=0, seen=True),
    "ikeda": Chaotic(named("ikeda"), 5000, seen=True),
    "lorenz": Chaotic(named("lorenz"), 20000, 3000, seen=True),
    "lorenz, x only": Chaotic(named("lorenz"), 20000, 3000, column=0, seen=True),
    "rossler": Chaotic(named("rossler"), 20000, 3000, seen=True),
    "lorenz96, 5 sites": Chaotic(named("lorenz96", size=5), 20000, seen=True),
    "logistic 3.7": Chaotic(named("logistic", r=3.7), 5000, seen=True),
    "softmax map, gain 10": Chaotic(named("softmax_map"), 5000, seen=True),
    "linear network, eta 1.8": Chaotic(named("linear_network", eta=1.8), 5000, seen=True),
    "coupled quartic GD (2 maps)": Chaotic(named("quartic_descent", weights=2), 10000, seen=True),
    "coupled logistic (4 maps, 0.2)": Chaotic(named("globally_coupled", size=4, coupling=0.2), 10000, seen=True),
    "holmes": Chaotic(holmes, 5000),
    "lozi": Chaotic(lozi, 5000),
    "halvorsen": Chaotic(halvorsen, 20000),
    "rossler, x only": Chaotic(named("rossler"), 20000, 3000, column=0, seen=True),
    "mackey-glass 17": Chaotic(named("mackey_glass"), 20000, 1000, column=-1, seen=True),
    "chen": Chaotic(UNSEEN["chen"], 20000),
    "thomas": Chaotic(UNSEEN["thomas"], 20000, seen=True),
    "sprott b": Chaotic(UNSEEN["sprott_b"], 20000),
    "driven pendulum": Chaotic(UNSEEN["driven_pendulum"], 20000),
    "hyperchaos": Chaotic(UNSEEN["hyperchaos"], 20000),
    "cat": Chaotic(UNSEEN["cat"], 5000),
    "tinkerbell": Chaotic(UNSEEN["tinkerbell"], 5000),
    "ricker": Chaotic(UNSEEN["ricker"], 5000),
    "delayed logistic": Chaotic(SECOND["delayed_logistic"], 5000),
    "standard, K = 7": Chaotic(SECOND["standard"], 5000),
    "generalised henon, 3": Chaotic(SECOND["generalised_henon"], 10000),
    "gingerbread": Chaotic(SECOND["gingerbread"], 5000),
    "coupled ricker (3 maps)": Chaotic(SECOND["coupled_ricker"], 10000),
    "ueda": Chaotic(SECOND["ueda"], 20000),
    "rabinovich fabrikant": Chaotic(SECOND["rabinovich_fabrikant"], 20000),
    "nose hoover": Chaotic(SECOND["nose_hoover"], 20000),
    "sprott e": Chaotic(SECOND["sprott_e"], 20000),
    "rucklidge": Chaotic(SECOND["rucklidge"], 20000),
    "gauss": Chaotic(THIRD["gauss"], 5000),
    "burgers": Chaotic(THIRD["burgers"], 5000),
    "lorenz map": Chaotic(THIRD["lorenz_map"], 10000),
    "generalised henon, 4": Chaotic(THIRD["generalised_henon_4"], 10000),
    "coupled tents": Chaotic(THIRD["coupled_tents"], 10000),
    "duffing": Chaotic(THIRD["duffing"], 20000),
    "burke shaw": Chaotic(THIRD["burke_shaw"], 20000),
    "arneodo": Chaotic(THIRD["arneodo"], 20000),
    "lorenz84": Chaotic(THIRD["lorenz84"], 20000),
    "henon heiles": Chaotic(THIRD["henon_heiles"], 20000),
}
TWINS = {
    "logistic": (named("logistic"), True),
    "logistic 3.7": (named("logistic", r=3.7), True),
    "quartic GD, eta 2": (named("quartic_descent"), True),
    "henon": (named("henon"), True),
    "ikeda": (named("ikeda"), True),
    "softmax map, gain 10": (named("softmax_map"), True),
    "linear network, eta 1.8": (named("linear_network", eta=1.8), True),
    "lorenz": (named("lorenz"), True),
    "rossler": (named("rossler"), True),
    "coupled logistic (4 maps, 0.2)": (named("globally_coupled", size=4, coupling=0.2), False),
    "coupled quartic GD (2 maps)": (named("quartic_descent", weights=2), False),
    "lorenz96, 5 sites": (named("lorenz96", size=5), False),
    "holmes": (holmes, False),
    "lozi": (lozi, False),
    "halvorsen": (halvorsen, False),
    "chen": (UNSEEN["chen"], False),
    "sprott b": (UNSEEN["sprott_b"], False),
    "driven pendulum": (UNSEEN["driven_pendulum"], False),
    "tinkerbell": (UNSEEN["tinkerbell"], False),
    "ricker": (UNSEEN["ricker"], False),
    "logistic 2.9": (named("logistic", r=2.9), True),
    "logistic 3.2": (named("logistic", r=3.2), True),
    "logistic 3.5": (named("logistic", r=3.5), True),
    "logistic 3.1": (named("logistic", r=3.1), False),
    "logistic 3.52": (named("logistic", r=3.52), False),
    "quartic GD, eta 1.3": (named("quartic_descent", eta=1.3), False),
}
CHAOTIC |= {f"twins: {name}": Chaotic(make, 0, twins=True, seen=seen) for name, (make, seen) in TWINS.items()}
METHODS = ("kantz", "wolf", "hybrid")
CHAOTIC |= {
    f"{method}: {name}": replace(CHAOTIC[name], seen=True, method=method)
    for method in METHODS
    for name in ("logistic", "henon", "holmes", "lorenz", "rossler")
}


# -- records without chaos --------------------------------------------------------------------------------------------


def sine(rng: np.random.Generator) -> Any:
    t = np.arange(5000)
    return np.sin(rng.uniform(0.03, 0.5) * t + rng.uniform(0, 6))


def torus(rng: np.random.Generator) -> Any:
    t, w = np.arange(5000), rng.uniform(0.03, 0.3)
    return np.sin(w * t + rng.uniform(0, 6)) + rng.uniform(0.5, 1) * np.sin(w * np.sqrt(2) * t + rng.uniform(0, 6))


def iid(rng: np.random.Generator) -> Any:
    return rng.standard_normal(4000)


def iid_states(rng: np.random.Generator) -> Any:
    return rng.uniform(size=(4000, 3))


def random_walk(rng: np.random.Generator) -> Any:
    return np.cumsum(rng.standard_normal(4000))


def random_walk_states(rng: np.random.Generator) -> Any:
    return np.cumsum(rng.standard_normal((4000, 20)), axis=0)


def coloured(rng: np.random.Generator) -> Any:
    """A second-order autoregression, seen through a static function."""
    x, e = np.zeros(5000), rng.standard_normal(5000)
    radius, angle = rng.uniform(0.5, 0.97), rng.uniform(0.1, 1.0)
    for t in range(2, len(x)):
        x[t] = 2 * radius * np.cos(angle) * x[t - 1] - radius**2 * x[t - 2] + e[t]
    return x[500:] if rng.random() < 0.5 else np.tanh(x[500:] / x.std())


def coloured_states(rng: np.random.Generator) -> Any:
    """Stochastic gradient descent around the minimum of a quadratic: a vector autoregression."""
    h = rng.uniform(0.2, 2.0, 4)
    mix = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    x, e = np.zeros((4500, 4)), rng.standard_normal((4500, 4))
    for t in range(1, len(x)):
        x[t] = x[t - 1] * (1 - 0.1 * h) + 0.1 * e[t]
    return x[500:] @ mix


def smooth_noise(rng: np.random.Generator) -> Any:
    """Noise through a Gaussian filter: as smooth as a flow."""
    width = rng.uniform(2, 15)
    kernel = np.exp(-0.5 * (np.arange(-100, 101) / width) ** 2)
    return np.convolve(rng.standard_normal(6000), kernel, "valid")


def phase_noise(rng: np.random.Generator) -> Any:
    """A sine whose phase walks."""
    return np.sin(0.2 * np.arange(5000) + 0.05 * rng.standard_normal(5000).cumsum())


def noisy_cycle(rng: np.random.Generator) -> Any:
    """A van der Pol oscillator that is kicked at every step."""
    x, v, out = 2.0, 0.0, np.empty((4000, 2))
    for t, kick in enumerate(0.03 * rng.standard_normal((4000, 5))):
        for force in kick:
            x, v = x + 0.02 * v, v + 0.02 * ((1 - x * x) * v - x) + force
        out[t] = x, v
    return out


def changing_variance(rng: np.random.Generator) -> Any:
    """Noise whose variance depends on its past (GARCH)."""
    x, variance = np.zeros(5000), 1.0
    for t in range(1, len(x)):
        variance = 0.1 + 0.2 * x[t - 1] ** 2 + 0.7 * variance
        x[t] = np.sqrt(variance) * rng.standard_normal()
    return x


def double_well(rng: np.random.Generator) -> Any:
    """A noisy particle between two minima: nonlinear, not Gaussian, and no chaos."""
    x, e = np.zeros(6000), 0.2 * rng.standard_normal(6000)
    for t in range(1, len(x)):
        x[t] = x[t - 1] + 0.05 * (x[t - 1] - x[t - 1] ** 3) + e[t]
    return x


def van_der_pol(rng: np.random.Generator) -> Any:
    return SYSTEMS["van_der_pol"](mu=rng.uniform(0.5, 2)).trajectory(4000, rng=rng)


def quadratic(rng: np.random.Generator) -> Any:
    return SYSTEMS["quadratic_descent"](eta=0.01, curvatures=rng.uniform(0.1, 9, 10)).trajectory(
        3000, rng=rng, transient=0
    )


def real_descent(rng: np.random.Generator) -> Any:
    """Full-batch gradient descent of a 4-10-3 softmax network on Iris at eta = 0.01, recorded from the start."""
    with IRIS.open() as file:
        rows = [row for row in csv.reader(file) if row and row[0][:1].isdigit()]
    x = np.array([[float(v) for v in row[:4]] for row in rows])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.eye(3)[np.unique([row[4] for row in rows], return_inverse=True)[1]]
    a, b = rng.standard_normal((4, 10)) / 2, np.zeros(10)
    c, d = rng.standard_normal((10, 3)) / 3, np.zeros(3)
    out = np.empty((3000, 83))
    for t in range(len(out)):
        out[t] = np.concatenate([a.ravel(), b, c.ravel(), d])
        hidden = np.tanh(x @ a + b)
        z = hidden @ c + d
        p = np.exp(z - z.max(axis=1, keepdims=True))
        error = (p / p.sum(axis=1, keepdims=True) - y) / len(x)
        back = (error @ c.T) * (1 - hidden**2)
        c, d = c - 0.01 * hidden.T @ error, d - 0.01 * error.sum(axis=0)
        a, b = a - 0.01 * x.T @ back, b - 0.01 * back.sum(axis=0)
    return out


def drifting(rng: np.random.Generator) -> Any:
    """Weights that drift with noise and never come back."""
    t = np.linspace(0, 1, 3000)[:, None]
    way = t * rng.standard_normal(50) + t**2 * rng.standard_normal(50)
    return way + 0.002 * rng.standard_normal((3000, 50)).cumsum(axis=0) * rng.uniform(0.1, 1)


def saddle(rng: np.random.Generator) -> Any:
    return SYSTEMS["saddle_escape"]().trajectory(1500, rng=rng, transient=0)


def saddle_twins(rng: np.random.Generator) -> Any:
    return SYSTEMS["saddle_escape"]().twins(8, 3, 400, epsilon=1e-12, rng=rng, transient=0)


def quadratic_twins(rng: np.random.Generator) -> Any:
    return SYSTEMS["quadratic_descent"](eta=0.01).twins(8, 3, 400, epsilon=1e-8, rng=rng, transient=0)


NULLS = {
    make.__name__: make
    for make in (
        sine,
        torus,
        iid,
        iid_states,
        random_walk,
        random_walk_states,
        coloured,
        coloured_states,
        smooth_noise,
        phase_noise,
        noisy_cycle,
        changing_variance,
        double_well,
        van_der_pol,
        quadratic,
        real_descent,
        drifting,
        saddle,
        quadratic_twins,
    )
}


# -- truth, runs and report -------------------------------------------------------------------------------------------


def system_of(name: str) -> str:
    """The row whose true value is that of this one: the same system, seen through another method or one coordinate."""
    base = name.rsplit(": ", maxsplit=1)[-1].removesuffix(", x only")
    return base if base in CHAOTIC else name


def truth(name: str) -> dict[str, Any]:
    """The exponent from the equations: exact, from the tangent map, or from renormalised shadows in many dimensions."""
    system = CHAOTIC[name].make()
    rng = np.random.default_rng(12345)
    if system.exact:
        value = system.exact[0]
    elif system.dimension > 50:
        value = shadow(system, 20000, rng)
    else:
        value = float(system.exponents(20000, rng=rng, k=1, n=16, transient=2000).values[0])
    return {"row": name, "seed": TRUTH, "value": value}


def shadow(system: System, steps: int, rng: np.random.Generator, epsilon: float = 1e-7) -> float:
    """Mean growth of a small distance that is reset at every sample, over 16 initial conditions."""
    states = system.start(rng, 16)
    for _ in range(2000):
        states = system.advance(states)
    away = rng.standard_normal(states.shape)
    total, counted = 0.0, 0
    for t in range(steps):
        away *= epsilon / np.linalg.norm(away, axis=1, keepdims=True)
        both = system.advance(np.concatenate([states, states + away]))
        states, away = both[:16], both[16:] - both[:16]
        if t >= steps // 10:
            total, counted = total + float(np.mean(np.log(np.linalg.norm(away, axis=1) / epsilon))), counted + 1
    return total / counted / system.dt


def record(name: str, rng: np.random.Generator) -> tuple[Any, float]:
    """The data of a row and the time between two samples."""
    if name in NULLS:
        return NULLS[name](rng), 1.0
    if name == "saddle twins":
        return saddle_twins(rng), 1.0
    row = CHAOTIC[name]
    system = row.make()
    if row.twins:
        length = 400 if rate_of(system) < 0 else int(1.5 * np.log(1e10) / rate_of(system) / system.dt)
        for _ in range(20):
            pairs = system.twins(12, 3, length, epsilon=1e-6 if rate_of(system) < 0 else 1e-10, rng=rng)
            if all(np.isfinite(reference).all() for reference, _ in pairs):
                return pairs, system.dt
        raise RuntimeError(f"{name} always runs away")
    for _ in range(20):  # some starts run away
        x = system.trajectory(row.length, rng=rng, transient=row.transient)
        if np.isfinite(x).all():
            return (x if row.column is None else x[:, row.column]), system.dt
    raise RuntimeError(f"{name} always runs away")


def run_one(name: str, seed: int) -> dict[str, Any]:
    number = sum(map(ord, name))
    x, dt = record(name, np.random.default_rng([number, seed]))
    began = time.perf_counter()
    method = CHAOTIC[name].method if name in CHAOTIC else "auto"
    found = tt.lyapunov(x, dt=dt, rng=seed, method=method)
    return {
        "row": name,
        "seed": seed,
        "value": found.value,
        "low": found.interval[0],
        "high": found.interval[1],
        "verdict": found.verdict,
        "growth": found.growth,
        "reason": str(found.reasons[0]) if found.reasons else "",
        "seconds": time.perf_counter() - began,
    }


def report(results: list[dict[str, Any]]) -> str:
    truths = {item["row"]: item["value"] for item in results if item["seed"] == TRUTH}
    by_row: dict[str, list[dict[str, Any]]] = {}
    for item in results:
        if item["seed"] != TRUTH:
            by_row.setdefault(item["row"], []).append(item)
    lines = [
        "| system | seen | N | true | median | median error | interval covers | interval width | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    covered, counted = 0, 0
    for name, row in CHAOTIC.items():
        items = by_row.get(name, [])
        if not items:
            continue
        true = truths[system_of(name)]
        value, low, high = (np.array([i[key] for i in items], dtype=float) for key in ("value", "low", "high"))
        inside = int(np.sum((low <= true) & (true <= high)))
        told = int(np.isfinite(low).sum())
        covered, counted = covered + inside, counted + told
        # Twins of one planting can show exponential growth or contraction, and no persistence.
        growth = "exponential" if true > 0 else "contracting"
        hits = sum(i["growth"] == growth if row.twins else i["verdict"] == "chaotic" for i in items)
        right = f" {growth}" if row.twins else " chaotic"
        lines.append(
            f"| {name} | {'yes' if row.seen else 'no'} | {len(items)} | {true:.4g} | {np.nanmedian(value):.4g} | "
            f"{np.nanmedian(np.abs(value / true - 1)):.1%} | {inside}/{told} | "
            f"{np.nanmedian((high - low) / 2 / abs(true)):.0%} | {hits}/{len(items)}{right} |"
        )
    if counted:
        lines += [
            "",
            f"Intervals of all rows together: {covered} of {counted} ({covered / counted:.1%}) cover the truth.",
        ]
    lines += [
        "",
        f"| null | N | {' | '.join(VERDICTS)} |",
        "| --- " * (len(VERDICTS) + 2) + "|",
    ]
    wrong, total = 0, 0
    for name in (*NULLS, "saddle twins"):
        verdicts = [i["verdict"] for i in by_row.get(name, [])]
        if not verdicts:
            continue
        count = [verdicts.count(v) for v in VERDICTS]
        if name != "saddle twins":  # its growth is exponential, while it lasts
            wrong, total = wrong + sum(verdicts.count(v) for v in ALARMS), total + len(verdicts)
        lines.append(f"| {name.replace('_', ' ')} | {len(verdicts)} | {' | '.join(map(str, count))} |")
    if total:
        lines += ["", f"False alarms (without the saddle twins): {wrong} of {total} ({wrong / total:.1%})."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [*CHAOTIC, *NULLS, "saddle twins"]
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--systems", nargs="*", default=every, help="rows; all by default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("validation.jsonl"))
    arguments = parser.parse_args()
    unknown = set(arguments.systems) - set(every)
    if unknown:
        parser.error(f"no row {sorted(unknown)}; there are {every}")
    done = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    known = {(item["row"], item["seed"]) for item in done}
    bases = dict.fromkeys(system_of(row) for row in arguments.systems if row in CHAOTIC)
    exact = [row for row in bases if (row, TRUTH) not in known]
    todo = [(row, seed) for seed in range(arguments.seeds) for row in arguments.systems if (row, seed) not in known]
    with ProcessPoolExecutor(arguments.jobs) as pool, arguments.results.open("a") as file:
        jobs = [*(pool.submit(truth, row) for row in exact), *(pool.submit(run_one, *each) for each in todo)]
        for future in as_completed(jobs):
            done.append(future.result())
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    print(report([item for item in done if item["row"] in arguments.systems or item["seed"] == TRUTH]))


if __name__ == "__main__":
    main()
