"""Inpainting: what was visible stays as it was, what was hidden is the model's prediction."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from avprep.errors import UserError
from cavmae.checkpoints import load_checkpoint, save_model
from cavmae.cli.convert import convert
from cavmae.cli.inpaint import inpaint as inpaint_command
from cavmae.evaluation.inpaint import panels
from cavmae.evaluation.masked import fill_in
from cavmae.evaluation.options import HidingOptions
from cavmae.evaluation.trained import load_trained
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.model.cavmae import denormalise_patches, mae_loss, normalise_patches
from tests.cavmae.tiny_shards import SIZE, write_tiny_shards

CONFIG = ModelConfig(
    embed_dim=16, depth=2, modality_depth=1, num_heads=2, decoder_dim=16, decoder_depth=1,
    decoder_heads=2, patch_size=4, image_size=SIZE, audio_frames=32, mel_bins=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return CAVMAE(CONFIG).eval()


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(2)
    return torch.randn(3, 32, 128), torch.randn(3, 3, SIZE, SIZE)


@given(
    seed=st.integers(0, 10_000),
    spread=st.floats(1e-3, 1e3),
    shift=st.floats(-100, 100),
)
@settings(max_examples=50, deadline=None)
def test_undoing_the_normalisation_gives_the_patches_back(seed, spread, shift):
    torch.manual_seed(seed)
    patches = torch.randn(2, 5, 48, dtype=torch.float64) * spread + shift
    back = denormalise_patches(normalise_patches(patches), patches)
    assert torch.allclose(back, patches, rtol=1e-9, atol=1e-9 * spread)


def test_a_flat_patch_comes_back_too():
    patches = torch.full((1, 2, 48), 3.0)
    assert torch.equal(denormalise_patches(normalise_patches(patches), patches), patches)


def test_what_is_undone_is_the_normalisation_of_the_loss():
    torch.manual_seed(0)
    patches = torch.randn(2, 5, 48)
    loss = mae_loss(patches, normalise_patches(patches), normalise=True)
    assert loss.item() < 1e-12


@pytest.mark.parametrize("norm_pix_loss", [False, True])
@pytest.mark.parametrize("mask_mode", ["unstructured", "time", "freq", "tf"])
def test_visible_patches_are_the_original_and_hidden_ones_the_prediction(
    model, inputs, norm_pix_loss, mask_mode
):
    audio, image = inputs
    options = HidingOptions(mask_ratio=0.6, mask_mode=mask_mode, seed=4)
    for found, given_input, grid in zip(
        fill_in(model, audio, image, options, norm_pix_loss).values(),
        (audio.transpose(1, 2)[:, None], image),
        (CONFIG.grid("audio"), CONFIG.grid("image")),
        strict=True,
    ):
        assert torch.equal(found.original, given_input)
        hidden = found.hidden.expand_as(given_input)
        assert torch.equal(found.reconstructed[~hidden], given_input[~hidden])
        assert not torch.isclose(found.reconstructed[hidden], given_input[hidden]).all()
        patches = grid[0] * grid[1]
        assert found.hidden.sum() == 3 * (patches - int(patches * 0.4)) * CONFIG.patch_size**2
    # Written out once more: the loss of the reconstruction is the loss of pretraining.
    for found in fill_in(model, audio, image, options, norm_pix_loss).values():
        error, truth = found.reconstructed - found.original, found.original
        if norm_pix_loss:
            tiles = truth.unfold(2, 4, 4).unfold(3, 4, 4)  # [B, C, rows, columns, 4, 4]
            deviation = (tiles.var(dim=(1, 4, 5), keepdim=True) + 1e-6).sqrt()
            error = error.unfold(2, 4, 4).unfold(3, 4, 4) / deviation
            hidden = found.hidden.unfold(2, 4, 4).unfold(3, 4, 4).expand_as(error)
        else:
            hidden = found.hidden.expand_as(error)
        assert error[hidden].square().mean().item() == pytest.approx(found.loss, rel=1e-4)


def test_one_seed_is_one_mask_for_every_clip(model, inputs):
    first, again, other = (
        fill_in(model, *inputs, HidingOptions(seed=seed), True) for seed in (0, 0, 1)
    )
    for k in ("audio", "image"):
        assert torch.equal(first[k].hidden, again[k].hidden)
        assert torch.equal(first[k].reconstructed, again[k].reconstructed)
        assert not torch.equal(first[k].hidden, other[k].hidden)
        assert torch.equal(first[k].hidden[0], first[k].hidden[2])


def test_panels_are_in_the_units_of_pictures_and_of_the_fbank(model, inputs):
    frontend = FrontEnd(FrontEndOptions(target_length=32, mean=-3.0, std=2.0))
    pixels = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    energies = inputs[0][:1] * 2.0 - 3.0
    normalised = (energies + 3.0) / 2.0
    found = fill_in(model, normalised, frontend.normalise_image(pixels), HidingOptions(), False)
    shown = panels(found, frontend)
    assert np.allclose(shown.image[0], pixels[0].permute(1, 2, 0) / 255, atol=1e-6)
    assert np.allclose(shown.audio[0], energies[0].T, atol=1e-5)
    assert np.array_equal(np.isnan(shown.audio[1]), found["audio"].hidden[0, 0].numpy())
    assert np.isfinite(shown.audio[2]).all()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_tiny_shards(tmp_path_factory.mktemp("inpaint") / "shards", samples=9).folder


def command(*arguments):
    return CliRunner().invoke(inpaint_command, ["--device", "cpu", *map(str, arguments)])


def test_the_command_draws_each_clip_and_knows_how_the_model_was_trained(shards, model, tmp_path):
    save_model(tmp_path / "m.safetensors", model, {"norm_pix_loss": "0"})
    line = ("--shards", shards, "--checkpoint", tmp_path / "m.safetensors")
    result = command(*line, "--out", tmp_path / "a", "--clips", 2, "--mask-mode", "time")
    assert result.exit_code == 0, result.exception
    facts = json.loads((tmp_path / "a" / "inpaint.json").read_text())
    assert facts["norm_pix_loss"] is False
    assert [row["video_id"] for row in facts["clips"]] == ["clip.0", "clip.1"]
    for row in facts["clips"]:
        with Image.open(tmp_path / "a" / row["file"]) as picture:
            assert picture.size == (1210, 660)

    result = command(*line, "--out", tmp_path / "b", "--video-id", "clip.7", "--norm-pix-loss")
    assert "taken from the original" in result.output
    facts = json.loads((tmp_path / "b" / "inpaint.json").read_text())
    assert facts["norm_pix_loss"] is True
    assert [row["video_id"] for row in facts["clips"]] == ["clip.7"]


def test_the_first_clips_are_those_of_the_selection(shards, model, tmp_path):
    save_model(tmp_path / "m.safetensors", model, {"norm_pix_loss": "0"})
    line = ("--shards", shards, "--checkpoint", tmp_path / "m.safetensors", "--out", tmp_path / "a")
    assert command(*line, "--split", "train", "--clips", 2).exit_code == 0
    facts = json.loads((tmp_path / "a" / "inpaint.json").read_text())
    assert [row["video_id"] for row in facts["clips"]] == ["clip.1", "clip.2"]


def test_unknown_facts_are_errors(shards, model, tmp_path):
    save_model(tmp_path / "m.safetensors", model)
    line = ("--shards", shards, "--out", tmp_path / "a", "--checkpoint")
    silent = command(*line, tmp_path / "m.safetensors")
    assert isinstance(silent.exception, UserError)
    assert "--norm-pix-loss" in str(silent.exception)
    known = (*line, tmp_path / "m.safetensors", "--norm-pix-loss")
    assert "no clip 'x'" in str(command(*known, "--video-id", "x").exception)
    assert "--frame all" in str(command(*known, "--frame", "all").exception)
    assert "frame 3: samples hold" in str(command(*known, "--frame", "3").exception)
    save_model(tmp_path / "c.safetensors", CAVMAEClassifier(CONFIG, 4))
    assert "no decoder" in str(command(*line, tmp_path / "c.safetensors").exception)


def test_conversion_keeps_how_the_model_was_trained(model, tmp_path):
    save_model(tmp_path / "a.safetensors", model, {"norm_pix_loss": "1"})
    arguments = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    assert CliRunner().invoke(convert, arguments).exit_code == 0
    assert load_trained(tmp_path / "b.safetensors").metadata["norm_pix_loss"] == "1"
    assert isinstance(load_checkpoint(tmp_path / "b.safetensors"), CAVMAE)


def test_a_trained_model_fills_in_better_than_an_untrained_one(shards, tmp_path):
    from cavmae.data import LoaderOptions, ShardLoader, ShardSet

    torch.manual_seed(0)
    trained = CAVMAE(CONFIG)
    frontend = FrontEnd(FrontEndOptions(target_length=32))
    (batch,) = ShardLoader(
        ShardSet.open(shards), LoaderOptions(9, 0, shuffle=False, frame="middle")
    ).epoch()
    made = frontend(batch)
    before = fill_in(trained, made.audio, made.image, HidingOptions(), False)
    optimizer = torch.optim.Adam(trained.parameters(), 3e-3)
    loss_options = PretrainOptions(norm_pix_loss=False, contrast_weight=0.0)
    for _ in range(30):
        optimizer.zero_grad()
        trained(made.audio, made.image, loss_options).loss.backward()
        optimizer.step()
    after = fill_in(trained.eval(), made.audio, made.image, HidingOptions(), False)
    assert after["audio"].loss < before["audio"].loss / 2
    assert after["image"].loss < before["image"].loss * 0.8
