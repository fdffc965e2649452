"""What the head of a file says, read without a decoder, so that it is the same for all engines.

Is it encrypted, how long does it claim to be, does it keep its media in other files? Damaged heads
are read as far as they make sense: nothing in here can cost a clip that a decoder can read.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from avprep.decode.partly import open_media
from avprep.decode.sniff import container_of

Kind = Literal["video", "audio"]

_LONGEST_WALK = 200_000  # boxes; a day in fragments of a second
_LONGEST_LEAF = 1 << 20  # bytes of one box or element that are looked at
_LONGEST_PROMISE = 1e7  # seconds; what claims more is damaged or means "unknown"
_DAMAGE = (struct.error, IndexError, ValueError, OverflowError)  # what reading damaged heads raises


@dataclass
class Header:
    """What a file says of itself.

    Attributes:
        protected: how the first stream of each kind is encrypted; clear ones are left out.
        elsewhere: name of another file that holds the media; empty if there is no such file.
        promised: end of the file, in seconds of its own clock; None where it does not say.
        promised_by_kind: the same for the first stream of each kind, where that is known.
    """

    protected: dict[Kind, str] = field(default_factory=dict)
    elsewhere: str = ""
    promised: float | None = None
    promised_by_kind: dict[Kind, float] = field(default_factory=dict)

    def promise(self, seconds: float, kind: Kind | None = None) -> None:
        """Note a length; the greatest of several counts."""
        if not 0 < seconds < _LONGEST_PROMISE:
            return
        self.promised = max(seconds, self.promised or 0.0)
        if kind is not None:
            self.promised_by_kind[kind] = max(seconds, self.promised_by_kind.get(kind, 0.0))

    def find_first(self, tracks: Sequence[_Track], kinds: dict[bytes, Kind]) -> None:
        """Find the first track of each kind, by its handler, and note whether it is encrypted."""
        for handler, kind in kinds.items():
            track = next((track for track in tracks if track.handler == handler), _Track())
            track.kind = kind
            if track.protection:
                self.protected[kind] = track.protection


@dataclass
class _Track:
    """What is known of a track so far."""

    handler: bytes = b""  # what the container calls its kind
    kind: Kind | None = None  # only of the first track of each kind
    protection: str = ""  # how it is encrypted, if it is
    number: int = 0
    scale: int = 0  # units of the media per second
    length: int = 0  # of all samples, in units of the media
    shown: int = 0  # length of what an edit list shows, in units of the film
    empty: int = 0  # length of its empty edits
    skipped: int | None = None  # units of the media before what the edit list shows
    sample: int = 0  # default duration of a fragment's samples

    def seconds(self, movie_scale: int) -> float:
        """When the track ends: after its samples, or earlier where an edit list cuts them."""
        samples = self.length / self.scale if self.scale else 0.0
        if not movie_scale or not self.shown:
            return samples
        return min(self.shown / movie_scale, samples) + self.empty / movie_scale


def read_header(path: str | Path) -> Header:
    """Read the head of a file of any kind; an empty `Header` if its kind is unknown."""
    header = Header()
    with open_media(path) as file:
        # A transport stream may begin anywhere within a packet.
        read = _READERS.get(container_of(file.read(256)), _read_transport_stream)
        # What was read before the damage counts.
        with contextlib.suppress(*_DAMAGE):
            read(file, header)
    return header


# MP4, MOV, 3GP --------------------------------------------------------------------------------

_MP4_CONTAINERS = frozenset(
    (b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl", b"mvex")
)
_ENCRYPTED_ENTRIES = frozenset({b"encv", b"enca", b"drmi", b"drms"})  # Common Encryption; FairPlay
_MP4_KINDS: dict[bytes, Kind] = {b"vide": "video", b"soun": "audio"}


def _read_mp4(file: BinaryIO, header: Header) -> None:
    tracks: list[_Track] = []
    fragments: list[tuple[int, int]] = []
    movie_scale = 0
    for name, start, end in _boxes(file, 0, _size_of(file), _MP4_CONTAINERS):
        if name == b"trak":
            tracks.append(_Track())
        elif name == b"moof":
            fragments.append((start, end))
        if name in (b"moof", b"mdat") or name in _MP4_CONTAINERS:
            continue
        data = _read(file, start, end)
        with contextlib.suppress(*_DAMAGE):  # which costs only what this box says
            if name == b"mvhd":
                movie_scale = _after_dates(data)
            elif name == b"mehd" and movie_scale:
                header.promise(_unpack(_word(data), data, 4)[0] / movie_scale)
            elif name == b"trex":
                number, _, sample = _unpack("3I", data, 4)
                for track in tracks:
                    if track.number == number:
                        track.sample = sample
            elif name == b"sidx":
                header.promise(_end_of_index(data))
            elif tracks:
                _read_track_box(name, data, tracks[-1], header)
    header.find_first(tracks, _MP4_KINDS)
    for track in tracks:
        if track.kind is not None:  # fragments promise their own lengths
            header.promise(track.seconds(movie_scale), None if fragments else track.kind)
    if fragments:
        timed = {track.number: track for track in tracks if track.scale}
        for start, end in fragments[-4:]:  # the last of each track, unless it ends early
            _read_fragment(file, start, end, timed, header)
        _read_fragment_index(file, timed, header)


def _read_track_box(name: bytes, data: bytes, track: _Track, header: Header) -> None:
    if name == b"tkhd":
        track.number = _after_dates(data)
    elif name == b"mdhd":
        track.scale = _after_dates(data)
    elif name == b"hdlr" and not track.handler:
        track.handler = data[8:12]
    elif name == b"elst":
        layout = "QqI" if data[0] == 1 else "IiI"
        for length, media_time, _ in _rows(layout, data, 8, *_unpack("I", data, 4)):
            if media_time < 0:
                track.empty += length
            else:
                track.shown += length
                track.skipped = media_time if track.skipped is None else track.skipped
    elif name == b"stts":
        runs = _rows("2I", data, 8, *_unpack("I", data, 4))
        track.length = sum(count * duration for count, duration in runs)
    elif name == b"stsd":
        for entry, start, end in _boxes(io.BytesIO(data), 8, len(data)):
            if entry in _ENCRYPTED_ENTRIES:
                scheme = data.find(b"schm", start, end)
                system = f", scheme {_text(data[scheme + 8 : scheme + 12])}" if scheme > 0 else ""
                track.protection = f"sample entry {_text(entry)}{system}"
    elif name == b"dref" and track.handler in _MP4_KINDS:
        for entry, start, end in _boxes(io.BytesIO(data), 8, len(data)):
            is_here = data[start + 3] & 1
            name_there = data[start + 4 : end].strip(b"\0")
            if not is_here and name_there and entry in (b"url ", b"alis"):
                header.elsewhere = _text(name_there[:200])


def _word(data: bytes) -> str:
    """The layout of those numbers of a box whose size depends on its version."""
    return "Q" if data[0] == 1 else "I"


def _after_dates(data: bytes) -> int:
    """Units per second in an `mvhd` or `mdhd` box, the track's number in a `tkhd` box."""
    return _unpack(f"2{_word(data)}I", data, 4)[2]


