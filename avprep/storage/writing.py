"""What has its final name is whole, wherever it lies."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avprep.storage.places import exists, is_url, put
from avprep.storage.scratch import ScratchFile, scratch_file


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[ScratchFile]:
    """A file to write that gets the name `path` when the block ends without an exception."""
    with scratch_file(Path(path).parent) as file:
        yield file
        file.publish(path)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file that is either absent (or the old one) or whole, also after a power cut.

    Raises:
        UserError: the place cannot be written to at all.
        WorkFailed: the disk is full, or the like.
    """
    if is_url(path):
        put(path, data)
        return
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | Path, content: Any) -> None:
    """Write indented JSON as `write_atomic` does."""
    write_atomic(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Indented JSON, as it is written into files."""
    return (json.dumps(content, indent=1) + "\n").encode()


def write_new(path: str | Path, data: bytes) -> None:
    """Write a file unless there is one; of several writers to a folder at once, one wins.

    An object store has no such writing: there the last one does.

    Raises: as `write_atomic`.
    """
    if is_url(path):
        if not exists(path):
            write_atomic(path, data)
        return
    with scratch_file(Path(path).parent) as file:
        file.write(data)
        file.sync()
        try:
            os.link(file.path, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not exists(path):
                file.publish(path)
