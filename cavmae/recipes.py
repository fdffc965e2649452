"""Recipes: where they lie, what a file of them holds, and the published curve they come with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avprep.errors import UserError

_INSTALLED = Path(__file__).with_name("pipelines")  # the build puts it there
_REPOSITORY = Path(__file__).resolve().parent.parent / "pipelines"
_COMMANDS = ("pretrain", "finetune", "eval")
_EXPECTED = "expected"
_SPLITS = ("train", "validation")  # as log.csv names them


@dataclass(frozen=True)
class Expected:
    """What a published run measured, as far as it is known.

    Attributes:
        seconds_per_epoch: on the published hardware.
        curves: by split (of log.csv), measure and epoch.
    """

    seconds_per_epoch: float | None = None
    curves: Mapping[str, Mapping[str, Mapping[int, float]]] = field(default_factory=dict)

    def beside(self, split: str, measure: str, epoch: int) -> str:
        """The published value after an epoch, or those of the nearest known ones around it.

        Returns:
            words in brackets; nothing for a measure that is not known.
        """
        curve = self.curves.get(split, {}).get(measure, {})
        if epoch in curve:
            return f" (published {curve[epoch]:.4g})"
        around = [
            *sorted(e for e in curve if e < epoch)[-1:],
            *sorted(e for e in curve if e > epoch)[:1],
        ]
        known = ", ".join(f"{curve[e]:.4g} at epoch {e}" for e in around)
        return f" (published {known})" if known else ""


@dataclass(frozen=True)
class Recipe:
    """A recipe's file, read.

    Attributes:
        path: of the file.
        options: by command, then by option name as written.
        expected: the published curve; empty where the file has none.
    """

    path: Path
    options: Mapping[str, Mapping[str, Any]]
    expected: Expected


def recipes_folder() -> Path:
    """The folder of recipes."""
    return _INSTALLED if _INSTALLED.is_dir() else _REPOSITORY


def find_recipe(name: str) -> Path:
    """The file that a recipe's name means: a path, or the name of one that comes with the program.

    Raises:
        UserError: neither a file nor a recipe's name.
    """
    if Path(name).is_file():
        return Path(name)
    recipes = {path.stem: path for path in sorted(recipes_folder().rglob("*.toml"))}
    if name in recipes:
        return recipes[name]
    raise UserError(
        f"{name}: no such recipe. Give a TOML file, or one of those that come with cavmae: "
        f"{', '.join(recipes)}."
    )


def read_recipe(name: str) -> Recipe:
    """Read the recipe of a name.

    Raises:
        UserError: there is none, it cannot be read, or it holds a table that recipes do not have.
    """
    path = find_recipe(name)
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef]
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the recipe ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, endless nesting
        raise UserError(f"{path}: not TOML ({error}).") from error
    tables = (*_COMMANDS, _EXPECTED)
    if strangers := sorted(set(document) - set(tables)):
        raise UserError(
            f"{path}: [{strangers[0]}] is not a table of a recipe; the tables are "
            f"{', '.join(f'[{name}]' for name in tables)}."
        )
    expected = _expected(document.pop(_EXPECTED, {}), path)
    return Recipe(path, document, expected)


def _expected(table: Mapping[str, Any], path: Path) -> Expected:
    try:
        seconds = table.get("seconds-per-epoch")
        if strangers := sorted(set(table) - {"seconds-per-epoch", *_SPLITS}):
            raise ValueError(f"{strangers[0]!r} is not known there")
        return Expected(
            None if seconds is None else float(seconds),
            {
                split: {
                    measure: {int(epoch): float(value) for epoch, value in curve.items()}
                    for measure, curve in table[split].items()
                }
                for split in _SPLITS
                if split in table
            },
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: [{_EXPECTED}] holds seconds-per-epoch, and tables {' and '.join(_SPLITS)} of "
            f"values by epoch for each measure ({error})."
        ) from error
