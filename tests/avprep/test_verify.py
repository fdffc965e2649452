"""`avprep verify` finds any damage, blames the right file, and `avprep shard` mends just that."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avprep.cli.verify import describe
from avprep.clips import Clip
from avprep.errors import UserError
from avprep.jobs import PoolOptions
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set
from avprep.shards.format import (
    read_dataset,
    read_index,
    split_members,
    update_dataset,
    weigh_classes,
    write_dataset,
)
from avprep.shards.measured import measures_name, read_measures
from avprep.shards.seal import is_sealed, sealed
from avprep.shards.verify import discard_damaged, verify_shard_set
from tests.conftest import contents, run

ALONE = PoolOptions(1)


@pytest.fixture(scope="module")
def manifest(demo_videos):
    """18 clips, two of them broken and one listed twice, and 7 without a file."""
    clips, labels = folder_manifest(demo_videos / "train")
    return [
        *clips,
        clips[0],
        *(Clip(f"gone {n}", video=f"/gone/{n}.mp4") for n in range(7)),
    ], labels


@pytest.fixture(scope="module")
def build(manifest):
    def run(out):
        options = ShardSetOptions(SampleOptions(), IsolationOptions(), 3, seed=5)
        return build_shard_set(*manifest, str(out), options, ALONE)

    return run


@pytest.fixture(scope="module")
def original(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("verify") / "set"
    assert build(out).complete
    return out


@pytest.fixture(scope="module")
def shards(original):
    """A copy to damage; every test leaves it as it was."""
    copy = original.with_name("copy")
    shutil.copytree(original, copy)
    return copy


@pytest.fixture
def fresh(original, tmp_path):
    """A copy of this test's own."""
    return shutil.copytree(original, tmp_path / "set")


def verify(folder, deep=False):
    return verify_shard_set(str(folder), deep, ALONE)


def blamed(findings) -> list[str]:
    return [*(check.name for check in findings.damaged), *findings.files]


def tar_name(name: str) -> str:
    """The shard that is blamed for a damaged file of this name; the file itself if none is."""
    return name.replace(".index.json", ".tar").replace(".measures.json", ".tar")


def places(folder: Path) -> list[tuple[str, str, int, int]]:
    """What each byte of a shard set is: (kind, file, first byte, byte after the last)."""
    found = []
    info = read_dataset(folder)
    for shard in info.shards:
        data = (folder / shard.name).read_bytes()
        end = 0
        for entry in read_index(folder, shard.name).samples:
            end = entry.offset + entry.size
            start = entry.offset
            for name, member in split_members(data[start:end], entry.key).items():
                kind = name.rpartition(".")[2]
                found.append(("tar header", shard.name, start, start + 512))
                found.append((kind, shard.name, start + 512, start + 512 + len(member)))
                start += 512 + -(-len(member) // 512) * 512
        found.append(("end of tar", shard.name, end, len(data)))
    for path in sorted(folder.iterdir()):
        if path.suffix != ".tar":
            kinds = [kind for kind in ("index", "measures") if f".{kind}." in path.name]
            kind = kinds[0] if kinds else path.name
            found.append((kind, path.name, 0, path.stat().st_size))
    return found


KINDS = ["tar header", "json", "flac", "jpg", "end of tar"]
KINDS += ["index", "measures", "dataset.json", "failures.csv", "plan.json"]
KINDS += ["README.md", "croissant.json", "wids-meta.json"]


def test_the_shard_set_has_every_kind_of_file(original):
    info = read_dataset(original)
    assert {kind for kind, *_ in places(original)} == set(KINDS)
    assert info.failures == {"duplicate-id": 1, "garbage": 1, "missing": 7, "truncated": 1}
    empty = [name for name in info.files if name.endswith(".index.json")]
    assert empty, "no shard holds failures alone: choose another seed"
    findings = verify(original, deep=True)
    assert (blamed(findings), findings.strangers) == ([], ())
    assert findings.samples == 16


DEEP = st.sampled_from([False, False, False, True])  # decoding takes most of the time


@settings(max_examples=200, deadline=None)
@given(data=st.data(), deep=DEEP)
def test_any_flipped_bit_is_found_and_the_right_file_blamed(shards, data, deep):
    kind = data.draw(st.sampled_from(KINDS))
    _, name, start, end = data.draw(st.sampled_from([p for p in places(shards) if p[0] == kind]))
    place, bit = data.draw(st.integers(start, end - 1)), data.draw(st.integers(0, 7))
    path = shards / name
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        empty = read_dataset(shards).files if name != "dataset.json" else ()
        expected = name if name in empty else tar_name(name)
        findings = verify(shards, deep)
        assert blamed(findings) == [expected]
        assert describe(findings, "here").startswith(f"{expected}: ")
    finally:
        path.write_bytes(whole)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), deep=DEEP)
