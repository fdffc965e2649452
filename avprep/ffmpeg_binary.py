"""Where the ffmpeg program is: the system's, else the one a PyPI wheel carries."""

from __future__ import annotations

import functools
import shutil
import subprocess


@functools.cache
def find_ffmpeg() -> str:
    """Path of an ffmpeg executable: the one on PATH first, else `imageio-ffmpeg`'s."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    import imageio_ffmpeg  # its import searches the disk; not needed where ffmpeg is installed

    return imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg_version() -> str:
    """As the program tells it: "7.1", "5.1.9-0+deb12u1"."""
    told = subprocess.run([find_ffmpeg(), "-version"], check=True, capture_output=True, text=True)
    return told.stdout.split()[2]
