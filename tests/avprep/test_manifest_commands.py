"""The manifest, labels and weights commands as people type them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil

import click
import jsonschema
import pytest
from click.testing import CliRunner

from avprep.cli import group
from avprep.clips import Clip
from avprep.errors import UserError, WorkFailed
from avprep.labels import class_csv_of, label_set_from_names, read_label_csv, write_label_csv
from avprep.manifest.model import read_manifest, to_entry, write_manifest
from tests.avprep.test_fetch import CONTENT, DIGEST, server  # noqa: F401 (a fixture)
from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "manifests" / "examples"
SCHEMA = json.loads((REPOSITORY / "manifests" / "schema.json").read_text())
ENTRY = {"$ref": "#/$defs/entry", "$defs": SCHEMA["$defs"]}


def run(*words: object) -> str:
    """What a command prints; its error is raised."""
    result = CliRunner().invoke(group, [str(word) for word in words], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def touch(folder, *names):
    """Files that are no two the same."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path))


@pytest.mark.parametrize("name", ["folder", "listing", "audioset", "vggsound"])
def test_a_worked_example_comes_out_as_it_stands_there(name, tmp_path, monkeypatch):
    example = EXAMPLES / name
    outputs = {"manifest.json", "manifest.jsonl", "manifest.report.csv", "manifest.classes.csv"}
    for path in example.iterdir():
        if path.name not in outputs:
            shutil.copy(path, tmp_path)
    touch(tmp_path, *(example / "files.txt").read_text().splitlines())
    monkeypatch.chdir(tmp_path)
    run(*(example / "command.txt").read_text().split())
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {
        p.name for p in example.iterdir()
    }
    for path in example.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_schema_is_one_and_every_example_follows_it():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    examples = sorted(EXAMPLES.glob("*/manifest.json*"))
    assert len(examples) == 5
    for path in examples:
        if path.suffix == ".jsonl":
            for line in path.read_text().splitlines():
                jsonschema.validate(json.loads(line), ENTRY)
        else:
            jsonschema.validate(json.loads(path.read_text()), SCHEMA)


def test_the_published_manifest_follows_the_schema(shared):
    head = (shared / "metadata" / "official_manifest_head.json").read_text()
    jsonschema.validate(json.loads(head[: head.rindex("  },") + 3] + "]}"), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"video_id": ""}, {"video_id": 3}, {"labels": ["a"]}, {"video": ""}, {"video": None},
        {"start": "1"}, {"wav": None}, {"split": 3}, {"labels": ...}, {"wav": ...}, {"video": ...},
    ],
)  # fmt: skip
def test_the_schema_and_the_reader_refuse_the_same(change, tmp_path):
    entry = {**to_entry(Clip("x", ("a",), "x.mp4", 1.0, 2.0)), **change}
    entry = {key: value for key, value in entry.items() if value is not ...}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"data": [entry]}, SCHEMA)
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"data": [entry]}))
    with pytest.raises(UserError, match=r"data\[0\]"):
        read_manifest(path)


@pytest.fixture
def real_vggsound(shared, tmp_path):
    """The first 150 clips of the real CSV as files, in the ways people name them."""
    path = shared / "metadata" / "vggsound_head.csv"
    names = [name.removesuffix(".mp4") for name, _ in csv.reader(path.open(newline=""))]
    for number, name in enumerate(names[:150]):
        video_id, start = name[:11], int(name[12:])
        several = sum(other.startswith(video_id) for other in names) > 1  # one id has two clips
        spelling = (
            name,
            f"{video_id}_{start}",
            f"{video_id}_{start}.000",
            f"{video_id}_{start}_{start + 10}",
            name if several else video_id,
            f"Y{video_id}",
        )[number % 6]
        touch(tmp_path / "videos" / str(number % 4), f"{spelling}.mp4")
    return path, names


