"""VGGSounder's figures are those of its Python package, of every kind of truth and subset."""

from __future__ import annotations

import csv
import json
import pickle

import numpy as np
import pytest
import torch

import cavmae
from avprep.errors import UserError
from avprep.labels import vggsound_labels
from cavmae.checkpoints import save_model
from cavmae.checkpoints.usage import labels_metadata
from cavmae.cli.eval import described, facts_of
from cavmae.evaluation.metrics import finite
from cavmae.evaluation.vggsounder import (
    META,
    TRUTHS,
    Annotations,
    annotations_of,
    confusion,
    figures,
    subset_figures,
)
from cavmae.model import CAVMAEClassifier
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import CLASSES, write_tiny_shards

HEAD = "video_id,label,modality,background_music,static_image,voice_over\n"


def naive(scores, truth, k):
    """The definitions, clip by clip."""
    rows = [row for row in range(len(truth)) if truth[row].any()]
    hits = exact = right = asked = given = 0
    per_class = np.zeros((truth.shape[1], 3))
    for row in rows:
        wanted = {int(label) for label in np.flatnonzero(truth[row])}
        chosen = {int(label) for label in np.argsort(scores[row])[-k:]}
        hits += bool(wanted & chosen)
        exact += wanted == chosen
        right += len(wanted & chosen)
        asked += len(wanted)
        given += len(chosen)
        for label in range(truth.shape[1]):
            per_class[label] += [label in wanted & chosen, label in wanted, label in chosen]
    macro = [2 * r / (a + g) if a + g else 0 for r, a, g in per_class]
    return {
        f"hit_rate@{k}": hits / len(rows),
        f"accuracy@{k}": exact / len(rows),
        f"precision@{k}": right / given,
        f"recall@{k}": right / asked,
        f"f1@{k}": 2 * right / (asked + given),
        f"f1_macro@{k}": np.mean(macro),
        f"jaccard@{k}": right / (asked + given - right),
    }


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_definitions(seed):
    random = np.random.default_rng(seed)
    truth = random.random((40, 12)) < 0.12
    truth[:, 5] = False  # a class that no clip has
    scores = random.random(truth.shape)
    found = figures(scores, truth, scores.argsort(axis=1))
    assert found["clips"] == truth.any(axis=1).sum() < 40
    for k in (1, 3, 5, 10):
        assert {name: found[name] for name in naive(scores, truth, k)} == pytest.approx(
            naive(scores, truth, k), abs=1e-12
        )


def test_each_truth_has_the_labels_of_its_modality_and_each_subset_its_clips():
    modalities = np.array([[1, 2, 0], [3, 0, 1], [0, 0, 2]], np.uint8)
    made = Annotations(modalities, np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0]], bool))
    assert {name: made.truth(name).sum(axis=1).tolist() for name in TRUTHS} == {
        "a": [1, 2, 0], "v": [1, 1, 1], "av": [0, 1, 0], "a only": [1, 1, 0],
        "v only": [1, 0, 1], "all": [2, 2, 1],
    }  # fmt: skip
    assert {name: np.flatnonzero(rows).tolist() for name, rows in made.subsets().items()} == {
        "all clips": [0, 1, 2], "background music": [0, 2], "no background music": [1],
        "static image": [2], "no static image": [0, 1], "voice over": [1],
        "no voice over": [0, 2],
    }  # fmt: skip
    found = subset_figures(np.eye(3), made)
    assert found["static image"]["av"] == {"clips": 0}
    assert found["all clips"]["all"]["hit_rate@1"] == pytest.approx(2 / 3)


