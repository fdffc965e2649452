"""Fill a folder with links to every program on PATH but those named.

Usage: python tests/path_without.py FOLDER PROGRAM…
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def link_programs(folder: Path, without: set[str]) -> None:
    """Of programs that share a name the first on PATH is linked, as a shell would choose."""
    for place in os.environ["PATH"].split(os.pathsep):
        with contextlib.suppress(OSError):
            for program in Path(place).absolute().iterdir():
                if program.name not in without:
                    with contextlib.suppress(FileExistsError):
                        (folder / program.name).symlink_to(program)


if __name__ == "__main__":
    link_programs(Path(sys.argv[1]), set(sys.argv[2:]))
