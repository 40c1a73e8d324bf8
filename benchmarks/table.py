"""Ours, the best peer and the limit of the machine beside each other, and how the costs grow: the tables of README.md.

    python benchmarks/table.py                           # everything, about 12 minutes; writes the tables
    python benchmarks/table.py --only series pairwise    # these groups of rows again
    python benchmarks/table.py --only "Kantz" "to_orbit" # rows whose names contain one of these
    python benchmarks/table.py --resume                  # only what the commit of this checkout has not yet measured
    python benchmarks/table.py --peers FOLDER            # peers that were installed with `pip install --target FOLDER`

The tables stand in benchmarks/README.md, and what concerns a package by its name in docs/comparison.md. Each group of
rows runs in a process of its own on one thread, and each row is kept in benchmarks/table.json as soon as
it is there, so that a run can be stopped. Rows that are not run keep their last numbers. The exit code is 1
if a row failed, for example because its answers differ from those of its peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from measure import Growth, Item, grow, measure

FOLDER = Path(__file__).resolve().parent
RESULTS, README, COMPARISON = FOLDER / "table.json", FOLDER / "README.md", FOLDER.parent / "docs" / "comparison.md"
GROUPS = {
    "series": "Series",
    "recurrence": "Recurrence",
    "distances": "Distances",
    "storage": "Files",
    "graphs": "Networks as graphs",
    "training": "Training",
    "commands": "Commands",
}
PACKAGES = (
    "numpy", "scipy", "numba", "h5py", "torch", "scikit-learn", "nolds", "neurokit2", "pyunicorn", "PyRQA", "netrd",
    "curvlinops-for-pytorch", "PyHessian", "safetensors", "zarr",
)  # fmt: skip
COMPARED = {  # peers by the first word of their names
    "nolds": "nolds", "neurokit2": "neurokit2", "pyunicorn": "pyunicorn", "PyRQA": "PyRQA on the processor (pocl)",
    "netrd": "netrd", "PyHessian": "PyHessian", "curvlinops": "curvlinops", "torch.save": "torch.save",
    "safetensors": "safetensors", "zarr": "zarr",
}  # fmt: skip
BEGIN, END = "<!-- table.py: begin -->", "<!-- table.py: end -->"


# -- measuring, in a process for each group ----------------------------------------------------------------------------


def matches(item: Item, group: str, only: list[str]) -> bool:
    return not only or group in only or any(part in item.work for part in only)


def groups_of(only: list[str], rows: dict[str, Any]) -> list[str]:
    """Groups to run: those that are named, and those with a row of such a name in the last table; else all."""
    known = {row["group"] for row in rows.values() if any(part in row["work"] for part in only)}
    return [group for group in GROUPS if group in only or group in known] or list(GROUPS)


def key(group: str, item: Item) -> str:
    return f"{group}: growth: {item.work} / {item.variable}" if isinstance(item, Growth) else f"{group}: {item.work}"


def measure_group(group: str, only: list[str], done: list[str], quick: bool, peers: str | None) -> None:
    """Print one JSON line for each row; runs in the process of the group."""
    sys.path += [peers] if peers else []  # behind everything else
    warnings.simplefilter("ignore")
    print(json.dumps({"versions": versions()}), flush=True)
    order = []
    for item in import_module(group).items(quick=quick):
        name = key(group, item)
        order.append(name)
        if name in done or not matches(item, group, only):
            continue
        load, start = os.getloadavg()[0], time.perf_counter()
        row: dict[str, Any] = {"key": name, "group": group}
        try:
            row |= grow(item) if isinstance(item, Growth) else measure(item)
        except Exception as error:  # the other rows go on, and the exit code tells
            row |= {"work": item.work, "wrong": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        row |= {
            "load": round(load, 1),
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            "wall": round(time.perf_counter() - start, 1),
        }
        print(json.dumps(row), flush=True)
    print(json.dumps({"order": order}), flush=True)


def versions() -> dict[str, str]:
    numbers = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            continue
    return numbers


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{names[0] if names else platform.machine()}, {vectors}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of this checkout, with a plus if package or benchmarks differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=FOLDER, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../trajtools", "../recorders", ".")
    others = [line for line in changed.splitlines() if not line.endswith(("README.md", "table.json"))]
    return git("rev-parse", "--short", "HEAD") + ("+" if others else "")


def keep(results: dict[str, Any]) -> None:
    """Write the numbers, one row a line."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in results["rows"].items())
    head = json.dumps({name: value for name, value in results.items() if name != "rows"})
    RESULTS.write_text(f'{head[:-1]}{", " if len(head) > 2 else ""}"rows": {{\n{rows}\n}}}}\n')