def _end_of_index(data: bytes) -> float:
    """Seconds at which the last subsegment of a `sidx` box ends."""
    layout = f"2I2{_word(data)}2H"
    _, scale, first, _, _, count = _unpack(layout, data, 4)
    rows = _rows("3I", data, 4 + struct.calcsize(f">{layout}"), count)
    return (first + sum(length for _, length, _ in rows)) / scale if scale else 0.0


def _read_fragment(
    file: BinaryIO, start: int, end: int, tracks: dict[int, _Track], header: Header
) -> None:
    """Where the samples of a `moof` box end."""
    track, base, sample = None, 0, 0
    for name, begin, stop in _boxes(file, start, end, frozenset({b"traf"})):
        data = b"" if name == b"traf" else _read(file, begin, stop)
        if name == b"tfhd":
            flags, number = _unpack("2I", data)
            track = tracks.get(number)
            sample = track.sample if track else 0
            if flags & 8:
                sample = _unpack("I", data, 8 + 8 * bool(flags & 1) + 4 * bool(flags & 2))[0]
        elif name == b"tfdt":
            base = _unpack(_word(data), data, 4)[0]
        elif name == b"trun" and track is not None:
            base += _length_of_run(data, sample)
            header.promise((base - (track.skipped or 0)) / track.scale, track.kind)


