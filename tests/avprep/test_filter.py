"""A condition on the measures selects clips, measures nothing again and runs no code."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import avprep
from avprep.cli import group
from avprep.errors import UserError
from avprep.filtering import names_in
from avprep.options import FilterOptions, PoolOptions, SampleOptions, ShardSetOptions
from avprep.quality.measures import COLUMNS, MEASURES
from avprep.selection import read_selection
from avprep.shards.format import index_name, read_dataset, read_index, split_members
from avprep.shards.measured import measures_name, read_measured
from tests.media import Movie, make_movie, run_ffmpeg

ALONE = PoolOptions(1)
MOVING = ("cat/a", "cat/b", "dog/c")
STILL = ("dog/d", "dog/e")


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """Five clips in two classes and three shards; two of the dogs show a still picture."""
    folder = tmp_path_factory.mktemp("filter")
    for name in (*MOVING, *STILL):
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        movie = Movie(f"{name}.mkv", audio_seconds=1.0, frames=25)
        if name in MOVING:
            make_movie(folder / "videos", movie)
        else:
            source = "testsrc2=s=192x144:r=25,trim=end_frame=1,loop=loop=24:size=1"
            sound = "sine=f=300:d=1"
            inputs = ("-f", "lavfi", "-i", source, "-f", "lavfi", "-i", sound)
            run_ffmpeg(*inputs, *movie.video, *movie.audio, folder / "videos" / movie.name)
    manifest = avprep.make_folder_manifest(
        folder / "videos", avprep.ManifestOutput(out=folder / "m.json"), avprep.FolderOptions()
    )
    assert manifest.clips == 5
    options = ShardSetOptions(SampleOptions(), samples_per_shard=2)
    assert avprep.build_shards(folder / "m.json", str(folder / "s"), options=options).complete
    return folder / "s"


@pytest.fixture
def shards(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "shards"))


@pytest.fixture
def cli():
    """Run `avprep WORDS…`; returns what it printed."""

    def run(*words: object) -> str:
        done = CliRunner().invoke(group, [str(word) for word in words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    return run


def kept(shards: Path, where: str) -> set[str]:
    out = shards.parent / "kept.csv"
    avprep.filter_clips(str(shards), FilterOptions(where=where, out=out))
    return set(read_selection(out))


def test_measures_are_in_the_file_beside_the_index_and_in_the_sample(original):
    info = read_dataset(original)
    assert info.measures == COLUMNS
    for index, measures in read_measured(original, info):
        assert tuple(measures.columns) == tuple(sorted(COLUMNS))
        data = (original / index.name).read_bytes()
        for number, entry in enumerate(index.samples):
            members = split_members(data[entry.offset : entry.offset + entry.size], entry.key)
            facts = json.loads(bytes(members["json"]))
            assert facts["measures"] == {name: measures.columns[name][number] for name in COLUMNS}
            assert {type(facts["measures"][name]) for name in MEASURES} == {float}


def test_a_condition_selects_and_the_classes_losses_are_counted(shards):
    out = shards.parent / "new" / "kept.csv"
    options = FilterOptions(where="stillness < 0.98 and rms_db > -50", out=out)
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    found = avprep.filter_clips(str(shards), options)
    assert sorted(read_selection(out)) == ["a", "b", "c"]
    assert (found.clips, found.kept) == (5, 3)
    assert [(one.name, one.clips, one.kept) for one in found.classes] == [
        ("cat", 2, 2),
        ("dog", 3, 1),
    ]
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("stillness >= 0.98", "de"),
        ("not (stillness >= 0.98)", "abc"),
        ("video_id in ['a', 'd'] or video_id == 'e'", "ade"),
        ("0.9 < seconds < 1.1 and complete and audio and image", "abcde"),
        ("-rms_db * 2 - 1 > 0 & '' == split & rms_db < 0", "abcde"),
        ("(stillness >= 0.98) & ~(video_id == 'd')", "e"),
        ("stillness + 0.0 == 1 - 0 ", "de"),
    ],
)
def test_conditions_compare_combine_and_calculate(shards, where, ids):
    assert kept(shards, where) == set(ids)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("__import__('os').system('true')", "is not allowed. Compare columns, numbers"),
        ("rms_db.map(print)", "'rms_db.map(print)' is not allowed"),
        ("rms_db.values > 3", "'rms_db.values' is not allowed"),
        ("abs(rms_db) > 3", "'abs(rms_db)' is not allowed"),
        ("rms_db[0] > 3", "is not allowed"),
        ("rms_db ** 9 > 3", "is not allowed"),
        ("rms_db @ rms_db > 3", "is not allowed"),
        ("video_id * 3 == 'a' * 999999999", "\"'a'\" is not allowed"),
        ("[x for x in rms_db]", "is not allowed"),
        ("(lambda: 1)() > rms_db", "is not allowed"),
        ("rms_db > @limit", "cannot be read"),
        ("`rms_db` > 3", "cannot be read"),
        ("rms_db = 3", "cannot be read"),
        ("rms_db > 3; 1", "cannot be read"),
        ("", "cannot be read"),
        ("(" * 500 + "rms_db" + ")" * 500, "cannot be read"),
        ("1 < 2", "names no measure. Known names: rms_db, peak_db,"),
        ("loud > 3", "unknown name 'loud'. Known names: rms_db, peak_db, clipped, silent,"),
        ("rms > 3", "unknown name 'rms'. Did you mean rms_db? Known names: rms_db,"),
        ("__class__ == 1", "unknown name '__class__'."),
    ],
)
def test_anything_but_a_condition_is_refused(where, message):
    with pytest.raises(UserError) as caught:
        names_in(where)
    assert str(caught.value).startswith(f"--where {where!r}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("video_id > 3", "cannot be computed"),
        ("rms_db + 3", "is not a condition. Compare it with something"),
        ("rms_db > 1000", "none of its 5 clips meets 'rms_db > 1000'. Nothing is written."),
    ],
)
def test_a_condition_that_selects_nothing_is_an_error(shards, where, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        kept(shards, where)
    assert not (shards.parent / "kept.csv").exists()


def without_measures(shards: Path) -> None:
    """Make the set one of an older version."""
    for path in shards.glob("*.measures.json"):
        path.unlink()
    info = read_dataset(shards)
    avprep.shards.format.write_dataset(shards, replace(info, measures=()))


def test_a_set_without_measures_says_what_to_do_and_gets_them(shards):
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    without_measures(shards)
    with pytest.raises(UserError, match=r"built without measures\. Run `avprep measure"):
        kept(shards, "stillness < 0.98")
    assert not avprep.verify(str(shards), pool=ALONE).damaged
    done = avprep.measure(str(shards), ALONE)
    assert (done.found, done.measured, done.unreadable) == (0, 5, ())
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before


def test_measuring_does_what_is_missing_or_damaged_and_nothing_else(shards):
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    first, second, third = sorted(shards.glob("*.measures.json"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    untouched = third.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"measures\.json: missing.*run `avprep measure"):
        kept(shards, "stillness < 0.98")
    done = avprep.measure(str(shards), PoolOptions(2))
    assert (done.found, done.measured) == (1, 4)
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before
    assert third.stat().st_mtime_ns == untouched


def test_measures_of_another_build_are_not_taken(shards):
    names = [shard.name for shard in read_dataset(shards).shards[:2]]
    one, two = (shards / measures_name(name) for name in names)
    one.write_bytes(two.read_bytes())
    with pytest.raises(UserError, match="of another build than the shard"):
        kept(shards, "stillness < 0.98")
    (check,) = avprep.verify(str(shards), pool=ALONE).damaged
    assert check.name == names[0]


def test_a_clip_that_cannot_be_read_costs_no_other(shards):
    without_measures(shards)
    shard = read_dataset(shards).shards[0]
    assert (shards / index_name(shard.name)).exists()
    entry = read_index(shards, shard.name).samples[0]
    data = bytearray((shards / shard.name).read_bytes())
    data[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    (shards / shard.name).write_bytes(data)
    done = avprep.measure(str(shards), ALONE)
    assert done.unreadable == (entry.video_id,)
    assert entry.video_id not in kept(shards, "rms_db > -50 or stillness < 0.5")


def test_a_selection_makes_a_manifest_in_the_manifests_order(original, tmp_path, cli):
    manifest = original.parent / "m.json"
    (tmp_path / "kept.csv").write_text("video_id\ngone\nd\nb\n")
    said = cli("manifest", "select", manifest, tmp_path / "kept.csv", "--out", tmp_path / "k.json")
    assert said.splitlines() == [
        f"{tmp_path / 'k.json'}: 2 of 5 clips",
        f"{tmp_path / 'kept.csv'}: 1 id not in the manifest: gone",
    ]
    clips = avprep.read_manifest(tmp_path / "k.json")
    assert clips == [c for c in avprep.read_manifest(manifest) if c.video_id in ("b", "d")]
    classes = (tmp_path / "k.classes.csv").read_bytes()
    assert classes == (original.parent / "m.classes.csv").read_bytes()


def test_a_selection_of_other_data_makes_no_manifest(original, tmp_path):
    (tmp_path / "kept.csv").write_text("video_id\ngone\n")
    with pytest.raises(UserError, match=r"names none of the 5 clips of .*, but 'gone'"):
        avprep.select_manifest(
            original.parent / "m.json", tmp_path / "kept.csv", tmp_path / "k.json"
        )
    assert not (tmp_path / "k.json").exists()


def test_filter_says_what_each_class_loses(shards, tmp_path, cli):
    words = ("filter", shards, "--where", "stillness < 0.98", "--out", tmp_path / "kept.csv")
    assert cli(*words).splitlines() == [
        "dog: drops 2 of 3 (67%)",
        f"{tmp_path / 'kept.csv'}: keeps 3 of 5 clips, drops 2",
    ]
    facts = json.loads(cli(*words, "--json"))
    assert facts["classes"][1] == {"mid": "dog", "name": "dog", "clips": 3, "kept": 1}


def test_measure_says_what_it_did(shards, cli):
    without_measures(shards)
    assert cli("measure", shards, "--workers", 2) == (
        f"{shards}: 5 clips measured, 0 measured before\n"
    )
    assert json.loads(cli("measure", shards, "--json"))["found"] == 5