def test_the_real_vggsound_csv_becomes_a_manifest(real_vggsound, tmp_path):
    csv_file, names = real_vggsound
    words = ("manifest", "vggsound", "--csv", csv_file, "--videos", tmp_path / "videos")
    out = tmp_path / "out" / "m.json"
    summary = json.loads(run(*words, "--out", out, "--json"))
    assert (summary["matched"], summary["missing"], summary["extra"]) == (150, 50, 0)
    clips = read_manifest(out)
    assert [clip.video_id for clip in clips] == names[:150]
    labels = read_label_csv(class_csv_of(out))
    assert all(labels.knows(label) for clip in clips for label in clip.labels)
    report = list(csv.DictReader((tmp_path / "out" / "m.report.csv").open(newline="")))
    assert [row["video_id"] for row in report if row["status"] == "missing"] == names[150:]
    trimmed = tmp_path / "out" / "trimmed.jsonl"
    run(*words, "--out", trimmed, "--trim")
    cut = {clip.video_id: clip.end - clip.start for clip in read_manifest(trimmed) if clip.end}
    assert set(cut.values()) == {10.0}
    assert 45 < len(cut) <= 50  # those named by the id alone, a third of them
    assert run("manifest", "check", out, "--strict").endswith("no problems\n")


def test_strict_fails_writes_no_manifest_but_the_report(real_vggsound, tmp_path):
    csv_file, _ = real_vggsound
    words = ("manifest", "vggsound", "--csv", csv_file, "--videos", tmp_path / "videos")
    with pytest.raises(WorkFailed, match=r"50 clips missing and 0 rows bad, of 200; no man"):
        run(*words, "--out", tmp_path / "m.json", "--strict")
    assert not (tmp_path / "m.json").exists()
    assert (tmp_path / "m.report.csv").exists()


def test_the_wrong_folder_is_told_from_missing_clips(real_vggsound, tmp_path):
    csv_file, _ = real_vggsound
    touch(tmp_path / "other", "holiday.mp4")
    words = ("manifest", "vggsound", "--csv", csv_file, "--out", tmp_path / "m.json")
    with pytest.raises(UserError) as caught:
        run(*words, "--videos", tmp_path / "other")
    assert "none of its 200 clips has a file in" in str(caught.value)
    assert "Looked for names such as glLQrEijrKg.mp4" in str(caught.value)
    assert "holiday.mp4" in str(caught.value)
    with pytest.raises(UserError, match=r"give the folder of the videos with --videos"):
        run(*words)


AUDIOSET = """# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"
-0nqfRcnAYE, 30.000, 40.000, "/m/04brg2"
#NAME?, 0.000, 10.000, "/m/04rlf"
"""


def test_real_audioset_classes_with_a_mangled_csv(shared, tmp_path):
    (tmp_path / "s.csv").write_text(AUDIOSET)
    touch(tmp_path / "a", "Y--4gqARaEJE.mp4")
    touch(tmp_path / "b", "-0nqfRcnAYE_30000_40000.webm")
    words = (
        *("manifest", "audioset", "--segments", tmp_path / "s.csv", "--out", tmp_path / "m.jsonl"),
        *("--labels", shared / "metadata" / "class_labels_indices.csv"),
        *("--videos", tmp_path / "a", "--videos", tmp_path / "b"),
    )
    with pytest.raises(UserError, match=r"s\.csv: line 4: '#NAME\?' is what a spreadsheet makes"):
        run(*words)
    out = run(*words, "--bad-rows", "skip")
    assert "2 clips, 527 classes" in out
    assert "1 bad row: listed in" in out
    clips = read_manifest(tmp_path / "m.jsonl")
    assert [clip.video_id for clip in clips] == ["--4gqARaEJE", "-0nqfRcnAYE"]
    assert len(read_label_csv(tmp_path / "m.classes.csv")) == 527  # where `avprep shard` looks
    with pytest.raises(WorkFailed, match=r"1 row bad, of 3"):
        run(*words, "--bad-rows", "skip", "--strict")


def test_a_flat_folder_is_unlabelled_and_can_get_classes_later(tmp_path):
    touch(tmp_path / "v", "1.mp4")
    out = tmp_path / "m.json"
    assert "1 clip, 0 classes" in run("manifest", "folder", tmp_path / "v", "--out", out)
    touch(tmp_path / "v", "ant/2.mp4")
    said = run("manifest", "folder", tmp_path / "v", "--out", out)
    assert "1 clip without a label" in said
    assert read_label_csv(tmp_path / "m.classes.csv").names == ("ant",)


def test_a_name_that_is_not_utf8_is_left_out_and_said(tmp_path):
    touch(tmp_path / "v", "ant/1.mp4")
    (tmp_path / "v" / "ant" / b"caf\xe9.mp4".decode("utf-8", "surrogateescape")).touch()
    said = run("manifest", "folder", tmp_path / "v", "--out", tmp_path / "m.json")
    assert "1 path not in UTF-8, left out" in said
    assert "1 extra file" in said
    assert len(read_manifest(tmp_path / "m.json")) == 1


