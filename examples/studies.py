"""Shared by the studies: options, folders and tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trajtools as tt


def options(description: str, *, data: bool = False) -> argparse.Namespace:
    """``--out``, ``--full``, ``--smoke`` and, if asked for, ``--data``; `size` says which of the three sizes it is."""
    parser = argparse.ArgumentParser(description=description.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder of recordings, figure and table"
    )
    parser.add_argument("--full", action="store_true", help="the size of the paper; takes hours")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    if data:
        parser.add_argument("--data", metavar="FOLDER", help="images in IDX form; default: scikit-learn's digits")
    chosen = parser.parse_args()
    chosen.size = 0 if chosen.smoke else 2 if chosen.full else 1
    chosen.out.mkdir(parents=True, exist_ok=True)
    return chosen


def recorded(path: Path) -> bool:
    """Whether a run is there, complete: an interrupted study goes on with the runs that are missing."""
    if not path.exists():
        return False
    with tt.open(path) as run:
        status = run.status
    if status == "recording":
        raise SystemExit(f"{path} is being recorded by another process")
    if status == "interrupted":
        path.unlink()
    return status == "complete"


class Progress:
    """One line on a terminal, one line per part elsewhere."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, words: str) -> None:
        """Say where the study stands."""
        live = sys.stderr.isatty()
        print(
            f"{words} ({time.monotonic() - self._began:.0f} s)", end="\r" if live else "\n", file=sys.stderr, flush=True
        )


def table(head: Sequence[str], rows: Sequence[Sequence[object]], path: Path) -> None:
    """Print a Markdown table and keep it."""
    cells = [list(head), ["---"] * len(head), *([_word(cell) for cell in row] for row in rows)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


def _word(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
