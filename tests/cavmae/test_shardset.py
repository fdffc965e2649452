"""A shard set is a list of samples; what is wrong with it is said, not passed on."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avprep.audio import decode_audio
from avprep.errors import Unreadable, UserError
from avprep.shards.format import read_dataset, read_index, weigh_classes
from cavmae.data import ShardSet
from cavmae.data.sample import DamagedSample, Wanted, decode_sample
from tests.cavmae.tiny_shards import SIZE, write_tiny_shards

WHOLE = 10**5


@pytest.fixture(scope="module", params=["flac", "wav"])
def tiny(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "shards"
    return write_tiny_shards(folder, audio=request.param)


def damage(shards, number, member, change):
    """Change the bytes of one member of a sample in place, keeping their number."""
    entry = shards.entry(number)
    table, row = shards.table, number
    path = Path(shards.location) / shards.info.shards[table.shard[row]].name
    content = bytearray(path.read_bytes())
    sample = bytes(content[entry.offset : entry.offset + entry.size])
    name = f"{entry.key}.{member}".encode()
    header = sample.index(name + b"\0")
    size = int(sample[header + 124 : header + 135], 8)
    start = entry.offset + header + 512
    changed = change(bytes(content[start : start + size]))
    assert len(changed) == size
    content[start : start + size] = changed
    path.write_bytes(content)


def test_every_sample_comes_back_as_it_was_stored(tiny):
    shards = ShardSet.open(tiny.folder)
    assert len(shards) == len(tiny.pcm) == 40
    for number, stored in enumerate(shards.read_many(range(40))):
        video_id = stored.entry.video_id
        decoded = decode_sample(stored, Wanted(True, (0, 2)), WHOLE, SIZE)
        np.testing.assert_array_equal(decoded.pcm, tiny.pcm[video_id])
        colours = decoded.image.mean(axis=(2, 3))
        assert np.abs(colours - tiny.frames[video_id][[0, 2]]).max() < 4
        assert shards.label_indices(number) == tiny.labels[video_id]
        assert shards.entry(number) == stored.entry


def test_the_table_says_what_the_indexes_say(tiny):
    shards = ShardSet.open(tiny.folder)
    entries = [
        entry
        for shard in read_dataset(tiny.folder).shards
        for entry in read_index(tiny.folder, shard.name).samples
    ]
    assert [shards.entry(number) for number in range(len(shards))] == entries


def test_long_audio_is_cut_while_reading(tiny):
    stored = ShardSet.open(tiny.folder).read(3)
    decoded = decode_sample(stored, Wanted(True, (0,)), 100, SIZE)
    np.testing.assert_array_equal(decoded.pcm, tiny.pcm[stored.entry.video_id][:100])


def test_names_beyond_ascii_and_members_of_any_number_come_back():
    from avprep.shards.format import SampleEntry, sample_key
    from cavmae.data.table import build_table

    names = ["--4gqARaEJE", "a.b c", "日本", "\udcff", "x" * 300]
    sizes = [(), (9, 0, 7), (9, 8), (9, 8, 7, 6), ()]
    entries = [
        SampleEntry(sample_key(n), n, 0, 1, (), "", sizes=s)
        for n, s in zip(names, sizes, strict=True)
    ]
    table = build_table([entries[:2], [], entries[2:]])
    assert [table.entry(row) for row in range(5)] == entries
    assert table.shard.tolist() == [0, 0, 2, 2, 2]


def test_a_copy_for_another_process_reads_the_same(tiny):
    shards = ShardSet.open(tiny.folder)
    before = shards.read(5).members["json"]
    assert pickle.loads(pickle.dumps(shards)).read(5).members["json"] == before


def test_a_class_can_be_selected_by_mid_or_by_name(tiny):
    shards = ShardSet.open(tiny.folder)
    by_mid, by_name = shards.select(classes=["/m/b"]), shards.select(classes=["Bell, big"])
    assert len(by_mid) == len(by_name) == 10
    assert {by_mid.label_indices(n) for n in range(10)} == {(1,)}
    assert by_mid.class_counts == [0, 10, 0, 0]
    assert by_mid.labels == shards.labels
    assert sum(by_mid.shard_sizes) == 10
    names = [sample.entry.video_id for sample in by_mid.read_many(range(10))]
    assert names == [f"clip.{n}" for n in range(1, 40, 4)]


def test_a_split_can_be_selected_and_selections_combine(tiny):
    shards = ShardSet.open(tiny.folder)
    test = shards.select(splits=["test"])
    assert len(test) == 8
    both = test.select(classes=["Ape"])
    assert [both.entry(n).video_id for n in range(len(both))] == ["clip.0", "clip.20"]


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"classes": ["Bell, bog"]}, "no class 'Bell, bog'. Did you mean 'Bell, big'?"),
        ({"splits": ["dev"]}, "no split 'dev'; its splits are test, train."),
        ({"classes": ["Ape"], "splits": []}, "holds no sample"),
    ],
)
def test_an_impossible_selection_says_why(tiny, selection, words):
    with pytest.raises(UserError, match=words):
        ShardSet.open(tiny.folder).select(**selection)


def test_sample_weights_are_the_sums_of_class_weights(tiny):
    shards = ShardSet.open(tiny.folder)
    weights = np.array(weigh_classes([1, 2, 3, 4]))
    expected = [sum(weights[label] for label in shards.label_indices(n)) for n in range(40)]
    np.testing.assert_allclose(shards.sample_weights(weights), expected)
    cats = shards.select(classes=["Cat"])
    np.testing.assert_allclose(cats.sample_weights(weights), [weights[2]] * 10)


def test_a_million_samples_are_some_hundred_megabytes():
    from avprep.shards.format import SampleEntry
    from cavmae.data.table import build_table

    sizes = (400, *[10_000] * 11)
    entries = [SampleEntry("", "0123456789a_30000", n, 1, (1, 2), sizes=sizes) for n in range(1000)]
    table = build_table([entries] * 20)
    held = sum(value.nbytes for value in vars(table).values() if isinstance(value, np.ndarray))
    assert (held + len(table.names)) / len(table) < 125


@pytest.fixture
def fresh(tmp_path):
    return write_tiny_shards(tmp_path / "shards", samples=12, per_shard=4)


def test_a_missing_shard_damages_its_samples_only(fresh):
    (fresh.folder / "shard-000001.tar").unlink()
    found = list(ShardSet.open(fresh.folder).read_many(range(12)))
    assert [isinstance(sample, Unreadable) for sample in found] == [4 <= n < 8 for n in range(12)]
    assert "clip.4 in " in str(found[4])
    assert "shard-000001.tar" in str(found[4])


def test_a_shard_that_was_cut_short_damages_what_is_gone(fresh):
    path = fresh.folder / "shard-000002.tar"
    path.write_bytes(path.read_bytes()[: ShardSet.open(fresh.folder).entry(10).offset + 100])
    found = list(ShardSet.open(fresh.folder).read_many(range(12)))
    assert [n for n in range(12) if isinstance(found[n], Unreadable)] == [10, 11]
    assert "cut short" in str(found[11])


def test_an_overwritten_header_is_noticed(fresh):
    path = fresh.folder / "shard-000000.tar"
    entry = ShardSet.open(fresh.folder).entry(1)
    content = bytearray(path.read_bytes())
    content[entry.offset : entry.offset + 512] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(
        DamagedSample, match=f"from byte {entry.offset} of the shard: damaged at byte 0"
    ):
        ShardSet.open(fresh.folder).read(1)


@pytest.mark.parametrize(
    ("member", "change", "words"),
    [
        ("flac", lambda b: bytes(len(b)), "clip.6: audio"),
        ("flac", lambda b: b[:200] + bytes(len(b) - 200), "clip.6: audio"),
        ("1.jpg", lambda b: bytes(len(b)), "frame 1 is missing or not a JPEG"),
        ("1.jpg", lambda b: b[: len(b) // 2] + bytes(len(b) - len(b) // 2), "frame 1 is missing"),
    ],
)
def test_damaged_bytes_are_an_error_and_never_a_sample(fresh, member, change, words):
    shards = ShardSet.open(fresh.folder)
    damage(shards, 6, member, change)
    with pytest.raises(DamagedSample, match=words):
        decode_sample(shards.read(6), Wanted(True, (1,)), WHOLE, SIZE)


@pytest.mark.parametrize("audio", ["flac", "wav"])
@pytest.mark.parametrize("longest", [1, WHOLE])
@pytest.mark.parametrize(("more", "words"), [(1, "ends after"), (-1, "has more than")])
def test_audio_of_another_length_than_the_index_says_is_an_error(
    tmp_path, more, words, longest, audio
):
    made = write_tiny_shards(tmp_path / "shards", samples=7, audio=audio)
    stored = ShardSet.open(made.folder).read(6)
    said = stored.entry.num_samples + more
    stored = replace(stored, entry=replace(stored.entry, num_samples=said))
    with pytest.raises(DamagedSample, match=f"clip.6: audio {words}.* {said} samples"):
        decode_sample(stored, Wanted(True, ()), max(longest, said), SIZE)


def test_a_frame_of_another_size_is_an_error(fresh):
    with pytest.raises(DamagedSample, match="frame 1 is 16x16, expected 32x32"):
        decode_sample(ShardSet.open(fresh.folder).read(6), Wanted(True, (1,)), WHOLE, 32)


def test_an_index_of_another_build_is_refused(fresh):
    index = read_index(fresh.folder, "shard-000001.tar")
    path = fresh.folder / "shard-000001.index.json"
    path.write_bytes(replace(index, sha256="another").to_bytes())
    with pytest.raises(UserError, match=r"disagree. Run `avprep shard` again"):
        ShardSet.open(fresh.folder).entry(0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.mp4", r"not a shard set \(no dataset\.json\)"),
        ("plan.json", "not a finished shard set"),
        ("a.tar", "1 .tar files but no dataset.json, so this is not a finished shard set"),
    ],
)
def test_a_folder_without_dataset_json_is_refused(tmp_path, name, message):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        ShardSet.open(tmp_path)


def test_audio_equals_what_avprep_reads(tiny):
    members = ShardSet.open(tiny.folder).read(0).members
    data = bytes(members.get("flac") or members["wav"])
    np.testing.assert_array_equal(decode_audio(data), tiny.pcm["clip.0"])
