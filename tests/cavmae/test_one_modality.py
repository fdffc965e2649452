"""Commands that use one modality read no byte of the other, and find the same without it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import cavmae
from avprep.shards.format import index_name, read_dataset, read_index, room
from cavmae.checkpoints import save_model
from cavmae.checkpoints.usage import labels_metadata
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.model import CAVMAEClassifier
from tests.cavmae.test_evaluation_api import CONFIG
from tests.cavmae.test_reader import serving
from tests.cavmae.tiny_shards import CLASSES, write_tiny_shards

MIDDLE = 1  # of three frames
AUDIO, FRAMES, MIDDLE_FRAME = slice(1, 2), slice(2, None), slice(2 + MIDDLE, 3 + MIDDLE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_shards(tmp_path_factory.mktemp("one") / "shards", samples=9, per_shard=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "classifier.safetensors"
    facts = {"criterion": "ce", "mode": "multimodal", "fbank_mean": "0", "fbank_std": "1"}
    save_model(path, CAVMAEClassifier(CONFIG, 4), {**facts, **labels_metadata(CLASSES)})
    return path


def bytes_of(folder, members):
    """What these members of all samples take in the shards."""
    shards = [read_index(folder, shard.name) for shard in read_dataset(folder).shards]
    entries = [entry for shard in shards for entry in shard.samples]
    return sum(room(size) for entry in entries for size in entry.sizes[members])


def evaluate(**options):
    cavmae.evaluate(cavmae.EvaluateOptions(workers=0, device="cpu", **options))


def knn(**options):
    cavmae.knn(cavmae.KnnOptions(workers=0, device="cpu", **options))


def embed(checkpoint, **options):
    out = checkpoint.with_name("features.npz")
    cavmae.embed(
        cavmae.EmbedOptions(checkpoint=checkpoint, out=out, workers=0, device="cpu", **options)
    )
    out.unlink()


def finetune(shards, checkpoint, mode):
    cavmae.finetune(
        cavmae.FinetuneRun(
            shards=shards,
            val_shards=shards,
            init=checkpoint,
            out=checkpoint.with_name(mode),
            mode=mode,
            mixup=0.0,
            balanced=False,
            epochs=1,
            batch_size=3,
            workers=0,
            device="cpu",
        )
    )


@pytest.mark.parametrize(
    ("command", "options", "members"),
    [
        (evaluate, {"mode": "audioonly"}, AUDIO),
        (evaluate, {"mode": "missingvideoonly"}, FRAMES),
        (evaluate, {"mode": "videoonly", "frames": "middle"}, MIDDLE_FRAME),
        (knn, {"modality": "audio"}, AUDIO),
        (knn, {"modality": "image"}, MIDDLE_FRAME),
        (embed, {"modality": "audio"}, AUDIO),
        (embed, {"modality": "image", "frames": "all"}, FRAMES),
    ],
)
def test_one_modality_reads_no_byte_of_the_other(tiny, checkpoint, command, options, members):
    with serving(tiny.folder) as server:
        command(shards=server.url, checkpoint=checkpoint, **options)
        sent = sum(size for name, size in server.requests if name.endswith(".tar"))
    assert sent == bytes_of(tiny.folder, members)


def test_finetuning_on_sound_reads_sound_alone(tiny, checkpoint):
    with serving(tiny.folder) as server:
        finetune(server.url, checkpoint, "audioonly")
        sent = sum(size for name, size in server.requests if name.endswith(".tar"))
    assert sent == 2 * bytes_of(tiny.folder, AUDIO)  # an epoch and its validation


def test_finetuning_on_frames_reads_no_sound(tiny, checkpoint):
    with serving(tiny.folder) as server:
        finetune(server.url, checkpoint, "videoonly")
        sent = sum(size for name, size in server.requests if name.endswith(".tar"))
    assert sent < bytes_of(tiny.folder, FRAMES)


def batches(folder, **options):
    loader = ShardLoader(ShardSet.open(folder), LoaderOptions(4, 0, **options))
    return list(loader.epoch(1))


@pytest.mark.parametrize("frame", ["random", "middle", "all"])
def test_what_is_read_of_a_modality_does_not_depend_on_the_other(tiny, frame):
    options = {"frame": frame, "mixup": 0.5}
    sound = batches(tiny.folder, modalities=("audio",), **options)
    frames = batches(tiny.folder, modalities=("image",), **options)
    for both, audio, image in zip(batches(tiny.folder, **options), sound, frames, strict=True):
        assert both.video_ids == audio.video_ids == image.video_ids
        assert torch.equal(both.waveform, audio.waveform)
        assert torch.equal(both.image, image.image)
        assert audio.image.shape[:2] == (len(both), 0)
        assert image.waveform.shape == (len(both), 0)


def test_an_index_without_sizes_is_read_as_a_whole_sample(tmp_path):
    tiny = write_tiny_shards(tmp_path / "shards", samples=9, per_shard=4)
    before = batches(tiny.folder, modalities=("audio",))
    for shard in read_dataset(tiny.folder).shards:
        index = read_index(tiny.folder, shard.name)
        old = tuple(replace(entry, sizes=(), num_samples=0) for entry in index.samples)
        path = tiny.folder / index_name(shard.name)
        path.write_bytes(replace(index, samples=old).to_bytes())
        assert b"sizes" not in path.read_bytes()
    for one, other in zip(before, batches(tiny.folder, modalities=("audio",)), strict=True):
        assert one.video_ids == other.video_ids
        assert torch.equal(one.waveform, other.waveform)
