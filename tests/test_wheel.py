"""The built package stands on its own: installed away from the source tree, everything is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    python(folder, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", str(REPOSITORY))
    wheel = next((folder / "dist").glob("*.whl"))
    python(
        *(folder, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"),
        *("--target", "site", str(wheel)),
    )
    return folder


def python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, with `site` there before everything else."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_commands_and_recipes_come_from_the_wheel(installed):
    where = python(
        installed, "-c", "import avprep, cavmae; print(avprep.__file__, cavmae.__file__)"
    )
    assert all(path.startswith(str(installed / "site")) for path in where.split())
    for program in ("avprep", "cavmae"):
        assert (installed / "site" / "bin" / program).exists()
        assert (installed / "site" / program / "py.typed").exists()
    recipes = python(installed, "-c", "from cavmae.recipes import recipes_folder as f; print(f())")
    assert recipes.startswith(str(installed / "site"))
    assert "avprep demo-data" in python(installed, "-m", "cavmae", "demo", "--list")


def test_vggsound_classes_come_from_the_wheel(installed):
    code = "from avprep.labels import vggsound_labels; print(len(vggsound_labels()))"
    assert python(installed, "-c", code) == "309\n"


def test_videos_become_shards_and_a_page_without_the_source_tree(installed):
    python(
        *(installed, "-m", "avprep", "demo-data", "videos", "--train-clips", "1"),
        *("--test-clips", "1", "--seconds", "1"),
    )
    python(installed, "-m", "avprep", "manifest", "folder", "videos/test", "--out", "m.json")
    python(installed, "-m", "avprep", "shard", "m.json", "--out", "shards")
    python(installed, "-m", "avprep", "report", "shards", "--out", "page.html")
    assert "<html" in (installed / "page.html").read_text()
