"""`cavmae retrieve`: does a sound find its picture, and a picture its sound?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from avprep import storage
from avprep.errors import UserError
from avprep.progress import OnProgress, ignore
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import joined_world
from cavmae.evaluation.arrays import ArraySpec, write_npz
from cavmae.evaluation.bootstrap import Figures, Interval, draw, intervals, mean_figure
from cavmae.evaluation.clips import Coverage, chosen_frames, listed_clips, share_counter
from cavmae.evaluation.features import check_modalities, pooled_features
from cavmae.evaluation.options import BootstrapOptions, RetrieveOptions
from cavmae.evaluation.ranking import MEMORY, RECALLS, Ranks, chance, rank_pairs
from cavmae.evaluation.retrieval_page import retrieval_page
from cavmae.evaluation.trained import OnNote, check_contrasts, load_trained
from cavmae.model import CAVMAE


@dataclass(frozen=True)
class RetrieveResult:
    """Retrieval in both directions, and how it was measured.

    Attributes:
        audio_to_image: the rank of each clip's own frame for its audio.
        image_to_audio: the rank of each clip's own audio for its frame.
        clips: number of clips compared.
        intervals: of the recalls in both directions, if a bootstrap was asked for.
        clips_unreadable: number of clips left out because they cannot be read.
        clips_lacking: number of clips left out because they lack a modality.
        coverage: which clips of the list are in the shard set, if a list was given.
        frames: numbers of the frames used of each clip.
        audio_frames: fbank rows used of each clip.
        checkpoint: the file of weights.
        is_pretrained: whether the model was trained to match sounds with images.
        options: which clips were compared, and how.
    """

    audio_to_image: Ranks
    image_to_audio: Ranks
    intervals: tuple[Mapping[str, Interval], Mapping[str, Interval]]
    clips: int
    clips_unreadable: int
    clips_lacking: int
    coverage: Coverage | None
    frames: tuple[int, ...]
    audio_frames: int
    checkpoint: Path
    is_pretrained: bool
    options: RetrieveOptions

    def facts(self) -> dict[str, Any]:
        """All figures by name, as `retrieval.json` has them."""
        options = self.options
        to_image, to_audio = self.intervals
        return {
            "audio_to_image": _figures(self.audio_to_image, to_image),
            "image_to_audio": _figures(self.image_to_audio, to_audio),
            "chance": _figures(chance(self.clips)),
            "clips": self.clips,
            "clips_unreadable": self.clips_unreadable,
            "clips_lacking": self.clips_lacking,
            "per_class": options.per_class,
            "seed": options.seed if options.per_class else None,
            "classes": options.classes,
            "splits": options.splits,
            **(self.coverage.facts() if self.coverage else {}),
            "frames": options.frames,
            "frame_numbers": self.frames,
            "audio_frames": self.audio_frames,
            "bootstrap": options.bootstrap,
            "checkpoint": str(self.checkpoint),
            "checkpoint_is_pretrained": self.is_pretrained,
        }


def _figures(ranks: Ranks, intervals: Mapping[str, Interval] = {}) -> dict[str, Any]:
    recalls = {f"recall_at_{k}": ranks.recall(k) for k in RECALLS}
    between = {f"{name}_interval": [one.low, one.high] for name, one in intervals.items()}
    return {**recalls, **between, "median_rank": ranks.median()}


def retrieve(
    options: RetrieveOptions,
    on_progress: OnProgress = ignore,
    on_note: OnNote = warnings.warn,
) -> RetrieveResult:
    """Measure retrieval on a shard set. Started on several ranks, they share the clips.

    Args:
        options: which model, on which clips, and what is written.
        on_progress: called with progress: the clips done.
        on_note: called with clips of the list that are not there, before the work begins.

    Returns:
        The whole result, on every rank.

    Raises:
        UserError: not a checkpoint, not a shard set, or they do not fit together.
        WorkFailed: too many clips cannot be read.
    """
    trained = load_trained(options.checkpoint, options.audio_frames)
    check_contrasts(trained)
    check_modalities(trained, options.modalities)
    shards = open_shards(options.shards, options, ())
    coverage = None
    if options.ids is not None:
        shards, coverage = listed_clips(shards, options.ids)
    shards = shards.having(options.modalities)
    if options.per_class:
        shards = per_class_subset(shards, options.per_class, options.seed)
    with joined_world(options.device, options.batch_size) as world:
        for note in coverage.notes() if coverage and world.is_main else ():
            on_note(note)
        trained = trained.to(world.device)
        count = share_counter(on_progress, world, shards)
        features = pooled_features(trained, shards, options, world, count)
        audio, image = (features.vectors[name].to(world.device) for name in options.modalities)
        ranks = rank_pairs(audio, image)
        result = RetrieveResult(
            *ranks,
            intervals=(recall_intervals(ranks[0], options), recall_intervals(ranks[1], options)),
            clips=len(features.index),
            clips_unreadable=features.unreadable,
            clips_lacking=shards.lacking,
            coverage=coverage,
            frames=tuple(chosen_frames(options.frames, shards.frames)),
            audio_frames=trained.model.config.audio_frames,
            checkpoint=trained.file,
            is_pretrained=isinstance(trained.model, CAVMAE),
            options=options,
        )
        if options.similarities is not None and world.is_main:
            ids = [shards.video_id(number) for number in features.index.tolist()]
            write_similarities(options.similarities, audio, image, ids)
    if options.out is not None and world.is_main:
        storage.make_folder(options.out)
        storage.write_json(options.out / "retrieval.json", result.facts())
        page = retrieval_page(
            shards,
            features,
            {"audio_to_image": result.audio_to_image, "image_to_audio": result.image_to_audio},
            options.queries,
            options.frames if isinstance(options.frames, int) else shards.frames // 2,
            str(result.checkpoint),
        )
        storage.write_atomic(options.out / "retrieval.html", page)
    return result


def recall_intervals(ranks: Ranks, options: BootstrapOptions) -> Mapping[str, Interval]:
    """Of draws of the queries; each looks for its answer among all clips, as it does here."""
    if not options.bootstrap:
        return {}
    found = {f"recall_at_{k}": ranks.found(k) for k in RECALLS}

    def figures(weights: Tensor) -> Figures:
        return {name: mean_figure(values, weights) for name, values in found.items()}

    return intervals(draw(len(ranks.better), options.bootstrap, options.bootstrap_seed, figures))


def write_similarities(
    path: Path, audio: Tensor, image: Tensor, video_ids: Sequence[str], memory: int = MEMORY
) -> None:
    """Write `similarity`, float32 [N, N], and `video_ids`, whole or not at all.

    Args:
        path: the .npz.
        audio: float32 [N, dim], l2-normalised, the rows of the matrix.
        image: float32 [N, dim], likewise, its columns.
        video_ids: of the clips.
        memory: bytes held at a time.
    """
    count = len(audio)
    rows = max(memory // (4 * count), 1)
    spec = {"similarity": ArraySpec((count, count), np.dtype(np.float32))}

    def blocks(name: str) -> Iterator[NDArray[np.float32]]:
        return ((audio[at : at + rows] @ image.T).cpu().numpy() for at in range(0, count, rows))

    storage.make_folder(path.parent)
    with storage.replacing(path) as file:
        write_npz(file, spec, blocks, {"video_ids": np.array(video_ids, np.str_)})


def per_class_subset(shards: ShardSet, count: int, seed: int) -> ShardSet:
    """At most `count` clips of each class, as the published retrieval sets were made (with 5).

    Which ones depends on the seed and on the clips' names alone, not on how they are sharded. A
    clip with several labels can be drawn for each of them and is in the subset once.

    Args:
        shards: what to draw from.
        count: clips per class.
        seed: of the drawing.
    """
    members: list[list[int]] = [[] for _ in range(shards.num_classes)]
    for number in sorted(range(len(shards)), key=shards.video_id):
        for label in shards.label_indices(number):
            members[label].append(number)
    chosen: set[int] = set()
    for label, numbers in enumerate(members):
        drawn = np.random.default_rng([seed, label]).permutation(len(numbers))[:count]
        chosen.update(numbers[place] for place in drawn)
    if not chosen:
        raise UserError(f"{shards.location}: its samples have no labels; leave --per-class out.")
    return shards.subset(sorted(chosen))
