"""Videos on servers: fetched once, through failures, and each failure named for what it is."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

import pytest

from avprep.clips import Clip
from avprep.errors import UserError
from avprep.manifest.model import write_manifest
from avprep.shards.format import read_dataset
from tests.archives import by_name, make_tar, make_zip
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
from tests.media import run_ffmpeg
from tests.web_server import WebServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Do not wait between attempts."""
    from avprep.origins import remote
    from avprep.retries import attempts

    monkeypatch.setattr(remote, "attempts", functools.partial(attempts, first_wait=0.01))


@pytest.fixture(scope="module")
def files(ordinary, tmp_path_factory) -> dict[str, bytes]:
    """The ordinary clips, each by itself and in archives."""
    folder = tmp_path_factory.mktemp("files")
    members = by_name(Path(clip.video) for clip in ordinary)
    archives = (
        *(make_tar(folder / name, members) for name in ("x.tar", "x.tar.gz")),
        make_zip(folder / "x.zip", members),
    )
    return {
        **{f"/{name}": data for name, data in members.items()},
        **{f"/{path.name}": path.read_bytes() for path in archives},
    }


def clips_at(url: str, ordinary: list[Clip], archive: str = "") -> list[Clip]:
    scheme = "zip" if archive.endswith("zip") else "tar"
    forms = {True: f"{scheme}://v/{{}}::{url}/{archive}", False: f"{url}/v/{{}}"}
    form = forms[bool(archive)]
    return [Clip(one.video_id, video=form.format(Path(one.video).name)) for one in ordinary]


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("archive", ["", "x.tar", "x.tar.gz", "x.zip"])
def test_samples_are_those_of_local_files_and_each_file_is_fetched_once(
    ordinary, expected, files, tmp_path, has_ranges, archive
):
    with WebServer(files, has_ranges) as server:
        build(clips_at(server.url, ordinary, archive), tmp_path / "s", workers=2)
        if archive == "x.zip" and not has_ranges:
            rows = failures_of(tmp_path / "s").values()
            assert {row["cause"] for row in rows} == {"unreadable"}
            assert all("server without byte ranges" in row["detail"] for row in rows)
            return
        assert samples_of(tmp_path / "s") == expected
        for path, sent in server.sent.items():
            if path == "/x.zip":  # begins and ends within one buffer, so each request gets it all
                continue
            assert sent <= 1.1 * len(files[path]), path


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("archive", ["", "x.tar", "x.tar.gz"])
def test_answers_that_break_off_cost_nothing(
    ordinary, expected, files, tmp_path, has_ranges, archive
):
    with WebServer(files, has_ranges) as server:
        server.deaths.update(dict.fromkeys(files, 2))
        build(clips_at(server.url, ordinary, archive), tmp_path / "s")
    assert samples_of(tmp_path / "s") == expected


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory) -> dict[str, Path]:
    """A minute of each kind, of which ten seconds are a small part."""
    folder = tmp_path_factory.mktemp("long")
    mp4 = folder / "a.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=60,noise=alls=20:allf=t"),
        *("-f", "lavfi", "-i", "sine=duration=60", "-preset", "ultrafast", "-g", "20"),
        *("-pix_fmt", "yuv420p", mp4),
    )
    found = {"mp4": mp4}
    for suffix in ("mkv", "ts"):
        found[suffix] = folder / f"a.{suffix}"
        run_ffmpeg("-i", mp4, "-c", "copy", found[suffix])
    return found


