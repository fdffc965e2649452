"""The formulas of arithmetic against PyTorch's own count of it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cavmae.model import CAVMAE, MODES, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.model.flops import classifier_flops, pretraining_flops
from cavmae.options import OBJECTIVES

# Two shared blocks, and so narrow that attention counts.
CONFIG = ModelConfig(
    embed_dim=96, depth=5, modality_depth=3, num_heads=3, decoder_dim=64, decoder_depth=2,
    decoder_heads=2, patch_size=16, image_size=96, audio_frames=160,
)  # fmt: skip
BATCH = 2


def counted(call) -> tuple[int, int]:
    """Of the forward and of the backward pass, per sample."""
    with sdpa_kernel(SDPBackend.MATH):  # made of matrix products that can be counted
        with FlopCounterMode(display=False) as forward:
            loss = call()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops() // BATCH, backward.get_total_flops() // BATCH


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    side = CONFIG.image_size
    return torch.randn(BATCH, CONFIG.audio_frames, CONFIG.mel_bins), torch.randn(
        BATCH, 3, side, side
    )


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        *((objective, PretrainOptions()) for objective in OBJECTIVES),
        ("cav-mae", PretrainOptions(mask_ratio=0.5, bidirectional=True)),
        ("cav-mae", PretrainOptions(mae_weight=0)),
        ("cav-mae", PretrainOptions(contrast_weight=0)),
    ],
)
def test_pretraining_takes_what_the_formula_says_and_its_gradients_twice_that(objective, options):
    config = CONFIG.with_objective(objective)
    model = CAVMAE(config)
    forward, backward = counted(lambda: model(*inputs(), options, predictions=False).loss)
    assert forward == pytest.approx(pretraining_flops(config, options), rel=0.02)
    assert 0.93 * 2 * forward < backward <= 2 * forward  # inputs need no gradient


@pytest.mark.parametrize(
    ("objective", "mode"),
    [("cav-mae", mode) for mode in MODES]
    + [("av-mae", "multimodal"), ("audio-mae", "audioonly"), ("image-mae", "videoonly")],
)
def test_classifying_takes_what_the_formula_says(objective, mode):
    config = CONFIG.with_objective(objective)
    model = CAVMAEClassifier(config, 300)
    forward, backward = counted(lambda: model(*inputs(), mode).sum())
    assert forward == pytest.approx(classifier_flops(config, mode, 300), rel=0.001)
    assert 0.93 * 2 * forward < backward <= 2 * forward  # inputs need no gradient