def test_a_listing_takes_absolute_paths_and_paths_outside(tmp_path):
    touch(tmp_path, "v/a.mp4", "elsewhere/b.mp4")
    listing = tmp_path / "l.csv"
    listing.write_text(
        f"path,label\n{tmp_path}/v/a.mp4,ant\n{tmp_path}/elsewhere/b.mp4,bee\n../elsewhere/b.mp4,cow\n"
    )
    out = tmp_path / "m.json"
    run("manifest", "folder", tmp_path / "v", "--csv", listing, "--out", out)
    clips = {clip.video: clip.labels for clip in read_manifest(out)}
    assert clips[f"{tmp_path}/v/a.mp4"] == ("ant",)
    assert clips[f"{tmp_path}/elsewhere/b.mp4"] == ("bee",)
    assert len({clip.video_id for clip in read_manifest(out)}) == 3


@pytest.fixture
def manifest(tmp_path):
    """30 clips of 3 classes, with their class CSV."""
    names = ["ant", "bee", "cow"]
    clips = [Clip(f"c{n}", (names[n % 3],), f"videos/{n}.mp4") for n in range(30)]
    path = tmp_path / "in" / "m.json"
    write_manifest(path, clips)
    write_label_csv(class_csv_of(path), label_set_from_names(names))
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_a_conversion_there_and_back_is_the_same_file(suffix, manifest, tmp_path):
    there, back = tmp_path / "out" / f"n{suffix}", tmp_path / "back.json"
    run("manifest", "convert", manifest, there, "--root", "videos=/data")
    assert read_manifest(there)[0].video == "/data/0.mp4"
    assert read_label_csv(class_csv_of(there)).names == ("ant", "bee", "cow")
    run("manifest", "convert", there, back, "--root", "/data=videos")
    assert back.read_bytes() == manifest.read_bytes()


def test_a_table_can_be_read_by_pandas(manifest, tmp_path):
    import pandas as pd

    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        run("manifest", "convert", manifest, tmp_path / f"n{suffix}")
        table = read(tmp_path / f"n{suffix}")
        assert table["video_id"].tolist() == [f"c{n}" for n in range(30)]
        assert table["start"].isna().all()


def test_what_is_no_manifest_is_refused_in_every_format(manifest, tmp_path):
    (tmp_path / "a.csv").write_text("path,label\nx.mp4,dog\n")
    with pytest.raises(UserError, match=r"a.csv: line 1 must name the columns.*--csv"):
        run("manifest", "convert", tmp_path / "a.csv", tmp_path / "b.json")
    (tmp_path / "b.csv").write_text("video_id,labels,video,wav,video_path,start\nx,,a.mp4,,,now\n")
    with pytest.raises(UserError, match=r"b.csv: line 2: 'start' must be seconds, found 'now'"):
        run("manifest", "convert", tmp_path / "b.csv", tmp_path / "b.json")
    (tmp_path / "c.csv").write_text("video_id,video\nx,a.mp4,y\n")
    with pytest.raises(UserError, match=r"c.csv: line 2: has 3 fields, line 1 has 2"):
        run("manifest", "convert", tmp_path / "c.csv", tmp_path / "b.json")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"d.parquet: not a Parquet file"):
        run("manifest", "convert", tmp_path / "d.parquet", tmp_path / "b.json")
    with pytest.raises(UserError, match=r"ends in .json or .jsonl or .csv or .parquet"):
        run("manifest", "convert", manifest, tmp_path / "b.txt")
    assert not (tmp_path / "b.json").exists()


