"""The bytes of shards, manifests and extracted files, as they have been since they were recorded.

The digests in golden_bytes.json hold for the sets of versions beside them: another PyAV, Pillow or
libsndfile may rightly write other bytes. After a deliberate change of the bytes, or of the versions
in constraints.txt, run `python -m tests.avprep.test_golden_bytes` with each Python that has its own
versions there, and add a line to CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, run_command
from tests.media import Movie, make_movie

RECORD = Path(__file__).with_name("golden_bytes.json")
PACKAGES = ("av", "imageio-ffmpeg", "numpy", "opencv-python-headless", "pillow", "soundfile")

# One thread and no choice by processor: the same file on every machine.
_X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1")
_X264 += ("-x264-params", "cpu-independent=1")
_MPEG4 = ("-c:v", "mpeg4", "-q:v", "3", "-threads", "1")
MOVIES = (
    Movie("ordinary.mp4", _X264, ("-c:a", "aac", "-b:a", "96k"), channels=2, audio_seconds=2.1),
    Movie(
        "phone.mov",
        _X264,
        before=("-display_rotation", "90"),
        audio_rate=8000,
        audio_start=0.2,
        audio_seconds=1.6,
    ),
    Movie(
        "lecture.mkv",
        _MPEG4,
        ("-c:a", "flac"),
        width=256,
        pixel_aspect=0.75,
        audio_rate=48000,
        extra=("-aspect", "4:3", "-fflags", "+bitexact"),  # no random id in its head
    ),
    Movie("old.avi", _MPEG4, ("-c:a", "pcm_s16le"), audio_rate=22050, channels=2, frames=12),
)

_MANIFESTS = ("*.json", "*.jsonl", "*.classes.csv", "segments.csv")


def make_everything(folder: Path) -> None:
    """Videos in two classes, and all that the commands make of them, under relative names."""
    for movie, label in zip(MOVIES, ("cat", "cat", "dog", "dog"), strict=True):
        (folder / "videos" / label).mkdir(parents=True, exist_ok=True)
        make_movie(folder / "videos" / label, movie)
    workers = ("--workers", "1")
    run_command(folder, "avprep manifest folder", "videos", "--out", "m.json")
    run_command(folder, "avprep extract", "videos", "--out", "extracted", *workers)
    from_files = ("--extracted", "extracted", "--out", "packed.jsonl")
    run_command(folder, "avprep manifest folder", "videos", *from_files)
    _add_segments(folder)
    run_command(folder, "avprep manifest convert", "segments.json", "segments.csv")
    for out, manifest, *options in (
        ("flac", "segments.json", "--samples-per-shard", "3"),
        ("wav", "m.json", "--audio", "wav", "--channels", "mix", "--frames", "3"),
        ("packed", "packed.jsonl"),
    ):
        run_command(folder, "avprep shard", manifest, "--out", out, *options, *workers)


def _add_segments(folder: Path) -> None:
    """segments.json: the clips of m.json, and two segments of two of their files."""
    document = json.loads((folder / "m.json").read_text())
    for clip in document["data"][:2]:
        segment = {"video_id": f"{clip['video_id']}_0.500", "start": 0.5, "end": 1.5}
        document["data"].append({**clip, **segment})
    (folder / "segments.json").write_text(json.dumps(document))
    (folder / "segments.classes.csv").write_bytes((folder / "m.classes.csv").read_bytes())


def files_with_fixed_bytes(folder: Path) -> Iterator[Path]:
    """The videos themselves, to tell whether the input is the same, and what is promised."""
    for pattern in ("videos/*/*", *_MANIFESTS, "extracted/*/**/*.*", "*/*.tar"):
        yield from sorted(folder.glob(pattern))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in files_with_fixed_bytes(folder)
    }


def versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in PACKAGES}


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text())


def test_the_bytes_are_those_on_record(record, tmp_path):
    if versions() not in record["versions"]:
        pytest.skip(f"there are no digests for {versions()}, only for {record['versions']}")
    if platform.machine() != record["machine"]:
        pytest.skip(f"there are digests for {record['machine']} processors only")
    make_everything(tmp_path)
    found = digests(tmp_path)
    for group in ("videos/", ""):  # another input says nothing about what is made of it
        assert _under(found, group) == _under(record["sha256"], group)


def _under(of_files: dict[str, str], group: str) -> dict[str, str]:
    return {name: digest for name, digest in of_files.items() if name.startswith(group)}


def test_the_versions_on_record_are_those_of_make_test(record):
    pinned = {line.partition(";")[0].strip() for line in (REPOSITORY / "constraints.txt").open()}
    for of_one_python in record["versions"]:
        assert {f"{name}=={version}" for name, version in of_one_python.items()} <= pinned


def write_record() -> None:
    """Put this environment's versions and digests on record, beside those with the same digests."""
    with tempfile.TemporaryDirectory() as work:
        make_everything(Path(work))
        found = digests(Path(work))
    old = json.loads(RECORD.read_text())
    others = [one for one in old["versions"] if one != versions()]
    if found != old["sha256"]:
        others = []
    made = {
        "machine": platform.machine(),
        "versions": [versions(), *others],
        "sha256": found,
    }
    RECORD.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    write_record()
