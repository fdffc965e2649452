"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, programs

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material beside the repository (golden outputs, real clips, real CSVs)."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("needs the reference material in ../shared, which is not part of the project")
    return folder


@pytest.fixture(scope="session")
def demo_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo set: 8 classes, 2 + 1 clips a class of 1 s, and the two broken files."""
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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; see tests/browser.py."""
    found = programs()
    if found is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    opened = Browser(*found, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()
