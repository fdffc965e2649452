"""How a classifier is to be used: its mode, criterion and classes, and what had to be assumed.

Our files say all three. A published `.pth` holds tensors alone, so what a person or a recipe does
not state is assumed, and every assumption is put into words for the person to check.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avprep.errors import UserError
from avprep.labels import LabelSet
from cavmae.options import CRITERIA, MODES, Criterion, Mode, StatedUsage

if TYPE_CHECKING:
    from cavmae.data import ShardSet


@dataclass(frozen=True)
class Usage:
    """How a classifier is used, and in words what was assumed."""

    mode: Mode
    criterion: Criterion
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PublishedClasses:
    """The classes of the published classifiers of one data set.

    Attributes:
        dataset: its name.
        criterion: they were trained with.
        column: that tells classes apart: 0 the mid, 1 the display name.
        sha256: of that column, a line per class in the published order.
    """

    dataset: str
    criterion: Criterion
    column: int
    sha256: str


STORE_LABELS = "`cavmae convert --labels CSV` stores its own."  # what to do about such a file
_PUBLISHED = {  # by the number of classes
    527: PublishedClasses(
        "AudioSet", "bce", 0, "fbd94e8a38594c56e778359b1bf3c59f4c669023df8780e7a234d87b93f6e463"
    ),
    309: PublishedClasses(
        "VGGSound", "ce", 1, "819f2132d637b662e8ae5a88b4edd742bff10c3dbbc5b9a7d8c1f476675024c9"
    ),
}


def usage_of(
    file: Path,
    metadata: Mapping[str, str],
    num_classes: int,
    flags: StatedUsage,
    recipe: StatedUsage = StatedUsage(),
) -> Usage:
    """The mode and criterion of a classifier.

    A flag decides, else what the file stores, else the recipe, else a guess.

    Args:
        file: of the classifier, for the notes.
        metadata: strings stored with its weights.
        num_classes: that it tells apart.
        flags: what the person at the command line says.
        recipe: what the recipe says, if there is one.

    Raises:
        UserError: the file stores a mode or criterion that does not exist.
    """
    published = _PUBLISHED.get(num_classes)
    guess: Criterion = published.criterion if published else "bce"
    data = f" as for {published.dataset}'s {num_classes} classes" if published else ""
    mode, of_mode = _resolve(file, metadata, "mode", MODES, flags, recipe, "multimodal", "")
    criterion, of_criterion = _resolve(
        file, metadata, "criterion", CRITERIA, flags, recipe, guess, data
    )
    return Usage(mode, criterion, (*of_mode, *of_criterion))


def _resolve(
    file: Path,
    metadata: Mapping[str, str],
    name: str,
    choices: Sequence[Any],
    flags: StatedUsage,
    recipe: StatedUsage,
    guess: Any,
    why: str,
) -> tuple[Any, tuple[str, ...]]:
    """The value of one property, and what to say about it."""
    stored, flag, of_recipe = metadata.get(name), getattr(flags, name), getattr(recipe, name)
    if stored is not None and stored not in choices:
        raise UserError(f"{file}: stores {name} {stored!r}; expected one of {', '.join(choices)}.")
    if flag is not None:
        if name == "criterion" and stored not in (None, flag):
            return flag, (f"{file}: was trained with criterion {stored}; {flag} is used as asked.",)
        return flag, ()
    if stored is not None:
        if of_recipe not in (None, stored):
            note = (
                f"{file}: was trained with {name} {stored}, which is used; the recipe says "
                f"{of_recipe}. --{name} overrides both."
            )
            return stored, (note,)
        return stored, ()
    if of_recipe is not None:
        note = f"{file}: stores no {name}; {of_recipe} is used, as the recipe says."
        return of_recipe, (note,)
    note = f"{file}: stores no {name}; {guess} is assumed{why}. Give --{name} if that is wrong."
    return guess, (note,)


def check_mode(file: Path, mode: Mode, modes: Sequence[Mode]) -> None:
    """Raises UserError where a classifier does not have the weights of a mode."""
    if mode not in modes:
        raise UserError(
            f"{file}: --mode {mode} needs weights that it does not have; give --mode "
            f"{' or '.join(modes)}."
        )


def stored_labels(metadata: Mapping[str, str]) -> LabelSet | None:
    """The classes that a classifier's file names; None for none.

    A file that has mids and no names gives the mids as names.

    Raises:
        ValueError: it has something else there.
    """
    mids = json.loads(metadata.get("labels", "null"))
    if mids is None:
        return None
    names = json.loads(metadata.get("label_names", "null")) or mids
    if not (isinstance(mids, list) and isinstance(names, list) and len(mids) == len(names)):
        raise ValueError("not a mid and a name for each class")
    if not all(isinstance(text, str) for text in (*mids, *names)):
        raise ValueError("mids and names are text")
    return LabelSet(tuple(mids), tuple(names))


def check_metadata(file: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """What is stored with weights, which somebody else may have written.

    Raises:
        UserError: labels or fbank statistics that cannot be.
    """
    what = "labels"
    try:
        stored_labels(metadata)
        for what in ("fbank_mean", "fbank_std"):
            value = float(metadata.get(what, 1))
            if not math.isfinite(value) or (what == "fbank_std" and value <= 0):
                raise ValueError(f"{value} cannot be")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: stores {what} that cannot be used ({error}).") from error
    return dict(metadata)


def labels_metadata(labels: LabelSet) -> dict[str, str]:
    """The strings that `stored_labels` reads."""
    return {"labels": json.dumps(labels.mids), "label_names": json.dumps(labels.names)}


def labels_of(
    file: Path, metadata: Mapping[str, str], num_classes: int, given: LabelSet | None
) -> LabelSet | None:
    """The classes of a classifier: those that a person gives, else those that its file names.

    Raises:
        UserError: not as many as it tells apart, or others than its file names.
    """
    stored = stored_labels(metadata)
    labels = given or stored
    if labels is not None and len(labels) != num_classes:
        raise UserError(
            f"{file}: classifies {num_classes} classes, the label set has {len(labels)}. Give the "
            "class CSV that it was trained with."
        )
    if given is not None and stored is not None and (odd := other_classes(stored, given)):
        raise UserError(f"{file}: was trained with another label set than --labels gives: {odd}.")
    return labels


def other_classes(one: LabelSet, other: LabelSet) -> str:
    """How two label sets differ: the first class with another mid; empty if there is none."""
    if len(one) != len(other):
        return f"{len(one)} classes, not {len(other)}"
    order = " (the same classes in another order)" if set(one.mids) == set(other.mids) else ""
    for index, (mine, theirs) in enumerate(zip(one.mids, other.mids, strict=True)):
        if mine != theirs:
            return f"class {index} is {mine!r}, not {theirs!r}{order}"
    return ""


def check_same_classes(shards: ShardSet, validation: ShardSet) -> None:
    """Raises UserError where two shard sets number their classes differently."""
    if odd := other_classes(validation.label_set, shards.label_set):
        raise UserError(
            f"{validation.location}: has another label set than {shards.location}: {odd}. "
            "Shard both with the same --labels."
        )


def assumed_classes(file: Path, labels: LabelSet, where: str) -> str:
    """The warning about a classifier that stores no label set.

    Args:
        file: of the classifier.
        labels: the label set that its classes are taken for.
        where: that label set is from.
    """
    published = _PUBLISHED.get(len(labels))
    order = "."
    if published is not None and is_published_order(labels):
        order = f", which is the published order of {published.dataset}."
    elif published is not None:
        order = (
            f", which is not the published order of {published.dataset}: a published classifier "
            "would be scored against the wrong classes."
        )
    return (
        f"{file}: stores no label set. Its {len(labels)} classes are taken for those of {where}, "
        f"in that order{order}"
    )


def label_notes(
    file: Path, metadata: Mapping[str, str], labels: LabelSet | None, consequence: str
) -> tuple[str, ...]:
    """What to say about the classes that `labels_of` found.

    Args:
        file: of the classifier.
        metadata: strings stored with its weights.
        labels: the classes; None where nobody names them.
        consequence: of having none.
    """
    if labels is None:
        return (f"{file}: stores no label set{consequence}. Give --labels.",)
    if stored_labels(metadata) is None:
        return (assumed_classes(file, labels, "--labels"),)
    return ()


def is_published_order(labels: LabelSet) -> bool:
    """Whether classes are numbered as those of the published classifiers of their data set."""
    published = _PUBLISHED.get(len(labels))
    if published is None:
        return False
    column = (labels.mids, labels.names)[published.column]
    return hashlib.sha256("\n".join(column).encode()).hexdigest() == published.sha256
