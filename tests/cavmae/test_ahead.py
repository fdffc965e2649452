"""What the host has ready for the device, and what it still has to look at."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from avprep.errors import WorkFailed
from cavmae.data import Batch, LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World
from cavmae.train.ahead import LaunchedStep, Share, StepFeed, agree
from tests.cavmae.test_train import pretrainer
from tests.cavmae.tiny_shards import write_tiny_shards

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


@pytest.fixture
def loader(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=10)
    return ShardLoader(ShardSet.open(tmp_path / "shards"), LoaderOptions(2, workers=0))


def test_a_feed_gives_the_batches_of_an_epoch_by_steps(loader):
    feed = StepFeed(loader.epoch(), 2, CPU)
    shares = [feed.read() for _ in range(4)]
    assert [len(share.batches) for share in shares] == [2, 2, 1, 0]
    found = [batch.index.tolist() for share in shares for batch in share.batches]
    assert found == [batch.index.tolist() for batch in loader.epoch()]
    assert not any(share.lost for share in shares)


def test_what_cannot_be_read_is_told_with_the_step_that_lacks_it(loader):
    def breaks() -> Iterator[Batch]:
        for number, batch in enumerate(loader.epoch()):
            if number == 3:
                raise WorkFailed("a loading process died")
            yield batch

    feed = StepFeed(breaks(), 2, CPU)
    assert feed.read().lost is None
    share = feed.read()
    assert len(share.batches) == 1
    assert str(share.lost) == "a loading process died"
    verdict = agree(
        ALONE, share, 2, is_stopped=False, is_due=True, has_failed=False, is_unsaved=False
    )
    assert verdict.sizes == [[2, 0]]
    assert (verdict.is_lost, verdict.is_stopped, verdict.is_due) == (True, False, True)
    nothing = agree(
        ALONE, Share([]), 2, is_stopped=False, is_due=False, has_failed=False, is_unsaved=False
    )
    assert (nothing.samples, nothing.is_lost) == (0, False)


@pytest.mark.parametrize(
    ("scale", "is_shown"),
    [(None, True), (2.0**16, False), (2.0**-16, True)],
    ids=["no scale", "the scale is being found", "the scale cannot be smaller"],
)
def test_gradients_too_large_for_fp16_count_only_once_the_scale_is_tiny(scale, is_shown):
    values = {"loss": torch.tensor(2.0), "grad_norm": torch.tensor(math.inf)}
    if scale is not None:
        values["scale"] = torch.tensor(scale)
    facts = LaunchedStep(1, [], values, 1e-4).facts()
    assert facts.keys() == {"loss", "lr"} | ({"grad_norm"} if is_shown else set())


def test_fp16_training_leaves_steps_out_until_its_scale_is_found(loader, tmp_path):
    trainer = pretrainer(tmp_path / "shards", tmp_path / "run", 5, precision="fp16", log_steps=1)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    before = trainer.model.norm.weight.detach().clone()
    trainer.run()
    inside = [row for row in trainer.position.rows if row["split"] == "epoch so far"]
    assert len(inside) == 10
    assert "grad_norm" not in inside[0]
    assert math.isfinite(inside[-1]["grad_norm"])
    assert not torch.equal(trainer.model.norm.weight, before)
