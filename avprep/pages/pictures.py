"""Pictures of sound: the waveform as an SVG path, the spectrogram as an image."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WAVEFORM_WIDTH, WAVEFORM_HEIGHT = 240, 100  # units of the path; the page scales it
_WINDOW, _HOP = 400, 160  # 25 ms and 10 ms at 16 kHz, as the model's fbank
_FFT = 512
_MELS = 80
_COLUMNS = 320
_RANGE_DB = 70.0  # below the loudest point everything is black
_QUIETEST_PEAK_DB = -30.0  # so that silence is black, not its own loudest point
_LOWEST_HZ = 20.0
# Dark to bright in even steps of lightness, so that it reads the same in print.
_COLOURS = (
    (4, 5, 30),
    (58, 24, 110),
    (146, 42, 128),
    (226, 86, 96),
    (252, 170, 110),
    (252, 250, 205),
)


def waveform_path(pcm: NDArray[np.int16]) -> str:
    """The outline of a waveform as the `d` of an SVG path.

    Args:
        pcm: int16 [samples].

    Returns:
        a closed path in a box of WAVEFORM_WIDTH × WAVEFORM_HEIGHT, silence a thin line in its
        middle; the loudest sample reaches the edge.
    """
    edges = _columns(max(1, len(pcm)), WAVEFORM_WIDTH)
    samples = pcm.astype(np.int32) if len(pcm) else np.zeros(1, np.int32)
    peak = max(1, int(np.abs(samples).max()))
    middle = WAVEFORM_HEIGHT / 2
    scale = (middle - 1) / peak
    highest = middle - np.maximum.reduceat(samples, edges) * scale - 0.5
    lowest = middle - np.minimum.reduceat(samples, edges) * scale + 0.5
    x = (np.arange(len(edges)) + 0.5) * (WAVEFORM_WIDTH / len(edges))
    there = [f"{a:.0f} {b:.0f}" for a, b in zip(x, highest, strict=True)]
    back = [f"{a:.0f} {b:.0f}" for a, b in zip(x[::-1], lowest[::-1], strict=True)]
    return f"M{'L'.join(there + back)}Z"


def log_mel(pcm: NDArray[np.int16], sample_rate: int) -> NDArray[np.float32]:
    """Energies in dB, 0 at the loudest point: float32 [frames, mel bands], low bands first.

    Frames of 25 ms every 10 ms, Hann window, triangular bands on the HTK mel scale. A clip shorter
    than a frame is padded with silence to one.
    """
    signal = np.pad(pcm.astype(np.float32) / 32768, (0, max(0, _WINDOW - len(pcm))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32), _FFT)) ** 2
    energies = power @ _mel_filters(sample_rate)
    decibels = 10 * np.log10(np.maximum(energies, 1e-10))
    return (decibels - max(decibels.max(), _QUIETEST_PEAK_DB)).astype(np.float32)


def spectrogram_image(pcm: NDArray[np.int16], sample_rate: int) -> bytes:
    """A log-mel spectrogram, time to the right and pitch upwards, as WebP.

    Args:
        pcm: int16 [samples].
        sample_rate: Hz.

    Returns:
        bytes of an RGB image of at most 320 × 80 pixels; the brighter, the louder, over 70 dB.
    """
    decibels = log_mel(pcm, sample_rate)
    # The loudest frame of a column: a click shorter than a column stays visible.
    pooled = np.maximum.reduceat(decibels, _columns(len(decibels), _COLUMNS), axis=0)
    levels = np.clip(pooled.T[::-1] / _RANGE_DB + 1, 0, 1)
    buffer = io.BytesIO()
    Image.fromarray(_coloured(levels)).save(buffer, "WEBP", quality=70, method=4)
    return buffer.getvalue()


def _columns(length: int, most: int) -> NDArray[np.int64]:
    """Where each of up to `most` even columns of a row begins."""
    return np.linspace(0, length, min(most, length) + 1).astype(int)[:-1]


def _coloured(levels: NDArray[np.floating]) -> NDArray[np.uint8]:
    anchors = np.array(_COLOURS, float)
    positions = np.linspace(0, 1, len(anchors))
    channels = [np.interp(levels, positions, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _mel_filters(sample_rate: int) -> NDArray[np.float32]:
    """float32 [FFT bins, mel bands]: triangles whose feet are their neighbours' tops."""
    highest = _mel(np.array(sample_rate / 2))
    tops = np.linspace(_mel(np.array(_LOWEST_HZ)), highest, _MELS + 2)
    bins = _mel(np.fft.rfftfreq(_FFT, 1 / sample_rate))[:, None]
    rising = (bins - tops[:-2]) / (tops[1:-1] - tops[:-2])
    falling = (tops[2:] - bins) / (tops[2:] - tops[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _mel(hertz: NDArray) -> NDArray:
    return 1127 * np.log1p(hertz / 700)
