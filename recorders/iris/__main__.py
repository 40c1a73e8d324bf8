"""The command line of the Iris training: ``python -m recorders.iris FILE``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recorders.iris.training import record, restart, restarted_name, run_name
from trajtools.errors import TrajtoolsError


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
        """Say that the run is recorded."""
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
    parser.add_argument(
        "--restart", type=_count, metavar="STEP",
        help="also train copies that are perturbed at this step, as the run 'eta=<rate> from <STEP>'",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.inits < 1:
        parser.error("--inits must be at least 1")
    if chosen.restart is not None and not (chosen.restart < chosen.steps and chosen.copies):
        parser.error("--restart must be below --steps, and needs --copies")
    try:
        for number, rate in enumerate(chosen.rates):
            progress = Progress(run_name(rate), chosen.steps, chosen.quiet)
            record(
                chosen.file, rate, inits=chosen.inits, copies=chosen.copies, steps=chosen.steps,
                epsilon=chosen.epsilon, seed=chosen.seed, mode="a" if number else "x", progress=progress,
            )  # fmt: skip
            progress.done(chosen.inits * (1 + chosen.copies))
            if chosen.restart is not None:
                progress = Progress(restarted_name(rate, chosen.restart), chosen.steps - chosen.restart, chosen.quiet)
                restart(
                    chosen.file, rate, chosen.restart, copies=chosen.copies, epsilon=chosen.epsilon, progress=progress
                )
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
