"""The model beside a plain second one, what it leaves out, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from avprep.errors import UserError
from cavmae.model import CAVMAE, MASK_MODES, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.model.encoder import patchify, unpatchify
from tests.cavmae import naive_model

# Two shared blocks, another patch size and other heads than the reference outputs cover.
ODD = ModelConfig(
    embed_dim=24, depth=4, modality_depth=2, num_heads=3, decoder_dim=16, decoder_depth=2,
    decoder_heads=2, patch_size=32, image_size=96, audio_frames=160,
)  # fmt: skip


def randomised(model):
    """Weights as after training: nothing is zero or one any more."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return randomised(CAVMAE(ODD))


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(3, 160, 128), torch.randn(3, 3, 96, 96)


@pytest.mark.parametrize("mode", MASK_MODES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_losses_and_gradients_are_those_of_the_plain_model(model, inputs, mode, bidirectional):
    options = PretrainOptions(
        0.6, 0.5, mode, 0.7, 0.3, norm_pix_loss=not bidirectional, bidirectional=bidirectional
    )
    from cavmae.model.masking import mask_noise

    generator = torch.Generator().manual_seed(5)
    noise_a = mask_noise(3, ODD.audio_grid, 0.6, mode, generator)
    noise_v = mask_noise(3, ODD.image_grid, 0.5, "unstructured", generator)
    out = model(*inputs, options, noise_audio=noise_a, noise_image=noise_v)
    out.loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    weights = {n: v.detach().clone().requires_grad_() for n, v in model.state_dict().items()}
    noise = {"a": noise_a, "v": noise_v}
    expected = naive_model.forward(weights, ODD, *inputs, noise, options)
    expected["loss"].backward()
    for ours, name in (
        (out.loss, "loss"),
        (out.loss_mae_audio, "mae_a"),
        (out.loss_mae_image, "mae_v"),
        (out.loss_contrast, "contrast"),
    ):
        torch.testing.assert_close(ours, expected[name], rtol=0, atol=1e-5)
    assert len(gradients) > 50
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, weights[name].grad, rtol=1e-4, atol=1e-5)


def test_parts_of_no_weight_cost_nothing(model, inputs):
    calls = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    out = model(*inputs, PretrainOptions(mae_weight=0.0))
    assert not [name for name in calls if "decoder" in name]
    assert out.pred_audio is None
    assert out.loss_mae == 0
    calls.clear()
    out = model(*inputs, PretrainOptions(contrast_weight=0.0))
    assert calls.count("blocks_u.0") == 1
    assert "norm_a" not in calls
    assert out.loss_contrast == 0


def test_only_visible_patches_are_embedded(model, inputs):
    lengths = []
    model.patch_embed_a.register_forward_hook(lambda _, x, y: lengths.append(y.shape[1]))
    model(*inputs, PretrainOptions(mask_ratio_audio=0.75))
    assert lengths == [ODD.audio_patches // 4]


def test_every_trained_parameter_gets_a_gradient(model, inputs):
    model(*inputs).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_the_step_compiles_without_a_graph_break(inputs, task):
    if task == "pretrain":
        model = CAVMAE(ODD)

        def step(audio, image, noise_a, noise_v):
            return model(audio, image, noise_audio=noise_a, noise_image=noise_v).loss
    else:
        model = CAVMAEClassifier(ODD, 5)

        def step(audio, image, noise_a, noise_v):
            return model(audio, image).logsumexp(1).mean()

    noise = torch.rand(3, ODD.audio_patches), torch.rand(3, ODD.image_patches)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs, *noise), step(*inputs, *noise))
    compiled(*inputs, *noise).backward()
    torch._dynamo.reset()


def test_losses_are_float32_and_close_under_bf16(model, inputs):
    generator = torch.Generator()
    exact = model(*inputs, generator=generator.manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(*inputs, generator=generator.manual_seed(0))
    for name in ("loss", "loss_mae_audio", "loss_mae_image", "loss_contrast"):
        assert getattr(rough, name).dtype == torch.float32
        torch.testing.assert_close(getattr(rough, name), getattr(exact, name), rtol=0.1, atol=0.1)


def test_patches_go_back_to_where_they_came_from():
    pictures = torch.randn(2, 3, 96, 64)
    patches = patchify(pictures, 16)
    assert torch.equal(unpatchify(patches, (6, 4), 16), pictures)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"audio_frames": 1000}, "audio_frames is 1000, it must be a multiple"),
        ({"image_size": 8}, "image_size is 8"),
        ({"num_heads": 7}, "not a multiple of num_heads 7"),
        ({"modality_depth": 12}, "below depth 12"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        dataclasses.replace(ModelConfig(), **changes)


def test_inputs_of_another_size_are_refused(model, inputs):
    with pytest.raises(UserError, match=r"audio has shape \(3, 96, 128\)"):
        model(inputs[0][:, :96], inputs[1])
    with pytest.raises(UserError, match="image has shape"):
        model(inputs[0], inputs[1][..., :64])


def test_classifier_names_the_input_it_misses(inputs):
    model = CAVMAEClassifier(ODD, 4)
    with pytest.raises(UserError, match="'multimodal' needs images"):
        model(inputs[0], None)
    with pytest.raises(UserError, match="no mode 'both'"):
        model(*inputs, "both")


def test_config_survives_json():
    assert ModelConfig.from_json(ODD.to_json()) == ODD
