"""The options of avprep's commands, each stated once; `avprep.option` says how.

Imports nothing heavy: `--help` shows them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from avprep.errors import UserError
from avprep.kinds import FileKind
from avprep.option import Options, option
from avprep.processes import available_cores

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclass(frozen=True)
class DecodeOptions(Options):
    """How a video becomes `Media`."""

    frames: int = option(  # 0 leaves the video unread
        10, "Frames per clip, evenly spaced over its first 10 s.", at_least=1, also=(0,)
    )
    frame_size: int = option(224, "Width and height of a frame in pixels.", at_least=16)
    pixels: Literal["square", "stored"] = option(
        "square",
        "square: correct the shape of non-square pixels; stored: take them as they are, as "
        "published.",
    )
    sample_rate: int = 16000  # Hz, mono; what the front end of the models is made for
    channels: Literal["first", "mix"] = option(
        "first", "Mono from the first channel, as published, or from all of them."
    )
    missing_audio: Literal["fail", "silence", "omit"] = option(
        "fail", "What a clip without an audio stream becomes; omit: a sample without audio."
    )
    missing_video: Literal["fail", "omit"] = option(
        "fail", "What a clip without a video stream becomes; omit: a sample without frames."
    )
    decoder: Literal["auto", "pyav", "ffmpeg"] = option(
        "auto", "auto: PyAV, and ffmpeg + OpenCV for files that PyAV cannot read."
    )
    max_audio: float = option(30.0, "Seconds of sound to keep, from the clip's start.", at_least=1)
    incomplete: Literal["keep", "fail"] = option(
        "keep", "A clip whose file holds less than its head promises: keep it, or fail."
    )


@dataclass(frozen=True)
class SampleOptions(Options):
    """How a clip becomes the members of a sample."""

    decode: DecodeOptions = field(default_factory=DecodeOptions)
    audio: Literal["flac", "wav"] = option(
        "flac", "Both are lossless: flac is half the size, wav loads several times faster."
    )
    jpeg_quality: int = option(
        75, "Quality of the frames' JPEG files; 75 as published.", at_least=1, at_most=100
    )


@dataclass(frozen=True)
class PoolOptions(Options):
    """Who does the work."""

    workers: int = option(0, "Jobs at a time. [default: one per core]", at_least=0)
    backend: Literal["local", "loky", "dask", "ray"] = option(
        "local", "Work on this machine (loky is its old name), or on a dask or ray cluster."
    )
    address: str = option(
        "", "Address of a running dask scheduler or ray cluster. [default: a local one]"
    )

    def count(self) -> int:
        """Number of workers."""
        return self.workers or available_cores()

    @property
    def is_local(self) -> bool:
        """Whether the work is done on this machine by threads of this process."""
        return self.backend in ("local", "loky")

    def decoders(self, jobs: int) -> int:
        """Children of each of some jobs: workers here that have no job of their own help others."""
        return max(self.count() // max(jobs, 1), 1) if self.is_local else 1


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


class ByteSize(int):
    """A number of bytes."""

    @classmethod
    def parse(cls, text: str) -> ByteSize:
        """`500MB` → 500,000,000; also `1.5GB`, `256MiB`, and plain bytes.

        Raises:
            ValueError: not a size, or not above zero.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
        size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
        if size <= 0:
            raise ValueError("must be a size such as 500MB or 1GB")
        return cls(size)


@dataclass(frozen=True)
class IsolationOptions(Options):
    """Time, memory and space that one clip may take."""

    time_limit: float = option(120.0, "Seconds that one clip may take.", above=0)
    memory_limit: float = option(4.0, "GiB that decoding one clip may take.", at_least=0.25)
    scratch_size: ByteSize = option(
        ByteSize(10**9),
        "Space in TMPDIR for videos from archives and servers; a larger video fails. "
        "[default: 1GB]",
        above=0,
    )


