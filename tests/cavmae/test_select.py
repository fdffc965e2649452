"""`--select` uses the clips that a file names, and says which names it does not find."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from avprep.errors import UserError
from avprep.selection import write_selection
from cavmae.data import ShardSet, open_shards
from cavmae.evaluation.options import KnnOptions
from cavmae.options import ShardOptions
from cavmae.train.options import PretrainRun
from tests.cavmae.tiny_shards import write_tiny_shards


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_shards(tmp_path_factory.mktemp("select") / "shards")


@pytest.fixture
def ids(tiny) -> list[str]:
    shards = ShardSet.open(tiny.folder)
    return [shards.video_id(number) for number in range(len(shards))]


def test_the_clips_of_a_selection_are_used_and_counted(tiny, ids, tmp_path, caplog):
    path = tmp_path / "kept.csv"
    write_selection(path, [ids[30], ids[2], ids[5]])
    with caplog.at_level(logging.INFO, "cavmae"):
        shards = open_shards(tiny.folder, ShardOptions(select=path))
    assert [shards.video_id(number) for number in range(len(shards))] == [ids[2], ids[5], ids[30]]
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == f"{path}: names 3 of 40 clips of {tiny.folder}"


def test_ids_of_no_clip_are_a_warning_that_names_some(tiny, ids, tmp_path, caplog):
    path = tmp_path / "kept.csv"
    write_selection(path, [ids[0], *(f"gone{number}" for number in range(7))])
    shards = open_shards(tiny.folder, ShardOptions(select=path))
    assert len(shards) == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        "; 7 ids not in the shard set: gone0, gone1, gone2, gone3, gone4, …"
    )


def test_a_selection_combines_with_classes_and_splits(tiny, ids, tmp_path):
    path = tmp_path / "kept.csv"
    whole = ShardSet.open(tiny.folder)
    name = whole.labels[0][1]
    of_class = whole.select([name])
    wanted = of_class.video_id(0)
    others = [video_id for video_id in ids if 0 not in tiny.labels[video_id]]
    write_selection(path, [wanted, *others])
    options = ShardOptions(select=path, classes=(name,))
    shards = open_shards(tiny.folder, options)
    assert [shards.video_id(number) for number in range(len(shards))] == [wanted]
    write_selection(path, others)
    with pytest.raises(UserError, match="the selection holds no sample"):
        open_shards(tiny.folder, options)


def test_which_clips_are_selected_is_part_of_what_results_depend_on(tiny, ids, tmp_path):
    digests = set()
    for number, chosen in enumerate((ids[:3], ids[3:6], ids[:3][::-1])):
        path = tmp_path / f"{number}.csv"
        write_selection(path, chosen)
        digests.add(open_shards(tiny.folder, ShardOptions(select=path)).rows_sha256)
    assert len(digests) == 2
    assert "" not in digests
    assert ShardSet.open(tiny.folder).rows_sha256 == ""


@pytest.mark.parametrize("kind", [KnnOptions, PretrainRun])
def test_a_selection_of_validation_clips_needs_their_set(kind, tmp_path):
    required = {"checkpoint": tmp_path} if kind is KnnOptions else {"out": tmp_path}
    options = kind(shards="a", val_shards="b", val_select=tmp_path / "kept.csv", **required)
    with pytest.raises(UserError, match="--val-select chooses clips of --val-shards"):
        replace(options, val_shards=None)
