"""Options that the training commands share; each has its default from an options dataclass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from avprep.cli.arguments import did_you_mean, refuse_urls
from avprep.cli.flags import Flag
from avprep.errors import UserError
from cavmae.options import CRITERIA, MODES, ReadOptions
from cavmae.recipes import Expected, read_recipe
from cavmae.train.options import FIT, OptimOptions, Precision, TrainOptions

Command = TypeVar("Command", bound=Callable[..., Any])
_EXPECTED = f"{__name__}.expected"
_OPTIM, _TRAIN, _READ = OptimOptions(), TrainOptions(), ReadOptions()


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


class _AudioFrames(click.ParamType):
    """A number of fbank rows, or the word for as many as the clips need."""

    name = "audio frames"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        return FIT if value == FIT else click.IntRange(min=16).convert(value, param, ctx)


audio_frames_option = click.option(
    "--audio-frames",
    type=_AudioFrames(),
    metavar=f"ROWS|{FIT}",
    help="fbank rows the model takes, 10 ms each; fit: as many as 95 % of the clips need, at most "
    "1024. [default: 1024, or as --init]",
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
    "--device", default=_TRAIN.device, show_default=True, help="auto, cpu, cuda or cuda:N."
)

workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=_TRAIN.workers,
    show_default=True,
    help="Loading processes; 0 loads in the training process.",
)

bad_samples_option = click.option(
    "--max-bad-samples",
    type=click.IntRange(min=0),
    default=_TRAIN.max_bad_samples,
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

training_options = _stack(
    config_option,
    reading_options,
    click.option(
        "--epochs",
        type=click.IntRange(min=1),
        default=_TRAIN.epochs,
        show_default=True,
        help="Passes over the shard set.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=_TRAIN.batch_size,
        show_default=True,
        help="Samples per batch and process.",
    ),
    click.option(
        "--accumulate",
        type=click.IntRange(min=1),
        default=_TRAIN.accumulate,
        show_default=True,
        help="Batches per optimizer step.",
    ),
    click.option(
        "--lr",
        type=click.FloatRange(min=0),
        default=_OPTIM.lr,
        show_default=True,
        help="Learning rate.",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(["adam", "adamw"]),
        default=_OPTIM.optimizer,
        show_default=True,
        help="adam as published; adamw decouples the weight decay.",
    ),
    click.option(
        "--beta1",
        type=click.FloatRange(0, 1, max_open=True),
        default=_OPTIM.beta1,
        show_default=True,
        help="Adam's β1.",
    ),
    click.option(
        "--beta2",
        type=click.FloatRange(0, 1, max_open=True),
        default=_OPTIM.beta2,
        show_default=True,
        help="Adam's β2.",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(min=0),
        default=_OPTIM.weight_decay,
        show_default=True,
        help="Weight decay of the optimizer.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["multistep", "cosine"]),
        default=_OPTIM.schedule,
        show_default=True,
        help="multistep as published, or cosine to zero.",
    ),
    click.option(
        "--warmup-epochs",
        type=click.FloatRange(min=0),
        default=_OPTIM.warmup_epochs,
        show_default=True,
        help="Epochs over which the rate rises linearly.",
    ),
    click.option(
        "--decay-start",
        type=click.IntRange(min=1),
        default=_OPTIM.decay_start,
        show_default=True,
        help="multistep: epochs at the full rate.",
    ),
    click.option(
        "--decay-step",
        type=click.IntRange(min=1),
        default=_OPTIM.decay_step,
        show_default=True,
        help="multistep: epochs between decays after that.",
    ),
    click.option(
        "--decay-rate",
        type=click.FloatRange(min=0),
        default=_OPTIM.decay_rate,
        show_default=True,
        help="multistep: factor of each decay.",
    ),
    click.option(
        "--clip-grad",
        type=click.FloatRange(min=0),
        default=_OPTIM.clip_grad,
        show_default=True,
        help="Largest gradient norm; 0 for no limit.",
    ),
    click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default=_TRAIN.precision,
        show_default=True,
        help="Precision of the model's arithmetic; losses are always float32. tf32: float32, "
        "multiplied by NVIDIA's TensorFloat-32.",
    ),
    click.option(
        "--compile/--no-compile",
        default=_TRAIN.compile,
        show_default=True,
        help="Compile the transformer blocks (torch.compile).",
    ),
    click.option(
        "--activation-checkpointing/--no-activation-checkpointing",
        default=_TRAIN.activation_checkpointing,
        show_default=True,
        help="Recompute each block in the backward pass: less memory, more time.",
    ),
    click.option(
        "--parallel",
        type=click.Choice(["ddp", "fsdp"]),
        default=_TRAIN.parallel,
        show_default=True,
        help="Each process holds a replica (ddp) or a shard (fsdp) of weights and optimizer state.",
    ),
    click.option(
        "--ema",
        type=click.FloatRange(0, 1, max_open=True),
        default=_TRAIN.ema,
        show_default=True,
        help="Decay of an exponential average of the weights over steps; 0 for none.",
    ),
    click.option(
        "--average-epochs",
        type=click.IntRange(min=1),
        nargs=2,
        metavar="FIRST LAST",
        help="Average the weights after these epochs, counted from 1. [default: none]",
    ),
    workers_option,
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=_TRAIN.seed,
        show_default=True,
        help="Seed of everything random.",
    ),
    device_option,
    click.option(
        "--noise/--no-noise",
        default=True,
        show_default=True,
        help="Add noise to the fbank and rotate it in time.",
    ),
    click.option(
        "--checkpoint-steps",
        type=click.IntRange(min=0),
        default=_TRAIN.checkpoint_steps,
        show_default=True,
        help="Also save every N steps; 0 saves at epoch ends only.",
    ),
    click.option(
        "--checkpoint-minutes",
        type=click.FloatRange(min=0, min_open=True),
        default=_TRAIN.checkpoint_minutes,
        show_default=True,
        help="Also save when this many minutes have passed.",
    ),
    click.option(
        "--keep-checkpoints",
        type=click.IntRange(min=1),
        default=_TRAIN.keep_checkpoints,
        show_default=True,
        help="Checkpoints to keep: the newest; older ones are deleted.",
    ),
    click.option(
        "--log-steps",
        type=click.IntRange(min=0),
        default=_TRAIN.log_steps,
        show_default=True,
        help="Steps between log rows inside an epoch; 0 for none.",
    ),
    click.option(
        "--profile",
        type=click.IntRange(min=0),
        default=_TRAIN.profile,
        show_default=True,
        help="Write RUN/trace.json of this many steps, after the first five.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Do a few steps, print how long the run would take and what memory it needs, and "
        "write nothing to --out.",
    ),
    click.option("--json", "as_json", is_flag=True, help="With --dry-run: print one line of JSON."),
    bad_samples_option,
    click.option(
        "--resume",
        type=click.Choice(["auto", "never"]),
        default="auto",
        show_default=True,
        help="auto resumes from the newest checkpoint in --out; never refuses a used folder.",
    ),
)
