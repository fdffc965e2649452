"""The label set: the class CSV `index,mid,display_name`, whose order numbers the classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from avprep import storage
from avprep.errors import UserError

_HEADER = ["index", "mid", "display_name"]


@dataclass(frozen=True)
class LabelSet:
    """Classes in order: `mids` are what manifests hold, `names` are for people."""

    mids: tuple[str, ...]
    names: tuple[str, ...]
    _positions: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_positions", {mid: i for i, mid in enumerate(self.mids)})

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
            known = ", ".join(self.mids[:5]) + (", …" if len(self) > 5 else "")
            raise UserError(
                f"unknown label {mid!r}: not among the {len(self)} classes ({known or 'none'}). "
                "Correct the manifest, or give the class CSV that has it with --labels."
            ) from None

    def indices_of(self, labels: Iterable[str]) -> tuple[int, ...]:
        """The class indices of a clip's labels, ascending, each once."""
        return tuple(sorted({self.index_of(label) for label in labels}))


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


def read_label_csv(path: Path) -> LabelSet:
    """Read a class CSV.

    Raises:
        UserError: no such file, another header, or rows out of order.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read the class CSV ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the class CSV is not UTF-8 ({error.reason}).") from error
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or [cell.strip() for cell in rows[0]] != _HEADER:
        found = ",".join(rows[0]) if rows else "nothing"
        raise UserError(f"{path}: line 1 must be {','.join(_HEADER)!r}, found {found!r}.")
    mids, names = [], []
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != 3 or row[0].strip() != str(len(mids)):
            raise UserError(
                f"{path}: line {line}: expected class {len(mids)} as index,mid,display_name, "
                f"found {','.join(row)!r}."
            )
        mids.append(row[1].strip())
        names.append(row[2].strip())
    if len(set(mids)) != len(mids):
        twice = next(mid for mid in mids if mids.count(mid) > 1)
        raise UserError(f"{path}: the mid {twice!r} stands there twice.")
    return LabelSet(tuple(mids), tuple(names))


def write_label_csv(path: Path, labels: LabelSet) -> None:
    """Write a class CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows(zip(range(len(labels)), labels.mids, labels.names, strict=True))
    storage.write_atomic(path, text.getvalue().encode())
