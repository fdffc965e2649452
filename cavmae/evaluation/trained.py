"""A trained model together with what it takes to give it its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from avprep.errors import UserError
from avprep.labels import LabelSet, read_label_csv
from cavmae.checkpoints import load_checkpoint, read_metadata, weights_file
from cavmae.checkpoints.resize import resized
from cavmae.checkpoints.usage import Usage, check_mode, label_notes, labels_of, usage_of
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.frontend.fbank import samples_for
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.options import StatedUsage

OnNote = Callable[[str], object]  # gets what had to be assumed, in words, before the work begins
AnyTrained = TypeVar("AnyTrained", bound="Trained")


@dataclass(frozen=True)
class Trained:
    """A checkpoint, loaded.

    Attributes:
        file: the file of weights.
        model: in evaluation mode.
        frontend: with the fbank mean and std the model was trained with.
        metadata: strings stored with the weights; empty for a published file.
    """

    file: Path
    model: CAVMAE | CAVMAEClassifier
    frontend: FrontEnd
    metadata: dict[str, str]

    @property
    def longest(self) -> int:
        """Samples of audio the model can see; what comes after them is left out."""
        return samples_for(self.frontend.options.target_length)

    def to(self: AnyTrained, device: torch.device) -> AnyTrained:
        """The same on a device."""
        return replace(self, model=self.model.to(device), frontend=self.frontend.to(device))


@dataclass(frozen=True)
class Classifier(Trained):
    """A classifier, loaded.

    Attributes:
        usage: its mode and criterion.
        labels: its classes; None where neither its file nor a person names them.
    """

    model: CAVMAEClassifier
    usage: Usage
    labels: LabelSet | None

    def notes(self, unnamed: str) -> tuple[str, ...]:
        """What had to be assumed, in words.

        Args:
            unnamed: what follows from having no names of classes.
        """
        return (
            *self.usage.notes,
            *label_notes(self.file, self.metadata, self.labels, unnamed),
        )


def load_trained(checkpoint: str | Path, audio_frames: int | None = None) -> Trained:
    """Load a run directory or a checkpoint file.

    Args:
        checkpoint: the run or file to load.
        audio_frames: fbank rows that the model takes; None for as many as in training.

    Raises:
        UserError: no such file, not a checkpoint, or rows that are not a multiple of the patch
            size.
    """
    file = weights_file(checkpoint)
    model = load_checkpoint(file)
    if audio_frames not in (None, model.config.audio_frames):
        model = resized(model, audio_frames, None)
    model.eval()
    metadata = read_metadata(file)
    defaults = FrontEndOptions()
    frontend = FrontEnd(
        FrontEndOptions(
            target_length=model.config.audio_frames,
            mean=float(metadata.get("fbank_mean", defaults.mean)),
            std=float(metadata.get("fbank_std", defaults.std)),
        )
    )
    return Trained(file, model, frontend, metadata)


def load_classifier(
    checkpoint: str | Path, stated: StatedUsage, recipe: StatedUsage = StatedUsage()
) -> Classifier:
    """Load a classifier and settle how it is used.

    Args:
        checkpoint: a finetuning run or a checkpoint file.
        stated: what a person says of it, which decides.
        recipe: what a recipe says of it, where neither a person nor its file says anything.

    Raises:
        UserError: nothing there, not a classifier, or what is stated does not fit it.
    """
    return as_classifier(load_trained(checkpoint), stated, recipe)


def as_classifier(
    trained: Trained, stated: StatedUsage, recipe: StatedUsage = StatedUsage()
) -> Classifier:
    """A model that was loaded, with how it is used; see `load_classifier`.

    Raises:
        UserError: not a classifier, or what is stated does not fit it.
    """
    if not isinstance(trained.model, CAVMAEClassifier):
        raise UserError(
            f"{trained.file}: a pretrained model without a classifier; run `cavmae finetune`."
        )
    file, metadata, classes = trained.file, trained.metadata, trained.model.num_classes
    usage = usage_of(file, metadata, classes, stated, recipe)
    check_mode(file, usage.mode, trained.model.modes)
    given = read_label_csv(stated.labels) if stated.labels is not None else None
    labels = labels_of(file, metadata, classes, given)
    return Classifier(file, trained.model, trained.frontend, metadata, usage, labels)


def check_contrasts(trained: Trained) -> None:
    """Raises UserError where sounds and images were never compared in training."""
    if not trained.model.config.contrasts:
        raise UserError(
            f"{trained.file}: was pretrained as {trained.model.config.objective}, which never "
            "compares sounds with images; that needs a cav-mae or cav."
        )


def require_pretrained(trained: Trained) -> CAVMAE:
    """The model, if it has a decoder.

    Raises:
        UserError: it is a classifier, or was pretrained by contrast alone.
    """
    if not isinstance(trained.model, CAVMAE):
        raise UserError(
            f"{trained.file}: a classifier, which has no decoder; give a pretrained model."
        )
    if not trained.model.config.reconstructs:
        raise UserError(
            f"{trained.file}: was pretrained as {trained.model.config.objective} and has no "
            "decoder; give a model of another objective."
        )
    return trained.model