def test_any_cut_file_is_found_and_the_right_one_blamed(shards, data, deep):
    path = data.draw(st.sampled_from(sorted(shards.iterdir())))
    whole = path.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1) | st.just(len(whole) - 1))
    files = read_dataset(shards).files
    os.truncate(path, length)
    try:
        expected = path.name if path.name in files else tar_name(path.name)
        assert blamed(verify(shards, deep)) == [expected]
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_discard_and_shard_mend_just_what_is_damaged(build, original, fresh, kind):
    update_dataset(fresh, fbank={"mean": -4.0, "std": 4.0, "samples": 16, "target_length": 1024})
    before = contents(fresh)
    _, name, start, end = next(place for place in places(fresh) if place[0] == kind)
    damaged = bytearray(before[name])
    damaged[(start + end) // 2] ^= 16
    (fresh / name).write_bytes(damaged)
    untouched = {path: path.stat().st_mtime_ns for path in fresh.glob("*.tar")}
    discard_damaged(str(fresh), verify(fresh))
    report = build(fresh)
    assert report.built == (0 if name == kind else 1)  # files of the whole set have their own kind
    if name == "dataset.json":  # what `cavmae stats` measured went with it
        assert contents(fresh) == contents(original)
    else:
        assert contents(fresh) == before
    again = {path for path, time in untouched.items() if path.stat().st_mtime_ns != time}
    assert {path.name for path in again} == ({tar_name(name)} if report.built else set())
    assert blamed(verify(fresh, deep=True)) == []


def test_a_set_behind_a_url_is_checked_and_mended_too(build, original):
    store = fsspec.filesystem("memory")
    folder = "memory://verified"
    for path in original.iterdir():
        store.pipe_file(f"/verified/{path.name}", path.read_bytes())
    assert blamed(verify(folder, deep=True)) == []
    name = read_dataset(folder).shards[2].name
    damaged = bytearray((original / name).read_bytes())
    damaged[9000] ^= 4
    store.pipe_file(f"/verified/{name}", bytes(damaged))
    findings = verify(folder)
    assert blamed(findings) == [name]
    discard_damaged(folder, findings)
    assert build(folder).built == 1
    kept = {path.rsplit("/", 1)[1]: store.cat_file(path) for path in store.ls("/verified", False)}
    assert kept == contents(original)


def test_a_missing_file_of_any_kind_is_named(shards):
    for path in sorted(shards.iterdir()):
        if path.name == "dataset.json":
            continue
        whole = path.read_bytes()
        path.unlink()
        findings = verify(shards)
        path.write_bytes(whole)
        expected = path.name if path.name in read_dataset(shards).files else tar_name(path.name)
        assert blamed(findings) == [expected]
        assert "missing" in describe(findings, "here")


def test_a_renamed_shard_is_missing_in_one_place_and_a_stranger_in_the_other(fresh):
    first = read_dataset(fresh).shards[0].name
    (fresh / first).rename(fresh / "shard-000099.tar")
    findings = verify(fresh)
    assert blamed(findings) == [first]
    assert findings.strangers == ("shard-000099.tar",)


def test_two_shards_with_exchanged_names_are_both_named(fresh):
    one, two = (fresh / shard.name for shard in read_dataset(fresh).shards[:2])
    one.rename(fresh / "x")
    two.rename(one)
    (fresh / "x").rename(two)
    assert blamed(verify(fresh)) == [one.name, two.name]


def test_exchanged_shards_with_their_indexes_are_both_named(fresh):
    names = [shard.name for shard in read_dataset(fresh).shards[:2]]
    for suffix in (".tar", ".index.json"):
        one, two = (fresh / name.replace(".tar", suffix) for name in names)
        one.rename(fresh / "x")
        two.rename(one)
        (fresh / "x").rename(two)
    assert blamed(verify(fresh)) == names


def test_foreign_shards_are_strangers_and_other_files_are_nobodys_business(fresh):
    (fresh / "shard-000099.tar").write_bytes(b"x")
    (fresh / "shard-000099.index.json").write_bytes(b"{}")
    (fresh / "notes.txt").write_text("hello")
    findings = verify(fresh)
    assert blamed(findings) == []
    assert findings.strangers == ("shard-000099.index.json", "shard-000099.tar")
    result = command(fresh)
    assert result.returncode == 1
    assert "Move it away" in result.stderr


def reseal(folder: Path, change) -> str:
    """Change a shard's bytes and everything that vouches for them, as if it was built so."""
    info = read_dataset(folder)
    shard = info.shards[0]
    index = read_index(folder, shard.name)
    data = bytearray((folder / shard.name).read_bytes())
    change(data, index.samples[0])
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / shard.name).write_bytes(data)
    path = folder / shard.name.replace(".tar", ".index.json")
    path.write_bytes(replace(index, sha256=sha256).to_bytes())
    measures = replace(read_measures(folder, index), sha256=sha256)
    (folder / measures_name(shard.name)).write_bytes(measures.to_bytes())
    shards = (replace(shard, sha256=sha256), *info.shards[1:])
    write_dataset(folder, replace(info, shards=shards))
    return index.samples[0].video_id