def test_confusion_is_one_modality_alone_being_right():
    truth = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], bool)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    both = np.array([right, wrong, wrong, wrong])
    audio = np.array([right, right, wrong, right])
    image = np.array([wrong, right, right, wrong])
    assert confusion(both, audio, image, truth) == {"a": 0.5, "v": 0.5, "av": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounder")
    write_tiny_shards(folder / "shards", samples=13)
    torch.manual_seed(1)
    facts = {"criterion": "ce", "mode": "multimodal", **labels_metadata(CLASSES)}
    save_model(folder / "classifier.safetensors", CAVMAEClassifier(TINY, 4), facts)
    rows = [
        "clip.0,Ape,AV,True,False,False", 'clip.0,"Bell, big",A,True,False,False',
        "clip.3,Dog,V,False,False,True", "clip.7,Cat,A,False,False,False",
        "clip.7,Dog,AV,False,False,False", "clip.99,Dog,AV,False,False,False",
    ]  # fmt: skip
    (folder / "s.csv").write_text(HEAD + "\n".join(rows) + "\n")
    return folder


def evaluated(folder, **more):
    options = cavmae.EvaluateOptions(
        shards=str(folder / "shards"),
        checkpoint=folder / "classifier.safetensors",
        workers=0,
        device="cpu",
        **{"vggsounder": folder / "s.csv", **more},
    )
    return cavmae.evaluate(options, on_note=lambda note: None)


def test_eval_measures_the_clips_of_the_csv_by_its_labels(folder, tmp_path):
    result = evaluated(folder, modes="all", scores=tmp_path / "scores.npz")
    assert (result.clips, result.coverage.absent) == (3, ("clip.99",))
    stored = cavmae.read_scores(tmp_path / "scores.multimodal.npz")
    truth = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]], bool)
    assert result.modes[0].vggsounder["all clips"]["all"] == figures(
        stored.scores, truth, stored.scores.argsort(axis=1)
    )
    text = "\n".join(described(result))
    assert "VGGSounder, missingvideoonly (picture only, to a model of both)" in text
    assert "right with one modality and wrong with both: sound" in text
    facts = json.loads(json.dumps(finite(facts_of(result))))
    assert set(facts["modes"]["videoonly"]["vggsounder"]["no voice over"]) == set(TRUTHS)
    assert set(facts["confusion"]) == {"a", "v", "av"}
    assert not evaluated(folder).confusion


def test_a_bad_row_and_two_lists_are_refused(folder, tmp_path):
    (tmp_path / "s.csv").write_text(HEAD + "clip.0,Ape,AV,True,False,False\nclip.0,Ass,A,1,0,0\n")
    with pytest.raises(UserError, match=r"s\.csv: line 3: unknown label 'Ass'"):
        evaluated(folder, vggsounder=tmp_path / "s.csv")
    with pytest.raises(UserError, match="--ids and --vggsounder both say which clips"):
        evaluated(folder, ids=folder / "s.csv")


@pytest.mark.parametrize("seed", range(2))
def test_figures_are_those_of_the_python_package(tmp_path, seed):
    """Skips without the package, which this project does not need."""
    labels = pytest.importorskip("vggsounder.labels")
    benchmark = pytest.importorskip("vggsounder.benchmark")
    random, classes = np.random.default_rng(seed), vggsound_labels()
    with (tmp_path / "s.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "label", "modality", *META])
        for clip in range(400):
            meta = random.random(3) < 0.4
            for label in random.choice(309, random.integers(1, 5), replace=False):
                modality = random.choice(["A", "V", "AV"])
                writer.writerow([f"clip{clip}_000001", classes.names[label], modality, *meta])
    ids = [f"clip{clip}_000001" for clip in range(400)]
    scores = {name: random.random((400, 309)) for name in ("a", "v", "av")}
    stored = {
        video_id: {"logits": {name: one[row].tolist() for name, one in scores.items()}}
        for row, video_id in enumerate(ids)
    }
    (tmp_path / "ours.pkl").write_bytes(pickle.dumps(stored))
    made = annotations_of(tmp_path / "s.csv", ids, classes)
    ours = {name: subset_figures(one, made) for name, one in scores.items()}
    for place, subset in enumerate(("all clips", *(name.replace("_", " ") for name in META))):
        filters = dict.fromkeys(META)
        if place:
            filters[META[place - 1]] = True
        theirs = benchmark.compute_all_results(
            str(tmp_path), vggsounder=labels.VGGSounder(tmp_path / "s.csv", **filters)
        )["ours"]
        for truth in ("a", "v", "av", "a only", "v only"):
            expected = {name: value for name, value in theirs[truth].items() if name != "mu"}
            found = ours[truth.split()[0]][subset][truth]
            assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        rows = made.subsets()[subset]
        mu = confusion(*(scores[name][rows] for name in ("av", "a", "v")), made.truth("all")[rows])
        if not place:
            assert mu == pytest.approx({name: theirs[name]["mu"] for name in mu}, abs=1e-9)