@pytest.mark.parametrize(("kind", "share"), [("mp4", 0.6), ("mkv", 0.6), ("ts", 1.0)])
@pytest.mark.parametrize("has_ranges", [True, False])
def test_of_a_segment_only_its_part_is_fetched(long_videos, tmp_path, kind, share, has_ranges):
    """And no byte twice, though segments overlap; a TS has no index and is read from its front."""
    path = long_videos[kind]
    times = {"early": (10.0, 13.0), "again": (11.0, 14.0), "late": (40.5, 43.0)}
    build([Clip(name, (), str(path), *both) for name, both in times.items()], tmp_path / "local")
    with WebServer({f"/{path.name}": path.read_bytes()}, has_ranges) as server:
        url = f"{server.url}/{path.name}"
        build([Clip(name, (), url, *both) for name, both in times.items()], tmp_path / "s")
        sent = server.sent[f"/{path.name}"]
    assert samples_of(tmp_path / "s") == samples_of(tmp_path / "local")
    assert sent <= (share if has_ranges else 1.0) * path.stat().st_size


def test_a_segment_is_whole_with_the_engine_that_opens_files_itself(long_videos, tmp_path):
    from avprep.labels import LabelSet
    from avprep.options import (
        DecodeOptions,
        PoolOptions,
        SampleOptions,
        ShardSetOptions,
    )
    from avprep.shards.build import build_shard_set

    path = long_videos["mp4"]
    options = ShardSetOptions(SampleOptions(DecodeOptions(decoder="ffmpeg")))
    with WebServer({"/a.mp4": path.read_bytes()}) as server:
        for video, out in ((str(path), "local"), (f"{server.url}/a.mp4", "s")):
            clips = [Clip("x", (), video, 40.5, 43.0)]
            labels, place = LabelSet((), ()), str(tmp_path / out)
            assert build_shard_set(clips, labels, place, options, PoolOptions(1)).samples == 1
    assert samples_of(tmp_path / "s") == samples_of(tmp_path / "local")


def test_a_segment_whose_server_goes_away_is_unreachable(long_videos, ordinary, tmp_path):
    path = long_videos["mp4"]
    with WebServer({"/a.mp4": path.read_bytes()}) as server:
        server.requests_left["/a.mp4"] = 2
        url = f"{server.url}/a.mp4"
        build([Clip("x", (), url, 40.5, 43.0), *ordinary[:2]], tmp_path / "s")
    failed = failures_of(tmp_path / "s")
    assert {name: row["cause"] for name, row in failed.items()} == {"x": "unreachable"}
    assert failed["x"]["detail"].startswith(f"{url}: cannot be reached")


