"""`trajtools validate`: a file against the format, rule by rule."""

from __future__ import annotations

from pathlib import Path

import click

from trajtools.cli import options
from trajtools.cli.reading import check_is_file
from trajtools.store import validate


@click.command("validate")
@options.files
@options.as_json
@options.output
@options.debug
def command(*, files: tuple[Path, ...], as_json: bool, output: Path | None) -> None:
    """Check each FILE against the format (trajtools/FORMAT.md); exit status 1 if one breaks a MUST."""
    found = {}
    for path in files:
        check_is_file(path)
        found[path] = validate(path)
    broken = [path for path, problems in found.items() if any(p.severity == "error" for p in problems)]
    if as_json:
        entries = [
            {
                "file": str(path),
                "valid": path not in broken,
                "problems": [{"severity": p.severity, "where": p.where, "words": p.words} for p in problems],
            }
            for path, problems in found.items()
        ]
        text = options.document("validate/1", files=entries)
    else:
        lines = []
        for path, problems in found.items():
            lines.append(f"{path}: {'not valid' if path in broken else 'valid'}")
            lines += [f"  {p.severity}: {p.where}: {p.words}" for p in problems]
        text = "\n".join(lines)
    options.emit(text, output, files)
    if broken:
        raise click.ClickException(f"{len(broken)} of {len(files)} files break the format")
