"""Every cause of the closed list, met by the real command; and names that are no fault.

Each fault costs its own clip: the ordinary clips among them come out as if alone.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from avprep.audio import decode_audio
from avprep.clips import Clip, discover_clips
from avprep.encode.process import ClipDecoder
from avprep.errors import CAUSES
from avprep.extraction import extract
from avprep.jobs import PoolOptions
from avprep.manifest.model import read_manifest, write_manifest
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.format import read_dataset, read_index, split_members
from tests.conftest import REPOSITORY
from tests.faults.conftest import (
    PATIENCE,
    contents,
    failures_of,
    make_clip,
    obey_permissions,
    run_shard,
    summary_of,
    without_torch,
)
from tests.media import run_ffmpeg


def make_faulty_clips(folder: Path, clip: Path) -> dict[str, Clip]:
    """Clips by id; the part of the id before the first space is the cause to be expected."""
    data = clip.read_bytes()
    files: dict[str, Path] = {}

    def file(name: str) -> Path:
        files[name] = folder / f"{name}.mp4"
        return files[name]

    file("missing file")
    file("missing target of a link").symlink_to(folder / "nowhere.mp4")
    file("unreadable folder").mkdir()
    file("unreadable link loop").symlink_to(folder / "unreadable link loop.mp4")
    os.mkfifo(file("unreadable pipe"))
    file("empty file").touch()
    file("garbage text").write_text("this is no video\n" * 100)
    file("garbage list of other files").write_text(f"ffconcat version 1.0\nfile {clip}\n")
    file("garbage bytes").write_bytes(bytes(range(256)) * 64)
    file("truncated before its index").write_bytes(data[: len(data) // 2])
    file("truncated after its header").write_bytes(data[:40])
    entry = data.index(b"avc1", data.index(b"stsd"))
    file("protected pictures").write_bytes(data[:entry] + b"encv" + data[entry + 4 :])
    run_ffmpeg("-i", clip, "-c", "copy", "-vn", file("no-video sound alone"))
    run_ffmpeg("-i", clip, "-c", "copy", "-an", file("no-audio picture alone"))
    bare = ("-i", clip, "-c", "copy", "-f", "matroska")
    run_ffmpeg(*bare, "-bsf:v", "noise=drop=1", file("no-frames of any kind"))
    run_ffmpeg(*bare, "-bsf:v", "noise=amount=1", file("no-frames that decode"))
    make_clip(file("too-short by itself"), seconds=0.1)
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.2"),
        *("-f", "lavfi", "-i", "sine=duration=0.01", "-c:a", "pcm_s16le", "-f", "matroska"),
        file("too-short by itself"),
    )
    for fault in ("segfault", "exhausts-memory", "killed-by-the-system"):
        shutil.copy(clip, folder / f"{fault}.mp4")
    clips = {video_id: Clip(video_id, video=str(path)) for video_id, path in files.items()}
    for video_id, path in (
        ("crash segfault", folder / "segfault.mp4"),
        ("out-of-memory by its limit", folder / "exhausts-memory.mp4"),
        ("out-of-memory by the system", folder / "killed-by-the-system.mp4"),
        ("bad-name with a zero byte", folder / "a\0b.mp4"),
        ("bad-name of 300 bytes", folder / ("x" * 300 + ".mp4")),
    ):
        clips[video_id] = Clip(video_id, video=str(path))
    header = tarfile.TarInfo("huge.mp4")
    header.size = 10**12
    (folder / "x.tar").write_bytes(header.tobuf())
    for video_id, url in (
        ("too-large in an archive", f"tar://huge.mp4::{folder}/x.tar"),
        ("unreachable server", "http://127.0.0.1:9/clip.mp4"),
    ):
        clips[video_id] = Clip(video_id, video=url)
    past_the_end = Clip("too-short segment", video=str(clip), start=50.0, end=60.0)
    return {**clips, past_the_end.video_id: past_the_end}


@pytest.fixture(scope="module")
def broken(clip, ordinary, hostile_decoder, tmp_path_factory):
    """One run over all faults with the ordinary clips between them."""
    work = tmp_path_factory.mktemp("causes")
    faulty = make_faulty_clips(work, clip)
    again = Clip(ordinary[0].video_id, video=str(work / "elsewhere" / "tone0.mp4"))
    mixed = [entry for pair in zip(ordinary, list(faulty.values()), strict=False) for entry in pair]
    rest = [entry for entry in faulty.values() if entry not in mixed]
    write_manifest(work / "m.json", [*mixed, *rest, again])
    result = run_shard(
        *(work / "m.json", work / "shards", "--memory-limit", "0.5"),
        *("--workers", "2", "--samples-per-shard", "5", "--time-limit", PATIENCE),
        env=hostile_decoder,
    )
    assert result.returncode == 0, result.stderr
    return work / "shards", faulty, result


def test_every_fault_has_its_cause(broken):
    out, faulty, _ = broken
    failed = failures_of(out)
    found = {video_id: failed[video_id]["cause"] for video_id in faulty if video_id in failed}
    assert found == {video_id: video_id.partition(" ")[0] for video_id in faulty}
    assert failed["tone0"]["cause"] == "duplicate-id"
    assert set(found.values()) | {"duplicate-id", "timeout"} == set(CAUSES)


def test_a_clip_that_hangs_is_a_timeout(clip, hostile_decoder, tmp_path):
    """Alone: on a busy machine the others might not be done within a limit this short either."""
    hanging = Clip("x", video=str(shutil.copy(clip, tmp_path / "hang.mp4")))
    write_manifest(tmp_path / "m.json", [hanging])
    out = tmp_path / "shards"
    result = run_shard(tmp_path / "m.json", out, "--time-limit", "1", env=hostile_decoder)
    assert "hang.mp4: not done within 1 s, tried twice" in result.stdout
    assert failures_of(out)["x"]["cause"] == "timeout"


def test_every_detail_names_its_file(broken):
    out, faulty, _ = broken
    for row in failures_of(out).values():
        path = faulty[row["video_id"]].video if row["video_id"] in faulty else row["path"]
        assert row["path"] == path.replace("\0", "\\x00")
        assert Path(path).name[:20].split("\0")[0] in row["detail"]
        assert row["stage"] in ("decode", "plan")


def test_a_fault_costs_nothing_but_its_clip(broken, ordinary, undisturbed):
    out, faulty, _ = broken
    info = read_dataset(out)
    assert (info.clips, info.samples) == (len(faulty) + 1 + len(ordinary), len(ordinary))
    assert sum(info.failures.values()) == len(faulty) + 1
    assert samples_of(contents(out)) == samples_of(undisturbed)


def samples_of(files: dict[str, bytes]) -> set[bytes]:
    """Each sample's bytes, wherever it lies."""
    found = set()
    for name, data in files.items():
        if name.endswith(".index.json"):
            tar = files.get(name.replace(".index.json", ".tar"), b"")
            for entry in json.loads(data)["samples"]:
                found.add(tar[entry["offset"] : entry["offset"] + entry["size"]])
    return found


