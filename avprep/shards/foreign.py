"""Tars of samples that other programs wrote: where the members of each sample lie in them.

Of a member only the header is read, and what follows in the same blocks: the head of a sound or
picture. JSON and class names are read whole.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from avprep.audio import SAMPLE_RATE, promised_samples, sound_format
from avprep.errors import UserError
from avprep.failures import ClipFailure
from avprep.images import jpeg_size
from avprep.options import IndexOptions
from avprep.shards.format import TAR_BLOCK, SampleEntry, room

# As webdataset cuts names: at the first dot behind the last slash.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
_READ = 1024  # bytes at a time: a header, and the head of what it announces
_PLAIN_FILE, _NO_FILE = b"0\0", b"123456"  # types of members; others change the next one


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    header: int  # first byte of its headers
    start: int  # of its content
    size: int
    head: bytes  # of its content


@dataclass(frozen=True)
class ForeignSample:
    """A sample as it lies in a tar; its labels are not numbered yet."""

    entry: SampleEntry
    labels: tuple[str, ...]
    frame_size: int | None  # pixels a side; None where it has no frames


@dataclass
class ForeignTar:
    """What was found in a tar.

    Attributes:
        path: of the file.
        size: bytes of it.
        samples: those that can be used, in order.
        problems: those that cannot, and why.
    """

    path: Path
    size: int
    samples: list[ForeignSample] = field(default_factory=list)
    problems: list[ClipFailure] = field(default_factory=list)


class _Problem(Exception):
    """A sample that cannot be used: the cause, and what was found."""


def scan_tar(path: Path, options: IndexOptions) -> ForeignTar:
    """Find the samples of a tar.

    Raises:
        UserError: it is compressed, not a tar, or cut short; or its sound is of a kind that
            training does not take.
    """
    with path.open("rb", buffering=0) as file:
        tar = ForeignTar(path, os.fstat(file.fileno()).st_size)
        seen: dict[str, set[str]] = {}
        for key, members in _grouped(_members(path, file.fileno(), tar.size)):
            suffixes = {suffix for suffix, _ in members}
            try:
                if key in seen:
                    raise _Problem("duplicate-id", _how_again(suffixes & seen[key]))
                if len(suffixes) < len(members):
                    raise _Problem("duplicate-id", "has members of the same name")
                tar.samples.append(_sample(file.fileno(), path, key, dict(members), options))
            except _Problem as problem:
                cause, what = problem.args
                detail = f"{path}: {members[0][1].name}: {what}"
                tar.problems.append(ClipFailure(key, str(path), "index", cause, detail))
            seen.setdefault(key, set()).update(suffixes)
    return tar


def _how_again(same: set[str]) -> str:
    if same:
        return "a sample of this key is there already"
    return "its sample is interleaved with others: members of a sample must lie together"


def _grouped(members: Iterator[Member]) -> Iterator[tuple[str, list[tuple[str, Member]]]]:
    """Runs of members with one key: the key, and each member with its suffix."""
    key, run = "", list[tuple[str, Member]]()
    for member in members:
        match = _NAME.fullmatch(member.name)
        if match is None:  # webdataset passes over it, too
            continue
        if match[1] != key and run:
            yield key, run
            run = []
        key = match[1]
        run.append((match[2].lower(), member))
    if run:
        yield key, run


def _sample(
    descriptor: int, path: Path, key: str, members: Mapping[str, Member], options: IndexOptions
) -> ForeignSample:
    """Raises:
    _Problem: it lacks something, or something in it cannot be read.
    UserError: its sound is of a kind that training does not take.
    """
    texts: dict[str, bytes] = {}

    def read(suffix: str) -> bytes:
        member = members.get(suffix)
        if member is None:
            raise _Problem("missing", f"has no .{suffix} beside it")
        if suffix not in texts:
            texts[suffix] = os.pread(descriptor, member.size, member.start)
        return texts[suffix]

    audio = members.get(options.audio) if options.audio else None
    if options.audio and (audio is None or not audio.size):
        raise _Problem("no-audio", f"has no .{options.audio} beside it (half a sample)")
    frames = _frames(members, options.frame)
    if options.frame and not frames:
        raise _Problem("no-frames", f"has no frame {options.frame} beside it (half a sample)")
    labels = _labels(options.labels, read)
    video_id = key if options.id == "key" else str(_field(options.id, read))
    stored = (members.get("json"), audio, *frames)
    first = min(member.header for member in members.values())
    last = max(member.start - TAR_BLOCK + room(member.size) for member in members.values())
    return ForeignSample(
        SampleEntry(
            key=key,
            video_id=video_id,
            offset=first,
            size=last - first,
            labels=(),
            num_samples=_num_samples(path, audio) if audio else 0,
            sizes=tuple(member.size if member else 0 for member in stored),
            starts=tuple(member.start - first if member else 0 for member in stored),
        ),
        labels,
        _frame_size(descriptor, frames[0]) if frames else None,
    )


def _frames(members: Mapping[str, Member], pattern: str) -> list[Member]:
    """The frames, by their number."""
    if not pattern:
        return []
    regex = re.compile(re.escape(pattern).replace(r"\{n\}", r"(\d+)"))
    found = [(regex.fullmatch(suffix), member) for suffix, member in members.items()]
    numbered = [
        (int(match[1]) if match.lastindex else 0, member) for match, member in found if match
    ]
    return [member for _, member in sorted(numbered, key=lambda pair: pair[0])]


def _frame_size(descriptor: int, frame: Member) -> int:
    """Raises:
    _Problem: it is not a square JPEG picture.
    """
    pixels = jpeg_size(frame.head) or jpeg_size(os.pread(descriptor, frame.size, frame.start))
    if pixels is None or pixels[0] != pixels[1]:
        what = "is not a JPEG picture" if pixels is None else "has {}x{} pixels".format(*pixels)
        raise _Problem("garbage", f"its frame {frame.name} {what}; training takes square JPEG")
    return pixels[0]


def _num_samples(path: Path, audio: Member) -> int:
    """Raises:
    UserError: it is not what training takes.
    """
    kind = sound_format(audio.head)
    if kind != (SAMPLE_RATE, 1):
        what = "is not FLAC or WAV" if kind is None else "has {} Hz and {} channels".format(*kind)
        raise UserError(
            f"{path}: {audio.name} {what}. Training takes FLAC or WAV with {SAMPLE_RATE} Hz and "
            "one channel: convert the sounds and write the tars again, or make shards of the "
            "videos with `avprep shard`."
        )
    samples = promised_samples(audio.head)
    if not samples:
        raise _Problem("garbage", f"its sound {audio.name} does not say how long it is")
    return samples


def _labels(source: str, read: Callable[[str], bytes]) -> tuple[str, ...]:
    """What a sample says of its classes: mids, names or numbers."""
    if not source:
        return ()
    value = _field(source, read)
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in values):
        raise _Problem(
            "garbage", f"its {source} is {value!r}, expected names or numbers of classes"
        )
    return tuple(str(one) for one in values if one != "")


def _field(source: str, read: Callable[[str], bytes]) -> Any:
    """`json:labels` → the value of a key; `cls` → the text of a member."""
    suffix, _, name = source.partition(":")
    try:
        text = read(suffix).decode()
        return json.loads(text)[name] if name else text.strip()
    except (ValueError, KeyError, TypeError) as error:
        raise _Problem("garbage", f"its {source} cannot be read ({error!r})") from None


def _members(path: Path, descriptor: int, end: int) -> Iterator[Member]:
    """The files of a tar, in order.

    Raises:
        UserError: it is compressed, not a tar, or cut short.
    """
    at = 0
    while at < end:
        data = os.pread(descriptor, _READ, at)
        if not at:
            _check_is_tar(path, data)
        if len(data) < TAR_BLOCK:
            raise _cut_short(path, at)
        if not data[0] and not any(data[:TAR_BLOCK]):
            return
        kind = data[156]
        if kind not in _PLAIN_FILE + _NO_FILE or data[124] >= 0x80:
            yield from _members_by_tarfile(path, at, end)
            return
        try:
            size = int(data[124:136].strip(b" \0") or b"0", 8)
        except ValueError:
            raise UserError(f"{path}: has a damaged header at byte {at}. Copy it again.") from None
        start = at + TAR_BLOCK
        if start + size > end:
            raise _cut_short(path, at)
        if kind in _PLAIN_FILE:
            name = data[:100].partition(b"\0")[0]
            if data[345] and data[257:265] == b"ustar\x0000":
                name = data[345:500].partition(b"\0")[0] + b"/" + name
            head = data[TAR_BLOCK : TAR_BLOCK + size]
            yield Member(name.decode("utf-8", "surrogateescape"), at, start, size, head)
            at += room(size)
        else:
            at = start
    if at > end:
        raise _cut_short(path, at)


def _members_by_tarfile(path: Path, begin: int, end: int) -> Iterator[Member]:
    """The same from a byte on, with long names and pax headers: Python's library knows all kinds.

    Raises: as `_members`.
    """
    with path.open("rb") as file:
        file.seek(begin)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.offset_data + member.size > end:
                        raise _cut_short(path, member.offset)
                    if member.isreg() and not member.issparse():
                        head = os.pread(
                            file.fileno(), min(member.size, _READ - TAR_BLOCK), member.offset_data
                        )
                        place = member.offset, member.offset_data, member.size
                        yield Member(member.name, *place, head)
        except tarfile.TarError as error:
            raise UserError(f"{path}: is damaged behind byte {begin} ({error}).") from error


def _check_is_tar(path: Path, data: bytes) -> None:
    for magic, program in _COMPRESSED.items():
        if data.startswith(magic):
            raise UserError(
                f"{path}: is compressed, so that no sample can be read by itself. Unpack it to a "
                f"plain tar first: {program} < {path.name} > {path.name.partition('.')[0]}.tar"
            )
    try:
        tarfile.TarInfo.frombuf(data[:TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise UserError(f"{path}: is not a tar ({error}).") from error


def _cut_short(path: Path, at: int) -> UserError:
    return UserError(
        f"{path}: is cut short: it ends within the member at byte {at}. Copy it again."
    )
