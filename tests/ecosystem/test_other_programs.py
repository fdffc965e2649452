"""One shard set, opened by the programs of others: the same ids, audio, frames and labels.

`make test-ecosystem` runs this in an environment of its own, since these programs are large and
need other versions than ours; where they are absent the tests are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds

from avprep.audio import decode_audio
from avprep.clips import Clip
from avprep.images import decode_jpeg
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import DecodeOptions, PoolOptions, SampleOptions, ShardSetOptions
from avprep.shards.build import build_shard_set
from avprep.shards.format import read_dataset
from avprep.shards.verify import verify
from tests.media import run_ffmpeg

Samples = dict[str, dict[str, Any]]  # by key: its parsed JSON, and the bytes of each other member


@pytest.fixture(scope="session")
def whole(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips with and without labels, in three shards."""
    clips, labels = folder_manifest(demo_videos / "train")
    clips = [*clips, Clip("no label. at all", video=clips[0].video)]
    return build(clips, labels, tmp_path_factory.mktemp("whole") / "s")


@pytest.fixture(scope="session")
def mixed(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip with sound and labels among several with neither."""
    clips, labels = folder_manifest(demo_videos / "test")
    folder = tmp_path_factory.mktemp("mixed")
    for clip in clips[1:]:
        silent = folder / f"{clip.video_id}.mp4"
        run_ffmpeg("-i", clip.video, "-an", "-c", "copy", silent)
    silent = [Clip(c.video_id, video=str(folder / f"{c.video_id}.mp4")) for c in clips[1:]]
    return build([clips[0], *silent], labels, folder / "s")


def build(clips: list[Clip], labels: Any, out: Path) -> Path:
    decode = DecodeOptions(missing_audio="omit")
    options = ShardSetOptions(SampleOptions(decode), samples_per_shard=8)
    assert build_shard_set(clips, labels, str(out), options, PoolOptions(2)).complete
    return out


def in_tars(folder: Path) -> Samples:
    """What the shards hold, read with nothing but Python's own library."""
    found: Samples = defaultdict(dict)
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found[key][suffix] = tar.extractfile(member).read()
    for members in found.values():
        members["json"] = json.loads(members["json"])
    return dict(found)


def test_webdataset_reads_every_member(whole):
    urls = sorted(map(str, whole.glob("*.tar")))
    found = {
        sample["__key__"]: {
            suffix: json.loads(data) if suffix == "json" else data
            for suffix, data in sample.items()
            if not suffix.startswith("__")
        }
        for sample in wds.WebDataset(urls, shardshuffle=False, empty_check=False)
    }
    assert found == in_tars(whole)


@pytest.mark.parametrize("kind", ["whole", "mixed"])
def test_wids_reads_every_member_by_number(kind, request, tmp_path):
    wids = pytest.importorskip("wids", reason="run `make test-ecosystem`")
    folder = request.getfixturevalue(kind)
    opened = wids.ShardListDataset(
        str(folder / "wids-meta.json"), cache_dir=str(tmp_path), keep=True, transformations=[]
    )
    assert len(opened) == read_dataset(folder).samples
    found: Samples = {}
    for number in reversed(range(len(opened))):
        sample = opened[number]
        members = {
            name.removeprefix("."): member.read()
            for name, member in sample.items()
            if not name.startswith("__")
        }
        found[sample["__key__"]] = {**members, "json": json.loads(members["json"])}
    assert found == in_tars(folder)


def as_stored(rows: Iterable[Mapping[str, Any]]) -> Samples:
    """Rows of Hugging Face datasets, as `in_tars` gives samples."""
    found: Samples = {}
    for row in rows:
        members = {name: value for name, value in row.items() if not name.startswith("__")}
        found[row["__key__"]] = {
            name: value if name == "json" else value["bytes"]
            for name, value in members.items()
            if value is not None
        }
    return found


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="run `make test-ecosystem`")
    pytest.importorskip("torchcodec", reason="datasets needs it, and FFmpeg's libraries, for sound")
    return datasets


