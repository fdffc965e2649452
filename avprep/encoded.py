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
    complete: bool = True  # whether the source holds what it promises, as far as it is used here
    seconds_found: float = 0.0
    seconds_promised: float = 0.0
    audio_shortened: bool = False  # the clip has more sound than the sample
