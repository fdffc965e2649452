"""Models travel: into folders and through a hub, and come back as they were."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import fsspec
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from avprep.errors import UserError, WorkFailed
from cavmae import (
    CAVMAE,
    CAVMAEClassifier,
    FinetuneRun,
    PretrainRun,
    finetune,
    load_checkpoint,
    load_trained,
    pretrain,
    save_model,
)
from cavmae.checkpoints.usage import labels_metadata
from cavmae.cli import group
from cavmae.cli.options import load_config
from cavmae.options import OBJECTIVES
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import CLASSES, write_tiny_shards
from tests.hub_server import TOKEN, HubServer

FACTS = {"fbank_mean": "-5.5", "fbank_std": "3.25"}
OF_CLASSIFIER = {**FACTS, "mode": "audioonly", "criterion": "ce", **labels_metadata(CLASSES)}
AUDIO, IMAGE = torch.randn(2, 16, 128), torch.randn(2, 3, 16, 16)
MODEL = "ours/model"
HUB = f"hf://{MODEL}"


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory):
    """A hub, and the hub library made to use it, which it decides when it is imported."""
    assert "huggingface_hub" not in sys.modules
    with pytest.MonkeyPatch.context() as patch, HubServer() as server:
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        patch.setenv("HF_HUB_DISABLE_XET", "1")  # a transfer that this hub does not speak
        patch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture(scope="module")
def pushed(hub):
    """Of a classifier that lies on the hub as `MODEL`."""
    model = classifier()
    model.push_to_hub(MODEL, token=TOKEN)
    return model


def classifier(seed=0):
    torch.manual_seed(seed)
    model = CAVMAEClassifier(SMALL, len(CLASSES))
    model.metadata = OF_CLASSIFIER
    return model


def files_of(repository, branch="main"):
    return repository.commits[repository.branches[branch]]


def logits(model, mode="audioonly"):
    with torch.inference_mode():
        return model(AUDIO, IMAGE, mode)


def run(*words):
    return CliRunner().invoke(group, [*map(str, words)])


def in_another_process(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "cavmae", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_pretrained_model_of_each_objective_comes_back_as_it_was(objective, tmp_path):
    torch.manual_seed(0)
    model = CAVMAE(SMALL.with_objective(objective))
    model.metadata = {**FACTS, "norm_pix_loss": "1"}
    model.save_pretrained(tmp_path / "model")
    loaded = CAVMAE.from_pretrained(tmp_path / "model")
    assert (loaded.config, loaded.metadata) == (model.config, model.metadata)
    assert not loaded.training
    outputs = []
    for each in (model.eval(), loaded):
        with torch.inference_mode():
            outputs.append(each(AUDIO, IMAGE, generator=torch.Generator().manual_seed(1)))
    assert all(
        torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
        for ours, theirs in zip(*(vars(one).values() for one in outputs), strict=True)
    )


@pytest.mark.parametrize("images", [True, False])
def test_a_classifier_comes_back_as_it_was(images, tmp_path):
    model = classifier()
    if not images:
        model.drop_images()
    model.save_pretrained(tmp_path / "model")
    for _ in range(2):  # what was loaded is saved as it was
        loaded = CAVMAEClassifier.from_pretrained(tmp_path / "model")
        assert (loaded.config, loaded.metadata) == (model.config, OF_CLASSIFIER)
        assert loaded.modes == model.modes
        assert torch.equal(logits(loaded), logits(model))
        loaded.save_pretrained(tmp_path / "model")


def test_a_model_that_was_pushed_comes_back_as_it_was(hub, pushed):
    files = files_of(hub.repositories[MODEL])
    assert {*files} == {"model.safetensors", "config.json", "README.md"}
    assert json.loads(files["config.json"])["architectures"] == ["CAVMAEClassifier"]
    for name in (MODEL, HUB, Path(HUB)):
        loaded = CAVMAEClassifier.from_pretrained(name)
        assert (loaded.config, loaded.metadata) == (pushed.config, OF_CLASSIFIER)
        assert torch.equal(logits(loaded), logits(pushed))


def test_a_revision_is_a_branch_or_a_commit(hub, pushed):
    found = hub.repositories[MODEL]
    first = found.branches["main"]
    found.branches["next"] = first
    other = classifier(seed=1)
    other.push_to_hub(MODEL, token=TOKEN, branch="next", commit_message="Train longer")
    for url, expected in ((HUB, pushed), (f"{HUB}@next", other), (f"{HUB}@{first}", pushed)):
        assert torch.equal(logits(load_checkpoint(url)), logits(expected))
    assert torch.equal(
        logits(CAVMAEClassifier.from_pretrained(MODEL, revision="next")), logits(other)
    )
    with pytest.raises(UserError, match="another revision"):
        CAVMAE.from_pretrained(f"{HUB}@next", revision="main")


@pytest.fixture(scope="module")
def place(hub, pushed, tmp_path_factory):
    """A folder with shards, and a pretrained model on the hub as `ours/start`."""
    folder = tmp_path_factory.mktemp("place")
    write_tiny_shards(folder / "shards", samples=12)
    start = CAVMAE(SMALL)
    start.metadata = {**FACTS, "norm_pix_loss": "1"}
    start.push_to_hub("ours/start", token=TOKEN)
    return folder


SHARDS = ("--shards", "shards", "--workers", "0", "--device", "cpu")
RUN = (*SHARDS, "--val-shards", "shards", "--epochs", "1", "--init", "hf://ours/start")


@pytest.mark.parametrize(
    "words",
    [
        ("eval", *SHARDS, "--checkpoint", HUB),
        ("probe", *SHARDS, "--val-shards", "shards", HUB, "hf://ours/start"),
        ("convert", HUB, "converted.safetensors"),
        ("average", HUB, HUB, "--out", "mean.safetensors"),
        ("finetune", *RUN, "--out", "finetuned"),
    ],
    ids=lambda words: words[0],
)
def test_commands_take_models_on_the_hub(place, words, monkeypatch):
    monkeypatch.chdir(place)
    result = run(*words)
    assert result.exit_code == 0, result.output


def test_no_command_takes_a_checkpoint_for_a_local_path():
    context = click.Context(group)
    kinds = {
        name: type(param.type)
        for name in group.list_commands(context)
        for param in group.get_command(context, name).params
        if param.name in ("checkpoint", "checkpoints", "init", "src")
    }
    assert kinds.keys() >= {"pretrain", "finetune", "predict", "eval", "inpaint", "export", "push"}
    assert click.Path not in kinds.values()


def test_predict_takes_one_in_another_process_and_then_offline(pushed, demo_clip, tmp_path):
    words = ("predict", "--checkpoint", HUB, demo_clip)
    online = in_another_process(*words, HF_HOME=str(tmp_path))
    assert "Ape" in online.stdout, online.stderr
    offline = in_another_process(
        *words, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert (offline.returncode, offline.stdout) == (0, online.stdout), offline.stderr


def test_what_is_not_in_the_cache_cannot_be_loaded_offline(pushed, monkeypatch):
    from huggingface_hub import constants

    load_checkpoint(HUB)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(logits(load_checkpoint(HUB)), logits(pushed))
    with pytest.raises(UserError, match=r"hf://ours/none: model.safetensors is not in the cache"):
        load_checkpoint("hf://ours/none")


class Hostile:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.fixture(scope="module")
def others(hub, pushed):
    """Repositories of other people."""
    whole = files_of(hub.repositories[MODEL])["model.safetensors"]
    hub.add("theirs/private", {"model.safetensors": whole}, private=True)
    hub.add("theirs/gated", {"model.safetensors": whole}, gated=True)
    hub.add("theirs/pickle", {"pytorch_model.bin": pickle.dumps(Hostile())})
    hub.add("theirs/disguised", {"model.safetensors": pickle.dumps(Hostile())})
    hub.add("theirs/empty", {"README.md": b"soon"})
    hub.add("theirs/cut", {"model.safetensors": whole[:-100]})
    hub.add("theirs/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": BERT})


BERT = b'{"bert.pooler.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
BERT = len(BERT).to_bytes(8, "little") + BERT + bytes(4)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("hf://theirs/none", "hf://theirs/none: no such model on .* log in"),
        ("hf://theirs/private", "hf://theirs/private: .*private one.*HF_TOKEN"),
        ("hf://theirs/gated", "hf://theirs/gated: its owner grants access on request: ask at"),
        ("hf://theirs/pickle", "no model.safetensors; pytorch_model.bin may hold code"),
        ("hf://theirs/disguised", "theirs--disguised.*not a safetensors file"),
        ("hf://theirs/empty", "hf://theirs/empty: holds no model.safetensors. Check"),
        ("hf://theirs/cut", "theirs--cut.*not a safetensors file"),
        ("hf://theirs/bert", "theirs--bert.*not a CAV-MAE.*bert.pooler.weight"),
        (f"{HUB}@v9", f"{HUB}@v9: has no revision v9. Give a branch"),
        ("hf://a--b/model", "hf://a--b/model: cannot be a name on the hub"),
        ("hf://model", "hf://model: is not of the form hf://org/name"),
        ("hf://ours/model/best.safetensors", "is not of the form hf://org/name"),
        ("memory://bucket/run", "memory://bucket/run: no such checkpoint, nor a run with best"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line_and_nothing_is_unpickled(
    others, url, said, tmp_path, capfd
):
    with pytest.raises(UserError, match=said) as caught:
        load_checkpoint(url)
    assert len(str(caught.value).splitlines()) == 1
    assert "unpickled" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", "{"),
        ("labels", '"abcd"'),
        ("labels", "[1, 2, 3, 4]"),
        ("labels", '["a"]'),
        ("label_names", "7"),
        ("fbank_mean", "nan"),
        ("fbank_mean", ""),
        ("fbank_std", "0"),
    ],
)
def test_what_somebody_stored_beside_weights_is_checked(name, value, tmp_path):
    file = tmp_path / "model.safetensors"
    save_model(file, classifier(), OF_CLASSIFIER | {name: value})
    stored = "labels" if name.startswith("label") else name
    for load in (load_checkpoint, load_trained):
        with pytest.raises(UserError, match=rf"model.safetensors: stores {stored} that cannot be"):
            load(file)


def test_a_private_model_is_loaded_with_a_token(others):
    model = CAVMAEClassifier.from_pretrained("theirs/private", token=TOKEN)
    assert model.metadata == OF_CLASSIFIER


@pytest.mark.parametrize(
    ("name", "token", "said"),
    [
        (MODEL, None, "hf://ours/model: .* answers 401.*log in with `hf auth login`"),
        ("theirs/new", TOKEN, "answers 403, You don't have the rights to the namespace 'theirs'"),
        ("ours/two/names", TOKEN, "hf://ours/two/names: cannot be a name on the hub"),
    ],
)
def test_what_cannot_be_pushed_is_said_in_one_line(pushed, name, token, said):
    with pytest.raises(UserError, match=said) as caught:
        pushed.push_to_hub(name, token=token)
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_that_does_not_answer_is_no_matter_for_what_is_in_the_cache(hub, pushed, monkeypatch):
    load_checkpoint(HUB)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's attempts
    monkeypatch.setattr(hub, "down", True)
    assert torch.equal(logits(load_checkpoint(HUB)), logits(pushed))
    with pytest.raises(WorkFailed, match=r"hf://ours/other: http://.* answers 503"):
        load_checkpoint("hf://ours/other")
    with pytest.raises(WorkFailed, match=rf"{HUB}: http://.* answers 503"):
        pushed.push_to_hub(MODEL, token=TOKEN)


def test_a_push_without_a_network_says_what_to_check(pushed, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WorkFailed, match=r"If http://127\.0\.0\.1:9 cannot be reached, check"):
        pushed.push_to_hub(MODEL, token=TOKEN)


@pytest.fixture(scope="module")
def finetuned(place):
    """A run of three epochs, of which the first was best, and its validations."""
    options = FinetuneRun(
        shards=place / "shards",
        val_shards=place / "shards",
        init="hf://ours/start",
        out=place / "birds",
        epochs=3,
        checkpoint_steps=3,
        workers=0,
        batch_size=4,
        mixup=0.0,
        lr=0.02,
        device="cpu",
    )
    finetune(options)
    with (place / "birds" / "log.csv").open(newline="") as log:
        rows = [row for row in csv.DictReader(log) if row["split"] == "validation"]
    return place / "birds", rows


def card_of(text):
    """A card as the hub's library reads it, and its results by metric."""
    from huggingface_hub import ModelCard

    card = ModelCard(text)
    card.validate()  # asks the hub
    return card, {one.metric_type: one for one in card.data.eval_results or ()}


