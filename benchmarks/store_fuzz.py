"""Read thousands of damaged files, and print what became of them: nothing may ever read as other data than was written.

    python benchmarks/store_fuzz.py [--mutations 20000] [--cuts 500] [--seed 0] [--folder DIR]

Three quarters of the mutations hit HDF5's own metadata, two thirds of these with the checksums made right again. Each
file is read whole in a child process, as `trajtools` opens files of strangers. Exits with 1 after 'SILENT' (other data
than were written) or 'UNFORESEEN' (an exception that is none of ours). Copies that crashed the child, or ran into its
limits of time or memory, are named: on a busy machine, time runs out without a fault of the file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import damaged_runs

KINDS = {
    "weights": {},
    "gzip": {"compress": "gzip"},
    "zstd, optimizer": {"optimizer": True, "compress": "zstd"},
    "sketch": {"stored": "sketch"},
    "distances": {"stored": "distances"},
    "killed": {"end": "killed"},
    "dense attributes": {"hparams": {"text": "y" * 70_000}},
    "many blocks": {"n_states": 3000, "n_parameters": 8, "flush": ()},
}


class Cut:
    """Cut a file anywhere behind its first kilobyte."""

    def __call__(self, data: bytearray, rng: np.random.Generator) -> None:
        del data[int(rng.integers(1000, len(data))) :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the files are made, in memory if possible")
    options = parser.parse_args()
    total: Counter = Counter()
    bad = 0
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for number, (kind, settings) in enumerate(KINDS.items()):
            base = folder / "base.h5"
            base.unlink(missing_ok=True)
            damaged_runs.write(base, **settings)
            data = base.read_bytes()
            share = -(-options.mutations // len(KINDS))
            mutations = {
                "metadata, checksums right": (damaged_runs.MetadataMutation(data), share // 2),
                "metadata": (damaged_runs.MetadataMutation(data, checksums=False), share // 4),
                "anywhere": (damaged_runs.flip_anywhere, share - share // 2 - share // 4),
                "cut": (Cut(), -(-options.cuts // len(KINDS))),
            }
            for what, (mutate, n) in mutations.items():
                start = time.monotonic()
                counts, notable = damaged_runs.tally(base, mutate, range(n), folder, seed=options.seed + number)
                total += counts
                print(f"{kind}; {what}: {dict(counts)}, {time.monotonic() - start:.0f} s", flush=True)
                for copy, outcome, answer in notable:
                    bad += outcome in damaged_runs.NEVER
                    print(f"    copy {copy}: {outcome}: {answer}")
    print(f"all {sum(total.values())}: {dict(total)}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