@pytest.mark.parametrize("kind", ["whole", "mixed"])
@pytest.mark.parametrize("streaming", [False, True], ids=["at-once", "streaming"])
def test_datasets_opens_the_folder_whatever_the_first_samples_hold(
    hugging_face, kind, streaming, request, tmp_path
):
    folder = request.getfixturevalue(kind)
    rows = hugging_face.load_dataset(
        str(folder), split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    assert as_stored(rows.decode(False) if streaming else undecoded(hugging_face, rows)) == in_tars(
        folder
    )


@pytest.mark.parametrize("streaming", [False, True], ids=["at-once", "streaming"])
def test_datasets_opens_the_tars(hugging_face, whole, streaming, tmp_path):
    rows = hugging_face.load_dataset(
        "webdataset",
        data_files=str(whole / "*.tar"),
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path),
    )
    assert as_stored(rows.decode(False) if streaming else undecoded(hugging_face, rows)) == in_tars(
        whole
    )


def undecoded(datasets: Any, rows: Any) -> Any:
    """Rows with the bytes of sounds and pictures."""
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Audio | datasets.Image):
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def test_datasets_decodes_sound_and_pictures(hugging_face, whole, tmp_path):
    rows = hugging_face.load_dataset(str(whole), split="train", cache_dir=str(tmp_path))
    stored = in_tars(whole)
    row = rows[0]
    sound = row["flac"].get_all_samples()
    assert sound.sample_rate == 16000
    pcm = decode_audio(stored[row["__key__"]]["flac"])
    np.testing.assert_allclose(sound.data.numpy()[0], pcm / 32768, atol=1e-4)
    assert row["9.jpg"].size == (224, 224)


def test_croissant_is_valid_and_its_records_are_the_samples(mixed, monkeypatch, tmp_path):
    # Read when mlcroissant is imported. It unpacks a tar once for all sets that have one of that
    # name, so that another set would need a process of its own.
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path))
    mlcroissant = pytest.importorskip("mlcroissant", reason="run `make test-ecosystem`")
    opened = mlcroissant.Dataset(str(mixed / "croissant.json"))  # raises where it is invalid
    info = read_dataset(mixed)
    classes = opened.records("classes")
    assert [(row["classes/mid"], row["classes/name"]) for row in classes] == list(info.labels)
    samples = {
        row["samples/key"].decode(): (row["samples/video_id"].decode(), row["samples/labels"])
        for row in opened.records("samples")
    }
    stored = in_tars(mixed)
    assert samples == {
        key: (members["json"]["video_id"], members["json"]["label_indices"])
        for key, members in stored.items()
    }
    audio = {row["audio/key"].decode(): row["audio/content"] for row in opened.records("audio")}
    assert audio == {key: members["flac"] for key, members in stored.items() if "flac" in members}
    frames = {
        (row["frames/key"].decode(), row["frames/number"]): np.asarray(row["frames/content"])
        for row in opened.records("frames")
    }
    assert len(frames) == 10 * len(stored)
    for (key, number), pixels in frames.items():
        np.testing.assert_array_equal(pixels, decode_jpeg(stored[key][f"{number}.jpg"]))


@pytest.mark.parametrize("kind", ["whole", "mixed"])
def test_energon_prepares_and_reads_it_and_it_stays_a_whole_set(kind, request, tmp_path):
    energon = pytest.importorskip("megatron.energon", reason="run `make test-ecosystem`")
    folder = tmp_path / "s"
    folder.mkdir()
    for path in request.getfixturevalue(kind).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    program = Path(sys.executable).with_name("energon")
    prepare = ("prepare", "--non-interactive", "--no-progress", "--split-parts", "train:shard-.*")
    subprocess.run(
        [program, *prepare, "--sample-type", "CrudeWebdataset", folder],
        check=True, capture_output=True,
    )  # fmt: skip

    @energon.stateless
    def cook(sample: Any) -> Any:
        return sample

    class AsStored(energon.DefaultTaskEncoder):
        cookers = [energon.Cooker(cook)]  # noqa: RUF012 - energon looks for a list
        decoder = None

    opened = energon.get_val_dataset(
        str(folder),
        split_part="train",
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        task_encoder=AsStored(),
    )
    found: Samples = {}
    for sample in energon.get_loader(opened):
        members = {name: value for name, value in sample.items() if not name.startswith("__")}
        key = sample["__key__"].rpartition("/")[2]
        found[key] = {**members, "json": json.loads(members["json"])}
    assert found == in_tars(folder)
    findings = verify(str(folder))
    assert not findings.damaged
    assert not findings.files
    assert not findings.strangers