def test_without_pyarrow_parquet_says_what_to_install(manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'avprep-cavmae\[parquet\]'"):
        run("manifest", "convert", manifest, tmp_path / "n.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_split_parts_merge_into_the_whole_again(manifest, tmp_path):
    out = tmp_path / "parts"
    said = run("manifest", "split", manifest, "--parts", "train=0.8,test=0.2", "--out", out)
    assert "train.json: 24 clips, 3 classes" in said
    assert read_label_csv(out / "train.classes.csv") == read_label_csv(class_csv_of(manifest))
    merged = tmp_path / "parts" / "all.jsonl"
    said = run("manifest", "merge", out / "train.json", out / "test.json", "--out", merged)
    assert "30 clips from 2 manifests" in said
    assert {clip.video_id for clip in read_manifest(merged)} == {f"c{n}" for n in range(30)}
    again = run("manifest", "merge", merged, merged, "--out", out / "twice.jsonl")
    assert "30 clips from 2 manifests, 30 repeated" in again


def test_a_split_keeps_the_groups_of_a_table_together(manifest, tmp_path):
    table, out = tmp_path / "duplicates.csv", tmp_path / "parts"
    rows = [f"{number % 2},shards/train,c{number},0.0" for number in range(16)]
    table.write_text(
        "\n".join(["group,set,video_id,picture", *rows, "1,shards/test,elsewhere,0.1"])
    )
    words = ("split", manifest, "--parts", "train=0.5,test=0.5", "--groups", table, "--out", out)
    run("manifest", *words)
    sides = [
        {clip.video_id for clip in read_manifest(out / f"{n}.json")} for n in ("train", "test")
    ]
    assert [len(side) for side in sides] == [15, 15]
    for first in (0, 1):
        group = {f"c{number}" for number in range(first, 16, 2)}
        assert group <= sides[0] or group <= sides[1]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("video_id\nc0\n", "line 1 must name the columns group and video_id, found 'video_id'"),
        ("", "line 1 must name the columns group and video_id"),
        ("group,video_id\n1,c0\n2\n", "line 3: needs a group and a video_id"),
        ("group,video_id\n1,x9\n", "none of its ids is in "),
    ],
)
def test_a_table_of_groups_that_cannot_be_used_is_explained(table, complaint, manifest, tmp_path):
    (tmp_path / "groups.csv").write_text(table)
    words = ("--parts", "a=1,b=1", "--groups", tmp_path / "groups.csv", "--out", tmp_path / "out")
    with pytest.raises(UserError, match=re.escape(complaint)):
        run("manifest", "split", manifest, *words)
    assert not (tmp_path / "out").exists()


def test_groups_that_leave_a_part_empty_are_counted(manifest, tmp_path):
    rows = [f"1,c{number}" for number in range(30)]
    (tmp_path / "groups.csv").write_text("\n".join(["group,video_id", *rows]))
    words = ("--parts", "a=1,b=1", "--groups", tmp_path / "groups.csv", "--out", tmp_path / "out")
    with pytest.raises(UserError, match=r"30 clips in 1 group that stay together are too few"):
        run("manifest", "split", manifest, *words)


