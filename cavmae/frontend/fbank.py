"""Log-mel filter banks as Kaldi computes them, for a batch, on any device."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16000
WINDOW = 400  # samples, 25 ms
SHIFT = 160  # samples, 10 ms
FFT = 512
MEL_BINS = 128
_LOWEST, _HIGHEST = 20.0, 8000.0  # Hz
_PREEMPHASIS = 0.97
_FLOOR = 1.1920928955078125e-07  # Kaldi's, the float32 epsilon


def frame_count(samples: Tensor) -> Tensor:
    """Frames of a waveform: whole windows only. int64 [B] → int64 [B]."""
    return torch.where(samples < WINDOW, 0, 1 + (samples - WINDOW) // SHIFT)


def samples_for(frames: int) -> int:
    """The fewest samples that give so many frames."""
    return WINDOW + (frames - 1) * SHIFT


def fbank(waveform: Tensor) -> Tensor:
    """Log-mel energies, equal to `torchaudio.compliance.kaldi.fbank` with a `hanning` window.

    Args:
        waveform: float32 [B, samples], in [-1, 1], its mean taken out. Rows shorter than the
            longest are padded at their end; frames that reach into the padding mean nothing.

    Returns:
        float32 [B, frames, 128].
    """
    with torch.autocast(waveform.device.type, enabled=False):
        frames = waveform.float().unfold(1, WINDOW, SHIFT)  # [B, frames, 400]
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - _PREEMPHASIS * previous) * _window(waveform.device)
        power = torch.fft.rfft(frames, FFT).abs().square()
        energies = F.linear(power, _mel_banks(waveform.device))
        return energies.clamp_min(_FLOOR).log()


@functools.cache
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(WINDOW, periodic=False, device=device)


@functools.cache
def _mel_banks(device: torch.device) -> Tensor:
    """Triangles that are equal on the mel scale: float32 [128, 257]; the Nyquist column is 0.

    Computed in single precision like Kaldi's: where a triangle only just touches a frequency, its
    rounding shows in the logarithm.
    """
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (_LOWEST, _HIGHEST))
    step = (high - low) / (MEL_BINS + 1)
    position = torch.arange(MEL_BINS)[:, None]
    left, centre, right = (low + (position + offset) * step for offset in (0.0, 1.0, 2.0))
    hertz = SAMPLE_RATE / FFT * torch.arange(FFT // 2)
    mel = 1127.0 * (1.0 + hertz / 700.0).log()
    up, down = (mel - left) / (centre - left), (right - mel) / (right - centre)
    triangles = torch.minimum(up, down).clamp_min(0.0)
    return F.pad(triangles, (0, 1)).to(device)
