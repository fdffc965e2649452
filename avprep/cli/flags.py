"""Flags of the command line, made from option dataclasses; see `avprep.option`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, TypeVar

import click

from avprep.option import Option, Options, options_of, statements

Group = TypeVar("Group", bound=Options)

PATH = click.Path(path_type=Path)


def flags(
    *, without: Container[str] = (), **groups: type[Options]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of option dataclasses, and call it with instances of them.

        @click.command()
        @flags(sample=SampleOptions, pool=PoolOptions)
        def shard(sample: SampleOptions, pool: PoolOptions) -> None: …

    Args:
        without: names of fields that are no flags of this command; they keep their defaults.
        groups: by parameter of the command, the class of its value.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_instances(**values: Any) -> None:
            made = {name: _instance(cls, values) for name, cls in groups.items()}
            command(**values, **made)

        decorated: Callable[..., None] = with_instances
        stated = [one for cls in groups.values() for one in options_of(cls)]
        for one in reversed(stated):
            if one.name not in without:
                decorated = click.option(*_spelled(one), cls=Flag, stated=one)(decorated)
        return decorated

    return decorate


class Flag(click.Option):
    """A flag that knows the statement it was made from.

    `stated.read(value)` checks a value from elsewhere, such as a recipe, which click would convert
    without a word: `2.5` to 2, `true` to 1.
    """

    def __init__(self, spelled: list[str], *, stated: Option) -> None:
        self.stated = stated
        is_switch = stated.kind is bool
        # For click a default of None is a value, with which a required option is given.
        default = {} if stated.is_required else {"default": stated.default}
        super().__init__(
            spelled,
            help=stated.help,
            metavar=stated.metavar,
            required=stated.is_required,
            **default,
            type=None if is_switch else _type(stated),
            is_flag=is_switch,
            multiple=stated.count is None,
            nargs=stated.count or 1,
            show_default=_is_default_shown(stated),
        )

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """What click makes of values from the command line or a recipe, where one may be alone."""
        is_alone = self.stated.is_alone and isinstance(value, str)
        return super().type_cast_value(ctx, (value,) if is_alone else value)


def _spelled(stated: Option) -> tuple[str, str]:
    return (f"{stated.flag}/{stated.off}" if stated.off else stated.flag), stated.name


def _is_default_shown(stated: Option) -> bool:
    is_plain_switch = stated.kind is bool and not stated.off
    return not is_plain_switch and "[default: " not in stated.help


def _type(stated: Option) -> click.ParamType:
    if stated.choices:
        return click.Choice(stated.choices)
    if stated.words:
        return NumberOrWord()
    if stated.kind is Path:
        return PATH
    if stated.kind in (int, float):
        lowest, is_low_open = _bound(stated.at_least, stated.above)
        highest, is_high_open = _bound(stated.at_most, stated.below)
        if lowest is None and highest is None:
            return click.INT if stated.kind is int else click.FLOAT
        ranged = click.IntRange if stated.kind is int else click.FloatRange
        return ranged(lowest, highest, is_low_open, is_high_open)  # type: ignore[arg-type]
    return click.STRING if stated.kind is str else Parsed(stated.kind)


def _bound(closed: float | None, is_open: float | None) -> tuple[float | None, bool]:
    return (closed, False) if is_open is None else (is_open, True)


class Parsed(click.ParamType):
    """A value of a class with a classmethod `parse(text)`, whose errors say what was wrong."""

    name = "text"

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._kind.parse(value) if isinstance(value, str) else value
        except ValueError:  # the option's statement tells what is wrong with it
            return value


class NumberOrWord(click.ParamType):
    """A whole number or a word, which the option's statement checks."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value


def _instance(cls: type[Group], values: dict[str, Any]) -> Group:
    """An option dataclass from a command's values, which are taken out of there."""
    return cls(
        **{
            name: values.pop(name) if isinstance(stated, Option) else _instance(stated, values)
            for name, stated in statements(cls).items()
            if not isinstance(stated, Option) or name in values
        }
    )