def test_conflicts_and_other_classes_stop_a_merge(manifest, tmp_path):
    other = tmp_path / "in" / "other.json"
    write_manifest(other, [Clip("c0", ("bee",), "videos/0.mp4")])
    out = tmp_path / "in" / "all.json"
    with pytest.raises(UserError, match=r"1 video_id with two different entries; .*'c0'"):
        run("manifest", "merge", manifest, other, "--out", out)
    assert not out.exists()
    said = run("manifest", "merge", manifest, other, "--out", out, "--on-conflict", "first")
    assert "30 clips from 2 manifests, 1 others of the same video_id left out" in said
    strange = tmp_path / "strange" / "m.json"
    write_manifest(strange, [Clip("d", ("dog",), "videos/d.mp4")])
    write_label_csv(class_csv_of(strange), label_set_from_names(["dog"]))
    with pytest.raises(UserError, match=r"its classes differ from"):
        run("manifest", "merge", manifest, strange, "--out", out)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ("train", "'train' is not NAME=SHARE"),
        ("train=1", "at least two parts"),
        ("train=1,test=0", "'test=0' is not NAME=SHARE"),
        ("train=1,train=1", "'train' is named twice"),
        ("../x=1,test=1", "'../x=1' is not NAME=SHARE"),
        ("train=1000,test=0.001", "30 clips are too few, 'test' would get none"),
    ],
)
def test_wrong_parts_are_explained(parts, complaint, manifest, tmp_path):
    with pytest.raises(UserError, match=re.escape(complaint)):
        run("manifest", "split", manifest, "--parts", parts, "--out", tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_one_class_is_one_class(tmp_path):
    clips = [Clip(f"c{n}", ("ant",), f"{n}.mp4") for n in range(4)] + [Clip("d", ("bee",), "d.mp4")]
    write_manifest(tmp_path / "m.json", clips)
    words = ("manifest", "split", tmp_path / "m.json", "--parts", "a=1,b=1", "--out", tmp_path)
    assert " has no clip of 1 class: bee" in run(*words)
    words = ("manifest", "sample", tmp_path / "m.json", "--out", tmp_path / "s.json")
    assert "1 class has fewer than 2 clips: bee" in run(*words, "--per-class", 2)


def test_names_that_were_looked_for_are_two(tmp_path):
    (tmp_path / "s.csv").write_text("bbbbbbbbbbb, 30.000, 40.000, /m/a\n")
    (tmp_path / "l.csv").write_text("index,mid,display_name\n0,/m/a,A\n")
    touch(tmp_path / "v", "a.mp4", "b.mp4.part")
    words = ("--segments", tmp_path / "s.csv", "--labels", tmp_path / "l.csv")
    words += ("--videos", tmp_path / "v", "--out", tmp_path / "m.json")
    with pytest.raises(UserError) as caught:
        run("manifest", "audioset", *words)
    assert "Looked for names such as bbbbbbbbbbb.mp4 and bbbbbbbbbbb_000030.mp4;" in str(
        caught.value
    )
    assert "1 file is passed over" in str(caught.value)


def test_a_sample_of_5_a_class_says_what_is_short(manifest, tmp_path):
    out = tmp_path / "in" / "few.json"
    assert "15 clips, 3 classes" in run(
        "manifest", "sample", manifest, "--per-class", 5, "--out", out
    )
    said = run("manifest", "sample", manifest, "--per-class", 11, "--out", out)
    assert "3 classes have fewer than 11 clips: ant, bee, cow" in said


def test_check_counts_reports_plots_and_is_strict_on_demand(manifest, tmp_path):
    said = run("manifest", "check", manifest)
    assert "30 clips, 30 with labels" in said
    assert "least 10, median 10, most 10" in said
    assert "missing-file  30" in said
    with pytest.raises(WorkFailed, match=r"30 problems"):
        run("manifest", "check", manifest, "--strict")
    files = {name: tmp_path / "out" / name for name in ("counts.csv", "problems.csv", "plot.png")}
    said = run(
        *("manifest", "check", manifest, "--json", "--no-files", "--strict"),
        *("--counts", files["counts.csv"], "--report", files["problems.csv"]),
        *("--plot", files["plot.png"]),
    )
    assert json.loads(said) == {
        "clips": 30, "labelled": 30, "problems": {}, "classes": 3,
        "class_counts": {"ant": 10, "bee": 10, "cow": 10}, "unknown_labels": {},
    }  # fmt: skip
    assert files["counts.csv"].read_text() == (
        "index,mid,display_name,clips\n0,ant,ant,10\n1,bee,bee,10\n2,cow,cow,10\n"
    )
    assert files["problems.csv"].read_text() == "kind,place,video_id,detail\n"
    assert files["plot.png"].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"ends in .png"):
        run("manifest", "check", manifest, "--plot", tmp_path / "plot.jpg")


def test_weights_go_beside_the_manifest_in_its_order(manifest):
    said = run("weights", manifest)
    path = manifest.with_name("m_weight.csv")
    assert f"{path}: weights of 30 clips in 3 classes" in said
    assert [float(line) for line in path.read_text().splitlines()] == [1000 / 10.01] * 30


def test_weights_of_an_unlabelled_manifest_are_refused(manifest):
    write_manifest(manifest, [Clip("a", (), "a.mp4")])
    with pytest.raises(UserError, match=r"no clip has a label"):
        run("weights", manifest)


def test_label_sets_come_from_folders_and_are_checked(tmp_path):
    touch(tmp_path / "v", "cow/1.mp4", "ant/2.mp4", "texts/notes.txt", "loose.mp4")
    out = tmp_path / "labels.csv"
    assert "2 classes" in run("labels", "folder", tmp_path / "v", "--out", out)
    assert read_label_csv(out).names == ("ant", "cow")
    with pytest.raises(UserError, match=r"has other classes. Delete it, or choose another --out"):
        run("labels", "vggsound", "--out", out)
    twin = tmp_path / "twin.csv"
    twin.write_text("index,mid,display_name\n0,a,Twin\n1,b,Twin\n")
    assert "2 classes are called 'Twin'" in run("labels", "check", twin)
    said = json.loads(run("labels", "check", twin, "--json"))
    assert said == {"classes": 2, "shared_names": ["Twin"]}


