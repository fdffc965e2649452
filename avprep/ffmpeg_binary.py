"""Where the ffmpeg program is: the system's, else the one a PyPI wheel carries."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess

_OLDEST = (5, 1)  # the first with -fps_mode, which the newest have instead of -vsync


@functools.cache
def find_ffmpeg() -> str:
    """Path of an ffmpeg executable: the one on PATH if it is usable, else `imageio-ffmpeg`'s."""
    found = shutil.which("ffmpeg")
    if found and _is_usable(found):
        return found
    import imageio_ffmpeg  # its import searches the disk; not needed where ffmpeg is installed

    return imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg_version() -> str:
    """As the program tells it: "7.1", "5.1.9-0+deb12u1"."""
    return _version_of(find_ffmpeg())


def _version_of(program: str) -> str:
    told = subprocess.run([program, "-version"], check=True, capture_output=True, text=True)
    return told.stdout.split()[2]


def _is_usable(program: str) -> bool:
    """Whether it runs and is new enough; development builds are named by date or commit."""
    try:
        number = re.match(r"n?(\d+)\.(\d+)", _version_of(program))
    except (OSError, subprocess.CalledProcessError, IndexError):
        return False
    return number is None or (int(number[1]), int(number[2])) >= _OLDEST
