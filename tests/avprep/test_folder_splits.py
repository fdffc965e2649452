"""Folders named as splits are are splits, not classes, and all splits have one numbering."""

from __future__ import annotations

import json

import pytest

from avprep.errors import UserError
from avprep.labels import label_set_from_names, labels_of, write_label_csv
from avprep.manifest.model import read_manifest
from tests.avprep.test_manifest_commands import run, touch


def listed(root, *words, out="m.json"):
    """(split, labels) of each video, by stem; and what was said."""
    path = root / "out" / out
    said = run("manifest", "folder", root / "v", "--out", path, *words)
    return {
        clip.video_id: (clip.split, ",".join(clip.labels)) for clip in read_manifest(path)
    }, said


@pytest.mark.parametrize(
    ("one", "other"),
    [("train", "test"), ("training", "validation"), ("Train", "Val"), ("train", "valid"),
     ("dev", "eval"), ("train_set", "test-set"), ("train2017", "val2017"), ("trainval", "testing")],
)  # fmt: skip
def test_sub_folders_that_are_splits_hold_classes(one, other, tmp_path):
    touch(tmp_path / "v", f"{one}/ant/1.mp4", f"{one}/bee/x/2.mp4", f"{other}/bee/3.mp4")
    found, said = listed(tmp_path)
    assert found == {"1": (one, "ant"), "2": (one, "bee"), "3": (other, "bee")}
    assert f"its folders are splits: {min(one, other)} (" in said
    assert "has all splits; --split" in said
    assert labels_of(tmp_path / "out" / "m.json").names == ("ant", "bee")


def test_manifests_of_splits_have_one_numbering(tmp_path):
    touch(tmp_path / "v", "train/ant/1.mp4", "train/cow/2.mp4", "test/bee/3.mp4", "test/cow/4.mp4")
    train, said = listed(tmp_path, "--split", "train", out="train.json")
    test, _ = listed(tmp_path, "--split", "TEST", out="test.json")
    assert (set(train), set(test)) == ({"1", "2"}, {"3", "4"})
    assert "holds all splits" not in said
    numbering = labels_of(tmp_path / "out" / "train.json")
    assert numbering == labels_of(tmp_path / "out" / "test.json")
    assert numbering.names == ("ant", "bee", "cow")


def test_a_folder_of_unlabelled_videos_is_no_class(tmp_path):
    touch(tmp_path / "v", "train/ant/1.mp4", "unlabelled/2.mp4", "unlabeled/x/3.mp4", "4.mp4")
    found, said = listed(tmp_path)
    assert found == {
        "1": ("train", "ant"), "2": ("unlabelled", ""), "3": ("unlabeled", ""), "4": ("", ""),
    }  # fmt: skip
    assert "3 clips without a label" in said


def test_an_unlabelled_folder_beside_classes_is_no_class(tmp_path):
    touch(tmp_path / "v", "ant/1.mp4", "unlabelled/2.mp4")
    found, _ = listed(tmp_path)
    assert found == {"1": ("", "ant"), "2": ("", "")}
    assert labels_of(tmp_path / "out" / "m.json").names == ("ant",)


def test_splits_may_lie_below_the_classes(tmp_path):
    touch(tmp_path / "v", "ant/train/1.mp4", "ant/test/2.mp4", "bee/train/3.mp4")
    found, _ = listed(tmp_path)
    assert found == {"1": ("train", "ant"), "2": ("test", "ant"), "3": ("train", "bee")}


def test_flat_splits_are_unlabelled(tmp_path):
    touch(tmp_path / "v", "train/1.mp4", "test/2.mp4")
    found, said = listed(tmp_path)
    assert found == {"1": ("train", ""), "2": ("test", "")}
    assert "2 clips, 0 classes" in said


def test_a_train_among_vehicles_is_a_class(tmp_path):
    touch(tmp_path / "v", "car/1.mp4", "train/2.mp4", "train/steam/3.mp4", "bus/4.mp4")
    found, said = listed(tmp_path)
    assert found == {"1": ("", "car"), "2": ("", "train"), "3": ("", "train"), "4": ("", "bus")}
    assert "splits" not in said


def test_folders_are_classes_where_the_class_csv_says_so(tmp_path):
    touch(tmp_path / "v", "train/1.mp4", "test/2.mp4")
    write_label_csv(tmp_path / "l.csv", label_set_from_names(["train", "test"]))
    found, _ = listed(tmp_path, "--labels", tmp_path / "l.csv")
    assert found == {"1": ("", "train"), "2": ("", "test")}


@pytest.mark.parametrize(
    "files", [("train/ant/1.mp4", "test/ant/2.mp4", "bee/3.mp4"), ("ant/1.mp4", "test/ant/2.mp4")]
)
def test_splits_among_classes_are_refused(files, tmp_path):
    touch(tmp_path / "v", *files)
    with pytest.raises(UserError, match=r"test/ .*look like splits, .*/ like a class.*--csv"):
        listed(tmp_path)


