"""Perceptual hashes: alike for copies, different for others, nothing for nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from avprep.quality.hashes import from_text, hash_picture, hash_sound, to_text

RATE = 16000


def pictures(seed: int, count: int = 10, size: int = 224) -> NDArray[np.uint8]:
    """Different pictures with soft shapes: uint8 [count, size, size, 3]."""
    frames = np.empty((count, size, size, 3), np.uint8)
    for number, coarse in enumerate(np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3))):
        frames[number] = resized(coarse.astype(np.uint8), size, size)
    return frames


def resized(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def as_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def sound(seed: int, seconds: float = 10.0) -> NDArray[np.int16]:
    """Noise whose colour changes five times a second: int16 [samples]."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(int(seconds * 5)):
        spectrum = np.fft.rfft(rng.normal(0, 1, RATE // 5))
        octaves = np.log2(np.fft.rfftfreq(RATE // 5, 1 / RATE).clip(50) / rng.uniform(300, 4000))
        pieces.append(np.fft.irfft(spectrum * np.exp(-((octaves / 0.5) ** 2))))
    signal = np.concatenate(pieces)
    return (signal / np.abs(signal).max() * 20000).astype(np.int16)


def differing(one: bytes, other: bytes) -> float:
    """The share of bits that differ."""
    length = min(len(one), len(other))
    one_bits, other_bits = (np.frombuffer(value[:length], np.uint8) for value in (one, other))
    return float(np.unpackbits(one_bits ^ other_bits).mean())


COPIES = {
    "smaller": lambda picture: resized(resized(picture, 80, 80), 224, 224),
    "coarse JPEG": lambda picture: as_jpeg(picture, 15),
    "darker": lambda picture: (picture * 0.7 + 5).astype(np.uint8),
    "paler": lambda picture: (picture * 0.6 + 90).astype(np.uint8),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_changed_copy_of_pictures_has_nearly_the_same_hash(name):
    frames = pictures(1)
    copies = np.stack([COPIES[name](frame) for frame in frames])
    assert differing(hash_picture(frames), hash_picture(copies)) < 0.05


def test_a_letterboxed_copy_has_nearly_the_same_hash():
    wide = [resized(frame, 298, 224) for frame in pictures(1)]
    whole = np.stack([frame[:, 37:-37] for frame in wide])
    letterboxed = np.full_like(whole, 16)
    letterboxed[:, 28:-28] = [resized(frame, 224, 168) for frame in wide]
    assert differing(hash_picture(whole), hash_picture(letterboxed)) < 0.05


def test_other_pictures_have_another_hash():
    assert differing(hash_picture(pictures(1)), hash_picture(pictures(2))) > 0.35


def test_flat_pictures_have_nothing_to_recognise():
    frames = pictures(1)
    frames[3] = 128
    frames[4] = np.random.default_rng(0).integers(14, 18, frames[4].shape)  # black with noise
    subhashes = np.frombuffer(hash_picture(frames), np.uint64)
    assert np.flatnonzero(subhashes == 0).tolist() == [3, 4]


@pytest.mark.parametrize("count", [0, 1, 5, 10, 25])
def test_a_hash_has_eight_bytes_for_each_of_up_to_ten_pictures(count):
    assert len(hash_picture(pictures(1, count))) == 8 * min(count, 10)


@pytest.mark.parametrize("size", [16, 100, 224, 257])
def test_frames_of_any_size_have_a_hash(size):
    frames = pictures(1)
    other = np.stack([resized(frame, size, size) for frame in frames])
    assert differing(hash_picture(frames), hash_picture(other)) < 0.1


def test_a_changed_copy_of_a_sound_has_nearly_the_same_hash():
    pcm = sound(1)
    quiet = (pcm * 0.05).astype(np.int16)
    dull = np.convolve(pcm, [0.25, 0.5, 0.25], "same").astype(np.int16)
    noisy = pcm + np.random.default_rng(0).normal(0, 200, len(pcm)).astype(np.int16)
    for copy in (quiet, dull, noisy):
        assert differing(hash_sound(pcm), hash_sound(copy)) < 0.1


@pytest.mark.parametrize("late", [0.5, 0.46, 1.0])
def test_the_hash_of_a_shifted_sound_is_shifted(late):
    whole, cut = hash_sound(sound(1)), hash_sound(sound(1)[round(late * RATE) :])
    steps = round(late * 16)
    assert differing(whole[steps:], cut) < 0.2
    assert differing(whole, cut) > 0.3


def test_other_sounds_have_another_hash():
    assert differing(hash_sound(sound(1)), hash_sound(sound(2))) > 0.35


def test_silence_and_a_steady_tone_have_nothing_to_recognise():
    time = np.arange(5 * RATE) / RATE
    tone = (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    for pcm in (np.zeros(5 * RATE, np.int16), tone):
        assert not any(hash_sound(pcm))


def test_a_sound_that_is_too_short_has_no_hash():
    pcm = sound(1, 1.0)
    assert hash_sound(pcm[: 10 * RATE // 16 - 1]) == b""
    assert len(hash_sound(pcm[: 10 * RATE // 16])) == 1
    assert hash_sound(pcm[:0]) == b""


def test_the_hashes_of_a_clip_take_about_200_bytes():
    long = hash_picture(pictures(1)) + hash_sound(sound(1, 30))
    assert len(long) == 80 + 128
    assert from_text(to_text(long)) == long


def test_a_hash_never_changes():
    """Sets that were measured by different versions and machines are compared with each other."""
    y, x = np.mgrid[:224, :224]
    frames = np.stack([(x * (n + 1) + y * y // (n + 7)) % 256 for n in range(2)])
    frames = np.repeat(frames[..., None], 3, axis=3).astype(np.uint8)
    time = np.arange(3 * RATE // 2)
    pcm = ((time * time // 997) % 20011 * (time // 1999 % 2) - 10000).astype(np.int16)
    assert hash_picture(frames).hex() == "400000001a0131c200020606120cc098"
    assert hash_sound(pcm).hex() == "a840545454c0c8c898143435353181"
