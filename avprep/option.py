"""How an option is stated: once, as a field of a frozen dataclass.

    @dataclass(frozen=True)
    class GalleryOptions(Options):
        \"""Which clips are shown.\"""

        order: Literal["random", "name"] = option("random", "What comes first.")
        clips: int | None = option(None, "Clips shown. [default: 32]", at_least=0)
        max_mb: float = option(15.0, "Size of the page.", above=0)
        splits: tuple[str, ...] = option((), "Only this split.", flag="--split", metavar="NAME")
        compact: bool = option(False, "Leave out what is empty.", off="--full")
        cache: Path = option(help="Folder for downloads.", flag="--cache-dir")

Flag, type, choices, bounds and default of the command line all come from there
(`avprep.cli.flags.flags`), and so do `docs/cli.md` and the check of a recipe's values. The
annotation says what a value may be: `bool`, `int`, `float`, `str`, `Path`, a `Literal` of choices,
`int | Literal[…]` for a number or one of some words, or a class of your own with a classmethod
`parse(text)`; `X | None` where it may be left out, `tuple[X, ...]` where the flag may be repeated,
`X | tuple[X, ...]` where it may be too but a single value is held alone, `tuple[X, X]` where it
takes two values. An option without a default is required. A default is shown in the help, unless
the help text names it.

A field without `option(…)` has no flag; one whose type is an `Options` class adds that class's.

Instances made from Python obey the same types, bounds and choices, and what they are given is
converted as it is on the command line: a string becomes a `Path`, a list a tuple.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from avprep.errors import UserError

_OPTION = "avprep.option"


def option(default: Any = MISSING, help: str = "", **stated: Any) -> Any:
    """A dataclass field that is an option; see the head of this module.

    Args:
        default: its value if none is given; an option without a default is required.
        help: one or two sentences for `--help`.
        stated: `flag`, `off`, bounds and so on, see `Option`.
    """
    return dataclasses.field(default=default, metadata={_OPTION: Option(help, **stated)})


class Options:
    """Base class of option dataclasses: refuses values that the fields do not allow."""

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value has the wrong type, is out of bounds or is not among the choices.
        """
        for name, stated in statements(type(self)).items():
            value = getattr(self, name)
            if not isinstance(stated, Option):
                if not isinstance(value, stated):
                    raise UserError(f"{name} must be {stated.__name__}, not {value!r}.")
                continue
            try:
                object.__setattr__(self, name, stated.read(value))
            except ValueError as error:
                raise UserError(f"{stated.flag} {value}: {error}.") from error


