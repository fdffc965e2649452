"""Long videos cut into pieces, which become clips of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from avprep.clips import Clip
from avprep.errors import Unreadable, UserError
from avprep.manifest.sources.match import Matches
from avprep.manifest.sources.matched import Matched
from avprep.manifest.sources.rows import Segments
from avprep.options import PieceOptions
from avprep.wording import counted

_AS_GOOD_AS_WHOLE = 0.1  # seconds that a last piece may lack, since the ends of files are inexact

Lengths: TypeAlias = Callable[[Sequence[Clip]], Iterable[tuple[Clip, float | Unreadable]]]


def pieces_of(length: float, options: PieceOptions) -> list[tuple[float, float]]:
    """(start, end) of the pieces of a video, in seconds.

    They begin every `stride` seconds and last `segment` seconds. The first one that reaches the
    video's end is the last; it may be shorter, and is left out if it is shorter than `shortest`.
    """
    assert options.segment is not None
    found: list[tuple[float, float]] = []
    stride = options.stride or options.segment
    while (start := round(len(found) * stride, 6)) < length:
        end = round(start + options.segment, 6)
        is_last = end >= length - _AS_GOOD_AS_WHOLE
        if end > length + _AS_GOOD_AS_WHOLE:
            end = math.floor(length * 1000) / 1000
        if end - start < options.shortest:
            break
        found.append((start, end))
        if is_last:
            break
    return found


def cut_into_pieces(matched: Matched, options: PieceOptions, lengths_of: Lengths) -> Matched:
    """The clips of a manifest, each cut into pieces: `NAME_30_40` from 30 s to 40 s.

    Args:
        matched: whole videos.
        options: how they are cut.
        lengths_of: measures the videos of clips, in any order.

    Raises:
        UserError: rows have times already.
    """
    rows, videos = matched.data_set.segments.rows, matched.videos.paths
    if any(row.start is not None or row.end is not None for row in rows):
        raise UserError("--segment: rows of the table have times already. Leave one of them out.")
    wanted = [
        Clip(str(place), video=video, start=0.0)  # as a segment, which may be read in parts
        for place, video in enumerate(videos)
        if video and matched.data_set.wants(rows[place])
    ]
    lengths = {int(clip.video_id): length for clip, length in lengths_of(wanted)}
    segments, ids, paths = Segments(), list[str](), list[str]()
    extras, lost = [*matched.videos.extras], [*matched.scan.lost]
    for place, row in enumerate(rows):
        length = lengths.get(place)
        if isinstance(length, Unreadable):
            lost.append((videos[place], f"cannot be measured: {length.cause}: {length.detail}"))
            continue
        pieces = [] if length is None else pieces_of(length, options)
        if length is not None and not pieces:
            reason = f"lasts {length:.3f} s, which is shorter than --shortest"
            extras.append((videos[place], reason))
        for start, end in pieces:
            segments.add(row._replace(start=start, end=end))
            ids.append(f"{matched.ids[place]}_{start:.10g}_{end:.10g}")
            paths.append(videos[place])
        if length is None:
            segments.add(row)
            ids.append(matched.ids[place])
            paths.append("")
    unmeasured = len(lost) - len(matched.scan.lost)
    return replace(
        matched,
        data_set=replace(matched.data_set, segments=segments),
        ids=ids,
        videos=Matches.named(paths, extras),
        audio=Matches.named([""] * len(ids)),
        is_cut=True,
        scan=replace(matched.scan, lost=lost),
        remarks=[
            *matched.remarks,
            *([f"{counted(unmeasured, 'video')} cannot be measured"] if unmeasured else ()),
        ],
    )
