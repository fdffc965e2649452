"""The shard format: what stands in `dataset.json`, in a shard's index, and in a sample's key.

    SHARDS/dataset.json              the shard set: label set, options, shards, totals
    SHARDS/shard-000000.tar          samples: KEY.json, KEY.flac, KEY.0.jpg … KEY.9.jpg
    SHARDS/shard-000000.index.json   byte range of every sample, and the clips that failed

Every field is described in docs/formats.md. This module imports nothing heavy: `cavmae` reads shard
sets with it.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from avprep import storage
from avprep.errors import UserError
from avprep.failures import ClipFailure
from avprep.shards.seal import is_sealed, sealed, unsealed
from avprep.storage.members import BLOCK as TAR_BLOCK
from avprep.storage.members import padded

FORMAT = "avprep-shards"
VERSION = 1
DATASET_FILE = "dataset.json"
PLAN_FILE = "plan.json"
INDEX_SUFFIX = ".index.json"
MODALITIES = ("audio", "image")  # that a sample may have; at least one

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_LONGEST_KEY = 80  # KEY.index suffixes must fit the 100 bytes of a tar header's name field


def sample_key(video_id: str) -> str:
    """The name of a sample inside a shard: dot-free and different for different ids.

    WebDataset cuts member names at the first dot, so bytes outside `[A-Za-z0-9_-]` become `=XX`
    (hex of the UTF-8 byte). A name too long for a tar header ends in a digest of the id instead.
    """
    raw = video_id.encode("utf-8", "surrogatepass")
    key = _UNSAFE.sub(lambda match: b"=%02X" % match.group()[0], raw).decode("ascii")
    if 0 < len(key) <= _LONGEST_KEY:
        return key
    # "==" never comes out of the escaping above, so no short key can look like this one.
    return f"{key[:40]}=={hashlib.sha256(raw).hexdigest()[:32]}"


def weigh_classes(counts: Iterable[int]) -> tuple[float, ...]:
    """The published weight of each class in balanced sampling, from its number of clips."""
    return tuple(1000.0 / (int(count) + 0.01) for count in counts)


class SampleFacts(TypedDict):
    """`KEY.json`: every sample has every key."""

    video_id: str
    labels: list[str]
    label_indices: list[int]
    sample_rate: int
    num_samples: int
    frame_times: list[float]
    source: str
    decoder: str
    segment: list[float]
    split: str
    complete: bool
    seconds_found: float
    seconds_promised: float
    audio_shortened: bool
    measures: dict[str, float | str]  # see `avprep.quality.measures`
    modalities: list[str]


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """Where one sample lies in its shard."""

    key: str
    video_id: str
    offset: int  # of the first byte of its first tar header
    size: int  # bytes of all its members, headers and padding included
    labels: tuple[int, ...]  # indices into the label set
    split: str = ""  # as the manifest names it
    num_samples: int = 0  # of its audio; 0 where whoever made the entry does not know
    complete: bool = True  # whether its source holds what it promises
    seconds_found: float = 0.0  # written for incomplete ones only
    seconds_promised: float = 0.0
    sizes: tuple[int, ...] = ()  # bytes of its JSON, audio (0: none), frames; () in old indexes
    starts: tuple[int, ...] = ()  # where each begins, from `offset`, in a tar of another program

    def to_dict(self) -> dict[str, Any]:
        """The fields for JSON; those that hold nothing of note are left out."""
        left_out = {"complete", "seconds_found", "seconds_promised"} if self.complete else set()
        left_out |= {name for name in ("split", "sizes", "starts") if not getattr(self, name)}
        return {name: getattr(self, name) for name in self.__slots__ if name not in left_out}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of the sample. An index that does not say is older than samples of one."""
        if not self.sizes:
            return MODALITIES
        has = (self.sizes[1] > 0, len(self.sizes) > 2)
        return tuple(name for name, is_there in zip(MODALITIES, has, strict=True) if is_there)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SampleEntry:
        """What `to_dict` gave, now or in an older version."""
        lists = {name: tuple(raw.get(name, ())) for name in ("labels", "sizes", "starts")}
        return cls(**{**raw, **lists})

    def span(self, audio: bool, frames: Iterable[int]) -> tuple[int, int]:
        """Where in the shard the bytes lie that hold some members: the first, and how many.

        All of the sample where the index does not say how large its members are.

        Args:
            audio: whether the audio is wanted.
            frames: the frames that are.
        """
        if not self.sizes:
            return self.offset, self.size
        wanted = [1] * audio + [2 + frame for frame in frames]
        if self.starts:
            first = min(self.starts[member] for member in wanted)
            last = max(self.starts[member] + self.sizes[member] for member in wanted)
            return self.offset + first, last - first
        rooms = [room(size) if size else 0 for size in self.sizes]
        first, last = min(wanted), max(wanted)
        return self.offset + sum(rooms[:first]), sum(rooms[first : last + 1])