@pytest.mark.parametrize("member", ["flac", "0.jpg", "9.jpg"])
def test_deep_finds_media_that_was_never_right(fresh, member):
    def spoil(data, entry):
        view = split_members(bytes(data[entry.offset : entry.offset + entry.size]), entry.key)
        start = data.index(bytes(view[member]), entry.offset)
        middle = start + len(view[member]) // 2
        data[middle : start + len(view[member])] = bytes(len(view[member]) - middle + start)

    video_id = reseal(fresh, spoil)
    assert blamed(verify(fresh)) == []
    (check,) = verify(fresh, deep=True).damaged
    assert len(check.problems) == 1
    assert check.problems[0].startswith(f"{video_id}: {'audio' if member == 'flac' else member}")


def test_a_sample_that_is_not_what_the_index_says_is_found_without_deep(fresh):
    def rename(data, entry):
        start = data.index(b'"video_id": "', entry.offset) + 13
        data[start] ^= 1

    video_id = reseal(fresh, rename)
    (check,) = verify(fresh).damaged
    assert check.problems == (f"{video_id}: its JSON and the index disagree",)


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples", 17), ("clips", 25), ("seconds", 1.0), ("class_counts", (1,) * 8)],
)
def test_totals_that_are_not_the_sums_are_found(fresh, field, value):
    write_dataset(fresh, replace(read_dataset(fresh), **{field: value}))
    findings = verify(fresh)
    assert blamed(findings) == ["dataset.json"]
    assert f"says {field}" in findings.files["dataset.json"][0]


def test_class_counts_stand_in_dataset_json_from_sharding(original):
    counts = Counter()
    for path in original.glob("*.tar"):
        shard = json.loads(path.with_suffix(".index.json").read_text())
        data = path.read_bytes()
        for entry in shard["samples"]:
            start = entry["offset"] + 512  # the JSON is the first member
            facts, _ = json.JSONDecoder().raw_decode(data[start : start + 4096].decode("latin-1"))
            counts.update(facts["labels"])
    info = json.loads((original / "dataset.json").read_text())
    mids = [label["mid"] for label in info["labels"]]
    assert dict(zip(mids, info["class_counts"], strict=True)) == counts
    assert sum(counts.values()) == 16


