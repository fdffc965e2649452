"""What cavmae's commands share: defaults from recipes, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from avprep.cli.arguments import did_you_mean, refuse_urls
from avprep.cli.flags import Flag
from avprep.errors import UserError
from avprep.option import Options, option
from cavmae.recipes import Expected, read_recipe

_EXPECTED = f"{__name__}.expected"


@dataclass(frozen=True)
class Rehearsal(Options):
    """Whether a command trains, or says how that would go."""

    dry_run: bool = option(
        False,
        "Do a few steps, print how long the run would take and what memory it needs, and "
        "write nothing to --out.",
    )
    as_json: bool = option(False, "With --dry-run: print one line of JSON.", flag="--json")


class RecipeCommand(click.Command):
    """A command that takes defaults from its table in a recipe.

    @click.command(cls=RecipeCommand)
    @flags(options=PretrainRun)
    def pretrain(options: PretrainRun) -> None: …
    """

    def __init__(self, name: str, *, params: list[click.Parameter], **kwargs: Any) -> None:
        names = [param.name for param in params]
        place = names.index("classes") if "classes" in names else 0
        config = click.Option(
            ["--config"],
            metavar="NAME",
            callback=load_config,
            is_eager=True,
            expose_value=False,
            help="Recipe: a TOML file, or the name of one that comes with cavmae; its table "
            "named after this command holds defaults.",
        )
        super().__init__(name, params=[*params[:place], config, *params[place:]], **kwargs)


def load_config(ctx: click.Context, _: click.Parameter, name: str | None) -> Path | None:
    """Take the defaults of this command from its table in a TOML file.

    Raises:
        UserError: the file cannot be read, is a recipe for other commands, sets what is not an
            option, sets it twice, or to a value that it cannot have.
    """
    if name is None:
        return None
    recipe = read_recipe(name)
    command = "finetune" if ctx.info_name == "folds" else ctx.info_name or ""
    if command not in recipe.options and command != "eval":  # which may do without
        tables = ", ".join(f"[{table}]" for table in recipe.options) or "no table of options"
        raise UserError(
            f"{recipe.path}: is not a recipe for `cavmae {command}`: it has {tables}, and no "
            f"[{command}]."
        )
    defaults = _defaults(ctx, command, recipe.path, recipe.options.get(command, {}))
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    ctx.meta[_EXPECTED] = recipe.expected
    return recipe.path


def warn(*notes: str) -> None:
    """Say on the error stream, apart from results, what had to be assumed."""
    for note in notes:
        click.echo(f"Warning: {note}", err=True)


def expected_of_recipe() -> Expected | None:
    """The published curve of the recipe that the running command was given."""
    return click.get_current_context().meta.get(_EXPECTED)


def is_from_recipe(name: str) -> bool:
    """Whether the recipe, and no flag, gives an option of the running command its value."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.DEFAULT_MAP


def _defaults(
    ctx: click.Context, command: str, path: Path, table: Mapping[str, Any]
) -> dict[str, Any]:
    """Values by parameter from a recipe's table, whose keys are options.

    Raises:
        UserError: a key is not an option, or stands twice; a value is not one that the option can
            have; or a URL stands for a local path.
    """
    options = {option.lstrip("-"): p for p in ctx.command.params for option in p.opts}
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None or option.name is None:
            raise UserError(
                f"{path}: [{command}] sets {key!r}, which is not an option."
                f"{did_you_mean(key, options)} See `cavmae {ctx.info_name} --help`."
            )
        if option.name in defaults:
            raise UserError(f"{path}: [{command}] sets {key!r} twice, as - and as _.")
        refuse_urls(option, [value])
        defaults[option.name] = value
        if isinstance(option, Flag):
            try:
                defaults[option.name] = option.stated.read(value)
            except ValueError as error:
                raise UserError(f"{path}: [{command}] {key} = {value!r}: {error}.") from error
    return defaults
