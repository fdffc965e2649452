"""Tars of samples that other programs wrote: where the members of each sample lie in them.

Read are the headers, the heads of each sample's sound and first picture, and all of its JSON and
class name.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from avprep.audio import SAMPLE_RATE, promised_samples, sound_format
from avprep.errors import UserError
from avprep.failures import ClipFailure
from avprep.images import jpeg_size
from avprep.kinds import VIDEO_SUFFIXES
from avprep.options import IndexOptions
from avprep.shards.format import TAR_BLOCK, SampleEntry
from avprep.storage.members import FOLDER, TarMember, compression_of, padded, tar_members

_HEAD = 512  # bytes of a sound or picture that say what it is
# Bytes read at a time: of headers with little between them, and of others.
_MANY, _FEW, _NEAR = 1 << 16, TAR_BLOCK, 1 << 13


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
        return "another sample has this key"
    return "its sample is interleaved with others: members of a sample must lie together"


def _grouped(members: Iterator[TarMember]) -> Iterator[tuple[str, list[tuple[str, TarMember]]]]:
    """Runs of members with one key: the key, and each member with its suffix.

    As webdataset does, names are cut at the first dot after the last slash.
    """
    key, run = "", list[tuple[str, TarMember]]()
    for member in members:
        name = member.name
        folder = name.rfind("/") + 1
        dot = name.find(".", folder)
        if not folder < dot < len(name) - 1:  # webdataset passes over it, too
            continue
        if name[:dot] != key and run:
            yield key, run
            run = []
        key = name[:dot]
        run.append((name[dot + 1 :].lower(), member))
    if run:
        yield key, run


def _sample(
    descriptor: int, path: Path, key: str, members: Mapping[str, TarMember], options: IndexOptions
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

    for suffix, member in members.items():
        if member.fault and _is_used(suffix, options):
            raise _Problem(member.fault.cause, f"its {member.name} {member.fault.detail}")
    audio = members.get(options.audio) if options.audio else None
    if options.audio and (audio is None or not audio.size):
        if any(f".{suffix}" in VIDEO_SUFFIXES for suffix in members):
            raise UserError(
                f"{path}: {key} is a video, and `avprep index` takes sound and pictures. Make "
                f"shards of the videos: `avprep manifest folder '{path.parent}/*.tar' --out "
                "m.json`, then `avprep shard m.json --out SHARDS`."
            )
        raise _Problem("no-audio", f"has no .{options.audio} beside it (half a sample)")
    frames = _frames(members, options.frame)
    if options.frame and not frames:
        raise _Problem("no-frames", f"has no frame {options.frame} beside it (half a sample)")
    labels = _labels(options.labels, read)
    video_id = key if options.id == "key" else _id(options.id, read)
    stored = (members.get("json"), audio, *frames)
    in_order = list(members.values())
    first, last = in_order[0].begin, in_order[-1].start + padded(in_order[-1].size)
    return ForeignSample(
        SampleEntry(
            key=key,
            video_id=video_id,
            offset=first,
            size=last - first,
            labels=(),
            num_samples=_num_samples(descriptor, path, audio, options) if audio else 0,
            sizes=tuple(member.size if member else 0 for member in stored),
            starts=tuple(member.start - first if member else 0 for member in stored),
        ),
        labels,
        _frame_size(descriptor, frames[0]) if frames else None,
    )


def _is_used(suffix: str, options: IndexOptions) -> bool:
    texts = (source.partition(":")[0] for source in (options.labels, options.id))
    return suffix in ("json", options.audio, *texts) or _frame_number(suffix, options.frame) >= 0


def _frames(members: Mapping[str, TarMember], pattern: str) -> list[TarMember]:
    """The frames, by their number.

    Raises:
        _Problem: one has no content.
    """
    numbers = {suffix: _frame_number(suffix, pattern) for suffix in members}
    frames = [members[suffix] for _, suffix in sorted((n, s) for s, n in numbers.items() if n >= 0)]
    if empty := next((frame.name for frame in frames if not frame.size), None):
        raise _Problem("garbage", f"its frame {empty} is empty")
    return frames


@functools.lru_cache(1000)
def _frame_number(suffix: str, pattern: str) -> int:
    """The number of a frame; -1 if this is not one."""
    match = re.fullmatch(re.escape(pattern).replace(r"\{n\}", r"(\d+)"), suffix)
    return -1 if match is None else int(match[1]) if match.lastindex else 0


def _frame_size(descriptor: int, frame: TarMember) -> int:
    """Raises:
    _Problem: it is not a square JPEG picture.
    """
    pixels = jpeg_size(_head_of(descriptor, frame)) or jpeg_size(
        os.pread(descriptor, frame.size, frame.start)
    )
    if pixels is None or pixels[0] != pixels[1]:
        what = "is not a JPEG picture" if pixels is None else "has {}x{} pixels".format(*pixels)
        raise _Problem("garbage", f"its frame {frame.name} {what}; training takes square JPEG")
    return pixels[0]


def _head_of(descriptor: int, member: TarMember) -> bytes:
    return os.pread(descriptor, min(member.size, _HEAD), member.start)


def _num_samples(descriptor: int, path: Path, audio: TarMember, options: IndexOptions) -> int:
    """Raises:
    _Problem, UserError: it is not what training takes, or does not say how long it is.
    """
    head = _head_of(descriptor, audio)
    if sound_format(head) is None or not promised_samples(head):  # after other chunks of a WAV
        head = os.pread(descriptor, audio.size, audio.start)
    kind = sound_format(head)
    if kind != (SAMPLE_RATE, 1):
        what = "is not FLAC or WAV" if kind is None else "has {} Hz and {} channels".format(*kind)
        if options.bad_samples == "skip":
            raise _Problem("garbage", f"its sound {audio.name} {what}")
        raise UserError(
            f"{path}: {audio.name} {what}. Training takes FLAC or WAV with {SAMPLE_RATE} Hz and "
            "one channel: convert the sounds and write the tars again, or make shards of the "
            "videos with `avprep shard`."
        )
    samples = promised_samples(head)
    if not samples:
        raise _Problem("garbage", f"its sound {audio.name} does not say how long it is")
    return samples


def _id(source: str, read: Callable[[str], bytes]) -> str:
    """Raises:
    _Problem: it is not a name.
    """
    value = _field(source, read)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise _Problem("garbage", f"its {source} is {value!r}, expected a name")
    return str(value)


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
    return tuple(filter(None, (str(one).strip() for one in values)))


def _field(source: str, read: Callable[[str], bytes]) -> Any:
    """`json:labels` → the value of a key; `cls` → the text of a member."""
    suffix, _, name = source.partition(":")
    try:
        text = read(suffix).decode()
        value = json.loads(text)[name] if name else text.strip()
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be written
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise _Problem("garbage", f"its {source} is not UTF-8 ({error.reason})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _Problem("garbage", f"its {source} cannot be read ({error!r})") from None
    return value


class _Window:
    """A file of which headers are read: many at a time where they lie close to each other."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size
        self._begin, self._data = 0, b""

    def read_at(self, position: int, count: int) -> bytes:
        """Raises EOFError where there are fewer; a tar may lack its end mark."""
        place = position - self._begin
        if place + count > len(self._data):
            if position == self._size:
                return bytes(count)
            is_near = place < len(self._data) + _NEAR
            self._data = os.pread(
                self._descriptor, max(count, _MANY if is_near else _FEW), position
            )
            self._begin, place = position, 0
            if len(self._data) < count:
                raise EOFError
        return self._data[place : place + count]


def _members(path: Path, descriptor: int, end: int) -> Iterator[TarMember]:
    """The files of a tar, in order.

    Raises:
        UserError: it is compressed, not a tar, or cut short.
    """
    if compression := compression_of(os.pread(descriptor, 8, 0)):
        plain = f"{path.name.partition('.')[0]}{'-plain' * (path.suffix == '.tar')}.tar"
        raise UserError(
            f"{path}: is compressed, so that no sample can be read by itself. Unpack it to a plain "
            f"tar first: {compression.unpacker} < {quote(path.name)} > {quote(plain)}"
        )
    if not end:
        raise UserError(f"{path}: is empty (0 bytes). Copy it again, or leave it out.")
    at = 0
    try:
        for member in tar_members(_Window(descriptor, end).read_at):
            at = member.end
            if at > end:
                raise EOFError
            if member.fault is not FOLDER:
                yield member
    except EOFError:
        raise UserError(f"{path}: is cut short: it ends after byte {at}. Copy it again.") from None
    except ValueError as error:
        what = f"is damaged ({error}). Copy it again." if at else f"is not a tar ({error})."
        raise UserError(f"{path}: {what}") from error
