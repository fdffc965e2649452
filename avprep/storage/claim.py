"""A folder belongs to one job: a file in it says which, and others keep out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avprep.storage.places import exists, join, list_names, make_folder, read_bytes
from avprep.storage.scratch import is_temporary, write_new


def claim(
    folder: str | Path,
    marker: str,
    content: bytes,
    check: Callable[[bytes], None],
    before: Callable[[], None] = lambda: None,
) -> None:
    """Mark a folder, or check the mark that it has; of several claims at once, one wins.

    Args:
        folder: a local folder, made if it is not there, or a URL prefix.
        marker: name of the file that marks it.
        content: of that file where there is none.
        check: called with the content of the one that is there in the end; raises UserError
            where it is another job's.
        before: called before a mark is written; raises UserError where none may be.
    """
    make_folder(folder)
    path = join(folder, marker)
    if not exists(path):
        before()
        write_new(path, content)
    check(read_bytes(path))


def strangers(folder: str | Path, marker: str) -> list[str]:
    """The files and folders in a folder that lacks the mark, without temporary ones."""
    names = list_names(folder)
    return [] if marker in names else [name for name in names if not is_temporary(name)]
