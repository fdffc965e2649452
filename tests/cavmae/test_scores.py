"""Scores in files, what they say of a classifier, and how sure that is."""

from __future__ import annotations

import csv
import gc
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cavmae
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.progress import ignore
from avprep.selection import write_selection
from cavmae.checkpoints import save_model
from cavmae.checkpoints.usage import labels_metadata
from cavmae.cli import group
from cavmae.cli.eval import described, facts_of
from cavmae.data import Batch
from cavmae.evaluation.bootstrap import draw, drawn_figures, interval, score_intervals
from cavmae.evaluation.compare import p_value
from cavmae.evaluation.metrics import score
from cavmae.evaluation.score_files import ClipScores, read_scores, write_scores
from cavmae.model import CAVMAEClassifier
from cavmae.options import MODES
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import CLASSES, write_tiny_shards

SUFFIXES = (".npz", ".parquet", ".csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A shard set of thirteen clips, and a classifier."""
    folder = tmp_path_factory.mktemp("scores")
    write_tiny_shards(folder / "shards", samples=13)
    torch.manual_seed(1)
    model = CAVMAEClassifier(TINY, 4)
    with torch.no_grad():
        model.mlp_head[1].weight.normal_(std=3.0)
    facts = {"criterion": "ce", "mode": "multimodal", **labels_metadata(CLASSES)}
    save_model(folder / "classifier.safetensors", model, facts)
    return folder


def evaluated(folder, batch_size=5, on_progress=ignore, **more):
    return cavmae.evaluate(
        cavmae.EvaluateOptions(
            shards=str(folder / "shards"),
            **{"checkpoint": folder / "classifier.safetensors", **more},
            workers=0,
            batch_size=batch_size,
            device="cpu",
        ),
        on_progress=on_progress,
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_figures_computed_from_the_file_are_those_of_eval(folder, tmp_path, suffix):
    path = tmp_path / "new" / f"scores{suffix}"
    result = evaluated(folder, scores=path)
    found = read_scores(path)
    assert found.kind == "probabilities"
    assert found.video_ids == tuple(f"clip.{n}" for n in range(13))
    assert found.classes.mids == CLASSES.mids
    assert [found.mids_of(row) for row in range(3)] == [["/m/a"], ["/m/b"], ["/m/c"]]
    assert score(found.scores, found.labels.astype(float)) == result.scores
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # and nothing half-written
    if suffix != ".csv":
        assert found.classes.names == CLASSES.names
        assert (found.about["mode"], found.about["frames"]) == ("multimodal", "all")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_logits_give_the_probabilities_of_one_frame(folder, tmp_path, suffix):
    paths = {kind: tmp_path / f"{kind}{suffix}" for kind in ("logits", "probabilities")}
    for kind, path in paths.items():
        evaluated(folder, scores=path, score_kind=kind, frames=1)
    logits, probabilities = (read_scores(path) for path in paths.values())
    assert (logits.kind, probabilities.kind) == ("logits", "probabilities")
    softmax = torch.from_numpy(logits.scores).softmax(dim=1).numpy()
    assert np.abs(softmax - probabilities.scores).max() < 1e-6
    assert np.abs(logits.scores).max() > 1


def test_all_modes_are_those_that_are_asked_for_one_by_one(folder, tmp_path):
    path = tmp_path / "scores.npz"
    result = evaluated(folder, modes="all", scores=path)
    assert sorted(one.mode for one in result.modes) == sorted(MODES)
    assert result.mode == "multimodal"
    for one in result.modes:
        alone = tmp_path / f"alone.{one.mode}.npz"
        assert one.scores == evaluated(folder, mode=one.mode, scores=alone).scores
        together, apart = read_scores(path.with_suffix(f".{one.mode}.npz")), read_scores(alone)
        assert (together.scores == apart.scores).all()
        assert together.about["mode"] == one.mode
    assert not path.exists()


def test_all_modes_read_every_clip_once(folder, monkeypatch):
    from cavmae.data.shardset import ShardSet

    numbers: list[int] = []
    read_many = ShardSet.read_many

    def counted(self, wanted, *how):
        wanted = list(map(int, wanted))
        numbers.extend(wanted)
        return read_many(self, wanted, *how)

    monkeypatch.setattr(ShardSet, "read_many", counted)
    evaluated(folder, modes="all")
    assert sorted(numbers) == list(range(13))


def test_batches_are_let_go_when_they_are_done(folder):
    """Sounds and pictures of all clips together do not fit into memory."""

    def count() -> int:
        return sum(isinstance(each, Batch) for each in gc.get_objects())

    before, alive = count(), []  # other tests' may be about
    evaluated(folder, batch_size=1, on_progress=lambda progress: alive.append(count()))
    assert len(alive) > 13
    assert max(alive) - before <= 3


def test_the_table_says_in_words_what_each_mode_is_given(folder):
    result = evaluated(folder, modes="all", bootstrap=20)
    lines = [line.split() for line in described(result)]
    words = {line[0]: " ".join(line[1:]) for line in lines if line[0] in MODES}
    averaged = "3, their probabilities averaged"
    assert words == {
        "multimodal": f"sound and picture {averaged}",
        "audioonly": "sound only none",
        "videoonly": f"picture only {averaged}",
        "missingaudioonly": "sound only, to a model of both none",
        "missingvideoonly": f"picture only, to a model of both {averaged}",
    }
    assert sum("accuracy" in line for line in lines) == 5
    one = "\n".join(described(evaluated(folder, modes="all", frames="middle")))
    assert "picture only, to a model of both  number 1" in one


def test_a_model_without_images_has_the_modes_of_sound(folder, tmp_path):
    torch.manual_seed(0)
    model = CAVMAEClassifier(TINY, 4)
    model.drop_images()
    facts = {"criterion": "ce", "mode": "audioonly", **labels_metadata(CLASSES)}
    save_model(tmp_path / "sound.safetensors", model, facts)
    result = evaluated(folder, modes="all", checkpoint=tmp_path / "sound.safetensors")
    assert [one.mode for one in result.modes] == ["audioonly", "missingaudioonly"]
    path = tmp_path / "scores.npz"
    alone = evaluated(folder, checkpoint=tmp_path / "sound.safetensors", scores=path)
    assert facts_of(alone)["frames"] == read_scores(path).about["frames"] == "none"


def test_the_command_prints_all_of_it_as_json(folder, tmp_path):
    write_selection(tmp_path / "ids.csv", ["clip.3", "nowhere", "clip.7", "clip.0"])
    words = [
        *("eval", "--shards", folder / "shards"),
        *("--checkpoint", folder / "classifier.safetensors", "--modes", "all", "--json"),
        *("--ids", tmp_path / "ids.csv", "--bootstrap", 50, "--workers", 0, "--device", "cpu"),
    ]
    printed = CliRunner().invoke(group, list(map(str, words)))
    assert printed.exit_code == 0, printed.exception
    assert "lacks 1 of the 4 clips that" in printed.stderr
    facts = json.loads(printed.stdout)
    assert (facts["ids_listed"], facts["ids_absent"], facts["absent"]) == (4, 1, ["nowhere"])
    assert (facts["clips"], facts["clips_selected"]) == (3, 3)
    assert facts["modes"]["missingaudioonly"]["given"] == "sound only, to a model of both"
    assert facts["modes"]["missingaudioonly"]["frames"] == "none"
    low, high = facts["modes"]["videoonly"]["accuracy_interval"]
    assert low <= facts["modes"]["videoonly"]["accuracy"] <= high


def test_coverage_comes_before_any_score(folder, tmp_path):
    write_selection(tmp_path / "ids.csv", ["clip.3", "nowhere"])
    with pytest.warns(UserWarning, match=r"lacks 1 of the 2 clips that .* names: nowhere"):
        result = evaluated(folder, ids=tmp_path / "ids.csv")
    first, *_ = described(result)
    assert (
        first
        == f"1 of the 2 clips that {tmp_path}/ids.csv names are in the shard set; absent: nowhere"
    )
    write_selection(tmp_path / "other.csv", ["x"])
    with pytest.raises(UserError, match=r"none of the 1 clip that it names \(x\); .* clip\.0"):
        evaluated(folder, ids=tmp_path / "other.csv")


def test_options_that_exclude_each_other_are_refused(folder):
    with pytest.raises(UserError, match="--mode audioonly and --modes all exclude each other"):
        evaluated(folder, mode="audioonly", modes="all")
    with pytest.raises(UserError, match=r"x\.txt: the name must end in \.npz, \.parquet, \.csv"):
        evaluated(folder, scores="x.txt")


def made_up(seed, clips=60, classes=5, single=False):
    random = np.random.default_rng(seed)
    labels = random.random((clips, classes)) < 0.3
    if single:
        labels = np.eye(classes, dtype=bool)[random.integers(0, classes, clips)]
    # Coarse, so that there are ties.
    scores = np.round(random.random((clips, classes)) + 0.4 * labels, 1)
    names = tuple(f"c{n}" for n in range(classes))
    ids = tuple(f"v{n}" for n in range(clips))
    return ClipScores("probabilities", ids, scores, labels, LabelSet(names, names))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("memory", [1, 2**28])
def test_figures_of_draws_are_those_of_repeated_clips(single, memory):
    made = made_up(0, single=single)
    drawn: list[torch.Tensor] = []

    def figures(weights):
        drawn.append(weights)
        return drawn_figures(made.scores, made.labels, weights)

    found = draw(60, 7, 3, figures, memory)
    weights = torch.cat(drawn, dim=1).long().numpy()
    assert weights.shape == (60, 7)
    assert (weights.sum(axis=0) == 60).all()
    for place in range(7):
        rows = np.repeat(np.arange(60), weights[:, place])
        expected = score(made.scores[rows], made.labels[rows].astype(float))
        assert float(found["map"][place]) == pytest.approx(expected.map, abs=1e-12)
        assert float(found["accuracy"][place]) == pytest.approx(expected.accuracy, abs=1e-12)


def test_clips_drawn_once_give_the_figures_themselves():
    made = made_up(1)
    found = drawn_figures(made.scores, made.labels, torch.ones(60, 1))
    expected = score(made.scores, made.labels.astype(float))
    assert float(found["map"]) == pytest.approx(expected.map, abs=1e-12)
    assert float(found["accuracy"]) == pytest.approx(expected.accuracy, abs=1e-12)


def test_a_class_that_is_not_drawn_is_left_out_of_the_mean():
    truth = np.array([[True, False], [False, True], [True, False]])
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
    found = drawn_figures(scores, truth, torch.tensor([[2.0], [0.0], [1.0]]))
    assert float(found["map"]) == pytest.approx(1.0)
    assert torch.isnan(drawn_figures(scores, truth & False, torch.ones(3, 2))["map"]).all()


def test_intervals_are_as_wide_as_theory_says_and_the_same_for_the_same_seed():
    random = np.random.default_rng(0)
    truth = np.eye(2)[random.integers(0, 2, 1000)]
    right = random.random(1000) < 0.7
    scores = np.where(right[:, None], truth, 1 - truth)
    found = score_intervals(scores, truth, 2000, seed=1)
    assert found == score_intervals(scores, truth, 2000, seed=1)
    assert found != score_intervals(scores, truth, 2000, seed=2)
    share = right.mean()
    width = 2 * 1.96 * (share * (1 - share) / 1000) ** 0.5
    accuracy = found["accuracy"]
    assert accuracy.high - accuracy.low == pytest.approx(width, rel=0.1)
    assert accuracy.low < share < accuracy.high


def test_the_interval_leaves_draws_without_a_value_out():
    values = torch.cat([torch.arange(1001).double(), torch.full((5,), torch.nan).double()])
    found = interval(values)
    assert (found.low, found.high) == (pytest.approx(25.0), pytest.approx(975.0))
    assert np.isnan(interval(torch.full((3,), torch.nan)).low)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_comparison_is_paired(tmp_path, suffix):
    one = made_up(2, clips=300, single=True)
    better = one.scores + 0.15 * one.labels
    write_scores(tmp_path / f"a{suffix}", one)
    shuffled = replace(one, scores=better).only(np.random.default_rng(0).permutation(300))
    write_scores(tmp_path / f"b{suffix}", shuffled)
    paths = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    result = cavmae.compare(*paths, cavmae.CompareOptions(bootstrap=200))
    for name in ("accuracy", "map"):
        found = result.figures[name]
        expected = [score(each, one.labels.astype(float)) for each in (one.scores, better)]
        assert [found.first, found.second] == pytest.approx(
            [getattr(each, name) for each in expected], abs=1e-12
        )
        assert 0 < found.interval.low < found.second - found.first < found.interval.high
        assert found.p_value == pytest.approx(2 / 201)
    backwards = cavmae.compare(*paths[::-1], cavmae.CompareOptions(bootstrap=200))
    assert backwards.figures["map"].interval.high == pytest.approx(
        -result.figures["map"].interval.low
    )


def test_equal_classifiers_do_not_differ():
    assert p_value(torch.zeros(99)) == 1.0
    assert p_value(torch.tensor([-1.0, 1.0, 2.0, 3.0])) == pytest.approx(0.8)
    assert p_value(torch.full((999,), -0.1)) == pytest.approx(0.002)


def test_files_of_other_clips_are_refused_unless_common_ones_are_wanted(tmp_path):
    one = made_up(3)
    write_scores(tmp_path / "a.npz", one)
    write_scores(tmp_path / "b.npz", one.only(np.arange(20, 60)))
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    with pytest.raises(
        UserError, match=r": 20 clips of .*a\.npz \(v0, v1, v10, …\) not in the other"
    ):
        cavmae.compare(first, second)
    printed = CliRunner().invoke(
        group, ["compare", str(first), str(second), "--common", "--bootstrap", "30"]
    )
    assert "40 clips in both, 30 draws; 20 only in A and 0 only in B are left out" in printed.output
    facts = CliRunner().invoke(group, ["compare", str(first), str(second), "--common", "--json"])
    assert json.loads(facts.output)["map"]["difference"] == 0
    write_scores(tmp_path / "c.npz", replace(one.only(np.arange(2)), video_ids=("x", "y")))
    with pytest.raises(UserError, match="no clip in common; they name v0, … and x, …"):
        cavmae.compare(first, tmp_path / "c.npz", cavmae.CompareOptions(common=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ~made_up(4).labels}, "disagree on the labels of 60 clips, such as v0"),
        ({"kind": "logits"}, "holds probabilities, .* logits. Write both with the same"),
        ({"classes": LabelSet(tuple("abcde"), tuple("abcde"))}, "different classes: class 0 is"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(tmp_path, change, message):
    write_scores(tmp_path / "a.npz", made_up(4))
    write_scores(tmp_path / "b.npz", replace(made_up(4), **change))
    with pytest.raises(UserError, match=message):
        cavmae.compare(tmp_path / "a.npz", tmp_path / "b.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_files_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(UserError, match=rf"a\{suffix}: cannot be read"):
        read_scores(path)
    path.write_bytes(b"video_id,labels\nx,y\n")
    with pytest.raises(UserError, match=rf"a\{suffix}: not a file of scores"):
        read_scores(path)
    np.savez(tmp_path / "other.npz", labels=np.zeros(3))
    with pytest.raises(UserError, match="expected one of probabilities, logits, found labels"):
        read_scores(tmp_path / "other.npz")


def test_a_csv_of_scores_is_a_plain_table(tmp_path):
    write_scores(tmp_path / "a.csv", replace(made_up(5), kind="logits"))
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video_id", "labels", *(f"logits:c{n}" for n in range(5))]
    assert float(rows[7]["logits:c2"]) == made_up(5).scores[7, 2]


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.array([object()]), video_ids=np.array(["x"]))
    with pytest.raises(UserError, match="not a file of scores"):
        read_scores(tmp_path / "a.npz")
