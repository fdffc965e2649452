"""The arithmetic of a forward pass, by which MFU is measured, beside the formula of one model."""

from __future__ import annotations

import pytest
import torch

from cavmae.model import CAVMAE, MODES, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.train.tasks import FinetuneTask, PretrainTask, forward_flops

CPU = torch.device("cpu")
# Two shared blocks, and so narrow that attention counts.
CONFIG = ModelConfig(
    embed_dim=96, depth=5, modality_depth=3, num_heads=3, decoder_dim=64, decoder_depth=2,
    decoder_heads=2, patch_size=16, image_size=96, audio_frames=160,
)  # fmt: skip
CLASSES = 300


def block(tokens: int, dim: int) -> int:
    """Four projections of attention, attention itself, and the two layers of the MLP."""
    return 2 * tokens * (4 * dim * dim + 2 * tokens * dim + 2 * dim * 4 * dim)


@pytest.mark.parametrize("mode", MODES)
def test_classifying_takes_what_its_matrix_products_take(mode):
    audio = 0 if "video" in mode else CONFIG.patches("audio")
    image = 0 if "audio" in mode else CONFIG.patches("image")
    passes = 2 if mode.startswith("missing") else 1
    pixels = CONFIG.patch_size**2 * (audio + 3 * image)
    expected = (
        2 * CONFIG.embed_dim * (pixels + CLASSES)
        + 3 * (block(audio, CONFIG.embed_dim) + block(image, CONFIG.embed_dim))
        + 2 * passes * block(audio + image, CONFIG.embed_dim)
    )
    model = CAVMAEClassifier(CONFIG, CLASSES)
    assert forward_flops(model, FinetuneTask(mode, "bce"), CPU) == expected


def test_pretraining_counts_visible_patches_in_the_encoder_and_hidden_ones_in_the_prediction():
    patches = {name: CONFIG.patches(name) for name in CONFIG.modalities}
    seen = {name: count // 4 for name, count in patches.items()}
    values = {"audio": CONFIG.patch_size**2, "image": 3 * CONFIG.patch_size**2}
    dim, narrow = CONFIG.embed_dim, CONFIG.decoder_dim
    expected = (
        sum(2 * values[name] * dim * seen[name] + 3 * block(seen[name], dim) for name in seen)
        + 2 * (block(sum(seen.values()), dim) + sum(block(count, dim) for count in seen.values()))
        + 2 * sum(seen.values()) * dim * narrow
        + 2 * block(sum(patches.values()), narrow)
        + sum(2 * narrow * values[name] * (patches[name] - seen[name]) for name in seen)
    )
    found = forward_flops(CAVMAE(CONFIG), PretrainTask(PretrainOptions()), CPU)
    assert found == pytest.approx(expected, rel=1e-4)  # the contrast of one clip with itself


def test_counting_leaves_the_model_and_the_random_numbers_alone():
    model = CAVMAE(CONFIG)
    before, state = torch.get_rng_state(), {n: v.clone() for n, v in model.state_dict().items()}
    forward_flops(model, PretrainTask(PretrainOptions()), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
