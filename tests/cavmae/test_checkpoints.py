"""Checkpoints: published files and ours, both ways; hostile and wrong ones refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pickle

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from avprep.errors import UserError
from cavmae.checkpoints import (
    config_of,
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
from tests.conftest import run

# Heads of 64, as published, so that a file without a config tells its own size.
CONFIG = ModelConfig(
    embed_dim=128, depth=3, modality_depth=2, num_heads=2, decoder_dim=64, decoder_depth=2,
    decoder_heads=16, image_size=64, audio_frames=64,
)  # fmt: skip

# Each example overwrites the one file in the test's folder.
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@functools.cache
def fresh_weights():
    return CAVMAE(CONFIG).state_dict()


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
    shapes = json.loads((shared / "golden" / "state_dict_shapes.json").read_text())
    for kind, expected in (
        ("pretrain", ModelConfig()),
        ("finetune", ModelConfig(trainable_positions=True)),
    ):
        weights = {name: torch.empty(shape, device="meta") for name, shape in shapes[kind].items()}
        assert config_of(weights, tmp_path) == expected


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    payload = {"module.norm.bias": torch.zeros(3), "a": Hostile()}
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(payload, protocol=2))
    torch.save(payload, tmp_path / "zip.pth")
    torch.save(payload, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("plain.pth", "zip.pth", "legacy.pth"):
        with pytest.raises(UserError, match=r"not a plain file of weights.*code are refused"):
            load_checkpoint(tmp_path / name)
        for flags in ((), ("--vision-mae",)):
            result = convert(*flags, tmp_path / name, tmp_path / "out.safetensors")
            assert isinstance(result.exception, UserError)
        assert not (tmp_path / "out.safetensors").exists()
    assert not (tmp_path / "owned").exists()
    # The files do what they threaten where code is let through.
    torch.load(tmp_path / "zip.pth", weights_only=False)
    assert (tmp_path / "owned").is_dir()


def test_what_is_missing_unexpected_or_misshapen_is_named(tmp_path):
    model = CAVMAE(CONFIG)
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    del weights["module.mask_token"]
    weights["module.surplus"] = torch.zeros(1)
    weights["module.norm.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "m.pth")
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path / "m.pth")
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'm.pth'}: does not fit CAVMAE:",
        "  wrong shape: norm.bias [3], the model has [128]",
        "  missing: mask_token [1, 1, 64]",
        "  unexpected: surplus [1]",
    ]


def test_the_command_prints_the_lines_of_an_error_and_escapes_names(tmp_path):
    model = CAVMAE(CONFIG)
    weights = dict(model.state_dict(), surplus=torch.zeros(1))
    del weights["mask_token"]
    bad = tmp_path / "two\nlines.pth"
    torch.save(weights, bad)
    result = run("cavmae", "convert", bad, tmp_path / "out.safetensors")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"Error: {tmp_path}/two\\nlines.pth: does not fit CAVMAE:",
        "  missing: mask_token [1, 1, 64]",
        "  unexpected: surplus [1]",
    ]


def test_tensors_that_differ_by_block_share_a_line_and_long_lists_end(tmp_path):
    weights = CAVMAE(CONFIG).state_dict()
    for name in list(weights):
        if name.startswith(("blocks_a.", "blocks_v.")) and "norm2_v" in name:
            del weights[name]
    weights |= {f"extra{number}": torch.zeros(1) for number in range(30)}
    torch.save(weights, tmp_path / "m.pth")
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path / "m.pth")
    lines = str(caught.value).splitlines()
    assert "  missing: blocks_a.{0-1}.norm2_v.weight [128]" in lines
    assert "  unexpected: … and 18 more lines like these" in lines
    assert len(lines) < 20


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.module."])
@pytest.mark.parametrize("nest", [None, "model", "state_dict"])
def test_names_are_read_however_training_wrapped_them(tmp_path, prefix, nest):
    model = CAVMAE(CONFIG)
    weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    torch.save({nest: weights, "epoch": 3} if nest else weights, tmp_path / "m.pth")
    assert same(load_checkpoint(tmp_path / "m.pth").state_dict(), model.state_dict())


def test_half_precision_files_load_as_float32(tmp_path):
    model = CAVMAE(CONFIG)
    half = {name: value.half() for name, value in model.state_dict().items()}
    torch.save(half, tmp_path / "m.pth")
    loaded = load_checkpoint(tmp_path / "m.pth")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert torch.equal(loaded.mask_token, model.mask_token.half().float())


def test_a_loaded_model_trains_what_a_fresh_one_does(tmp_path):
    model = CAVMAE(CONFIG)
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    for fresh, read in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert fresh[0] == read[0]
        assert fresh[1].requires_grad == read[1].requires_grad
        assert not read[1].is_meta


def test_a_name_that_comes_twice_is_refused(tmp_path):
    torch.save(
        {"norm.bias": torch.zeros(1), "module.norm.bias": torch.zeros(1)}, tmp_path / "m.pth"
    )
    with pytest.raises(UserError, match=r"holds norm.bias twice"):
        load_checkpoint(tmp_path / "m.pth")


def test_a_model_whose_heads_no_shape_tells_is_not_written_as_pth(tmp_path):
    model = CAVMAE(dataclasses.replace(CONFIG, num_heads=4))
    with pytest.raises(UserError, match=r"num_heads 2, not 4\. Keep it as \.safetensors"):
        save_published(tmp_path / "m.pth", model)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """The bytes of a small checkpoint in both formats."""
    folder = tmp_path_factory.mktemp("whole")
    small = dataclasses.replace(CONFIG, embed_dim=64, num_heads=1, depth=2, modality_depth=1)
    model = CAVMAEClassifier(small, 2)
    save_model(folder / "m.safetensors", model)
    save_published(folder / "m.pth", model)
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_a_damaged_file_is_no_more_than_an_error(tmp_path, whole_files, data, suffix):
    whole = bytearray(whole_files[suffix])
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        # Both formats keep their directories at the ends of the file.
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(-3000, 3000))
            whole[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(whole)
    # A bit of a weight is not noticed; all else is, and nothing but a UserError comes out.
    with contextlib.suppress(UserError):
        load_checkpoint(path)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_strange_tensors_are_an_error_with_the_files_name(tmp_path, data):
    weights = dict(fresh_weights())
    names = st.sampled_from(
        [name for name in weights if ".1." not in name and "decoder_blocks" not in name]
    )
    for name in data.draw(st.lists(names, min_size=1, max_size=3)):
        shape = data.draw(st.none() | st.lists(st.integers(0, 9), max_size=4))
        if shape is None:
            weights.pop(name, None)
        else:
            weights[name] = torch.zeros(shape)
    torch.save(weights, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"m\.pth"):
        load_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "expected tensors by name, found a list"),
        ({"epoch": 3}, "found 'epoch' with a int"),
        ({}, "has no patch_embed_v.proj.weight. Its first tensors are none"),
        ({"conv1.weight": torch.zeros(1)}, "Its first tensors are conv1.weight"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, content, complaint):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(UserError, match=complaint):
        load_checkpoint(tmp_path / "m.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = CAVMAE(CONFIG)
    with torch.no_grad():
        model.norm_a.weight[3] = float("nan")
    save_model(tmp_path / "nan.safetensors", model)
    message = r"nan\.safetensors: norm_a\.weight holds values that are not finite"
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=message):
        init_from(CAVMAE(CONFIG), tmp_path / "nan.safetensors")


@pytest.mark.parametrize("name", ["config", "labels", "label_names"])
def test_endless_nesting_in_metadata_is_refused(tmp_path, name):
    metadata = {"format": "cavmae", "kind": "pretrain", "labels": '["a"]', name: "[" * 100_000}
    save_file({"norm.bias": torch.zeros(3)}, tmp_path / "deep.safetensors", metadata)
    with pytest.raises(UserError, match=r"deep\.safetensors: .*(not JSON|cannot be used)"):
        load_checkpoint(tmp_path / "deep.safetensors")


def test_a_hostile_size_costs_no_memory(tmp_path):
    config = dataclasses.asdict(CONFIG) | {"embed_dim": 4_000_000, "num_heads": 1}
    metadata = {"format": "cavmae", "kind": "pretrain", "config": json.dumps(config)}
    save_file({"norm.bias": torch.zeros(3)}, tmp_path / "m.safetensors", metadata)
    with pytest.raises(UserError, match=r"norm.bias \[3\], the model has \[4000000\]"):
        load_checkpoint(tmp_path / "m.safetensors")


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
    with pytest.raises(UserError, match="wrong shape") as caught:
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
    # The official file keeps its weights one level down.
    torch.save({"model": weights}, tmp_path / "nested.pth")
    result = convert("--vision-mae", tmp_path / "nested.pth", tmp_path / "again.safetensors")
    assert result.exit_code == 0, result.output
    state, again = (load_file(tmp_path / f"{name}.safetensors") for name in ("start", "again"))
    fresh = {name for name in state if not torch.equal(state[name], again[name])}
    assert fresh == {"modality_a", "modality_v", "decoder_modality_a", "decoder_modality_v"}


def test_all_blocks_of_a_vision_mae_become_the_one_encoder_of_av_mae(tmp_path):
    weights = vision_mae()
    torch.save(weights, tmp_path / "vit.pth")
    start = tmp_path / "start.safetensors"
    result = convert("--vision-mae", "--objective", "av-mae", tmp_path / "vit.pth", start)
    assert result.exit_code == 0, result.output
    model = load_checkpoint(start)
    assert model.config.objective == "av-mae"
    for number, block in enumerate(model.blocks_u):
        for name in ("norm1.weight", "attn.qkv.weight", "mlp.fc2.bias"):
            assert torch.equal(block.get_parameter(name), weights[f"blocks.{number}.{name}"])
    assert torch.equal(model.norm.weight, weights["norm.weight"])
    alone = convert("--objective", "av-mae", start, tmp_path / "again.safetensors")
    assert "--objective av-mae: give --vision-mae too" in str(alone.exception)


def test_a_vision_mae_that_does_not_fit_is_refused():
    whole = vision_mae()
    for change, complaint in (
        ({"decoder_embed.weight": None}, "it has no decoder_embed.weight"),
        ({"blocks.1.attn.qkv.bias": None}, "\n  missing: blocks.1.attn.qkv.bias"),
        ({"head.weight": torch.zeros(9, 4)}, r"\n  unexpected: head.weight \[9, 4\]"),
        ({"norm.bias": torch.zeros(2)}, r"\n  wrong shape: norm_a.bias \[2\]"),
        ({"pos_embed": torch.zeros(4)}, "unexpected shapes"),
    ):
        changed = {**whole, **change}
        weights = {name: value for name, value in changed.items() if value is not None}
        with pytest.raises(UserError, match=rf"^vit.pth: .*{complaint}"):
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
    with pytest.raises(UserError, match="weights for audioonly and missingaudioonly only"):
        slim(audio, torch.zeros(2, 3, 64, 64))


def test_an_audio_only_model_goes_where_it_can_be_read_again(tmp_path):
    model = CAVMAEClassifier(CONFIG, 4)
    save_model(tmp_path / "full.safetensors", model)
    result = convert(tmp_path / "full.safetensors", tmp_path / "a.pth", "--audio-only")
    assert "needs a .safetensors" in str(result.exception)
    longer = ("--audio-only", "--audio-frames", 128)
    assert (
        convert(tmp_path / "full.safetensors", tmp_path / "a.safetensors", *longer).exit_code == 0
    )
    twice = convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--audio-frames", 64)
    assert twice.exit_code == 0, twice.output
    assert load_checkpoint(tmp_path / "b.safetensors").modalities == ("audio",)
    save_model(tmp_path / "pre.safetensors", CAVMAE(CONFIG))
    result = convert(tmp_path / "pre.safetensors", tmp_path / "c.safetensors", "--audio-only")
    assert "--audio-only is for classifiers; this is a pretrained" in str(result.exception)


def test_a_name_without_a_known_ending_is_refused(tmp_path):
    save_model(tmp_path / "a.safetensors", CAVMAE(CONFIG))
    result = convert(tmp_path / "a.safetensors", tmp_path / "b.bin")
    assert "must end in .safetensors or .pth" in str(result.exception)


def test_metadata_is_kept_by_a_conversion(tmp_path):
    save_model(tmp_path / "a.safetensors", CAVMAE(CONFIG), {"fbank_mean": "-4.0"})
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert read_weights(tmp_path / "b.safetensors")[1]["fbank_mean"] == "-4.0"
