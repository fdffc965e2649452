"""Options of the commands that put a trained model to use, each stated once; see `avprep.option`.

Imports nothing heavy: `--help` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from avprep.errors import UserError
from avprep.option import Options, option
from avprep.options import DecodeOptions, IsolationOptions
from cavmae.options import (
    BOTH,
    DeviceOptions,
    MaskMode,
    Modality,
    Mode,
    PretrainOptions,
    ShardOptions,
    SkipOptions,
    StatedUsage,
    ValidationSplit,
    WorkerOptions,
)

OneResult = int | Literal["all", "middle"]  # frames that give one result per clip
FrameChoice = int | Literal["all", "each", "middle"]
Waveform = Literal["int16", "float32"]
VALIDATION_FRAMES: Literal["middle"] = "middle"  # of held-out clips, while a run trains
ScoreKind = Literal["probabilities", "logits"]
SCORE_FILES = (".npz", ".parquet", ".csv")
_CHECKPOINT = "Run or checkpoint file, or its URL; hf://org/name[@revision] on the hub."


@dataclass(frozen=True)
class BatchSize(Options):
    """How many clips are given to a model at once."""

    batch_size: int = option(32, "Clips per batch.", at_least=1)


@dataclass(frozen=True)
class LoadOptions(WorkerOptions, SkipOptions, BatchSize):
    """How clips are loaded."""


@dataclass(frozen=True)
class ReadingOptions(DeviceOptions, LoadOptions, ShardOptions, BatchSize):
    """Which clips of a shard set are used, how they are loaded, and where the model runs."""


@dataclass(frozen=True, kw_only=True)
class OnShards(Options):
    """The clips that a model is given."""

    shards: str = option(help="Folder or URL of the shard set.")


@dataclass(frozen=True, kw_only=True)
class OfCheckpoint(Options):
    """The model that is used."""

    checkpoint: str = option(help=_CHECKPOINT, metavar="PATH")


@dataclass(frozen=True, kw_only=True)
class ModelOnShards(OfCheckpoint, OnShards):
    """A trained model, and the clips it is given."""


@dataclass(frozen=True)
class ListedClips(Options):
    """Which clips are meant, of those that are there."""

    ids: Path | None = option(
        None,
        "Use only the clips of this list, and say which of them are missing: a CSV with a column "
        "video_id, or JSON.",
    )


@dataclass(frozen=True)
class BootstrapOptions(Options):
    """How sure figures are."""

    bootstrap: int = option(
        0, "Bootstrap draws for 95 % intervals, such as 1000; 0 for no intervals.", at_least=0
    )
    bootstrap_seed: int = option(0, "Seed of the draws.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Measured(StatedUsage, BootstrapOptions, ListedClips, ModelOnShards):
    """A classifier, what it is given of a clip, and what is written."""

    modes: Literal["one", "all"] = option(
        "one", "one (see --mode), or all that the model has, in one pass over the clips."
    )
    frames: FrameChoice = option(
        "all",
        "all (their probabilities are averaged), each (also one by one), middle, or a number.",
        at_least=0,
    )
    per_class_csv: Path | None = option(None, "Write one line per class.")
    scores: Path | None = option(
        None,
        "Write the scores of every clip, with ids and labels: .npz, .parquet or .csv. With --modes "
        "all the mode is added to the name: a.npz becomes a.audioonly.npz.",
    )
    vggsounder: Path | None = option(
        None,
        "VGGSounder's CSV: also evaluate on its clips and labels, by modality.",
    )
    score_kind: ScoreKind = option(
        "probabilities", "What --scores writes, averaged over a clip's frames."
    )

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or two options exclude each other.
        """
        super().__post_init__()
        if self.modes == "all" and self.mode is not None:
            raise UserError(f"--mode {self.mode} and --modes all exclude each other.")
        if self.ids is not None and self.vggsounder is not None:
            raise UserError("--ids and --vggsounder both say which clips are meant; give one.")
        if self.scores is not None and self.scores.suffix not in SCORE_FILES:
            raise UserError(f"{self.scores}: the name must end in {', '.join(SCORE_FILES)}.")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ReadingOptions, Measured):
    """What `evaluate` measures, and how."""