def test_measured_statistics_survive_another_run_and_fall_with_other_samples(
    build, fresh, manifest
):
    stats = {"mean": -4.0, "std": 4.0, "samples": 16, "target_length": 1024}
    update_dataset(fresh, fbank=stats)
    build(fresh)
    assert read_dataset(fresh).extra == {"fbank": stats}
    info = read_dataset(fresh)
    write_dataset(fresh, replace(info, shards=info.shards[1:]))  # as of an earlier, smaller set
    build(fresh)
    assert read_dataset(fresh).extra == {}
    assert read_dataset(fresh).shards == info.shards


def test_what_is_added_to_a_damaged_dataset_json_gives_it_no_fresh_digest(fresh):
    path = fresh / "dataset.json"
    damaged = path.read_bytes().replace(b'"sample_rate": 16000', b'"sample_rate": 16001')
    damaged = damaged.replace(b'"seconds": ', b'"seconds": 9')
    path.write_bytes(damaged)
    for change in (read_dataset, lambda folder: update_dataset(folder, weights={"classes": []})):
        with pytest.raises(UserError, match=r"dataset\.json: .* has changed since .*--discard"):
            change(fresh)
    assert path.read_bytes() == damaged


OUTSIDE = ["", ".", "..", "../victim.txt", "/etc/hosts", "sub/victim.txt", "..\\victim.txt", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("place", ["shards", "files"])
def test_a_shard_set_that_names_a_file_outside_of_its_folder_is_refused(fresh, place, name):
    info = read_dataset(fresh)
    if place == "files":
        write_dataset(fresh, replace(info, files={**info.files, name: "00"}))
    else:
        stranger = replace(info.shards[0], name=name)
        write_dataset(fresh, replace(info, shards=(*info.shards, stranger)))
    with pytest.raises(
        UserError, match=r"dataset\.json: names .* not the name of a file beside it"
    ):
        read_dataset(fresh)


def test_endless_nesting_is_damage_in_any_file(fresh):
    for name in ("plan.json", "shard-000000.index.json", "shard-000000.measures.json"):
        whole = (fresh / name).read_bytes()
        (fresh / name).write_bytes(b"[" * 100_000)
        assert blamed(verify(fresh)), name
        (fresh / name).write_bytes(whole)
    (fresh / "dataset.json").write_bytes(b"[" * 100_000)
    with pytest.raises(UserError, match=r"not a dataset\.json of this format"):
        read_dataset(fresh)


def test_discarding_deletes_nothing_outside_of_the_shard_set(fresh, tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("of somebody else")
    info = read_dataset(fresh)
    write_dataset(fresh, replace(info, files={**info.files, "../victim.txt": "00"}))
    result = command(fresh, "--discard")
    assert result.returncode == 2
    assert f"{fresh}/dataset.json: names '../victim.txt'" in result.stderr
    assert victim.read_text() == "of somebody else"


@given(st.dictionaries(st.text(), st.integers() | st.text(), min_size=1))
def test_a_sealed_document_is_the_document_with_a_digest(document):
    data = sealed(document)
    assert is_sealed(data)
    parsed = json.loads(data)
    assert len(parsed.pop("digest")) == 64
    assert parsed == {key: value for key, value in document.items() if key != "digest"}
    for change in (data[:-1], data + b" ", data.replace(b"digest", b"digesT"), b"{}", b""):
        assert not is_sealed(change)


NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
SEALED = st.dictionaries(
    st.text(), st.recursive(NUMBERS | st.text() | st.booleans() | st.none(), st.lists), min_size=1
)


@given(SEALED, st.booleans(), st.sampled_from([None, 2]), st.booleans())
def test_another_layout_of_a_sealed_document_is_as_good(document, ascii_only, indent, sort):
    assert is_sealed(sealed(document, indent))
    laid_out = with_short_numbers(json.loads(sealed(document)))
    text = json.dumps(laid_out, ensure_ascii=ascii_only, indent=indent, sort_keys=sort)
    assert is_sealed(f"{text}\n".encode())
    key = next(iter(document))
    for other in ({**laid_out, key: [document[key]]}, {**laid_out, f"{key}?": 0}):
        assert not is_sealed(f"{json.dumps(other)}\n".encode())


def with_short_numbers(value):
    """5.0 as 5, as jq 1.6 writes it."""
    if isinstance(value, dict):
        return {key: with_short_numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_short_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_a_set_whose_json_was_laid_out_in_another_way_is_whole(build, original, fresh):
    for path in [*fresh.glob("*.index.json"), fresh / "dataset.json"]:
        text = json.dumps(with_short_numbers(json.loads(path.read_bytes())), indent=2)
        path.write_text(text + "\n")
    assert read_dataset(fresh) == read_dataset(original)
    findings = verify(fresh, deep=True)
    assert (blamed(findings), findings.strangers) == ([], ())
    assert build(fresh).built == 0


def test_a_set_survives_jq(fresh):
    if not shutil.which("jq"):
        pytest.skip("needs jq: apt-get install jq")
    update_dataset(fresh, weights={"classes": weigh_classes(range(500))})
    for path in [*fresh.glob("*.index.json"), fresh / "dataset.json"]:
        done = subprocess.run(["jq", "-S", ".", str(path)], capture_output=True, check=True)
        assert done.stdout != path.read_bytes()
        path.write_bytes(done.stdout)
    assert blamed(verify(fresh)) == []
    path.write_bytes(path.read_bytes().replace(b'"samples": 16', b'"samples": 17'))
    assert blamed(verify(fresh)) == ["dataset.json"]


def test_an_older_set_whose_digests_are_of_bytes_is_whole_until_it_is_laid_out_anew(build, fresh):
    def seal_as_before(path):
        body = path.read_bytes().rpartition(b',\n"digest": ')[0]
        path.write_bytes(b'%s,\n"digest": "%s"}\n' % (body, sha256_of(body)))

    for path in fresh.glob("*.index.json"):
        seal_as_before(path)
    info = read_dataset(fresh)
    files = {name: sha256_of((fresh / name).read_bytes()).decode() for name in info.files}
    write_dataset(fresh, replace(info, files=files))
    path = fresh / "dataset.json"
    seal_as_before(path)
    assert blamed(verify(fresh, deep=True)) == []
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=2) + "\n")
    with pytest.raises(UserError, match=r"dataset\.json: .* has changed since .*--discard"):
        read_dataset(fresh)
    discard_damaged(str(fresh), verify(fresh))
    assert build(fresh).built == 0
    assert blamed(verify(fresh)) == []


def sha256_of(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def command(folder, *options):
    return run("avprep", "verify", folder, *options)


def test_several_workers_find_the_same(fresh):
    os.truncate(fresh / read_dataset(fresh).shards[1].name, 70_000)
    (fresh / read_dataset(fresh).shards[3].name).unlink()
    found = [command(fresh, "--json", "--deep", "--workers", str(n)) for n in (1, 2)]
    assert [result.returncode for result in found] == [1, 1]
    one, two = (json.loads(result.stdout) for result in found)
    assert one == two
    names = [shard.name for shard in read_dataset(fresh).shards]
    assert list(one["damaged"]) == [names[1], names[3]]
    assert set(one) == {"shards", "samples", "modalities", "damaged", "files", "strangers"}
    assert (one["shards"], one["files"], one["strangers"]) == (len(names), {}, [])


def test_the_command_says_what_to_do_and_doing_it_helps(build, original, fresh):
    (fresh / "dataset.json").write_bytes((fresh / "dataset.json").read_bytes()[:-100])
    result = command(fresh, "--discard")
    assert result.returncode == 1
    assert "`avprep shard` writes it again" in result.stdout
    assert not (fresh / "dataset.json").exists()
    build(fresh)
    assert contents(fresh) == contents(original)
    assert command(fresh, "--deep").returncode == 0
