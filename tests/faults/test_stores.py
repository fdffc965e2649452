"""Shard sets in an object store, through a real S3 server: whole or absent there, too."""

from __future__ import annotations

import signal
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest

from avprep import storage
from avprep.errors import UserError, WorkFailed
from avprep.shards.format import read_dataset
from tests.faults.conftest import (
    build,
    contents,
    run_shard,
    shard_command,
    wait_until,
    without_torch,
)

pytest.importorskip("s3fs", reason="needs the extra s3")
moto = pytest.importorskip("moto.server", reason="needs the extra dev")

BUCKET = "s3://bucket"


@pytest.fixture(scope="module")
def server():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        forget_stores()
        # moto keeps one state per process, with what other modules' servers have left in it.
        reset = Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urlopen(reset).close()
        filesystem().mkdir("bucket")
        yield server
    forget_stores()
    server.stop()


def forget_stores():
    """fsspec keeps connections by their options, and does not see that the address changed."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def filesystem():
    import fsspec

    return fsspec.filesystem("s3", use_listings_cache=False)


def stored(prefix: str) -> dict[str, bytes]:
    """Every object under a prefix, by name."""
    inside = prefix.removeprefix("s3://") + "/"
    # What was empty a moment ago is found as if it were an object, if something appears meanwhile.
    found = [path for path in filesystem().find(prefix) if path.startswith(inside)]
    return {path.rsplit("/", 1)[-1]: filesystem().cat_file(path) for path in found}


def unfinished_uploads() -> dict[str, str]:
    """Key → upload of every multi-part upload that was begun and neither finished nor given up."""
    listed = filesystem().call_s3("list_multipart_uploads", Bucket="bucket")
    return {upload["Key"]: upload["UploadId"] for upload in listed.get("Uploads", [])}


def test_a_set_built_in_a_bucket_is_the_one_built_in_a_folder(
    server, manifest, undisturbed, tmp_path
):
    """Built by two processes, read by the trainer's reader, verified, and found complete."""
    from cavmae.data import ShardSet

    out = f"{BUCKET}/whole"
    result = run_shard(manifest, out, "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert f"complete: {out}/dataset.json" in result.stdout
    assert stored(out) == undisturbed

    local = tmp_path / "local"
    local.mkdir()
    for name, data in undisturbed.items():
        (local / name).write_bytes(data)
    here, there = ShardSet.open(local), ShardSet.open(out)
    assert len(there) == len(here) == 8
    for number in range(len(there)):
        ours, theirs = here.read(number), there.read(number)
        assert {name: bytes(data) for name, data in theirs.members.items()} == {
            name: bytes(data) for name, data in ours.members.items()
        }

    verify = subprocess.run(
        [sys.executable, "-m", "avprep", "verify", out, "--deep", "--workers", "1"],
        capture_output=True,
        text=True,
        env=without_torch(),
    )
    assert verify.returncode == 0, verify.stderr
    again = run_shard(manifest, out)
    assert "found 4 shards, built 0" in again.stdout


def test_killed_while_building_in_a_bucket_and_resumed(server, manifest, undisturbed):
    out = f"{BUCKET}/killed"
    for _ in range(3):
        before = len(stored(out))
        process = subprocess.Popen(
            shard_command(manifest, out, "--workers", "1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=without_torch(),
        )
        wait_until(lambda: len(stored(out)) > before or process.poll() is not None)  # noqa: B023
        process.kill()
        process.wait()
        found = stored(out)
        assert found == {name: undisturbed[name] for name in found}
    assert run_shard(manifest, out).returncode == 0
    assert stored(out) == undisturbed


def test_a_place_does_not_hold_itself(server):
    filesystem().pipe_file("bucket/alone", b"an object")
    assert storage.list_names(f"{BUCKET}/alone") == []
    assert "alone" in storage.list_names(BUCKET)


def test_parts_see_what_others_wrote_meanwhile(server, ordinary, undisturbed):
    """A listing made at the beginning must not be believed at the end."""
    out = f"{BUCKET}/parts"

    def build_other_part(found: object) -> None:
        assert not build(ordinary, out, part=(2, 2)).complete

    assert build(ordinary, out, part=(1, 2), on_found=build_other_part).complete
    assert stored(out) == undisturbed


def test_a_large_upload_torn_away_leaves_nothing_visible(server, tmp_path):
    """kill -9 between the parts of a multi-part upload; then the same upload in full."""
    target = f"{BUCKET}/large/shard-000000.tar"
    code = (
        "import sys\n"
        "from avprep import storage\n"
        "with storage.scratch_file(sys.argv[1]) as file:\n"
        "    for _ in range(120): file.write(bytes(1 << 20))\n"
        "    file.publish(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), target]
    process = subprocess.Popen(command, env=without_torch())
    wait_until(unfinished_uploads)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(unfinished_uploads()) == ["large/shard-000000.tar"]
    assert not storage.exists(target)
    assert storage.list_names(f"{BUCKET}/large") == []

    subprocess.run(command, env=without_torch(), check=True)
    assert storage.size(target) == 120 << 20
    assert storage.remove_abandoned(tmp_path) == 1


def test_a_failed_part_aborts_the_upload(server, tmp_path, monkeypatch):
    import s3fs

    client = filesystem()
    for key, upload in unfinished_uploads().items():
        client.call_s3("abort_multipart_upload", Bucket="bucket", Key=key, UploadId=upload)
    call = s3fs.S3FileSystem._call_s3

    async def refuse_the_second_part(self, method, *args, **kwargs):
        if method == "upload_part" and kwargs.get("PartNumber") == 2:
            raise OSError(5, "the line is cut")
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refuse_the_second_part)
    target = f"{BUCKET}/refused/shard-000000.tar"
    with storage.scratch_file(tmp_path) as file:
        file.write(bytes(120 << 20))
        with pytest.raises(WorkFailed, match="the line is cut"):
            file.publish(target)
    assert not storage.exists(target)
    assert unfinished_uploads() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there_is_named(server, manifest):
    result = run_shard(manifest, "s3://nowhere/shards")
    assert result.returncode == 2, result.stderr
    assert "s3://nowhere/shards/plan.json: cannot be written to" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_outage_is_one_line(server, manifest):
    outage = {**without_torch(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    result = run_shard(manifest, f"{BUCKET}/outage", env=outage)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert f"{BUCKET}/outage" in result.stderr


def test_other_peoples_objects_are_not_touched(server, ordinary):
    filesystem().pipe_file("bucket/taken/holiday.jpg", b"x")
    with pytest.raises(UserError, match="holiday"):
        build(ordinary, f"{BUCKET}/taken")
    assert stored(f"{BUCKET}/taken") == {"holiday.jpg": b"x"}


def test_mended_clips_are_rebuilt_in_place(server, ordinary, clip, tmp_path):
    from avprep.clips import Clip

    video = tmp_path / "mended.mp4"
    clips = [ordinary[0], Clip("mended", video=str(video))]
    out = f"{BUCKET}/mended"
    assert build(clips, out).failures[0].cause == "missing"
    video.write_bytes(clip.read_bytes())
    assert build(clips, out, retry_failed=True).samples == 2
    assert read_dataset(out).samples == 2
    build(clips, tmp_path / "fresh")
    assert stored(out) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("archive", ["", "x.tar", "x.tar.gz", "x.zip"])
def test_videos_in_a_bucket_make_the_same_samples(server, ordinary, tmp_path, archive):
    """Each by itself, and in archives, one of which is missing a member."""
    from pathlib import Path

    from avprep.clips import Clip
    from tests.archives import by_name, make_tar, make_zip
    from tests.faults.conftest import failures_of, samples_of

    members = by_name(Path(clip.video) for clip in ordinary)
    if archive:
        make = make_zip if archive.endswith("zip") else make_tar
        filesystem().put_file(str(make(tmp_path / archive, members)), f"bucket/in/{archive}")
    else:
        filesystem().pipe({f"bucket/in/{name}": data for name, data in members.items()})
    scheme = "zip" if archive.endswith("zip") else "tar"
    form = f"{scheme}://{{}}::{BUCKET}/in/{archive}" if archive else f"{BUCKET}/in/{{}}"
    clips = [Clip(Path(name).stem, video=form.format(name)) for name in members]
    build([*clips, Clip("nowhere", video=form.format("nowhere.mp4"))], tmp_path / "s")
    build(ordinary, tmp_path / "local")
    assert samples_of(tmp_path / "s") == samples_of(tmp_path / "local")
    (failure,) = failures_of(tmp_path / "s").values()
    assert (failure["video_id"], failure["cause"]) == ("nowhere", "missing")
    assert failure["detail"].startswith(form.format("nowhere.mp4"))


def test_a_bucket_that_may_not_be_read_or_is_down_is_named(server, ordinary, tmp_path, monkeypatch):
    from avprep.clips import Clip
    from tests.faults.conftest import failures_of

    clips = [ordinary[0], Clip("lost", video="s3://no-such-bucket/a.mp4")]
    build(clips, tmp_path / "a")
    assert failures_of(tmp_path / "a")["lost"]["cause"] == "missing"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_stores()
    clips = [ordinary[0], Clip("down", video=f"{BUCKET}/in/a.mp4")]
    build(clips, tmp_path / "b")
    forget_stores()
    failed = failures_of(tmp_path / "b")["down"]
    assert failed["cause"] == "unreachable"
    assert "127.0.0.1:9" in failed["detail"]