@dataclass(frozen=True)
class ShardIndex:
    """`shard-NNNNNN.index.json`: what a shard holds, and which of its clips failed."""

    name: str  # of the tar file; also when it holds no sample and was not written
    fingerprint: str  # of the plan this shard belongs to
    bytes: int
    sha256: str
    seconds: float  # of audio in all samples
    samples: tuple[SampleEntry, ...]
    failures: tuple[ClipFailure, ...]

    def to_bytes(self) -> builtins.bytes:
        """UTF-8 JSON with a line per sample, the same bytes for the same content."""
        head = {name: getattr(self, name) for name in _HEAD}
        failures = [asdict(failure) for failure in self.failures]
        samples = [entry.to_dict() for entry in self.samples]
        return sealed({**head, "failures": failures, "samples": samples})

    @classmethod
    def from_bytes(cls, data: builtins.bytes, where: str) -> ShardIndex:
        """Parse an index.

        Raises:
            UserError: not an index of this format, or changed since it was written; `where` names
                the file in the message.
        """
        try:
            raw = unsealed(data)
            return cls(
                **_head_of(raw),
                samples=tuple(map(SampleEntry.from_dict, raw["samples"])),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{where}: not a shard index ({error!r}). Delete it and run `avprep shard` again "
                "to rebuild this shard."
            ) from error


@dataclass(frozen=True)
class ShardSummary:
    """What an index says about its shard as a whole: little, however many samples it has."""

    name: str
    fingerprint: str
    bytes: int
    sha256: str
    seconds: float  # of audio
    failures: tuple[ClipFailure, ...]
    samples: int
    class_counts: Mapping[int, int]  # samples by label index
    incomplete: int  # samples whose source holds less than it promises
    modalities: Mapping[str, int]  # samples that have each
    index_sha256: str  # of the index file itself

    @classmethod
    def from_bytes(cls, data: builtins.bytes) -> ShardSummary:
        """Summarise an index file.

        Raises:
            ValueError, KeyError, TypeError: it is damaged.
        """
        raw = unsealed(data)
        entries = raw["samples"]
        return cls(
            **_head_of(raw),
            samples=len(entries),
            class_counts=Counter(label for entry in entries for label in entry["labels"]),
            incomplete=sum(not entry.get("complete", True) for entry in entries),
            modalities=count_modalities(map(SampleEntry.from_dict, entries)),
            index_sha256=hashlib.sha256(data).hexdigest(),
        )


def count_modalities(entries: Iterable[SampleEntry]) -> dict[str, int]:
    """How many samples have each modality."""
    counts = Counter(name for entry in entries for name in entry.modalities)
    return {name: counts[name] for name in MODALITIES}


