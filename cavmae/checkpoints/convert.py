"""Checkpoints from one format to another, with what is known of a model besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from avprep import storage
from avprep.errors import UserError
from avprep.labels import LabelSet, read_label_csv
from cavmae.checkpoints import (
    model_of,
    read_weights,
    save_model,
    save_published,
    unused_names,
    weights_file,
)
from cavmae.checkpoints.resize import resized
from cavmae.checkpoints.usage import (
    Usage,
    check_mode,
    label_notes,
    labels_metadata,
    labels_of,
    usage_of,
)
from cavmae.checkpoints.vision_mae import from_vision_mae
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.options import AUDIO_MODES, ConvertOptions, StatedUsage

_OURS, _PUBLISHED = ".safetensors", ".pth"
_KEPT = ("fbank_mean", "fbank_std", "norm_pix_loss")


@dataclass(frozen=True)
class Converted:
    """A converted model.

    Attributes:
        file: the file written.
        model: the model in it.
        notes: what was left out or assumed, in words.
    """

    file: Path
    model: CAVMAE | CAVMAEClassifier
    notes: tuple[str, ...]


def convert(
    source: str | Path, target: str | Path, options: ConvertOptions | None = None
) -> Converted:
    """Convert a checkpoint. The suffixes determine the formats.

    Args:
        source: our safetensors, a run, or a published `.pth`.
        target: a `.safetensors` or `.pth`.
        options: what changes besides the format, and what is stored with a classifier.

    Raises:
        UserError: a tensor is missing, unexpected or of the wrong shape, or an option does not fit.
    """
    target, options = Path(target), options or ConvertOptions()
    labels = read_label_csv(options.labels) if options.labels is not None else None
    _check(target, options)
    file = weights_file(source)
    weights, metadata = read_weights(file)
    model: CAVMAE | CAVMAEClassifier
    notes: list[str] = []
    if options.vision_mae:
        model, metadata = from_vision_mae(weights, str(file), options.objective or "cav-mae"), {}
    else:
        model = model_of(weights, metadata, file)
        if unused := unused_names(weights):
            notes.append(f"{file}: {', '.join(unused)} not used, CAV-MAE has no class tokens.")
    if options.audio_frames or options.image_size:
        model = resized(model, options.audio_frames, options.image_size)
    kept = {name: metadata[name] for name in _KEPT if name in metadata}
    if isinstance(model, CAVMAEClassifier):
        usage = _usage(file, metadata, model, options)
        check_mode(file, usage.mode, model.modes)
        notes += usage.notes
        kept |= {"mode": usage.mode, "criterion": usage.criterion}
        if target.suffix == _PUBLISHED:
            notes.append(
                f"{target}: a .pth stores no mode, criterion or label set; use it with --mode "
                f"{usage.mode} --criterion {usage.criterion} --labels CSV."
            )
        else:
            stored, of_labels = _labels(file, metadata, model, labels)
            kept |= stored
            notes += of_labels
        if options.audio_only:
            model.drop_images()
    elif asked := _classifier_flags(options):
        raise UserError(f"{file}: {asked[0]} is for classifiers; this is a pretrained model.")
    storage.make_folder(target.parent)
    if target.suffix == _OURS:
        save_model(target, model, kept)
    else:
        save_published(target, model, options.module_prefix)
    return Converted(target, model, tuple(notes))


def _check(target: Path, options: ConvertOptions) -> None:
    """Raises UserError where the options contradict each other or the target's format."""
    if target.suffix not in (_OURS, _PUBLISHED):
        raise UserError(f"{target}: the name must end in {_OURS} or {_PUBLISHED}.")
    if target.suffix == _PUBLISHED and (asked := _classifier_flags(options)):
        raise UserError(
            f"{target}: {asked[0]} needs a {_OURS}; a .pth holds the tensors of whole models alone."
        )
    if options.objective and not options.vision_mae:
        raise UserError(f"--objective {options.objective}: give --vision-mae too.")
    if options.audio_only and options.mode not in (None, *AUDIO_MODES):
        raise UserError(
            f"--mode {options.mode}: with --audio-only, give {' or '.join(AUDIO_MODES)}."
        )


def _classifier_flags(options: ConvertOptions) -> list[str]:
    """The flags given that only a classifier has."""
    flags = {
        "--audio-only": options.audio_only,
        "--mode": options.mode,
        "--criterion": options.criterion,
        "--labels": options.labels,
    }
    return [flag for flag, value in flags.items() if value]


def _usage(
    file: Path, metadata: Mapping[str, str], model: CAVMAEClassifier, options: ConvertOptions
) -> Usage:
    mode = options.mode or ("audioonly" if options.audio_only else None)
    return usage_of(file, metadata, model.num_classes, StatedUsage(mode, options.criterion))


def _labels(
    file: Path, metadata: Mapping[str, str], model: CAVMAEClassifier, given: LabelSet | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The label set as it is stored, and what to say about it."""
    labels = labels_of(file, metadata, model.num_classes, given)
    notes = label_notes(file, metadata, labels, ", and neither does the result")
    return {} if labels is None else labels_metadata(labels), notes
