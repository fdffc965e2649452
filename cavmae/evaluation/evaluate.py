"""`cavmae eval`: how good a classifier is, and on what that is measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.csvfile import csv_bytes
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.progress import OnProgress, ignore
from cavmae.checkpoints.usage import STORE_LABELS, assumed_classes, other_classes
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import joined_world
from cavmae.evaluation.bootstrap import Interval, score_intervals
from cavmae.evaluation.classify import Classified, ClassifyOptions, classify_in_modes
from cavmae.evaluation.clips import Coverage, listed_clips, share_counter
from cavmae.evaluation.metrics import Scores, score
from cavmae.evaluation.options import EvaluateOptions, FrameChoice
from cavmae.evaluation.score_files import ClipScores, write_scores
from cavmae.evaluation.trained import Classifier, OnNote, load_classifier
from cavmae.evaluation.vggsounder import (
    Annotations,
    Figures,
    annotations_of,
    confusion,
    subset_figures,
)
from cavmae.options import Criterion, Mode, StatedUsage, frames_given, modalities_of_all


@dataclass(frozen=True)
class ModeResult:
    """How good a classifier is in one mode.

    Attributes:
        mode: what it is given of a clip.
        scores: the figures; those of each class in the order of the labels.
        each_frame: with frames="each", the figures of each frame alone.
        intervals: of `accuracy` and `map`, where a bootstrap was asked for.
        vggsounder: VGGSounder's figures, by subset of the clips and kind of truth, where asked for.
    """

    mode: Mode
    scores: Scores
    each_frame: tuple[Scores, ...]
    intervals: Mapping[str, Interval]
    vggsounder: Mapping[str, Mapping[str, Figures]]


@dataclass(frozen=True)
class EvaluateResult:
    """The figures of a classifier, and how they were measured.

    Attributes:
        modes: the figures of each mode; the first is the one it was trained in, or asked for.
        labels: the classes.
        clips: number of clips classified.
        clips_selected: number of clips selected from the shard set, including unreadable ones.
        clips_unreadable: number of clips left out because they cannot be read.
        clips_lacking: number of clips not selected because they lack a modality.
        clips_in_manifest: number of clips in the manifest of the shard set.
        clips_never_sharded: number of those that could not be decoded.
        coverage: which clips of the list are in the shard set, if a list was given.
        confusion: VGGSounder's `mu`, if all modes of a model of both modalities were measured.
        criterion, frames, fbank_mean, fbank_std: how clips were classified.
        stored_frames: number of frames per clip in the shard set.
        checkpoint: the file of weights.
        shards, fingerprint: the shard set, and its fingerprint.
        notes: what had to be assumed, in words.
    """

    modes: tuple[ModeResult, ...]
    labels: LabelSet
    clips: int
    clips_selected: int
    clips_unreadable: int
    clips_lacking: int
    clips_in_manifest: int
    clips_never_sharded: int
    coverage: Coverage | None
    confusion: Mapping[str, float]
    criterion: Criterion
    frames: FrameChoice
    stored_frames: int
    fbank_mean: float
    fbank_std: float
    checkpoint: Path
    shards: str
    fingerprint: str
    notes: tuple[str, ...]

    @property
    def mode(self) -> Mode:
        """The first mode."""
        return self.modes[0].mode

    @property
    def scores(self) -> Scores:
        """The figures of the first mode."""
        return self.modes[0].scores

    @property
    def each_frame(self) -> tuple[Scores, ...]:
        """The figures of each frame alone in the first mode."""
        return self.modes[0].each_frame


def evaluate(
    options: EvaluateOptions,
    recipe: StatedUsage = StatedUsage(),
    on_progress: OnProgress = ignore,
    on_note: OnNote = warnings.warn,
) -> EvaluateResult:
    """Measure a classifier on a shard set. Started on several ranks, they share the clips.

    Args:
        options: which classifier, on which clips, and how.
        recipe: what a recipe says about the classifier; what its file stores takes precedence.
        on_progress: called with progress: the clips done.
        on_note: called with each assumption, and with missing clips, before the work begins.

    Returns:
        The whole result, on every rank.

    Raises:
        UserError: the checkpoint is not a classifier of this label set.
        WorkFailed: too many clips cannot be read.
    """
    if options.per_class_csv is not None:
        storage.make_folder(options.per_class_csv.parent)
    classifier = load_classifier(options.checkpoint, options, recipe)
    modes = modes_of(classifier) if options.modes == "all" else (classifier.usage.mode,)
    shards = numbered_alike(classifier, open_shards(options.shards, options, ()))
    notes = check_classes(classifier, shards)
    coverage = None
    if (listed := options.ids or options.vggsounder) is not None:
        shards, coverage = listed_clips(shards, listed)
        notes = (*notes, *coverage.notes())
    shards = shards.having(modalities_of_all(modes))
    how = ClassifyOptions(
        mode=classifier.usage.mode,
        criterion=classifier.usage.criterion,
        frames=options.frames,
        batch_size=options.batch_size,
        workers=options.workers,
        max_bad_samples=options.max_bad_samples,
    )
    with joined_world(options.device, options.batch_size) as world:
        for note in notes if world.is_main else ():
            on_note(note)
        classifier = classifier.to(world.device)
        count = share_counter(on_progress, world, shards)
        found = classify_in_modes(
            classifier.model, classifier.frontend, shards, how, modes, world, count
        )
    result = _result(found, classifier, shards, how, coverage, notes, options)
    if world.is_main:
        _write_files(result, found, options)
    return result


def _result(
    found: Mapping[Mode, Classified],
    classifier: Classifier,
    shards: ShardSet,
    how: ClassifyOptions,
    coverage: Coverage | None,
    notes: tuple[str, ...],
    options: EvaluateOptions,
) -> EvaluateResult:
    first, *_ = found.values()
    annotations = None
    if options.vggsounder is not None:
        annotations = annotations_of(options.vggsounder, first.video_ids, shards.label_set)
    return EvaluateResult(
        modes=tuple(scored(mode, one, options, annotations) for mode, one in found.items()),
        labels=shards.label_set,
        clips=len(first.index),
        clips_selected=len(shards),
        clips_unreadable=first.unreadable,
        clips_lacking=shards.lacking,
        clips_in_manifest=shards.info.clips,
        clips_never_sharded=shards.info.clips - shards.info.samples,
        coverage=coverage,
        confusion=confusion_of(found, annotations),
        criterion=how.criterion,
        frames=how.frames,
        stored_frames=shards.frames,
        fbank_mean=classifier.frontend.options.mean,
        fbank_std=classifier.frontend.options.std,
        checkpoint=classifier.file,
        shards=options.shards,
        fingerprint=shards.info.fingerprint,
        notes=notes,
    )


def _write_files(
    result: EvaluateResult, found: Mapping[Mode, Classified], options: EvaluateOptions
) -> None:
    if options.per_class_csv is not None:
        write_class_csv(options.per_class_csv, result)
    for mode, one in found.items() if options.scores is not None else ():
        write_scores(score_file(options, mode), clip_scores(one, mode, result, options))


def modes_of(classifier: Classifier) -> tuple[Mode, ...]:
    """The modes that a classifier has weights for, the one it was trained in first."""
    trained = classifier.usage.mode
    return (trained, *(mode for mode in classifier.model.modes if mode != trained))


def scored(
    mode: Mode, found: Classified, options: EvaluateOptions, annotations: Annotations | None
) -> ModeResult:
    """The figures of classified clips."""
    each_frame: tuple[Scores, ...] = ()
    if options.frames == "each":
        frames = found.probabilities.swapaxes(0, 1)
        each_frame = tuple(score(one, found.labels) for one in frames)
    together = mean_probabilities(found)
    return ModeResult(
        mode,
        score(together, found.labels),
        each_frame,
        score_intervals(together, found.labels, options.bootstrap, options.bootstrap_seed)
        if options.bootstrap
        else {},
        subset_figures(together, annotations) if annotations is not None else {},
    )


def confusion_of(
    found: Mapping[Mode, Classified], annotations: Annotations | None
) -> Mapping[str, float]:
    """Of a model of both, which is given either alone as missing the other."""
    modes: tuple[Mode, ...] = ("multimodal", "missingaudioonly", "missingvideoonly")
    if annotations is None or any(mode not in found for mode in modes):
        return {}
    both, audio, image = (mean_probabilities(found[mode]) for mode in modes)
    return confusion(both, audio, image, annotations.truth("all"))


def mean_probabilities(found: Classified) -> NDArray[np.float64]:
    """[N, classes]: of each clip, over its frames."""
    each = found.probabilities
    return each.mean(axis=1) if each.ndim == 3 else each


def score_file(options: EvaluateOptions, mode: Mode) -> Path:
    """Where the scores of a mode are written."""
    assert options.scores is not None
    if options.modes == "one":
        return options.scores
    return options.scores.with_suffix(f".{mode}{options.scores.suffix}")


def clip_scores(
    found: Classified, mode: Mode, result: EvaluateResult, options: EvaluateOptions
) -> ClipScores:
    """The scores of clips, and how they were made."""
    is_logits = options.score_kind == "logits"
    return ClipScores(
        options.score_kind,
        tuple(found.video_ids),
        found.logits.astype(np.float64) if is_logits else mean_probabilities(found),
        found.labels > 0,
        result.labels,
        {
            "checkpoint": str(result.checkpoint),
            "shards": options.shards,
            "mode": mode,
            "frames": str(frames_given(mode, result.frames)),
            "criterion": result.criterion,
        },
    )


def numbered_alike(classifier: Classifier, shards: ShardSet) -> ShardSet:
    """A set with a part of the classes, as of a mixture it was trained on, numbered as all are."""
    labels, mids = classifier.labels, list(shards.label_set.mids)
    if labels is not None and 0 < len(mids) < len(labels) and labels.know_all(mids):
        return shards.relabelled(labels)
    return shards


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
    rows: list[list[object]] = [
        ["index", "mid", "display_name", "positives", "average_precision", "auc"]
    ]
    labels = result.labels
    classes = zip(labels.mids, labels.names, result.scores.classes, strict=True)
    for index, (mid, name, one) in enumerate(classes):
        known = ["" if math.isnan(value) else value for value in (one.average_precision, one.auc)]
        rows.append([index, mid, name, one.positives, *known])
    storage.write_atomic(path, csv_bytes(rows))
