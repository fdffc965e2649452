"""A shard set built from real videos: whole, exact, resumable, readable by anyone."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import webdataset as wds

from avprep.audio import decode_audio
from avprep.clips import Clip
from avprep.decode import decode_clip
from avprep.errors import UserError
from avprep.jobs import PoolOptions
from avprep.labels import LabelSet
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import BuildOptions, DecodeOptions, IsolationOptions, Part, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set
from avprep.shards.format import read_dataset, read_index, sample_key
from tests.conftest import contents, run


def build(clips, labels, out, workers=2, part=(1, 1), retry_failed=False, **kwargs):
    sample = kwargs.pop("sample", SampleOptions())
    per_shard, seed = kwargs.pop("samples_per_shard", 4), kwargs.pop("seed", 0)
    options = ShardSetOptions(sample, IsolationOptions(), per_shard, seed)
    which = BuildOptions(Part(*part), retry_failed)
    return build_shard_set(clips, labels, str(out), options, PoolOptions(workers), which, **kwargs)


@pytest.fixture(scope="module")
def manifest(demo_videos):
    return folder_manifest(demo_videos / "train")


@pytest.fixture(scope="module")
def shards(manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "train"
    report = build(*manifest, out)
    assert report.complete
    return out


def test_every_clip_is_a_sample_or_a_named_failure(manifest, shards):
    clips, labels = manifest
    info = read_dataset(shards)
    assert (info.clips, info.samples) == (len(clips), len(clips) - 2)
    assert info.failures == {"garbage": 1, "truncated": 1}
    assert info.class_counts == (2,) * 8
    assert [mid for mid, _ in info.labels] == list(labels.mids)
    with (shards / "failures.csv").open() as file:
        failed = {row["video_id"]: row for row in csv.DictReader(file)}
    assert set(failed) == {"broken_cut_short", "broken_not_a_video"}
    assert failed["broken_not_a_video"]["cause"] == "garbage"
    assert failed["broken_not_a_video"]["path"].endswith("broken_not_a_video.mp4")


def test_dataset_json_and_indexes_describe_the_bytes(shards):
    import hashlib

    info = read_dataset(shards)
    seen = 0
    for shard in info.shards:
        data = (shards / shard.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
        for entry in read_index(shards, shard.name).samples:
            part = io.BytesIO(data[entry.offset : entry.offset + entry.size] + bytes(1024))
            with tarfile.open(fileobj=part) as archive:
                names = archive.getnames()
            frames = [f"{entry.key}.{number}.jpg" for number in range(10)]
            assert names == [f"{entry.key}.json", f"{entry.key}.flac", *frames]
            seen += 1
    assert seen == info.samples


def test_sample_holds_what_decoding_gives(manifest, shards):
    clips = {clip.video_id: clip for clip in manifest[0]}
    shard = read_dataset(shards).shards[0]
    entry = read_index(shards, shard.name).samples[0]
    with tarfile.open(shards / shard.name) as archive:
        members = {name: archive.extractfile(name).read() for name in archive.getnames()[:12]}
    facts = json.loads(members[f"{entry.key}.json"])
    clip = clips[facts["video_id"]]
    media = decode_clip(clip.video)
    np.testing.assert_array_equal(decode_audio(members[f"{entry.key}.flac"]), media.pcm)
    assert facts["num_samples"] == len(media.pcm)
    assert facts["frame_times"] == list(media.frame_times)
    assert facts["labels"] == list(clip.labels)
    assert facts["label_indices"] == list(entry.labels)


def test_plain_webdataset_reads_the_shards(shards):
    urls = sorted(str(path) for path in shards.glob("*.tar"))
    dataset = wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("torchrgb")
    samples = list(dataset)
    assert len(samples) == read_dataset(shards).samples
    for sample in samples:
        assert sample["__key__"] == sample_key(sample["json"]["video_id"])
        assert tuple(sample["0.jpg"].shape) == tuple(sample["9.jpg"].shape) == (3, 224, 224)
        assert len(decode_audio(sample["flac"])) == sample["json"]["num_samples"]


def test_ids_with_dots_and_dashes_survive_the_round_trip(demo_clip, manifest, tmp_path):
    ids = ["00W1lcxW-WU_40.000", "--4gqARaEJE", "a b/c", "été.x", "line\nbreak", "x" * 250]
    clips = [Clip(video_id, video=str(demo_clip)) for video_id in ids]
    build(clips, manifest[1], tmp_path / "s")
    urls = [str(path) for path in (tmp_path / "s").glob("*.tar")]
    dataset = wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode()
    samples = list(dataset)
    assert sorted(sample["json"]["video_id"] for sample in samples) == sorted(ids)
    assert all({"flac", "0.jpg", "9.jpg"} <= set(sample) for sample in samples)


def test_workers_and_history_change_no_byte(manifest, shards, tmp_path):
    alone = tmp_path / "alone"
    build(*manifest, alone, workers=1)
    assert contents(alone) == contents(shards)

    parts = tmp_path / "parts"
    first = build(*manifest, parts, part=(2, 2))
    assert not first.complete
    assert not (parts / "dataset.json").exists()
    assert build(*manifest, parts, part=(1, 2)).complete
    assert contents(parts) == contents(shards)


def test_rerun_builds_only_what_is_missing(manifest, shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    (copy / "shard-000001.tar").unlink()
    (copy / "shard-000002.index.json").unlink()
    untouched = (copy / "shard-000000.tar").stat().st_mtime_ns
    report = build(*manifest, copy)
    assert (report.found, report.built) == (3, 2)
    assert (copy / "shard-000000.tar").stat().st_mtime_ns == untouched
    assert contents(copy) == contents(shards)


def test_a_shard_cut_short_is_built_again(manifest, shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    os.truncate(copy / "shard-000000.tar", 1000)
    assert build(*manifest, copy).built == 1
    assert contents(copy) == contents(shards)


def verify(folder, *options):
    return run("avprep", "verify", folder, "--workers", "1", *options)


def test_a_whole_shard_set_verifies_deeply(shards):
    result = verify(shards, "--deep")
    assert result.returncode == 0, result.stderr
    assert "16 samples, 0 damaged" in result.stdout


@pytest.mark.parametrize("place", [600, 5000, 90_000, -5000])
def test_one_flipped_bit_is_found_and_just_that_shard_rebuilt(manifest, shards, tmp_path, place):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    target = copy / "shard-000001.tar"
    data = bytearray(target.read_bytes())
    data[place] ^= 1
    target.write_bytes(data)
    result = verify(copy, "--discard")
    assert result.returncode == 1
    assert "shard-000001.tar" in result.stdout
    assert "shard-000000.tar" not in result.stdout
    assert build(*manifest, copy).built == 1
    assert contents(copy) == contents(shards)


def test_a_torn_and_a_missing_shard_are_both_named(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    os.truncate(copy / "shard-000000.tar", 70_000)
    (copy / "shard-000002.tar").unlink()
    result = verify(copy, "--json")
    assert result.returncode == 1
    assert set(json.loads(result.stdout)["damaged"]) == {"shard-000000.tar", "shard-000002.tar"}


def test_a_used_folder_refuses_another_build_and_says_what_differs(manifest, shards, tmp_path):
    clips, labels = manifest
    wav = SampleOptions(DecodeOptions(frames=4), audio="wav")
    changes = [
        ((clips, labels, {"sample": wav}),
         r"other options \(frames = 10, not 4; audio = flac, not wav\)"),
        ((clips, labels, {"seed": 5}), r"other options \(seed = 0, not 5\)"),
        ((clips[1:], labels, {}), rf"another manifest \({len(clips)} clips, not "),
        ((clips, LabelSet(labels.mids[::-1], labels.names[::-1]), {}), "another class CSV .*order"),
        ((clips, LabelSet((*labels.mids, "x"), (*labels.names, "x")), {}),
         rf"another class CSV \({len(labels)} classes, not {len(labels) + 1}\)"),
        (([*clips[:-1], replace(clips[-1], video_id="other")], labels, {}),
         r"another manifest of as many clips\."),
    ]  # fmt: skip
    for (others, classes, options), complaint in changes:
        with pytest.raises(UserError, match=f"holds shards of {complaint}"):
            build(others, classes, shards, **options)


def test_other_program_versions_are_named(manifest, shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    plan = json.loads((copy / "plan.json").read_text())
    mine = plan["made_with"]["versions"]["av"]
    plan["made_with"]["versions"]["av"] = "0.1"
    plan["fingerprint"] = "0" * 64
    (copy / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=rf"other program versions \(av 0\.1, not {mine}\)"):
        build(*manifest, copy)
    del plan["made_with"]  # as older versions wrote it
    (copy / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="another manifest, other options or other program ver"):
        build(*manifest, copy)


def test_a_folder_with_something_else_is_refused(manifest, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="holiday"):
        build(*manifest, tmp_path)


def test_mended_inputs_are_picked_up_by_retry_failed(demo_videos, demo_clip, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(demo_clip, videos / "good.mp4")
    (videos / "bad.mp4").write_text("no video")
    clips, labels = folder_manifest(videos)
    assert build(clips, labels, tmp_path / "s").samples == 1
    shutil.copy(demo_clip, videos / "bad.mp4")
    assert build(clips, labels, tmp_path / "s").samples == 1
    report = build(clips, labels, tmp_path / "s", retry_failed=True)
    assert (report.samples, report.failures) == (2, ())
    assert read_dataset(tmp_path / "s").failures == {}


def test_files_of_one_folder_are_not_taken_for_those_of_another(demo_videos, tmp_path):
    """Their names can be the same, so the second folder's clips would count as done."""
    videos = tmp_path / "videos"
    for part in ("train", "test"):
        (videos / part).mkdir(parents=True)
    clip = next((demo_videos / "test").rglob("*.mp4"))
    shutil.copy(clip, videos / "train" / "a.mp4")
    shutil.copy(clip, videos / "test" / "a.mp4")
    out = tmp_path / "x"

    def extract(part, *flags):
        return run("avprep", "extract", part, "--out", out, "--workers", "1", *flags, cwd=videos)

    assert extract("train").returncode == 0
    assert "found 1 clip extracted before" in extract(videos / "train").stdout
    result = extract("test")
    assert result.returncode == 2
    assert f"extracted from {videos}/train, not from {videos}/test. Choose" in result.stderr
    result = extract("train", "--frames", "3", "--jpeg-quality", "90")
    assert result.returncode == 2
    assert (
        f"{out}: its files were extracted with other options (frames = 10, not 3; jpeg_quality = "
        "75, not 90). Choose another --out, or delete this folder first."
    ) in result.stderr
    (out / "extract.json").write_bytes((out / "extract.json").read_bytes()[:40])
    result = extract("train")
    assert result.returncode == 2
    assert f"{out}/extract.json: is damaged" in result.stderr
    result = run("avprep", "extract", "train", "--out", "train", cwd=videos)
    assert result.returncode == 2
    assert "train: not empty, and nothing was extracted into it before (holds 'a.mp4')" in (
        result.stderr
    )
    assert [path.name for path in (videos / "train").iterdir()] == ["a.mp4"]