def _length_of_run(data: bytes, sample: int) -> int:
    flags, count = _unpack("2I", data)
    if not flags & 0x100:
        return count * sample
    first = 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
    columns = sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    return sum(row[0] for row in _rows(f"{columns}I", data, first, count))


def _read_fragment_index(file: BinaryIO, tracks: dict[int, _Track], header: Header) -> None:
    """Where the last fragments begin, by the index at the file's end (`mfra`)."""
    size = _size_of(file)
    last = _read(file, size - 16, size)
    if last[4:8] != b"mfro":
        return
    begin = max(size - _unpack("I", last, 12)[0], 0)
    for name, start, end in _boxes(file, begin, size, frozenset({b"mfra"})):
        if name != b"tfra":
            continue
        data = _read(file, start, end)
        number, lengths, count = _unpack("3I", data, 4)
        track, word = tracks.get(number), _word(data)
        row = 2 * struct.calcsize(word) + sum((lengths >> shift & 3) + 1 for shift in (0, 2, 4))
        if track is not None and count:
            header.promise(_unpack(word, data, 16 + (count - 1) * row)[0] / track.scale)


def _boxes(
    file: BinaryIO, start: int, end: int, entered: frozenset[bytes] = frozenset()
) -> Iterator[tuple[bytes, int, int]]:
    """(type, first byte of its content, end) of the boxes of a file, those in `entered` opened."""
    for _ in range(_LONGEST_WALK):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(16)
        size, name = _unpack("I4s", head)
        content = start + 8
        if size == 1:
            size, content = _unpack("Q", head, 8)[0], start + 16
        stop = end if size == 0 else start + size
        if stop < content:
            return
        yield name, content, min(stop, end)
        start = content if name in entered else stop


# Matroska, WebM -------------------------------------------------------------------------------

_SEGMENT, _INFO, _TRACKS, _TRACK, _CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0x1F43B675
_ENCODINGS, _ENCODING, _ENCRYPTION = 0x6D80, 0x6240, 0x5035
_SCALE, _DURATION, _TRACK_TYPE = 0x2AD7B1, 0x4489, 0x83
_MKV_CONTAINERS = frozenset({_SEGMENT, _INFO, _TRACKS, _TRACK, _ENCODINGS, _ENCODING, _ENCRYPTION})


def _read_matroska(file: BinaryIO, header: Header) -> None:
    scale, duration = 1_000_000, 0.0
    tracks: list[_Track] = []
    for element, start, end in _elements(file):
        if element == _TRACK:
            tracks.append(_Track())
        elif element == _SCALE:
            scale = int.from_bytes(_read(file, start, end), "big")
        elif element == _DURATION and end - start in (4, 8):
            duration = _unpack("f" if end - start == 4 else "d", _read(file, start, end))[0]
        elif element == _TRACK_TYPE and tracks:
            tracks[-1].handler = _read(file, start, end)[-1:]
        elif element == _ENCRYPTION and tracks:
            tracks[-1].protection = "ContentEncryption"
    header.find_first(tracks, {b"\1": "video", b"\2": "audio"})
    header.promise(duration * scale / 1e9)


def _elements(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """(id, first byte, end) of the elements before the first cluster, containers opened."""
    start, size = 0, _size_of(file)
    for _ in range(_LONGEST_WALK):
        if start >= size:
            return
        file.seek(start)
        head = file.read(12).ljust(12, b"\0")  # an id of up to 4 bytes, a size of up to 8
        width = 9 - head[0].bit_length()
        if width > 4 or not head[width]:
            return
        element = int.from_bytes(head[:width], "big")
        bytes_of_size = 9 - head[width].bit_length()
        length = int.from_bytes(head[width : width + bytes_of_size], "big")
        length -= 1 << 7 * bytes_of_size
        content = start + width + bytes_of_size
        end = content + length
        if element == _CLUSTER:
            return
        yield element, content, min(end, size)
        start = content if element in _MKV_CONTAINERS else end


# AVI, FLV, ASF --------------------------------------------------------------------------------


def _read_avi(file: BinaryIO, header: Header) -> None:
    data = _read(file, 0, _LONGEST_LEAF)
    start = 12
    while start + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, start)
        content = data[start + 8 : start + 8 + size]
        if name == b"LIST" and content[:4] in (b"hdrl", b"strl"):
            start += 12
            continue
        if name == b"LIST" and content[:4] == b"movi":
            return
        if name == b"strh":
            # Not by kind: pictures that repeat the one before may be empty, and sound may begin
            # elsewhere than the head says.
            scale, rate, _, length = struct.unpack_from("<4I", content, 20)
            if content[:4] in (b"vids", b"auds") and rate:
                header.promise(length * scale / rate)
        start += 8 + size + size % 2


