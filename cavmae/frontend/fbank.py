"""Log-mel filter banks as Kaldi computes them, for a batch, on any device."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.compliance.kaldi import get_mel_banks

from avprep.audio import SAMPLE_RATE

WINDOW = 400  # samples, 25 ms
SHIFT = 160  # samples, 10 ms
FFT = 512
MEL_BINS = 128
_LOWEST, _HIGHEST = 20.0, 8000.0  # Hz
_PREEMPHASIS = 0.97
# A CPU is four times as fast while the frames of one clip fit its cache; on a GPU many clips go
# together, but not so many that their frames take gigabytes.
_ROWS_AT_ONCE = {"cpu": 1, "cuda": 64}
_FLOOR = 1.1920928955078125e-07  # Kaldi's, the float32 epsilon


def frame_count(samples: Tensor) -> Tensor:
    """Frames of a waveform: whole windows only. int64 [B] → int64 [B]."""
    return torch.where(samples < WINDOW, 0, 1 + (samples - WINDOW) // SHIFT)


def samples_for(frames: int) -> int:
    """The fewest samples that give this many frames."""
    return WINDOW + (frames - 1) * SHIFT


def fbank(waveform: Tensor) -> Tensor:
    """Log-mel energies, equal to `torchaudio.compliance.kaldi.fbank` with a `hanning` window.

    Args:
        waveform: float32 [B, samples], in [-1, 1], its mean taken out. Rows shorter than the
            longest are padded at their end; frames that reach into the padding mean nothing.

    Returns:
        float32 [B, frames, 128]; no frame where no row is as long as a window.
    """
    if not len(waveform) or waveform.shape[1] < WINDOW:
        frames = int(frame_count(torch.tensor(waveform.shape[1])))
        return waveform.new_zeros(len(waveform), frames, MEL_BINS, dtype=torch.float32)
    rows = _ROWS_AT_ONCE.get(waveform.device.type, 1)
    with torch.autocast(waveform.device.type, enabled=False):
        return torch.cat([fbank_of_rows(part) for part in waveform.float().split(rows)])


def fbank_of_rows(waveform: Tensor) -> Tensor:
    # Kaldi's order of roundings: where a bin is nearly silent, another order shows.
    frames = waveform.unfold(1, WINDOW, SHIFT)  # [B, frames, 400]
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = frames * _PREEMPHASIS
    frames[..., 1:] -= previous[..., :-1]
    frames[..., 0] -= previous[..., 0]
    frames *= _window(waveform.device)
    spectrum = torch.fft.rfft(frames, FFT)
    power = spectrum.real.square().add_(spectrum.imag.square())  # [B, frames, 257]
    banks = _mel_banks(waveform.device)
    if waveform.is_cuda:  # where TF32 is allowed, a float32 product has three digits
        return F.linear(power.double(), banks.double()).float().clamp_min_(_FLOOR).log_()
    return F.linear(power, banks).clamp_min_(_FLOOR).log_()


@functools.cache
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(WINDOW, periodic=False, device=device)


@functools.cache
def _mel_banks(device: torch.device) -> Tensor:
    """Triangles that are equal on the mel scale: float32 [128, 257]; the Nyquist column is 0."""
    vtln = (100.0, -500.0, 1.0)  # limits and warp factor of the vocal tract; 1 warps nothing
    triangles, _ = get_mel_banks(MEL_BINS, FFT, float(SAMPLE_RATE), _LOWEST, _HIGHEST, *vtln)
    return F.pad(triangles, (0, 1)).to(device)
