"""The systems that the paper compares CAV-MAE with: each beside a plain one, and as a run."""

from __future__ import annotations

import csv
import json
import math
import signal
import tarfile
import time
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from avprep.errors import UserError
from cavmae.checkpoints import load_checkpoint, read_metadata, save_model
from cavmae.cli import group
from cavmae.model import CAVMAE, CAVMAEClassifier, PretrainOptions, draw_noise
from cavmae.options import BOTH, OBJECTIVES
from cavmae.train.checkpoint import list_checkpoints
from tests import forks
from tests.cavmae import naive_model as naive
from tests.cavmae.test_model import ODD, randomised
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards

OTHERS = [name for name in OBJECTIVES if name != "cav-mae"]
STREAMS = {"av-mae": "av", "cav": "av", "audio-mae": "a", "image-mae": "v"}
MODES = {"av-mae": "multimodal", "cav": "multimodal", "audio-mae": "audioonly",
         "image-mae": "videoonly"}  # fmt: skip


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(3, 160, 128), torch.randn(3, 3, 96, 96)


def tokens_of(w, config, stream, pictures, kept=None):
    """One clip's tokens behind its modality's own blocks, if it has any."""
    x = naive.embed(w, stream, pictures, config.patch_size)
    x = x if kept is None else x[:, kept]
    return naive.through_own(w, config, stream, x)


def plain_contrast(w, config, pictures):
    """Every clip alone and whole, every probability spelled out."""
    mean = {
        stream: [
            naive.through_shared(w, config, tokens_of(w, config, stream, clip[None]), f"_{stream}")
            .mean(dim=1)
            .squeeze()
            for clip in clips
        ]
        for stream, clips in pictures.items()
    }
    unit = {s: [vector / vector.square().sum().sqrt() for vector in mean[s]] for s in mean}
    losses, right = [], 0
    for i, image in enumerate(unit["v"]):
        scores = [torch.einsum("d,d->", audio, image) / 0.05 for audio in unit["a"]]
        losses.append(-torch.log(scores[i].exp() / sum(score.exp() for score in scores)))
        right += max(range(len(scores)), key=lambda j, scores=scores: float(scores[j])) == i
    return {"loss_contrast": sum(losses) / len(losses), "contrast_accuracy": right / len(losses)}


def plain_reconstruction(w, config, pictures, noise, ratio):
    """Clip by clip and patch by patch; every model here has one set of norms."""
    streams = list(pictures)
    errors = {stream: [] for stream in streams}
    for clip in range(len(noise[streams[0]])):
        order = {s: noise[s][clip].argsort(stable=True).tolist() for s in streams}
        kept = {s: order[s][: int(len(order[s]) * (1 - ratio))] for s in streams}
        seen = [tokens_of(w, config, s, pictures[s][clip : clip + 1], kept[s]) for s in streams]
        x = naive.through_shared(w, config, torch.cat(seen, dim=1), "")
        x = list(naive.linear(w, "decoder_embed", x)[0])
        placed = []
        for s in streams:
            there = {place: x.pop(0) for place in kept[s]}
            for place in range(len(order[s])):
                token = there.get(place, w["mask_token"][0, 0])
                token = token + w[f"decoder_pos_embed_{s}"][0, place]
                placed.append(token + w[f"decoder_modality_{s}"][0, 0])
        x = torch.stack(placed)[None]
        for number in range(config.decoder_depth):
            x = naive.block(w, f"decoder_blocks.{number}", x, config.decoder_heads)
        x = list(naive.norm(w, "decoder_norm", x)[0])
        for s in streams:
            patches = naive.patches_of(pictures[s][clip : clip + 1], config.patch_size)[0]
            for place, truth in enumerate(patches):
                prediction = naive.linear(w, f"decoder_pred_{s}", x.pop(0))
                if place not in kept[s]:
                    truth = (truth - truth.mean()) / (truth.var() + 1e-6).sqrt()
                    errors[s].append((prediction - truth).square().mean())
    names = {"a": "loss_mae_audio", "v": "loss_mae_image"}
    return {names[s]: sum(found) / len(found) for s, found in errors.items()}


