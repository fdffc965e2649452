"""What a build writes for other programs; tests/ecosystem has those programs read it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import cavmae
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import DecodeOptions, PoolOptions, SampleOptions, ShardSetOptions
from avprep.shards.build import build_shard_set
from avprep.shards.cards import CARD_FILE, CROISSANT_FILE, WIDS_FILE
from avprep.shards.format import SampleFacts, read_dataset, write_dataset
from avprep.shards.verify import discard_damaged, verify
from tests.conftest import contents

NAMES = (CARD_FILE, CROISSANT_FILE, WIDS_FILE)
OPTIONS = ShardSetOptions(SampleOptions(DecodeOptions(frames=3), audio="wav"), samples_per_shard=4)


@pytest.fixture(scope="module")
def manifest(demo_videos):
    return folder_manifest(demo_videos / "test")


@pytest.fixture(scope="module")
def original(manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("cards") / "s"
    build(manifest, out)
    return out


@pytest.fixture
def fresh(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "s"))


def build(manifest: Any, out: Path) -> None:
    clips, labels = manifest
    assert build_shard_set(clips, labels, str(out), OPTIONS, PoolOptions(2)).complete


def card_features(folder: Path) -> dict[str, Any]:
    """The features that the card states, by name."""
    head = (folder / CARD_FILE).read_text().split("---\n")[1]
    rows = [json.loads(line[4:]) for line in head.splitlines() if line.startswith("  - {")]
    return {row["name"]: row for row in rows}


def test_the_card_says_how_cavmae_opens_the_set(original):
    (line,) = re.findall(r"^cavmae\..+$", (original / CARD_FILE).read_text(), re.MULTILINE)
    opened = eval(line, {"cavmae": cavmae, "FOLDER": original})
    assert len(opened) == read_dataset(original).samples


def test_the_card_states_every_member_and_every_key_with_its_type(original):
    features = card_features(original)
    with tarfile.open(original / "shard-000000.tar") as tar:
        members = {name.partition(".")[2] for name in tar.getnames()}
        member = next(one for one in tar.getmembers() if one.name.endswith(".json"))
        facts = json.load(tar.extractfile(member))
    assert set(features) == {*members, "__key__", "__url__"}
    stated = {row["name"]: row for row in features["json"]["struct"]}
    assert set(stated) == set(facts) == set(get_type_hints(SampleFacts))
    kinds = {"string": str, "bool": bool, "int64": int, "float64": float}
    for name, value in facts.items():
        row = stated[name]
        if isinstance(value, dict):
            inner = {one["name"]: kinds[one["dtype"]] for one in row["struct"]}
            assert inner == {key: type(number) for key, number in value.items()}
        elif isinstance(value, list):
            assert {type(item) for item in value} <= {kinds[row["sequence"]]}, name
        else:
            assert type(value) is kinds[row["dtype"]], name


def test_every_shard_is_listed_with_its_samples_and_digest(original):
    info = read_dataset(original)
    wids = json.loads((original / WIDS_FILE).read_text())
    listed = [(shard["url"], shard["nsamples"], shard["filesize"]) for shard in wids["shardlist"]]
    assert listed == [(shard.name, shard.samples, shard.bytes) for shard in info.shards]
    croissant = json.loads((original / CROISSANT_FILE).read_text())
    digests = {
        one["@id"]: one["sha256"]
        for one in croissant["distribution"]
        if one["@type"] == "cr:FileObject"
    }
    assert digests == {
        shard.name: hashlib.sha256((original / shard.name).read_bytes()).hexdigest()
        for shard in info.shards
    }


def test_they_are_the_same_bytes_wherever_the_set_is_built(manifest, original, tmp_path):
    build(manifest, tmp_path / "elsewhere")
    assert contents(tmp_path / "elsewhere") == contents(original)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_one_is_found_and_mended_without_decoding(manifest, original, fresh, name):
    with (fresh / name).open("ab") as file:
        file.write(b" ")
    findings = verify(str(fresh))
    assert (list(findings.files), findings.damaged) == ([name], ())
    discard_damaged(str(fresh), findings)
    assert not (fresh / name).exists()
    before = {path.name: path.stat().st_mtime_ns for path in fresh.glob("*.tar")}
    build(manifest, fresh)
    assert contents(fresh) == contents(original)
    assert {path.name: path.stat().st_mtime_ns for path in fresh.glob("*.tar")} == before


def test_an_older_set_gets_them_from_a_plain_run(manifest, original, fresh):
    info = read_dataset(fresh)
    old = {name: digest for name, digest in info.files.items() if name not in NAMES}
    write_dataset(fresh, replace(info, files=old))
    for name in NAMES:
        (fresh / name).unlink()
    assert not verify(str(fresh)).files
    build(manifest, fresh)
    assert contents(fresh) == contents(original)


def test_a_readme_of_somebody_else_stays(manifest, fresh):
    (fresh / CARD_FILE).write_text("# Mine\n")
    build(manifest, fresh)
    assert (fresh / CARD_FILE).read_text() == "# Mine\n"
    assert CARD_FILE not in read_dataset(fresh).files
    assert not verify(str(fresh)).files
