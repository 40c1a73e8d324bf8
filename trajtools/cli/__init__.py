"""The command line: the group, its errors and exit codes.

What scripts may rely on: results go to stdout, everything else to stderr; `--json` prints exactly one document, whose
`schema` names its form; the exit status is 0 (done), 1 (error: one sentence on stderr), 2 (usage), 3 (`--strict` and an
inconclusive verdict) or 130 (interrupted). The module of a command is imported when the command is called.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from trajtools import __version__
from trajtools.cli.guidance import advise, examples, hint
from trajtools.errors import TrajtoolsError

# Command -> its module here, and its line in `--help`. A static table, so that `--help` imports nothing.
COMMANDS = {
    "demo": ("demo", "Train, record and analyse a small network on real data, and write a report."),
    "info": ("files", "Describe the contents of a file."),
    "validate": ("files", "Check a file against the format, rule by rule."),
    "repair": ("files", "Repair a file left by a crashed writer."),
    "convert": ("convert", "Convert checkpoints, or HDF5 of other programs, into files that all commands read."),
    "export": ("files", "Export a run for other programs: weights, tables, networks."),
    "watch": ("watch", "Follow a file while it is being written."),
    "lyapunov": ("lyapunov", "Measure how fast nearby trainings diverge."),
    "stability": ("analyses", "Test whether perturbed runs return to the reference orbit."),
    "recurrence": ("analyses", "Quantify how a trajectory returns to where it has been."),
    "distances": ("analyses", "Compute the distances between all states of a trajectory."),
    "correlation": ("analyses", "Compute the autocorrelation of a trajectory."),
    "dimension": ("analyses", "Estimate the correlation dimension of a trajectory."),
    "curvature": ("analyses", "Compare recorded curvature with the learning rate: the edge of stability."),
    "sweep": ("sweep", "Compare many runs: onset of chaos, fastest training."),
    "report": ("report", "Write an HTML report of everything that applies to the runs of a file."),
}


class Commands(click.Group):
    """A group that imports a command when it is called, and turns errors into one sentence and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"trajtools.cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        command.short_help = COMMANDS[cmd_name][1]
        if examples(cmd_name) not in (command.epilog or ""):
            command.epilog = "\n\n".join(filter(None, [examples(cmd_name), command.epilog]))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and suggest another one if there is none of this name."""
        near = get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = f"Did you mean {near[0]!r}?" if near else f"The commands are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of trajtools and of the operating system become exit status 1 and one sentence."""
        try:
            value = super().invoke(ctx)
            if ctx.invoked_subcommand is not None and not ctx.meta.get("trajtools.silent"):
                hint(ctx.invoked_subcommand, ctx.meta.get("trajtools.files", ()))
            return value
        except BrokenPipeError:
            raise  # click exits silently, as it should when `head` has read enough
        except (TrajtoolsError, OSError, MemoryError) as error:
            if debugging():
                raise
            raise click.ClickException(sentence(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if debugging():
                raise
            message = f"this is a bug in trajtools ({type(error).__name__}: {error}); --debug shows the traceback"
            raise click.ClickException(printable(" ".join(message.split()))) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


def debugging() -> bool:
    """Whether `--debug` was given, so that errors are raised and not reported."""
    return bool(click.get_current_context().meta.get("trajtools.debug"))


def sentence(error: BaseException) -> str:
    """Return an error as one printable line."""
    if isinstance(error, OSError) and not isinstance(error, TrajtoolsError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = _with_options(str(error) or type(error).__name__)
    return printable(" ".join(text.split()))


_ARGUMENT = re.compile(r"""(?<![\w.-])([a-z_]+)=(?:'([^']*)'|"([^"]*)"|([\w.+-]*\w))?""")


def _with_options(text: str) -> str:
    """Write arguments of the library that the command has as options as these: ``dim=3`` is ``--dim 3``."""
    context = click.get_current_context(silent=True)
    command = context.command if context else None
    if isinstance(command, Commands) and context is not None:
        command = command.get_command(context, context.invoked_subcommand or "")
    known = {p.name: p.opts[-1] for p in command.params if isinstance(p, click.Option)} if command else {}
    if "seed" in known:
        known["rng"] = known["seed"]

    def option(match: re.Match[str]) -> str:
        before = text[: match.start()]
        opened = before.rfind("(") if before.count("(") > before.count(")") else -1
        if match[1] not in known or (opened > 0 and before[opened - 1].isalnum()):  # an argument of a call in Python
            return match[0]
        value = next((one for one in match.groups()[1:] if one is not None), None)
        if value in (None, "True"):  # "True" is that of a switch
            return known[match[1]]
        return f"{known[match[1]]} {'none' if value == 'None' else value}"

    return _ARGUMENT.sub(option, text)


def printable(text: str) -> str:
    """Escape control characters other than line ends: names in a file must not control the terminal."""
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _set_debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Store `--debug`, which may stand before the command or after it."""
    if value:
        ctx.meta["trajtools.debug"] = True


debug_option = click.option(
    "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_set_debug, help="Show tracebacks of errors."
)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `trajtools demo`. Each command has its own --help.",
)
@click.version_option(__version__, prog_name="trajtools")
@debug_option
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Training as a dynamical system: analyse recorded trainings and measure their dynamics.

    Without a command, says what to do with the files of this folder.
    """
    if ctx.invoked_subcommand is None:
        click.echo(printable(advise(Path.cwd())))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status; `arguments` are those of the process by default."""
    # A command loads about 800 modules, none of which becomes garbage: searching them for cycles while they load and
    # again at the end takes a tenth of a short command.
    gc.set_threshold(20_000, 10, 10)
    if "_TRAJTOOLS_COMPLETE" in os.environ:
        import_module("trajtools.cli.completion")
    try:
        sys.exit(cli.main(None if arguments is None else list(arguments), prog_name="trajtools"))
    finally:
        gc.freeze()