@pytest.mark.parametrize("objective", OTHERS)
def test_losses_and_gradients_are_those_of_a_plain_model(inputs, objective):
    torch.manual_seed(0)
    config = ODD.with_objective(objective)
    model = randomised(CAVMAE(config))
    options = PretrainOptions(mask_ratio=0.6, mae_weight=0.7, contrast_weight=0.3)
    noise = draw_noise(config, options, 3, torch.Generator().manual_seed(5))
    out = model(*inputs, options, noise_audio=noise[0], noise_image=noise[1])
    out.loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    weights = {n: v.detach().clone().requires_grad_() for n, v in model.state_dict().items()}
    pictures = naive.pictures_of(*inputs)
    pictures = {stream: pictures[stream] for stream in STREAMS[objective]}
    if objective == "cav":
        expected = plain_contrast(weights, config, pictures)
        loss = 0.3 * expected["loss_contrast"]
    else:
        of_stream = dict(zip("av", noise, strict=True))
        expected = plain_reconstruction(weights, config, pictures, of_stream, 0.6)
        loss = 0.7 * sum(expected.values())
    loss.backward()
    torch.testing.assert_close(out.loss, loss, rtol=0, atol=1e-5)
    parts = ("loss_mae_audio", "loss_mae_image", "loss_contrast", "contrast_accuracy")
    assert {name for name in parts if getattr(out, name) is not None} == expected.keys()
    for name, value in expected.items():
        found = value.item() if isinstance(value, torch.Tensor) else value
        assert getattr(out, name).item() == pytest.approx(found, abs=1e-5)
    assert len(gradients) > 50
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, weights[name].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", OTHERS)
def test_nothing_is_kept_that_the_objective_has_no_use_for(inputs, objective):
    model = CAVMAE(ODD.with_objective(objective))
    model(*inputs).loss.backward()
    idle = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    joint = {
        f"blocks_u.{n}.norm{k}.{w}" for n in (0, 1) for k in (1, 2) for w in ("weight", "bias")
    }
    # What a classifier of both modalities starts from.
    assert idle == ({*joint, "norm.weight", "norm.bias"} if objective == "cav" else set())
    whole = CAVMAE(ODD).state_dict().keys()
    if objective == "av-mae":
        assert {name.split(".")[1] for name in model.state_dict() if "blocks_u" in name} == {
            *"0123"
        }
    else:
        assert model.state_dict().keys() < whole  # by the published names


@pytest.mark.parametrize("objective", ["audio-mae", "image-mae"])
def test_the_other_modality_is_not_looked_at(inputs, objective):
    model = CAVMAE(ODD.with_objective(objective))
    given = [
        x if objective.startswith(n) else None
        for x, n in zip(inputs, ("audio", "image"), strict=True)
    ]
    seed = torch.Generator().manual_seed
    assert torch.equal(
        model(*given, generator=seed(0)).loss, model(*inputs, generator=seed(0)).loss
    )
    with pytest.raises(UserError, match=f"{objective} needs {objective.split('-')[0]}"):
        model(*given[::-1])


@pytest.mark.parametrize("objective", OTHERS)
def test_classifiers_and_features_are_those_of_the_plain_model(inputs, objective):
    torch.manual_seed(0)
    config = ODD.with_objective(objective)
    model = randomised(CAVMAEClassifier.from_pretraining(config, 5))
    weights, pictures = model.state_dict(), naive.pictures_of(*inputs)
    norms = "_{}" if objective == "cav" else ""  # of single modalities
    tokens = {s: tokens_of(weights, config, s, pictures[s]) for s in STREAMS[objective]}
    alone = {
        s: naive.through_shared(weights, config, x, norms.format(s)) for s, x in tokens.items()
    }
    names = {"a": "audio", "v": "image"}
    for stream, expected in alone.items():
        ours = model.features_of(names[stream], inputs["av".index(stream)])
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    pooled = {{"a": "audioonly", "v": "videoonly"}[s]: x.mean(dim=1) for s, x in alone.items()}
    if len(tokens) > 1:
        joint = naive.through_shared(weights, config, torch.cat([*tokens.values()], dim=1), "")
        pooled["multimodal"] = joint.mean(dim=1)
    for mode, vectors in pooled.items():
        expected = naive.linear(weights, "mlp_head.1", naive.norm(weights, "mlp_head.0", vectors))
        torch.testing.assert_close(model(*inputs, mode), expected, rtol=0, atol=1e-5)
    assert {*pooled} == {mode for mode in model.modes if not mode.startswith("missing")}


