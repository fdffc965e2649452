"""The arithmetic of a forward pass, by which MFU is measured, beside the formula of one model."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cavmae.frontend import Inputs
from cavmae.model import CAVMAE, MODES, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.options import OBJECTIVES
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


def assert_gradients_take_twice_the_forward_pass(model, task):
    config = model.config
    inputs = Inputs(
        torch.randn(1, config.audio_frames, config.mel_bins),
        torch.randn(1, 3, config.image_size, config.image_size),
        torch.rand(1, CLASSES),
    )
    with sdpa_kernel(SDPBackend.MATH):  # made of matrix products that can be counted
        loss = task.loss(model, inputs, torch.Generator()).loss
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    forward = forward_flops(model, task, CPU)
    assert 0.93 * 2 * forward < backward.get_total_flops() <= 2 * forward  # inputs need none


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        *((objective, PretrainOptions()) for objective in OBJECTIVES),
        ("cav-mae", PretrainOptions(mask_ratio=0.5, bidirectional=True)),
        ("cav-mae", PretrainOptions(mae_weight=0)),
        ("cav-mae", PretrainOptions(contrast_weight=0)),
    ],
)
def test_gradients_of_pretraining_take_twice_the_forward_pass(objective, options):
    model = CAVMAE(CONFIG.with_objective(objective))
    assert_gradients_take_twice_the_forward_pass(model, PretrainTask(options))


@pytest.mark.parametrize(
    ("objective", "mode"),
    [("cav-mae", mode) for mode in MODES]
    + [("av-mae", "multimodal"), ("audio-mae", "audioonly"), ("image-mae", "videoonly")],
)
def test_gradients_of_classifying_take_twice_the_forward_pass(objective, mode):
    model = CAVMAEClassifier(CONFIG.with_objective(objective), CLASSES)
    assert_gradients_take_twice_the_forward_pass(model, FinetuneTask(mode, "bce"))


def test_counting_leaves_the_model_and_the_random_numbers_alone():
    model = CAVMAE(CONFIG)
    before, state = torch.get_rng_state(), {n: v.clone() for n, v in model.state_dict().items()}
    forward_flops(model, PretrainTask(PretrainOptions()), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
