"""`cavmae demo` runs every command it lists and tells what it measured; here on fewer clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from cavmae import demo
from cavmae.cli import group
from tests.conftest import REPOSITORY

FEWER = {
    "commands.sh": {
        "avprep demo-data runs/demo/videos": "avprep demo-data runs/demo/videos --train-clips 12 "
        "--test-clips 3",
        "--parts few-0=2,few-1=2,few-2=2,rest=58": "--parts few-0=1,few-1=1,few-2=1,rest=9",
    },
    "demo.toml": {"epochs = 36": "epochs = 20", "epochs = 4": "epochs = 1"},
    "few-labels.toml": {"epochs = 12": "epochs = 1"},
}


@pytest.fixture
def short_recipes(tmp_path, monkeypatch) -> Path:
    """The recipes, with fewer clips and shorter training."""
    recipes = tmp_path / "pipelines"
    shutil.copytree(REPOSITORY / "pipelines" / "demo", recipes / "demo")
    for name, changes in FEWER.items():
        file = recipes / "demo" / name
        text = file.read_text()
        for old, new in changes.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        for recipe in ("demo", "few-labels"):
            path = recipes / "demo" / f"{recipe}.toml"
            text = text.replace(f"--config {recipe} ", f"--config {path} ")
        file.write_text(text)
    monkeypatch.setattr(demo, "recipes_folder", lambda: recipes)
    return recipes


def test_demo_runs_to_its_summary_and_pretraining_pays(short_recipes, tmp_path, monkeypatch):
    out = tmp_path / "out"
    result = CliRunner().invoke(group, ["demo", "--out", str(out)])
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "summary.json").read_text())

    retrieval = summary["retrieval"]
    assert retrieval["clips"] == 24
    for direction in ("audio_to_image", "image_to_audio"):
        trained, random = (
            found["recall_at_10"]
            for found in (retrieval[direction], retrieval["random_start"][direction])
        )
        assert trained > random + 0.2
    for figure, name in (("knn", "accuracy"), ("few_labels", "probe"), ("all_labels", "accuracy")):
        assert summary[figure]["chance"] == 1 / 8
        assert 0 <= summary[figure][name] <= 1
    for name in ("probe_by_split", "from_scratch_by_split"):
        assert len(summary["few_labels"][name]) == 3
    assert summary["failed_clips"] == 2
    for seconds in (summary["seconds"], summary["cpu_seconds"]):
        assert list(seconds) == [
            *("videos", "extract", "manifest", "shard", "pretrain", "retrieve", "probe", "inpaint"),
            *("few-labels", "finetune", "predict", "total"),
        ]
        *stages, total = seconds.values()
        assert total == pytest.approx(sum(stages), abs=1)

    printed = result.stdout
    assert "retrieval R@10" in printed
    for line in printed.splitlines()[-4:]:
        for place in line.partition("  ")[2].strip().split(", "):
            assert Path(place).exists(), place


def test_demo_ends_with_the_code_of_the_command_that_fails(short_recipes, tmp_path):
    script = short_recipes / "demo" / "commands.sh"
    script.write_text(
        "# title\n\n# manifest\navprep manifest folder nowhere --out runs/demo/m.json\n"
    )
    result = CliRunner().invoke(group, ["demo", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "exit code 2" in result.stderr
    assert not (tmp_path / "out" / "summary.json").exists()
