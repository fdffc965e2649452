"""A video file becomes `Media`: engine choice and the way errors get their cause."""

from __future__ import annotations

import errno
import math
import os
import stat
from pathlib import Path

from avprep.decode.header import Header, read_header
from avprep.decode.media import Media, Reading, Request, to_media
from avprep.decode.pyav import decode_with_pyav
from avprep.decode.still import decode_still, is_still
from avprep.errors import DecodeError
from avprep.options import DecodeOptions

__all__ = ["DecodeOptions", "Media", "decode_clip"]

# What a second opinion may help with; the rest is the same for every decoder.
_WORTH_A_SECOND_TRY = frozenset({"garbage", "truncated", "no-frames"})


def decode_clip(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    options: DecodeOptions | None = None,
) -> Media:
    """Decode the audio and the evenly spaced frames of a video file, or of a segment of it.

    Args:
        path: the file: a video, or a file with sound alone, or a picture.
        start: first second of the segment; None for the file's beginning.
        end: end of the segment in seconds, exclusive; None for the file's end.
        options: frames, sizes, channels, engine; see `DecodeOptions`.

    Raises:
        DecodeError: the file cannot become a sample, with the cause and what was found.
    """
    options = options or DecodeOptions()
    check_file(Path(path))
    if is_still(path):
        return decode_still(path, options)
    header = checked_header(path, options)
    request = Request(path, start or 0.0, math.inf if end is None else end, options, header)
    media = _decode(request)
    extent = media.extent
    if options.incomplete == "fail" and not extent.is_complete:
        raise DecodeError(
            "truncated",
            f"{path}: holds {extent.found:g} s of the {extent.promised:g} s it promises",
        )
    return media


def _decode(request: Request) -> Media:
    engine = request.options.decoder
    if engine == "ffmpeg":
        return to_media(request, _decode_with_ffmpeg(request))
    try:
        return to_media(request, decode_with_pyav(request))
    except DecodeError as error:
        if engine == "pyav" or error.cause not in _WORTH_A_SECOND_TRY:
            raise
        try:
            return to_media(request, _decode_with_ffmpeg(request))
        except DecodeError:
            raise error from None


def _decode_with_ffmpeg(request: Request) -> Reading:
    # OpenCV takes 60 MB and a quarter of a second to import, and few runs ever need it.
    from avprep.decode.ffmpeg import decode_with_ffmpeg

    return decode_with_ffmpeg(request)


def checked_header(path: str | Path, options: DecodeOptions) -> Header:
    """Read a file's head, and refuse what decoders would accept without complaint."""
    try:
        header = read_header(path)
    except OSError as error:
        raise DecodeError("unreadable", f"{path}: {error.strerror}") from None
    for kind, how in header.protected.items():
        if kind == "audio" or options.frames:
            raise DecodeError("protected", f"{path}: its {kind} is encrypted ({how})")
    if header.elsewhere:
        detail = f"{path}: keeps its media in another file ({header.elsewhere})"
        raise DecodeError("garbage", detail)
    return header


def check_file(path: Path) -> None:
    """Tell what is wrong with a path before a decoder has to guess.

    Raises:
        DecodeError: missing, unreadable, empty, or a name that no file can have.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise DecodeError("missing", f"{path}: no such file") from None
    except ValueError:  # a zero byte
        raise DecodeError("bad-name", f"{path}: no file can have such a name") from None
    except OSError as error:
        cause = "bad-name" if error.errno == errno.ENAMETOOLONG else "unreadable"
        raise DecodeError(cause, f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DecodeError("unreadable", f"{path}: is {kind}")
    if not os.access(path, os.R_OK):
        raise DecodeError("unreadable", f"{path}: permission denied")
    if status.st_size == 0:
        raise DecodeError("empty", f"{path}: zero bytes")