def test_packed_files_and_decoded_videos_give_the_same_sample(demo_videos, tmp_path):
    from avprep.extraction import extract

    videos = demo_videos / "test"
    report = extract(videos, tmp_path / "x", pool=PoolOptions(2))
    assert report.extracted == 8
    again = extract(videos, tmp_path / "x", pool=PoolOptions(2))
    assert (again.found, again.extracted) == (8, 0)

    packed_clips, labels = folder_manifest(videos, tmp_path / "x")
    assert all(clip.wav for clip in packed_clips)
    build(packed_clips, labels, tmp_path / "packed")
    build(*folder_manifest(videos), tmp_path / "decoded")

    def samples(folder):
        urls = sorted(str(path) for path in folder.glob("*.tar"))
        return {
            s["__key__"]: s for s in wds.WebDataset(urls, shardshuffle=False, empty_check=False)
        }

    packed, decoded = samples(tmp_path / "packed"), samples(tmp_path / "decoded")
    assert packed.keys() == decoded.keys()
    for key, sample in packed.items():
        for member in ("flac", *(f"{number}.jpg" for number in range(10))):
            assert sample[member] == decoded[key][member]


def test_unknown_label_is_named(manifest, demo_clip, tmp_path):
    with pytest.raises(UserError, match="purring"):
        build([Clip("x", ("purring",), video=str(demo_clip))], manifest[1], tmp_path / "s")


def test_torch_is_loaded_only_where_a_shard_is_written(demo_videos, tmp_path):
    """webdataset brings it in."""
    videos = str(demo_videos / "test")
    program = """
import sys
from avprep.cli import group

group.main(sys.argv[1:], "avprep", standalone_mode=False)
print("LOADED", *sorted({"torch", "webdataset", "av"} & set(sys.modules)))
"""

    def loaded(*words):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.rpartition("LOADED")[2].split()

    assert loaded("manifest", "folder", videos, "--out", "m.json") == []
    assert loaded("extract", videos, "--out", "extracted", "--workers", "1") == []
    shard = ("shard", "m.json", "--out", "shards", "--workers", "1")
    loaded(*shard)
    assert loaded(*shard) == []  # finds the set finished
    assert loaded("verify", "shards", "--workers", "1") == []