def test_a_run_is_pushed_with_a_card_of_what_it_was_and_measured(hub, finetuned, monkeypatch):
    run_folder, rows = finetuned
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = run("push", run_folder, "ours/birds", "--license", "cc-by-4.0")
    assert result.exit_code == 0, result.output
    files = files_of(hub.repositories["ours/birds"])
    (commit,) = result.stdout.splitlines()
    assert hub.repositories["ours/birds"].branches["main"] in commit
    loaded, best = load_checkpoint("hf://ours/birds"), load_checkpoint(run_folder)
    assert loaded.metadata == best.metadata
    assert torch.equal(logits(loaded), logits(best))

    card, found = card_of(files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "cavmae")
    assert card.data.base_model == "ours/start"
    top = max(rows, key=lambda row: float(row["accuracy"]))
    assert {name: one.metric_value for name, one in found.items()} == {
        name: float(top[name]) for name in ("accuracy", "map", "auc")
    }
    assert found["map"].metric_args == {"mode": "multimodal", "frames": "middle"}
    fingerprint = json.loads((run_folder / "config.json").read_text())["shards_fingerprint"]
    assert found["map"].dataset_revision == fingerprint
    for said in (
        f"| trained on | shards, fingerprint `{fingerprint}` |",
        "| fbank mean, standard deviation | -5.5, 3.25 |",
        "    1 /m/b Bell, big",
    ):
        assert said in card.text
    assert str(run_folder.parent) not in str(card)