def test_the_summary_counts_the_causes(broken):
    _, faulty, result = broken
    assert f"{len(faulty) + 1} of" in result.stdout
    for cause in set(CAUSES) - {"timeout"}:
        assert f"  {cause}: " in result.stdout
    assert "SIGSEGV" in result.stdout


def test_the_documentation_lists_the_same_causes():
    text = (REPOSITORY / "docs" / "faults.md").read_text()
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert tuple(rows) == CAUSES


@pytest.mark.parametrize("missing_audio", ["fail", "silence"])
def test_a_clip_without_audio_fails_or_is_silent(clip, tmp_path, missing_audio):
    mute = tmp_path / "mute.mp4"
    run_ffmpeg("-i", clip, "-c", "copy", "-an", mute)
    write_manifest(tmp_path / "m.json", [Clip("x", video=str(clip)), Clip("m", video=str(mute))])
    out = tmp_path / "s"
    result = run_shard(tmp_path / "m.json", out, "--missing-audio", missing_audio)
    assert result.returncode == 0, result.stderr
    if missing_audio == "fail":
        assert failures_of(out)["m"]["cause"] == "no-audio"
        return
    (shard,) = read_dataset(out).shards
    (entry,) = (s for s in read_index(out, shard.name).samples if s.video_id == "m")
    data = (out / shard.name).read_bytes()[entry.offset : entry.offset + entry.size]
    pcm = decode_audio(bytes(split_members(data, entry.key)["flac"]))
    assert len(pcm) == pytest.approx(0.3 * 16000, rel=0.1)
    assert not pcm.any()


def test_a_file_that_may_not_be_read_is_unreadable(clip, ordinary, tmp_path):
    secret = tmp_path / "secret.mp4"
    shutil.copy(clip, secret)
    secret.chmod(0)
    write_manifest(tmp_path / "m.json", [Clip("x", video=str(secret)), ordinary[0]])
    result = run_shard(tmp_path / "m.json", tmp_path / "s", preexec_fn=obey_permissions)
    assert result.returncode == 0, result.stderr
    assert failures_of(tmp_path / "s")["x"]["cause"] == "unreadable"


HOSTILE_NAMES = [
    *("-leading dash", "--out", "line\nbreak", "tab\t", " space ", "$(touch x)", "`id`", "a;b|c"),
    *("a'b\"c", "%s%n", "concat:a|b", "http:a", "pipe:0", "été", "日本", "e\u0301", "🎬", "=2E"),
    *("a.b.c", "~", "*", "\\", "\x1b[31mred", "\u202e", "x" * 251),
]


