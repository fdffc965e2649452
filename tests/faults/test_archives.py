"""Clips in archives: the same samples as from a folder, and no archive costs more than itself."""

from __future__ import annotations

import json
import random
import shutil
import signal
import struct
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from avprep.clips import Clip
from avprep.errors import DecodeError
from avprep.options import IsolationOptions, SampleOptions, ShardSetOptions
from avprep.origins.archives import read_zip
from avprep.shards.format import read_dataset, read_index, split_members
from tests.archives import by_name, cut, make_tar, make_zip, special
from tests.faults.conftest import (
    build,
    contents,
    failures_of,
    run_shard,
    samples_of,
    shard_command,
    wait_until,
    without_torch,
)

KINDS = ("x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip")


@pytest.fixture(scope="module")
def archives(ordinary, tmp_path_factory) -> dict[str, Path]:
    """The ordinary clips in an archive of each kind, in an order that is not the manifest's."""
    folder = tmp_path_factory.mktemp("archives")
    members = by_name(Path(clip.video) for clip in random.Random(1).sample(ordinary, len(ordinary)))
    return {
        name: (make_zip if name.endswith("zip") else make_tar)(folder / name, members)
        for name in KINDS
    }


def clips_in(archive: Path, ordinary: list[Clip]) -> list[Clip]:
    scheme = "zip" if archive.suffix == ".zip" else "tar"
    return [
        Clip(clip.video_id, video=f"{scheme}://v/{Path(clip.video).name}::{archive}")
        for clip in ordinary
    ]


def scratch_left() -> list[Path]:
    import tempfile

    return list(Path(tempfile.gettempdir()).glob(".tmp-*"))


@pytest.mark.parametrize("name", KINDS)
def test_samples_are_those_of_the_unpacked_folder(archives, ordinary, expected, tmp_path, name):
    clips = clips_in(archives[name], ordinary)
    assert build(clips, tmp_path / "s").samples == len(clips)
    assert samples_of(tmp_path / "s") == expected
    assert not scratch_left()
    (shard, *_) = read_dataset(tmp_path / "s").shards
    (entry, *_) = read_index(tmp_path / "s", shard.name).samples
    data = (tmp_path / "s" / shard.name).read_bytes()[entry.offset : entry.offset + entry.size]
    source = json.loads(bytes(split_members(data, entry.key)["json"]))["source"]
    assert source == next(clip.video for clip in clips if clip.video_id == entry.video_id)


def test_extract_writes_the_files_of_the_unpacked_folder(archives, ordinary, tmp_path):
    """An archive that was cut gives its whole clips and names the rest."""
    from avprep import extract
    from avprep.jobs import PoolOptions

    def written(name: str) -> dict[str, bytes]:
        paths = (
            path for top in ("audio", "frames") for path in (tmp_path / name / top).rglob("*.*")
        )
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in paths}

    whole = extract(Path(ordinary[0].video).parent, tmp_path / "folder", pool=PoolOptions(1))
    for name in ("x.tar.gz", "x.zip"):
        assert extract(archives[name], tmp_path / name, pool=PoolOptions(2)) == whole
        assert written(name) == written("folder")
    part = cut(archives["x.tar"], 0.6)
    report = extract(part, tmp_path / "part", pool=PoolOptions(2))
    assert 3 <= report.extracted < whole.extracted
    assert written("part").items() < written("folder").items()
    details = [failure.detail for failure in report.failures]
    assert any(detail.startswith(f"{part}: was cut within v/") for detail in details)
    assert any(detail.endswith(f"::{part}: is cut") for detail in details)
    assert not scratch_left()


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_both_engines_read_archives(archives, ordinary, tmp_path, decoder):
    from avprep.jobs import PoolOptions
    from avprep.labels import LabelSet
    from avprep.options import DecodeOptions
    from avprep.shards.build import build_shard_set

    sample = SampleOptions(DecodeOptions(decoder=decoder))
    options = ShardSetOptions(sample, IsolationOptions(), 2)
    for place, clips in (("a", ordinary), ("b", clips_in(archives["x.tar.gz"], ordinary))):
        report = build_shard_set(
            clips[:2], LabelSet((), ()), str(tmp_path / place), options, PoolOptions(1)
        )
        assert report.samples == 2
    assert samples_of(tmp_path / "a") == samples_of(tmp_path / "b")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_bytes_do_not_depend_on_workers_or_history(archives, ordinary, tmp_path, name):
    clips = clips_in(archives[name], ordinary)
    build(clips, tmp_path / "one")
    build(clips, tmp_path / "three", workers=3)
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    (tmp_path / "three" / "shard-000001.index.json").unlink()
    (tmp_path / "three" / "dataset.json").unlink()
    report = build(clips, tmp_path / "three", workers=2)
    assert (report.found, report.built) == (3, 1)
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    for k in (1, 2):
        build(clips, tmp_path / "parts", part=(k, 2))
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes in /proc")
@pytest.mark.parametrize(("name", "share"), [("x.tar.gz", 1.1), ("x.tar", 0.1)])
def test_an_archive_is_read_once_and_what_is_not_wanted_is_passed_over(
    ordinary, tmp_path, name, share
):
    """Four shards, two workers, behind 30 MB that cannot be compressed; and without them."""
    counts = []
    for padding in (b"", random.Random(0).randbytes(30_000_000)):
        members = {"padding": padding, **by_name(Path(clip.video) for clip in ordinary)}
        archive = make_tar(tmp_path / name, members)
        before = bytes_read()
        assert (
            build(clips_in(archive, ordinary), tmp_path / f"{len(padding)}", workers=2).built == 4
        )
        counts.append(bytes_read() - before)
    assert counts[1] - counts[0] < share * archive.stat().st_size