@dataclass(frozen=True)
class ShardSetOptions(Options):
    """What a shard set is made of, apart from the manifest and the label set."""

    sample: SampleOptions = field(default_factory=SampleOptions)
    limits: IsolationOptions = field(default_factory=IsolationOptions)
    samples_per_shard: int | None = option(
        None, "Clips per shard. [default: 500, fewer for a set of under 4000]", at_least=1
    )
    seed: int = option(0, "Seed of the clips' order.")
    shard_bytes: ByteSize | None = option(
        None,
        "Bytes per shard instead, such as 1GB, estimated from the lengths of the clips.",
        flag="--shard-size",
        above=0,
    )

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or both ways to cut the clips into shards are given.
        """
        super().__post_init__()
        if self.shard_bytes is not None and self.samples_per_shard is not None:
            raise UserError("give --samples-per-shard or --shard-size, not both.")


@dataclass(frozen=True)
class Part:
    """The k-th of n equal parts of the shards."""

    k: int = 1
    n: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """`2/8` → the second of eight.

        Raises:
            UserError: not of the form k/n with 1 ≤ k ≤ n.
        """
        part, slash, parts = text.partition("/")
        if slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts):
            return cls(int(part), int(parts))
        raise UserError(f"--part {text!r}: give k/n with 1 ≤ k ≤ n, for example --part 3/16.")

    def __str__(self) -> str:
        return f"{self.k}/{self.n}"


@dataclass(frozen=True)
class BuildOptions(Options):
    """Which shards of a set one call builds."""

    part: Part = option(Part(), "Build only the k-th of n parts, as in --part 3/16.")
    retry_failed: bool = option(False, "Build shards with failed clips again.")
    track: tuple[TrackerName, ...] = option(
        (),
        "Tracker that also gets clips done, speed and failures by cause; may be given several "
        "times.",
    )


@dataclass(frozen=True)
class IndexOptions(Options):
    """What the members of a sample are in tars that other programs wrote."""

    out: Path | None = option(
        None, "Folder of the shard set, with links to the tars. [default: the folder of the tars]"
    )
    audio: str = option("flac", "Suffix of the sound: flac, wav, audio.wav …; empty if none.")
    frame: str = option(
        "{n}.jpg", "Suffix of the frames, {n} for their number; or of the only one; empty if none."
    )
    labels: str = option(
        "", "Where a sample's classes are: json:KEY, or a suffix such as cls or txt."
    )
    classes: Path | None = option(
        None, "Class CSV of these labels. [default: the sorted names are the classes]"
    )
    id: str = option("key", "The clips' names: the samples' keys, or json:KEY.")
    bad_samples: Literal["refuse", "skip"] = option(
        "refuse",
        "Incomplete, repeated, interleaved and unusable samples: an error, or left out and listed.",
    )


@dataclass(frozen=True)
class VerifyOptions(Options):
    """How thoroughly a shard set is checked, and what becomes of damage."""

    deep: bool = option(False, "Also decode all audio and images.")
    discard: bool = option(
        False,
        "Delete the indexes of damaged shards, and other damaged files, so that `avprep shard` "
        "makes them again.",
    )


@dataclass(frozen=True)
class GalleryOptions(Options):
    """How many clips a report shows, and which."""

    clips: int | None = option(
        None,
        "Clips in the gallery. [default: 32, or what --per-class asks for]",
        at_least=0,
    )
    per_class: int | None = option(
        None,
        "Clips of each class in the gallery. [default: as even as --clips allows]",
        at_least=1,
    )
    seed: int = option(0, "Seed of the choice of clips.")

    @property
    def most(self) -> float:
        """Clips in all."""
        if self.clips is None:
            return 32 if self.per_class is None else float("inf")
        return self.clips

    @property
    def kept(self) -> int:
        """Clips of each class that may be needed."""
        return int(min(self.most, self.most if self.per_class is None else self.per_class))


@dataclass(frozen=True)
class ReportOptions(Options):
    """What goes onto the page of a report."""

    gallery: GalleryOptions = field(default_factory=GalleryOptions)
    max_mb: float = option(
        15.0, "Size of the page; clips that would make it larger are left out.", above=0
    )
    failures: int = option(500, "Failed clips listed with details; all are counted.", at_least=0)
    title: str = option("", "Heading of the page. [default: the folder's name]")


@dataclass(frozen=True)
class FilterOptions(Options):
    """Which clips of a shard set are kept, and where that is written."""

    where: str = option(
        help="Condition on the measures that a clip must meet to be kept.", metavar="CONDITION"
    )
    out: Path = option(help="Selection to write: a CSV with the column video_id.")


@dataclass(frozen=True)
class DuplicateOptions(Options):
    """Which clips count as near-duplicates, and what is shown of them."""

    by: Literal["both", "picture", "sound", "either"] = option(
        "both", "What must be nearly the same; either: one of the two is enough."
    )
    pairs: int = option(
        24, "Pairs on the page: those across sets or splits, then the least alike.", at_least=0
    )
    max_mb: float = option(
        30.0, "Size of the page; pairs that would make it larger are left out.", above=0
    )


@dataclass(frozen=True)
class ManifestFile(Options):
    """The manifest that is written."""

    out: Path = option(help="Manifest to write: .json, .jsonl, .csv or .parquet.")


@dataclass(frozen=True)
class ManifestOutput(ManifestFile):
    """What is written of a data set, and how strict that is."""

    report: Path | None = option(
        None, "CSV of what matched and what did not. [default: M.report.csv beside M.json]"
    )
    bad_rows: Literal["refuse", "skip"] = option(
        "refuse", "Rows of the CSV that cannot be used: an error, or left out and reported."
    )
    strict: bool = option(
        False,
        "Write no manifest and end with exit code 1 if a clip is missing, a row is bad or a file "
        "cannot be used.",
    )

    @property
    def report_path(self) -> Path:
        """The report's file."""
        return self.report or self.out.with_suffix(".report.csv")


