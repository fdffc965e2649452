"""Masks keep the right number, hide whole columns or rows, favour no patch, and follow the seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cavmae.model import ModelConfig, PretrainOptions, draw_noise
from cavmae.model.masking import MASK_MODES, mask_noise, split_by_noise

GRID = (8, 64)


def draw(mode, batch=8, ratio=0.75, seed=0, grid=GRID):
    generator = torch.Generator().manual_seed(seed)
    noise = mask_noise(batch, grid, ratio, mode, generator)
    ids, hidden, mask = split_by_noise(noise, ratio)
    assert (
        torch.cat([ids, hidden], 1).sort().values.equal(torch.arange(len(mask[0])).expand_as(mask))
    )
    return noise, ids, mask


@settings(deadline=None)
@given(
    st.sampled_from(MASK_MODES),
    st.floats(0.05, 0.95),
    st.integers(0, 99),
    st.tuples(st.integers(1, 9), st.integers(1, 70)),
)
def test_every_mode_keeps_the_published_number(mode, ratio, seed, grid):
    _, ids, mask = draw(mode, 3, ratio, seed, grid)
    length = grid[0] * grid[1]
    kept = int(length * (1 - ratio))
    assert ids.shape == (3, kept)
    assert (mask.sum(1) == length - kept).all()
    for row, hidden in zip(ids, mask, strict=True):
        assert len(set(row.tolist())) == kept
        assert not hidden[row].any()


@pytest.mark.parametrize(("mode", "axis", "count"), [("time", 1, 48), ("freq", 0, 6)])
def test_structured_modes_hide_whole_columns_or_rows(mode, axis, count):
    noise, _, mask = draw(mode)
    grid = mask.reshape(-1, *GRID)
    whole = grid.all(dim=2 - axis)
    assert (whole.sum(1) == count).all()
    assert ((noise.reshape(-1, *GRID) > 1).all(dim=2 - axis) == whole).all()


def test_tf_hides_columns_and_rows():
    noise, _, _ = draw("tf")
    chosen = noise.reshape(-1, *GRID) > 1
    assert (chosen.all(dim=1).sum(1) == int(64 * 0.75 * 0.7)).all()
    assert (chosen.all(dim=2).sum(1) == int(8 * 0.75 * 0.7)).all()


def test_tf_gives_back_the_first_hidden_patches_where_it_hid_too_many():
    noise, ids, mask = draw("tf")
    kept = int(8 * 64 * 0.25)
    for row, sample, hidden in zip(ids, noise, mask, strict=True):
        chosen = (sample > 1).nonzero().flatten().tolist()
        spared = set(range(8 * 64)) - set(chosen)
        assert 0 < kept - len(spared) < len(chosen)
        assert set(row.tolist()) == spared | set(chosen[: kept - len(spared)])
        assert hidden[chosen[kept - len(spared) :]].all()


@pytest.mark.parametrize("mode", ["unstructured", "time", "freq"])
def test_no_patch_is_favoured(mode):
    _, _, mask = draw(mode, batch=6000)
    frequency = mask.mean(0)
    # Five standard deviations of a mean of 6000 draws.
    assert (frequency - 0.75).abs().max() < 5 * (0.75 * 0.25 / 6000) ** 0.5


@pytest.mark.parametrize("mode", MASK_MODES)
def test_the_generator_alone_decides(mode):
    first, second, other = draw(mode)[1], draw(mode)[1], draw(mode, seed=1)[1]
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("mode", MASK_MODES)
def test_the_global_state_is_left_alone_by_a_generator(mode):
    before = torch.get_rng_state()
    draw(mode)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_masked_without_structure_whatever_the_audio_mode():
    config = ModelConfig()
    for mode in MASK_MODES:
        audio, image = draw_noise(
            config, PretrainOptions(mask_mode=mode), 4, torch.Generator().manual_seed(0)
        )
        assert audio.shape == (4, 512)
        assert image.shape == (4, 196)
        assert image.max() < 1
        assert (audio.max() > 1) == (mode != "unstructured")


def test_samples_of_a_batch_have_masks_of_their_own():
    for mode in MASK_MODES:
        _, _, mask = draw(mode, batch=8)
        assert len({tuple(row.tolist()) for row in mask}) == 8


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="unknown mask mode 'columns'"):
        mask_noise(1, GRID, 0.5, "columns")