_FLV_KINDS: dict[int, Kind] = {8: "audio", 9: "video"}


def _read_flv(file: BinaryIO, header: Header) -> None:
    data = _read(file, 0, _LONGEST_LEAF)
    key = b"\x00\x08duration\x00"
    found = data.find(key, 0, 1 << 16)
    if found >= 0:
        header.promise(_unpack("d", data, found + len(key))[0])
    start = _unpack("I", data, 5)[0] + 4
    while start + 11 <= len(data):
        tag, size = data[start], int.from_bytes(data[start + 1 : start + 4], "big")
        kind = _FLV_KINDS.get(tag & 0x1F)
        if tag & 0x20 and kind is not None:
            header.protected[kind] = "Adobe Access"
        if tag & 0xC0 or (kind is None and tag & 0x1F != 18):
            return
        start += 11 + size + 4


_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_ENCRYPTION = {
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"): "Windows Media DRM",
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"): "Windows Media DRM",
    bytes.fromhex("338505438169e6499b74ad12cb86d58c"): "PlayReady",
}


def _read_asf(file: BinaryIO, header: Header) -> None:
    size = struct.unpack("<Q", _read(file, 16, 24))[0]
    data = _read(file, 0, size)
    for identifier, system in _ASF_ENCRYPTION.items():
        if identifier in data:
            header.protected |= {"video": system, "audio": system}
    found = data.find(_ASF_FILE)
    if found >= 0:
        length, _, preroll, flags = struct.unpack_from("<3QI", data, found + 64)
        if not flags & 1:  # the length of a broadcast is unknown
            header.promise(length / 1e7 - preroll / 1e3)


# MPEG transport and program streams -----------------------------------------------------------

_PLACES = 16  # read per file, since scrambling may begin anywhere
_PIECE = 1 << 16  # bytes read at each
_FEWEST = 8  # scrambled packets; a single one is a flipped bit
_LATEST_PAYLOAD = 176  # byte of a transport packet; a later payload is too short to tell anything
_TYPES: dict[int, Kind] = {
    **dict.fromkeys((0x01, 0x02, 0x10, 0x1B, 0x20, 0x24, 0x33, 0x42, 0xD1, 0xDB, 0xEA), "video"),
    **dict.fromkeys((0x03, 0x04, 0x0F, 0x11, 0x81, 0x83, 0x87, 0xC1, 0xC2, 0xCF), "audio"),
}
_SAMPLE_AES = frozenset({0xDB, 0xC1, 0xC2, 0xCF})


def _read_transport_stream(file: BinaryIO, header: Header) -> None:
    streams: dict[int, Kind] = {}
    map_pid: int | None = None
    for piece in _pieces(file):
        # By PID: whether transport packets, and the PES packets that begin in them, are scrambled.
        packets: defaultdict[int, list[bool]] = defaultdict(list)
        heads: defaultdict[int, list[bool]] = defaultdict(list)
        for packet in _transport_packets(piece):
            pid = (packet[1] & 0x1F) << 8 | packet[2]
            begin = 5 + packet[4] if packet[3] & 0x20 else 4
            if not packet[3] & 0x10 or begin > _LATEST_PAYLOAD:
                continue
            is_scrambled = bool(packet[3] & 0xC0)
            packets[pid].append(is_scrambled)
            if is_scrambled or not packet[1] & 0x40:
                continue
            payload = packet[begin:]
            if pid == 0 and map_pid is None:
                map_pid = _first_map(payload)
            elif pid == map_pid and not streams:
                streams = _streams_of(payload, header)
            elif payload.startswith(b"\0\0\1"):
                heads[pid].append(_is_scrambled_pes(payload))
        if not packets and not streams:
            return  # of another kind
        for pid, kind in streams.items():
            if _are_scrambled(packets[pid]) or _are_scrambled(heads[pid]):
                header.protected[kind] = "scrambled transport stream"


