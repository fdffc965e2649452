"""The label set: the class CSV `index,mid,display_name`, whose order numbers the classes."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avprep import storage
from avprep.columns import Columns, folded
from avprep.csvfile import csv_bytes, csv_records
from avprep.errors import UserError
from avprep.wording import first_of

_HEADER = ["index", "mid", "display_name"]
_VGGSOUND = Path(__file__).parent / "label_sets" / "vggsound.csv"


@dataclass(frozen=True)
class LabelSet:
    """Classes in order: `mids` are used in manifests, `names` are for people."""

    mids: tuple[str, ...]
    names: tuple[str, ...]

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return {mid: index for index, mid in enumerate(self.mids)}

    # A spelling that two classes share names neither.
    @functools.cached_property
    def _by_name(self) -> dict[str, str]:
        return _unshared(self.names, self.mids)

    @functools.cached_property
    def _by_folded_name(self) -> dict[str, str]:
        return _unshared(map(_folded, self.names), self.mids)

    def __len__(self) -> int:
        return len(self.mids)

    def index_of(self, mid: str) -> int:
        """The class index of one mid.

        Raises:
            UserError: it is not in the label set.
        """
        try:
            return self._positions[mid]
        except KeyError:
            known = first_of(self.mids) or "none"
            raise UserError(
                f"unknown label {mid!r}: not among the {len(self)} classes ({known}). "
                "Correct the manifest, or give the class CSV that has it with --labels."
            ) from None

    def knows(self, mid: str) -> bool:
        """Whether a mid is in the label set."""
        return mid in self._positions

    def know_all(self, mids: list[str]) -> bool:
        """Whether all of these are mids of the label set, and no two are the same."""
        distinct = set(mids)
        return len(distinct) == len(mids) and self._positions.keys() >= distinct

    def resolve(self, text: str) -> str | None:
        """The mid of a class given by its mid or, failing that, by its display name.

        Case is ignored, and spaces or underscores may replace commas, unless two classes then
        look alike. None if there is no such class.
        """
        if text in self._positions:
            return text
        return self._by_name.get(text) or self._by_folded_name.get(_folded(text)) or None

    def resolve_list(self, text: str) -> list[str]:
        """The mids of a comma-separated list of mids or display names, which may hold commas.

        The longest possible name is taken first, so that `Male speech, man speaking` is one class.

        Raises:
            ValueError: a part of it is not a class; the argument is that part.
        """
        parts = [part.strip() for part in text.split(",")]
        if self.know_all(parts):
            return parts
        mids: list[str] = []
        while parts:
            for stop in range(len(parts), 0, -1):
                if mid := self.resolve(", ".join(parts[:stop])):
                    mids.append(mid)
                    del parts[:stop]
                    break
            else:
                raise ValueError(parts[0])
        return mids

    def nearest(self, text: str) -> str | None:
        """The mid or display name that looks most like `text`, for a hint."""
        near = difflib.get_close_matches(text, (*self.names, *self.mids), 1)
        return near[0] if near else None

    def indices_of(self, labels: Iterable[str]) -> tuple[int, ...]:
        """The distinct class indices of a clip's labels, ascending."""
        return tuple(sorted({self.index_of(label) for label in labels}))


@functools.cache
def vggsound_labels() -> LabelSet:
    """VGGSound's 309 classes in the order that published classifiers number them by."""
    return read_label_csv(_VGGSOUND)


def label_set_from_names(names: Iterable[str]) -> LabelSet:
    """A label set whose classes are the sorted names.

    The mid of a class is its name with commas replaced, because manifests join mids with commas.

    Raises:
        UserError: two names differ only in that.
    """
    ordered = tuple(sorted(set(names)))
    mids = tuple(name.replace(",", "_") for name in ordered)
    if len(set(mids)) != len(mids):
        clash = next(mid for mid in mids if mids.count(mid) > 1)
        raise UserError(f"two class names become {clash!r} without commas; rename one of them.")
    return LabelSet(mids, ordered)


def merge_label_sets(sets: Iterable[tuple[str, LabelSet]]) -> LabelSet:
    """All classes of several label sets: the first one's in its order, then what each other adds.

    Args:
        sets: with the place that each is from.

    Raises:
        UserError: two of them name one mid differently, or share a name for different mids.
    """
    by_mid: dict[str, tuple[str, str]] = {}  # its name, and where that is from
    by_name: dict[str, tuple[str, str]] = {}  # its mid, and where that is from
    for where, labels in sets:
        for mid, name in zip(labels.mids, labels.names, strict=True):
            known, place = by_mid.setdefault(mid, (name, where))
            first, origin = by_name.setdefault(_folded(name), (mid, where))
            if _folded(known) != _folded(name):
                clash = f"class {mid!r} is {known!r} in {place} and {name!r} in {where}"
            elif place == where != origin and first != mid:
                clash = f"class {name!r} is {first!r} in {origin} and {mid!r} in {where}"
            else:
                continue
            raise UserError(f"{clash}. Shard one of them again with a class CSV that agrees.")
    return LabelSet(tuple(by_mid), tuple(name for name, _ in by_mid.values()))