@dataclass(frozen=True)
class Sources(Options):
    """Where the files of a data set's clips are."""

    videos: tuple[str, ...] = option(
        (),
        "Folder, archive (.tar, .tar.gz, .tar.bz2, .tar.xz, .zip) or URL with the videos, or a "
        "pattern of these as in 'parts/*.tar.gz'. May be given several times.",
        metavar="PLACE",
    )
    extracted: Path | None = option(
        None, "Output of `avprep extract`: shards are packed from its audio/ and frames/."
    )
    trim: bool = option(
        False, "Files named by the id alone are whole videos: take the CSV's start and end."
    )

    @property
    def audio(self) -> tuple[Path, ...]:
        """The folders of extracted sound."""
        return (self.extracted / "audio",) if self.extracted else ()


@dataclass(frozen=True)
class PieceOptions(Options):
    """How long videos are cut into clips."""

    segment: float | None = option(
        None,
        "Cut every video into clips of this many seconds, named NAME_30_40. [default: no cut]",
        above=0,
    )
    stride: float | None = option(
        None, "Seconds from the start of a clip to the next. [default: --segment]", above=0
    )
    shortest: float = option(
        2.0, "Leave out the last clip of a video if it is shorter than this.", above=0
    )

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or does not go with another.
        """
        super().__post_init__()
        if self.segment is None and self.stride is not None:
            raise UserError("--stride needs --segment.")
        if self.segment is not None and self.segment < self.shortest:
            raise UserError(
                f"--segment {self.segment:g} is less than --shortest {self.shortest:g}: no clip "
                "would be long enough."
            )


@dataclass(frozen=True)
class LabelSource:
    """Which file beside a video has its classes."""

    file: str  # cls, txt or json: the suffix
    key: str = ""  # the field of a JSON object

    @classmethod
    def parse(cls, text: str) -> LabelSource:
        """`cls`, `txt`, or `json:FIELD`.

        Raises:
            UserError: not of this form.
        """
        file, colon, key = text.partition(":")
        if file not in ("cls", "txt", "json") or (file == "json") != bool(colon and key):
            raise UserError(
                f"--label-from {text!r}: give cls, txt or json:FIELD, for example json:category."
            )
        return cls(file, key)

    @property
    def suffix(self) -> str:
        """Of the file."""
        return f".{self.file}"

    def __str__(self) -> str:
        return f"{self.file}:{self.key}" if self.key else self.file


@dataclass(frozen=True)
class FileKinds(Options):
    """Which files of a folder are clips."""

    kinds: tuple[FileKind, ...] = option(
        (),
        "Take files of this kind; may be given several times. [default: videos; where there are "
        "none, audio files; else JPEG and PNG images]",
        flag="--kind",
    )


@dataclass(frozen=True)
class FolderOptions(FileKinds):
    """How the videos of a folder are listed, cut and labelled."""

    pieces: PieceOptions = field(default_factory=PieceOptions)
    csv: Path | None = option(
        None,
        "Take the classes not from the sub-folders but from this table (CSV, JSON lines, Parquet) "
        "with the columns path and label (or labels), and optionally split, start, and end or "
        "duration.",
    )
    label_from: LabelSource | None = option(
        None,
        "Take the classes not from the sub-folders but from a file beside each video, as in the "
        "tars of video2dataset: KEY.cls, KEY.txt (all its text), or a field of KEY.json.",
        metavar="cls|txt|json:FIELD",
    )
    labels: Path | None = option(
        None,
        "Class CSV: read if it exists, otherwise written from the sorted names. [default: "
        "M.classes.csv beside M.json]",
    )
    split: str = option(
        "",
        "Only this split: one of the folders train/, test/ … in DIR, or of the CSV's column. "
        "[default: all]",
    )
    extracted: Path | None = option(
        None,
        "Output of `avprep extract` for the same folder; shards are packed from its files.",
    )


@dataclass(frozen=True)
class AudioSetOptions(Options):
    """AudioSet's files."""

    segments: Path = option(help="Segments CSV, gzipped or not.")
    labels: Path = option(help="Class CSV: class_labels_indices.csv.")


@dataclass(frozen=True)
class VGGSoundOptions(Options):
    """VGGSound's files, and which rows of them are taken."""

    csv: Path = option(help="VGGSound's CSV, any release.")
    split: str = option("", "Only the rows of this split: train or test. [default: all]")
    labels: Path | None = option(
        None,
        "Class CSV: read if it exists, otherwise written from the CSV's sorted names. "
        "[default: VGGSound's 309 classes in their published order]",
    )


