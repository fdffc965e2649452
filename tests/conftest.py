"""Fixtures that every test may use."""

from __future__ import annotations

import fcntl
import functools
import importlib
import io
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import hypothesis
import pytest

from tests.browser import Browser, programs

REPOSITORY = Path(__file__).resolve().parent.parent

# Read by PyTorch and OpenBLAS as they load, here and in every process that a test starts. The
# models are small: threads of several tests would only wait for one another.
os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", TORCHINDUCTOR_COMPILE_THREADS="1")

# Python keeps its fork server's socket in a folder made at the first call, which must not be one
# that goes with the test that happens to be first.
multiprocessing.util.get_temp_dir()

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
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`made_once(name, make)` is the folder that `make(folder)` fills, once for all workers.

    Nobody may write to it afterwards.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def find(name: str, make: Callable[[Path], object]) -> Path:
        folder, mark = root / f"once-{name}", root / f"once-{name}.made"
        with (root / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not mark.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                mark.touch()
        return folder

    return find


@pytest.fixture(scope="session")
def demo_videos(made_once: Callable[..., Path]) -> Path:
    """A small demo set: 8 classes, 2 + 1 clips per class of 1 s, and the two broken files."""
    from avprep.demo_data import DemoDataOptions, make_demo_data
    from avprep.jobs import PoolOptions

    options = DemoDataOptions(train_clips=2, test_clips=1, seconds=1.0)
    return made_once("demo", lambda folder: make_demo_data(folder, options, PoolOptions()))


@pytest.fixture(scope="session")
def demo_clip(demo_videos: Path) -> Path:
    """One whole video of the demo set."""
    return sorted(demo_videos.glob("test/*/*.mp4"))[0]


@pytest.fixture(scope="session")
def documented_folder(
    demo_videos: Path, made_once: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with everything under the names that the docs use: videos, shards, runs.

    Made by the quick start's own commands, with options that make the training short.
    """
    from tests.documents import commands_under

    def make(folder: Path) -> None:
        (folder / "videos").symlink_to(demo_videos)
        quick = ("--workers", "0", "--batch-size", "8", "--epochs", "1")
        shorter = {
            "pretrain": (*quick, "--audio-frames", "96"),
            "finetune": quick,
            "eval": quick[:2],
        }
        for words in commands_under(REPOSITORY / "docs" / "index.md", "Your own folder"):
            succeed(*words, *shorter.get(words[1], ()), cwd=folder)
        (folder / "holiday.mp4").symlink_to(sorted(demo_videos.glob("test/*/*.mp4"))[0])
        trained = ("--checkpoint", "runs/pretrain", "--workers", "0")
        embed = ("cavmae", "embed", "--shards", "shards/test", *trained)
        succeed(*embed, "--out", "test.safetensors", cwd=folder)
        succeed("cavmae", "export", "runs/finetune", "classifier.pt2", cwd=folder)

    folder = tmp_path_factory.mktemp("documented") / "folder"  # what runs there writes there
    return shutil.copytree(made_once("documented", make), folder, symlinks=True)


def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `avprep …` or `cavmae …` by its entry point, in this process: PyTorch is loaded once."""
    program, *arguments = map(str, words)
    main = importlib.import_module(f"{program}.cli").main
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "argv", [program, *arguments])
        if cwd is not None:
            patch.chdir(cwd)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, handler)
    printed = []
    for stream in (out, errors):
        stream.flush()
        printed.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess([program, *arguments], ended.value.code, *printed)


def succeed(*words: object, cwd: Path | None = None) -> str:
    """What a command prints that ends well."""
    result = run(*words, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_command(folder: Path, command: str, *arguments: object) -> str:
    """Run `avprep …` or `cavmae …` in a folder; returns what it printed."""
    return succeed(*command.split(), *arguments, cwd=folder)


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


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
