"""The commands as a user types them: the main line, wrong inputs, and how fast --help answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import run, succeed

TINY = ["--model", "tiny", "--audio-frames", "96", "--workers", "0", "--batch-size", "8"]


@pytest.fixture(scope="module")
def line(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main line, typed command by command."""
    work = tmp_path_factory.mktemp("line")
    for split in ("train", "test"):
        manifest = work / f"{split}.json"
        succeed("avprep", "manifest", "folder", demo_videos / split, "--out", manifest)
        succeed("avprep", "shard", manifest, "--out", work / split)
    train, test = work / "train", work / "test"
    succeed("cavmae", "stats", train, "--workers", "0")
    succeed("cavmae", "pretrain", "--shards", train, "--out", work / "pre", "--epochs", "2", *TINY)
    finetune = ("cavmae", "finetune", "--shards", train, "--val-shards", test)
    succeed(*finetune, "--init", work / "pre", "--out", work / "fine", "--epochs", "1", *TINY)
    return work


def test_the_main_line_ends_in_an_evaluated_classifier(line):
    out = succeed(
        *("cavmae", "eval", "--shards", line / "test", "--checkpoint", line / "fine"),
        *("--workers", "0", "--json", "--per-class-csv", line / "classes.csv"),
    )
    facts = json.loads(out)
    assert facts["clips"] == 8
    assert facts["frames"] == "all"
    assert 0 <= facts["accuracy"] <= 1
    assert 0 < facts["map"] <= 1
    assert len((line / "classes.csv").read_text().splitlines()) == 9


def test_a_run_leaves_weights_log_curves_and_result(line):
    for run_name in ("pre", "fine"):
        folder = line / run_name
        assert (folder / "model.safetensors").stat().st_size > 10_000
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "log.csv").read_text().startswith("step,epoch,split,loss")
        assert json.loads((folder / "result.json").read_text())["steps"] > 0
        assert json.loads((folder / "config.json").read_text())["batch_size"] == 8


def test_measured_fbank_statistics_reach_the_model(line):
    from cavmae.checkpoints import read_metadata

    stats = json.loads((line / "train" / "dataset.json").read_text())["fbank"]
    assert float(read_metadata(line / "fine")["fbank_mean"]) == stats["mean"]


