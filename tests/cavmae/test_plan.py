"""The plan: every sample once, every rank busy, the order a matter of seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavmae.data.plan import (
    balanced_order,
    plan_epoch,
    shuffled_order,
    step_count,
    steps,
)

counts = st.integers(1, 400)
batches = st.integers(1, 17)
worlds = st.integers(1, 9)


@given(counts, batches, worlds)
def test_every_place_is_read_exactly_once_where_there_is_one_for_each_rank(total, batch, world):
    planned = list(steps(total, batch, world))
    read = np.concatenate([step.places(r, world) for step in planned for r in range(world)])
    if total >= world:
        assert sorted(read) == list(range(total))
    else:
        assert set(read) == set(range(total))


@given(counts, batches, worlds)
def test_no_rank_is_ever_without_a_batch(total, batch, world):
    for step in steps(total, batch, world):
        sizes = [len(step.places(rank, world)) for rank in range(world)]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch + 1


@given(st.integers(0, 400), batches, worlds)
def test_steps_are_counted_without_being_made(total, batch, world):
    assert step_count(total, batch, world) == len(list(steps(total, batch, world)))


@given(counts, batches, worlds, st.data())
def test_a_run_goes_on_after_any_step_as_if_it_had_not_stopped(total, batch, world, data):
    planned = list(steps(total, batch, world))
    done = data.draw(st.integers(0, len(planned)))
    start = planned[done - 1].stop if done else 0
    assert list(steps(total, batch, world, start)) == planned[done:]


@given(counts, batches, worlds, batches, worlds, st.data())
def test_a_run_goes_on_with_other_ranks_and_batches_without_loss(
    total, batch, world, other_batch, other_world, data
):
    planned = list(steps(total, batch, world))
    start = planned[data.draw(st.integers(0, len(planned) - 1))].stop
    read = [
        place
        for step in steps(total, other_batch, other_world, start)
        for rank in range(other_world)
        for place in step.places(rank, other_world)
    ]
    assert set(read) == set(range(start, total))
    if total - start >= other_world:
        assert len(read) == total - start


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(sizes, st.integers(0, 9), st.integers(0, 9), st.integers(1, 14))
def test_an_order_holds_every_sample_once(shard_sizes, seed, epoch, window):
    order = shuffled_order(shard_sizes, seed, epoch, window)
    assert sorted(order) == list(range(sum(shard_sizes)))
    assert np.array_equal(order, shuffled_order(shard_sizes, seed, epoch, window))


@given(sizes, st.integers(1, 5))
def test_no_more_than_a_window_of_shards_is_in_use(shard_sizes, window):
    owner = np.repeat(np.arange(len(shard_sizes)), shard_sizes)
    order = owner[shuffled_order(shard_sizes, 0, 0, window)]
    last = {shard: place for place, shard in enumerate(order)}
    first = {shard: place for place, shard in reversed(list(enumerate(order)))}
    for place in range(len(order)):
        assert sum(first[s] <= place <= last[s] for s in first) <= window


def test_orders_differ_by_seed_and_by_epoch():
    orders = [
        tuple(shuffled_order([50] * 4, seed, epoch)) for seed in range(3) for epoch in range(3)
    ]
    assert len(set(orders)) == 9


def test_batches_mix_the_shards_as_a_full_shuffle_would():
    shards, samples, batch = 40, 100, 32
    owner = np.repeat(np.arange(shards), samples)
    for window, least in ((64, 0.97), (20, 0.70)):
        order = owner[shuffled_order([samples] * shards, 0, 0, window)]
        different = [
            len(set(order[start : start + batch])) for start in range(0, len(order) - batch, batch)
        ]
        full = shards * (1 - (1 - 1 / shards) ** batch)  # what a full shuffle gives on average
        assert np.mean(different) >= least * full


def test_neighbours_in_a_shard_are_not_neighbours_in_the_order():
    order = shuffled_order([100] * 10, 3, 1)
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.01


def test_two_epochs_put_the_same_samples_into_different_batches():
    together = []
    for epoch in range(2):
        order = shuffled_order([64] * 8, 0, epoch)
        rows = order.reshape(-1, 16)
        together.append({frozenset((a, b)) for row in rows for a in row for b in row if a < b})
    chance = 15 / 511
    shared = len(together[0] & together[1]) / len(together[0])
    assert shared < 2 * chance


def test_everything_random_depends_on_seed_and_epoch_and_the_place():
    order = shuffled_order([100] * 3, 5, 2)
    first, again = (plan_epoch(order, 300, 10, 5, 2, 0.5) for _ in range(2))
    other = plan_epoch(order, 300, 10, 5, 3, 0.5)
    for name in ("index", "frame", "partner", "partner_frame", "share"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    for name in ("frame", "partner", "partner_frame", "share"):
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_frames_partners_and_shares_are_distributed_as_published():
    count = 40000
    plan = plan_epoch(np.arange(count), count, 10, 0, 0, mixup=0.5)
    frames = np.bincount(plan.frame, minlength=10) / count
    assert np.abs(frames - 0.1).max() < 0.01
    mixed = plan.partner >= 0
    assert abs(mixed.mean() - 0.5) < 0.01
    quarters = np.bincount(plan.partner[mixed] * 4 // count, minlength=4) / mixed.sum()
    assert np.abs(quarters - 0.25).max() < 0.015
    # Beta(10, 10): mean 1/2, variance 1/84
    assert abs(plan.share.mean() - 0.5) < 0.005
    assert plan.share.var() == pytest.approx(1 / 84, rel=0.05)


def test_no_mixup_means_no_partner():
    assert (plan_epoch(np.arange(50), 50, 10, 0, 0).partner == -1).all()


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_a_balanced_epoch_draws_each_sample_as_often_as_its_weight_says(seed):
    weights = np.array([1.0] * 900 + [9.0] * 100)
    order = np.concatenate([balanced_order(weights, seed, epoch) for epoch in range(10)])
    assert len(order) == 10000
    assert abs((order >= 900).mean() - 0.5) < 0.03
    assert not np.array_equal(balanced_order(weights, seed, 0), balanced_order(weights, seed, 1))


def test_a_sample_without_weight_is_never_drawn():
    order = balanced_order(np.tile([0.0, 1.0, 0.0, 2.0], 500), 0, 0)
    assert len(order) == 2000
    assert (order % 2 == 1).all()


def test_the_plan_of_two_million_samples_fits_100_mb():
    order = shuffled_order([500] * 4000, 0, 0)
    plan = plan_epoch(order, len(order), 10, 0, 0, 0.5)
    assert len(plan) == 2_000_000
    assert sum(getattr(plan, name).nbytes for name in vars(plan)) < 100e6
