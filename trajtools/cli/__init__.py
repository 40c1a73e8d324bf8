"""The command line. Each command lives in a module of its own, which is imported when the command is called.

What scripts may rely on: data go to stdout, everything else to stderr; `--json` prints exactly one document, whose
`schema` names its form; the exit status is 0 (done), 1 (error: one sentence on stderr), 2 (the command line itself was
wrong), 3 (`--strict` and an inconclusive verdict) or 130 (interrupted from the keyboard).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

from trajtools import __version__
from trajtools.errors import TrajtoolsError

# name -> what `--help` says; the module has the name of the command. A static table, so that `--help` imports nothing.
COMMANDS = {
    "demo": "Train, record and analyse a small network on real data; writes a report.",
    "info": "Say what a file holds.",
    "validate": "Check a file against the format, rule by rule.",
    "repair": "Mend a file whose writer was killed.",
    "convert": "Turn a folder of saved weights into a file that all commands read.",
    "export": "Write a run as .npz, .csv or .graphml, for other programs.",
    "watch": "Follow a file while it is being written.",
    "lyapunov": "Measure how fast nearby trainings diverge.",
    "stability": "Ask whether perturbed trainings come back to the orbit of their reference.",
    "recurrence": "Quantify when a trajectory returns to where it has been.",
    "distances": "Measure the distances between all states of a trajectory.",
    "correlation": "Correlate a trajectory with itself, some states later.",
    "dimension": "Estimate the correlation dimension of a trajectory.",
    "curvature": "Set recorded curvature against the learning rate: the edge of stability.",
    "sweep": "Set many runs beside each other: onset of chaos, fastest training.",
    "report": "Write one page about everything that applies to a file.",
    "completion": "Print the script that completes commands in your shell.",
}


class Commands(click.Group):
    """A group that imports a command when it is called, and turns what we refuse into one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table.

        Parameters
        ----------
        ctx : click.Context
            Of the command line.
        """
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command.

        Parameters
        ----------
        ctx : click.Context
            Of the command line.
        cmd_name : str
            As the user gave it.

        Returns
        -------
        click.Command or None
            None if there is none of this name.
        """
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"trajtools.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, without importing what stands behind it.

        Parameters
        ----------
        ctx : click.Context
            Of the command line.
        formatter : click.HelpFormatter
            What writes it.
        """
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and say what was perhaps meant if there is none.

        Parameters
        ----------
        ctx : click.Context
            Of the command line.
        args : list of str
            The command and what follows it.

        Returns
        -------
        tuple
            Name, command, and the rest of the words.
        """
        near = get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what trajtools and the operating system refuse becomes exit status 1 and one sentence.

        Parameters
        ----------
        ctx : click.Context
            Of the command line.

        Returns
        -------
        object
            What the command returns.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click leaves silently, as is right when `head` has seen enough
        except (TrajtoolsError, OSError, MemoryError) as problem:
            if ctx.meta.get("trajtools.debug"):
                raise
            raise click.ClickException(sentence(problem)) from problem
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as problem:
            if ctx.meta.get("trajtools.debug"):
                raise
            name = type(problem).__name__
            words = f"this is a fault of trajtools, not yours ({name}: {problem}). `--debug` shows where it happened."
            raise click.ClickException(words) from problem
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


def sentence(problem: BaseException) -> str:
    """Return what went wrong, in one line that cannot command the terminal.

    Parameters
    ----------
    problem : BaseException
        What was raised.

    Returns
    -------
    str
        One line.
    """
    from trajtools.cli.options import printable

    return printable(" ".join(_words(problem).split()))


def _words(problem: BaseException) -> str:
    if isinstance(problem, OSError) and not isinstance(problem, TrajtoolsError) and problem.strerror:
        return f"{problem.filename}: {problem.strerror}" if problem.filename else problem.strerror
    return str(problem) or type(problem).__name__


def keep_debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Remember that `--debug` was given, before the command or after it.

    Parameters
    ----------
    ctx : click.Context
        Of the group or of the command; they share what is remembered.
    _parameter : click.Parameter
        The option.
    value : bool
        Whether it was given.
    """
    if value:
        ctx.meta["trajtools.debug"] = True


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `trajtools demo`. Each command has its own --help.",
)
@click.version_option(__version__, prog_name="trajtools")
@click.option(
    "--debug", is_flag=True, is_eager=True, expose_value=False, callback=keep_debug, help="Show tracebacks of errors."
)
def cli() -> None:
    """Training as a dynamical system: look at recorded trainings and measure their dynamics."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the name of the program; those of the process if not given.
    """
    sys.exit(cli.main(None if arguments is None else list(arguments), prog_name="trajtools"))
