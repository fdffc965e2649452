"""From stored samples to the model's inputs, on the training device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cavmae.data.batch import Batch, Samples
from cavmae.frontend.augment import add_noise_and_roll, spec_augment
from cavmae.frontend.fbank import fbank, frame_count, samples_for
from cavmae.options import AUDIO_FRAMES

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FrontEndOptions:
    """How inputs are made. The last four are for training only."""

    target_length: int = AUDIO_FRAMES  # rows of the fbank; clips are cut or padded
    mean: float = -5.081  # of the fbank; AudioSet's, see `cavmae stats`
    std: float = 4.4849
    freq_mask: int = 0  # SpecAugment: widest band of bins
    time_mask: int = 0  # SpecAugment: longest stretch of frames
    noise: bool = False  # uniform noise and a random rotation in time
    label_smooth: float = 0.0


@dataclass
class Inputs:
    """What a model takes.

    Attributes:
        audio: float32 [B, target_length, 128], normalised log-mel; of padding only if no
            audio is read.
        image: float32 [B, 3, size, size] or [B, frames, 3, size, size], normalised.
        targets: float32 [B, classes], smoothed and mixed.
    """

    audio: Tensor
    image: Tensor
    targets: Tensor


class FrontEnd(nn.Module):
    """Mixup → fbank → SpecAugment → normalise → noise and roll; the published order."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, options: FrontEndOptions) -> None:
        super().__init__()
        self.options = options
        for name, values in (("image_mean", IMAGE_MEAN), ("image_std", IMAGE_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Inputs:
        """Make the inputs of a batch that is already on the device.

        Args:
            batch: see `Batch`.
            generator: of all random steps, on the batch's device. None for evaluation: nothing
                is changed at random and labels stay as they are.
        """
        waveform, lengths = centred(batch)
        image = self.normalise_image(batch.image)
        targets = batch.labels
        if generator is not None:
            targets = smooth(batch.labels, self.options.label_smooth)
        if generator is not None and batch.partners is not None:
            waveform, image, targets = self._mix(batch, waveform, image, targets)
        audio = self.log_mel(waveform, lengths)
        if generator is not None and (self.options.freq_mask or self.options.time_mask):
            options = self.options
            audio = spec_augment(audio, options.freq_mask, options.time_mask, generator)
        audio = audio.sub_(self.options.mean).div_(self.options.std)
        if generator is not None and self.options.noise:
            audio = add_noise_and_roll(audio, generator)
        return Inputs(audio, image, targets)

    def log_mel(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """float [B, samples], int64 [B] → float32 [B, target_length, 128], padded with zeros."""
        rows = self.options.target_length
        energies = fbank(waveform[:, : samples_for(rows)])
        frames = energies.shape[1]
        place = torch.arange(frames, device=waveform.device)
        beyond = place >= frame_count(lengths)[:, None]
        energies.masked_fill_(beyond[:, :, None], 0.0)
        return F.pad(energies, (0, 0, 0, rows - frames))

    def normalise_image(self, image: Tensor) -> Tensor:
        """uint8 [..., 3, H, W] → float32, ImageNet's mean and standard deviation taken out."""
        return image.float().div_(255).sub_(self.image_mean).div_(self.image_std)

    def _mix(
        self, batch: Batch, waveform: Tensor, image: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Blend rows with their partners; the second waveform is padded or cut to the first."""
        partners = batch.partners
        assert partners is not None
        rows = partners.rows
        other, _ = centred(partners)
        length = waveform.shape[1]
        fitted = waveform.new_zeros(len(rows), length)
        fitted[:, : other.shape[1]] = other[:, :length]
        inside = torch.arange(length, device=waveform.device) < batch.lengths[rows][:, None]

        share = partners.share[:, None]
        mixed = (share * waveform[rows] + (1 - share) * fitted) * inside
        mean = mixed.sum(1, keepdim=True) / batch.lengths[rows][:, None]
        waveform = waveform.index_copy(0, rows, (mixed - mean) * inside)

        weight = share.view(-1, *[1] * (image.dim() - 1))
        blended = weight * image[rows] + (1 - weight) * self.normalise_image(partners.image)
        image = image.index_copy(0, rows, blended)

        epsilon = self.options.label_smooth
        base = epsilon / batch.labels.shape[1]
        own = share * (1 - epsilon) * batch.labels[rows]
        theirs = (1 - share) * (1 - epsilon) * partners.labels
        return waveform, image, targets.index_copy(0, rows, base + own + theirs)


def centred(samples: Samples) -> tuple[Tensor, Tensor]:
    """float32 waveforms in [-1, 1] without their mean, zero beyond their lengths."""
    waveform = samples.waveform.float().div_(32768)
    place = torch.arange(waveform.shape[1], device=waveform.device)
    # The padding is zero, so it adds nothing to the sum.
    mean = waveform.sum(1, keepdim=True) / samples.lengths[:, None].clamp_min(1)
    waveform.sub_(mean).masked_fill_(place >= samples.lengths[:, None], 0.0)
    return waveform, samples.lengths


def smooth(labels: Tensor, epsilon: float) -> Tensor:
    """Soft targets without mixup: ε / classes everywhere, 1 - ε at a clip's labels."""
    if not epsilon:
        return labels
    return torch.where(labels > 0, 1 - epsilon, epsilon / labels.shape[1])
