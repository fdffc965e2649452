"""The manifest: the published JSON, one object per line (`.jsonl`), or a table (CSV, Parquet).

    {"data": [{"video_id": …, "wav": …, "video_path": …, "labels": "/m/a,/m/b"}, …]}

Our optional keys `video`, `start`, `end` and `split` are written only where they are set; programs
that read the published format ignore them. A file's suffix tells its format.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from avprep import storage
from avprep.batches import batched, json_texts
from avprep.clips import Clip, is_writable
from avprep.errors import UserError
from avprep.labels import LabelSet, class_csv_of, label_csv, labels_of
from avprep.manifest import tables

Reader = Callable[[Path], Iterator[tuple[str, Any]]]  # place of an entry, for messages; entry
Writer = Callable[[IO[bytes], Iterable[Mapping[str, Any]]], None]

_REQUIRED = ("video_id", "wav", "video_path", "labels")
_KEYS = frozenset(tables.COLUMNS)
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_PIECE = 1 << 20  # characters of a document
_ETERNITY = 1e9  # seconds; no video is as long


def read_manifest(path: Path) -> list[Clip]:
    """Read all clips of a manifest.

    Raises:
        UserError: no such file, wrong format, or an invalid entry, with its place.
    """
    return list(iter_manifest(path))


def iter_manifest(path: Path) -> Iterator[Clip]:
    """The clips of a manifest one after another, of which few are in memory.

    Raises: as `read_manifest`, when that entry is reached.
    """
    read = _READERS.get(path.suffix, _iter_document)
    try:
        for where, entry in read(path):
            yield from_entry(entry, where)
    except IsADirectoryError as error:
        raise UserError(
            f"{path}: is a folder, not a manifest. `avprep manifest folder {path} --out m.json` "
            "makes one of the videos in it."
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the manifest ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the manifest is not UTF-8 ({error.reason}).") from error


def write_manifest(path: Path, clips: Iterable[Clip]) -> int:
    """Write a manifest in the format of the file's suffix, completely or not at all.

    Returns:
        The number of clips.

    Raises:
        UserError: no such format, or its library is not installed.
    """
    write = _writer_of(path)
    storage.make_folder(path.parent)
    count = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal count
        for clip in clips:
            count += 1
            yield to_entry(clip)

    with storage.replacing(path) as file:
        write(file, counted())
    return count


def write_labelled(path: Path, clips: Iterable[Clip], labels: LabelSet | None) -> int:
    """Write a manifest and its class CSV, or neither; None if it has none.

    Returns:
        The number of clips.

    Raises:
        UserError: see `check_class_csv` and `write_manifest`.
    """
    _writer_of(path)
    check_class_csv(path, labels)
    storage.make_folder(path.parent)
    storage.remove_abandoned(path.parent)  # of commands that were killed
    if labels is None or labels_of(path) == labels:
        return write_manifest(path, clips)
    with storage.scratch_file(path.parent) as file:
        file.write(label_csv(labels))
        file.sync()  # so that nothing can fail once the manifest exists
        count = write_manifest(path, clips)
        file.publish(class_csv_of(path))
    return count


def check_class_csv(manifest: Path, labels: LabelSet | None) -> None:
    """Raises:
    UserError: the path of the manifest's class CSV is taken by other classes.
    """
    found = labels_of(manifest) if labels is not None else None
    if found and found != labels:
        raise UserError(
            f"{class_csv_of(manifest)}: its classes differ from those of {manifest.name}. "
            "Choose another --out, or delete it if nothing was built with it."
        )


def to_entry(clip: Clip) -> dict[str, Any]:
    """A clip as an object of the manifest."""
    entry: dict[str, Any] = {
        "video_id": clip.video_id,
        "wav": clip.wav,
        "video_path": clip.video_path,
        "labels": ",".join(clip.labels),
    }
    if clip.video:
        entry["video"] = clip.video
    if clip.start is not None:
        entry["start"] = clip.start
    if clip.end is not None:
        entry["end"] = clip.end
    if clip.split:
        entry["split"] = clip.split
    return entry


def from_entry(entry: Any, where: str) -> Clip:
    """An object of the manifest as a clip.

    Raises:
        UserError: a key is missing, or its value is of another type or no time; `where` names the
            place.
    """
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected an object, found {type(entry).__name__}.")
    if not _KEYS.issuperset(entry) and (fault := tables.time_passed_over(frozenset(entry))):
        raise UserError(f"{where}: {fault}")
    for key in _REQUIRED:
        if key not in entry:
            raise UserError(f"{where}: has no {key!r}. It needs {', '.join(_REQUIRED)}.")
    for key in tables.TEXTS:
        if not isinstance(entry.get(key, ""), str):
            raise UserError(f"{where}: {key!r} must be a string, found {entry[key]!r}.")
    for key in tables.TIMES:
        value = entry.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}: {key!r} must be seconds, found {value!r}.")
        if not 0 <= value < _ETERNITY:  # also false for NaN
            raise UserError(f"{where}: {key!r} must be 0 or more seconds, found {value}.")
    start, end = entry.get("start"), entry.get("end")
    if end is not None and end <= (start or 0):
        raise UserError(f"{where}: 'end' {end} does not come after 'start' {start or 0}.")
    if not entry["video_id"]:
        raise UserError(f"{where}: 'video_id' is empty.")
    if not (entry["wav"] or entry.get("video")):
        raise UserError(f"{where}: names neither a 'wav' nor a 'video'.")
    return Clip(
        video_id=entry["video_id"],
        labels=tuple(label for label in entry["labels"].split(",") if label),
        video=entry.get("video", ""),
        start=start,
        end=end,
        wav=entry["wav"],
        video_path=entry["video_path"],
        split=entry.get("split", ""),
    )


def _iter_document(path: Path) -> Iterator[tuple[str, Any]]:
    entries = itertools.chain.from_iterable(_document_in_pieces(path))
    return ((f"{path}: data[{number}]", entry) for number, entry in enumerate(entries))


def _document_in_pieces(path: Path) -> Iterator[list[Any]]:
    """The entries of a document, which would take six times the memory of its text all at once.

    Text that ends after an entry is a document when `]}` is added. It then gives way to one entry,
    so that what follows is still read as the rest of `data`.
    """
    text, read = "", 0
    with path.open(encoding="utf-8-sig") as file:
        while piece := file.read(max(_PIECE, len(text))):  # few tries where no text is a document
            text += piece
            end = text.rfind("}") + 1
            try:
                begun = json.loads(text[:end] + "]}")
            except (ValueError, RecursionError):
                continue
            if next(reversed(begun)) == "data":
                yield begun["data"][read:]
                text, read = '{"data": [0' + text[end:], 1
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = _parsed(path.read_text(encoding="utf-8-sig"), str(path))  # which line it is
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise UserError(f'{path}: not a manifest; expected {{"data": [ … ]}}.')
    yield document["data"][read:]


def _iter_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}: line {number}"
                yield where, _parsed(line, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}).") from error


def _write_document(file: IO[bytes], entries: Iterable[Mapping[str, Any]]) -> None:
    file.write(b'{"data": [\n')
    for number, group in enumerate(batched(entries)):
        file.write((b",\n" if number else b"") + _json(group, ",\n"))
    file.write(b"\n]}\n")


def _write_lines(file: IO[bytes], entries: Iterable[Mapping[str, Any]]) -> None:
    for group in batched(entries):
        file.write(_json(group, "\n") + b"\n")


def _json(entries: Sequence[Mapping[str, Any]], between: str) -> bytes:
    """Entries with something between them."""
    texts = json_texts(entries, _ENCODER)
    try:
        return between.join(texts).encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8; JSON's \u escapes can carry it
        pairs = zip(texts, entries, strict=True)
        texts = [text if is_writable(text) else json.dumps(entry) for text, entry in pairs]
        return between.join(texts).encode()


def _writer_of(path: Path) -> Writer:
    write = _WRITERS.get(path.suffix)
    if write is None:
        raise UserError(f"{path}: a manifest's name ends in {' or '.join(_WRITERS)}.")
    return write


_READERS: dict[str, Reader] = {
    ".jsonl": _iter_lines,
    ".csv": tables.iter_csv,
    ".parquet": tables.iter_parquet,
}
_WRITERS: dict[str, Writer] = {
    ".json": _write_document,
    ".jsonl": _write_lines,
    ".csv": tables.write_csv,
    ".parquet": tables.write_parquet,
}
