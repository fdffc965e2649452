"""A trained model together with what it takes to give it its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from avprep.errors import UserError
from cavmae.checkpoints import load_checkpoint, read_metadata, weights_file
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.frontend.fbank import samples_for
from cavmae.model import CAVMAE, CAVMAEClassifier


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

    def to(self, device: torch.device) -> Trained:
        """The same on a device."""
        return Trained(self.file, self.model.to(device), self.frontend.to(device), self.metadata)


def load_trained(checkpoint: str | Path) -> Trained:
    """Load a run directory or a checkpoint file.

    Raises:
        UserError: nothing there, or not a checkpoint.
    """
    file = weights_file(checkpoint)
    model = load_checkpoint(file).eval()
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


def require_classifier(trained: Trained) -> CAVMAEClassifier:
    """The model, if it is a classifier.

    Raises:
        UserError: it is a pretrained model.
    """
    if not isinstance(trained.model, CAVMAEClassifier):
        raise UserError(
            f"{trained.file}: a pretrained model without a classifier; run `cavmae finetune`."
        )
    return trained.model


def require_pretrained(trained: Trained) -> CAVMAE:
    """The model, if it has a decoder.

    Raises:
        UserError: it is a classifier.
    """
    if not isinstance(trained.model, CAVMAE):
        raise UserError(
            f"{trained.file}: a classifier, which has no decoder; give a pretrained model."
        )
    return trained.model
