"""Batches are what the plan says, whatever the workers do; what is damaged is left out by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from avprep.errors import UserError, WorkFailed
from avprep.shards.format import index_name, read_dataset, read_index, write_dataset
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.data.plan import plan_epoch, shuffled_order
from tests.cavmae.test_shardset import damage
from tests.cavmae.tiny_shards import SIZE, write_tiny_shards
from tests.faults.conftest import PATIENCE


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_shards(tmp_path_factory.mktemp("loader") / "shards")


@pytest.fixture
def fresh(tmp_path):
    return write_tiny_shards(tmp_path / "shards", samples=24, per_shard=6)


def loader(tiny, batch_size=8, workers=0, rank=0, world=1, **options):
    shards = ShardSet.open(tiny.folder)
    return ShardLoader(shards, LoaderOptions(batch_size, workers, **options), rank, world)


def content(batch):
    """Everything in a batch, comparable."""
    partners = batch.partners
    tensors = [batch.waveform, batch.lengths, batch.image, batch.labels, batch.index]
    if partners is not None:
        tensors += [
            *(partners.waveform, partners.lengths, partners.image, partners.labels),
            *(partners.rows, partners.share),
        ]
    return batch.video_ids, batch.planned, [tensor.tolist() for tensor in tensors]


def contents(batches):
    return [content(batch) for batch in batches]


def names(batches):
    return [video_id for batch in batches for video_id in batch.video_ids]


def colour(image):
    """float [..., 3]: the mean colour of channel-first pictures."""
    return image.float().mean(dim=(-2, -1)).numpy()


def test_every_row_of_a_batch_is_one_clip(tiny):
    shards = ShardSet.open(tiny.folder)
    plan = plan_epoch(shuffled_order(shards.shard_sizes, 0, 0), 40, 3, 0, 0)
    place = 0
    for batch in loader(tiny).epoch(0):
        assert batch.waveform.dtype == torch.int16
        assert batch.image.dtype == torch.uint8
        assert batch.image.is_contiguous()
        for row, video_id in enumerate(batch.video_ids):
            pcm, length = tiny.pcm[video_id], batch.lengths[row]
            np.testing.assert_array_equal(batch.waveform[row, :length], pcm)
            assert not batch.waveform[row, length:].any()
            assert tuple(batch.labels[row].nonzero()[:, 0].tolist()) == tiny.labels[video_id]
            expected = tiny.frames[video_id][plan.frame[place]]
            assert np.abs(colour(batch.image[row]) - expected).max() < 4
            assert shards.entry(int(batch.index[row])).video_id == video_id
            assert batch.index[row] == plan.index[place]
            place += 1
    assert place == 40


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(tiny, workers):
    alone, helped = loader(tiny, mixup=0.5), loader(tiny, workers=workers, mixup=0.5)
    for epoch in range(2):
        assert contents(helped.epoch(epoch)) == contents(alone.epoch(epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_at_every_boundary_as_if_it_had_not_stopped(tiny, workers):
    reader = loader(tiny, 7, workers, mixup=0.5)
    whole = contents(reader.epoch(3))
    for done in range(len(whole) + 1):
        start = sum(planned for _, planned, _ in whole[:done])
        assert contents(reader.epoch(3, start)) == whole[done:]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_was_left_in_the_middle_leaves_nothing_behind(tiny, workers):
    reader = loader(tiny, workers=workers)
    expected = contents(reader.epoch(1))
    left = reader.epoch(0)
    next(left)
    next(left)
    left.close()
    assert contents(reader.epoch(1)) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_that_are_kept_stay_as_they_are(tiny, workers):
    reader = loader(tiny, 2, workers)
    expected = contents(reader.epoch())
    kept = list(reader.epoch())  # more than share memory with the worker
    list(reader.epoch(1))
    assert contents(kept) == expected


def test_epochs_differ_in_order_and_frames(tiny):
    reader = loader(tiny, 40)
    (first,), (second,) = reader.epoch(0), reader.epoch(1)
    assert sorted(first.video_ids) == sorted(second.video_ids)
    assert first.video_ids != second.video_ids
    by_name = dict(zip(second.video_ids, second.image, strict=True))
    same = [torch.equal(by_name[v], image) for v, image in zip(first.video_ids, first.image)]  # noqa: B905
    assert 0.1 < np.mean(same) < 0.6  # one of three frames


@pytest.mark.parametrize(("frame", "number"), [("middle", 1), (0, 0), (2, 2)])
def test_the_frame_can_be_chosen(tiny, frame, number):
    for batch in loader(tiny, frame=frame).epoch():
        expected = np.stack([tiny.frames[video_id][number] for video_id in batch.video_ids])
        assert np.abs(colour(batch.image) - expected).max() < 4


def test_all_frames_come_in_their_order(tiny):
    for batch in loader(tiny, frame="all").epoch():
        assert batch.image.shape[1:] == (3, 3, SIZE, SIZE)
        expected = np.stack([tiny.frames[video_id] for video_id in batch.video_ids])
        assert np.abs(colour(batch.image) - expected).max() < 4


def test_partners_are_other_clips_with_everything_they_have(tiny):
    mixed = 0
    for batch in loader(tiny, mixup=0.7).epoch():
        partners = batch.partners
        mixed += len(partners.rows)
        assert ((partners.share > 0) & (partners.share < 1)).all()
        for row in range(len(partners.rows)):
            length = partners.lengths[row]
            pcm = partners.waveform[row, :length].tolist()
            (video_id,) = [v for v, whole in tiny.pcm.items() if whole.tolist() == pcm]
            assert tuple(partners.labels[row].nonzero()[:, 0].tolist()) == tiny.labels[video_id]
            distances = np.abs(colour(partners.image[row]) - tiny.frames[video_id]).max(axis=1)
            assert distances.min() < 4
    assert 15 < mixed <= 40


def test_a_balanced_epoch_evens_out_the_classes(tmp_path):
    many = write_tiny_shards(tmp_path / "shards", samples=60, per_shard=20)
    shards = ShardSet.open(many.folder)
    rare = [n for n in range(60) if shards.label_indices(n) != (0,) or n < 8]
    assert shards.class_counts == [15] * 4
    uneven = ShardSet(
        shards.location, shards.info, shards.options, shards.table, np.array(rare)
    )  # two clips of the first class
    assert uneven.class_counts == [2, 15, 15, 15]
    reader = ShardLoader(uneven, LoaderOptions(16, 0, balanced=True))
    counts = sum(batch.labels.sum(0) for epoch in range(12) for batch in reader.epoch(epoch))
    assert (counts / counts.sum() - 0.25).abs().max() < 0.07
    assert counts.sum() == 12 * len(uneven)


def test_evaluation_reads_every_clip_once_in_order(tiny):
    for world in (1, 2, 3, 7, 50):
        ranks = [
            names(loader(tiny, shuffle=False, rank=rank, world=world).epoch())
            for rank in range(world)
        ]
        assert sorted(video_id for rank in ranks for video_id in rank) == sorted(tiny.pcm)
        assert all(ranks[rank] == list(tiny.pcm)[rank::world] for rank in range(world))


def test_a_selection_is_loaded_like_a_set_of_its_own(tiny):
    cats = ShardSet.open(tiny.folder).select(classes=["Cat"])
    reader = ShardLoader(cats, LoaderOptions(4, 2, mixup=0.5))
    read = [batch for batch in reader.epoch()]  # noqa: C416
    assert sorted(names(read)) == sorted(f"clip.{n}" for n in range(2, 40, 4))
    assert all((batch.labels.argmax(1) == 2).all() for batch in read)
    assert all((b.partners.labels.argmax(1) == 2).all() for b in read if b.partners)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_is_left_out_and_named_once(fresh, workers):
    damage(ShardSet.open(fresh.folder), 9, "flac", lambda data: bytes(len(data)))
    reader = loader(fresh, 5, workers, max_bad_samples=1)
    for epoch in range(3):
        batches = list(reader.epoch(epoch))
        assert sorted(names(batches)) == sorted(set(fresh.pcm) - {"clip.9"})
        assert [batch.planned for batch in batches] == [5, 5, 5, 5, 4]
        for batch in batches:  # what is left keeps its labels and its place
            assert [fresh.labels[v] for v in batch.video_ids] == [
                tuple(row.nonzero()[:, 0].tolist()) for row in batch.labels
            ]
            assert len(batch) == len(batch.waveform) == len(batch.image) == len(batch.labels)
    assert [video_id for video_id, _ in reader.bad_samples] == ["clip.9"]
    assert "clip.9: audio" in reader.bad_samples[0][1]


def test_without_its_longest_clip_a_batch_is_as_wide_as_the_next(fresh):
    lost, *kept = sorted(fresh.pcm, key=lambda video_id: -len(fresh.pcm[video_id]))
    shards = ShardSet.open(fresh.folder)
    damage(shards, int(lost.removeprefix("clip.")), "flac", lambda data: bytes(len(data)))
    (batch,) = loader(fresh, 24, shuffle=False).epoch()
    assert batch.video_ids == [video_id for video_id in fresh.pcm if video_id != lost]
    assert batch.waveform.shape == (23, len(fresh.pcm[kept[0]]))
    for row, video_id in zip(batch.waveform, batch.video_ids, strict=True):
        padded = np.zeros(len(row), np.int16)
        padded[: len(fresh.pcm[video_id])] = fresh.pcm[video_id]
        np.testing.assert_array_equal(row, padded)


def test_an_index_that_does_not_say_how_long_clips_are_changes_nothing(fresh):
    expected = contents(loader(fresh, 5, mixup=0.5).epoch())
    for shard in read_dataset(fresh.folder).shards:
        index = read_index(fresh.folder, shard.name)
        old = tuple(replace(entry, sizes=(), num_samples=0) for entry in index.samples)
        path = fresh.folder / index_name(shard.name)
        path.write_bytes(replace(index, samples=old).to_bytes())
    assert contents(loader(fresh, 5, mixup=0.5).epoch()) == expected


def test_one_damaged_sample_too_many_ends_the_run_and_names_them(fresh):
    shards = ShardSet.open(fresh.folder)
    for number in (2, 9, 17):
        damage(shards, number, "0.jpg", lambda data: bytes(len(data)))
    reader = loader(fresh, 6, frame=0, max_bad_samples=2)
    with pytest.raises(WorkFailed) as caught:
        list(reader.epoch())
    text = str(caught.value)
    assert "3 samples could not be read, more than --max-bad-samples 2 allows" in text
    assert all(f"clip.{number}: frame 0" in text for number in (2, 9, 17))
    assert "avprep verify" in text


def test_a_missing_shard_names_the_shard(fresh):
    (fresh.folder / "shard-000002.tar").unlink()
    with pytest.raises(WorkFailed, match=r"shard-000002\.tar.*No such file"):
        list(loader(fresh, 4, workers=2, max_bad_samples=3).epoch())
    assert len(names(loader(fresh, 4, max_bad_samples=6).epoch())) == 18


def test_a_batch_without_a_good_sample_is_an_error(fresh):
    (fresh.folder / "shard-000000.tar").unlink()
    with pytest.raises(WorkFailed, match="a whole batch"):
        list(loader(fresh, 6, shuffle=False, max_bad_samples=100).epoch())


def test_a_clip_with_a_damaged_partner_stays_unmixed(fresh):
    reader = loader(fresh, 24, mixup=1.0, frame=0)
    (before,) = reader.epoch()
    damage(reader.shards, int(before.index[3]), "flac", lambda data: bytes(len(data)))
    (after,) = loader(fresh, 24, mixup=1.0, frame=0).epoch()
    assert len(after) == 23
    plan = plan_epoch(shuffled_order([6] * 4, 0, 0), 24, 3, 0, 0, 1.0)
    partner_of = dict(zip(plan.index.tolist(), plan.partner.tolist(), strict=True))
    lost = int(before.index[3])
    unmixed = [n for n in after.index.tolist() if partner_of[n] == lost]
    assert unmixed, "choose another seed: nobody drew the damaged clip"
    mixed = after.index[after.partners.rows].tolist()
    assert mixed == [n for n in after.index.tolist() if n not in unmixed]
    for row, number in enumerate(mixed):
        pcm = fresh.pcm[reader.shards.entry(partner_of[number]).video_id]
        length = after.partners.lengths[row]
        assert after.partners.waveform[row, :length].tolist() == pcm.tolist()


def test_a_killed_worker_is_a_clear_error_where_the_batch_is_awaited(tiny):
    reader = loader(tiny, 2, workers=2)
    batches = reader.epoch()
    next(batches)
    os.kill(reader._loader._iterator._workers[0].pid, signal.SIGKILL)
    time.sleep(0.3)  # a handler that raises anywhere would do so here
    with pytest.raises(WorkFailed, match=r"a loading process died .*use fewer --workers"):
        list(batches)


def test_workers_leave_sigterm_to_the_main_process_which_can_end_them(tiny):
    reader = loader(tiny, 2, workers=2)
    batches = reader.epoch()
    next(batches)
    workers = reader._loader._iterator._workers
    for worker in workers:  # what the shell sends comes from another process than the parent
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert sum(len(batch) for batch in batches) == len(reader.shards) - 2
    assert all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.terminate()
        worker.join(PATIENCE)
    assert not any(worker.is_alive() for worker in workers)


def test_workers_leave_ctrl_c_to_the_main_process(tiny):
    reader = loader(tiny, 2, workers=3)
    batches = reader.epoch()
    read = [next(batches)]
    for worker in reader._loader._iterator._workers:  # some may be starting still
        os.kill(worker.pid, signal.SIGINT)
    read += batches
    assert sorted(names(read)) == sorted(tiny.pcm)


AFTER_ANOTHER_LOADER = """
import gc, sys
from cavmae.data import LoaderOptions, ShardLoader, ShardSet