# As runs.


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objectives") / "shards"
    write_tiny_shards(folder, samples=60)
    return folder


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Initial weights of a small model, for each objective."""
    folder = tmp_path_factory.mktemp("starts")
    for objective in OBJECTIVES:
        torch.manual_seed(0)
        model = CAVMAE(SMALL.with_objective(objective))
        save_model(folder / f"{objective}.safetensors", model, {"norm_pix_loss": "1"})
    return folder


def words(shards, starts, out, objective, *flags, epochs=2):
    start = starts / f"{objective}.safetensors"
    return [
        *map(str, ("pretrain", "--shards", shards, "--split", "train", "--init", start)),
        *map(str, ("--out", out, "--epochs", epochs, "--batch-size", 16, "--lr", "1e-3")),
        *map(str, ("--workers", 0, "--device", "cpu", *flags)),
    ]


def run(*arguments):
    """What a command of the project prints, or its error."""
    result = CliRunner().invoke(group, [str(word) for word in arguments])
    if isinstance(result.exception, UserError):
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def runs(shards, starts, tmp_path_factory):
    """A run of each objective, evaluated on the split `test`."""
    folder = tmp_path_factory.mktemp("runs")
    for objective in OBJECTIVES:
        flags = ("--val-shards", shards, "--val-split", "test", "--log-steps", 1)
        run(*words(shards, starts, folder / objective, objective, *flags))
    return folder


MAE = {"audio": "loss_mae_audio", "image": "loss_mae_image"}
CONTRAST = {"loss_contrast", "contrast_accuracy"}
RETRIEVAL = {"audio_to_image_recall_at_10", "image_to_audio_recall_at_10"}
COLUMNS = {
    "cav-mae": {*MAE.values(), *CONTRAST},
    "av-mae": {*MAE.values()},
    "cav": CONTRAST,
    "audio-mae": {MAE["audio"]},
    "image-mae": {MAE["image"]},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_logs_what_its_objective_has_and_says_which_it_is(runs, objective):
    out = runs / objective
    rows = list(csv.DictReader((out / "log.csv").open()))
    general = {"step", "epoch", "split", "loss", "knn_accuracy", "lr", "grad_norm"}
    speed = {"samples_per_second", "data_wait"}
    expected = COLUMNS[objective]
    if expected >= CONTRAST:
        expected = expected | RETRIEVAL
    assert rows[0].keys() == {*general, *speed, *expected}
    for split in ("train", "validation"):
        first, *_, last = (float(row["loss"]) for row in rows if row["split"] == split)
        assert math.isfinite(last)
        assert last < first
    assert json.loads((out / "config.json").read_text())["objective"] == objective
    assert json.loads(read_metadata(out)["config"])["objective"] == objective
    assert load_checkpoint(out).config == SMALL.with_objective(objective)


@pytest.mark.parametrize("objective", OTHERS)
def test_a_killed_run_ends_bit_equal(runs, shards, starts, tmp_path, objective):
    out = tmp_path / "run"
    arguments = words(shards, starts, out, objective, "--checkpoint-steps", 1)
    process = forks.start(*arguments)
    while not list_checkpoints(out / "checkpoints") and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run(*arguments)
    ours, theirs = (load_file(each / "model.safetensors") for each in (out, runs / objective))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_classifier_starts_from_it_and_every_command_takes_it_or_says_why_not(
    runs, shards, tmp_path, objective
):
    mode = MODES.get(objective, "multimodal")
    on_shards = ("--shards", shards, "--split", "test", "--workers", 0)
    common = ("--epochs", 1, "--batch-size", 16, "--workers", 0, "--device", "cpu", "--mode", mode)
    tuned = tmp_path / "tuned"
    run("finetune", "--shards", shards, "--split", "train", "--val-shards", shards,
        "--init", runs / objective, "--out", tuned, *common)  # fmt: skip
    classifier = load_checkpoint(tuned)
    assert classifier.config.objective == objective
    in_all = ("--modes", "all", "--json")
    evaluated = json.loads(run("eval", *on_shards, "--checkpoint", tuned, *in_all))
    assert {*evaluated.get("modes", [mode])} == {*classifier.modes}
    assert "logits" in run("export", tuned, tmp_path / "m.pt2")
    run("convert", tuned, tmp_path / "again.safetensors")
    assert load_checkpoint(tmp_path / "again.safetensors").config == classifier.config

    one = {"audioonly": "audio", "videoonly": "image"}.get(mode)
    checkpoint = ("--checkpoint", runs / objective)
    of_one = ("--modality", one) if one else ()
    assert "accuracy" in run("knn", *on_shards, *checkpoint, "--json", *of_one)
    run("embed", *on_shards, *checkpoint, "--out", tmp_path / "f.npz", *of_one)
    inpainted = run(
        "inpaint", *on_shards[:4], *checkpoint, "--out", tmp_path / "panels", "--clips", 1
    )
    retrieved = run("retrieve", *on_shards, *checkpoint, "--json")
    if objective == "cav":
        assert "pretrained as cav and has no decoder" in inpainted
    else:
        (drawn,) = json.loads((tmp_path / "panels" / "inpaint.json").read_text())["clips"]
        for name in BOTH:
            assert (drawn[f"loss_{name}"] is None) == (one not in (None, name))
    if objective.startswith("cav"):
        assert json.loads(retrieved)["clips"] == 12
    else:
        assert f"pretrained as {objective}, which never compares sounds with images" in retrieved
    if objective != "cav-mae":
        lost = run("convert", runs / objective, tmp_path / "m.pth")
        assert f"nothing in it would state the objective {objective}. Keep it as .safetens" in lost
    if one:
        other = {"audio": "image", "image": "audio"}[one]
        for modality in ("both", other):
            refused = run("knn", *on_shards, *checkpoint, "--modality", modality)
            assert f"has no {other} features; give --modality {one}" in refused
        wrong = run("eval", *on_shards, "--checkpoint", tuned, "--mode", "multimodal")
        assert f"--mode multimodal needs weights that it does not have; give --mode {mode}" in wrong
        refused = run("finetune", "--shards", shards, "--val-shards", shards,
                      "--init", runs / objective, "--out", tmp_path / "no")  # fmt: skip
        assert f"was pretrained as {objective}; give --mode {mode}" in refused


@pytest.mark.parametrize("objective", ["audio-mae", "image-mae"])
def test_one_modality_is_learned_from_shards_that_lost_the_other(starts, tmp_path, objective):
    """Members of the other modality are overwritten: reading them would fail. Clips that never had
    it are learned from, those without the objective's own are not."""
    own, other = BOTH if objective == "audio-mae" else BOTH[::-1]
    lacking = {1: other, 2: own, 3: other, 4: own, 6: own}
    tiny = write_tiny_shards(tmp_path / "shards", samples=20, lacking=lacking)
    lost = ".flac" if objective == "image-mae" else ".jpg"
    for shard in tiny.folder.glob("*.tar"):
        data = bytearray(shard.read_bytes())
        with tarfile.open(shard) as members:
            for member in members:
                if member.name.endswith(lost):
                    start = member.offset_data
                    data[start : start + member.size] = bytes(member.size)
        shard.write_bytes(data)
    flags = ("--max-bad-samples", 0, "--val-shards", tiny.folder, "--val-split", "test")
    run(*words(tiny.folder, starts, tmp_path / "run", objective, *flags, epochs=1))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["samples_per_epoch"] == 16 - 3