@dataclass(frozen=True)
class CompareOptions(BootstrapOptions):
    """Which clips of two files of scores are compared."""

    bootstrap: int = option(1000, "Draws of the clips.", at_least=1)
    common: bool = option(False, "Compare only the clips that are in both files.")


@dataclass(frozen=True, kw_only=True)
class Featured(OnShards):
    """Of which frames features are computed."""

    frames: OneResult = option(
        "middle", "middle, all (their features are averaged), or a frame's number.", at_least=0
    )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Whose features; each modality passes the model alone, and nothing is masked."""
        return BOTH


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(ReadingOptions, Featured):
    """How features are computed."""


@dataclass(frozen=True, kw_only=True)
class Ranked(BootstrapOptions, ListedClips, Featured, ModelOnShards):
    """Which clips are compared, and what is shown of them."""

    audio_frames: int | None = option(
        None,
        "fbank rows used of each clip, 10 ms each; positions are interpolated. "
        "[default: as trained]",
        at_least=16,
    )
    similarities: Path | None = option(
        None, "Write the similarity of every sound to every picture: .npz."
    )

    out: Path | None = option(
        None, "Folder for retrieval.json and retrieval.html. [default: print only]"
    )
    per_class: int = option(
        0, "Use at most N clips of each class (published: 5); 0 for all clips.", at_least=0
    )
    seed: int = option(0, "Seed of --per-class.")
    queries: int = option(8, "Queries shown on the page for each direction.", at_least=1)

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or the name of the similarities is not that of an npz.
        """
        super().__post_init__()
        if self.similarities is not None and self.similarities.suffix != ".npz":
            raise UserError(f"{self.similarities}: the name must end in .npz.")


@dataclass(frozen=True, kw_only=True)
class RetrieveOptions(FeatureOptions, Ranked):
    """What `retrieve` measures, and how."""


@dataclass(frozen=True, kw_only=True)
class HidingOptions(Options):
    """Which patches of a clip are hidden from the model."""

    mask_ratio: float = option(
        PretrainOptions.mask_ratio, "Share of patches hidden.", above=0, below=1
    )
    mask_mode: MaskMode = option(  # images are always unstructured
        "unstructured", "How audio patches are chosen."
    )
    seed: int = option(0, "Seed of the mask, which is the same for every clip.")


@dataclass(frozen=True, kw_only=True)
class Drawn(HidingOptions, ModelOnShards):
    """Which clips are drawn, and where."""

    checkpoint: str = option(help=f"Pretrained model. {_CHECKPOINT}", metavar="PATH")
    out: Path = option(help="Folder for the PNGs.")
    clips: int = option(8, "Clips to draw, the first of those selected.", at_least=1)
    video_ids: tuple[str, ...] = option(
        (), "Draw this clip instead; may be given several times.", flag="--video-id"
    )
    frame: int | Literal["middle"] = option("middle", "middle, or a frame's number.", at_least=0)
    norm_pix_loss: bool | None = option(
        None,
        "Whether the model predicts normalised patches. [default: as stored in the checkpoint]",
        off="--no-norm-pix-loss",
    )


@dataclass(frozen=True, kw_only=True)
class InpaintOptions(DeviceOptions, ShardOptions, Drawn):
    """What `inpaint` draws, and how."""


@dataclass(frozen=True, kw_only=True)
class OfModality(Featured):
    """Whose features are computed."""

    modality: Literal["both", "audio", "image"] = option(
        "both", "Whose features; each modality passes the model alone."
    )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return BOTH if self.modality == "both" else (self.modality,)