def test_a_finished_run_is_left_as_it_is(line):
    before = load_file(line / "pre" / "model.safetensors")
    out = succeed(
        *("cavmae", "pretrain", "--shards", line / "train", "--out", line / "pre"),
        *("--epochs", "2", *TINY),
    )
    assert "resuming from" in out
    after = load_file(line / "pre" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_demo_recipe_is_valid_and_flags_override_it(line):
    from tests.conftest import REPOSITORY

    recipe = REPOSITORY / "pipelines" / "demo" / "demo.toml"
    succeed(
        *("cavmae", "pretrain", "--config", recipe, "--shards", line / "train"),
        *("--out", line / "recipe", "--epochs", "1"),
    )
    config = json.loads((line / "recipe" / "config.json").read_text())
    assert (config["epochs"], config["model"], config["optimizer"]) == (1, "tiny", "adamw")


BAD_INPUTS = {
    "missing folder": ("avprep extract {tmp}/nowhere --out {tmp}/x", "no such"),
    "empty folder": ("avprep extract {tmp}/empty --out {tmp}/x", "has no videos"),
    "folder without videos": (
        "avprep manifest folder {tmp}/texts --out {tmp}/m.json",
        "has no videos",
    ),
    "a file for a folder": ("avprep extract {tmp}/texts/a.txt --out {tmp}/x", "is a file"),
    "missing manifest": ("avprep shard {tmp}/no.json --out {tmp}/s", "no.json"),
    "manifest that is no JSON": ("avprep shard {tmp}/texts/broken.json --out {tmp}/s", "not JSON"),
    "unknown label": (
        "avprep shard {tmp}/unknown.json --labels {line}/test.classes.csv --out {tmp}/s",
        "unknown label 'purring'",
    ),
    "segments without videos": (
        "avprep manifest audioset --segments {tmp}/texts/a.txt --labels {line}/test.classes.csv"
        " --out {tmp}/m.json",
        "--videos",
    ),
    "segments that are none": (
        "avprep manifest audioset --segments {tmp}/texts/a.txt --labels {line}/test.classes.csv"
        " --videos {tmp}/texts --out {tmp}/m.json",
        "a.txt: line 1: expected YTID, start_seconds, end_seconds",
    ),
    "a class CSV that is none": ("avprep labels check {tmp}/texts/a.txt", "a.txt: line 1 must be"),
    "weights for unknown classes": (
        "avprep weights {tmp}/unknown.json --labels {line}/test.classes.csv",
        "unknown label 'purring'",
    ),
    "labels without a class CSV": ("avprep shard {tmp}/unknown.json --out {tmp}/s", "--labels"),
    "bad part": ("avprep shard {line}/train.json --out {tmp}/s --part 5/2", "--part"),
    "shard folder without dataset.json": (
        "cavmae pretrain --shards {tmp}/texts --out {tmp}/r",
        "dataset.json",
    ),
    "missing shard folder": (
        "cavmae pretrain --shards {tmp}/nowhere --out {tmp}/r",
        "no such folder",
    ),
    "checkpoint of another shape": (
        "cavmae eval --shards {line}/test --checkpoint {tmp}/other.safetensors",
        "wrong shape",
    ),
    "weights of another model": (
        "cavmae eval --shards {line}/test --checkpoint {tmp}/strange.safetensors",
        "not a CAV-MAE checkpoint",
    ),
    "checkpoint that is text": (
        "cavmae eval --shards {line}/test --checkpoint {tmp}/texts/a.txt",
        "not a plain file of weights",
    ),
    "missing checkpoint": (
        "cavmae eval --shards {line}/test --checkpoint {tmp}/none.pth",
        "no such checkpoint",
    ),
    "pretrained model for eval": (
        "cavmae eval --shards {line}/test --checkpoint {line}/pre",
        "cavmae finetune",
    ),
    "recipe with a stranger": (
        "cavmae pretrain --config {tmp}/texts/bad.toml --shards {line}/train --out {tmp}/r",
        "'epoch', which is not an option. Did you mean 'epochs'?",
    ),
    "recipe for another command": (
        "cavmae pretrain --config finetune-vggsound --shards {line}/train --out {tmp}/r",
        "is not a recipe for `cavmae pretrain`",
    ),
    "another run in the folder": (
        "cavmae pretrain --shards {line}/train --out {line}/pre"
        " --audio-frames 96 --model tiny --batch-size 4",
        "takes 8 samples; 1 process(es) × --batch-size 4 × --accumulate 1 are 4",
    ),
    "no GPU": ("cavmae pretrain --shards {line}/train --out {tmp}/r --device cuda", "no GPU"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_one_helpful_message_and_exit_code_2(name, line, tmp_path):
    (tmp_path / "empty").mkdir()
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("no video")
    (texts / "broken.json").write_text('{"data": [')
    (texts / "bad.toml").write_text("[pretrain]\nepoch = 3\n")
    entry = {"video_id": "x", "wav": "", "video_path": "", "labels": "purring", "video": "x.mp4"}
    (tmp_path / "unknown.json").write_text(json.dumps({"data": [entry]}))
    if "checkpoint of" in name or "weights of" in name:
        from safetensors import safe_open

        weights = load_file(line / "fine" / "model.safetensors")
        with safe_open(line / "fine" / "model.safetensors", "pt") as reader:
            metadata = reader.metadata()
        weights["norm.weight"] = weights["norm.weight"][:7].clone()
        save_file(weights, tmp_path / "other.safetensors", metadata)
        save_file({"a": weights["norm.bias"]}, tmp_path / "strange.safetensors")

    arguments, expected = BAD_INPUTS[name]
    result = run(*arguments.format(tmp=tmp_path, line=line).split())
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert expected in result.stderr
    first, *details = result.stderr.strip().splitlines()
    assert first.startswith("Error: ")
    assert all(line.startswith("  ") for line in details)
    assert bool(details) == (name == "checkpoint of another shape")


HEAVY = (
    *("torch", "cv2", "pandas", "av", "numpy", "matplotlib", "sklearn", "fsspec", "joblib", "PIL"),
    *(
        "soundfile",
        "ffmpeg",
        "dask",
        "distributed",
        "ray",
        "tqdm",
        "webdataset",
        "s3fs",
        "aiohttp",
        "pyarrow",
    ),
)
COMMANDS = [
    *(["avprep", *words] for words in ([], ["extract"], ["shard"], ["verify"], ["report"])),
    ["avprep", "demo-data"],
    *(["avprep", "manifest", *words] for words in ([], ["folder"], ["audioset"], ["vggsound"])),
    *(["avprep", "manifest", word] for word in ("check", "convert", "merge", "split", "sample")),
    *(
        ["avprep", "labels", *words]
        for words in ([], ["folder"], ["vggsound"], ["check"], ["fetch"])
    ),
    ["avprep", "weights"],
    *(["cavmae", *words] for words in ([], ["pretrain"], ["finetune"], ["eval"])),
    *(["cavmae", *words] for words in (["convert"], ["stats"], ["export"], ["knn"])),
    *(["cavmae", *words] for words in (["retrieve"], ["inpaint"], ["embed"], ["predict"])),
    ["cavmae", "average"],
    ["cavmae", "demo"],
]


@pytest.fixture(scope="module", params=["avprep", "cavmae"])
def helps(request: pytest.FixtureRequest) -> dict[str, tuple[str, list[str]]]:
    """What each command's --help prints, and the heavy modules it loads, by the command."""
    code = (
        "import contextlib, importlib, io, json, sys\n"
        "heavy, commands = map(json.loads, sys.argv[1:])\n"
        "found = {}\n"
        "for program, *words in commands:\n"
        "    group, out = importlib.import_module(program + '.cli').group, io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n"
        "        group.main([*words, '--help'], program, standalone_mode=False)\n"
        "    found[' '.join([program, *words])] = "
        "(out.getvalue(), [name for name in heavy if sys.modules.pop(name, None)])\n"
        "print(json.dumps(found))"
    )
    commands = [words for words in COMMANDS if words[0] == request.param]
    line = [sys.executable, "-c", code, json.dumps(HEAVY), json.dumps(commands)]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def test_help_imports_nothing_heavy_and_has_an_example(helps):
    assert [name for name, (said, _) in helps.items() if "Example:" not in said] == []
    assert {name: loaded for name, (_, loaded) in helps.items() if loaded} == {}


def test_too_many_failures_are_exit_code_1(demo_videos, tmp_path):
    command = ("avprep", "extract", demo_videos / "train", "--out", tmp_path / "x")
    result = run(*command, "--max-failures", "5%")
    assert result.returncode == 1
    assert "2 of 18 clips failed" in result.stderr
    assert run(*command, "--max-failures", "2").returncode == 0


def test_avprep_does_without_torch(demo_videos, tmp_path):
    """webdataset imports it where it is installed; nothing needs it."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from avprep.cli import group\n"
        f"group.main(['shard', {str(tmp_path / 'm.json')!r}, '--out', {str(tmp_path / 's')!r}],"
        " 'avprep', standalone_mode=False)\n"
        "assert 'cavmae' not in sys.modules"
    )
    succeed("avprep", "manifest", "folder", demo_videos / "test", "--out", tmp_path / "m.json")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (tmp_path / "s" / "dataset.json").exists()


@pytest.mark.parametrize("name", ["report", "verify"])
def test_the_docs_name_every_option_and_no_other(name):
    from avprep.cli import group
    from tests.conftest import REPOSITORY

    section = (REPOSITORY / "docs" / "report.md").read_text().split("\n## ")
    (text,) = [part for part in section if part.startswith(f"`avprep {name}")]
    table = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    options = [o for o in group.get_command(None, name).params if isinstance(o, click.Option)]
    assert set(re.findall(r"--[a-z-]+", table)) == {option.opts[0] for option in options}


def test_a_file_that_cannot_be_read_is_one_line(line, tmp_path):
    (tmp_path / "shards" / "dataset.json").mkdir(parents=True)
    result = run("avprep", "report", tmp_path / "shards", "--out", tmp_path / "page.html")
    assert result.returncode == 2
    assert result.stderr == f"Error: {tmp_path}/shards/dataset.json: Is a directory.\n"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_names_that_are_not_utf8_do_not_stop_the_tables(tmp_path):
    bad = os.fsdecode(b"caf\xe9")
    entry = {"video_id": bad, "wav": "", "video_path": "", "labels": "", "video": "v\x1b.mp4"}
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps({"data": [entry]}))
    told = succeed("avprep", "manifest", "check", manifest, "--report", tmp_path / "report.csv")
    assert "caf\\udce9" in told
    assert "\x1b" not in told
    assert b"caf\\udce9" in (tmp_path / "report.csv").read_bytes()
    result = run("avprep", "manifest", "convert", manifest, tmp_path / "m.csv")
    assert result.returncode == 2
    assert "not UTF-8" in result.stderr
    assert not (tmp_path / "m.csv").exists()
    (tmp_path / "videos" / bad).mkdir(parents=True)
    (tmp_path / "videos" / bad / "a.mp4").touch()
    labels = ("avprep", "labels", "folder", tmp_path / "videos", "--out", tmp_path / "l.csv")
    assert "not UTF-8" in run(*labels).stderr