@dataclass(frozen=True)
class Option:
    """The statement of an option."""

    help: str
    flag: str = ""  # its spelling, where that is not the field's name with dashes
    off: str = ""  # of a switch: the flag that turns it off
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[Any, ...] = ()  # values that Python code may use and the command line lacks
    metavar: str | None = None  # what `--help` calls the value
    # What follows is taken from the field.
    name: str = ""
    is_required: bool = False
    default: Any = None
    kind: Any = str  # the type of one value
    is_optional: bool = False  # None stands for "not given"
    count: int | None = 1  # values that one flag takes; None: the flag may be repeated
    is_alone: bool = False  # of a flag that may be repeated: a single value is no tuple
    choices: tuple[str, ...] = ()  # on the command line; empty: any value
    words: tuple[str, ...] = ()  # that may stand for a number

    def read(self, value: Any) -> Any:
        """A value from Python code or a TOML table, as the field holds it.

        Raises:
            ValueError: it has the wrong type, is out of bounds or not among the choices.
            UserError: `parse` of the option's own type refuses it.
        """
        if value is None and self.is_optional:
            return None
        if self.is_alone and isinstance(value, (list, tuple)) and len(value) == 1:
            (value,) = value
        if self.count == 1 or (self.is_alone and not isinstance(value, (list, tuple))):
            return self._read_one(value)
        if not isinstance(value, (list, tuple)):
            raise ValueError("must be a list of values")
        if self.count is not None and len(value) != self.count:
            raise ValueError(f"must be {self.count} values")
        return tuple(map(self._read_one, value))

    def _read_one(self, given: Any) -> Any:
        if given in self.words:
            return given
        value = self._converted(given)
        if value in self.also:
            return value
        if self.choices and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        for bound, words, is_kept in (
            (self.at_least, "at least", lambda limit: value >= limit),
            (self.at_most, "at most", lambda limit: value <= limit),
            (self.above, "above", lambda limit: value > limit),
            (self.below, "below", lambda limit: value < limit),
        ):
            if bound is not None and not is_kept(bound):
                raise ValueError(f"must be {words} {bound:g}")
        return value

    def _converted(self, value: Any) -> Any:
        kind = self.kind
        if issubclass(kind, (int, float)) and kind is not bool:
            accepted = numbers.Integral if issubclass(kind, int) else numbers.Real
            is_number = isinstance(value, accepted) and not isinstance(value, bool)
            if is_number and value == value:  # not NaN
                return kind(value)
        elif isinstance(value, kind):
            return value
        elif kind is Path and isinstance(value, (str, os.PathLike)):
            return Path(value)
        elif kind is str and isinstance(value, Path):  # a place, which may be a URL instead
            return str(value)
        if isinstance(value, str) and hasattr(kind, "parse"):
            return kind.parse(value)
        called = _CALLED.get(kind, kind.__name__)
        raise ValueError(f"must be {' or '.join(filter(None, (', '.join(self.words), called)))}")


_CALLED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


_FOUND: dict[type[Options], dict[str, Option | type[Options]]] = {}


def statements(cls: type[Options]) -> dict[str, Option | type[Options]]:
    """What the fields of an option dataclass state, in their order; of groups, their class."""
    if cls not in _FOUND:
        annotations = get_type_hints(cls)
        found: dict[str, Option | type[Options]] = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            annotation = annotations[field.name]
            if _OPTION in field.metadata:
                found[field.name] = _stated(field, annotation)
            elif isinstance(annotation, type) and issubclass(annotation, Options):
                found[field.name] = annotation
        _FOUND[cls] = found
    return _FOUND[cls]


def options_of(cls: type[Options]) -> Iterator[Option]:
    """A dataclass's own options, then those of the groups in it, each in their order."""
    found = statements(cls).values()
    yield from (stated for stated in found if isinstance(stated, Option))
    for stated in found:
        if not isinstance(stated, Option):
            yield from options_of(stated)


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their own names, without the groups they stand in."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= flat(value) if isinstance(value, Mapping) else {name: value}
    return found


def _stated(field: dataclasses.Field[Any], annotation: Any) -> Option:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    parts = set(get_args(annotation) if is_union else (annotation,))
    is_optional = types.NoneType in parts
    parts.discard(types.NoneType)
    words = {part for part in parts if get_origin(part) is Literal} if len(parts) > 1 else set()
    repeated = {part for part in parts if get_origin(part) is tuple}
    is_alone = bool(repeated) and len(parts) > 1
    (annotation,) = (repeated if is_alone else parts) - words
    count: int | None = 1
    if get_origin(annotation) is tuple:
        annotation, *rest = get_args(annotation)
        count = None if rest == [...] else 1 + len(rest)
    stated: Option = field.metadata[_OPTION]
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    kind = type(choices[0]) if choices else annotation
    if kind is bool and field.default is True and not stated.off:
        raise TypeError(f"{field.name}: a switch that is on by default needs a flag to turn it off")
    return dataclasses.replace(
        stated,
        flag=stated.flag or f"--{field.name.replace('_', '-')}",
        name=field.name,
        is_required=field.default is MISSING,
        default=None if field.default is MISSING else field.default,
        kind=kind,
        is_optional=is_optional,
        count=count,
        is_alone=is_alone,
        choices=tuple(choice for choice in choices if choice not in stated.also),
        words=tuple(word for literal in words for word in get_args(literal)),
    )
