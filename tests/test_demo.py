"""`cavmae demo` runs every command it lists and tells what it measured; here on fewer clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cavmae import demo
from tests.conftest import REPOSITORY


@pytest.fixture
def short_recipes(tmp_path, monkeypatch) -> Path:
    """The recipes, with a demo of two clips a class and one epoch."""
    recipes = tmp_path / "pipelines"
    shutil.copytree(REPOSITORY / "pipelines" / "demo", recipes / "demo")
    (script, recipe) = recipes / "demo" / "commands.sh", recipes / "demo" / "demo.toml"
    data = "avprep demo-data runs/demo/videos"
    commands = script.read_text()
    assert data in commands
    commands = commands.replace(data, f"{data} --train-clips 2 --test-clips 1 --seconds 1")
    script.write_text(commands.replace("--config demo", f"--config {recipe}"))
    epochs = "\nepochs = 16\n"
    assert recipe.read_text().count(epochs) == 2
    recipe.write_text(recipe.read_text().replace(epochs, "\nepochs = 2\n"))
    monkeypatch.setattr(demo, "recipes_folder", lambda: recipes)
    return recipes


def test_demo_runs_to_its_summary(short_recipes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    assert demo.run_demo(str(out)) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["failed_clips"] == 2
    assert set(summary["seconds"]) == {
        *("videos", "extract", "manifest", "shard", "pretrain", "finetune"),
        *("eval", "from-scratch", "after", "total"),
    }
    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    for line in printed.splitlines()[-5:]:
        for place in line.partition("  ")[2].strip().split(", "):
            assert Path(place).exists() or not place.startswith(str(out)), place
    assert Path(summary["inpainting"]).exists()


def test_demo_ends_with_the_code_of_the_command_that_fails(short_recipes, tmp_path, capsys):
    script = short_recipes / "demo" / "commands.sh"
    script.write_text("# manifest\navprep manifest folder nowhere --out runs/demo/m.json\n")
    assert demo.run_demo(str(tmp_path / "out")) == 2
    assert "exit code 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "summary.json").exists()
