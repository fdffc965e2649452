"""Each manifest has a class CSV of its own name; files of other names are nobody's business."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys

import pytest

from avprep import storage
from avprep.clips import Clip
from avprep.errors import UserError, WorkFailed
from avprep.labels import class_csv_of, label_set_from_names, labels_of, write_label_csv
from avprep.manifest.model import read_manifest, write_manifest
from tests.avprep.test_manifest_commands import run, touch

FOREIGN = "my labels\nof something else\n"


@pytest.fixture
def foreign(tmp_path):
    """A folder in which files of the usual names hold something else."""
    for name in ("labels.csv", "classes.csv"):
        (tmp_path / name).write_text(FOREIGN)
    yield tmp_path
    for name in ("labels.csv", "classes.csv"):
        assert (tmp_path / name).read_text() == FOREIGN


def names(manifest):
    """The classes of a manifest, in order."""
    return labels_of(manifest).names


def test_a_foreign_labels_csv_is_neither_read_nor_replaced(foreign, demo_clip):
    touch(foreign / "v", "bee/1.mp4", "ant/2.mp4")
    for name in ("bee/1.mp4", "ant/2.mp4"):
        (foreign / "v" / name).write_bytes(demo_clip.read_bytes())
    m = foreign / "m.json"
    said = run("manifest", "folder", foreign / "v", "--out", m)
    assert f"2 clips, 2 classes in {foreign}/m.classes.csv" in said
    assert names(m) == ("ant", "bee")
    assert "no problems" in run("manifest", "check", m, "--no-files")
    run("weights", m)
    run("manifest", "convert", m, foreign / "n.jsonl")
    run("manifest", "merge", m, foreign / "n.jsonl", "--out", foreign / "o.json")
    run("manifest", "sample", m, "--per-class", "1", "--out", foreign / "p.json")
    run("manifest", "split", m, "--parts", "a=1,b=1", "--out", foreign)
    for name in ("n.jsonl", "o.json", "p.json", "a.json", "b.json"):
        assert names(foreign / name) == ("ant", "bee"), name
    said = run("shard", m, "--out", foreign / "shards", "--workers", 1)
    assert f"{m}: 2 classes of {foreign}/m.classes.csv" in said
    said = run("shard", m, "--out", foreign / "shards", "--workers", 1, "--json")
    # Standard error is in it, too.
    summary = next(line for line in said.splitlines() if line.startswith("{"))
    assert json.loads(summary)["labels"] == f"{foreign}/m.classes.csv"


def test_without_its_class_csv_a_labelled_manifest_is_not_sharded(foreign):
    write_manifest(foreign / "m.json", [Clip("a", ("x",), "a.mp4")])
    with pytest.raises(UserError, match=r"no class CSV .*/m\.classes\.csv\..*--labels CSV"):
        run("shard", foreign / "m.json", "--out", foreign / "shards")


def test_a_foreign_file_of_the_class_csv_s_name_stops_the_build(tmp_path):
    touch(tmp_path / "v", "bee/1.mp4")
    (tmp_path / "m.classes.csv").write_text(FOREIGN)
    message = r"m\.classes\.csv: line 1 must be .* class CSV of m\.json: correct it, or rename it"
    with pytest.raises(UserError, match=message):
        run("manifest", "folder", tmp_path / "v", "--out", tmp_path / "m.json")
    assert (tmp_path / "m.classes.csv").read_text() == FOREIGN
    assert not (tmp_path / "m.json").exists()


def test_classes_that_are_numbered_are_not_numbered_again(tmp_path):
    touch(tmp_path / "v", "bee/1.mp4", "ant/2.mp4")
    m = tmp_path / "m.json"
    run("manifest", "folder", tmp_path / "v", "--out", m)
    touch(tmp_path / "v", "aardvark/3.mp4")
    with pytest.raises(UserError, match=r"m\.classes\.csv: has no class 'aardvark'.*delete this"):
        run("manifest", "folder", tmp_path / "v", "--out", m)
    other = tmp_path / "other.csv"
    write_label_csv(other, label_set_from_names(["aardvark", "ant", "bee"]))
    with pytest.raises(
        UserError, match=r"m\.classes\.csv: its classes differ from those of m\.json"
    ):
        run("manifest", "folder", tmp_path / "v", "--labels", other, "--out", m)
    assert len(read_manifest(m)) == 2
    class_csv_of(m).unlink()
    run("manifest", "folder", tmp_path / "v", "--out", m)
    assert names(m) == ("aardvark", "ant", "bee")


def test_a_class_csv_that_is_given_numbers_both_manifests(tmp_path):
    touch(tmp_path, "one/ant/1.mp4", "one/bee/2.mp4", "two/bee/3.mp4")
    run("manifest", "folder", tmp_path / "one", "--out", tmp_path / "one.json")
    given = ("--labels", tmp_path / "one.classes.csv")
    run("manifest", "folder", tmp_path / "two", *given, "--out", tmp_path / "two.json")
    assert names(tmp_path / "two.json") == ("ant", "bee")
    touch(tmp_path, "two/cow/4.mp4")
    with pytest.raises(UserError, match=r"one\.classes\.csv: has no class 'cow'"):
        run("manifest", "folder", tmp_path / "two", *given, "--out", tmp_path / "two.json")


@pytest.fixture
def labelled(tmp_path):
    m = tmp_path / "l" / "labelled.json"
    write_manifest(m, [Clip("a", ("ant",), "a.mp4"), Clip("b", ("bee",), "b.mp4")])
    write_label_csv(class_csv_of(m), label_set_from_names(["ant", "bee"]))
    return m


@pytest.fixture
def unlabelled(tmp_path):
    touch(tmp_path / "flat", "u.mp4")
    m = tmp_path / "u" / "unlabelled.json"
    run("manifest", "folder", tmp_path / "flat", "--out", m)
    return m


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("with_csv", [False, True])
def test_labelled_and_unlabelled_manifests_merge(turned, with_csv, labelled, unlabelled, tmp_path):
    if not with_csv:
        class_csv_of(unlabelled).unlink()
    sources = [unlabelled, labelled] if turned else [labelled, unlabelled]
    assert "3 clips" in run("manifest", "merge", *sources, "--out", tmp_path / "all.json")
    assert names(tmp_path / "all.json") == ("ant", "bee")
    assert sorted(len(clip.labels) for clip in read_manifest(tmp_path / "all.json")) == [0, 1, 1]


def conflict(labelled, tmp_path):
    write_manifest(tmp_path / "x.json", [Clip("a", ("bee",), "other.mp4")])
    return (labelled, tmp_path / "x.json"), "two different entries"


def other_classes(labelled, tmp_path):
    write_manifest(tmp_path / "x.json", [Clip("c", ("cow",), "c.mp4")])
    write_label_csv(tmp_path / "x.classes.csv", label_set_from_names(["cow"]))
    return (labelled, tmp_path / "x.json"), "x.classes.csv: its classes differ"


def unknown_class(labelled, tmp_path):
    write_manifest(tmp_path / "x.json", [Clip("c", ("cow",), "c.mp4")])
    return (labelled, tmp_path / "x.json"), "x.json: 'c' has the label 'cow'"


def broken(labelled, tmp_path):
    (tmp_path / "x.json").write_text('{"data": [')
    return (labelled, tmp_path / "x.json"), "not JSON"


def missing(labelled, tmp_path):
    return (labelled, tmp_path / "x.json"), "cannot read"


@pytest.mark.parametrize("fault", [conflict, other_classes, unknown_class, broken, missing])
def test_a_merge_that_fails_leaves_nothing(fault, labelled, tmp_path):
    sources, complaint = fault(labelled, tmp_path)
    with pytest.raises(UserError, match=complaint):
        run("manifest", "merge", *sources, "--out", tmp_path / "out" / "all.json")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_manifest_s_leaves_nothing(labelled, tmp_path):
    for words in (("merge", labelled, "--out"), ("convert", labelled)):
        with pytest.raises(UserError, match=r"a manifest's name ends in"):
            run("manifest", *words, tmp_path / "out" / "all.txt")
    assert not (tmp_path / "out").exists()


def test_a_conversion_that_fails_leaves_nothing(labelled, tmp_path):
    with pytest.raises(UserError, match=r"no path is below 'nowhere'"):
        run("manifest", "convert", labelled, tmp_path / "n.json", "--root", "nowhere=x")
    assert not list(tmp_path.glob("n*"))


def test_a_disk_that_is_full_for_the_class_csv_leaves_no_manifest(tmp_path):
    write_manifest(tmp_path / "m.json", [Clip("a", ("n1",), "a.mp4")])
    write_label_csv(tmp_path / "m.classes.csv", label_set_from_names(f"n{n}" for n in range(999)))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, unlimited[1]))
        with pytest.raises(WorkFailed, match="File too large"):
            run("manifest", "merge", tmp_path / "m.json", "--out", tmp_path / "out" / "all.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not list((tmp_path / "out").iterdir())


def test_what_a_killed_command_left_is_deleted_by_the_next(labelled, tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from avprep.clips import Clip;"
        "from avprep.manifest.model import write_labelled; from avprep.labels import labels_of;"
        "source, out = map(Path, sys.argv[1:]);"
        "write_labelled(out, (os.kill(os.getpid(), 9) for _ in 'x'), labels_of(source))"
    )
    out = tmp_path / "out" / "all.json"
    killed = subprocess.run([sys.executable, "-c", program, labelled, out], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [path.name for path in out.parent.iterdir()]
    assert left
    assert all(map(storage.is_temporary, left))
    run("manifest", "merge", labelled, "--out", out)
    assert {path.name for path in out.parent.iterdir()} == {"all.json", "all.classes.csv"}


def test_other_classes_where_the_result_goes_stop_every_command(labelled, tmp_path):
    taken = tmp_path / "out" / "train.classes.csv"
    write_label_csv(taken, label_set_from_names(["dog"]))
    train = taken.with_name("train.json")
    for words in (
        ("merge", labelled, "--out", train),
        ("convert", labelled, train),
        ("sample", labelled, "--per-class", "1", "--out", train),
        ("split", labelled, "--parts", "a=1,train=1", "--out", train.parent),
    ):
        with pytest.raises(UserError, match=r"train\.classes\.csv: its classes differ"):
            run("manifest", *words)
    assert [path.name for path in train.parent.iterdir()] == [taken.name]


def test_strict_leaves_no_class_csv(tmp_path):
    touch(tmp_path / "v", "abcdefghijk_000030.mp4")
    (tmp_path / "s.csv").write_text("abcdefghijk,30,rapping,test\nabcdefghijk,50,rapping,test\n")
    words = ("--csv", tmp_path / "s.csv", "--videos", tmp_path / "v", "--strict")
    with pytest.raises(WorkFailed):
        run("manifest", "vggsound", *words, "--out", tmp_path / "m.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.report.csv", "s.csv", "v"]
