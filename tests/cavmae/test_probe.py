"""One command probes several models, with the same classifiers as others would fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

import cavmae
from avprep.errors import UserError
from cavmae.checkpoints import save_model
from cavmae.cli import group
from cavmae.evaluation.options import LinearOptions
from cavmae.evaluation.probe import linear_scores, random_starts, whitening
from cavmae.evaluation.trained import load_trained
from cavmae.model import CAVMAE, CAVMAEClassifier
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import write_tiny_shards


def made_up(several):
    random = np.random.default_rng(0)
    known, asked = (
        random.normal(size=(120, 6)) * [1, 1, 9, 1, 0.1, 1] + 3,
        random.normal(size=(30, 6)),
    )
    if several:
        labels = (known[:, :3] + random.normal(size=(120, 3)) > [3, 3, 5]).astype(np.float32)
        labels[~labels.any(axis=1), 0] = 1
    else:
        labels = np.eye(3, dtype=np.float32)[((known[:, :3] - 3) / [1, 1, 9]).argmax(axis=1)]
    return known.astype(np.float32), labels, asked.astype(np.float32)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("penalty", [0.3, 0.01])
def test_the_linear_probe_is_the_logistic_regression_of_scikit_learn(several, penalty):
    known, labels, asked = made_up(several)
    mean, std = known.mean(axis=0), known.std(axis=0)
    tensors = [torch.from_numpy(each) for each in (known, labels, asked)]
    found = linear_scores(*tensors, LinearOptions(penalty=penalty))
    known, asked = ((each - mean).astype(np.float64) / std for each in (known, asked))
    fit = {"C": 1 / (penalty * len(known)), "tol": 1e-8, "max_iter": 5000}
    if several:
        expected = np.stack(
            [
                LogisticRegression(**fit).fit(known, one).decision_function(asked)
                for one in labels.T
            ],
            axis=1,
        )
        assert np.abs(found.numpy() - expected).max() < 1e-4
    else:
        model = LogisticRegression(**fit).fit(known, labels.argmax(axis=1))
        probabilities = found.softmax(dim=1).numpy()
        assert np.abs(probabilities - model.predict_proba(asked)).max() < 1e-4
    assert torch.equal(found, linear_scores(*tensors, LinearOptions(penalty=penalty)))


def test_clips_without_labels_teach_nothing():
    known, labels, asked = map(torch.from_numpy, made_up(several=False))
    more = torch.cat([known, 100 + known[:5]]), torch.cat([labels, torch.zeros(5, 3)])
    options = LinearOptions()
    assert torch.equal(
        linear_scores(*more, asked, options), linear_scores(known, labels, asked, options)
    )


def test_whitening_lets_few_labels_show_what_varies_little():
    random = torch.Generator().manual_seed(0)
    labels = torch.eye(2).repeat(150, 1)
    traits = 2 * torch.randn(300, 8, generator=random)  # that have nothing to do with the class
    shown = torch.cat([labels[:, :1], traits], dim=1)
    known = shown @ torch.linalg.qr(torch.randn(9, 9, generator=random))[0]
    scale = whitening(known)
    spread = torch.linalg.svdvals(scale(known)) / 300**0.5
    assert 0.5 < spread.min() < spread.max() < 1.01

    def accuracy(scale):
        """The mean over ten draws of eight labelled clips."""
        right = []
        for few in torch.arange(80).view(10, 8):
            scores = linear_scores(known[few], labels[few], known[80:], LinearOptions(), scale)
            right.append((scores.argmax(dim=1) == labels[80:].argmax(dim=1)).float().mean())
        return torch.stack(right).mean()

    assert accuracy(scale) > accuracy(None) + 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    write_tiny_shards(folder / "train", samples=24, seed=1)
    write_tiny_shards(folder / "test", samples=10, seed=2)
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_model(folder / f"{seed}.safetensors", CAVMAE(TINY), {"norm_pix_loss": "1"})
    save_model(folder / "classifier.safetensors", CAVMAEClassifier(TINY, 4))
    return folder


def command(folder, *names, more=()):
    line = [
        *("probe", *(folder / f"{name}.safetensors" for name in names)),
        *("--shards", folder / "train", "--val-shards", folder / "test"),
        *("--workers", 0, "--device", "cpu", *more),
    ]
    result = CliRunner().invoke(group, list(map(str, line)))
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_a_row_of_models_is_measured_beside_random_weights(folder):
    facts = json.loads(command(folder, 1, 2, "classifier", more=["--json"]))
    assert [(row["checkpoint"].split("/")[-1], row["random"]) for row in facts["models"]] == [
        ("1.safetensors", False), ("2.safetensors", False), ("classifier.safetensors", False),
        ("1.safetensors", True), ("classifier.safetensors", True),
    ]  # fmt: skip
    assert (facts["clips"], facts["known_clips"], facts["multi_label"]) == (10, 24, False)
    alone = cavmae.knn(
        cavmae.KnnOptions(
            shards=str(folder / "train"),
            val_shards=str(folder / "test"),
            checkpoint=folder / "2.safetensors",
            workers=0,
            device="cpu",
        )
    )
    assert facts["models"][1]["neighbours"]["map"] == pytest.approx(alone.scores.map)
    shown = command(folder, 1, 2)
    rows = [line for line in shown.splitlines() if ".safetensors" in line]
    assert len(rows) == 3
    assert rows[2].startswith(f"random start of {folder}/1.safetensors")
    assert "10 clips by 24 others (one label per clip), features: both" in shown


def test_each_split_of_labels_has_rows_of_its_own(folder):
    more = ["--label-split", "test", "--label-split", "train"]
    facts = json.loads(command(folder, 1, more=[*more, "--json"]))
    assert [(row["random"], row["label_split"], row["known_clips"]) for row in facts["models"]] == [
        (False, None, 24), (False, "test", 5), (False, "train", 19),
        (True, None, 24), (True, "test", 5), (True, "train", 19),
    ]  # fmt: skip
    plain = json.loads(command(folder, 1, more=["--json"]))
    assert plain["models"][0] == facts["models"][0]
    alone = json.loads(command(folder, 1, more=["--split", "test", "--json"]))
    assert alone["models"][0]["neighbours"] == facts["models"][1]["neighbours"]
    assert "  labels of test only (5 clips)" in command(folder, 1, more=more)


def test_a_split_that_is_not_there_is_refused(folder):
    options = cavmae.ProbeOptions(
        shards=str(folder / "train"), val_shards=str(folder / "test"), label_splits=("few",)
    )
    with pytest.raises(UserError, match="no split 'few'; its splits are test, train"):
        cavmae.probe([folder / "1.safetensors"], options)


def test_random_weights_depend_on_the_seed_alone(folder):
    trained = load_trained(folder / "1.safetensors")
    first, again, other = (random_starts([trained], seed)[0].model for seed in (0, 0, 1))
    names = [name for name, value in first.state_dict().items() if value.is_floating_point()]
    weights = [torch.cat([one.state_dict()[name].flatten() for name in names])
               for one in (first, again, other, trained.model)]  # fmt: skip
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_no_model_is_refused():
    with pytest.raises(UserError, match="give at least one"):
        cavmae.probe([], cavmae.ProbeOptions(shards="s", val_shards="v"))