def bytes_read() -> int:
    """By this process and its children that have ended."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


def test_an_archive_is_one_job_and_small_ones_share_one(archives, ordinary, tmp_path):
    from avprep.labels import LabelSet
    from avprep.shards.plan import CutByCount, plan_shards

    def groups(clips, size):
        plan = plan_shards(clips, LabelSet((), ()), {}, {}, CutByCount(size))
        return [[len(job.clips) for job in group] for group in plan.groups]

    many = [Clip(f"{k}-{n}", video=f"tar://{n}::{k}.tar") for k in range(3) for n in range(5)]
    assert groups(many, 2) == [[2, 2, 1]] * 3
    assert groups(many, 10) == [[10], [5]]
    assert groups(many, 100) == [[15]]
    local = [Clip(f"l{n}", video=f"{n}.mp4") for n in range(5)]
    assert groups([*many, *local], 4) == [[4], [1], *[[4, 1]] * 3]


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_killed_and_resumed_is_byte_identical(archives, ordinary, tmp_path, name):
    from avprep.manifest.model import write_manifest

    clips = clips_in(archives[name], ordinary)
    build(clips, tmp_path / "whole")
    write_manifest(tmp_path / "m.json", clips)
    out = tmp_path / "s"
    for seconds in (0.1, 0.6):
        process = subprocess.Popen(
            shard_command(tmp_path / "m.json", out, "--workers", "2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=without_torch(),
        )
        wait_until(lambda: (out / "plan.json").exists())
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = contents(out)
        assert found == {key: contents(tmp_path / "whole")[key] for key in found}
    result = run_shard(tmp_path / "m.json", out)
    assert result.returncode == 0, result.stderr
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip"])
def test_a_cut_archive_gives_what_is_whole_and_names_the_rest(
    archives, ordinary, expected, tmp_path, name
):
    part = cut(archives[name], 0.6)
    build(clips_in(part, ordinary), tmp_path / "s")
    found, failed = samples_of(tmp_path / "s"), failures_of(tmp_path / "s")
    assert found == {video_id: expected[video_id] for video_id in found}
    assert found.keys() | failed.keys() == expected.keys()
    assert len(found) >= 3
    for row in failed.values():
        assert row["cause"] == "truncated"
        assert row["detail"].startswith(row["path"])
        assert "cut short" in row["detail"]


def test_a_damaged_archive_gives_what_lies_before_the_damage(ordinary, expected, tmp_path):
    members = by_name(Path(clip.video) for clip in ordinary)
    archive = make_tar(tmp_path / "x.tar", members)
    data = bytearray(archive.read_bytes())
    third = data.index(b"v/tone2.mp4")
    data[third : third + 400] = bytes(range(200)) * 2
    archive.write_bytes(data)
    build(clips_in(archive, ordinary), tmp_path / "s")
    assert samples_of(tmp_path / "s").keys() == {"tone0", "tone1"}
    assert {row["cause"] for row in failures_of(tmp_path / "s").values()} == {"garbage"}


@pytest.mark.parametrize("has_index", [True, False])
def test_a_zip_bomb_that_declares_a_small_size_is_not_unpacked(
    ordinary, expected, tmp_path, has_index
):
    """100 MB that call themselves 1,000 bytes."""
    size, declared = 100_000_000, 1000
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("v/bomb.mp4", bytes(size))
        for clip in ordinary[:1]:
            made.write(clip.video, f"v/{Path(clip.video).name}")
    data = archive.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", declared))
    archive.write_bytes(data if has_index else data[: data.index(b"PK\1\2")])
    with archive.open("rb") as file:
        bomb = next(read_zip(file, ["v/bomb.mp4"]))
        taken = []
        with pytest.raises(DecodeError, match="is damaged"):
            taken += map(len, bomb.content)
        assert sum(taken) <= 2 << 20
    bomb = Clip("bomb", video=f"zip://v/bomb.mp4::{archive}")
    build([bomb, *clips_in(archive, ordinary[:1])], tmp_path / "s")
    assert samples_of(tmp_path / "s") == {"tone0": expected["tone0"]}
    (row,) = failures_of(tmp_path / "s").values()
    assert row["cause"] == "garbage"
    assert row["detail"].startswith(f"{bomb.video}: is damaged (")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_recording_larger_than_the_scratch_space_is_read_where_it_lies(tmp_path, name):
    """If it can be: not in a compressed archive, where it fails."""
    from avprep.jobs import PoolOptions
    from avprep.labels import LabelSet
    from avprep.options import ByteSize
    from avprep.shards.build import build_shard_set
    from tests.faults.conftest import make_clip

    path = make_clip(tmp_path / "long.mp4", seconds=100)
    archive = make_tar(tmp_path / name, by_name([path]))
    times = {"early": (1.0, 3.0), "late": (90.0, 92.0)}
    limits = IsolationOptions(scratch_size=ByteSize(path.stat().st_size - 1))
    options = ShardSetOptions(limits=limits)
    for video, out in ((str(path), "local"), (f"tar://v/long.mp4::{archive}", "s")):
        clips = [Clip(key, (), video, *both) for key, both in times.items()]
        build_shard_set(clips, LabelSet((), ()), str(tmp_path / out), options, PoolOptions(2))
    if name == "x.tar":
        assert samples_of(tmp_path / "s") == samples_of(tmp_path / "local")
    else:
        assert {row["cause"] for row in failures_of(tmp_path / "s").values()} == {"too-large"}


def test_hostile_members_cost_only_themselves(ordinary, expected, clip, tmp_path):
    """None of them makes a file, follows a link, opens a device, or fills the disk."""
    work = tmp_path / "work"
    work.mkdir()
    secret = work / "secret.mp4"
    shutil.copy(clip, secret)
    bomb = tarfile.TarInfo("bomb.mp4")
    bomb.size = 10**12
    members = {
        "../../x.mp4": clip.read_bytes(),
        f"{work}/absolute.mp4": clip.read_bytes(),
        "symlink.mp4": special("symlink.mp4", tarfile.SYMTYPE, str(secret)),
        "hardlink.mp4": special("hardlink.mp4", tarfile.LNKTYPE, str(secret)),
        "device.mp4": special("device.mp4", tarfile.CHRTYPE),
        "pipe.mp4": special("pipe.mp4", tarfile.FIFOTYPE),
        "folder.mp4": special("folder.mp4", tarfile.DIRTYPE),
        "empty.mp4": b"",
        "text.mp4": b"ffconcat version 1.0\nfile '" + str(secret).encode() + b"'\n",
        **by_name(Path(one.video) for one in ordinary[:2]),
        "bomb.mp4": bomb,
    }
    archive = make_tar(work / "x.tar", members)
    names = [*members, "nowhere.mp4"]
    clips = [Clip(Path(name).stem, video=f"tar://{name}::{archive}") for name in names]
    before = sorted(tmp_path.rglob("*"))
    build(clips, tmp_path / "s")
    found, failed = samples_of(tmp_path / "s"), failures_of(tmp_path / "s")
    assert found.keys() == {"x", "absolute", "tone0", "tone1"}
    assert {key: found[key] for key in ("tone0", "tone1")} == {
        key: expected[key] for key in ("tone0", "tone1")
    }
    causes = {video_id: row["cause"] for video_id, row in failed.items()}
    assert causes == {
        **dict.fromkeys(("symlink", "hardlink", "device", "pipe", "folder"), "unreadable"),
        "empty": "empty",
        "text": "garbage",
        "bomb": "too-large",
        "nowhere": "truncated",
    }
    assert "is a link to" in failed["symlink"]["detail"]
    for row in failed.values():
        assert row["detail"].startswith(f"{row['path']}: ")
        assert ".tmp-" not in row["detail"]
    assert [path for path in sorted(tmp_path.rglob("*")) if "s" not in path.parts[-2:]] == before
    assert not scratch_left()
