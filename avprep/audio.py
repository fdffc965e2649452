"""16-bit mono audio as bytes: FLAC, WAV and back."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE = 16000
# Of WAV, with as many bytes for each sample: PCM, float, A-law, μ-law, and one with more words.
_KINDS = (b"\1\0", b"\3\0", b"\6\0", b"\7\0", b"\xfe\xff")
_WAV_HEAD = struct.Struct("<4sI4s4sIHHIIHH4sI")


def encode_flac(pcm: NDArray[np.int16], sample_rate: int = SAMPLE_RATE) -> bytes:
    """FLAC bytes of int16 [samples]; lossless."""
    return _encode(pcm, sample_rate, "FLAC")


def encode_wav(pcm: NDArray[np.int16], sample_rate: int = SAMPLE_RATE) -> bytes:
    """WAV bytes of int16 [samples]."""
    return _encode(pcm, sample_rate, "WAV")


def decode_audio(data: bytes, sample_rate: int = SAMPLE_RATE) -> NDArray[np.int16]:
    """int16 [samples] of FLAC or WAV bytes.

    Raises:
        RuntimeError: not audio.
        ValueError: not mono, or of another sample rate.
    """
    try:
        pcm, rate = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as error:  # its own text says where in memory the bytes are
        raise RuntimeError(f"is not FLAC or WAV ({error.error_string})") from error
    if rate != sample_rate or pcm.shape[1] != 1:
        raise ValueError(
            f"is {rate} Hz with {pcm.shape[1]} channels, expected {sample_rate} Hz mono"
        )
    return pcm[:, 0]


def plain_wav(data: bytes | memoryview) -> NDArray[np.int16] | None:
    """int16 [samples], a view of WAV bytes with the head that `encode_wav` writes; None of others.

    libsndfile takes fifteen times as long to read them.
    """
    size, rate = len(data) - _WAV_HEAD.size, SAMPLE_RATE
    if size < 0 or size % 2:
        return None
    parts = (b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size)
    is_plain = data[: _WAV_HEAD.size] == _WAV_HEAD.pack(*parts)
    return np.frombuffer(data, "<i2", offset=_WAV_HEAD.size) if is_plain else None


def sound_format(data: bytes) -> tuple[int, int] | None:
    """(sample rate, channels) by the head of FLAC or WAV bytes; None if it is of neither."""
    if data.startswith(b"fLaC"):
        packed = int.from_bytes(data[18:21], "big")
        return packed >> 4, (packed >> 1 & 7) + 1
    form = _chunk(data, b"fmt ")
    if form is None or len(data) < form + 24 or data[form + 8 : form + 10] not in _KINDS:
        return None
    channels = int.from_bytes(data[form + 10 : form + 12], "little")
    return int.from_bytes(data[form + 12 : form + 16], "little"), channels


def promised_samples(data: bytes) -> int:
    """Samples announced by the head of mono FLAC or WAV bytes; 0 if it does not say."""
    if data.startswith(b"fLaC"):
        return int.from_bytes(data[18:26], "big") & ((1 << 36) - 1)
    form, content = _chunk(data, b"fmt "), _chunk(data, b"data")
    if form is None or content is None:
        return 0
    sample = int.from_bytes(data[form + 20 : form + 22], "little")
    size = int.from_bytes(data[content + 4 : content + 8], "little")
    is_unknown = size == 2**32 - 1 or not sample  # as when it was written to a pipe
    return 0 if is_unknown else size // sample


def _chunk(data: bytes, name: bytes) -> int | None:
    """Where a chunk of a WAV begins; None if the bytes do not reach it or are not a WAV."""
    at = 12
    while data.startswith(b"RIFF") and at + 8 <= len(data):
        if data[at : at + 4] == name:
            return at
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return None


def _encode(pcm: NDArray[np.int16], sample_rate: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, sample_rate, format=kind, subtype="PCM_16")
    return buffer.getvalue()
