"""VGGSound's classes have the numbers that published classifiers know them by."""

from __future__ import annotations

import json
import random

import pytest

from avprep.errors import UserError
from avprep.labels import LabelSet, read_label_csv, vggsound_labels
from avprep.manifest.model import read_manifest
from tests.avprep.test_manifest_commands import run, touch

ENDS = {0: "ambulance siren", 1: "basketball bounce", 2: "bird chirping, tweeting"}


def test_the_numbering_is_the_published_one_for_all_309(shared):
    published = read_label_csv(shared / "metadata" / "class_labels_indices_vgg.csv")
    assert vggsound_labels() == published
    assert len(published) == 309


def test_the_order_is_not_the_alphabet_and_mids_count_from_0():
    labels = vggsound_labels()
    assert labels.mids == tuple(f"vgg_{number}" for number in range(309))
    assert list(labels.names) != sorted(labels.names)
    assert {number: labels.names[number] for number in ENDS} == ENDS
    assert all(labels.resolve(name) == f"vgg_{n}" for n, name in enumerate(labels.names))


def vggsound_csv(folder, names):
    """A CSV with a row for each name, in another order, and its files."""
    rows = [(f"{number:011d}", name) for number, name in enumerate(names)]
    random.Random(0).shuffle(rows)
    text = "".join(f'{video_id},30,"{name}",train\n' for video_id, name in rows)
    (folder / "vggsound.csv").write_text(text)
    touch(folder / "v", *(f"{video_id}.mp4" for video_id, _ in rows))
    return ("manifest", "vggsound", "--csv", folder / "vggsound.csv", "--videos", folder / "v")


def test_a_manifest_of_vggsound_has_the_published_numbers(tmp_path):
    labels = vggsound_labels()
    words = vggsound_csv(tmp_path, labels.names)
    said = json.loads(run(*words, "--out", tmp_path / "m.json", "--json"))
    assert said["classes"] == 309
    clips = read_manifest(tmp_path / "m.json")
    assert len(clips) == 309
    assert all(labels.index_of(clip.labels[0]) == int(clip.video_id[:11]) for clip in clips)


def test_a_part_of_vggsound_keeps_all_309_classes(tmp_path):
    words = vggsound_csv(tmp_path, ["ambulance siren"])
    assert "1 clip, 309 classes" in run(*words, "--out", tmp_path / "m.json")


def test_a_name_that_vggsound_lacks_is_named_with_the_nearest(tmp_path):
    words = vggsound_csv(tmp_path, ["ambulance siren", "ambulance sirene"])
    with pytest.raises(UserError, match=r"'ambulance sirene'.*did you mean 'ambulance siren'\?"):
        run(*words, "--out", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_classes_of_ones_own_are_numbered_by_a_class_csv_of_ones_own(tmp_path):
    words = vggsound_csv(tmp_path, ["zither tuning", "ambulance siren"])
    run(*words, "--labels", tmp_path / "mine.csv", "--out", tmp_path / "m.json")
    names = ("ambulance siren", "zither tuning")
    assert read_label_csv(tmp_path / "mine.csv") == LabelSet(names, names)


def test_the_class_csv_of_vggsound_is_written_and_the_csv_checked(tmp_path):
    vggsound_csv(tmp_path, ["ambulance siren", "zither tuning"])
    out = tmp_path / "vgg.csv"
    with pytest.raises(UserError, match=r"unknown label 'zither tuning'"):
        run("labels", "vggsound", tmp_path / "vggsound.csv", "--out", out)
    assert not out.exists()
    assert "309 classes" in run("labels", "vggsound", "--out", out)
    assert read_label_csv(out) == vggsound_labels()
