"""What cavmae's commands share: defaults from recipes, and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from avprep.cli.arguments import did_you_mean, refuse_urls
from avprep.cli.flags import Flag
from avprep.errors import UserError
from cavmae.options import CRITERIA, MODES, DeviceOptions, ReadOptions, SkipOptions, WorkerOptions
from cavmae.recipes import Expected, read_recipe

Command = TypeVar("Command", bound=Callable[..., Any])
_EXPECTED = f"{__name__}.expected"
_READ = ReadOptions()


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
    command = ctx.info_name or ""
    if command not in recipe.options and command != "eval":  # which may do without
        tables = ", ".join(f"[{table}]" for table in recipe.options) or "no table of options"
        raise UserError(
            f"{recipe.path}: is not a recipe for `cavmae {command}`: it has {tables}, and no "
            f"[{command}]."
        )
    defaults = _defaults(ctx, recipe.path, recipe.options.get(command, {}))
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    ctx.meta[_EXPECTED] = recipe.expected
    return recipe.path


def warn(notes: Iterable[str]) -> None:
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


def taken_from_recipe(
    ctx: click.Context, values: dict[str, Any], names: Iterable[str]
) -> dict[str, Any]:
    """Take the values that only the recipe gives out of a command's values."""
    recipe = {n: values[n] for n in names if is_from_recipe(n)}
    values.update(dict.fromkeys(recipe))
    return recipe


def _defaults(ctx: click.Context, path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
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
                f"{path}: [{ctx.info_name}] sets {key!r}, which is not an option."
                f"{did_you_mean(key, options)} See `cavmae {ctx.info_name} --help`."
            )
        if option.name in defaults:
            raise UserError(f"{path}: [{ctx.info_name}] sets {key!r} twice, as - and as _.")
        refuse_urls(option, [value])
        defaults[option.name] = value
        if isinstance(option, Flag):
            try:
                defaults[option.name] = option.stated.read(value)
            except ValueError as error:
                raise UserError(f"{path}: [{ctx.info_name}] {key} = {value!r}: {error}.") from error
    return defaults


def _stack(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


config_option = click.option(
    "--config",
    metavar="NAME",
    callback=load_config,
    is_eager=True,
    expose_value=False,
    help="Recipe: a TOML file, or the name of one that comes with cavmae; its table "
    "named after this command holds defaults.",
)


mode_option = click.option(
    "--mode", type=click.Choice(MODES), help="Modalities given. [default: as trained]"
)

criterion_option = click.option(
    "--criterion",
    type=click.Choice(CRITERIA),
    help="What the classifier was trained with: ce gives softmax, bce sigmoid probabilities. "
    "[default: as trained]",
)

labels_option = click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Class CSV of the checkpoint. [default: as stored in it]",
)

device_option = click.option(
    "--device", default=DeviceOptions.device, show_default=True, help="auto, cpu, cuda or cuda:N."
)

workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=WorkerOptions.workers,
    show_default=True,
    help="Loading processes; 0 loads in the training process.",
)

bad_samples_option = click.option(
    "--max-bad-samples",
    type=click.IntRange(min=0),
    default=SkipOptions.max_bad_samples,
    show_default=True,
    help="Unreadable samples that are skipped before the command gives up.",
)

val_split_option = click.option(
    "--val-split",
    "val_splits",
    multiple=True,
    metavar="NAME",
    help="Use clips of this split of --val-shards only; may be given several times.",
)

reading_options = _stack(
    click.option(
        "--classes",
        multiple=True,
        metavar="NAME",
        help="Use clips of this class (mid or name) only; may be given several times.",
    ),
    click.option(
        "--split",
        "splits",
        multiple=True,
        metavar="NAME",
        help="Use clips of this split of the manifest only; may be given several times.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=_READ.retries,
        show_default=True,
        help="Retries of a failed request for a shard behind a URL.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=_READ.timeout,
        show_default=True,
        help="Seconds such a request may take.",
    ),
    click.option(
        "--cache-dir",
        "cache",
        type=click.Path(),
        metavar="FOLDER",
        help="Local folder that keeps shards from a URL. [default: none]",
    ),
    click.option(
        "--cache-size",
        "cache_gb",
        type=click.FloatRange(min=0, min_open=True),
        default=_READ.cache_gb,
        show_default=True,
        help="GB in it, after which the shards not used for longest are deleted.",
    ),
)
