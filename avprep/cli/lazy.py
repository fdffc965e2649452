"""A click group that imports a command only when it is asked for, and one way to end a command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from avprep.errors import ReportedError, UserError, WorkFailed, out_of_memory
from avprep.failures import printable
from avprep.processes import ignore_sigterm, interrupt_on_sigterm


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives (`package.module:attribute`) and its line in the group's help."""

    target: str
    summary: str

    def load(self) -> click.Command:
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


class LazyGroup(click.Group):
    """`--help` prints the table below without importing one of the commands."""

    def __init__(self, *args: Any, table: dict[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.table.get(cmd_name)
        return entry.load() if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if ctx.resilient_parsing:  # the shell completes a line
            return super().resolve_command(ctx, args)
        from avprep.cli.arguments import check_arguments, did_you_mean

        if word not in self.table and not word.startswith("-"):
            ctx.fail(f"No such command {word!r}.{did_you_mean(word, self.table)}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, click.Group):
            check_arguments(command, ctx, rest)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.table.items()])


def run_group(group: click.Group, prog_name: str) -> None:
    """Run a command line and end the process with the documented exit code.

    0 success; 1 the work failed (`WorkFailed`); 2 the user's input is wrong (`UserError` and
    click's own usage errors); 130 interrupted, by Ctrl-C or SIGTERM.
    """
    was_stopped = interrupt_on_sigterm()

    def run() -> Any:
        try:
            return group.main(prog_name=prog_name, standalone_mode=False)
        except Exception:
            if was_stopped():
                raise KeyboardInterrupt from None
            raise

    sys.exit(_exit_code(run))


def _exit_code(command: Callable[[], Any]) -> int:
    try:
        result = command()
        return result if isinstance(result, int) else 0
    except UserError as error:
        click.echo(f"Error: {_lines(error)}", err=True)
        return 2
    except WorkFailed as error:
        click.echo(f"Failed: {_lines(error)}", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        ignore_sigterm()
        click.echo("Interrupted: run the same command again to resume from here.", err=True)
        return 130
    except (OSError, RuntimeError, MemoryError) as error:  # after click.Abort, which is one
        if reason := out_of_memory(error):
            what_helps = (
                f"out of memory ({printable(reason)}). Close other programs, or use fewer "
                "--workers or a smaller --batch-size."
            )
            click.echo(f"Failed: {what_helps}", err=True)
            return 1
        if not isinstance(error, OSError) or error.filename is None:
            raise
        # Of reading; what is written names its place itself.
        click.echo(f"Error: {printable(str(error.filename))}: {error.strerror}.", err=True)
        return 2


def _lines(error: ReportedError) -> str:
    return "\n".join(printable(str(line)) for line in error.args)