@pytest.mark.parametrize("archive", ["", "x.tar.gz"])
def test_killed_and_resumed_is_byte_identical(ordinary, files, tmp_path, archive):
    out = tmp_path / "s"
    with WebServer(files) as server:
        clips = clips_at(server.url, ordinary, archive)
        build(clips, tmp_path / "whole")
        whole = contents(tmp_path / "whole")
        write_manifest(tmp_path / "m.json", clips)
        process = subprocess.Popen(
            shard_command(tmp_path / "m.json", out, "--workers", "1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=without_torch(),
        )
        wait_until(lambda: list(out.glob(".tmp-*")) or process.poll() is not None)
        process.kill()
        process.wait()
        assert contents(out) == {name: whole[name] for name in contents(out)}
        result = run_shard(tmp_path / "m.json", out)
        assert result.returncode == 0, result.stderr
    assert contents(out) == whole


def test_refusals_and_missing_files_are_named_at_once(ordinary, files, tmp_path):
    with WebServer(files) as server:
        paths = {name: f"/v/tone{n}.mp4" for n, name in enumerate(("refused", "gone", "odd"))}
        server.statuses = {paths["refused"]: 403, paths["gone"]: 410, paths["odd"]: 418}
        paths["missing"] = "/v/nowhere.mp4"
        clips = [Clip(name, video=f"{server.url}{path}") for name, path in paths.items()]
        build([*clips, ordinary[3]], tmp_path / "s")
        failed = failures_of(tmp_path / "s")
        assert {name: row["cause"] for name, row in failed.items()} == {
            **dict.fromkeys(("refused", "odd"), "unreadable"),
            **dict.fromkeys(("gone", "missing"), "missing"),
        }
        url = f"{server.url}/v/nowhere.mp4"
        assert failed["missing"]["detail"] == f"{url}: is not on its server (HTTP 404 Not Found)"
        assert "may not be read (HTTP 403 Forbidden)" in failed["refused"]["detail"]
        assert all(server.requests[path] == 1 for path in paths.values())


@pytest.mark.parametrize("archive", ["", "x.tar.gz"])
def test_an_outage_is_over_when_the_same_command_is_run_again(
    ordinary, expected, files, tmp_path, archive
):
    out = tmp_path / "s"
    with WebServer(files) as server:
        clips = clips_at(server.url, ordinary, archive)
        build(clips, tmp_path / "whole")
        server.statuses = dict.fromkeys(list(files)[4:], 503)
        report = build(clips, out)
        assert report.complete
        assert {row["cause"] for row in failures_of(out).values()} == {"unreachable"}
        assert read_dataset(out).failures == {"unreachable": len(report.failures)}
        before = read_dataset(out).samples

        server.statuses = dict.fromkeys(files, 503)
        assert build(clips, out).samples == before  # a worse day takes nothing away

        server.statuses = {}
        report = build(clips, out)
        assert (report.samples, report.failures) == (len(clips), ())
        assert report.built < 4 or archive
        assert contents(out) == contents(tmp_path / "whole")
        assert build(clips, out).built == 0


def test_a_video_that_grows_without_end_is_given_up(ordinary, files, tmp_path):
    from avprep.labels import LabelSet
    from avprep.options import ByteSize, IsolationOptions, PoolOptions, ShardSetOptions
    from avprep.shards.build import build_shard_set

    with WebServer({**files, "/big.mp4": bytes(3_000_000)}) as server:
        clips = [Clip("big", video=f"{server.url}/big.mp4"), *clips_at(server.url, ordinary)]
        options = ShardSetOptions(limits=IsolationOptions(scratch_size=ByteSize(1_000_000)))
        build_shard_set(clips, LabelSet((), ()), str(tmp_path / "s"), options, PoolOptions(2))
    failed = failures_of(tmp_path / "s")
    assert {name: row["cause"] for name, row in failed.items()} == {"big": "too-large"}
    assert "--scratch-size" in failed["big"]["detail"]


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ("nowhere://a/b.mp4", "nowhere:// is not a kind of URL that can be read"),
        ("tar://a.mp4::nowhere://b/x.tar", "nowhere:// is not a kind of URL that can be read"),
        ("tar://a.mp4", "does not say in which archive"),
        ("tar://a.mp4::zip://x.tar::y.zip", "an archive within an archive"),
        ("smb://host/a.mp4", "smb:// needs a library that is not installed"),
    ],
)
def test_urls_that_cannot_be_read_are_refused_before_the_first_shard(
    ordinary, tmp_path, video, words
):
    if video.startswith("smb"):
        pytest.importorskip("fsspec")
    write_manifest(tmp_path / "m.json", [*ordinary[:1], Clip("x", video=video)])
    result = run_shard(tmp_path / "m.json", tmp_path / "s")
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()
    with pytest.raises(UserError, match=words.split()[0]):
        build([Clip("x", video=video)], tmp_path / "s")


def test_the_summary_tells_what_to_do_about_an_outage(ordinary, files, tmp_path):
    with WebServer(files) as server:
        server.statuses = dict.fromkeys(files, 404)
        clips = [*ordinary[:2], *clips_at("http://127.0.0.1:9", ordinary)[2:3]]
        write_manifest(tmp_path / "m.json", clips)
        result = run_shard(tmp_path / "m.json", tmp_path / "s")
    assert result.returncode == 0, result.stderr
    assert "1 clip was unreachable; run the same command again to try it once more" in result.stdout
    summary = run_shard(tmp_path / "m.json", tmp_path / "s", "--json")
    assert json.loads(summary.stdout)["failed"] == {"unreachable": 1}
