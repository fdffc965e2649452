"""Without a terminal a long command says how far it is; a short one says nothing."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from avprep.cli import group
from avprep.cli.progress import ProgressBar
from avprep.clips import Scan, discover_files
from avprep.progress import counted
from tests.faults.conftest import wait_until


def test_lines_come_while_nothing_gets_done(capsys):
    heard = ""

    def hear() -> str:
        nonlocal heard
        heard += capsys.readouterr().err
        return heard

    with ProgressBar("shard", "clip", seconds=0.01) as bar:
        bar.reach(4, total=20)
        wait_until(lambda: "shard: 4/20 clips, ?clip/s, ? left\n" in hear())
        bar.reach(8, failed=3)
        pattern = r"shard: 8/20 clips, 3 failed, [\d.]+clip/s, [\d:]+ left\n"
        wait_until(lambda: re.search(pattern, hear()))
        bar.reach(20)
        wait_until(lambda: "shard: 20/20 clips" in hear())
    hear()
    assert "\r" not in heard


@pytest.mark.parametrize("done", [0, 3])
def test_bytes_and_unknown_totals_are_written_plainly(done):
    bar = ProgressBar("labels.csv", "B")
    bar.reach(0)
    bar.reach(done * 1_000_000)
    assert bar.line().startswith("labels.csv: " + ("3.00M/? B, " if done else "0.00/? B, "))
    bar.reach(4_000_000, total=8_000_000)
    assert bar.line().startswith("labels.csv: 4.00M/8.00M B, ")


def test_short_work_says_nothing(capsys):
    with ProgressBar("eval", "clip") as bar:
        bar.reach(2)
    assert capsys.readouterr().err == ""


def lines_of(*arguments: object) -> str:
    result = CliRunner().invoke(group, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_every_long_command_of_avprep_says_how_far_it_is(demo_videos, tmp_path, write_every):
    write_every(0.05)
    videos, test = tmp_path / "videos", demo_videos / "test"
    told = lines_of("demo-data", videos, "--train-clips", 1, "--test-clips", 1, "--seconds", 1)
    assert re.search(r"^demo-data: \d+/16 clips, ", told, re.MULTILINE)
    told = lines_of("extract", test, "--out", tmp_path / "extracted", "--workers", 1)
    assert re.search(r"^extract: \d+/8 clips, ", told, re.MULTILINE)
    manifest = tmp_path / "m.json"
    write_every(1e-6)
    told = lines_of("manifest", "folder", test, "--out", manifest)
    assert re.search(r"^manifest: \d+/\? files, ", told, re.MULTILINE)
    told = lines_of("manifest", "check", manifest)
    assert re.search(r"^check: \d+/\? clips, ", told, re.MULTILINE)
    shards = tmp_path / "shards"
    write_every(0.05)
    told = lines_of("shard", manifest, "--out", shards, "--workers", 1, "--samples-per-shard", 4)
    assert re.search(r"^shard: \d+/8 clips, ", told, re.MULTILINE)
    write_every(1e-6)
    told = lines_of("verify", shards, "--workers", 1)
    assert re.search(r"^verify: \d+/(\?|2) shards, ", told, re.MULTILINE)
    told = lines_of("report", shards, "--out", tmp_path / "report.html")
    assert re.search(r"^report: \d+/(\?|2) shards, ", told, re.MULTILINE)


@pytest.mark.parametrize("number", [0, 1, 64, 130])
def test_what_is_passed_on_is_counted_to_the_last(number):
    heard = []
    assert list(counted(iter(range(number)), "clip", heard.append)) == list(range(number))
    assert heard[0].done == 0
    assert heard[-1].done == number


def test_every_file_of_every_folder_is_counted(tmp_path):
    for name in ("a/1.mp4", "a/2.mp4", "b/c/3.mp4", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    counts: list[int] = []
    assert len(discover_files([str(tmp_path)], Scan(), counts.append)) == sum(counts) == 3
