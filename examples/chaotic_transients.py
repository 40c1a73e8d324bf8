"""P2: is training fastest at the onset of chaos? Exponent and training time against the learning rate.

    python examples/chaotic_transients.py --out p2                # digits, some minutes
    python examples/chaotic_transients.py --out p2 --data mnist   # images in IDX form

After Jimenez-Gonzalez, Soriano and Lacasa (arXiv 2506.08523): full-batch gradient descent of a 64-unit tanh network
with weights from N(0, 1), float64, twins 1e-8 away. Beside each rate a stable control of equal step length: the same
step made of many small ones, which follow the gradient flow.
"""

from pathlib import Path

import numpy as np
from datasets import Data, load
from networks import accuracy, descend, initial, loss_and_gradient, whole
from studies import Progress, options, recorded, table

import trajtools as tt
from recorders import Recorder, perturb
from trajtools.wiring import Member

EPSILON = 1e-8
RANGES = ((0.2, 3.0, 3), (0.1, 6.5, 13), (0.05, 20, 27), (1.4, 12, 8))  # lowest, highest, how many rates
# Smoke, default, full, and the default where images are given, which are larger.
INITS, COPIES, TWIN_STEPS, STEPS = (2, 6, 50, 3), (2, 3, 5, 1), (30, 120, 200, 40), (40, 400, 1500, 100)
SUBSTEPS = 8
DONE = 0.95  # test accuracy at which a training ends
CONTROLS = (1, 5, 9, 2)  # of how many rates there are controls


def ensemble(data: Data, inits: int, copies: int, scale: float = 1.0) -> tuple[dict[str, np.ndarray], list[Member]]:
    """Initial conditions, each followed by its copies."""
    states, members = [], []
    for seed in range(inits):
        start = {k: v[0] for k, v in initial((data.train.shape[1], 64, 10), [seed], scale=scale).items()}
        reference = len(members)
        states.append(start)
        members.append(Member(f"init {seed}", seed=seed))
        for k, twin in enumerate(perturb(start, EPSILON, copies, seed) if copies else ()):
            states.append(twin)
            members.append(Member(f"init {seed} copy {k}", reference, EPSILON, "uniform", seed))
    return {k: np.stack([s[k] for s in states]) for k in states[0]}, members


def train(path: Path, data: Data, rate: float, size: int, control: bool) -> None:
    """Twins for the first steps, references alone to the end; only distances and metrics are kept."""
    copies = 0 if control else COPIES[size]
    part = SUBSTEPS if control else 1
    state, members = ensemble(data, INITS[size], copies)
    hparams = {"lr": rate, "control": control, "substeps": part, "data": data.name, "twin_steps": TWIN_STEPS[size]}
    # Of a control only the metrics are wanted, and the smallest array that there is.
    kept = {"include": ["1.bias"]} if control else {"store": "distances"}
    with Recorder(path, state, members=members, hparams=hparams, quiet=True, **kept) as rec:
        alive = np.arange(len(members))
        for step in range(STEPS[size] + 1):
            if step == TWIN_STEPS[size] + 1:  # the twins have told what they can; from here on they cost nothing
                alive = np.array([k for k, m in enumerate(members) if m.reference < 0])
                state = {k: v[alive] for k, v in state.items()}
            right, loss = np.full(len(members), np.nan), np.full(len(members), np.nan)
            right[alive] = accuracy(state, data.test, data.test_labels)
            loss[alive], gradient = loss_and_gradient(state, data.train, data.labels)
            rec.record(whole(state, alive, len(members)), loss=loss, accuracy=right, step=step)
            if step > TWIN_STEPS[size] and (right[alive] >= DONE).all():
                break
            for k in range(part):
                descend(state, gradient, rate / part)
                if k < part - 1:
                    gradient = loss_and_gradient(state, data.train, data.labels)[1]


def main() -> None:
    """Record what is missing, then analyse all of it."""
    chosen = options(__doc__, data=True)
    data, say = load(chosen.data), Progress().say
    chosen.size = 3 if chosen.data and chosen.size == 1 else chosen.size
    rates = np.geomspace(*RANGES[chosen.size])
    jobs = [(rate, False) for rate in rates]
    jobs += [(rate, True) for rate in rates[len(rates) // 2 :][: CONTROLS[chosen.size]]]
    for k, (rate, control) in enumerate(jobs, 1):
        path = chosen.out / f"{data.name}-{'control' if control else 'rate'}-{rate:.4g}.h5"
        if not recorded(path):
            train(path, data, float(rate), chosen.size, control)
        say(f"{k} of {len(jobs)} trainings")
    found = tt.sweep(f"{chosen.out}/{data.name}-*.h5", "lr", thresholds=(0.7, 0.8, 0.85, 0.9))
    print(found)
    rows = []
    for threshold in found.thresholds:
        both = found.coincidence(threshold)
        ends = [f"[{low:.3g}, {high:.3g}]" for low, high in (both.onset.interval, both.fastest.interval, both.interval)]
        onset, quickest = both.onset.value if both.onset.is_located else "", both.fastest
        ratio = both.ratio if np.isfinite(both.ratio) else ""
        rows.append([threshold, onset, ends[0], quickest.value, ends[1], quickest.time, ratio, ends[2], both.verdict])
        print("\n".join(f"- {threshold:g}: {words}" for words in both.reasons))
    head = ["accuracy", "onset", "95 %", "fastest", "95 %", "steps", "ratio", "95 %", "verdict"]
    table(head, rows, chosen.out / f"{data.name}.md")
    rows, span = [], "[{:.3g}, {:.3g}]".format
    for point in sorted(found.points, key=lambda point: point.x):
        if point.exponent is not None and not point.control:
            one = point.exponent
            growing = [one.value, span(*one.interval), one.waiting[1]] if one.growth == "exponential" else ["", "", ""]
            rows.append([point.x, *growing, one.from_perturbation, one.growth, one.verdict])
    head = ["rate", "while growing", "95 %", "waiting", "since the perturbation", "growth", "verdict"]
    table(head, rows, chosen.out / f"{data.name}-exponents.md")
    tt.plots.sweep(found).savefig(chosen.out / f"{data.name}.png")


if __name__ == "__main__":
    main()
