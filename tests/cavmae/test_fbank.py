"""The batched fbank is Kaldi's."""

from __future__ import annotations

import numpy as np
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from cavmae.data.batch import Batch
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.frontend.fbank import fbank, frame_count, samples_for

HEARD = 14.0  # natural logarithms below the loudest cell, 60 dB


def kaldi(waveform):
    return torchaudio.compliance.kaldi.fbank(
        waveform[None],
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )


def test_golden_fbanks_of_real_clips(shared):
    golden = load_file(shared / "golden" / "fbank.safetensors")
    assert golden
    for video_id, expected in golden.items():
        pcm, _ = soundfile.read(shared / "golden/extract/audio" / f"{video_id}.wav", dtype="int16")
        waveform = torch.from_numpy(pcm).float() / 32768
        actual = fbank((waveform - waveform.mean())[None])[0]
        torch.testing.assert_close(actual, kaldi(waveform - waveform.mean()), rtol=0, atol=1e-4)
        # Near silence the golden values hold the rounding of the processor they were made on.
        heard = expected > expected.max() - HEARD
        torch.testing.assert_close(actual[heard], expected[heard], rtol=0, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(400, 60000), st.integers(0, 2**32 - 1), st.floats(0.001, 0.9))
def test_equals_torchaudio_for_any_length_and_level(length, seed, level):
    generator = torch.Generator().manual_seed(seed)
    waveform = torch.randn(length, generator=generator) * level
    waveform = waveform - waveform.mean()
    torch.testing.assert_close(fbank(waveform[None])[0], kaldi(waveform), rtol=0, atol=2e-4)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(400, 30000), min_size=1, max_size=4), st.integers(0, 99))
def test_a_padded_row_has_the_fbank_of_its_own_clip(lengths, seed):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(-20000, 20000, n).astype(np.int16) for n in lengths]
    padded = np.zeros((len(rows), max(lengths)), np.int16)
    for row, pcm in zip(padded, rows, strict=True):
        row[: len(pcm)] = pcm
    n = len(rows)
    batch = Batch(
        torch.from_numpy(padded), torch.tensor(lengths), torch.zeros(n, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(n, 2), torch.arange(n), [""] * n, None, [], n,
    )  # fmt: skip
    options = FrontEndOptions(target_length=128, mean=0.0, std=1.0)
    audio = FrontEnd(options)(batch).audio
    for row, pcm in zip(audio, rows, strict=True):
        waveform = torch.from_numpy(pcm).float() / 32768
        alone = kaldi(waveform - waveform.mean())[:128]
        torch.testing.assert_close(row[: len(alone)], alone, rtol=0, atol=2e-4)
        assert not row[len(alone) :].any()


def test_ten_seconds_are_998_frames():
    assert frame_count(torch.tensor([160000, 400, 399, 0])).tolist() == [998, 1, 0, 0]
    assert frame_count(torch.tensor([samples_for(1024)])).item() == 1024
