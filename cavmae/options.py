"""Options that data, training and evaluation share, each stated once; `avprep.option` says how.

Imports nothing heavy: `--help` shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from avprep.errors import UserError
from avprep.option import Options, option

Modality = Literal["audio", "image"]
BOTH: tuple[Modality, ...] = ("audio", "image")
Mode = Literal["multimodal", "audioonly", "videoonly", "missingaudioonly", "missingvideoonly"]
MODES: tuple[Mode, ...] = get_args(Mode)  # of a classifier: which modalities it is given
AUDIO_MODES: tuple[Mode, ...] = ("audioonly", "missingaudioonly")
IMAGE_MODES: tuple[Mode, ...] = ("videoonly", "missingvideoonly")
MODE_WORDS: dict[Mode, str] = {  # what a classifier is given, and as what it was trained
    "multimodal": "sound and picture",
    "audioonly": "sound only",
    "videoonly": "picture only",
    "missingaudioonly": "sound only, to a model of both",
    "missingvideoonly": "picture only, to a model of both",
}
Criterion = Literal["bce", "ce"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)  # sigmoid and softmax give probabilities
MaskMode = Literal["unstructured", "time", "freq", "tf"]
MASK_MODES: tuple[MaskMode, ...] = get_args(MaskMode)
AUDIO_FRAMES = 1024  # fbank rows of the published models, 10 ms each
Objective = Literal["cav-mae", "av-mae", "cav", "audio-mae", "image-mae"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)  # of pretraining


def modalities_of(mode: Mode) -> tuple[Modality, ...]:
    """What a classifier is given in a mode."""
    return ("audio",) if mode in AUDIO_MODES else ("image",) if mode in IMAGE_MODES else BOTH


def frames_given(mode: str, frames: str | int) -> str | int:
    """The frames that a classifier is given in a mode: the chosen ones, or "none"."""
    return "none" if mode in AUDIO_MODES else frames


def modalities_of_all(modes: Iterable[Mode]) -> tuple[Modality, ...]:
    """What a classifier is given in any of some modes."""
    given = {modality for mode in modes for modality in modalities_of(mode)}
    return tuple(modality for modality in BOTH if modality in given)


@dataclass(frozen=True)
class Selection(Options):
    """Which samples of a shard set are used; empty for all."""

    classes: tuple[str, ...] = option(
        (),
        "Use clips of this class (mid or name) only; may be given several times.",
        metavar="NAME",
    )
    splits: tuple[str, ...] = option(
        (),
        "Use clips of this split of the manifest only; may be given several times.",
        flag="--split",
        metavar="NAME",
    )
    select: Path | None = option(
        None, "Use only clips that this CSV names in its column video_id.", metavar="FILE"
    )


@dataclass(frozen=True)
class ReadOptions(Options):
    """How shards behind a URL are read. Local shards need none of it."""

    retries: int = option(
        6, "Retries of a failed request to a server or an object store.", at_least=0
    )
    timeout: float = option(30.0, "Seconds such a request may take.", above=0)
    cache: Path | None = option(
        None,
        "Local folder that keeps shards from a URL. [default: none]",
        flag="--cache-dir",
        metavar="FOLDER",
    )
    cache_gb: float = option(
        100.0,
        "GB in --cache-dir, above which the least recently used shards are deleted.",
        flag="--cache-size",
        above=0,
    )


@dataclass(frozen=True)
class ShardOptions(ReadOptions, Selection):
    """Which samples of a shard set are used, and how they are read."""


@dataclass(frozen=True)
class SkipOptions(Options):
    """How many unreadable samples a command endures."""

    max_bad_samples: int = option(
        10, "Unreadable samples that are skipped before the command gives up.", at_least=0
    )


@dataclass(frozen=True)
class WorkerOptions(Options):
    """Who loads the samples."""

    workers: int = option(2, "Loading processes; 0 loads in the main process.", at_least=0)


@dataclass(frozen=True)
class DeviceOptions(Options):
    """Where a model runs."""

    device: str = option("auto", "auto, cpu, cuda or cuda:N.")


@dataclass(frozen=True)
class ValidationSplit(Options):
    """Which samples of a second shard set are used."""

    val_splits: tuple[str, ...] = option(
        (),
        "Use clips of this split of --val-shards only; may be given several times.",
        flag="--val-split",
        metavar="NAME",
    )
    val_select: Path | None = option(
        None,
        "Use only clips of --val-shards that this CSV names in its column video_id.",
        metavar="FILE",
    )

    def check_set(self, val_shards: str | None) -> None:
        """Raises UserError where samples are chosen of a set that is not given."""
        for flag, chosen in (("--val-split", self.val_splits), ("--val-select", self.val_select)):
            if chosen and val_shards is None:
                raise UserError(f"{flag} chooses clips of --val-shards, which is not given.")


@dataclass(frozen=True)
class StatedUsage(Options):
    """What a person says of a classifier; None: as its file says."""

    mode: Mode | None = option(None, "Modalities given. [default: as trained]")
    criterion: Criterion | None = option(
        None,
        "What the classifier was trained with: ce gives softmax, bce sigmoid probabilities. "
        "[default: as trained]",
    )
    labels: Path | None = option(None, "Class CSV of the checkpoint. [default: as stored in it]")


@dataclass(frozen=True)
class LengthOptions(Options):
    """How much of each clip counts."""

    target_length: int = option(
        AUDIO_FRAMES, "fbank rows of each clip to measure; padding is left out.", at_least=1
    )


@dataclass(frozen=True)
class StatsOptions(SkipOptions, WorkerOptions, ShardOptions, LengthOptions):
    """Which samples' fbank is measured, and how they are read."""


