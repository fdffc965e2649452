"""Weights in object stores: `s3://bucket/run` → a local file of weights."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from avprep import storage
from avprep.errors import UserError
from avprep.retries import with_retries
from cavmae.options import ReadOptions

_folders = ExitStack()  # with the copies, as long as this process lives
atexit.register(_folders.close)


def copy_of_stored(url: str, run_files: Sequence[str]) -> Path:
    """A copy of weights in a store, on this machine until the process ends.

    Args:
        url: of a file, or of a run directory.
        run_files: those that stand for a run directory, by preference.

    Raises:
        UserError: nothing there, or access is refused.
        WorkFailed: the store cannot be reached.
    """
    return with_retries(lambda: _copy(*_find(url, run_files)), ReadOptions.retries)


def _find(url: str, run_files: Sequence[str]) -> tuple[str, float | None]:
    """The URL of a file of weights, and when it was written."""
    for place in (url, *(storage.join(url, name) for name in run_files)):
        if storage.exists(place):
            folder, _, name = place.rpartition("/")
            return place, storage.list_times(folder).get(name)
    raise UserError(
        f"{url}: no such checkpoint, nor a run with {' or '.join(run_files)} in it. Give a "
        "finished run or a checkpoint file."
    )


@functools.cache
def _copy(url: str, written: float | None) -> Path:
    folder = _folders.enter_context(storage.scratch_folder())
    # Messages name the copy, so its path is to tell where it is from.
    parts = (part for part in url.replace("://", "/").split("/") if part not in ("", "..", "."))
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True)
    storage.download(url, target)
    return target
