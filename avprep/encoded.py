"""What the process that decodes hands to the one that writes shards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodedSample:
    """The payload of a sample's members, ready to be written."""

    audio: bytes  # FLAC or WAV, 16-bit mono
    frames: tuple[bytes, ...]  # JPEG, in time order
    frame_times: tuple[float, ...]  # seconds; empty for packed files, whose times are not known
    num_samples: int  # of audio
    decoder: str  # "pyav", "ffmpeg", or "files"
