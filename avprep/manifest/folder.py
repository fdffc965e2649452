"""A manifest from a folder of videos: its sub-folders are the classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from avprep.clips import Clip, discover_clips
from avprep.extraction import audio_path
from avprep.labels import LabelSet, label_set_from_names


def folder_manifest(root: Path, extracted: Path | None = None) -> tuple[list[Clip], LabelSet]:
    """The clips of a folder, labelled by the sub-folder they lie in.

    Videos directly in `root` stay unlabelled, which is enough to pretrain on.

    Args:
        root: folder of videos.
        extracted: what `avprep extract` wrote for the same folder; clips found there get `wav`
            and `video_path`.

    Raises:
        UserError: no such folder, or no video in it.
    """
    clips = discover_clips(root)
    classes = {clip.video_id: _class_of(clip, root) for clip in clips}
    labels = label_set_from_names(name for name in classes.values() if name)
    mids = dict(zip(labels.names, labels.mids, strict=True))
    return [
        _with_files(replace(clip, labels=(mids[name],) if name else ()), extracted)
        for clip, name in ((clip, classes[clip.video_id]) for clip in clips)
    ], labels


def _class_of(clip: Clip, root: Path) -> str:
    parts = Path(clip.video).relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _with_files(clip: Clip, extracted: Path | None) -> Clip:
    if extracted is None:
        return clip
    wav = audio_path(extracted, clip.video_id)
    if not wav.exists():
        return clip
    return replace(clip, wav=str(wav), video_path=str(extracted / "frames"))