def _are_scrambled(packets: Sequence[bool]) -> bool:
    """Whether most of some packets are scrambled."""
    return sum(packets) >= _FEWEST and 2 * sum(packets) > len(packets)


def _transport_packets(piece: bytes) -> Iterator[bytes]:
    """Packets of 188 bytes, which may be followed or preceded by up to 16 more."""
    for step in (188, 192, 204):
        for start in range(min(step, len(piece))):
            if piece[start : start + 8 * step : step] == b"\x47" * 8:
                for at in range(start, len(piece) - 187, step):
                    if piece[at] == 0x47:
                        yield piece[at : at + 188]
                return


def _first_map(payload: bytes) -> int | None:
    """The PID of the first program's map, by the association table."""
    table = _table(payload)
    for at in range(8, len(table), 4):
        program, pid = _unpack("2H", table, at)
        if program:
            return pid & 0x1FFF
    return None


def _streams_of(payload: bytes, header: Header) -> dict[int, Kind]:
    """PID of the first stream of each kind, by a program's map."""
    table = _table(payload)
    at = 12 + (_unpack("H", table, 10)[0] & 0xFFF)
    found: dict[int, Kind] = {}
    while at + 5 <= len(table):
        form, pid, length = _unpack("B2H", table, at)
        kind = _TYPES.get(form)
        if kind is not None and kind not in found.values():
            found[pid & 0x1FFF] = kind
            if form in _SAMPLE_AES:
                header.protected[kind] = "SAMPLE-AES"
        at += 5 + (length & 0xFFF)
    return found


def _table(payload: bytes) -> bytes:
    """The table that begins in a transport packet, without its checksum."""
    table = payload[payload[0] + 1 :]
    return table[: 3 + (_unpack("H", table, 1)[0] & 0xFFF) - 4]


def _read_program_stream(file: BinaryIO, header: Header) -> None:
    for piece in _pieces(file):
        packets: dict[Kind, list[bool]] = {"video": [], "audio": []}
        at = piece.find(b"\0\0\1")
        while 0 <= at < len(piece) - 9:
            code = piece[at + 3]
            is_video = 0xE0 <= code <= 0xEF
            if is_video or code == 0xBD or 0xC0 <= code <= 0xDF:
                packets["video" if is_video else "audio"].append(
                    _is_scrambled_pes(piece[at : at + 9])
                )
                at += _unpack("H", piece, at + 4)[0]
            at = piece.find(b"\0\0\1", at + 3)
        for kind, scrambled in packets.items():
            if _are_scrambled(scrambled):
                header.protected[kind] = "scrambled program stream"


def _is_scrambled_pes(data: bytes) -> bool:
    """Whether a PES packet's head says that its content is scrambled."""
    return data[6] & 0xC0 == 0x80 and data[6] & 0x30 != 0


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """The file's beginning, and pieces evenly spread over the rest."""
    size = _size_of(file)
    step = max((size - _PIECE) // _PLACES, _PIECE)
    for start in range(0, max(size - _PIECE, 0) + 1, step):
        yield _read(file, start, start + _PIECE)


# ----------------------------------------------------------------------------------------------


def _size_of(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(max(start, 0))
    return file.read(max(min(end - start, _LONGEST_LEAF), 0))


def _unpack(layout: str, data: bytes, at: int = 0) -> tuple[Any, ...]:
    """Big-endian values."""
    return struct.unpack_from(f">{layout}", data, at)


def _rows(layout: str, data: bytes, at: int, count: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a table of big-endian values."""
    size = struct.calcsize(f">{layout}")
    return (_unpack(layout, data, at + number * size) for number in range(count))


def _text(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


_READERS: dict[str, Callable[[BinaryIO, Header], None]] = {
    "mp4": _read_mp4,
    "matroska": _read_matroska,
    "avi": _read_avi,
    "flv": _read_flv,
    "asf": _read_asf,
    "mpeg": _read_program_stream,
}