def run_group(group: str, only: list[str], options: argparse.Namespace, results: dict[str, Any]) -> bool:
    """Measure a group in a process of its own, and keep each row as it comes; false if a row was wrong."""
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    one["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    paths = [str(FOLDER.parent), str(FOLDER), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **one, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONWARNINGS": "ignore"}
    here = commit()
    done = [name for name, row in results["rows"].items() if row["commit"] == here] if options.resume else []
    request = {"group": group, "only": only, "done": done, "quick": options.quick, "peers": options.peers}
    line = [sys.executable, str(Path(__file__)), "--group", json.dumps(request)]
    right, order = True, list[str]()
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if not text.startswith("{"):
                continue  # peers print
            row = json.loads(text)
            if "versions" in row:
                results["versions"] = results.get("versions", {}) | row["versions"]  # peers may be missing here
                continue
            if "order" in row:
                order = row["order"]
                continue
            right = right and "wrong" not in row
            print(f"{row['wall']:6.1f} s  {row['key']}  {row.get('wrong', '')}", flush=True)
            if not options.quick:
                results["rows"][row["key"]] = {**row, "commit": here}
                keep(results)
    if order and not options.quick:  # rows that are no more go, and the others stand in this order
        rows = results["rows"]
        others = {name: row for name, row in rows.items() if row["group"] != group}
        results["rows"] = others | {name: rows[name] for name in order if name in rows}
        keep(results)
    if process.returncode:
        print(f"{group} ended with exit code {process.returncode}", file=sys.stderr)
    return right and not process.returncode


# -- the tables --------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Two digits with a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def cells(row: dict[str, Any]) -> list[str]:
    """Work, ours, best peer, other peers, limit."""
    if "wrong" in row:
        return [row["work"], f"**failed: {row['wrong']}**", "", "", ""]
    ours = row["ours"]
    ran = sorted((value, name) for name, value in row["peers"].items() if not isinstance(value, str))
    skipped = [f"{name}: {why}" for name, why in row["peers"].items() if isinstance(why, str)]
    best = f"{ran[0][1]} {duration(ran[0][0])}: **{ratio(ran[0][0] / ours)}**" if ran else "-"
    others = [f"{name} {ratio(value / ours)}" for value, name in ran[1:]]
    limits = [
        f"{name}: {value}" if isinstance(value, str) else f"{name} {duration(value)}: {ratio(ours / value)}"
        for name, value in row["limit"]
    ]
    return [row["work"], duration(ours), best, "; ".join([*others, *skipped, *filter(None, [row["remark"]])]),
            limits[0] if limits else "-"]  # fmt: skip


def growth_cells(row: dict[str, Any]) -> list[str]:
    if "wrong" in row:
        return [row["work"], f"**failed: {row['wrong']}**", "", "", "", ""]
    sizes = f"{row['sizes'][0]:,} to {row['sizes'][-1]:,} {row['variable']}"
    low, high = row["range"]
    costs = f"{duration(row['seconds'][0])} to {duration(row['seconds'][-1])}"
    return [row["work"], sizes, costs, f"**{row['slope']:.2f}** ({low:.2f} to {high:.2f})", f"{row['last']:.2f}",
            row["aim"]]  # fmt: skip


def lines_of(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def render(results: dict[str, Any]) -> str:
    """Both tables as Markdown, with where, when and with what they were measured."""
    rows = list(results["rows"].values())
    dates, loads = sorted(row["date"] for row in rows), [row["load"] for row in rows]
    packages = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    text = [
        f"Measured {dates[0]} to {dates[-1]} UTC, commit {commits}, on {results['processor']}, one thread. Load "
        f"average {min(loads):.1f} to {max(loads):.1f}, median {np.median(loads):.1f}. {packages}.",
        "",
        "Processor time, the least of several turns. **Bold**: time of the best peer over ours, so more is better for "
        "us; other peers likewise. Limit: what the machine, or the part that cannot be left out, takes alone, and our "
        "time over it.",
        "",
    ]
    header = ["work", "ours", "best peer: its time over ours", "other peers over ours; remarks", "limit: ours over it"]
    for group, title in GROUPS.items():
        own = [cells(row) for row in rows if row["group"] == group and "growth" not in row["key"]]
        if own:
            text += [f"**{title}**", "", *lines_of(header, own), ""]
    growths = [growth_cells(row) for row in rows if "growth" in row["key"]]
    text += [
        "**Growth.** Exponent: the slope of ln(cost) against ln(size) over all sizes, in brackets the range between "
        "neighbouring sizes; 1 is linear. Fixed costs flatten small sizes, so the slope between the two largest stands "
        "apart.",
        "",
        *lines_of(["work", "sizes", "cost", "exponent", "last", "of the task"], growths),
    ]
    return "\n".join(text)


def compared(results: dict[str, Any]) -> str:
    """What each package took, over ours, as a table for docs/comparison.md."""
    rows = []
    for name, title in COMPARED.items():
        entries = [
            f"{row['work']}: {ratio(value / row['ours'])}"
            for row in results["rows"].values()
            for peer, value in row.get("peers", {}).items()
            if peer.split()[0] == name and not isinstance(value, str)
        ]
        rows += [[title, "; ".join(entries)]] if entries else []
    return "\n".join(lines_of(["package", "its time over ours, one thread"], rows))


def write(path: Path, text: str) -> None:
    """Put a text between the markers of a page."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[], help=f"groups ({', '.join(GROUPS)}), or parts of names of rows"
    )
    parser.add_argument("--resume", action="store_true", help="leave out rows that this commit has measured")
    parser.add_argument("--peers", metavar="FOLDER", help="where peers are installed")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept: does it work?")
    parser.add_argument("--render", action="store_true", help="only write the tables again")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        measure_group(**json.loads(options.group))
        return 0
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    right = True
    if not options.render:
        results["processor"] = processor()
        for group in groups_of(options.only, results["rows"]):
            right = run_group(group, options.only, options, results) and right
    if not options.quick:
        write(README, render(results))
        write(COMPARISON, compared(results))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
