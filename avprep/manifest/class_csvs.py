"""Class CSVs made of folders and data sets, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avprep import storage
from avprep.clips import Scan, discover_files, expanded, is_writable
from avprep.errors import UserError
from avprep.labels import (
    LabelSet,
    label_set_from_names,
    read_label_csv,
    vggsound_labels,
    write_label_csv,
)
from avprep.manifest.sources.folder import places_of
from avprep.manifest.sources.vggsound import read_vggsound
from avprep.progress import OnProgress, each, ignore


def write_folder_labels(
    root: str | Path, out: str | Path, on_progress: OnProgress = ignore
) -> LabelSet:
    """Write a class CSV of a folder's sub-folders, sorted by name.

    Args:
        root: folder of videos.
        out: class CSV to write.
        on_progress: called with progress: files found.

    Raises:
        UserError: no video there, or none in a sub-folder; a name that is not UTF-8; or `out`
            holds other classes.
    """
    files = discover_files(expanded(root), Scan(), each("file", on_progress))
    names = {place.label for place in places_of([file.folders for file in files], root)} - {""}
    if not names:
        raise UserError(f"{root}: its videos are in no sub-folder, so there are no classes.")
    for name in names:
        if not is_writable(name):
            raise UserError(
                f"{storage.join(root, name)}: a name that is not UTF-8; rename the folder."
            )
    labels = label_set_from_names(names)
    _write_new(Path(out), labels)
    return labels


def write_vggsound_labels(
    out: str | Path, csv: str | Path | None = None
) -> tuple[LabelSet, list[str]]:
    """Write VGGSound's 309 classes in their published order.

    Args:
        out: class CSV to write.
        csv: VGGSound's CSV, which is checked to name no other class.

    Returns:
        The label set, and what was corrected in the CSV.

    Raises:
        UserError: the CSV has a bad row, or `out` holds other classes.
    """
    labels, notes = vggsound_labels(), list[str]()
    if csv is not None:
        found = read_vggsound(Path(csv), labels).notes
        found.refuse_bad_rows(csv)
        notes = found.lines(csv)
    _write_new(Path(out), labels)
    return labels, notes


@dataclass(frozen=True)
class LabelCheck:
    """What was found in a class CSV."""

    classes: int
    shared_names: dict[str, int]  # display names of several classes, and of how many


def check_labels(csv: str | Path) -> LabelCheck:
    """Check a class CSV: header, numbering, and every mid once.

    Raises:
        UserError: it is wrong; with the line.
    """
    names = read_label_csv(Path(csv)).names
    shared = sorted({name for name in names if names.count(name) > 1})
    return LabelCheck(len(names), {name: names.count(name) for name in shared})


def _write_new(path: Path, labels: LabelSet) -> None:
    """Raises:
    UserError: the file exists and has other classes, which manifests may rely on.
    """
    if path.exists() and read_label_csv(path) != labels:
        raise UserError(f"{path}: has other classes. Delete it, or choose another --out.")
    write_label_csv(path, labels)
