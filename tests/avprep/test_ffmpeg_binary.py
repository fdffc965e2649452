"""Which ffmpeg is used."""

from __future__ import annotations

import imageio_ffmpeg
import pytest

from avprep.ffmpeg_binary import ffmpeg_version, find_ffmpeg


@pytest.fixture(autouse=True)
def ask_again():
    find_ffmpeg.cache_clear()
    yield
    find_ffmpeg.cache_clear()


def install(folder, monkeypatch, script: str) -> str:
    """Put a program called ffmpeg on a PATH of its own."""
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return str(program)


@pytest.mark.parametrize("version", ["5.1.9-0+deb12u1", "n7.1-152", "10.0", "N-113007-g8d24a28d06"])
def test_the_ffmpeg_of_the_path_comes_first(tmp_path, monkeypatch, version):
    installed = install(tmp_path, monkeypatch, f"echo ffmpeg version {version} Copyright")
    assert (find_ffmpeg(), ffmpeg_version()) == (installed, version)


@pytest.mark.parametrize(
    "script",
    ["echo ffmpeg version 4.4.2-0ubuntu0.22.04.1", "echo ffmpeg version n5.0", "exit 127", "true"],
)
def test_one_that_is_too_old_or_does_not_run_is_passed_over(tmp_path, monkeypatch, script):
    install(tmp_path, monkeypatch, script)
    assert find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()


def test_without_one_the_wheel_s_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()
    assert any(map(str.isdigit, ffmpeg_version()))
