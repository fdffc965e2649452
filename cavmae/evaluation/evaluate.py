"""`cavmae eval`: how good a classifier is, and on what that is measured."""

from __future__ import annotations

import csv
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

from avprep import storage
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.progress import OnProgress, ignore
from cavmae.checkpoints.usage import STORE_LABELS, assumed_classes, other_classes
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import joined_world
from cavmae.evaluation.classify import Classified, ClassifyOptions, classify_together
from cavmae.evaluation.clips import share_counter
from cavmae.evaluation.metrics import Scores, score
from cavmae.evaluation.options import EvaluateOptions, FrameChoice
from cavmae.evaluation.trained import Classifier, OnNote, load_classifier
from cavmae.options import Criterion, Mode, StatedUsage, modalities_of


@dataclass(frozen=True)
class EvaluateResult:
    """How good a classifier is, and on what that is measured.

    Attributes:
        scores: the figures; those of each class in the order of `labels`.
        each_frame: with frames="each", the figures of each frame alone.
        labels: the classes.
        clips: that were classified.
        clips_selected: of the shard set, with those that could not be read.
        clips_unreadable: left out.
        clips_lacking: not among those selected, because they lack a modality.
        clips_in_manifest: that the shard set was made of.
        clips_never_sharded: of those, the ones that could not be decoded.
        mode, criterion, frames, fbank_mean, fbank_std: how clips were classified.
        checkpoint: the file of weights.
        notes: what had to be assumed, in words.
    """

    scores: Scores
    each_frame: tuple[Scores, ...]
    labels: LabelSet
    clips: int
    clips_selected: int
    clips_unreadable: int
    clips_lacking: int
    clips_in_manifest: int
    clips_never_sharded: int
    mode: Mode
    criterion: Criterion
    frames: FrameChoice
    fbank_mean: float
    fbank_std: float
    checkpoint: Path
    notes: tuple[str, ...]


def evaluate(
    options: EvaluateOptions,
    recipe: StatedUsage = StatedUsage(),
    on_progress: OnProgress = ignore,
    on_note: OnNote = warnings.warn,
) -> EvaluateResult:
    """Measure a classifier on a shard set. Started on several ranks, they share the clips.

    Args:
        options: which classifier, on which clips, and how.
        recipe: what a recipe says of the classifier; what its file stores goes before.
        on_progress: hears of the clips done.
        on_note: hears of each assumption before the work begins.

    Returns:
        The whole result, on every rank.

    Raises:
        UserError: the checkpoint is not a classifier of this label set.
        WorkFailed: too many clips cannot be read.
    """
    if options.per_class_csv is not None:
        storage.make_folder(options.per_class_csv.parent)
    classifier = load_classifier(options.checkpoint, options, recipe)
    shards = open_shards(options.shards, options, modalities_of(classifier.usage.mode))
    notes = check_classes(classifier, shards)
    how = ClassifyOptions(
        mode=classifier.usage.mode,
        criterion=classifier.usage.criterion,
        frames=options.frames,
        batch_size=options.batch_size,
        workers=options.workers,
        max_bad_samples=options.max_bad_samples,
    )
    with joined_world(options.device) as world:
        for note in notes if world.is_main else ():
            on_note(note)
        classifier = classifier.to(world.device)
        count = share_counter(on_progress, world, shards)
        found = classify_together(classifier.model, classifier.frontend, shards, how, world, count)
    result = scored(found, classifier, shards, how, notes)
    if options.per_class_csv is not None and world.is_main:
        write_class_csv(options.per_class_csv, result)
    return result


def scored(
    found: Classified,
    classifier: Classifier,
    shards: ShardSet,
    how: ClassifyOptions,
    notes: tuple[str, ...],
) -> EvaluateResult:
    """The figures of classified clips, and on what they stand."""
    probabilities = found.probabilities
    each_frame: tuple[Scores, ...] = ()
    if how.frames == "each":
        each_frame = tuple(score(one, found.labels) for one in probabilities.swapaxes(0, 1))
        probabilities = probabilities.mean(axis=1)
    return EvaluateResult(
        scores=score(probabilities, found.labels),
        each_frame=each_frame,
        labels=shards.label_set,
        clips=len(found.index),
        clips_selected=len(shards),
        clips_unreadable=found.unreadable,
        clips_lacking=shards.lacking,
        clips_in_manifest=shards.info.clips,
        clips_never_sharded=shards.info.clips - shards.info.samples,
        mode=how.mode,
        criterion=how.criterion,
        frames=how.frames,
        fbank_mean=classifier.frontend.options.mean,
        fbank_std=classifier.frontend.options.std,
        checkpoint=classifier.file,
        notes=notes,
    )


def check_classes(classifier: Classifier, shards: ShardSet) -> tuple[str, ...]:
    """Compare a classifier's classes with those of a shard set; all that had to be assumed.

    Raises:
        UserError: they are not the same.
    """
    file, classes, labels = classifier.file, classifier.model.num_classes, classifier.labels
    if classes != shards.num_classes:
        raise UserError(
            f"{file}: classifies {classes} classes, {shards.location} has "
            f"{shards.num_classes}. Make manifest and shards with the classifier's class CSV "
            "(--labels)."
        )
    if labels is None:
        assumed = assumed_classes(file, shards.label_set, shards.location)
        return (*classifier.usage.notes, f"{assumed} {STORE_LABELS}")
    if odd := other_classes(labels, shards.label_set):
        raise UserError(
            f"{file}: was trained with another label set than {shards.location}'s: {odd}. Shard "
            "with the same --labels."
        )
    return classifier.notes("")


def write_class_csv(path: Path, result: EvaluateResult) -> None:
    """One line per class: index, mid, name, positives, average precision, AUC (empty: unknown)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "mid", "display_name", "positives", "average_precision", "auc"])
    labels = result.labels
    rows = zip(labels.mids, labels.names, result.scores.classes, strict=True)
    for index, (mid, name, one) in enumerate(rows):
        known = ["" if math.isnan(value) else value for value in (one.average_precision, one.auc)]
        writer.writerow([index, mid, name, one.positives, *known])
    storage.write_atomic(path, text.getvalue().encode())
