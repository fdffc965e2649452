"""VGGSounder's CSV: VGGSound's test clips with several labels each, and where they are perceived.

    video_id,label,modality,background_music,static_image,voice_over
    ---g-f_I2yQ_000001,male singing,A,True,False,False

A row per label. `modality` is A (heard), V (seen) or AV; the others are facts of the clip, the same
in all its rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from avprep.columns import folded
from avprep.csvfile import csv_records, shown
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.manifest.sources.matched import DataSet
from avprep.manifest.sources.rows import (
    CsvNotes,
    Row,
    RowError,
    Segments,
    checked_id,
    checked_label,
)
from avprep.manifest.sources.vggsound import CLIP_SECONDS, segment_of

MODALITIES = ("A", "V", "AV")
META = ("background_music", "static_image", "voice_over")
COLUMNS = ("video_id", "label", "modality", *META)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass
class Annotated:
    """What is known of a clip.

    Attributes:
        line: of the CSV, its first.
        meta: its facts, in the order of `META`.
        modalities: by mid, how each of its labels is perceived, one of `MODALITIES`.
    """

    line: int
    meta: tuple[bool, ...]
    modalities: dict[str, str] = field(default_factory=dict)


def read_vggsounder(path: Path, labels: LabelSet) -> DataSet:
    """The clips of VGGSounder's CSV, each with all its labels.

    Raises:
        UserError: the file cannot be read, has other columns, or no rows.
    """
    notes = CsvNotes()
    segments = Segments()
    for video_id, clip in read_annotations(path, labels, notes).items():
        found = segment_of(video_id)
        if found is None:
            notes.bad.append((clip.line, f"expected an id such as ID_000030, found {video_id!r}"))
            continue
        name, start = found
        mids = tuple(clip.modalities)
        segments.add(Row(clip.line, name, start, start + CLIP_SECONDS, mids, "test"))
    return DataSet(segments, labels, notes, named_by="id and start")


def read_annotations(path: Path, labels: LabelSet, notes: CsvNotes) -> dict[str, Annotated]:
    """What VGGSounder's CSV says of each clip, by video_id; rows that cannot be used go to `notes`.

    Raises:
        UserError: the file cannot be read, has other columns, or no rows.
    """
    records = csv_records(path)
    _, header = next(records, (1, []))
    names = [folded(name) for name in header]
    if missing := [name for name in COLUMNS if folded(name) not in names]:
        found = shown(",".join(header)) if header else "nothing"
        raise UserError(
            f"{path}: line 1 must name {','.join(COLUMNS)}, and lacks {', '.join(missing)}: found "
            f"{found}. VGGSounder's CSV comes with its Python package, vggsounder."
        )
    places = [names.index(folded(name)) for name in COLUMNS]
    clips: dict[str, Annotated] = {}
    count = 0
    for line, row in records:
        count += 1
        try:
            if len(row) != len(header):
                raise RowError(f"has {len(row)} fields, line 1 has {len(header)}")
            _add(clips, line, [row[place].strip() for place in places], labels, notes)
        except RowError as error:
            notes.bad.append((line, str(error)))
    if not count:
        raise UserError(f"{path}: has no rows below its first line.")
    return clips


def _add(
    clips: dict[str, Annotated], line: int, cells: list[str], labels: LabelSet, notes: CsvNotes
) -> None:
    """Add a row to its clip.

    Raises:
        RowError: it cannot be used, or contradicts an earlier row of the clip.
    """
    name, label, modality, *flags = cells
    video_id = checked_id(name)
    mid = checked_label(label, labels, notes)
    if modality.upper() not in MODALITIES:
        raise RowError(f"the modality must be A, V or AV, found {shown(modality)}")
    for what, flag in zip(META, flags, strict=True):
        if flag.casefold() not in _FLAGS:
            raise RowError(f"{what} must be True or False, found {shown(flag)}")
    meta = tuple(_FLAGS[flag.casefold()] for flag in flags)
    clip = clips.get(video_id) or Annotated(line, meta)
    if clip.meta != meta:
        raise RowError(f"contradicts line {clip.line}, of the same clip, in {', '.join(META)}")
    if clip.modalities.setdefault(mid, modality.upper()) != modality.upper():
        raise RowError(f"gives {shown(label)} another modality than an earlier row of the clip")
    clips[video_id] = clip
