"""A video file becomes `Media`: engine choice and the way errors get their cause."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from avprep.decode.media import Media
from avprep.decode.pyav import decode_with_pyav
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
        path: the video file.
        start: first second of the segment; None for the file's beginning.
        end: end of the segment in seconds, exclusive; None for the file's end.
        options: frames, sizes, channels, engine; see `DecodeOptions`.

    Raises:
        DecodeError: the file cannot become a sample, with the cause and what was found.
    """
    options = options or DecodeOptions()
    check_file(Path(path))
    if options.decoder == "ffmpeg":
        return _decode_with_ffmpeg(path, start, end, options)
    try:
        return decode_with_pyav(path, start, end, options)
    except DecodeError as error:
        if options.decoder == "pyav" or error.cause not in _WORTH_A_SECOND_TRY:
            raise
        try:
            return _decode_with_ffmpeg(path, start, end, options)
        except DecodeError:
            raise error from None


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


def _decode_with_ffmpeg(
    path: str | Path, start: float | None, end: float | None, options: DecodeOptions
) -> Media:
    # OpenCV takes 60 MB and a quarter of a second to import, and few runs ever need it.
    from avprep.decode.ffmpeg import decode_with_ffmpeg

    return decode_with_ffmpeg(path, start, end, options)
