"""`trajtools validate`: a file against the format, rule by rule."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from trajtools.cli import options
from trajtools.cli.reading import each, tell, told
from trajtools.store import Problem, validate


@click.command("validate")
@options.files
@options.as_json
@options.output
@options.debug
def command(*, files: tuple[Path, ...], as_json: bool, output: Path | None) -> None:
    """Check each FILE against the format (trajtools/FORMAT.md); exit status 1 if one breaks a MUST."""
    found, errors = each(files, lambda path: (path, validate(path)))
    tell(errors)
    broken = [path for path, problems in found if any(p.severity == "error" for p in problems)]
    if as_json:
        entries = [
            {"file": str(path), "valid": path not in broken, "problems": [asdict(problem) for problem in problems]}
            for path, problems in found
        ]
        options.emit(options.document("validate/1", files=entries, errors=told(errors)), output, files)
    elif found:
        options.emit("\n".join(in_words(path, problems, path in broken) for path, problems in found), output, files)
    for path in broken:
        click.echo(f"Error: {path} breaks the format.", err=True)
    if broken or errors:
        click.get_current_context().exit(1)


def in_words(path: Path, problems: list[Problem], broken: bool) -> str:
    """Return the verdict on one file, and what is wrong with it.

    Parameters
    ----------
    path : Path
        The file.
    problems : list of Problem
        As `validate` returns them.
    broken : bool
        Whether a MUST is broken.

    Returns
    -------
    str
        One line, and one per problem.
    """
    return "\n".join([f"{path}: {'not valid' if broken else 'valid'}", *(f"  {problem}" for problem in problems)])