def test_one_split_s_folder_tells_of_the_others(tmp_path):
    touch(tmp_path / "v", "train/ant/1.mp4", "test/ant/2.mp4")
    words = ("manifest", "folder", tmp_path / "v" / "train", "--out", tmp_path / "m.json")
    assert f"`avprep manifest folder {tmp_path}/v --split train` numbers those of all" in run(
        *words
    )
    labels = ("--labels", tmp_path / "m.classes.csv")
    assert "--split" not in run(*words[:-1], tmp_path / "n.json", *labels)


def test_a_split_that_is_not_there_is_explained(tmp_path):
    touch(tmp_path / "v", "train/ant/1.mp4", "test/ant/2.mp4")
    with pytest.raises(UserError, match=r"has no split 'val'; it has test, train\."):
        listed(tmp_path, "--split", "val")
    touch(tmp_path / "flat", "1.mp4")
    words = ("manifest", "folder", tmp_path / "flat", "--out", tmp_path / "m.json")
    with pytest.raises(UserError, match=r"has no splits.*Leave --split out.*manifest split"):
        run(*words, "--split", "train")


def test_the_splits_of_a_listing_have_one_numbering(tmp_path):
    touch(tmp_path / "v", "1.mp4", "2.mp4")
    (tmp_path / "c.csv").write_text("path,label,split\n1.mp4,bee,train\n2.mp4,ant,test\n")
    words = ("--csv", tmp_path / "c.csv", "--split")
    assert listed(tmp_path, *words, "train", out="a.json")[0] == {"1": ("train", "bee")}
    found, said = listed(tmp_path, *words, "Test", "--json", out="b.json")
    assert found == {"2": ("test", "ant")}
    assert json.loads(said)["extra"] == 0
    assert labels_of(tmp_path / "out" / "a.json").names == ("ant", "bee")


def test_the_classes_of_splits_are_a_class_csv_too(tmp_path):
    touch(tmp_path / "v", "train/ant/1.mp4", "test/bee/2.mp4")
    assert "2 classes" in run("labels", "folder", tmp_path / "v", "--out", tmp_path / "l.csv")


@pytest.mark.parametrize("around", ["data", "data/videos"])
def test_the_folder_around_all_splits_is_no_class(around, tmp_path):
    touch(tmp_path / "v", f"{around}/train/ant/1.mp4", f"{around}/test/bee/2.mp4")
    found, _ = listed(tmp_path)
    assert found == {"1": ("train", "ant"), "2": ("test", "bee")}


def test_a_class_with_splits_in_it_is_a_class_though_it_is_the_only_one(tmp_path):
    touch(tmp_path / "v", "ant/train/1.mp4", "ant/test/2.mp4")
    assert listed(tmp_path)[0] == {"1": ("train", "ant"), "2": ("test", "ant")}


@pytest.mark.parametrize(
    ("one", "other"),
    [("my_train", "my_test"), ("train-clean", "test-clean"), ("fold1", "fold2"),
     ("split 1", "split 2"),
     ("kinetics400_train", "kinetics400_val"), ("balanced_train_segments", "eval_segments")],
)  # fmt: skip
def test_folders_in_which_classes_recur_are_splits_if_they_may_be(one, other, tmp_path):
    touch(tmp_path / "v", f"{one}/ant/1.mp4", f"{one}/bee/2.mp4", f"{other}/Bee/3.mp4")
    found, said = listed(tmp_path)
    assert found == {"1": (one, "ant"), "2": (one, "bee"), "3": (other, "Bee")}
    assert "the classes Bee and bee differ in case only; are they one?" in said


@pytest.mark.parametrize(
    "folders", [("train station/a", "test tube/b"), ("fold1", "fold2"), ("ant/x", "my_test/x")]
)
def test_classes_that_are_called_like_splits_stay_classes(folders, tmp_path):
    touch(tmp_path / "v", *(f"{folder}/{n}.mp4" for n, folder in enumerate(folders)))
    found, _ = listed(tmp_path)
    assert found == {str(n): ("", folder.split("/")[0]) for n, folder in enumerate(folders)}


@pytest.mark.parametrize("above", ["", "train/"])
def test_an_only_class_with_folders_in_it_is_doubted(above, tmp_path):
    touch(tmp_path / "v", f"{above}videos/ant/1.mp4", f"{above}videos/bee/2.mp4")
    assert "the only class is videos, which contains folders" in listed(tmp_path)[1]


def test_the_current_folder_may_hold_loose_videos_beside_its_only_class(tmp_path, monkeypatch):
    touch(tmp_path, "ant/a.mp4", "loose.mp4")
    monkeypatch.chdir(tmp_path)
    assert "1 clip without a label" in run("manifest", "folder", ".", "--out", "m.json")
    assert {clip.video: clip.labels for clip in read_manifest(tmp_path / "m.json")} == {
        "ant/a.mp4": ("ant",),
        "loose.mp4": (),
    }


def test_an_only_class_beside_videos_without_a_folder_is_not_doubted(tmp_path):
    touch(tmp_path / "v", "dog/puppies/1.mp4", "2.mp4")
    found, said = listed(tmp_path)
    assert found == {"1": ("", "dog"), "2": ("", "")}
    assert "only class" not in said
