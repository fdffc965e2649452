"""What a run starts from: its shards, the size and the weights of its model, its normalisation."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from avprep.errors import UserError
from avprep.labels import merge_label_sets
from avprep.tracking import check_trackers
from avprep.wording import lacking_words
from cavmae.checkpoints import config_of, init_from, read_metadata, read_weights, weights_file
from cavmae.checkpoints.usage import check_same_classes
from cavmae.data import Mixture, ShardSet, open_mixture, open_shards
from cavmae.distributed import World
from cavmae.evaluation.held_out import spread_subset
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import ModelConfig
from cavmae.model.config import PRESETS
from cavmae.model.encoder import Encoder
from cavmae.options import FIT, Criterion
from cavmae.train.events import Normalisation, Note, OnEvent, ignore
from cavmae.train.options import FinetuneRun, ModelOptions, ObjectiveOptions, PretrainRun, Run
from cavmae.train.outlook import fitting_rows, modalities_read

_SIZE = "base"  # of a model that neither --model nor --init tells the size of


@dataclass(frozen=True)
class Start:
    """What a run starts from, the same on every rank.

    Attributes:
        world: this process among its peers.
        tell: called with the run's events; on ranks other than the main one it does nothing.
        shards: that are trained on.
        validation: clips that the model is measured on.
        config: of the model.
        fbank: how inputs are normalised.
        criterion: of a classifier.
    """

    world: World
    tell: OnEvent
    shards: ShardSet | Mixture
    validation: ShardSet | None
    config: ModelConfig
    fbank: Normalisation
    criterion: Criterion = "bce"


def start_of(options: Run, world: World, on_event: OnEvent) -> Start:
    """Open and check what a run needs.

    Raises:
        UserError: inputs that do not fit together, or a tracker is not installed.
    """
    check_trackers(options.track)
    config = starting_config(options)
    check_objective(options, config)
    needed = modalities_read(options, config)
    is_classifier = isinstance(options, FinetuneRun)
    shards = open_mixture(options.shards, options, needed, labelled=is_classifier)
    validation: ShardSet | None = None
    criterion: Criterion = "bce"
    if options.val_shards is not None:
        chosen = dataclasses.replace(options, splits=options.val_splits, select=options.val_select)
        validation = open_shards(options.val_shards, chosen, needed)
    if isinstance(options, FinetuneRun):
        assert validation is not None
        validation = with_classes_of(shards, validation)
        criterion = choose_criterion(shards, options.criterion)
    elif validation is not None:
        validation = spread_subset(validation, options.val_clips)
    config = fitted(config, options, shards)
    if "image" in needed:
        for each in filter(None, (*shards.sets, validation)):
            check_frames(each, config)
    fbank = choose_normalisation(shards, options.init)
    tell = on_event if world.is_main else ignore
    for each in filter(None, (*shards.sets, validation)):
        if each.lacking:
            tell(Note(f"{each.location}: {lacking_words(each.lacking)}"))
    return Start(world, tell, shards, validation, config, fbank, criterion)


def facts_of(options: Run, start: Start) -> dict[str, Any]:
    """What the options came to, by their names, and what else results depend on."""
    shards = start.shards
    is_balanced = isinstance(options, FinetuneRun) and options.balanced
    weights = b"".join(each.class_weights.tobytes() for each in shards.sets) if is_balanced else b""
    facts: dict[str, Any] = {
        "model": size_name(start.config) or "custom",
        "objective": start.config.objective,
        "audio_frames": start.config.audio_frames,
        "shards_fingerprint": each_of(shards, lambda each: each.info.fingerprint),
        "selected_sha256": (
            each_of(shards, lambda each: each.rows_sha256) if options.select else None
        ),
        "class_weights_sha256": hashlib.sha256(weights).hexdigest() if weights else None,
        "fbank_mean": start.fbank.mean,
        "fbank_std": start.fbank.std,
        "global_batch": options.batch_size * options.accumulate * start.world.size,
    }
    if isinstance(shards, Mixture):
        facts["shares"] = shards.shares.tolist()
    if isinstance(options, FinetuneRun):
        assert start.validation is not None
        validation = start.validation
        facts["val_shards_fingerprint"] = validation.info.fingerprint
        facts["val_selected_sha256"] = validation.rows_sha256 if options.val_select else None
        facts["criterion"] = start.criterion
    elif start.config.contrasts and options.contrast_weight:
        facts["contrasted_clips"] = contrasted_clips(options, start.world)
    return facts


def each_of(shards: ShardSet | Mixture, fact: Callable[[ShardSet], str]) -> str | list[str]:
    """What is known of a shard set, or a list of that of each set of a mixture."""
    found = list(map(fact, shards.sets))
    return found if isinstance(shards, Mixture) else found[0]


def contrasted_clips(options: PretrainRun, world: World) -> int:
    """Clips among which each image looks for its sound."""
    return options.batch_size * (world.size if options.contrast_scope == "global" else 1)


def size_name(config: ModelConfig) -> str | None:
    """The named size whose encoder a model has, if there is one."""
    fields = ("embed_dim", "depth", "modality_depth", "num_heads", "mlp_ratio", "patch_size")
    for name, preset in PRESETS.items():
        preset = preset.with_objective(config.objective)
        if all(getattr(preset, field) == getattr(config, field) for field in fields):
            return name
    return None


def starting_config(options: ModelOptions) -> ModelConfig:
    """Size and objective of the model: those of --init, else the named ones.

    Args:
        options: size, rows, objective and initial weights.

    Raises:
        UserError: --audio-frames, --model or --objective disagree with --init.
    """
    rows = options.audio_frames
    asked = options.objective if isinstance(options, ObjectiveOptions) else None
    if options.init is None:
        config = ModelConfig.preset(options.model or _SIZE)
        config = config.with_objective(asked or config.objective)
        if rows in (None, FIT):
            return config
        return dataclasses.replace(config, audio_frames=int(rows))
    file = weights_file(options.init)
    metadata = read_metadata(file)
    if "config" in metadata:
        config = ModelConfig.from_json(metadata["config"])
    else:
        config = config_of(read_weights(file)[0], file)
    if rows not in (None, FIT, config.audio_frames):
        raise UserError(f"--audio-frames {rows}: {file} was trained with {config.audio_frames}.")
    if options.model not in (None, size_name(config)):
        raise UserError(
            f"--model {options.model}: {file} is {size_name(config) or 'of another size'}. "
            "Leave --model out, and it is that of --init."
        )
    if asked in (None, config.objective):
        return config
    if config.objective != "cav-mae" or asked == "av-mae":
        raise UserError(
            f"--objective {asked}: {file} was pretrained as {config.objective}, which lacks "
            f"weights of {asked}. Start from a vision MAE (`cavmae convert --vision-mae "
            f"--objective {'av-mae' if asked == 'av-mae' else 'cav-mae'}`) or without --init."
        )
    return config.with_objective(asked)


def fitted(config: ModelConfig, options: ModelOptions, shards: ShardSet | Mixture) -> ModelConfig:
    """With as many fbank rows as the clips need, where that is asked for and rows may be chosen."""
    if options.audio_frames != FIT or options.init is not None or "audio" not in config.modalities:
        return config
    return dataclasses.replace(config, audio_frames=fitting_rows(shards, config))


def check_objective(options: Run, config: ModelConfig) -> None:
    """Raises UserError where a model cannot be trained as asked."""
    if isinstance(options, FinetuneRun):
        if options.mode not in config.modes:
            raise UserError(
                f"--mode {options.mode}: {options.init} was pretrained as {config.objective}; give "
                f"--mode {config.modes[0]}."
            )
        return
    has_loss = (
        config.reconstructs and options.mae_weight,
        config.contrasts and options.contrast_weight,
    )
    if not any(has_loss):
        wanted = "--mae-weight" if config.reconstructs else "--contrast-weight"
        raise UserError(
            f"--objective {config.objective} has no loss with a weight: give {wanted} above 0."
        )


def check_frames(shards: ShardSet, config: ModelConfig) -> None:
    """Raises UserError where the stored frames have another size than the model takes."""
    if shards.frame_size != config.image_size:
        raise UserError(
            f"{shards.location}: frames are {shards.frame_size} pixels, the model takes "
            f"{config.image_size}."
        )


def with_classes_of(shards: ShardSet | Mixture, validation: ShardSet) -> ShardSet:
    """The validation clips, their classes numbered as those that are trained on.

    Raises:
        UserError: a classifier cannot be trained and validated on these sets.
    """
    for each in shards.sets:
        if not each.num_classes or not sum(each.class_counts):
            raise UserError(
                f"{each.location}: its samples have no labels. Finetuning needs a manifest with "
                "classes."
            )
    if not isinstance(shards, Mixture):
        check_same_classes(shards, validation)
        return validation
    merged = merge_label_sets((each.location, each.label_set) for each in (shards, validation))
    if new := merged.mids[len(shards.label_set) :]:
        raise UserError(
            f"{validation.location}: has the class {new[0]!r}, which none of {shards.location} "
            "has. Validate on classes that are trained."
        )
    return validation.relabelled(merged)


def choose_normalisation(shards: ShardSet | Mixture, init: str | None) -> Normalisation:
    """What `cavmae stats` has measured on the shards, else that of --init, else AudioSet's."""
    stored = read_metadata(init) if init is not None else {}
    trained = None
    if {"fbank_mean", "fbank_std"} <= stored.keys():
        trained = float(stored["fbank_mean"]), float(stored["fbank_std"])
    if shards.fbank_stats is not None:
        source = f"measured on {shards.location}"
        if isinstance(shards, Mixture):
            source += ", by their shares"
        if trained is not None and trained != shards.fbank_stats:
            mean, std = trained
            source += f"; warning: {init} was trained with {mean:.4g} and {std:.4g}"
        return Normalisation(*shards.fbank_stats, source)
    missing = " + ".join(each.location for each in shards.sets if each.fbank_stats is None)
    unmeasured = f"since `cavmae stats` has not measured {missing}"
    if trained is not None:
        return Normalisation(*trained, f"as {init} was trained, {unmeasured}")
    return Normalisation(
        FrontEndOptions.mean, FrontEndOptions.std, f"those of AudioSet, {unmeasured}"
    )


