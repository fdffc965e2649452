"""A disk that fills up while a checkpoint is written costs that checkpoint alone."""

from __future__ import annotations

import re
import resource

import pytest
import torch

from avprep.errors import WorkFailed
from cavmae.distributed import World
from cavmae.train.checkpoint import list_checkpoints
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.cavmae.train_ranks import train

ALONE = World(0, 1, torch.device("cpu"))
MESSAGE = re.compile("File too large.* run the same command again")


@pytest.mark.parametrize("share", [0.99, 0.3])  # full in the optimiser's state, in the weights
def test_the_last_checkpoint_stays_whole_and_the_run_goes_on_from_it(tmp_path, share):
    shards = tmp_path / "shards"
    write_tiny_shards(shards, samples=10)
    expected = train("ddp", shards, tmp_path / "whole", ALONE)
    out = tmp_path / "full"
    train("ddp", shards, out, ALONE, epochs=1)
    (saved,) = list_checkpoints(out / "checkpoints")
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = int(share * len(before["state.pt"]))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        with pytest.raises(WorkFailed, match=MESSAGE):
            train("ddp", shards, out, ALONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert list((out / "checkpoints").iterdir()) == [saved]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    weights = train("ddp", shards, out, ALONE).model.state_dict()
    assert all(torch.equal(weights[n], w) for n, w in expected.model.state_dict().items())
