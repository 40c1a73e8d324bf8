"""`trajtools repair`: mends a file whose writer was killed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from trajtools.cli import options
from trajtools.cli.reading import check_is_file
from trajtools.results import to_plain
from trajtools.store import repair


@click.command("repair")
@options.files
@options.as_json
@options.output
@options.debug
def command(*, files: tuple[Path, ...], as_json: bool, output: Path | None) -> None:
    """Mend each FILE whose writer was killed: every committed state is kept, and the file can be written again."""
    done = []
    for path in files:
        check_is_file(path)
        done.append(repair(path))
    if as_json:
        entries = [{**to_plain(asdict(report)), "changed": report.changed} for report in done]
        text = options.document("repair/1", files=entries)
    else:
        text = "\n".join(str(report) for report in done)
    options.emit(text, output, files)
