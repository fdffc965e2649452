"""Fixtures that every test may use."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.browser import Browser, programs

REPOSITORY = Path(__file__).resolve().parent.parent

# Speed is measured in benchmarks/; here a busy machine must fail nothing.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material beside the repository (golden outputs, real clips, real CSVs)."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("needs the reference material in ../shared, which is not part of the project")
    return folder


@pytest.fixture(scope="session")
def demo_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo set: 8 classes, 2 + 1 clips per class of 1 s, and the two broken files."""
    from avprep.demo_data import DemoDataOptions, make_demo_data
    from avprep.jobs import PoolOptions

    folder = tmp_path_factory.mktemp("demo") / "videos"
    make_demo_data(folder, DemoDataOptions(train_clips=2, test_clips=1, seconds=1.0), PoolOptions())
    return folder


@pytest.fixture(scope="session")
def demo_clip(demo_videos: Path) -> Path:
    """One whole video of the demo set."""
    return sorted(demo_videos.glob("test/*/*.mp4"))[0]


@pytest.fixture(scope="session")
def documented_folder(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything under the names that the docs use: videos, shards, runs.

    Made by the quick start's own commands, with options that make the training short.
    """
    from tests.documents import commands_under

    folder = tmp_path_factory.mktemp("documented")
    (folder / "videos").symlink_to(demo_videos)
    quick = ("--workers", "0", "--batch-size", "8", "--epochs", "1")
    shorter = {
        "cavmae pretrain": (*quick, "--audio-frames", "96"),
        "cavmae finetune": quick,
        "cavmae eval": quick[:2],
    }
    for words in commands_under(REPOSITORY / "docs" / "index.md", "Your own folder"):
        command = " ".join(words[:2])
        run_command(folder, command, *words[2:], *shorter.get(command, ()))
    (folder / "holiday.mp4").symlink_to(sorted(demo_videos.glob("test/*/*.mp4"))[0])
    trained = ("--checkpoint", "runs/pretrain", "--workers", "0")
    run_command(
        folder, "cavmae embed", "--shards", "shards/test", *trained, "--out", "test.safetensors"
    )
    run_command(folder, "cavmae export", "runs/finetune", "classifier.pt2")
    return folder


def run_command(folder: Path, command: str, *arguments: str) -> str:
    """Run `avprep …` or `cavmae …` in a folder; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", *command.split(), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def write_every(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Shorten the time between two progress lines; quick work writes one at its end."""
    from avprep.cli.progress import ProgressBar

    make = ProgressBar.__init__

    def shorten(seconds: float) -> None:
        quick = functools.partialmethod(make, seconds=seconds)
        monkeypatch.setattr(ProgressBar, "__init__", quick)

    return shorten


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; see tests/browser.py."""
    found = programs()
    if found is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    opened = Browser(*found, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()