def choose_criterion(shards: ShardSet | Mixture, asked: Criterion | Literal["auto"]) -> Criterion:
    """`auto` is cross-entropy where every clip has exactly one label."""
    if asked != "auto":
        return asked
    single = all(len(shards.label_indices(number)) == 1 for number in range(len(shards)))
    return "ce" if single else "bce"


def load_init(model: Encoder, options: Run, start: Start) -> None:
    """Give a model the weights of --init, if it is given, and tell how many there were.

    Raises:
        UserError: they do not fit.
    """
    if options.init is None:
        return
    labels, where = None, ""
    if isinstance(options, FinetuneRun):
        labels, where = start.shards.label_set, start.shards.location
    report = init_from(model, options.init, labels, where)
    for note in report.notes:
        start.tell(Note(note, is_warning=True))
    start.tell(
        Note(
            f"{options.init}: {report.loaded} tensors loaded, {len(report.unexpected)} not used, "
            f"{len(report.missing)} tensors of the model stay random"
        )
    )


def front_end(options: Run, start: Start) -> FrontEnd:
    """The front end of a run, on its device."""
    if "audio" in modalities_read(options, start.config):
        start.tell(start.fbank)
    changes = {}
    if isinstance(options, FinetuneRun):
        changes = {n: getattr(options, n) for n in ("freq_mask", "time_mask", "label_smooth")}
    return FrontEnd(
        FrontEndOptions(
            target_length=start.config.audio_frames,
            mean=start.fbank.mean,
            std=start.fbank.std,
            noise=options.noise,
            **changes,
        )
    ).to(start.world.device)
