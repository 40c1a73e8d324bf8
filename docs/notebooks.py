"""Execute the notebooks of the site: `python docs/notebooks.py [--check] [FILE...]`.

Without FILE, all of them. Each runs in an empty folder. The outputs replace those in the file; with --check, a notebook
only has to run. What would differ from one machine to the next is not kept: times, versions, paths, and what goes to
stderr (progress, warnings of other packages).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

DOCS = Path(__file__).parent
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SECONDS_A_CELL = 900


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python docs/notebooks.py",
        description="Execute the notebooks of the site.",
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="notebooks (default: all)"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only run them, and leave the files as they are",
    )
    args = parser.parse_args(arguments)
    failed = [
        path
        for path in args.files or notebooks()
        if not execute(path, check=args.check)
    ]
    if failed:
        print(f"failed: {', '.join(path.name for path in failed)}", file=sys.stderr)
    return 1 if failed else 0


def notebooks() -> list[Path]:
    """Return the notebooks of the site."""
    return sorted(
        path
        for path in DOCS.rglob("*.ipynb")
        if "build" not in path.relative_to(DOCS).parts
    )


def execute(path: Path, *, check: bool) -> bool:
    """Execute one notebook in an empty folder; whether it ran to its end."""
    started = time.monotonic()
    book = nbformat.read(path, as_version=4)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(DOCS.parent), os.environ.get("PYTHONPATH")])
    )
    os.environ.pop("MPLBACKEND", None)  # figures go into the notebook
    with tempfile.TemporaryDirectory() as folder:
        try:
            resources = {"metadata": {"path": folder}}
            client = NotebookClient(
                book, timeout=SECONDS_A_CELL, kernel_name="python3", resources=resources
            )
            client.execute()
        except CellExecutionError as problem:
            print(f"{path}: {problem}", file=sys.stderr)
            return False
    if not check:
        nbformat.write(clean(book, folder), path)
    print(
        f"{path.relative_to(DOCS.parent) if path.is_absolute() else path}: {time.monotonic() - started:.0f} s"
    )
    return True


def clean(book: nbformat.NotebookNode, folder: str) -> nbformat.NotebookNode:
    """Drop what differs between machines and runs: times of execution, versions, names of temporary folders."""
    book.metadata = nbformat.from_dict(KERNEL)
    for number, cell in enumerate(book.cells):
        cell.metadata = (
            {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        )
        cell.id = f"cell-{number}"
        if "outputs" in cell:
            cell.outputs = [
                output for output in cell.outputs if output.get("name") != "stderr"
            ]
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = output.text.replace(folder + "/", "")
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = data.replace(folder + "/", "")
            if output.get("data", {}).get("image/png"):
                output.data.pop("text/plain", None)  # <Figure size ...>
            output.get("metadata", {}).clear()
    return book


if __name__ == "__main__":
    sys.exit(main())
