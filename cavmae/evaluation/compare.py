"""`cavmae compare`: is one classifier better than another, or was it luck?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from avprep.errors import UserError
from avprep.wording import counted, first_of
from cavmae.checkpoints.usage import other_classes
from cavmae.evaluation.bootstrap import Interval, draw, drawn_figures, interval
from cavmae.evaluation.metrics import score
from cavmae.evaluation.options import CompareOptions
from cavmae.evaluation.score_files import ClipScores, read_scores


@dataclass(frozen=True)
class Difference:
    """One figure of two classifiers.

    Attributes:
        first, second: the figure of each.
        interval: of second - first, in 95 % of the draws of clips.
        p_value: how often draws would differ as much if the classifiers were equally good.
    """

    first: float
    second: float
    interval: Interval
    p_value: float


@dataclass(frozen=True)
class CompareResult:
    """Two classifiers on the same clips.

    Attributes:
        first, second: the files of scores.
        figures: accuracy and mAP, by name.
        clips: number of clips in both files.
        only_first, only_second: number of clips in only one of the files, left out.
        draws: number of bootstrap draws.
    """

    first: Path
    second: Path
    figures: dict[str, Difference]
    clips: int
    only_first: int
    only_second: int
    draws: int


def compare(first: Path, second: Path, options: CompareOptions = CompareOptions()) -> CompareResult:
    """Compare two files of scores clip by clip.

    The bootstrap is paired: each draw takes the same clips from both.

    Args:
        first: a file that `cavmae eval --scores` wrote.
        second: the other one.
        options: which clips, and how many draws.

    Raises:
        UserError: not files of scores, or not of the same clips, labels, classes and kind.
    """
    first, second = Path(first), Path(second)
    one, other = read_scores(first), read_scores(second)
    _check_alike(first, one, second, other)
    # By name, so that neither the order of the files nor of their clips changes the draws.
    rows, places = (
        {each.video_ids[row]: row for row in np.argsort(each.video_ids)} for each in (one, other)
    )
    both = [video_id for video_id in rows if video_id in places]
    only_first = sorted(rows.keys() - places.keys())
    only_second = sorted(places.keys() - rows.keys())
    if not both:
        raise UserError(
            f"{first} and {second} have no clip in common; they name {first_of(only_first, 1)} and "
            f"{first_of(only_second, 1)}. Evaluate both on the same shard set."
        )
    if (only_first or only_second) and not options.common:
        extra = [
            f"{counted(len(ids), 'clip')} of {file} ({first_of(ids, 3)})"
            for file, ids in ((first, only_first), (second, only_second))
            if ids
        ]
        raise UserError(
            f"{first} and {second} are not of the same clips: {' and '.join(extra)} not in the "
            f"other. --common compares the {len(both)} that both have."
        )
    own = one.only(np.array([rows[video_id] for video_id in both]))
    others = other.only(np.array([places[video_id] for video_id in both]))
    if (odd := np.flatnonzero((own.labels != others.labels).any(axis=1))).size:
        raise UserError(
            f"{first} and {second} disagree on the labels of {len(odd)} clips, such as "
            f"{own.video_ids[odd[0]]}: {', '.join(own.mids_of(odd[0])) or 'none'}, and "
            f"{', '.join(others.mids_of(odd[0])) or 'none'}. Evaluate both on the same shard set."
        )
    return CompareResult(
        first,
        second,
        _differences(own, others, options),
        clips=len(both),
        only_first=len(only_first),
        only_second=len(only_second),
        draws=options.bootstrap,
    )


def _check_alike(first: Path, one: ClipScores, second: Path, other: ClipScores) -> None:
    if odd := other_classes(one.classes, other.classes):
        raise UserError(f"{first} and {second} have different classes: {odd}.")
    if one.kind != other.kind:
        raise UserError(
            f"{first} holds {one.kind}, {second} {other.kind}. Write both with the same "
            "--score-kind."
        )


def _differences(
    one: ClipScores, other: ClipScores, options: CompareOptions
) -> dict[str, Difference]:
    truth = one.labels
    before, after = (score(each.scores, truth.astype(np.float64)) for each in (one, other))

    def drawn(weights: Tensor) -> dict[str, Tensor]:
        first = drawn_figures(one.scores, truth, weights)
        second = drawn_figures(other.scores, truth, weights)
        return {name: second[name] - first[name] for name in first}

    draws = draw(len(truth), options.bootstrap, options.bootstrap_seed, drawn)
    return {
        name: Difference(getattr(before, name), getattr(after, name), interval(d), p_value(d))
        for name, d in draws.items()
    }


def p_value(differences: Tensor) -> float:
    """Two-sided: twice the share of draws in which the difference is zero or of the other sign.

    No smaller than what this many draws can tell.
    """
    known = differences[~differences.isnan()]
    fewer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(known) + 1))