@dataclass(frozen=True)
class VGGSounderOptions(Options):
    """VGGSounder's files."""

    csv: Path = option(help="VGGSounder's CSV, a row per label of a clip.")
    labels: Path | None = option(
        None, "Class CSV. [default: VGGSound's 309 classes in their published order]"
    )


@dataclass(frozen=True)
class CheckOptions(Options):
    """What is checked of a manifest, and what is written about it."""

    labels: Path | None = option(
        None, "Class CSV. [default: M.classes.csv beside M.json, if it exists]"
    )
    check_files: bool = option(
        True,
        "Check the clips' files: they exist, are not empty, and differ.",
        flag="--files",
        off="--no-files",
    )
    counts: Path | None = option(None, "CSV to write: clips of each class.")
    report: Path | None = option(None, "CSV to write: every problem.")
    plot: Path | None = option(None, "PNG to write: clips of each class, as bars.")

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or the plot's name is not that of a PNG.
        """
        super().__post_init__()
        if self.plot is not None and self.plot.suffix != ".png":
            raise UserError(f"--plot {self.plot}: give a name that ends in .png.")


@dataclass(frozen=True)
class MergeOptions(Options):
    """How manifests are put together."""

    on_conflict: Literal["refuse", "first"] = option(
        "refuse", "A video_id with different contents: an error, or take the first."
    )


class Shares(dict[str, float]):
    """The share of each part, by its name."""

    @classmethod
    def parse(cls, text: str) -> Shares:
        """`train=0.8,test=0.2` → shares by name.

        Raises:
            UserError: not of this form.
        """
        shares = cls()
        for part in text.split(","):
            name, _, share = part.strip().partition("=")
            try:
                value = float(share)
            except ValueError:
                value = -1.0
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or not 0 < value < math.inf:
                raise UserError(
                    f"--parts {text!r}: {part.strip()!r} is not NAME=SHARE with a name of letters "
                    "and digits and a share above 0; for example train=0.9,test=0.1."
                )
            if name in shares:
                raise UserError(f"--parts {text!r}: {name!r} is named twice.")
            shares[name] = value
        if len(shares) < 2:
            raise UserError(f"--parts {text!r}: give at least two parts, as in train=0.9,test=0.1.")
        return shares


@dataclass(frozen=True)
class SplitOptions(Options):
    """How a manifest is divided."""

    parts: Shares = option(
        help="Parts and their shares, as in train=0.8,val=0.1,test=0.1 or train=8,val=1,test=1.",
        metavar="NAME=SHARE,…",
    )
    seed: int = option(0, "Seed of the split.")
    groups: Path | None = option(
        None,
        "CSV with the columns group and video_id, such as the duplicates.csv of `avprep "
        "duplicates`: the clips of a group stay together.",
    )


@dataclass(frozen=True)
class PerClassOptions(Options):
    """Which clips of a manifest are chosen."""

    per_class: int = option(help="Clips per class.", at_least=1)
    seed: int = option(0, "Seed of the choice.")


@dataclass(frozen=True)
class Digest:
    """The sha256 that a file must have."""

    file: str
    sha256: str  # hex

    @classmethod
    def parse(cls, text: str) -> Digest:
        """`FILE=HEX`.

        Raises:
            UserError: not of this form.
        """
        file, equals, sha256 = text.partition("=")
        if not equals:
            raise UserError(f"--sha256 {text!r}: give FILE=HEX, as in vggsound.csv=0123….")
        return cls(file, sha256)


@dataclass(frozen=True)
class FetchOptions(Options):
    """Which files of a data set are fetched, from where, and how patiently."""

    files: tuple[str, ...] = option(
        (), "Only this file. May be given several times. [default: all]", flag="--file"
    )
    base_url: str | None = option(None, "Fetch BASE_URL/FILE, from a mirror.")
    digests: tuple[Digest, ...] = option(
        (),
        "Digest that a file must have. May be given several times.",
        flag="--sha256",
        metavar="FILE=HEX",
    )
    timeout: float = option(
        30.0, "Seconds without a byte after which an attempt is given up.", above=0
    )
    retries: int = option(
        4, "Further attempts at a file, with a growing pause before each.", at_least=0
    )
    wait: float = 1.0  # seconds before the first of them; doubled each time


@dataclass(frozen=True)
class DemoDataOptions(Options):
    """The made-up videos."""

    train_clips: int = option(64, "Clips per class.", at_least=1)
    test_clips: int = option(12, "Clips per class.", at_least=1, also=(0,))
    seconds: float = option(1.5, "Length of a clip.", at_least=1)
    seed: int = option(0, "Seed of the random choices.")
