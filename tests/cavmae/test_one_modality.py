"""Commands that use one modality read no byte of the other, and find the same without it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import cavmae
from avprep.errors import UserError
from avprep.shards.format import index_name, read_dataset, read_index, room, write_dataset
from avprep.wording import counted
from cavmae.checkpoints import save_model
from cavmae.checkpoints.usage import labels_metadata
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.events import Normalisation, Note
from tests.cavmae.test_reader import serving
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import CLASSES, SIZE, write_tiny_shards

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
    save_model(path, CAVMAEClassifier(TINY, 4), {**facts, **labels_metadata(CLASSES)})
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


def finetune_options(shards, checkpoint, out, mode):
    return cavmae.FinetuneRun(
        shards=shards,
        val_shards=shards,
        init=checkpoint,
        out=out,
        mode=mode,
        mixup=0.0,
        balanced=False,
        epochs=1,
        batch_size=3,
        workers=0,
        device="cpu",
    )


def finetune(shards, checkpoint, mode):
    """Whether it said how sound is normalised."""
    events = []
    options = finetune_options(shards, checkpoint, checkpoint.with_name(mode), mode)
    cavmae.finetune(options, events.append)
    return any(isinstance(event, Normalisation) for event in events)


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
        assert finetune(server.url, checkpoint, "audioonly"), "says how sound is normalised"
        sent = sum(size for name, size in server.requests if name.endswith(".tar"))
    assert sent == 2 * bytes_of(tiny.folder, AUDIO)  # an epoch and its validation


def test_finetuning_on_frames_reads_no_sound(tiny, checkpoint):
    with serving(tiny.folder) as server:
        assert not finetune(server.url, checkpoint, "videoonly"), "speaks of sound"
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


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Clip 0 lacks its frames and clips 2 and 5 their sound, of nine."""
    folder = tmp_path_factory.mktemp("mixed") / "shards"
    lacking = {0: "image", 2: "audio", 5: "audio"}
    return write_tiny_shards(folder, samples=9, per_shard=4, lacking=lacking)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "pretrained.safetensors"
    save_model(path, CAVMAE(TINY), {"norm_pix_loss": "1", "fbank_mean": "0", "fbank_std": "1"})
    return path


HOW_MANY = {"audioonly": 7, "videoonly": 8, "multimodal": 6}
ON_CPU = {"workers": 0, "device": "cpu"}


@pytest.mark.parametrize("mode", HOW_MANY)
def test_a_mode_is_evaluated_on_the_clips_that_have_what_it_takes(mixed, checkpoint, mode):
    result = cavmae.evaluate(
        cavmae.EvaluateOptions(shards=str(mixed.folder), checkpoint=checkpoint, mode=mode, **ON_CPU)
    )
    assert (result.clips, result.clips_lacking) == (HOW_MANY[mode], 9 - HOW_MANY[mode])
    assert result.clips_unreadable == 0


@pytest.mark.parametrize("mode", HOW_MANY)
def test_finetuning_takes_the_clips_that_fit_and_says_how_many_do_not(
    mixed, checkpoint, tmp_path, mode
):
    heard = []
    result = cavmae.finetune(
        finetune_options(str(mixed.folder), checkpoint, tmp_path, mode), heard.append
    )
    assert result.samples_per_epoch == HOW_MANY[mode]
    assert not result.unreadable
    notes = [event.text for event in heard if isinstance(event, Note)]
    left_out = 9 - HOW_MANY[mode]
    assert sum(f"{counted(left_out, 'clip')} left out" in note for note in notes) == 2


def test_pretraining_takes_the_clips_that_have_both(mixed, pretrained, tmp_path):
    options = cavmae.PretrainRun(
        shards=str(mixed.folder), val_shards=str(mixed.folder), init=pretrained, out=tmp_path,
        epochs=1, batch_size=3, **ON_CPU,
    )  # fmt: skip
    result = cavmae.pretrain(options)
    assert result.samples_per_epoch == 6
    assert not result.unreadable


def test_pretraining_on_one_modality_takes_the_clips_that_have_it(mixed, tmp_path):
    options = cavmae.PretrainRun(
        shards=str(mixed.folder), objective="audio-mae", model="tiny", audio_frames=32,
        out=tmp_path, epochs=1, batch_size=4, **ON_CPU,
    )  # fmt: skip
    result = cavmae.pretrain(options)
    assert result.samples_per_epoch == 7
    assert not result.unreadable


def test_other_commands_leave_out_what_lacks_something(mixed, pretrained, tmp_path):
    given = {"shards": str(mixed.folder), "checkpoint": pretrained}
    retrieved = cavmae.retrieve(cavmae.RetrieveOptions(**given, **ON_CPU, out=tmp_path / "page"))
    assert (retrieved.clips, retrieved.clips_lacking) == (6, 3)
    drawn = cavmae.inpaint(
        cavmae.InpaintOptions(**given, device="cpu", clips=9, out=tmp_path / "drawn")
    )
    assert (len(drawn.clips), drawn.clips_lacking) == (6, 3)
    near = cavmae.knn(cavmae.KnnOptions(**given, **ON_CPU, modality="image"))
    assert (near.clips, near.clips_lacking) == (8, 1)
    stored = cavmae.embed(
        cavmae.EmbedOptions(**given, **ON_CPU, modality="audio", out=tmp_path / "f.npz")
    )
    assert (stored.clips, stored.clips_lacking) == (7, 2)
    assert cavmae.stats(mixed.folder, cavmae.StatsOptions(workers=0)).samples == 7


def test_nothing_left_is_one_clear_error(tmp_path, checkpoint):
    lacking = dict.fromkeys(range(5), "image")
    tiny = write_tiny_shards(tmp_path / "s", samples=5, lacking=lacking)
    with pytest.raises(UserError, match="none of its 5 samples has audio and frames"):
        cavmae.evaluate(
            cavmae.EvaluateOptions(shards=str(tiny.folder), checkpoint=checkpoint, **ON_CPU)
        )


def test_a_single_frame_stands_for_all_of_them(tmp_path):
    tiny = write_tiny_shards(tmp_path / "s", samples=4, frames=1)
    info = read_dataset(tiny.folder)
    write_dataset(tiny.folder, replace(info, options={**info.options, "frames": 10}))
    for frame in ("random", "middle", 9, "all"):
        for batch in batches(tiny.folder, frame=frame):
            pictures = batch.image.view(len(batch), -1, 3, SIZE, SIZE)
            assert pictures.shape[1] == (10 if frame == "all" else 1)
            assert torch.equal(pictures, pictures[:, :1].expand_as(pictures))
            assert not batch.unreadable
