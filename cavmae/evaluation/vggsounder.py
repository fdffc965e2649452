"""VGGSounder's figures: how well a classifier finds what is heard, what is seen, and both.

Labels have a modality: heard (A), seen (V) or both (AV). Each kind of truth below asks for some of
them, of the clips that have one. Names and figures are those of the Python package vggsounder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.manifest.sources.rows import CsvNotes
from avprep.manifest.sources.vggsounder import META, MODALITIES, read_annotations
from cavmae.evaluation.metrics import score

TOP = (1, 3, 5, 10)
_AUDIBLE, _VISIBLE = 1, 2  # bits of a label's modality
_BITS = dict(zip(MODALITIES, (_AUDIBLE, _VISIBLE, _AUDIBLE | _VISIBLE), strict=True))
# Names of the kinds of truth, and the modalities of the labels that each asks for.
TRUTHS: dict[str, tuple[int, ...]] = {
    "a": (_AUDIBLE, _AUDIBLE | _VISIBLE),
    "v": (_VISIBLE, _AUDIBLE | _VISIBLE),
    "av": (_AUDIBLE | _VISIBLE,),
    "a only": (_AUDIBLE,),
    "v only": (_VISIBLE,),
    "all": (_AUDIBLE, _VISIBLE, _AUDIBLE | _VISIBLE),
}
ALL_CLIPS = "all clips"

Figures = dict[str, float]


@dataclass(frozen=True)
class Annotations:
    """What VGGSounder says of some clips.

    Attributes:
        modalities: uint8 [clips, classes], 0 where the clip lacks the label.
        meta: bool [clips, facts], in the order of `META`.
    """

    modalities: NDArray[np.uint8]
    meta: NDArray[np.bool_]

    def truth(self, name: str) -> NDArray[np.bool_]:
        """[clips, classes]: the labels that a kind of truth asks for."""
        return np.isin(self.modalities, TRUTHS[name])

    def subsets(self) -> dict[str, NDArray[np.bool_]]:
        """By name, which clips are in it."""
        found = {ALL_CLIPS: np.ones(len(self.meta), bool)}
        for place, name in enumerate(META):
            words = name.replace("_", " ")
            found[words] = self.meta[:, place]
            found[f"no {words}"] = ~self.meta[:, place]
        return found


def annotations_of(csv: Path, video_ids: list[str], labels: LabelSet) -> Annotations:
    """What VGGSounder's CSV says of clips that it names.

    Raises:
        UserError: the file cannot be read, or has a row that cannot be used.
    """
    notes = CsvNotes()
    known = read_annotations(csv, labels, notes)
    for line, reason in notes.bad:
        raise UserError(f"{csv}: line {line}: {reason}.")
    modalities = np.zeros((len(video_ids), len(labels)), np.uint8)
    meta = np.zeros((len(video_ids), len(META)), bool)
    for row, video_id in enumerate(video_ids):
        clip = known[video_id]
        meta[row] = clip.meta
        for mid, modality in clip.modalities.items():
            modalities[row, labels.index_of(mid)] = _BITS[modality]
    return Annotations(modalities, meta)


def subset_figures(
    scores: NDArray[np.float64], annotations: Annotations
) -> dict[str, dict[str, Figures]]:
    """By subset of the clips and kind of truth."""
    order = np.argsort(scores, axis=1)
    truths = {name: annotations.truth(name) for name in TRUTHS}
    return {
        subset: {
            name: figures(scores[chosen], truth[chosen], order[chosen])
            for name, truth in truths.items()
        }
        for subset, chosen in annotations.subsets().items()
    }


def figures(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], order: NDArray[np.int64]
) -> Figures:
    """Of the clips that have a label.

    For each k, the k classes with the highest scores are the prediction: `hit_rate` is the share of
    clips with a right one among them, `accuracy` of those whose labels are exactly these;
    `precision`, `recall`, `f1` and `jaccard` are over all clips and classes together, `f1_macro` is
    the mean over the classes; `auc_roc` and `auc_pr` are means over the classes that have a clip.

    Args:
        scores: [clips, classes].
        truth: [clips, classes].
        order: [clips, classes], the classes of each clip by rising score.
    """
    labelled = truth.any(axis=1)
    scores, truth, order = scores[labelled], truth[labelled], order[labelled]
    found: Figures = {"clips": len(truth)}
    if not len(truth):
        return found
    for k in TOP:
        predicted = np.zeros_like(truth)
        np.put_along_axis(predicted, order[:, -k:], True, axis=1)
        right = truth & predicted
        hits, asked, given = right.sum(), truth.sum(), predicted.sum()
        per_class = truth.sum(axis=0) + predicted.sum(axis=0)
        found |= {
            f"hit_rate@{k}": float(right.any(axis=1).mean()),
            f"accuracy@{k}": float((truth == predicted).all(axis=1).mean()),
            f"precision@{k}": float(hits / given),
            f"recall@{k}": float(hits / asked),
            f"f1@{k}": float(2 * hits / (asked + given)),
            f"f1_macro@{k}": float((2 * right.sum(axis=0) / per_class.clip(min=1)).mean()),
            f"jaccard@{k}": float(hits / (asked + given - hits)),
        }
    curves = score(scores, truth.astype(np.float64))
    return {**found, "auc_roc": curves.auc, "auc_pr": curves.map}


def confusion(
    both: NDArray[np.float64],
    audio: NDArray[np.float64],
    image: NDArray[np.float64],
    truth: NDArray[np.bool_],
) -> Mapping[str, float]:
    """How often one modality finds a label first that both together do not (the package's `mu`).

    Args:
        both: [clips, classes], scores of sound and picture together.
        audio: likewise, of the sound.
        image: likewise, of the picture.
        truth: [clips, classes], all labels.
    """
    labelled = truth.any(axis=1)
    rows = np.flatnonzero(labelled)
    by_both, by_audio, by_image = (
        truth[rows, np.argsort(scores[rows], axis=1)[:, -1]] for scores in (both, audio, image)
    )
    return {
        "a": float((by_audio & ~by_both).mean()),
        "v": float((by_image & ~by_both).mean()),
        "av": float((by_audio & by_image & ~by_both).mean()),
    }