def epoch():
    loader = ShardLoader(ShardSet.open(sys.argv[1]), LoaderOptions(8, workers=1))
    loader.itself = loader  # so that it stays until the collector comes
    return len(list(loader.epoch()))

gc.disable()
first = epoch()
read_many = ShardSet.read_many

def read_after_collecting(*wanted):
    gc.collect()
    return read_many(*wanted)

ShardSet.read_many = read_after_collecting
assert epoch() == first
"""


def test_a_worker_does_not_clean_up_an_earlier_loader_of_the_main_process(tiny):
    command = [sys.executable, "-c", AFTER_ANOTHER_LOADER, str(tiny.folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_wishes_that_cannot_be_granted_are_told_at_once(tiny, tmp_path):
    with pytest.raises(UserError, match="frame 3: samples hold frames 0 to 2"):
        loader(tiny, frame=3)
    with pytest.raises(UserError, match="40 samples cannot feed 41 processes"):
        loader(tiny, world=41)
    bare = write_tiny_shards(tmp_path / "bare", samples=4)
    info = read_dataset(bare.folder)
    for shard in info.shards:
        index = read_index(bare.folder, shard.name)
        unlabelled = tuple(replace(entry, labels=()) for entry in index.samples)
        path = bare.folder / index_name(shard.name)
        path.write_bytes(replace(index, samples=unlabelled).to_bytes())
    write_dataset(bare.folder, replace(info, class_counts=(0,) * 4))
    with pytest.raises(UserError, match="no sample has a label"):
        loader(bare, balanced=True)


def test_moving_a_batch_keeps_all_of_it(tiny):
    (batch,) = loader(tiny, 40, mixup=0.5).epoch()
    assert content(batch.to(torch.device("cpu"))) == content(batch)
    assert batch.to(torch.device("meta")).partners.image.is_meta
