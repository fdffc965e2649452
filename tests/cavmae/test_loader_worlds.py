"""Real processes that train together: together they read every sample once, and none waits."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from tests.cavmae.tiny_shards import write_tiny_shards

SAMPLES, BATCH, DONE = 45, 4, 2  # DONE: steps before the run stops
WORLDS, WORKERS, EPOCHS = (1, 2, 3, 4), (0, 1, 2, 3), (0, 1)
GOES_ON = {1: 3, 2: 4, 3: 1, 4: 2}  # with so many ranks, and one worker more


def run_rank(rank, folder, rendezvous, out):
    """One of four processes; takes part in worlds of one to four of them."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=max(WORLDS),
        timeout=timedelta(minutes=10),
    )
    groups = {world: dist.new_group(list(range(world))) for world in WORLDS}
    found = {}
    for world, workers in itertools.product(WORLDS, WORKERS):
        if rank >= world:
            continue
        options = LoaderOptions(BATCH, workers, mixup=0.3)
        loader = ShardLoader(ShardSet.open(folder), options, rank, world)
        for epoch in EPOCHS:
            found[f"{world} {workers} {epoch}"] = read(loader.epoch(epoch), groups[world])
        start = DONE * BATCH * GOES_ON[world]
        found[f"{world} {workers} resumed"] = read(loader.epoch(1, start), groups[world])
    (out / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def read(batches, group):
    """The samples of each batch; every batch meets the other ranks' as a gradient would."""
    rows = []
    for batch in batches:
        ready = torch.tensor([1, len(batch), batch.planned])
        dist.all_reduce(ready, group=group)
        assert ready[0] == dist.get_world_size(group)
        assert ready[1] == batch.planned
        rows.append(batch.index.tolist())
    return rows


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank read: [rank]["world workers epoch"] → batches."""
    folder = tmp_path_factory.mktemp("worlds")
    write_tiny_shards(folder / "shards", samples=SAMPLES, lengths=(400, 500), frames=1)
    context = multiprocessing.get_context("fork")  # torch is imported already
    ranks = [
        context.Process(target=run_rank, args=(rank, folder / "shards", folder / "meet", folder))
        for rank in range(max(WORLDS))
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0] * max(WORLDS)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(max(WORLDS))]


def order(found, world, workers, run):
    """What a world read, in the order of the epoch."""
    steps = zip(*(found[rank][f"{world} {workers} {run}"] for rank in range(world)), strict=True)
    return [
        index
        for step in steps
        for column in itertools.zip_longest(*step)
        for index in column
        if index is not None
    ]


every_world = pytest.mark.parametrize(
    ("world", "workers"), list(itertools.product(WORLDS, WORKERS))
)


@every_world
def test_every_sample_is_read_once_an_epoch(found, world, workers):
    for epoch in EPOCHS:
        assert sorted(order(found, world, workers, epoch)) == list(range(SAMPLES))


@every_world
def test_every_rank_gets_as_many_batches(found, world, workers):
    for run in (*EPOCHS, "resumed"):
        batches = [len(found[rank][f"{world} {workers} {run}"]) for rank in range(world)]
        assert len(set(batches)) == 1
        sizes = {
            len(rows) for rank in range(world) for rows in found[rank][f"{world} {workers} {run}"]
        }
        assert min(sizes) >= 1


@every_world
def test_the_order_is_that_of_one_process(found, world, workers):
    for epoch in EPOCHS:
        assert order(found, world, workers, epoch) == order(found, 1, 0, epoch)


@every_world
def test_an_epoch_goes_on_in_a_world_of_another_size(found, world, workers):
    before = order(found, GOES_ON[world], 0, 1)[: DONE * BATCH * GOES_ON[world]]
    after = order(found, world, workers, "resumed")
    assert before + after == order(found, 1, 0, 1)
