"""A classifier's scores of every clip, in a file: to compare classifiers, or for other programs.

    .npz      video_ids, labels [N, classes], mids, names, about, and the scores
    .parquet  a row per clip: video_id, labels (mids), scores; classes and `about` in the metadata
    .csv      a row per clip: video_id, labels (mids joined by commas), a column per class

The scores are called `probabilities` or `logits`, after what they are; a column of a CSV is called
`probabilities:MID` or `logits:MID`. A CSV has neither the names of the classes nor `about`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.csvfile import csv_records
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.manifest.tables import import_pyarrow
from cavmae.evaluation.arrays import write_npz
from cavmae.evaluation.options import SCORE_FILES, ScoreKind

_KINDS: tuple[ScoreKind, ...] = ("probabilities", "logits")


@dataclass(frozen=True)
class ClipScores:
    """Scores and labels of clips.

    Attributes:
        kind: "probabilities" or "logits".
        video_ids: ids of the clips.
        scores: float64 [N, classes].
        labels: bool [N, classes].
        classes: the classes, in order.
        about: how the scores were made, in strings.
    """

    kind: ScoreKind
    video_ids: tuple[str, ...]
    scores: NDArray[np.float64]
    labels: NDArray[np.bool_]
    classes: LabelSet
    about: Mapping[str, str] = field(default_factory=dict)

    def only(self, rows: NDArray[np.int64]) -> ClipScores:
        """Some of the clips, in this order."""
        return ClipScores(
            self.kind,
            tuple(self.video_ids[row] for row in rows),
            self.scores[rows],
            self.labels[rows],
            self.classes,
            self.about,
        )

    def mids_of(self, row: int) -> list[str]:
        """The labels of a clip."""
        return [self.classes.mids[label] for label in np.flatnonzero(self.labels[row])]


def write_scores(path: Path, found: ClipScores) -> None:
    """Write a file of scores, whole or not at all; its suffix tells the format.

    Raises:
        UserError: no such format, or pyarrow is not installed.
    """
    write, _ = _format_of(path)
    storage.make_folder(path.parent)
    with storage.replacing(path) as file:
        write(file, found)


def read_scores(path: Path) -> ClipScores:
    """Read a file that `write_scores` wrote.

    Raises:
        UserError: no such file, not a file of scores, or pyarrow is missing.
    """
    _, read = _format_of(path)
    try:
        found = read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, TypeError, BadZipFile) as error:
        raise UserError(
            f"{path}: not a file of scores ({error}). `cavmae eval --scores` writes one."
        ) from error
    rows, classes = len(found.video_ids), len(found.classes)
    if found.scores.shape != (rows, classes) or found.labels.shape != (rows, classes):
        raise UserError(
            f"{path}: has {rows} ids and {classes} classes, but scores of shape "
            f"{found.scores.shape} and labels of shape {found.labels.shape}. Write it again."
        )
    if len(set(found.video_ids)) < rows:
        twice = next(name for name in found.video_ids if found.video_ids.count(name) > 1)
        raise UserError(f"{path}: has the clip {twice} twice. Write it again.")
    return found


def _write_npz(file: IO[bytes], found: ClipScores) -> None:
    arrays = {
        "video_ids": np.array(found.video_ids, np.str_),
        found.kind: found.scores,
        "labels": found.labels.astype(np.uint8),
        "mids": np.array(found.classes.mids, np.str_),
        "names": np.array(found.classes.names, np.str_),
        "about": np.array(json.dumps(dict(found.about))),
    }
    write_npz(file, {}, lambda name: iter(()), arrays)


def _read_npz(path: Path) -> ClipScores:
    with np.load(path, allow_pickle=False) as arrays:
        kind = _kind_of(arrays.files)
        return ClipScores(
            kind,
            tuple(arrays["video_ids"].tolist()),
            arrays[kind].astype(np.float64),
            arrays["labels"] > 0,
            LabelSet(tuple(arrays["mids"].tolist()), tuple(arrays["names"].tolist())),
            json.loads(str(arrays["about"])),
        )


def _write_parquet(file: IO[bytes], found: ClipScores) -> None:
    arrow = import_pyarrow()
    import pyarrow.parquet

    classes = len(found.classes)
    columns = {
        "video_id": arrow.array(found.video_ids, arrow.string()),
        "labels": arrow.array(
            map(found.mids_of, range(len(found.video_ids))), arrow.list_(arrow.string())
        ),
        found.kind: arrow.FixedSizeListArray.from_arrays(
            arrow.array(found.scores.reshape(-1)), classes
        ),
    }
    texts = {"mids": found.classes.mids, "names": found.classes.names, "about": dict(found.about)}
    metadata = {name: json.dumps(text) for name, text in texts.items()}
    table = arrow.table(columns).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, file)


def _read_parquet(path: Path) -> ClipScores:
    import_pyarrow()
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path).read()
    kind = _kind_of(table.column_names)
    texts = {name.decode(): json.loads(text) for name, text in (table.schema.metadata or {}).items()
             if name in (b"mids", b"names", b"about")}  # fmt: skip
    classes = LabelSet(tuple(texts["mids"]), tuple(texts["names"]))
    scores = table[kind].combine_chunks().flatten().to_numpy().reshape(-1, len(classes))
    labels = _labels_of(table["labels"].to_pylist(), classes)
    ids = tuple(table["video_id"].to_pylist())
    return ClipScores(kind, ids, scores.astype(np.float64), labels, classes, texts["about"])


def _write_csv(file: IO[bytes], found: ClipScores) -> None:
    text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video_id", "labels", *(f"{found.kind}:{mid}" for mid in found.classes.mids)])
    for row, video_id in enumerate(found.video_ids):
        writer.writerow([video_id, ",".join(found.mids_of(row)), *found.scores[row].tolist()])
    text.flush()
    text.detach()


def _read_csv(path: Path) -> ClipScores:
    records = csv_records(path)
    _, header = next(records, (1, []))
    kind = _kind_of([name.partition(":")[0] for name in header])
    if header[:2] != ["video_id", "labels"] or any(
        not name.startswith(f"{kind}:") for name in header[2:]
    ):
        raise ValueError(f"line 1 is not video_id,labels,{kind}:MID,…")
    mids = tuple(name.partition(":")[2] for name in header[2:])
    classes = LabelSet(mids, mids)
    ids, labels, scores = [], [], []
    for line, row in records:
        if len(row) != len(header):
            raise ValueError(f"line {line} has {len(row)} fields, line 1 has {len(header)}")
        ids.append(row[0])
        labels.append([mid for mid in row[1].split(",") if mid])
        scores.append([float(value) for value in row[2:]])
    table = np.array(scores, np.float64).reshape(len(ids), len(mids))
    return ClipScores(kind, tuple(ids), table, _labels_of(labels, classes), classes)


def _labels_of(mids: list[list[str]], classes: LabelSet) -> NDArray[np.bool_]:
    labels = np.zeros((len(mids), len(classes)), bool)
    for row, own in enumerate(mids):
        labels[row, list(classes.indices_of(own))] = True
    return labels


def _kind_of(names: list[str]) -> ScoreKind:
    kinds = [kind for kind in _KINDS if kind in names]
    if len(kinds) != 1:
        raise ValueError(f"expected one of {', '.join(_KINDS)}, found {', '.join(names[:5])}")
    return kinds[0]


_Writer = Callable[[IO[bytes], ClipScores], None]
_Reader = Callable[[Path], ClipScores]
_FORMATS: dict[str, tuple[_Writer, _Reader]] = {
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
    ".csv": (_write_csv, _read_csv),
}


def _format_of(path: Path) -> tuple[Any, Any]:
    if path.suffix not in _FORMATS:
        raise UserError(f"{path}: the name must end in {', '.join(SCORE_FILES)}.")
    return _FORMATS[path.suffix]
