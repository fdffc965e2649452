"""Where the recipes lie: `pipelines/` of the repository, or its copy in an installed package."""

from __future__ import annotations

from pathlib import Path

from avprep.errors import UserError

_INSTALLED = Path(__file__).with_name("pipelines")  # the build puts it there
_REPOSITORY = Path(__file__).resolve().parent.parent / "pipelines"


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