@dataclass(frozen=True)
class FormatOptions(Options):
    """What a conversion does besides changing the format."""

    vision_mae: bool = option(False, "SRC is a vision MAE: make initial weights from it.")
    objective: Literal["cav-mae", "av-mae"] | None = option(
        None,
        "With --vision-mae: what the initial weights are for; cav, audio-mae and image-mae take "
        "those of cav-mae. [default: cav-mae]",
    )
    module_prefix: bool = option(
        True,
        "Names in a .pth begin with module., as in published files.",
        off="--no-module-prefix",
    )
    audio_frames: int | None = option(
        None,
        "Interpolate positions for clips of this many fbank rows. [default: as SRC]",
        at_least=16,
    )
    image_size: int | None = option(
        None,
        "Interpolate positions for images of this many pixels. [default: as SRC]",
        at_least=16,
    )
    audio_only: bool = option(False, "Leave the image weights of a classifier out.")


@dataclass(frozen=True)
class ConvertOptions(StatedUsage, FormatOptions):
    """How a checkpoint is converted; mode, criterion and labels are stored with a classifier."""


@dataclass(frozen=True)
class PushOptions(Options):
    """Where a model goes on the hub, and what its card says besides."""

    private: bool = option(False, "Make a new repository private.")
    revision: str | None = option(
        None, "Branch to push to, created if it does not exist. [default: main]", metavar="BRANCH"
    )
    license: str = option(
        "unknown", "Licence of the weights, by the hub's name for it, such as cc-by-4.0."
    )
    evaluations: tuple[Path, ...] = option(
        (),
        "File with the output of `cavmae eval --json` for these weights, for the card; may be "
        "given several times.",
        flag="--eval",
        metavar="FILE",
    )
    dry_run: Path | None = option(
        None, "Write the files to this folder and push nothing.", metavar="FOLDER"
    )


@dataclass(frozen=True)
class PretrainOptions(Options):
    """What the pretraining loss is made of."""

    mask_ratio: float = option(0.75, "Share of patches hidden from the encoder.", above=0, below=1)
    mask_mode: MaskMode = option(  # images are always unstructured
        "unstructured", "How audio patches are chosen."
    )
    mae_weight: float = option(
        1.0, "Weight of the reconstruction loss, if the objective has one.", at_least=0
    )
    contrast_weight: float = option(
        0.01, "Weight of the contrastive loss, if the objective has one.", at_least=0
    )
    contrast_scope: Literal["per-rank", "global"] = option(
        "per-rank",
        "Contrast within each process's batch, as published, or over all of them.",
    )
    bidirectional: bool = option(
        False, "Contrast image to audio as well as audio to image.", off="--one-direction"
    )
    norm_pix_loss: bool = option(
        True, "Reconstruct patches normalised one by one.", off="--no-norm-pix-loss"
    )


_LEAST_SHARE, _LARGEST_SHARE = 1e-6, 1e6
_NATURAL = "natural"


def read_shares(shards: str | Sequence[str]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """The shard sets that a run draws from, and their shares of the draws.

    Args:
        shards: one folder or URL; or several, each alone, as `A=0.7`, or as `A=natural`.

    Returns:
        The places; and their shares, of any sum, or None: in proportion to their samples.

    Raises:
        UserError: a share is wrong, or some sets have one and others do not.
    """
    if isinstance(shards, str):
        return (shards,), None
    found = [_split_share(text) for text in shards]
    shares = [share for _, share in found if share is not None]
    if shares and len(shares) < len(found):
        without = next(text for text, (_, share) in zip(shards, found, strict=True) if not share)
        raise UserError(
            f"--shards {without}: has no share of the draws, but others have. Give each set one, "
            "such as A=0.7, or none."
        )
    return tuple(place for place, _ in found), tuple(shares) or None


def _split_share(text: str) -> tuple[str, float | None]:
    place, mark, share = text.rpartition("=")
    if not mark or "/" in share or os.path.isdir(text):  # such as date=2026
        return text, None
    if share == _NATURAL:
        return place, None
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not place or not _LEAST_SHARE <= value <= _LARGEST_SHARE:
        raise UserError(
            f"--shards {text}: what follows the = is the set's share of the draws and must be "
            f"{_NATURAL} or a number above 0, such as 0.7 (1e-6 to 1e6). End a path that itself "
            "contains = with a /."
        )
    return place, value


class AudioFrames(int):
    """fbank rows of a model."""

    @classmethod
    def parse(cls, text: str) -> AudioFrames:
        """A number, or `fit`.

        Raises:
            UserError: something else.
        """
        if text == "fit":
            return FIT
        if text.isdecimal():
            return cls(text)
        raise UserError(f"--audio-frames {text!r}: give a number of fbank rows, or fit.")


FIT = AudioFrames(0)  # as many as the clips need
