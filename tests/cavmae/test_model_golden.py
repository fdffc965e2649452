"""The published implementation's numbers, to the fifth digit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from cavmae.model import CAVMAE, MODES, CAVMAEClassifier, ModelConfig, PretrainOptions

TOLERANCE = 1e-5
SMALL = ModelConfig(embed_dim=48, decoder_dim=32)


@pytest.fixture(scope="module")
def pretrain(shared):
    tensors = load_file(shared / "golden" / "pretrain_small.safetensors")
    model = CAVMAE(SMALL)
    model.load_state_dict(parameters(tensors))
    return model, tensors


@pytest.fixture(scope="module")
def finetune(shared):
    tensors = load_file(shared / "golden" / "finetune_small.safetensors")
    model = CAVMAEClassifier(SMALL, num_classes=11)
    model.load_state_dict(parameters(tensors))
    return model, tensors


def parameters(tensors):
    return {
        name.removeprefix("param/"): tensor
        for name, tensor in tensors.items()
        if name.startswith("param/")
    }


def run(model, tensors, **options):
    return model(
        tensors["input/audio"],
        tensors["input/image"],
        PretrainOptions(**options),
        noise_audio=tensors["input/noise_audio"],
        noise_image=tensors["input/noise_image"],
    )


def assert_close(actual, expected):
    torch.testing.assert_close(
        actual.reshape(expected.shape), expected, rtol=0, atol=TOLERANCE, check_dtype=False
    )


def test_pretraining_losses_masks_predictions_and_pools_are_the_published(pretrain):
    model, tensors = pretrain
    out = run(model, tensors)
    assert_close(out.loss, tensors["out/loss"])
    assert_close(out.loss_mae, tensors["out/loss_mae"])
    assert_close(out.loss_mae_audio, tensors["out/loss_mae_audio"])
    assert_close(out.loss_mae_image, tensors["out/loss_mae_image"])
    assert_close(0.01 * out.loss_contrast, tensors["out/loss_contrast_weighted"])
    assert_close(out.contrast_accuracy, tensors["out/contrast_acc"])
    assert_close(out.mask_audio, tensors["out/mask_audio"])
    assert_close(out.mask_image, tensors["out/mask_image"])
    assert_close(out.pred_audio, tensors["out/pred_audio"])
    assert_close(out.pred_image, tensors["out/pred_image"])
    assert_close(out.pooled_audio, tensors["out/pooled_audio"])
    assert_close(out.pooled_image, tensors["out/pooled_image"])


def test_loss_without_patch_normalisation_is_the_published(pretrain):
    model, tensors = pretrain
    assert_close(run(model, tensors, norm_pix_loss=False).loss, tensors["out/loss_nonorm"])


def test_bidirectional_contrast_is_the_published(pretrain):
    model, tensors = pretrain
    out = run(model, tensors, bidirectional=True)
    expected = tensors["out/contrast_bidirectional"]
    weighted = expected < 0.2 * out.loss_contrast
    assert_close(0.01 * out.loss_contrast if weighted else out.loss_contrast, expected)


def test_gradients_are_the_published(pretrain):
    model, tensors = pretrain
    model.zero_grad()
    run(model, tensors).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, expected in tensors.items():
        if name.startswith("grad/"):
            assert_close(gradients[name.removeprefix("grad/")], expected)


def test_feature_pass_is_the_published(pretrain):
    model, tensors = pretrain
    with torch.no_grad():
        audio, image = model.features(tensors["input/audio"], tensors["input/image"])
    assert_close(audio, tensors["out/feat_audio"])
    assert_close(image, tensors["out/feat_image"])


@pytest.mark.parametrize("mode", MODES)
def test_classifier_logits_are_the_published(finetune, mode):
    model, tensors = finetune
    with torch.no_grad():
        logits = model(tensors["input/audio"], tensors["input/image"], mode)
    assert_close(logits, tensors[f"out/{mode}"])


def test_position_embeddings_are_the_published(pretrain):
    _, tensors = pretrain
    fresh = CAVMAE(SMALL).state_dict()
    for name in ("pos_embed_a", "pos_embed_v", "decoder_pos_embed_a", "decoder_pos_embed_v"):
        assert_close(fresh[name], tensors[f"param/{name}"])


@pytest.mark.parametrize(
    ("kind", "build"),
    [("pretrain", CAVMAE), ("finetune", lambda: CAVMAEClassifier(num_classes=527))],
)
def test_every_published_key_and_shape_is_there_and_no_other(shared, kind, build):
    shapes = json.loads((shared / "golden" / "state_dict_shapes.json").read_text())[kind]
    with torch.device("meta"):
        state = build().state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == shapes
