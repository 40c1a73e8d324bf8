"""Learning rate, momentum, batch: do they act as one effective rate, and where does chaos begin for each?

    python examples/effective_rate.py --out rate    # digits, some minutes

Mini-batch SGD of a 64-unit tanh network, float64, twins 1e-8 away on the same batches. Small steps follow the gradient
flow: steps to an accuracy ~ (1 - beta) / eta, whatever the batch. A quadratic is stable up to eta = 2 (1 + beta) / h.
"""

from itertools import chain, product
from pathlib import Path

import numpy as np
from chaotic_transients import ensemble
from datasets import Data, load
from matplotlib.figure import Figure
from networks import accuracy, loss_and_gradient, whole
from studies import Progress, options, recorded, table

import trajtools as tt
from recorders import Recorder

# Smoke, default, full.
RATES = tuple(np.geomspace(*grid) for grid in ((0.02, 6, 5), (0.001, 10, 21), (0.001, 10, 41)))
MOMENTA = ((0.0, 0.9), (0.0, 0.5, 0.8, 0.9, 0.95), (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98))
BATCHES = ((16, 64), (16, 64, 512), (8, 16, 32, 64, 128, 256, 512))
TRAINED, TESTED = 512, 600  # images: the largest batch is all of them
INITS, COPIES, TWIN_STEPS, MORE = (3, 4, 20), (2, 2, 5), (40, 100, 200), (60, 200, 1000)
SLOWEST = (0.05, 0.01, 0.003)  # effective rates below cost time and say nothing new
LIMITS = ((np.inf, 0.7), *((np.inf, 1.0, 0.3, 0.1, 0.03),) * 2)  # of the effective rate; the last law is drawn
FACTORS, DONE = ("lr", "1-momentum", "batch_size"), 0.9
SIGNS = {"1 - momentum": -1, "1 + momentum": 1}  # what the onset would go with by the effective rate, by the bound


def train(path: Path, data: Data, size: int, seed: int, **sgd: float) -> None:
    """Twins on common batches for the first steps, references alone until all of them are done."""
    state, members = ensemble(data, INITS[size], COPIES[size], 1 / 8)
    velocity = {name: np.zeros_like(values) for name, values in state.items()}
    mine = references = np.array([k for k, m in enumerate(members) if m.reference < 0])
    rng, best, alive = np.random.default_rng(seed), np.zeros(len(references)), np.arange(len(members))
    limit = MORE[size] + int(20 * (1 - sgd["momentum"]) / sgd["lr"])  # then a training is given up; the flow takes 8
    with Recorder(path, state, members=members, hparams={**sgd, "seed": seed}, store="distances", quiet=True) as rec:
        for step in range(limit + 1):
            if step == TWIN_STEPS[size] + 1:  # the twins have told what they can
                state, velocity = ({k: v[references] for k, v in part.items()} for part in (state, velocity))
                alive, mine = references, np.arange(len(references))
            rows = rng.permutation(len(data.train))[: int(sgd["batch_size"])]
            values, gradient = loss_and_gradient(state, data.train[rows], data.labels[rows])
            if step <= TWIN_STEPS[size] or step % (step // 40) == 0:  # times to 2.5 % will do
                loss, right = np.full((2, len(members)), np.nan)
                tested = {name: v[mine] for name, v in state.items()}
                loss[alive], right[references] = values, accuracy(tested, data.test[:TESTED], data.test_labels[:TESTED])
                rec.record(whole(state, alive, len(members)), loss=loss, accuracy=right, step=step)
                best = np.maximum(best, right[references])
                if step > TWIN_STEPS[size] and (best >= DONE).all():
                    break
            for name, g in gradient.items():
                velocity[name] = sgd["momentum"] * velocity[name] - sgd["lr"] * g
                state[name] += velocity[name]


def main() -> None:
    """Record what is missing, then analyse all of it."""
    chosen = options(__doc__)
    data, say, size, paths = load(trained=TRAINED), Progress().say, chosen.size, []
    grid = [job for job in product(BATCHES[size], MOMENTA[size], RATES[size]) if job[2] / (1 - job[1]) >= SLOWEST[size]]
    for k, (batch, momentum, rate) in enumerate(grid, 1):
        paths.append(chosen.out / f"digits-{batch}-{momentum:g}-{rate:.4g}.h5")
        if not recorded(paths[-1]):
            train(paths[-1], data, size, k, lr=float(rate), momentum=momentum, batch_size=batch)
        say(f"{k} of {len(grid)} trainings")
    found, shape = tt.sweep(paths, "lr", "momentum", thresholds=(DONE,)), (1 + len(BATCHES[size]) // 2, 2)
    (chosen.out / "runs.json").write_text(found.to_json(), encoding="utf-8")
    rows, span = [], "[{:.3g}, {:.3g}]".format
    for most in LIMITS[size]:
        law = found.scaling(FACTORS, runs=lambda p, most=most: p.x / (1 - p.y) <= most)
        print(f"effective rates up to {most:g}: {law}")
        powers = chain(*zip(law.powers, (span(*ends) for ends in law.intervals), strict=True))
        rows.append([most, law.n_used, *powers, law.scatter])
    head = ["lr / (1 - momentum) up to", "runs", *chain(*([name, "95 %"] for name in FACTORS)), "scatter"]
    table(head, rows, chosen.out / "collapse.md")
    figure, rows, rate = Figure((13, 5 * shape[0]), layout="constrained"), [], law.factors[:, 0] / law.factors[:, 1]
    for k, batch in enumerate(BATCHES[size], 1):
        one = found.where(runs=lambda p, batch=batch: p.hparams["batch_size"] == batch)
        diagram = one.phase_diagram()
        diagram.plot(figure.add_subplot(*shape, k)).set_title(f"batch {batch}", loc="left")
        for beta, at, ends in zip(diagram.y, diagram.boundary, diagram.intervals, strict=True):
            best, mine = one.where(beta).fastest(), (law.factors[:, 1:] == [1 - beta, batch]).all(axis=1)
            rows.append([batch, beta, at, span(*ends), at / (1 - beta), at / (1 + beta), law.holds_to(rate, mine)])
            rows[-1] += [best.value, best.time]
        laws = [diagram.boundary_law(lambda beta, sign=sign: 1 + sign * beta, name) for name, sign in SIGNS.items()]
        print(f"batch {batch}:", *diagram.reasons, *laws, sep="\n- ")
    head = ["/ (1 - momentum)", "/ (1 + momentum)", "law holds to", "fastest", "steps"]
    table(["batch", "momentum", "onset", "95 %", *head], rows, chosen.out / "onset.md")
    law.plot(figure.add_subplot(*shape, k + 1))
    figure.savefig(chosen.out / "effective_rate.png")


if __name__ == "__main__":
    main()