@pytest.fixture(scope="module")
def hostile_names(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    for name in HOSTILE_NAMES:
        shutil.copy(clip, folder / f"{name}.mp4")
    with open(os.fsencode(folder) + b"/not-utf8-\xff\xfe.mp4", "wb") as file:
        file.write(clip.read_bytes())
    (folder / "a folder.mp4").mkdir()
    shutil.copy(clip, folder / "a folder.mp4" / "inside.mp4")
    return folder


def test_hostile_names_go_all_the_way(hostile_names, tmp_path):
    """From a folder of strange names, given as a relative path, to shards."""
    command = [sys.executable, "-m", "avprep", "manifest", "folder", "."]
    subprocess.run(
        [*command, "--out", str(tmp_path / "m.json")],
        check=True,
        cwd=hostile_names,
        env=without_torch(),
    )
    expected = sorted([*HOSTILE_NAMES, "inside"])
    assert sorted(clip.video_id for clip in read_manifest(tmp_path / "m.json")) == expected
    options = ("--samples-per-shard", "14", "--workers", "2", "--json")
    result = run_shard(tmp_path / "m.json", tmp_path / "s", *options, cwd=hostile_names)
    assert result.returncode == 0, result.stderr
    assert summary_of(result)["failed"] == {}
    found = [
        entry.video_id
        for shard in read_dataset(tmp_path / "s").shards
        for entry in read_index(tmp_path / "s", shard.name).samples
    ]
    assert sorted(found) == expected


def test_a_name_that_is_not_utf8_is_named_by_the_manifest_and_extracted(hostile_names, tmp_path):
    command = (sys.executable, "-m", "avprep", "manifest", "folder", hostile_names)
    result = subprocess.run(
        [*command, "--out", tmp_path / "m.json"],
        capture_output=True,
        text=True,
        env=without_torch(),
    )
    assert result.returncode == 0, result.stderr
    assert "1 path not in UTF-8, left out" in result.stdout
    (clip,) = (c for c in discover_clips(hostile_names) if c.video_id.startswith("not-utf8"))
    with ClipDecoder(SampleOptions(), IsolationOptions()) as decoder:
        assert len(decoder.decode(clip).frames) == 10


def test_hostile_names_that_fail_cannot_play_tricks_on_the_terminal(tmp_path, ordinary):
    names = ["\x1b[31mred", "line\nbreak", "not-utf8-\udcff"]
    clips = [Clip(name, video=str(tmp_path / f"{name}.mp4")) for name in names]
    write_manifest(tmp_path / "m.json", [*clips, ordinary[0]])
    result = run_shard(tmp_path / "m.json", tmp_path / "s")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "line\\nbreak.mp4: no such file" in result.stdout
    assert len(failures_of(tmp_path / "s")) == 3


def test_files_of_a_255_byte_name_are_extracted_or_named(clip, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("x" * 251 + ".mp4", "y" * 252 + ".ts"):
        shutil.copy(clip, videos / name)
    report = extract(videos, tmp_path / "x", pool=PoolOptions(1))
    assert report.extracted == 1
    assert [failure.cause for failure in report.failures] == ["bad-name"]


def test_a_zero_byte_in_the_name_of_a_member_costs_that_clip_alone(clip, tmp_path):
    data = clip.read_bytes()
    with tarfile.open(tmp_path / "videos.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("first.mp4", "zero\0byte.mp4", "last.mp4"):
            member = tarfile.TarInfo("of-old-programs.mp4")
            member.size, member.pax_headers = len(data), {"path": name}
            archive.addfile(member, io.BytesIO(data))
    report = extract(tmp_path / "videos.tar", tmp_path / "x", pool=PoolOptions(1))
    assert report.extracted == 2
    assert [failure.cause for failure in report.failures] == ["bad-name"]


def test_a_folder_that_cannot_be_listed_is_not_passed_over(clip, tmp_path):
    (tmp_path / "open").mkdir()
    shutil.copy(clip, tmp_path / "open" / "a.mp4")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    command = (sys.executable, "-m", "avprep", "manifest", "folder")
    result = subprocess.run(
        [*command, tmp_path, "--out", tmp_path / "m.json"],
        capture_output=True,
        text=True,
        env=without_torch(),
        preexec_fn=obey_permissions,
    )
    closed.chmod(0o700)
    assert result.returncode == 2
    assert f"{closed}: this folder cannot be listed (Permission denied)" in result.stderr


def test_too_many_failures_are_exit_code_1_and_the_set_is_there(ordinary, tmp_path):
    lost = [Clip(f"lost{k}", video=str(tmp_path / f"{k}.mp4")) for k in range(2)]
    write_manifest(tmp_path / "m.json", [*ordinary[:2], *lost])
    for limit, code in (("1", 1), ("2", 0), ("49%", 1), ("50%", 0)):
        result = run_shard(tmp_path / "m.json", tmp_path / "s", "--max-failures", limit)
        assert result.returncode == code, result.stderr
        assert ("2 of 4 clips failed, more than --max-failures" in result.stderr) == bool(code)
    assert read_dataset(tmp_path / "s").samples == 2
