"""`trajtools completion`: the completion script of click, for the shell that is asked for."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from trajtools.cli import cli, options

HOW = {
    "bash": "trajtools completion bash > ~/.local/share/bash-completion/completions/trajtools",
    "zsh": "trajtools completion zsh > ~/.zfunc/_trajtools   (with ~/.zfunc in fpath)",
    "fish": "trajtools completion fish > ~/.config/fish/completions/trajtools.fish",
}


@click.command("completion", epilog="\b\n" + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice(list(HOW)))
@options.debug
def command(shell: str) -> None:
    """Print the script that completes commands and options in SHELL; write it where your shell looks for it."""
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"click knows no completion for {shell}")
    click.echo(found(cli, {}, "trajtools", "_TRAJTOOLS_COMPLETE").source())