def added_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The same of several shards."""
    every = list(counts)
    return {name: sum(each[name] for each in every) for name in MODALITIES}


_HEAD = ("name", "fingerprint", "bytes", "sha256", "seconds")


def _head_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What an index says of the shard as a whole, but its samples."""
    failures = tuple(ClipFailure(**failure) for failure in raw["failures"])
    head = {name: raw[name] for name in _HEAD}
    return {**head, "seconds": float(raw["seconds"]), "failures": failures}


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One line of `dataset.json`'s list of shards."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class DatasetInfo:
    """`dataset.json`: what a reader needs to know before it opens a shard."""

    labels: tuple[tuple[str, str], ...]  # (mid, display name); position = label index
    options: Mapping[str, Any]
    tools: Mapping[str, str]
    shards: tuple[ShardInfo, ...]
    samples: int
    clips: int  # in the manifest: samples + failures
    seconds: float  # of audio
    failures: Mapping[str, int]  # clips by cause
    class_counts: tuple[int, ...]  # samples per label index
    fingerprint: str = ""
    incomplete: int = 0  # samples whose source holds less than it promises
    measures: tuple[str, ...] = ()  # what each shard's .measures.json holds; empty without these
    modalities: Mapping[str, int] = field(default_factory=dict)  # samples that have each
    files: Mapping[str, str] = field(default_factory=dict)  # sha256 of each further file
    extra: Mapping[str, Any] = field(default_factory=dict)  # "fbank", "weights", …

    def lacking(self) -> dict[str, int]:
        """How many samples lack a modality, of those that some lack."""
        found = {name: self.samples - count for name, count in self.modalities.items()}
        return {name: count for name, count in found.items() if count}

    @property
    def fbank_stats(self) -> tuple[float, float] | None:
        """(mean, std) of the fbank over the shard set, once `cavmae stats` has run."""
        stats = self.extra.get("fbank")
        return (float(stats["mean"]), float(stats["std"])) if stats else None

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """The sampling weight of each class, once `avprep weights --shards` has run."""
        stored = self.extra.get("weights")
        return tuple(stored["classes"]) if stored else None

    def to_bytes(self) -> bytes:
        """UTF-8 JSON, indented for people."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "samples": self.samples,
            "clips": self.clips,
            "seconds": self.seconds,
            "incomplete": self.incomplete,
            "modalities": dict(self.modalities),
            "failures": dict(self.failures),
            "options": dict(self.options),
            "tools": dict(self.tools),
            **self.extra,
            "labels": [{"mid": mid, "name": name} for mid, name in self.labels],
            "class_counts": list(self.class_counts),
            "measures": list(self.measures),
            "shards": [asdict(shard) for shard in self.shards],
            "files": dict(self.files),
        }
        return sealed(document, indent=1)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DatasetInfo:
        """What `to_bytes` wrote.

        Raises:
            KeyError, TypeError: something is missing, or of another type.
        """
        own = {one.name for one in fields(cls)}
        return cls(
            **{name: value for name, value in raw.items() if name in own and name not in _LISTS},
            labels=tuple((label["mid"], label["name"]) for label in raw["labels"]),
            shards=tuple(ShardInfo(**shard) for shard in raw["shards"]),
            class_counts=tuple(raw["class_counts"]),
            measures=tuple(raw.get("measures", ())),
            extra={name: value for name, value in raw.items() if name not in own | _FRAME},
        )


_LISTS = {"labels", "shards", "class_counts", "measures"}
_FRAME = {"format", "version", "digest"}


def read_dataset(location: str | Path) -> DatasetInfo:
    """Read `dataset.json` of the shard set in a folder or under a URL prefix.

    Raises:
        UserError: no such folder, no dataset.json in it, not one of this format, changed since it
            was written, or one that names files outside of the folder.
    """
    path = storage.join(location, DATASET_FILE)
    data = _dataset_bytes(location, path)
    try:
        raw = json.loads(data)
        if raw["format"] != FORMAT:
            raise UserError(f"{path}: format is {raw['format']!r}, expected {FORMAT!r}.")
        if raw["version"] > VERSION:
            raise UserError(
                f"{path}: format version {raw['version']}, this program reads up to {VERSION}. "
                "Upgrade avprep-cavmae."
            )
        if not is_sealed(data):
            raise UserError(
                f"{path}: its digest is not that of its content, so it has changed since it was "
                "written. `avprep verify --discard` on its folder deletes it, and the `avprep "
                "shard` command that built the set writes it again."
            )
        info = DatasetInfo.from_dict(raw)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a dataset.json of this format ({error!r}). Run `avprep shard` again."
        ) from error
    for name in (*(shard.name for shard in info.shards), *info.files):
        if not _is_file_name(name):
            raise UserError(
                f"{path}: names {name!r}, which is not the name of a file beside it. This was not "
                "written by `avprep shard`; do not use this shard set."
            )
    return info


def _dataset_bytes(location: str | Path, path: str) -> bytes:
    if not storage.is_url(location) and not Path(location).is_dir():
        raise UserError(f"{location}: no such folder. Give the folder that `avprep shard` wrote.")
    try:
        return storage.read_bytes(path)
    except FileNotFoundError:
        names = storage.list_names(location)
        tars = [name for name in names if name.endswith(".tar")]
        if not tars and PLAN_FILE not in names:
            raise UserError(
                f"{location}: not a shard set (no {DATASET_FILE}). Give the folder that "
                "`avprep shard` wrote."
            ) from None
        found = f"{len(tars)} .tar files but no {DATASET_FILE}" if tars else f"no {DATASET_FILE}"
        raise UserError(
            f"{location}: {found}, so this is not a finished shard set. Run "
            f"`avprep shard MANIFEST --out {location}` (again) to finish it."
        ) from None


def _is_file_name(name: Any) -> bool:
    """Whether a name leads to a file directly in the folder it is joined to, on any system."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def write_dataset(location: str | Path, info: DatasetInfo) -> None:
    """Write `dataset.json` whole or not at all."""
    storage.write_atomic(storage.join(location, DATASET_FILE), info.to_bytes())


