"""What the words of a command line must fulfil beyond what click checks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import click

from avprep.errors import UserError


def check_arguments(command: click.Command, ctx: click.Context, arguments: Sequence[str]) -> None:
    """Refuse what click would take without a word, or would misunderstand.

    Args:
        command: the one that gets the arguments.
        ctx: of the group it was found in.
        arguments: the words after the command's name.

    Raises:
        UserError: an option that counts once is given twice, or a URL stands for a local path.
    """
    given = _everything_given(command, ctx, arguments)
    for param in command.params:
        values = given.get(param.name or "") or []
        if isinstance(param, click.Option):
            if len(values) > 1 and not (param.multiple or param.count):
                said = " and ".join(_spelled(param, value) for value in values)
                raise UserError(f"{said}: given {len(values)} times; give it once.")
        elif not isinstance(values, (list, tuple)):
            values = [values]
        if values:
            refuse_urls(param, values)


def refuse_urls(param: click.Parameter, values: Iterable[object]) -> None:
    """Raises UserError where a parameter that is a local path gets a URL."""
    from avprep.storage import is_url  # --help does without it

    if not isinstance(param.type, click.Path):
        return
    name = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
    for url in map(str, values):
        if is_url(url):
            scheme, _, path = url.partition("://")
            way = f"Give {path}" if scheme == "file" else "Use a local copy or a mounted folder"
            raise UserError(f"{name} {url} is a URL; it must be a path on this machine. {way}.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'shard'?`, or nothing where no known word resembles it."""
    from difflib import get_close_matches  # only an error needs it

    close = get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _everything_given(
    command: click.Command, ctx: click.Context, arguments: Sequence[str]
) -> dict[str, Any]:
    """What stands on a command line, by parameter; of an option, a list of all its values."""
    parameters = [copy.copy(param) for param in command.params]
    for param in parameters:
        if isinstance(param, click.Option):
            param.multiple, param.count = True, False
    listener = click.Command(command.name, params=parameters)
    try:
        parser = listener.make_parser(click.Context(listener, ctx, allow_interspersed_args=True))
        return dict(parser.parse_args(list(arguments))[0])
    except click.UsageError:  # --help, or an error that click reports itself
        return {}


def _spelled(option: click.Option, value: object) -> str:
    if option.is_flag:
        return (option.opts if value else option.secondary_opts)[0]
    words = value if isinstance(value, tuple) else (value,)
    return " ".join(map(str, (option.opts[0], *words)))
