"""Checkpoints: published files and ours, both ways; hostile and wrong ones refused by name."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from avprep.errors import UserError
from cavmae.checkpoints import (
    init_from,
    load_checkpoint,
    read_weights,
    save_model,
    save_published,
)
from cavmae.checkpoints.resize import interpolate
from cavmae.checkpoints.vision_mae import from_vision_mae
from cavmae.cli import group
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig

# Heads of 64, as published, so that a file without a config tells its own size.
CONFIG = ModelConfig(
    embed_dim=128, depth=3, modality_depth=2, num_heads=2, decoder_dim=64, decoder_depth=2,
    decoder_heads=16, image_size=64, audio_frames=64,
)  # fmt: skip


def convert(*arguments):
    return CliRunner().invoke(group, ["convert", *map(str, arguments)])


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("build", [CAVMAE, lambda config: CAVMAEClassifier(config, 7)])
@pytest.mark.parametrize("flag", ["--module-prefix", "--no-module-prefix"])
def test_published_files_and_ours_convert_both_ways(tmp_path, build, flag):
    model = build(CONFIG)
    save_model(tmp_path / "a.safetensors", model, {"mode": "multimodal"})
    assert convert(tmp_path / "a.safetensors", tmp_path / "b.pth", flag).exit_code == 0
    names = torch.load(tmp_path / "b.pth", weights_only=True).keys()
    assert all(name.startswith("module.") for name in names) == (flag == "--module-prefix")
    assert convert(tmp_path / "b.pth", tmp_path / "c.safetensors").exit_code == 0
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert type(loaded) is type(model)
    assert same(loaded.state_dict(), model.state_dict())
    assert loaded.config.num_heads == CONFIG.num_heads


def test_published_base_sizes_are_read_off_the_shapes(shared, tmp_path):
    for model, expected in (
        (CAVMAE(ModelConfig()), ModelConfig()),
        (CAVMAEClassifier(num_classes=309), ModelConfig(trainable_positions=True)),
    ):
        save_published(tmp_path / "m.pth", model)
        loaded = load_checkpoint(tmp_path / "m.pth")
        assert loaded.config == expected
        del loaded


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Hostile()}, protocol=2))
    torch.save({"a": Hostile()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(UserError, match=r"not a plain file of weights"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_what_is_missing_unexpected_or_misshapen_is_named(tmp_path):
    model = CAVMAE(CONFIG)
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    del weights["module.mask_token"]
    weights["module.surplus"] = torch.zeros(1)
    weights["module.norm.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "m.pth")
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path / "m.pth")
    text = str(caught.value)
    assert "1 of another shape (norm.bias [3], not [128])" in text
    assert "1 missing (mask_token)" in text
    assert "1 unexpected (surplus)" in text


def test_a_classifier_takes_the_encoder_and_keeps_its_head(tmp_path):
    pretrained, classifier = CAVMAE(CONFIG), CAVMAEClassifier(CONFIG, 5)
    head = classifier.mlp_head[1].weight.clone()
    save_model(tmp_path / "p.safetensors", pretrained)
    report = init_from(classifier, tmp_path / "p.safetensors")
    assert torch.equal(
        classifier.blocks_u[0].attn.qkv.weight, pretrained.blocks_u[0].attn.qkv.weight
    )
    assert torch.equal(classifier.mlp_head[1].weight, head)
    assert all(name.startswith("mlp_head.") for name in report.missing)
    assert all("decoder" in name or name == "mask_token" for name in report.unexpected)


def test_a_checkpoint_of_another_size_says_so_in_one_line(tmp_path):
    save_model(tmp_path / "p.safetensors", CAVMAE(CONFIG))
    other = CAVMAEClassifier(ModelConfig.preset("tiny"), 5)
    with pytest.raises(UserError, match="of another shape") as caught:
        init_from(other, tmp_path / "p.safetensors")
    assert "\n" not in str(caught.value)


def vision_mae(dim=128, depth=3, decoder=64, patch=16, side=4):
    torch.manual_seed(0)
    shapes = {
        "cls_token": (1, 1, dim), "pos_embed": (1, side**2 + 1, dim), "mask_token": (1, 1, decoder),
        "decoder_pos_embed": (1, side**2 + 1, decoder),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,), "norm.weight": (dim,), "norm.bias": (dim,),
        "decoder_embed.weight": (decoder, dim), "decoder_embed.bias": (decoder,),
        "decoder_norm.weight": (decoder,), "decoder_norm.bias": (decoder,),
        "decoder_pred.weight": (patch**2 * 3, decoder), "decoder_pred.bias": (patch**2 * 3,),
    }  # fmt: skip
    for blocks, count, width in (("blocks", depth, dim), ("decoder_blocks", 2, decoder)):
        for number in range(count):
            for name, shape in {
                "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,),
                "norm2.bias": (width,), "attn.qkv.weight": (3 * width, width),
                "attn.qkv.bias": (3 * width,), "attn.proj.weight": (width, width),
                "attn.proj.bias": (width,), "mlp.fc1.weight": (4 * width, width),
                "mlp.fc1.bias": (4 * width,), "mlp.fc2.weight": (width, 4 * width),
                "mlp.fc2.bias": (width,),
            }.items():  # fmt: skip
                shapes[f"{blocks}.{number}.{name}"] = shape
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_a_vision_mae_becomes_initial_weights(tmp_path):
    weights = vision_mae()
    model = from_vision_mae(weights, "vit.pth")
    state = model.state_dict()
    for number in (0, 1):
        for stream in ("a", "v"):
            name = f"blocks_{stream}.{number}.attn.qkv.weight"
            assert torch.equal(state[name], weights[f"blocks.{number}.attn.qkv.weight"])
    for suffix in ("", "_a", "_v"):
        assert torch.equal(
            state[f"blocks_u.0.norm1{suffix}.weight"], weights["blocks.2.norm1.weight"]
        )
        assert torch.equal(state[f"norm{suffix}.bias"], weights["norm.bias"])
    assert torch.equal(
        state["patch_embed_a.proj.weight"], weights["patch_embed.proj.weight"].sum(1, keepdim=True)
    )
    assert torch.equal(state["patch_embed_a.proj.bias"], weights["patch_embed.proj.bias"])
    assert torch.equal(state["pos_embed_v"], weights["pos_embed"][:, 1:])
    assert torch.equal(state["pos_embed_a"], CAVMAE(model.config).state_dict()["pos_embed_a"])
    assert torch.equal(state["decoder_pred_a.weight"], weights["decoder_pred.weight"][:256])
    assert torch.equal(state["decoder_pred_v.bias"], weights["decoder_pred.bias"])

    torch.save(weights, tmp_path / "vit.pth")
    result = convert("--vision-mae", tmp_path / "vit.pth", tmp_path / "start.safetensors")
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "start.safetensors").config == model.config
    del weights["decoder_embed.weight"]
    with pytest.raises(UserError, match=r"vit.pth: not a vision MAE.*decoder_embed.weight"):
        from_vision_mae(weights, "vit.pth")


def test_positions_are_interpolated_for_other_lengths(tmp_path):
    model = CAVMAE(CONFIG)
    save_model(tmp_path / "m.safetensors", model)
    result = convert(
        tmp_path / "m.safetensors", tmp_path / "n.safetensors", "--audio-frames", 128,
        "--image-size", 96,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    longer = load_checkpoint(tmp_path / "n.safetensors")
    assert (longer.config.audio_frames, longer.config.image_size) == (128, 96)
    assert longer.pos_embed_a.shape == (1, 8 * 8, 128)
    longer(torch.zeros(1, 128, 128), torch.zeros(1, 3, 96, 96))
    # A grid whose values are linear along time stays linear (away from its ends).
    ramp = torch.arange(4.0).repeat(8)[None, :, None]
    resampled = interpolate(ramp, (8, 4), (8, 8)).reshape(8, 8)
    assert torch.allclose(resampled[0, 2:6], torch.tensor([0.75, 1.25, 1.75, 2.25]), atol=0.1)


def test_an_audio_only_export_gives_the_same_audio_logits(tmp_path):
    model = CAVMAEClassifier(CONFIG, 4)
    save_model(tmp_path / "full.safetensors", model)
    result = convert(tmp_path / "full.safetensors", tmp_path / "audio.safetensors", "--audio-only")
    assert result.exit_code == 0, result.output
    names = load_file(tmp_path / "audio.safetensors").keys()
    assert not [name for name in names if "_v" in name]
    slim = load_checkpoint(tmp_path / "audio.safetensors")
    audio = torch.randn(2, 64, 128)
    for mode in ("audioonly", "missingaudioonly"):
        assert torch.equal(slim(audio, None, mode), model(audio, None, mode))
    with pytest.raises(UserError, match="without its image weights"):
        slim(audio, torch.zeros(2, 3, 64, 64))


def test_metadata_is_kept_by_a_conversion(tmp_path):
    save_model(tmp_path / "a.safetensors", CAVMAE(CONFIG), {"fbank_mean": "-4.0"})
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert read_weights(tmp_path / "b.safetensors")[1]["fbank_mean"] == "-4.0"
