"""Write docs/cli.md: every command's --help, as the commands print it.

    python docs/make_cli.py

A test compares the page with what the commands say today.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

PAGE = Path(__file__).with_name("cli.md")
_WIDTH = 100
_HEAD = """\
# Command line

What every command prints for `--help`; written by `docs/make_cli.py`. Exit codes: 0 success, 1 the
work failed or too many clips did, 2 the input is wrong, 130 interrupted (run it again to resume).
"""


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command and group of both programs: its words, itself, its context."""
    from avprep.cli import group as avprep
    from cavmae.cli import group as cavmae

    for name, program in (("avprep", avprep), ("cavmae", cavmae)):
        yield from _below(program, name, None)


def _below(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(
        command, parent, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            child = command.get_command(context, word)
            assert child is not None
            yield from _below(child, word, context)


def render() -> str:
    """The page."""
    sections = [_HEAD]
    for path, command, context in commands():
        level = "#" * (1 + len(path.split()))
        sections.append(f"{level} {path}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