def read_label_csv(path: Path) -> LabelSet:
    """Read a class CSV; gzip, a byte order mark and any line ends are fine.

    Its columns may come in any order and among others. A name that lost its quotes is put together
    again where it is the last field.

    Raises:
        UserError: no such file, another header, rows out of order, a mid or name that is empty,
            a repeated mid; with the line.
    """
    records = csv_records(path)
    header = _without_trailing_blanks(next(records, (1, []))[1])
    names = [folded(name) for name in header]
    columns = Columns(
        {name: names.index(folded(name)) for name in _HEADER if folded(name) in names}
    )
    if len(columns.places) < len(_HEADER):
        found = ",".join(header) if header else "nothing"
        raise UserError(f"{path}: line 1 must be {','.join(_HEADER)!r}, found {found!r}.")
    lines: dict[str, int] = {}  # mid → its line
    display_names = []
    for line, row in records:
        where = f"{path}: line {line}"
        row = _without_trailing_blanks(row)
        if not row:
            continue
        if len(row) > len(header) == columns.places["display_name"] + 1:
            row = [*row[: len(header) - 1], ",".join(row[len(header) - 1 :])]
        index, mid, name = (columns.cell(row, name) for name in _HEADER)
        if len(row) < 3 or index != str(len(lines)):
            raise UserError(
                f"{where}: expected class {len(lines)} as index,mid,display_name, "
                f"found {','.join(row)!r}."
            )
        if not mid or not name or "," in mid:
            raise UserError(
                f"{where}: the mid is {mid!r} and the name {name!r}; give both, "
                "the mid without commas."
            )
        if mid in lines:
            raise UserError(f"{where}: the mid {mid!r} was used before (line {lines[mid]}).")
        lines[mid] = line
        display_names.append(name)
    return LabelSet(tuple(lines), tuple(display_names))


def write_label_csv(path: Path, labels: LabelSet) -> None:
    """Write a class CSV, whole or not at all."""
    storage.make_folder(path.parent)
    storage.write_atomic(path, label_csv(labels))


def label_csv(labels: LabelSet) -> bytes:
    """The content of a label set's class CSV."""
    return csv_bytes([_HEADER, *zip(range(len(labels)), labels.mids, labels.names, strict=True)])


def class_csv_of(manifest: Path) -> Path:
    """The path of a manifest's class CSV: `m.classes.csv` beside `m.json`."""
    return manifest.with_suffix(".classes.csv")


def labels_of(manifest: Path, csv: str | Path | None = None) -> LabelSet | None:
    """The label set in `csv` or, without it, in the manifest's own class CSV; None if it has none.

    Raises:
        UserError: the file is not a class CSV.
    """
    if csv is not None:
        return read_label_csv(Path(csv))
    path = class_csv_of(manifest)
    if not path.exists():
        return None
    try:
        return read_label_csv(path)
    except UserError as error:
        raise UserError(
            f"{error} A file of this name is read as the class CSV of {manifest.name}: correct it, "
            "or rename it if it is something else."
        ) from error


def known_labels(path: Path) -> LabelSet | None:
    """The label set of a class CSV; None if there is no such file, or no class in it."""
    return (read_label_csv(path) or None) if path.exists() else None


def label_set_for(
    names: Iterable[str], known: LabelSet | None, where: object
) -> tuple[LabelSet, dict[str, str]]:
    """The label set for some class names, and the mid of each name.

    Args:
        names: as people wrote them.
        known: the label set to use; None to number the sorted names.
        where: the known label set's file, for the message.

    Raises:
        UserError: the known label set lacks one of the names.
    """
    wanted = sorted(set(names))
    if known is None:
        made = label_set_from_names(wanted)
        return made, dict(zip(made.names, made.mids, strict=True))
    mids = {}
    for name in wanted:
        mid = known.resolve(name)
        if mid is None:
            near = known.nearest(name)
            hint = f" Did you mean {near!r}?" if near else ""
            raise UserError(
                f"{where}: has no class {name!r}.{hint} To number the classes again, delete this "
                "file; to keep it, name another one with --labels."
            )
        mids[name] = mid
    return known, mids


def _unshared(spellings: Iterable[str], mids: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for spelling, mid in zip(spellings, mids, strict=True):
        found[spelling] = mid if found.get(spelling, mid) == mid else ""
    return found


def _folded(name: str) -> str:
    return " ".join(re.sub("[,_]", " ", name).casefold().split())


def _without_trailing_blanks(row: list[str]) -> list[str]:
    while row and not row[-1].strip():
        row = row[:-1]
    return row
