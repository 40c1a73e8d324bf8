"""`trajtools repair`: mends a file whose writer was killed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from trajtools.cli import options
from trajtools.cli.reading import each, tell, told
from trajtools.results.plain import to_plain
from trajtools.store import repair


@click.command("repair")
@options.files
@options.as_json
@options.output
@options.debug
def command(*, files: tuple[Path, ...], as_json: bool, output: Path | None) -> None:
    """Mend each FILE whose writer was killed: every committed state is kept, and the file can be written again."""
    done, errors = each(files, repair)
    tell(errors)
    if as_json:
        entries = [{**to_plain(asdict(report)), "changed": report.changed} for report in done]
        options.emit(options.document("repair/1", files=entries, errors=told(errors)), output, files)
    elif done:
        options.emit("\n".join(str(report) for report in done), output, files)
    if errors:
        click.get_current_context().exit(1)