def update_dataset(location: str | Path, **extra: Any) -> None:
    """Set keys of `DatasetInfo.extra` (such as `fbank` or `weights`) in `dataset.json`.

    Raises:
        UserError: see `read_dataset`; a damaged file does not get a fresh digest.
    """
    info = read_dataset(location)
    write_dataset(location, replace(info, extra={**info.extra, **extra}))


def shard_name(number: int) -> str:
    """The tar file of a shard that we build."""
    return f"shard-{number:06d}.tar"


def index_name(shard: str) -> str:
    """`shard-000000.tar` → `shard-000000.index.json`."""
    return shard.removesuffix(".tar") + INDEX_SUFFIX


def read_index(location: str | Path, shard: str) -> ShardIndex:
    """Read the index of one shard.

    Raises:
        UserError: it is missing or damaged.
    """
    path = storage.join(location, index_name(shard))
    try:
        return ShardIndex.from_bytes(storage.read_bytes(path), path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: missing. Copy shard sets with their .index.json files, or run "
            "`avprep shard` again to rebuild this shard."
        ) from None


def read_sample(location: str, shard: str, entry: SampleEntry) -> bytes:
    """The bytes of one sample, without reading the rest of its shard.

    Raises:
        OSError: the shard cannot be read.
    """
    path = storage.join(location, shard)
    if storage.is_url(path):
        return storage.read_range(path, entry.offset, entry.size)
    with Path(path).open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.size)


def room(size: int) -> int:
    """Bytes that a member of this size takes in a tar file, with its header and padding."""
    return TAR_BLOCK + padded(size)


def stored_members(
    entry: SampleEntry, data: bytes, begin: int, audio: str
) -> dict[str, memoryview]:
    """The members in a slice of a shard by the suffix that we give them, without copying.

    Args:
        entry: of the sample.
        data: the bytes of the sample, or of some of its members next to one another.
        begin: where in the shard they begin.
        audio: suffix of the audio.

    Raises:
        ValueError: see `split_members`.
    """
    if not entry.starts:
        return split_members(data, entry.key)
    names = ("json", audio, *(f"{number}.jpg" for number in range(len(entry.sizes) - 2)))
    view, members = memoryview(data), {}
    for name, start, size in zip(names, entry.starts, entry.sizes, strict=True):
        at = entry.offset + start - begin
        if size and at >= 0 and at + size <= len(data):
            members[name] = view[at : at + size]
    return members


def split_members(data: bytes, key: str) -> dict[str, memoryview]:
    """The members in a slice of the tar file, by suffix, without copying.

    Args:
        data: the bytes of a sample, or of some of its members next to one another.
        key: of the sample.

    Raises:
        ValueError: the slice is not a run of whole members of this sample; says where.
    """
    members: dict[str, memoryview] = {}
    view = memoryview(data)
    prefix = f"{key}.".encode()
    offset = 0
    while offset < len(data):
        name = data[offset : offset + 100].rstrip(b"\0")
        try:
            size = int(data[offset + 124 : offset + 136].rstrip(b"\0 "), 8)
        except ValueError:
            size = -1
        start = offset + TAR_BLOCK
        if size < 0 or start + size > len(data) or not name.startswith(prefix):
            raise ValueError(f"damaged at byte {offset} of the sample")
        members[name[len(prefix) :].decode("ascii", "replace")] = view[start : start + size]
        offset += room(size)
    return members