def test_what_an_objective_can_start_from(shards, starts, tmp_path):
    def ask(start, objective):
        arguments = words(shards, starts, tmp_path / f"{start}-{objective}", start)
        return run(*arguments, "--objective", objective, "--dry-run")

    for objective in ("cav", "audio-mae", "image-mae"):
        assert "dry run" in ask("cav-mae", objective)
    assert "was pretrained as cav-mae, which lacks weights of av-mae" in ask("cav-mae", "av-mae")
    assert "was pretrained as audio-mae, which lacks weights of cav" in ask("audio-mae", "cav")
    assert "dry run" in ask("av-mae", "av-mae")


def test_a_run_without_a_loss_is_refused(shards, starts, tmp_path):
    for objective, weight in (("av-mae", "mae"), ("cav", "contrast")):
        said = run(*words(shards, starts, tmp_path / "run", objective, f"--{weight}-weight", 0))
        assert f"--objective {objective} has no loss with a weight: give --{weight}-w" in said


def test_a_fresh_model_of_every_named_size_can_be_had():
    for objective in OBJECTIVES:
        with torch.device("meta"):
            model = CAVMAE(replace(ODD, objective="cav-mae").with_objective(objective))
        assert model.config.objective == objective
    with pytest.raises(UserError, match="modality_depth is 2; av-mae has one encoder"):
        replace(ODD, objective="av-mae")
    with pytest.raises(UserError, match="unknown objective 'mae'; choose from cav-mae, av-mae"):
        replace(ODD, objective="mae")
