"""A manifest from a folder of videos: its sub-folders are the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avprep.clips import Clip, discover_clips, is_writable
from avprep.extraction import audio_path, is_extracted
from avprep.labels import LabelSet, label_set_for
from avprep.manifest.build import Finding


def folder_manifest(root: Path, extracted: Path | None = None) -> tuple[list[Clip], LabelSet]:
    """The clips of a folder and their classes; see `label_by_folder`.

    Raises:
        UserError: no such folder, or no video in it.
    """
    return label_by_folder(discover_clips(root), root, extracted)


def label_by_folder(
    clips: Sequence[Clip],
    root: Path,
    extracted: Path | None = None,
    labels: LabelSet | None = None,
    label_file: object = "the class CSV",
) -> tuple[list[Clip], LabelSet]:
    """Label each clip with the first-level sub-folder that it lies in.

    Videos directly in `root` stay unlabelled, which is enough to pretrain on.

    Args:
        clips: of videos below `root`.
        root: folder of videos.
        extracted: what `avprep extract` wrote for the same folder; clips found there get `wav`
            and `video_path`.
        labels: the label set to use; None to number the sorted sub-folders.
        label_file: where that label set is, for the message.

    Raises:
        UserError: a sub-folder is not in the label set.
    """
    names = [class_of(clip, root) for clip in clips]
    label_set, mids = label_set_for(filter(None, names), labels, label_file)
    return [
        with_extracted(replace(clip, labels=(mids[name],) if name else ()), extracted)
        for clip, name in zip(clips, names, strict=True)
    ], label_set


@dataclass(frozen=True)
class MatchedFolder:
    """The videos of a folder.

    Attributes:
        labelled: the clips.
        labels: the label set.
        unnameable: videos whose path is not UTF-8 and cannot stand in a manifest.
    """

    labelled: list[Clip]
    labels: LabelSet
    unnameable: list[Clip]

    def clips(self) -> Iterator[Clip]:
        """The clips, by path."""
        return iter(self.labelled)

    def report(self) -> Iterator[Finding]:
        """What became of every file."""
        for clip in self.labelled:
            yield Finding("matched", clip.video_id, path=clip.wav or clip.video)
        for clip in self.unnameable:
            yield Finding("extra", path=clip.video, detail="its path is not UTF-8; rename it")

    def notes(self, source: object) -> list[str]:
        """What a person should know."""
        notes = []
        unlabelled = sum(not clip.labels for clip in self.labelled)
        if unlabelled and len(self.labels):
            notes.append(
                f"{source}: {unlabelled} videos lie in no class folder and stay unlabelled"
            )
        if self.unnameable:
            notes.append(f"{source}: {len(self.unnameable)} paths are not UTF-8 and are left out")
        return notes

    def why_nothing_matched(self) -> str:
        """What was there."""
        return f"not one of its {len(self.unnameable)} videos has a path that is UTF-8."


def match_folder(
    root: Path,
    extracted: Path | None,
    labels: LabelSet | None,
    label_file: object,
    on_file: Callable[[], object] = lambda: None,
) -> MatchedFolder:
    """The clips of a folder; for the arguments see `label_by_folder` and `discover_clips`.

    Raises:
        UserError: no such folder, no video in it, or a sub-folder is not in the label set.
    """
    clips = discover_clips(root, on_file)
    good = [clip for clip in clips if is_writable(clip.video)]
    bad = [clip for clip in clips if not is_writable(clip.video)]
    return MatchedFolder(*label_by_folder(good, root, extracted, labels, label_file), bad)


def class_of(clip: Clip, root: Path) -> str:
    """The first-level sub-folder that a video below `root` lies in; "" for none."""
    parts = Path(clip.video).relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def with_extracted(clip: Clip, extracted: Path | None) -> Clip:
    """A clip with its audio and frames below `extracted`, if they are there."""
    if extracted is None:
        return clip
    if not is_extracted(extracted, clip.video_id):
        return clip
    wav = audio_path(extracted, clip.video_id)
    return replace(clip, wav=str(wav), video_path=str(extracted / "frames"))