@dataclass(frozen=True, kw_only=True)
class Stored(OfModality, ModelOnShards):
    """What is stored of a clip."""

    out: Path = option(help="The file: .safetensors or .npz.")
    tokens: Literal["pooled", "patches"] = option(
        "pooled", "The mean over a clip's patches, or the feature of each patch."
    )
    dtype: Literal["float32", "float16"] = option("float32", "Type of the stored features.")

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or two options exclude each other.
        """
        super().__post_init__()
        if self.out.suffix not in (".safetensors", ".npz"):
            raise UserError(f"{self.out}: the name must end in .safetensors or .npz.")
        if self.frames == "all" and self.tokens == "patches":
            raise UserError(
                "--tokens patches: give one frame (--frames middle or a number), not all."
            )


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(FeatureOptions, Stored):
    """What `embed` stores, and how it is computed."""


@dataclass(frozen=True)
class VoteOptions(Options):
    """How neighbours vote."""

    neighbours: int = option(20, "Neighbours that vote; all if there are fewer.", at_least=1)
    temperature: float = option(
        0.07, "A vote weighs exp(cosine similarity / temperature).", above=0
    )


@dataclass(frozen=True, kw_only=True)
class Voted(VoteOptions, ValidationSplit, OfModality):
    """Which clips are classified, by which others."""

    modality: Literal["both", "audio", "image"] = option(
        "both", "Whose features; both averages their similarities."
    )
    val_shards: str | None = option(
        None, "Shard set to classify. [default: each clip of --shards by all others]"
    )

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or splits are chosen of a set that is not given.
        """
        super().__post_init__()
        self.check_set(self.val_shards)


@dataclass(frozen=True, kw_only=True)
class KnnOptions(FeatureOptions, Voted, ModelOnShards):
    """What `knn` measures, and how."""

    shards: str = option(help="Shard set whose labels are known.")


@dataclass(frozen=True)
class LinearOptions(Options):
    """How the linear classifier is fitted."""

    penalty: float = option(
        0.001,
        "Linear probe: factor of half the sum of squared weights, which is added to the mean loss.",
        at_least=0,
    )
    steps: int = option(
        200, "Linear probe: largest number of steps of the fit, each over all clips.", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(FeatureOptions, LinearOptions, Voted):
    """What `probe` measures, and how."""

    shards: str = option(help="Shard set whose labels are known.")
    val_shards: str = option(help="Shard set to classify.")
    seed: int = option(0, "Seed of the random weights beside each model.")
    label_splits: tuple[str, ...] = option(
        (),
        "Probe once more with the labels of this split of --shards only; features are then "
        "whitened by all of its clips. May be given several times.",
        flag="--label-split",
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(DeviceOptions, StatedUsage, OfCheckpoint):
    """How files are decoded and classified."""

    mode: Mode | None = option(
        None, "Modalities to use. [default: as trained, without those that a file lacks]"
    )
    use_frames: OneResult = option(
        "all",
        "all (their probabilities are averaged), middle, or a frame's number.",
        flag="--frames",
        at_least=0,
    )
    similarity: bool = option(
        False,
        "Also give the similarity of the sound to each frame, from -1 to 1. Use a pretrained "
        "model for this, which gives no labels.",
    )
    start: float | None = option(
        None, "Start of the segment, in seconds. [default: the beginning]", at_least=0
    )
    end: float | None = option(None, "End of the segment, in seconds. [default: the end]", above=0)
    workers: int = option(2, "Files decoded at a time.", at_least=1)
    decode: DecodeOptions = field(default_factory=DecodeOptions)  # frame_size: the model's
    limits: IsolationOptions = field(default_factory=IsolationOptions)

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or the segment is empty.
        """
        super().__post_init__()
        if self.end is not None and self.end <= (self.start or 0.0):
            raise UserError(f"--end {self.end:g} is not after --start {self.start or 0.0:g}.")


@dataclass(frozen=True)
class ExportOptions(StatedUsage):
    """What the exported program takes."""

    mode: Mode | None = option(None, "Modalities the program is given. [default: as trained]")
    waveform: Waveform = option("int16", "Type of the samples; float32 is in [-1, 1].")