def test_fetch_takes_files_from_a_mirror_and_prints_their_digest(server, tmp_path):  # noqa: F811
    words = ("labels", "fetch", "audioset", "--out", tmp_path, "--base-url", f"{server.url}/good/")
    said = run(*words, "--file", "class_labels_indices.csv")
    path = tmp_path / "class_labels_indices.csv"
    assert said == f"{path}: fetched, {len(CONTENT)} bytes, sha256 {DIGEST}\n"
    assert server.requests == ["/good/class_labels_indices.csv"]
    digest = f"class_labels_indices.csv={DIGEST}"
    said = run(*words, "--file", "class_labels_indices.csv", "--sha256", digest)
    assert "was there" in said
    path.write_text("something else")
    with pytest.raises(UserError, match=r"Delete it to fetch it again"):
        run(*words, "--file", "class_labels_indices.csv")
    assert path.read_text() == "something else"
    path.unlink()
    server.failures = len(server.requests) + 1
    words = (*words[:-1], f"{server.url}/other/")
    with pytest.raises(WorkFailed, match=r"sent no class CSV"):
        run(*words, "--file", "class_labels_indices.csv")
    assert not path.exists()
    words = (*words[:-1], f"{server.url}/good/")
    with pytest.raises(UserError, match=r"audioset has no such file; it has class_labels"):
        run(*words, "--file", "../passwd")
    with pytest.raises(UserError, match=r"give FILE=HEX"):
        run(*words, "--sha256", "abc")


def commands(table, *words):
    """Every command below a group, with the words that name it."""
    for name, entry in table.items():
        command = entry.load()
        if isinstance(command, click.Group):
            yield from commands(command.table, *words, name)
        else:
            yield (*words, name), command


def test_every_command_and_option_is_in_the_documentation():
    from avprep.cli import COMMANDS

    text = (REPOSITORY / "docs" / "manifests.md").read_text()
    table = {name: COMMANDS[name] for name in ("manifest", "labels", "weights")}
    found = dict(commands(table))
    assert len(found) >= 13
    for words, command in found.items():
        heading = f"## avprep {' '.join(words)}\n"
        assert heading in text, heading
        section = text.split(heading, 1)[1].split("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for option in parameter.opts:
                    assert f"`{option}" in section, (words, option)


def test_segments_of_real_videos_become_samples_of_their_length(demo_clip, tmp_path):
    """From a segments CSV by --trim, and from files that `avprep extract` wrote, to shards."""
    from avprep.shards.format import read_dataset, read_index

    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(demo_clip, videos / "Y--4gqARaEJE.mp4")
    shutil.copy(demo_clip, videos / "-0nqfRcnAYE_30000_31000.mp4")
    (tmp_path / "s.csv").write_text(
        '--4gqARaEJE, 0.000, 0.500, "/m/a"\n--4gqARaEJE, 0.500, 0.750, "/m/b"\n'
        '-0nqfRcnAYE, 30.000, 31.000, "/m/a,/m/b"\n'
    )
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n0,/m/a,A\n1,/m/b,B\n")
    words = ("manifest", "audioset", "--segments", tmp_path / "s.csv")
    words += ("--labels", tmp_path / "classes.csv")
    run(*words, "--videos", videos, "--trim", "--out", tmp_path / "m.json", "--strict")
    run("shard", tmp_path / "m.json", "--out", tmp_path / "shards", "--workers", 1)
    dataset = read_dataset(tmp_path / "shards")
    assert dataset.labels == (("/m/a", "A"), ("/m/b", "B"))
    assert dataset.class_counts == (2, 2)
    assert dataset.seconds == pytest.approx(0.5 + 0.25 + 1.0, abs=0.05)
    found = {
        entry.video_id: entry.labels
        for shard in dataset.shards
        for entry in read_index(tmp_path / "shards", shard.name).samples
    }
    first, second = "--4gqARaEJE_000000", "--4gqARaEJE_000000.500"
    assert found == {first: (0,), second: (1,), "-0nqfRcnAYE": (0, 1)}

    run("extract", videos, "--out", tmp_path / "x", "--workers", 1)
    run(*words, "--extracted", tmp_path / "x", "--out", tmp_path / "n.json")
    clips = read_manifest(tmp_path / "n.json")
    assert [clip.video_id for clip in clips] == ["-0nqfRcnAYE_30000_31000"]
    run("manifest", "check", tmp_path / "n.json", "--strict")
    run("shard", tmp_path / "n.json", "--out", tmp_path / "packed", "--workers", 1)
    assert read_dataset(tmp_path / "packed").samples == 1
