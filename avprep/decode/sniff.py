"""Telling a damaged media file from something that never was one."""

from __future__ import annotations

from pathlib import Path

# (offset, bytes) that open the containers people have.
_SIGNATURES = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"wide"),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (0, b"RIFF"),
    (0, b"OggS"),
    (0, b"FLV"),
    (0, b"\x30\x26\xb2\x75"),  # ASF, WMV
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x47"),  # MPEG transport stream
)


def looks_like_media(path: str | Path) -> bool:
    """Whether a file begins as a known container does."""
    with open(path, "rb") as file:
        head = file.read(16)
    return any(head[offset:].startswith(magic) for offset, magic in _SIGNATURES)
