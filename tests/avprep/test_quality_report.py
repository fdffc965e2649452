"""A report shows how many clips are faulty, and plays the worst."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest

import avprep
from avprep.cli.report import described
from avprep.options import GalleryOptions, PoolOptions, ReportOptions, SampleOptions
from avprep.pages.shard_report import make_report
from avprep.quality.measures import MEASURES
from avprep.shards.format import read_dataset, write_dataset
from tests.faulty_clips import make_faulty_clip

PLANTED = ("", "still", "still", "silent", "clipped", "")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    (folder / "videos").mkdir()
    for number, fault in enumerate(PLANTED):
        make_faulty_clip(folder / "videos", number, fault)
    output = avprep.ManifestOutput(out=folder / "m.json")
    avprep.make_folder_manifest(folder / "videos", output, avprep.FolderOptions())
    options = avprep.ShardSetOptions(SampleOptions(), samples_per_shard=2)
    out = str(folder / "shards")
    assert avprep.build_shards(folder / "m.json", out, options=options).complete
    return folder / "shards"


def test_the_page_counts_faults_and_plays_the_worst_clips(shards, tmp_path, browser):
    out = tmp_path / "page.html"
    made = avprep.report(str(shards), str(out))
    assert {name: count for name, count in made.faults.items() if count} == {
        "quiet": 1,
        "silent": 1,
        "clipped": 1,
        "still": 2,
    }
    browser.open(out)
    assert len(browser.shown("#quality .measures svg")) == len(MEASURES)
    text = browser.find("#quality").text
    assert "2 of 6 still (stillness >= 0.98)" in text
    assert "0 of 6 blurred" in text
    worst = [card.text for card in browser.shown("#quality .worst")]
    ids = [re.match(r"\d+", words)[0] for words in worst]
    assert ids[:2] == ["0003", "0004"]
    assert set(ids[2:]) == {"0001", "0002"}
    assert "silent 1" in worst[0]
    assert "rms_db" in worst[0]
    audio = browser.shown("#quality .worst audio")[0]
    assert browser.run("arguments[0].load(); return arguments[0].src", audio).startswith("data:")
    assert len(browser.shown("#clips .clip")) == len(PLANTED)
    assert browser.overflow() <= 0
    assert browser.console_messages() == []


def test_the_summary_says_what_share_is_faulty(shards):
    options = ReportOptions(gallery=GalleryOptions(clips=0))
    made = make_report(str(shards), options)
    assert b"card worst" not in made.page
    words = described(made, str(shards), "page.html", options)
    assert words.splitlines()[1] == (
        "clips by fault: quiet 16.7%, clipped 16.7%, silent 16.7%, still 33.3%"
    )
    summary = re.search(rb'id="summary">(.*?)</script>', made.page, re.DOTALL)[1]
    assert json.loads(summary)["faults"]["still"] == 2


def test_a_set_without_measures_says_how_to_get_them(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "old")
    for path in copy.glob("*.measures.json"):
        path.unlink()
    write_dataset(copy, replace(read_dataset(copy), measures=()))
    made = make_report(str(copy), ReportOptions())
    assert made.faults == {}
    assert f"avprep measure {copy}".encode() in made.page
    words = described(made, str(copy), "page.html", ReportOptions())
    assert words.splitlines()[1] == f"not measured: run `avprep measure {copy}`"
    avprep.measure(str(copy), PoolOptions(1))
    assert make_report(str(copy), ReportOptions()).faults["still"] == 2