def test_the_recipe_of_a_card_makes_the_same_run(finetuned, tmp_path):
    run("push", finetuned[0], "ours/birds", "--dry-run", tmp_path / "card")
    text = (tmp_path / "card" / "README.md").read_text()
    recipe = textwrap.dedent(text.partition("## Recipe")[2].partition("##")[0])
    (tmp_path / "recipe.toml").write_text(recipe)
    context = click.Context(group.get_command(click.Context(group), "finetune"))
    context.info_name = "finetune"
    with context:
        load_config(context, context.command.params[0], str(tmp_path / "recipe.toml"))
    config = json.loads((finetuned[0] / "config.json").read_text())
    assert {"mixup", "lr", "epochs", "batch_size"} <= context.default_map.keys()
    assert context.default_map == {name: config[name] for name in context.default_map}


def test_figures_are_those_of_the_very_weights(finetuned, tmp_path):
    run_folder, rows = finetuned
    last, step = rows[-1], rows[1]
    checkpoint = run_folder / "checkpoints" / f"step-{int(step['step']):08d}"
    (tmp_path / "alone.safetensors").write_bytes((run_folder / "best.safetensors").read_bytes())
    for weights, row in (
        (run_folder / "model.safetensors", last),
        (checkpoint, step),
        (tmp_path / "alone.safetensors", None),
    ):
        folder = tmp_path / weights.stem
        assert run("push", weights, "ours/birds", "--dry-run", folder).exit_code == 0
        _, found = card_of((folder / "README.md").read_text())
        measured = {name: one.metric_value for name, one in found.items()}
        names = ("accuracy", "map", "auc") if row else ()
        assert measured == {name: float(row[name]) for name in names}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b'{"run_id": '),
        ("config.json", b'["run_id"]'),
        ("config.json", b'{"run_id": "\xff"}'),
        ("log.csv", b"\xff"),
        ("result.json", b"{"),
        ("result.json", b"[]"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(finetuned, tmp_path, name, content):
    shutil.copytree(finetuned[0], tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    result = run("push", tmp_path / "run", "ours/birds", "--dry-run", tmp_path / "d")
    assert isinstance(result.exception, UserError)
    assert re.search(rf"{name}.* is damaged", str(result.exception))


def test_a_card_has_what_eval_measured_in_every_mode(finetuned, tmp_path, monkeypatch):
    monkeypatch.chdir(finetuned[0].parent)
    evaluated = run("eval", *SHARDS, "--checkpoint", "birds", "--modes", "all", "--json").stdout
    (tmp_path / "eval.json").write_text(evaluated)
    words = ("push", "birds", "ours/birds", "--eval", tmp_path / "eval.json", "--dry-run")
    result = run(*words, tmp_path / "card")
    assert result.exit_code == 0, result.output
    card, _ = card_of((tmp_path / "card" / "README.md").read_text())
    found = {
        (one.metric_args["mode"], one.metric_args["frames"], one.metric_type): one.metric_value
        for one in card.data.eval_results
    }
    modes = json.loads(evaluated)["modes"]
    assert {(mode, frames) for mode, frames, _ in found} == {
        ("multimodal", "middle"),
        *((mode, one["frames"]) for mode, one in modes.items()),
    }
    assert len(modes) == 5
    for mode, one in modes.items():
        assert found[mode, one["frames"], "accuracy"] == one["accuracy"]
    other = json.loads(evaluated) | {"checkpoint": "birds/model.safetensors"}
    for wrong in (json.dumps(other), "[]", "{"):
        (tmp_path / "eval.json").write_text(wrong)
        refused = run(*words, tmp_path / "other")
        assert isinstance(refused.exception, UserError)
        assert str(tmp_path / "eval.json") in str(refused.exception)


def test_a_card_names_every_set_of_a_mixture_and_what_held_out_clips_gave(place, tmp_path):
    write_tiny_shards(place / "more", samples=8, seed=1)
    rows = "".join(f"clip.{number}\n" for number in range(8))
    (place / "chosen.csv").write_text(f"video_id\n{rows}")
    pretrain(
        PretrainRun(
            shards=(f"{place / 'shards'}=0.75", f"{place / 'more'}=0.25"),
            val_shards=place / "shards",
            select=place / "chosen.csv",
            init="hf://ours/start@main",
            out=place / "mixed",
            epochs=1,
            workers=0,
            batch_size=4,
            mask_ratio=0.5,
            device="cpu",
        )
    )
    assert run("push", place / "mixed", "ours/mixed", "--dry-run", tmp_path / "a").exit_code == 0
    card, found = card_of((tmp_path / "a" / "README.md").read_text())
    assert "| trained on | shards, 75.0% of the draws, fingerprint `tiny` |" in card.text
    assert "| trained on | more, 25.0% of the draws, fingerprint `tiny` |" in card.text
    assert "    # Of the training set, it takes the clips in chosen.csv." in card.text
    assert card.data.base_model == "ours/start"
    assert found["loss_mae_audio"].metric_args == {"frames": "middle"}
    assert not {"step", "epoch", "lr", "samples_per_second"} & found.keys()


def test_a_run_in_a_store_has_the_same_card(finetuned, tmp_path):
    fsspec.filesystem("memory").put(str(finetuned[0]), "/runs/birds", recursive=True)
    checkpoint = next((finetuned[0] / "checkpoints").iterdir()).name
    for name in ("", "/model.safetensors", f"/checkpoints/{checkpoint}"):
        cards = []
        for number, source in enumerate((finetuned[0], "memory://runs/birds")):
            folder = tmp_path / f"{len(name)}-{number}"
            result = run("push", f"{source}{name}", "ours/birds", "--dry-run", folder)
            assert result.exit_code == 0, result.exception
            cards.append((folder / "README.md").read_text())
        assert cards[0] == cards[1]
        assert "## Recipe" in cards[0]


def test_a_dry_run_writes_what_would_be_pushed_and_asks_no_hub(hub, place, tmp_path):
    asked = len(hub.requests)
    result = run("push", place / "birds", "ours/dry", "--dry-run", tmp_path / "card")
    assert result.stdout.endswith(f"→ {tmp_path / 'card'}\n")
    assert len(hub.requests) == asked
    names = sorted(path.name for path in (tmp_path / "card").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert run("convert", tmp_path / "card", tmp_path / "x.safetensors").exit_code == 0
    again = run("push", place / "birds", "ours/dry", "--dry-run", tmp_path / "card")
    assert "is not empty" in str(again.exception)


def test_a_push_goes_to_a_new_branch_and_a_private_repository(hub, finetuned, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    words = ("push", finetuned[0], "ours/secret", "--private", "--revision", "second")
    for _ in range(2):
        assert run(*words).exit_code == 0
    found = hub.repositories["ours/secret"]
    assert found.private
    assert not files_of(found)
    assert "model.safetensors" in files_of(found, "second")
    load_checkpoint("hf://ours/secret@second")
    refused = run("push", finetuned[0], MODEL, "--private")
    assert f"{HUB}: is public already" in str(refused.exception)


def test_a_licence_that_the_hub_does_not_know_is_said_before_anything_is_pushed(
    hub, finetuned, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused = run("push", finetuned[0], "ours/free", "--license", "free")
    assert isinstance(refused.exception, UserError)
    assert "hf://ours/free: Invalid metadata in README.md" in str(refused.exception)
    assert not files_of(hub.repositories["ours/free"])


def test_a_path_that_exists_comes_before_a_name_on_the_hub(pushed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = classifier(seed=1)
    other.save_pretrained(MODEL)
    assert torch.equal(logits(CAVMAEClassifier.from_pretrained(MODEL)), logits(other))
    assert torch.equal(logits(CAVMAEClassifier.from_pretrained(HUB)), logits(pushed))
    with pytest.raises(UserError, match=f"{MODEL}: has no revisions; a model on the hub is hf://"):
        CAVMAEClassifier.from_pretrained(MODEL, revision="main")


def test_a_name_that_is_nowhere_is_looked_for_here_and_on_the_hub():
    with pytest.raises(UserError, match=r"runs/fine: no such folder or file. hf://runs/fine: no s"):
        CAVMAE.from_pretrained("runs/fine")
    with pytest.raises(UserError, match=r"^/runs/fine: no such checkpoint"):
        CAVMAE.from_pretrained("/runs/fine")


def test_a_model_is_loaded_as_what_it_is(tmp_path):
    classifier().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"load it with CAVMAEClassifier\.from_pretrained"):
        CAVMAE.from_pretrained(tmp_path)
    torch.save(CAVMAE(SMALL).state_dict(), tmp_path / "model.pth")
    with pytest.raises(UserError, match="is not safetensors; `cavmae convert`"):
        CAVMAE.from_pretrained(tmp_path / "model.pth")


def test_a_model_is_not_saved_over_a_run(tmp_path):
    for content in (b'{"run_id": "1"}', b"\xff\xfe"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(UserError, match=r"config.json: is not of a saved model"):
            classifier().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_labels_stay_with_a_model_that_is_loaded_and_saved(tmp_path):
    save_model(tmp_path / "a.safetensors", classifier())
    save_model(tmp_path / "b.safetensors", load_checkpoint(tmp_path / "a.safetensors"))
    ours, theirs = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert load_checkpoint(tmp_path / "b.safetensors").metadata == OF_CLASSIFIER


def test_the_hub_library_is_imported_for_the_hub_alone_and_its_absence_said(tmp_path, monkeypatch):
    code = "import sys; from cavmae import CAVMAE, ModelConfig; model = CAVMAE(ModelConfig.preset('tiny')); model.save_pretrained(sys.argv[1]); CAVMAE.from_pretrained(sys.argv[1]); sys.exit('huggingface_hub' in sys.modules)"  # noqa: E501
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for ask in (lambda: load_checkpoint(HUB), lambda: classifier().push_to_hub(MODEL)):
        with pytest.raises(UserError, match=r"pip install 'avprep-cavmae\[hub\]'"):
            ask()
