"""The front end does to a batch what the published loader does to one item, and in that order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from cavmae.data.batch import Batch, Partners
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.frontend.augment import add_noise_and_roll, spec_augment

CLASSES = 5
MEAN, STD = -5.081, 4.4849


def samples(rng, lengths, labels, frames=None):
    """Stored samples of random content."""
    waveform = np.zeros((len(lengths), max(lengths)), np.int16)
    for row, length in zip(waveform, lengths, strict=True):
        row[:length] = rng.integers(-15000, 16000, length)  # with a mean that is not zero
    shape = (len(lengths), 3, 8, 8) if frames is None else (len(lengths), frames, 3, 8, 8)
    targets = torch.zeros(len(lengths), CLASSES)
    for number, indices in enumerate(labels):
        targets[number, list(indices)] = 1.0
    return {
        "waveform": torch.from_numpy(waveform),
        "lengths": torch.tensor(lengths),
        "image": torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8)),
        "labels": targets,
    }


def make_batch(lengths, labels, partner_lengths=(), partner_labels=(), rows=(), share=(), seed=0):
    rng = np.random.default_rng(seed)
    stored = samples(rng, lengths, labels)
    partners = None
    if rows:
        partners = Partners(
            **samples(rng, partner_lengths, partner_labels),
            rows=torch.tensor(rows),
            share=torch.tensor(share, dtype=torch.float32),
        )
    count = len(lengths)
    return Batch(**stored, index=torch.arange(count), video_ids=[""] * count, partners=partners,
                 unreadable=[], planned=count)  # fmt: skip


def published_item(batch, row, options, smooth):
    """One row, step by step as cavmae-spec.md §1 tells it, with torchaudio."""

    def waveform_of(stored, number):
        wave = stored.waveform[number, : stored.lengths[number]].float() / 32768
        return wave - wave.mean()

    def picture_of(stored, number):
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        return (stored.image[number].float() / 255 - mean) / std

    wave, picture = waveform_of(batch, row), picture_of(batch, row)
    target = torch.full((CLASSES,), smooth / CLASSES)
    own = batch.labels[row].nonzero()[:, 0].tolist()
    mixed = batch.partners.rows.tolist() if batch.partners else []
    if row in mixed:
        place = mixed.index(row)
        share = float(batch.partners.share[place])
        other = waveform_of(batch.partners, place)
        fitted = torch.zeros_like(wave)
        fitted[: len(other)] = other[: len(wave)]
        wave = share * wave + (1 - share) * fitted
        wave = wave - wave.mean()
        picture = share * picture + (1 - share) * picture_of(batch.partners, place)
        for label in own:
            target[label] += share * (1 - smooth)
        for label in batch.partners.labels[place].nonzero()[:, 0].tolist():
            target[label] += (1 - share) * (1 - smooth)
    else:
        for label in own:
            target[label] = 1 - smooth
    rows = torchaudio.compliance.kaldi.fbank(
        wave[None], htk_compat=True, sample_frequency=16000, use_energy=False,
        window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
    )[: options.target_length]  # fmt: skip
    audio = torch.zeros(options.target_length, 128)
    audio[: len(rows)] = rows
    return (audio - options.mean) / options.std, picture, target


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(0, 10**6), st.sampled_from([0.0, 0.1]))
def test_a_batch_is_what_the_published_items_are(data, seed, smooth):
    count = data.draw(st.integers(1, 4))
    lengths = st.lists(st.integers(400, 9000), min_size=count, max_size=count)
    label_sets = st.lists(
        st.sets(st.integers(0, CLASSES - 1), min_size=1, max_size=3),
        min_size=count,
        max_size=count,
    )
    rows = sorted(data.draw(st.sets(st.integers(0, count - 1))))
    batch = make_batch(
        data.draw(lengths), data.draw(label_sets),
        data.draw(lengths)[: len(rows)], data.draw(label_sets)[: len(rows)], rows,
        data.draw(st.lists(st.floats(0.1, 0.9), min_size=count, max_size=count))[: len(rows)],
        seed,
    )  # fmt: skip
    options = FrontEndOptions(target_length=40, label_smooth=smooth)
    inputs = FrontEnd(options)(batch, torch.Generator().manual_seed(0))
    for row in range(count):
        audio, picture, target = published_item(batch, row, options, smooth)
        torch.testing.assert_close(inputs.audio[row], audio, rtol=0, atol=1e-4)
        torch.testing.assert_close(inputs.image[row], picture, rtol=0, atol=1e-5)
        torch.testing.assert_close(inputs.targets[row], target, rtol=0, atol=1e-6)


def test_smoothing_without_mixup_sets_and_with_mixup_adds():
    batch = make_batch([500, 500], [{0, 2}, {1}], [500], [{1, 3}], rows=[1], share=[0.25])
    targets = FrontEnd(FrontEndOptions(target_length=8, label_smooth=0.1))(
        batch, torch.Generator()
    ).targets
    assert targets[0].tolist() == pytest.approx([0.9, 0.02, 0.9, 0.02, 0.02])
    assert targets[1].tolist() == pytest.approx([0.02, 0.92, 0.02, 0.02 + 0.75 * 0.9, 0.02])


def test_evaluation_changes_nothing_at_random():
    batch = make_batch([9000, 5000], [{0}, {1}])
    options = FrontEndOptions(32, freq_mask=48, time_mask=16, noise=True, label_smooth=0.1)
    plain = FrontEnd(FrontEndOptions(32))(batch)
    inputs = FrontEnd(options)(batch)
    assert torch.equal(inputs.audio, plain.audio)
    assert torch.equal(inputs.targets, batch.labels)


def test_all_frames_of_a_clip_are_normalised_alike():
    batch = make_batch([500, 500], [{0}, {1}])
    several = samples(np.random.default_rng(1), [500, 500], [{0}, {1}], frames=3)["image"]
    batch.image = several
    image = FrontEnd(FrontEndOptions(8))(batch).image
    assert image.shape == (2, 3, 3, 8, 8)
    assert torch.equal(image[1, 2], FrontEnd(FrontEndOptions(8)).normalise_image(several[1, 2]))


def test_a_clip_shorter_than_a_window_is_padding_only():
    batch = make_batch([399, 100], [{0}, {1}])
    audio = FrontEnd(FrontEndOptions(16, mean=0.0, std=1.0))(batch).audio
    assert audio.shape == (2, 16, 128)
    assert not audio.any()


def test_the_same_seed_gives_the_same_inputs_and_another_seed_others():
    batch = make_batch([9000, 7000], [{0}, {1}], [5000], [{2}], rows=[0], share=[0.6])
    frontend = FrontEnd(FrontEndOptions(64, freq_mask=48, time_mask=19, noise=True))

    def audio(seed):
        torch.rand(seed)  # the global generator plays no part
        return frontend(batch, torch.Generator().manual_seed(seed)).audio

    assert torch.equal(audio(1), audio(1))
    assert not torch.equal(audio(1), audio(2))


def test_masks_are_put_on_before_normalising_and_noise_after():
    batch = make_batch([90000] * 8, [{0}] * 8)
    masked = FrontEnd(FrontEndOptions(64, freq_mask=48, time_mask=19))
    plain = FrontEnd(FrontEndOptions(64))(batch).audio
    audio = masked(batch, torch.Generator().manual_seed(3)).audio
    hidden = audio != plain
    assert 0.02 < hidden.float().mean() < 0.6
    torch.testing.assert_close(audio[hidden], torch.full_like(audio[hidden], (0 - MEAN) / STD))
    noisy = FrontEnd(FrontEndOptions(64, noise=True))
    audio = noisy(batch, torch.Generator().manual_seed(3)).audio
    for row in range(8):
        added = min(
            (audio[row].roll(-shift, 0) - plain[row] for shift in range(64)),
            key=lambda difference: difference.abs().max(),
        )
        assert (added >= -1e-5).all()
        assert added.max() < 0.1


MANY = 4000


def masked_intervals(hidden):
    """Start and width of the single True run of each row of bool [B, size]."""
    edges = torch.diff(hidden.int(), dim=1, prepend=torch.zeros(len(hidden), 1))
    assert ((edges == 1).sum(1) <= 1).all(), "more than one interval"
    return edges.argmax(1)[hidden.any(1)], hidden.sum(1)


def test_masks_are_distributed_as_torchaudios():
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(MANY, 100, 64)
    ours = spec_augment(ones, 0, 40, generator)[:, :, 0] == 0
    bands = spec_augment(ones, 24, 0, generator)[:, 0, :] == 0
    torch.manual_seed(0)
    time = torchaudio.transforms.TimeMasking(40)
    frequency = torchaudio.transforms.FrequencyMasking(24)
    one = torch.ones(1, 64, 100)  # torchaudio has bins first
    theirs = torch.stack([time(one)[0, 0] == 0 for _ in range(MANY)])
    their_bands = torch.stack([frequency(one)[0, :, 0] == 0 for _ in range(MANY)])
    for mine, other, widest in ((ours, theirs, 40), (bands, their_bands, 24)):
        start, width = masked_intervals(mine)
        other_start, other_width = masked_intervals(other)
        assert width.max() == other_width.max() == widest - 1
        frequency_of = torch.bincount(width, minlength=widest) / MANY
        assert (frequency_of - 1 / widest).abs().max() < 5 * (1 / widest / MANY) ** 0.5
        assert width.float().mean().item() == pytest.approx(
            other_width.float().mean().item(), rel=0.06
        )
        assert start.float().mean().item() == pytest.approx(
            other_start.float().mean().item(), rel=0.06
        )
        assert (mine.float().mean(0) - other.float().mean(0)).abs().max() < 0.05


def test_every_sample_has_masks_of_its_own():
    masked = spec_augment(torch.ones(50, 100, 64), 24, 40, torch.Generator().manual_seed(1))
    assert len({tuple(row.flatten().tolist()) for row in masked}) > 45


def test_a_mask_wider_than_the_spectrogram_is_no_error():
    masked = spec_augment(torch.ones(9, 10, 8), 500, 500, torch.Generator())
    assert masked.shape == (9, 10, 8)


def test_noise_is_a_fresh_uniform_times_one_strength_a_sample():
    frames = 64
    noisy = add_noise_and_roll(torch.zeros(MANY, frames, 8), torch.Generator().manual_seed(0))
    assert noisy.min() >= 0
    assert noisy.max() < 0.1
    strength = noisy.flatten(1).amax(1) * 10  # the largest of 512 uniforms: almost the strength
    quantiles = torch.quantile(strength, torch.tensor([0.1, 0.5, 0.9]))
    assert quantiles.tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    shares = noisy.flatten(1) / noisy.flatten(1).amax(1, keepdim=True)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.01)
    assert shares.var().item() == pytest.approx(1 / 12, rel=0.05)
    assert np.abs(np.corrcoef(shares[:, :20].T.numpy()) - np.eye(20)).max() < 0.1


def test_the_roll_is_uniform_over_all_shifts_and_whole():
    frames = 16
    ramp = (torch.arange(frames) * 10.0)[None, :, None].expand(MANY, frames, 3)
    rolled = add_noise_and_roll(ramp, torch.Generator().manual_seed(0))
    first = ((rolled[:, 0, 0] / 10).round().long() % frames).tolist()
    for row in range(50):
        assert torch.allclose(rolled[row], ramp[row].roll(-first[row], 0), atol=0.1)
    share = torch.bincount(torch.tensor(first), minlength=frames) / MANY
    assert (share - 1 / frames).abs().max() < 5 * (1 / frames / MANY) ** 0.5


def test_autocast_does_not_coarsen_the_fbank():
    batch = make_batch([9000], [{0}])
    frontend = FrontEnd(FrontEndOptions(32))
    plain = frontend(batch).audio
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frontend(batch).audio, plain)
