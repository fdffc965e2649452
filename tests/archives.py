"""Archives of a test's own videos, ordinary and hostile."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def make_tar(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """A tar, compressed as its name says, of files and of headers without content."""
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                assert archive.fileobj is not None
                archive.fileobj.write(content.tobuf())  # whatever it says of a content
                continue
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def make_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """A zip of files, half of them compressed."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, content) in enumerate(members.items()):
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if number % 2 else None)
    return path


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    """The header of a member that is no file."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, linkname
    return header


def cut(path: Path, share: float) -> Path:
    """A copy of a file's beginning, beside it, under a name that ends in the same way."""
    target = path.with_name(f"cut-{path.name}")
    target.write_bytes(path.read_bytes()[: round(os.path.getsize(path) * share)])
    return target


def by_name(paths: Iterable[Path], folder: str = "v") -> dict[str, bytes]:
    """The content of files, by names in an archive."""
    return {f"{folder}/{path.name}": path.read_bytes() for path in paths}
