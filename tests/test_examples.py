"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def run(*command: str | Path, **variables: str) -> str:
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        **variables,
    }
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_shards_are_read_by_plain_webdataset(documented_folder):
    script = EXAMPLES / "read_shards.py"
    assert "avprep" not in script.read_text()
    lines = run(sys.executable, script, documented_folder / "shards" / "test").splitlines()
    assert len(lines) == 8
    assert all("frames (10, 224, 224, 3)" in line for line in lines)


def test_a_folder_of_classes_is_finetuned_on(demo_videos, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    tiny = ("--model", "tiny", "--audio-frames", "96", "--batch-size", "4", "--workers", "2")
    printed = run(
        *(EXAMPLES / "finetune_folder.sh", demo_videos / "train", tmp_path / "out"),
        *(*tiny, "--epochs", "1"),
        TMPDIR=str(temporary),
    )
    assert "accuracy" in printed
    assert (tmp_path / "out" / "run" / "best.safetensors").exists()
    assert not list(temporary.iterdir())
