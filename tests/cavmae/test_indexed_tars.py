"""Tars that other programs wrote are trained from exactly as our own shards are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import webdataset as wds

import avprep
import cavmae
from avprep.labels import write_label_csv
from avprep.options import IndexOptions
from cavmae import PretrainRun
from cavmae.checkpoints import save_model
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.data.sample import Wanted
from cavmae.model import CAVMAE
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same samples in our shards, and in tars of webdataset's ShardWriter that were indexed."""
    top = tmp_path_factory.mktemp("indexed")
    write_tiny_shards(top / "ours", samples=16, per_shard=7)
    ours = ShardSet.open(top / "ours")
    (top / "theirs").mkdir()
    with wds.ShardWriter(f"{top}/theirs/%02d.tar", maxcount=7, verbose=0) as writer:
        for number in range(len(ours)):
            members = ours.read(number).members
            writer.write({"__key__": f"{number:05d}", **{n: bytes(m) for n, m in members.items()}})
    write_label_csv(top / "classes.csv", ours.label_set)
    found = avprep.index_tars(
        [top / "theirs"],
        IndexOptions(labels="json:labels", id="json:video_id", classes=top / "classes.csv"),
    )
    assert (found.samples, found.shards, found.problems) == (16, 3, ())
    return top / "ours", top / "theirs"


@pytest.mark.parametrize("frame", ["random", "all"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_are_the_same(folders, frame, workers):
    def everything(folder: Path) -> list[list[torch.Tensor]]:
        options = LoaderOptions(batch_size=4, workers=workers, frame=frame, mixup=0.5)
        loader = ShardLoader(ShardSet.open(folder), options)
        return [
            [batch.index, batch.waveform, batch.lengths, batch.image, batch.labels]
            for epoch in range(2)
            for batch in loader.epoch(epoch)
        ]

    ours, theirs = map(everything, folders)
    assert len(ours) == len(theirs) == 8
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_only_what_is_wanted_is_read(folders):
    _, theirs = folders
    shards = ShardSet.open(theirs)
    entry = shards.entry(3)
    begin, size = entry.span(audio=False, frames=[1])
    assert size == entry.sizes[3] < entry.size
    (stored,) = shards.read_many([3], wanted=[Wanted(audio=False, frames=(1,))])
    assert list(stored.members) == ["1.jpg"]
    whole = shards.read(3)
    assert bytes(stored.members["1.jpg"]) == bytes(whole.members["1.jpg"])
    assert begin == entry.offset + entry.starts[3]
    assert json.loads(bytes(whole.members["json"]))["video_id"] == entry.video_id


def test_pretraining_takes_the_same_steps(folders, tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    losses = []
    for folder in folders:
        out = tmp_path / folder.name
        cavmae.pretrain(
            PretrainRun(
                shards=str(folder), out=out, init=tmp_path / "init.safetensors", workers=0,
                device="cpu", batch_size=4, epochs=2, log_steps=1,
            )
        )  # fmt: skip
        with (out / "log.csv").open() as file:
            losses.append([row["loss"] for row in csv.DictReader(file)])
    assert losses[0] == losses[1]
    assert len(losses[0]) >= 8
    findings = avprep.verify(str(folders[1]))
    assert not findings.damaged
    assert not findings.files
    assert not findings.strangers
