"""The model beside a plain second one, what it leaves out, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from avprep.errors import UserError
from cavmae.model import (
    CAVMAE,
    MASK_MODES,
    MODES,
    CAVMAEClassifier,
    ModelConfig,
    PretrainOptions,
    draw_noise,
)
from cavmae.model.cavmae import contrastive_loss
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
        0.6, mode, 0.7, 0.3, norm_pix_loss=not bidirectional, bidirectional=bidirectional
    )
    noise_a, noise_v = draw_noise(ODD, options, 3, torch.Generator().manual_seed(5))
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
        (out.contrast_accuracy, "accuracy"),
    ):
        torch.testing.assert_close(ours, expected[name], rtol=0, atol=1e-5)
    assert len(gradients) > 50
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, weights[name].grad, rtol=1e-4, atol=1e-5)


def test_accuracy_of_both_directions_is_their_mean():
    """Both images are nearest to the first audio, but each audio to its own image."""
    audio, image = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    assert contrastive_loss(audio, image)[1] == 0.5
    assert contrastive_loss(audio, image, bidirectional=True)[1] == 0.75


def test_parts_of_no_weight_cost_nothing(model, inputs):
    calls = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    out = model(*inputs, PretrainOptions(mae_weight=0.0))
    assert not [name for name in calls if "decoder" in name]
    assert out.pred_audio is None
    assert out.loss_mae is None
    assert calls.count("blocks_u.0") == 2  # not the joint pass, which only feeds the decoder
    assert "norm" not in calls
    calls.clear()
    out = model(*inputs, PretrainOptions(contrast_weight=0.0))
    assert calls.count("blocks_u.0") == 1
    assert "norm_a" not in calls
    assert out.loss_contrast is None


def test_only_visible_patches_are_embedded(model, inputs):
    lengths = []
    model.patch_embed_a.register_forward_hook(lambda _, x, y: lengths.append(y.shape[1]))
    model(*inputs, PretrainOptions(mask_ratio=0.75))
    assert lengths == [ODD.patches("audio") // 4]


def test_training_predicts_hidden_patches_only_and_loses_the_same(model, inputs):
    options = PretrainOptions(mask_ratio=0.6)
    rows = []
    model.decoder_pred_v.register_forward_hook(lambda _, x, y: rows.append(y.shape[1]))
    runs = [
        model(*inputs, options, generator=torch.Generator().manual_seed(0), predictions=wanted)
        for wanted in (False, True)
    ]
    hidden = int(runs[0].mask_image[0].sum())
    assert rows == [hidden, hidden, ODD.patches("image")]
    assert runs[0].pred_image is None
    assert torch.equal(runs[0].loss, runs[1].loss)


def test_every_trained_parameter_gets_a_gradient(model, inputs):
    model(*inputs).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


# One block of each kind: what is traced is the same code as with more of them.
SHALLOW = dataclasses.replace(ODD, depth=2, modality_depth=1, decoder_depth=1)


@pytest.fixture
def compiler():
    """torch.compile with nothing left over from, or for, another test."""
    torch.compiler.reset()
    yield torch.compile
    torch.compiler.reset()


@pytest.mark.parametrize("mode", MASK_MODES)
def test_pretraining_compiles_as_one_graph(inputs, compiler, mode):
    model = CAVMAE(SHALLOW)
    options = PretrainOptions(mask_mode=mode, bidirectional=mode == "tf")
    noise = draw_noise(SHALLOW, options, 3, torch.Generator().manual_seed(0))
    compiled = compiler(model, fullgraph=True, backend="eager")
    arguments = (*inputs, options)
    masks = {"noise_audio": noise[0], "noise_image": noise[1]}
    with torch.no_grad():
        ours, expected = (vars(run(*arguments, **masks)) for run in (compiled, model))
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_the_classifier_compiles_as_one_graph(inputs, compiler, mode):
    model = CAVMAEClassifier(SHALLOW, 5)
    compiled = compiler(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs, mode), model(*inputs, mode))


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_training_step_compiles_backward_and_all(inputs, compiler, precision):
    model = CAVMAE(SHALLOW)
    noise = draw_noise(SHALLOW, PretrainOptions(), 3, torch.Generator().manual_seed(0))

    def step(audio, image, noise_a, noise_v):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            return model(audio, image, noise_audio=noise_a, noise_image=noise_v).loss

    def gradients(function):
        model.zero_grad()
        function(*inputs, *noise).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients(step)
    ours = gradients(compiler(step, fullgraph=True, backend="aot_eager"))
    assert ours.keys() == expected.keys()
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if precision is None else {"rtol": 0.1, "atol": 0.02}
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, expected[name], **tolerance)


def test_parameters_that_only_published_files_need_are_not_trained(model):
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {n for n in frozen if "norm" not in n} == {
        *("pos_embed_a", "pos_embed_v", "decoder_pos_embed_a", "decoder_pos_embed_v")
    }
    assert not [name for name in frozen if name.startswith("blocks_u")]


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
        ({"audio_frames": 1000}, "audio_frames is 1000, .* multiple .* 16: take 992 or 1008"),
        ({"audio_frames": -16}, "audio_frames is -16, it must be a number ≥ 1"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"embed_dim": 770, "num_heads": 7}, "embed_dim 770 is not a multiple of 4"),
        ({"embed_dim": "768"}, "embed_dim is '768'"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0, it must be positive"),
        ({"mlp_ratio": "4"}, "mlp_ratio is '4', it must be positive"),
        ({"mlp_ratio": 1e9}, "mlp_ratio is 1000000000.0, it must be positive, and at most 21845.3"),
        ({"embed_dim": 12 * 10**9}, "embed_dim is 12000000000, it must be at most 16777216"),
        ({"depth": 10**7}, "depth is 10000000, it must be at most 1000"),
        ({"image_size": 8}, "image_size is 8"),
        ({"num_heads": 7}, "not a multiple of num_heads 7"),
        ({"modality_depth": 12}, "below depth 12"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        dataclasses.replace(ModelConfig(), **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mask_ratio": 1.0}, "--mask-ratio 1.0: must be below 1"),
        ({"mask_ratio": 0.0}, "--mask-ratio 0.0: must be above 0"),
        ({"mask_mode": "columns"}, "--mask-mode columns: must be one of unstructured, time"),
        ({"contrast_weight": -0.1}, "--contrast-weight -0.1: must be at least 0"),
    ],
)
def test_losses_that_cannot_be_are_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        PretrainOptions(**changes)


def test_a_mask_that_hides_everything_is_refused(model, inputs):
    with pytest.raises(UserError, match=r"--mask-ratio 0.95 keeps 0 of 9 image patches"):
        model(*inputs, PretrainOptions(mask_ratio=0.95))


def test_named_sizes_can_be_built_and_changed():
    for name, millions in (("tiny", 1), ("small", 30), ("base", 160), ("large", 500)):
        with torch.device("meta"):
            model = CAVMAE(ModelConfig.preset(name, audio_frames=512))
        assert model.config.audio_frames == 512
        assert sum(p.numel() for p in model.parameters()) > millions * 1e6
    with pytest.raises(
        UserError, match="unknown model size 'huge'; choose from tiny, small, base, large"
    ):
        ModelConfig.preset("huge")
    with pytest.raises(UserError, match="unknown field 'width' of a model's config"):
        ModelConfig.preset("base", width=3)


def test_inputs_of_another_size_are_refused(model, inputs):
    with pytest.raises(UserError, match=r"audio has shape \(3, 96, 128\)"):
        model(inputs[0][:, :96], inputs[1])
    with pytest.raises(UserError, match="image has shape"):
        model(inputs[0], inputs[1][..., :64])


def test_classifier_names_the_input_it_misses(inputs):
    model = CAVMAEClassifier(ODD, 4)
    with pytest.raises(UserError, match="'multimodal' needs images"):
        model(inputs[0], None)
    with pytest.raises(UserError, match="unknown mode 'both'"):
        model(*inputs, "both")


def test_config_survives_json():
    assert ModelConfig.from_json(ODD.to_json()) == ODD
    for text, complaint in (("{", "not JSON"), ("[]", "not a JSON object"), ('{"x": 1}', "'x'")):
        with pytest.raises(UserError, match=complaint):
            ModelConfig.from_json(text)


@pytest.mark.parametrize("mode", MODES)
def test_classifier_logits_are_those_of_the_plain_model(inputs, mode):
    torch.manual_seed(0)
    model = randomised(CAVMAEClassifier(ODD, 5))
    expected = naive_model.classify(model.state_dict(), ODD, *inputs, mode)
    torch.testing.assert_close(model(*inputs, mode), expected, rtol=0, atol=1e-5)


def test_features_are_those_of_the_plain_model(model, inputs):
    for ours, stream in zip(model.features(*inputs), "av", strict=True):
        expected = naive_model.features(model.state_dict(), ODD, *inputs, stream)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
