"""Where a run's files are: in a local folder, or in an object store.

A run whose --out is a URL writes to a scratch folder, whose files are uploaded whole and in the
order in which they were written. So the store holds at each moment what the folder held shortly
before, and a checkpoint in it is whole when it has the file that is written last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avprep import storage
from avprep.errors import UserError
from avprep.retries import with_retries
from cavmae.train.checkpoint import FILES, is_checkpoint_name

CHECKPOINTS, CONFIG_FILE = "checkpoints", "config.json"
_Stamp = tuple[int, int]  # when a file was written, and its size


class RunFolder:
    """The run directory.

    Attributes:
        path: of the local folder that is written to.
        place: the run directory as --out names it, which may be a URL.
    """

    def __init__(self, path: Path, place: str = "", retries: int = 0) -> None:
        """Args:
        path: see above.
        place: see above; "" where it is `path`.
        retries: of what fails in a store.
        """
        self.path = path
        self.place = place or str(path)
        self._retries = retries
        self._has_failed = False
        self._stored: dict[str, _Stamp] = {}  # by name: what the store holds of `path`

    def shown(self, name: str) -> str:
        """A file or folder in the run directory, for people."""
        return storage.join(self.place, name)

    def fetch(self) -> None:
        """Copy from a store what a run is resumed from: its config and the newest checkpoint.

        Raises:
            UserError, WorkFailed: the store refuses, or cannot be reached.
        """
        if storage.is_url(self.place):
            with_retries(self._fetch, self._retries)

    def push(self) -> None:
        """Upload to a store what is new in the folder, and delete checkpoints that are gone there.

        Raises:
            UserError, WorkFailed: the store refuses, or cannot be reached.
        """
        if storage.is_url(self.place):
            self._has_failed = True
            with_retries(self._push, self._retries)
            self._has_failed = False

    def push_rest(self) -> None:
        """The same at the end of a run, unless the store could not be reached the last time."""
        if not self._has_failed:
            self.push()

    def _fetch(self) -> None:
        top = self.shown(CHECKPOINTS)
        checkpoints = filter(is_checkpoint_name, storage.list_names(top))
        whole = (name for name in checkpoints if storage.exists(f"{top}/{name}/{FILES[-1]}"))
        newest = max(whole, default=None)
        names = [f"{CHECKPOINTS}/{newest}/{file}" for file in FILES] if newest else []
        if storage.exists(self.shown(CONFIG_FILE)):
            names.append(CONFIG_FILE)
        for name in names:
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            storage.download(self.shown(name), target)
            self._stored[name] = _stamp(target)

    def _push(self) -> None:
        found = dict(self._files())
        for name in sorted(found, key=lambda name: (found[name], name)):
            if self._stored.get(name) != found[name]:
                try:
                    storage.upload(self.shown(name), self.path / name)
                except UserError:
                    if (self.path / name).exists():
                        raise
                    continue  # some trackers delete files of theirs
                self._stored[name] = found[name]
        top = self.shown(CHECKPOINTS)
        for name in filter(is_checkpoint_name, storage.list_names(top)):
            if not (self.path / CHECKPOINTS / name).exists():
                for file in reversed(FILES):  # what makes it whole goes first
                    storage.delete(f"{top}/{name}/{file}")

    def _files(self) -> Iterator[tuple[str, _Stamp]]:
        """The finished files in the folder, by their names in it."""
        for folder, folders, files in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in map(Path(folder).joinpath, files):
                if not file.name.startswith(".") and file.is_file() and not file.is_symlink():
                    yield file.relative_to(self.path).as_posix(), _stamp(file)


def _stamp(file: Path) -> _Stamp:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@contextmanager
def run_folder(place: str, retries: int) -> Iterator[RunFolder]:
    """The run directory that --out names, for the length of a block.

    Raises:
        UserError: a store that may show a file before it is whole.
    """
    if not storage.is_url(place):
        yield RunFolder(Path(place), place)
        return
    storage.check_writable(place)
    with storage.scratch_folder() as path:
        yield RunFolder(path, place, retries)
