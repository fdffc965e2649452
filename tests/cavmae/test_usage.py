"""What a checkpoint does not say of itself is assumed aloud; what it says is never overridden
in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from avprep.errors import UserError
from avprep.labels import LabelSet, vggsound_labels, write_label_csv
from avprep.shards.format import read_dataset, write_dataset
from cavmae.checkpoints import init_from, load_checkpoint, read_metadata, save_model, save_published
from cavmae.checkpoints.usage import (
    assumed_classes,
    is_published_order,
    labels_metadata,
    labels_of,
    stored_labels,
    usage_of,
)
from cavmae.cli import group
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig
from cavmae.options import StatedUsage
from tests.cavmae.tiny_shards import CLASSES, SIZE, write_tiny_shards

# Its size is told by its shapes, so that it can be a .pth, and it takes the tiny shards' frames.
CONFIG = ModelConfig(
    embed_dim=64, depth=2, modality_depth=1, num_heads=1, image_size=SIZE, audio_frames=16,
    trainable_positions=True,
)  # fmt: skip
FILE = Path("model.pth")
TURNED = LabelSet(CLASSES.mids[::-1], CLASSES.names[::-1])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usage") / "shards"
    write_tiny_shards(folder, samples=13)
    return folder


def constant_classifier(answer: int = 1) -> CAVMAEClassifier:
    """Answers the same class always; by softmax surely, by sigmoid not."""
    torch.manual_seed(0)
    model = CAVMAEClassifier(CONFIG, len(CLASSES))
    with torch.no_grad():
        model.mlp_head[1].weight.zero_()
        model.mlp_head[1].bias.copy_(torch.eye(len(CLASSES))[answer] * 8)
    return model


def run(*words: object) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


def evaluate(shards: Path, checkpoint: Path, *flags: object) -> tuple[dict, str]:
    words = ("eval", "--shards", shards, "--checkpoint", checkpoint, "--json", *flags)
    result = run(*words, "--workers", 0, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    return json.loads(result.stdout), "\n".join(warnings)


def test_eval_of_a_published_file_says_all_that_it_assumes(shards, tmp_path):
    file = tmp_path / "model.pth"
    save_published(file, constant_classifier())
    found, warnings = evaluate(shards, file)
    assert (found["mode"], found["criterion"]) == ("multimodal", "bce")
    assert "stores no mode; multimodal is assumed" in warnings
    assert "stores no criterion; bce is assumed" in warnings
    assert f"Its 4 classes are taken for those of {shards}, in that order." in warnings
    assert found["warnings"] == [line.removeprefix("Warning: ") for line in warnings.splitlines()]

    write_label_csv(tmp_path / "classes.csv", CLASSES)
    stated = ("--mode", "videoonly", "--criterion", "ce", "--labels", tmp_path / "classes.csv")
    found, warnings = evaluate(shards, file, *stated)
    assert (found["mode"], found["criterion"]) == ("videoonly", "ce")
    assert len(warnings.splitlines()) == 1
    assert "Its 4 classes are taken for those of --labels, in that order." in warnings


def test_eval_never_takes_classes_for_others(shards, tmp_path):
    file, own = tmp_path / "model.pth", tmp_path / "model.safetensors"
    save_published(file, constant_classifier())
    write_label_csv(tmp_path / "turned.csv", TURNED)
    save_model(own, constant_classifier(), labels_metadata(TURNED))
    order = r"class 0 is '/m/d', not '/m/a' \(the same classes in another order\)"
    common = ("eval", "--shards", shards, "--workers", 0, "--device", "cpu", "--checkpoint")
    for words in ((file, "--labels", tmp_path / "turned.csv"), (own,)):
        with pytest.raises(UserError, match=order):
            raise run(*common, *words).exception
    write_label_csv(tmp_path / "classes.csv", CLASSES)
    with pytest.raises(UserError, match=r"another label set than --labels gives: class 0"):
        raise run(*common, own, "--labels", tmp_path / "classes.csv").exception


def test_a_recipe_speaks_for_files_that_say_nothing_and_for_no_other(shards, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[eval]\nmode = "audioonly"\ncriterion = "bce"\n')
    own, published = tmp_path / "own.safetensors", tmp_path / "published.pth"
    facts = {"mode": "videoonly", "criterion": "ce", **labels_metadata(CLASSES)}
    save_model(own, constant_classifier(), facts)
    save_published(published, constant_classifier())
    found, warnings = evaluate(shards, own, "--config", recipe)
    assert (found["mode"], found["criterion"]) == ("videoonly", "ce")
    assert "was trained with mode videoonly, which is used; the recipe says audioonly" in warnings
    assert "was trained with criterion ce, which is used; the recipe says bce" in warnings
    found, warnings = evaluate(shards, own, "--config", recipe, "--mode", "multimodal")
    assert found["mode"] == "multimodal"
    found, warnings = evaluate(shards, published, "--config", recipe)
    assert (found["mode"], found["criterion"]) == ("audioonly", "bce")
    assert "stores no mode; audioonly is used, as the recipe says" in warnings


def test_a_frame_that_does_not_exist_is_refused_in_every_mode(shards, tmp_path):
    save_model(tmp_path / "m.safetensors", constant_classifier(), labels_metadata(CLASSES))
    read = ("--shards", shards, "--checkpoint", tmp_path / "m.safetensors", "--frames", 99)
    read += ("--workers", 0, "--device", "cpu")
    for words in (
        ("eval", "--mode", "audioonly"),
        ("eval", "--mode", "videoonly"),
        ("knn", "--modality", "audio"),
        ("embed", "--modality", "audio", "--out", tmp_path / "e.npz"),
    ):
        with pytest.raises(UserError, match=r"99.*frames 0 to 2"):
            raise run(*words, *read).exception


@pytest.mark.parametrize(("classes", "criterion"), [(309, "ce"), (527, "bce"), (4, "bce")])
def test_the_assumed_criterion_is_that_of_the_published_classifiers(classes, criterion):
    usage = usage_of(FILE, {}, classes, StatedUsage())
    assert (usage.mode, usage.criterion) == ("multimodal", criterion)
    assert len(usage.notes) == 2
    assert usage_of(FILE, {}, classes, StatedUsage("audioonly", "ce")).notes == ()


def test_a_criterion_that_contradicts_the_file_is_used_and_said():
    usage = usage_of(
        FILE, {"mode": "audioonly", "criterion": "ce"}, 4, StatedUsage(criterion="bce")
    )
    assert (usage.mode, usage.criterion) == ("audioonly", "bce")
    assert usage.notes == (f"{FILE}: was trained with criterion ce; bce is used as asked.",)


def test_a_file_that_stores_nonsense_is_refused():
    with pytest.raises(
        UserError, match="stores mode 'both'; expected one of multimodal, audioonly"
    ):
        usage_of(FILE, {"mode": "both"}, 4, StatedUsage())
    with pytest.raises(UserError, match="classifies 5 classes, the label set has 4"):
        labels_of(FILE, labels_metadata(CLASSES), 5, None)


def test_the_published_order_of_vggsound_is_recognised_by_its_names():
    published = vggsound_labels()
    assert is_published_order(published)
    other_mids = LabelSet(tuple(f"v{n}" for n in range(309)), published.names)
    assert is_published_order(other_mids)
    assert "which is the published order of VGGSound" in assumed_classes(FILE, published, "x")
    by_name = LabelSet(tuple(sorted(published.names)), tuple(sorted(published.names)))
    assert not is_published_order(by_name)
    assert "not the published order of VGGSound: a published" in assumed_classes(FILE, by_name, "x")


def test_the_published_order_of_audioset_is_recognised_by_its_mids(shared):
    from avprep.labels import read_label_csv

    published = read_label_csv(shared / "metadata" / "class_labels_indices.csv")
    assert is_published_order(published)
    assert not is_published_order(replace(published, mids=published.mids[::-1]))


def test_eval_warns_of_a_numbering_by_sorted_names(tmp_path):
    """What used to score a published VGGSound classifier wrongly in silence."""
    write_tiny_shards(tmp_path / "shards", samples=4)
    names = sorted(vggsound_labels().names)
    mids = [f"c{index}" for index in range(len(names))]
    info = read_dataset(tmp_path / "shards")
    labels = tuple(zip(mids, names, strict=True))
    counts = tuple(info.class_counts) + (0,) * 305
    write_dataset(tmp_path / "shards", replace(info, labels=labels, class_counts=counts))
    save_published(tmp_path / "vgg.pth", CAVMAEClassifier(CONFIG, 309))
    found, warnings = evaluate(tmp_path / "shards", tmp_path / "vgg.pth")
    assert found["criterion"] == "ce"
    assert "which is not the published order of VGGSound" in warnings
    write_label_csv(tmp_path / "classes.csv", LabelSet(tuple(mids), tuple(names)))
    for words in (("eval", "--shards", tmp_path / "shards", "--checkpoint"), ("export",)):
        result = run(
            *words, tmp_path / "vgg.pth", *([tmp_path / "vgg.pt2"] if words == ("export",) else []),
            "--labels", tmp_path / "classes.csv",
        )  # fmt: skip
        assert "which is not the published order of VGGSound" in result.stderr


def test_convert_stores_what_is_stated_and_says_what_is_assumed(tmp_path):
    source, target = tmp_path / "model.pth", tmp_path / "model.safetensors"
    save_published(source, constant_classifier())
    write_label_csv(tmp_path / "classes.csv", CLASSES)
    result = run("convert", source, target)
    assert result.exit_code == 0, result.output
    for said in ("stores no mode; multimodal", "stores no criterion; bce", "no label set"):
        assert said in result.stderr
    stored = read_metadata(target)
    assert (stored["mode"], stored["criterion"]) == ("multimodal", "bce")
    assert stored_labels(stored) is None

    flags = ("--mode", "audioonly", "--criterion", "ce", "--labels", tmp_path / "classes.csv")
    result = run("convert", source, target, *flags)
    stored = read_metadata(target)
    assert (stored["mode"], stored["criterion"]) == ("audioonly", "ce")
    assert stored_labels(stored) == CLASSES
    assert "taken for those of --labels, in that order" in result.stderr
    again = run("convert", target, tmp_path / "again.safetensors")
    assert read_metadata(tmp_path / "again.safetensors") == stored
    assert again.stderr == ""
    back = run("convert", target, tmp_path / "back.pth")
    assert "stores no mode, criterion or label set; use it with --mode audioonly" in back.stderr


def test_convert_refuses_flags_that_nothing_could_store(tmp_path):
    save_published(tmp_path / "c.pth", constant_classifier())
    save_model(tmp_path / "p.safetensors", CAVMAE(replace(CONFIG, decoder_dim=64)))
    for words, complaint in (
        (("c.pth", "d.pth", "--criterion", "ce"), "--criterion needs a .safetensors"),
        (("p.safetensors", "q.safetensors", "--mode", "audioonly"), "--mode is for classifiers"),
        (
            ("c.pth", "d.safetensors", "--audio-only", "--mode", "videoonly"),
            "give audioonly or missingaudioonly",
        ),
    ):
        result = run("convert", tmp_path / words[0], tmp_path / words[1], *words[2:])
        assert complaint in str(result.exception)
        assert not (tmp_path / words[1]).exists()


def test_convert_takes_published_initial_weights_with_class_tokens(tmp_path):
    config = replace(CONFIG, decoder_dim=64, trainable_positions=False)
    model = CAVMAE(config)
    tokens = {f"cls_token_{name}": torch.zeros(1, 1, 64) for name in ("a", "v", "av")}
    torch.save({**model.state_dict(), **tokens}, tmp_path / "adapted.pth")
    result = run("convert", tmp_path / "adapted.pth", tmp_path / "start.safetensors")
    assert result.exit_code == 0, result.output
    assert "cls_token_a, cls_token_av, cls_token_v not used" in result.stderr
    state = load_checkpoint(tmp_path / "start.safetensors").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_head_is_reused_for_the_same_classes_alone(tmp_path):
    trained, file = constant_classifier(), tmp_path / "m.safetensors"
    for stored, labels, is_taken, said in (
        (labels_metadata(CLASSES), CLASSES, True, ""),
        (labels_metadata(CLASSES), TURNED, False, "with another label set than that of here"),
        ({}, CLASSES, True, "stores no label set. Its 4 classes are taken for those of here"),
    ):
        save_model(file, trained, stored)
        model = CAVMAEClassifier(CONFIG, len(CLASSES))
        report = init_from(model, file, labels, "here")
        assert torch.equal(model.mlp_head[1].bias, trained.mlp_head[1].bias) == is_taken
        assert (said in report.notes[0]) if said else not report.notes
