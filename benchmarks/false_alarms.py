"""False alarms and power: how often each verdict is given to families of data whose right answer is known.

    python benchmarks/false_alarms.py results.jsonl --seeds 50                 # families seen in development
    python benchmarks/false_alarms.py results.jsonl --seeds 50 --held-out      # families that nothing was chosen with
    python benchmarks/false_alarms.py results.jsonl --families ar1 henon --seeds 400
    python benchmarks/false_alarms.py results.jsonl --report                   # only the table of what is there

One JSON line per family and seed is appended to the file of results; what is in it is not run again, so that a run can
be stopped and go on. Delete the file after a change of the code. A family without chaos is faulty where the one-sided
99 % lower bound of its share of false alarms exceeds 2 %.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before numba and torch are imported; whoever imports this keeps his threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import twin_families
from families import DEVELOPMENT, FRESH, HELD_OUT, SEEN, UNUSED, Record, chaotic
from scipy.special import betaincinv

import trajtools as tt
from trajtools.exponents.exponent import VERDICTS, Exponent

ALARMS = ("chaotic", "sensitive", "transient")
LIMIT = 0.02


@dataclass(frozen=True)
class Family:
    """Data of one kind. `alarm`: there is no chaos in them; `stochastic`: 'regular' is wrong too."""

    run: Callable[[int], Exponent]
    held_out: bool = False
    alarm: bool = True
    stochastic: bool = True


def single(name: str, record: Record) -> Callable[[int], Exponent]:
    """Exponent of one trajectory with the defaults of the toolkit."""

    def run(seed: int) -> Exponent:
        return tt.lyapunov(record(np.random.default_rng([sum(map(ord, name)), seed])), rng=seed)

    return run


# Deterministic motion seen through noise, or forced without noise: 'regular' is a right answer there.
DETERMINISTIC = (
    "measured_torus",
    "measured_three_torus",
    "strange_nonchaotic",
    "forced_logistic_nonchaotic",
    "tanh_torus_nonchaotic",
)

FAMILIES: dict[str, Family] = {
    name: Family(single(name, record), held_out=held_out, stochastic=name not in DETERMINISTIC)
    for records, held_out in ((DEVELOPMENT, False), (HELD_OUT, True), (FRESH, True))
    for name, record in records.items()
} | {
    name: Family(single(name, record), held_out=held_out, alarm=False, stochastic=False)
    for systems, held_out in ((SEEN, False), (UNUSED, True))
    for name, record in chaotic(systems).items()
}
FAMILIES |= {
    name: Family(run, held_out=held_out, stochastic=False)
    for runs, held_out in ((twin_families.DEVELOPMENT, False), (twin_families.HELD_OUT, True))
    for name, run in runs.items()
}
FAMILIES |= {
    f"twins: {name}, {units} x {starts}": Family(
        twin_families.power(make, units, starts), held_out=held_out, alarm=False, stochastic=False
    )
    for systems, held_out in ((SEEN, False), (UNUSED, True))
    for name, (make, _, column) in systems.items()
    if column is None
    for units, starts in ((12, 1), (1, 8))
}
"""Name -> family. Twins of chaotic systems: references x plantings."""


def run_one(name: str, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    found = FAMILIES[name].run(seed)
    return {
        "family": name,
        "seed": seed,
        "verdict": found.verdict,
        "growth": found.growth,
        "persistence": found.persistence,
        "value": found.value,
        "low": found.interval[0],
        "high": found.interval[1],
        "reasons": [reason.code for reason in found.reasons],
        "seconds": time.perf_counter() - began,
    }


def lower_bound(hits: int, total: int) -> float:
    """One-sided exact 99 % lower bound of a share (Clopper and Pearson)."""
    return float(betaincinv(hits, total - hits + 1, 0.01)) if hits else 0.0


def report(results: list[dict[str, Any]]) -> str:
    by_family: dict[str, list[dict[str, Any]]] = {}
    for item in results:
        by_family.setdefault(item["family"], []).append(item)
    lines = []
    for title, alarm in (("without chaos", True), ("chaos", False)):
        rows = {name: items for name, items in by_family.items() if FAMILIES[name].alarm == alarm}
        if not rows:
            continue
        lines += [
            f"| {title} | held out | N | {' | '.join(VERDICTS)} | median seconds | |",
            "| --- " * (len(VERDICTS) + 5) + "|",
        ]
        alarms = total = regular = stochastic = 0
        for name, items in rows.items():
            counts = {verdict: sum(i["verdict"] == verdict for i in items) for verdict in VERDICTS}
            hits = sum(counts[verdict] for verdict in ALARMS)
            alarms, total = alarms + hits, total + len(items)
            note = "faulty" if alarm and lower_bound(hits, len(items)) > LIMIT else ""
            if FAMILIES[name].stochastic:
                regular, stochastic = regular + counts["regular"], stochastic + len(items)
                wrong = lower_bound(counts["regular"], len(items)) > LIMIT
                note = "; ".join(part for part in (note, "regular though stochastic" if wrong else "") if part)
            seconds = float(np.median([i["seconds"] for i in items]))
            numbers = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
            out = "yes" if FAMILIES[name].held_out else "no"
            lines.append(f"| {name} | {out} | {len(items)} | {numbers} | {seconds:.1f} | {note} |")
        share = f"{alarms} of {total} ({alarms / total:.1%})"
        lines += ["", f"{'False alarms' if alarm else 'Chaos found'}: {share}."]
        if stochastic:
            lines.append(f"'regular' for stochastic data: {regular} of {stochastic} ({regular / stochastic:.1%}).")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="file of results, one JSON line per family and seed")
    parser.add_argument("--seeds", type=int, default=50, help="number of seeds, from 0")
    parser.add_argument("--families", nargs="*", help="names; default: all that are held out, or all that are not")
    parser.add_argument("--held-out", action="store_true", help="families that nothing was chosen with")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    names = arguments.families
    if names is None:
        names = [name for name, family in FAMILIES.items() if family.held_out == arguments.held_out]
    if unknown := set(names) - set(FAMILIES):
        parser.error(f"no family {sorted(unknown)}; there are {sorted(FAMILIES)}")
    text = arguments.results.read_text() if arguments.results.exists() else ""
    done = [json.loads(line) for line in text.splitlines()]
    known = {(item["family"], item["seed"]) for item in done}
    if not arguments.report:
        with arguments.results.open("a") as file:
            for seed in range(arguments.seeds):
                for name in names:
                    if (name, seed) not in known:
                        done.append(run_one(name, seed))
                        file.write(json.dumps(done[-1]) + "\n")
                        file.flush()
    print(report([item for item in done if arguments.report or item["family"] in names]))


if __name__ == "__main__":
    main()
