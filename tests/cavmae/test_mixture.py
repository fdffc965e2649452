"""Several shard sets in one run: shares at every moment, exactly once per pass, resumable."""

from __future__ import annotations

import csv
import itertools
import json
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cavmae
from avprep.errors import UserError, WorkFailed
from avprep.labels import LabelSet, merge_label_sets
from avprep.shards.format import read_dataset, update_dataset, write_dataset
from cavmae import FinetuneRun, PretrainRun
from cavmae.checkpoints import read_metadata, save_model
from cavmae.checkpoints.usage import stored_labels
from cavmae.cli.pretrain import pretrain
from cavmae.data import LoaderOptions, Mixture, ShardLoader, open_mixture
from cavmae.data.plan import draws_before, mixed_order, shuffled_order
from cavmae.model import CAVMAE
from cavmae.model.cavmae import (
    contrastive_loss,
    contrastive_loss_by_clip,
    mae_loss,
    mae_loss_by_clip,
)
from cavmae.options import OBJECTIVES, PretrainOptions, ShardOptions, read_shares
from cavmae.train.checkpoint import list_checkpoints
from cavmae.train.events import Normalisation
from cavmae.train.set_losses import shown
from cavmae.train.start import choose_normalisation
from tests import forks
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import CLASSES, write_tiny_shards

A, B = 36, 15  # samples of the sets
OTHER_CLASSES = (("/m/c", "cat"), ("/m/x", "Xylophone"), ("/m/a", "Ape"), ("/m/y", "Yak"))

set_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)
weights = st.floats(1e-3, 1e3)


def normalised(shares: list[float]) -> np.ndarray:
    return np.array(shares) / sum(shares)


@st.composite
def mixtures(draw):
    sizes = draw(set_sizes)
    shares = draw(st.lists(weights, min_size=len(sizes), max_size=len(sizes)))
    return sizes, normalised(shares)


def order_of(sizes, shares, seed, epochs):
    def pass_order(number, one):
        return shuffled_order([sizes[number]], 100 * seed + number, one)

    parts = [mixed_order(sizes, shares, seed, epoch, pass_order) for epoch in epochs]
    return np.concatenate(parts)


@settings(deadline=None)
@given(mixtures(), st.integers(0, 9))
def test_every_prefix_has_the_shares_and_every_pass_every_sample_once(mixture, seed):
    sizes, shares = mixture
    order = order_of(sizes, shares, seed, range(4))
    starts = np.cumsum([0, *sizes])
    assert len(order) == 4 * sum(sizes)
    taken = np.arange(1, len(order) + 1)
    for number, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        is_own = (order >= starts[number]) & (order < starts[number + 1])
        assert np.abs(np.cumsum(is_own) - share * taken).max() <= 2 + len(sizes)
        own = order[is_own] - starts[number]
        for begin in range(0, len(own), size):
            done = own[begin : begin + size]
            assert len(set(done)) == len(done)


@given(set_sizes, st.integers(0, 9))
def test_natural_shares_are_the_union_in_every_epoch(sizes, seed):
    for epoch in (0, 1, 50):
        order = order_of(sizes, normalised(sizes), seed, [epoch])
        assert sorted(order) == list(range(sum(sizes)))


@given(mixtures(), st.integers(0, 10**12))
def test_any_epoch_begins_where_the_one_before_ended(mixture, place):
    _, shares = mixture
    here, later = draws_before(place, shares), draws_before(place + 1, shares)
    assert here.sum() == place
    assert sorted(later - here) == [*[0] * (len(shares) - 1), 1]
    assert np.abs(here - shares * place).max() <= len(shares)


def test_ranks_that_take_turns_do_not_each_get_a_set():
    order = order_of([500, 500], normalised([1, 1]), 0, [0])
    of_first_rank = (order[::2] < 500).mean()
    assert 0.4 < of_first_rank < 0.6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the sets `a` and `b`, which have other classes, and `init.safetensors`."""
    folder = tmp_path_factory.mktemp("mixture")
    write_tiny_shards(folder / "a", samples=A)
    write_tiny_shards(folder / "b", samples=B, seed=1, frames=2, audio="wav")
    for name, labels in (("a", None), ("b", OTHER_CLASSES)):
        info = read_dataset(folder / name)
        write_dataset(folder / name, replace(info, fingerprint=name, labels=labels or info.labels))
    torch.manual_seed(0)
    save_model(folder / "init.safetensors", CAVMAE(SMALL))
    return folder


def named(place: Path, *shares: object) -> list[str]:
    """The sets `a` and `b`, with or without shares."""
    return [str(place / "ab"[number]) + f"={share}" for number, share in enumerate(shares)] or [
        str(place / name) for name in "ab"
    ]


def mixed(place: Path, *shares: object) -> Mixture:
    found = open_mixture(named(place, *shares), ShardOptions())
    assert isinstance(found, Mixture)
    return found


def loaded(shards, batch, epoch=0, start=0, world=1, workers=0, **options):
    """What all ranks together read, in the global order: (index, labels, frame's first pixels)."""
    ranks = [
        ShardLoader(shards, LoaderOptions(batch, workers, **options), rank, world)
        for rank in range(world)
    ]
    found = []
    for step in zip(*(loader.epoch(epoch, start) for loader in ranks), strict=True):
        for row in itertools.zip_longest(
            *(zip(b.index, b.labels, b.image, strict=True) for b in step)
        ):
            for one in filter(None, row):
                index, labels, image = one
                found.append((int(index), tuple(labels.tolist()), tuple(image[:, 0, 0].tolist())))
    return found


def test_a_mixture_goes_on_with_other_ranks_and_workers_as_if_undisturbed(place):
    shards = mixed(place, 0.3, 0.7)
    whole = loaded(shards, 6, epoch=1)
    disturbed = loaded(shards, 6, 1)[:12]
    disturbed += loaded(shards, 3, 1, 12, world=2, workers=1)[:18]
    disturbed += loaded(shards, 2, 1, 30, world=3, workers=4)
    assert disturbed == whole
    assert len(whole) == A + B


def test_labels_frames_and_names_are_those_of_each_clip(place):
    shards = mixed(place)
    assert shards.label_set == LabelSet(
        (*CLASSES.mids, "/m/x", "/m/y"), (*CLASSES.names, "Xylophone", "Yak")
    )
    rows = loaded(shards, 4)
    assert sorted(index for index, _, _ in rows) == list(range(A + B))
    in_b = [2, 4, 0, 5]  # where the classes of b stand among those of both
    for index, labels, _ in rows:
        number = index if index < A else index - A
        own = shards.sets[index >= A]
        assert shards.video_id(index) == own.video_id(number) == f"clip.{number}"
        expected = number % 4 if index < A else in_b[number % 4]
        assert labels == tuple(float(label == expected) for label in range(6))
        assert shards.label_indices(index) == (expected,)
    counts = Counter(labels.index(1.0) for _, labels, _ in rows)
    assert shards.class_counts == [counts[label] for label in range(6)]


def test_frames_of_a_set_with_fewer_are_equally_likely(place):
    shards = mixed(place)
    assert shards.frames == 6  # of 3 and of 2
    assert [shards.own_frame(0, frame) for frame in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [shards.own_frame(A, frame) for frame in range(6)] == [0, 0, 0, 1, 1, 1]


def test_mixup_takes_partners_of_each_set_by_its_share(place):
    loader = ShardLoader(mixed(place, 0.1, 0.9), LoaderOptions(4, 0, mixup=1.0))
    plans = [loader._plan(epoch) for epoch in range(20)]
    assert 0.85 < np.mean([plan.partner >= A for plan in plans]) < 0.95


def test_balanced_draws_are_even_within_each_set(place):
    rows = [
        row for epoch in range(8) for row in loaded(mixed(place, 0.5, 0.5), 8, epoch, balanced=True)
    ]
    assert np.mean([index < A for index, _, _ in rows]) == pytest.approx(0.5, abs=0.01)
    for in_a in (True, False):
        counts = Counter(labels for index, labels, _ in rows if (index < A) == in_a)
        assert max(counts.values()) < 2 * min(counts.values())


def test_a_clip_that_cannot_be_read_is_named_with_its_set(place, tmp_path):
    write_tiny_shards(tmp_path / "c", samples=8)
    (tmp_path / "c" / "shard-000001.tar").write_bytes(b"")
    shards = Mixture([*mixed(place).sets, open_mixture(f"{tmp_path}/c", ShardOptions())])
    loader = ShardLoader(shards, LoaderOptions(4, 0, max_bad_samples=0))
    with pytest.raises(WorkFailed, match=r"clip\.7 in .*/c/shard-000001\.tar"):
        list(loader.epoch())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["A=0", "B=1"], "--shards A=0: .* natural or a number above 0, such as 0.7"),
        (["A=-1", "B=1"], "--shards A=-1"),
        (["A=nan", "B=1"], "--shards A=nan"),
        (["A=inf", "B=1"], "--shards A=inf"),
        (["A=70%", "B=1"], "--shards A=70%: .* End a path that itself contains = with a /"),
        (["A=", "B=1"], "--shards A="),
        (["A=0.7", "B"], "--shards B: has no share of the draws, but others have"),
        (["A=natural", "B=0.3"], "--shards A=natural: has no share"),
    ],
)
def test_wrong_shares_are_refused_by_name(given, said):
    with pytest.raises(UserError, match=said):
        PretrainRun(shards=given, out="o")


def test_shares_may_be_of_any_sum_and_a_place_may_contain_the_sign():
    assert read_shares(["A=7", "s3://b/x=1/B=3"]) == (("A", "s3://b/x=1/B"), (7.0, 3.0))
    assert read_shares(["x=1/", "B"]) == (("x=1/", "B"), None)
    assert read_shares(["A=natural", "B"]) == (("A", "B"), None)
    assert PretrainRun(shards=["x=1"], out="o").shards == "x=1"  # alone it has no share


def test_a_folder_whose_name_ends_like_a_share_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("date=2025", "date=2026"):
        (tmp_path / name).mkdir()
    assert read_shares(["date=2025", "date=2026"]) == (("date=2025", "date=2026"), None)
    assert read_shares(["date=2025=1", "date=2026=3"])[1] == (1.0, 3.0)


@pytest.mark.parametrize("given", ['"A"', '["A"]', '["A=0.7", "B=0.3"]'])
def test_a_recipe_names_one_set_or_several(given, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[pretrain]\nshards = {given}\nout = "run"\n')
    with pytest.raises(UserError, match=r"^A: no such folder"):
        pretrain.main(["--config", str(recipe)], prog_name="pretrain", standalone_mode=False)


def test_one_cache_must_hold_what_is_read_of_all_sets(place, tmp_path):
    sets = [f"file://{place}/a", f"file://{place}/b"]
    sizes = [sum(shard.bytes for shard in read_dataset(one).shards) for one in sets]

    def load(limit: int) -> None:
        options = ShardOptions(cache=tmp_path / "cache", cache_gb=limit / 1e9)
        assert len(loaded(open_mixture(sets, options), 8)) == A + B

    with pytest.raises(UserError, match=r"64 shards of .*/a \+ .*/b that are shuffled together"):
        load(sum(sizes) - 1)
    load(sum(sizes))


def test_a_set_given_twice_is_refused(place):
    with pytest.raises(UserError, match="are the same set"):
        open_mixture([f"{place}/a=1", f"{place}/b/../a=2"], ShardOptions())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("/m/b", "Bat"), "class '/m/b' is 'Bell, big' in A and 'Bat' in B"),
        (("/m/z", "bell_big"), "class 'bell_big' is '/m/b' in A and '/m/z' in B"),
    ],
)
def test_classes_that_contradict_each_other_are_refused(other, said):
    mid, name = other
    with pytest.raises(UserError, match=said):
        merge_label_sets([("A", CLASSES), ("B", LabelSet((mid,), (name,)))])


def test_a_name_that_one_class_csv_gives_two_classes_is_its_own_affair():
    twice = LabelSet(("x", "y"), ("Bat", "Bat"))
    merged = merge_label_sets([("A", CLASSES), ("B", twice), ("C", twice)])
    assert merged.mids == (*CLASSES.mids, "x", "y")


def test_losses_by_clip_have_the_losses_as_their_means():
    torch.manual_seed(0)
    patches, prediction = torch.randn(2, 5, 7, 12)
    audio, image = torch.randn(2, 5, 8)
    for normalise in (True, False):
        each = mae_loss_by_clip(patches, prediction, normalise)
        assert each[2] == pytest.approx(mae_loss(patches[2:3], prediction[2:3], normalise).item())
        assert each.mean() == pytest.approx(mae_loss(patches, prediction, normalise).item())
    for bidirectional in (True, False):
        loss, _ = contrastive_loss(audio, image, bidirectional)
        each = contrastive_loss_by_clip(audio, image, bidirectional)
        assert each.mean() == pytest.approx(loss.item(), rel=1e-5)
        of_all = iter(torch.nn.functional.normalize(rows, dim=-1) for rows in (audio, image))
        own = contrastive_loss_by_clip(
            audio[3:], image[3:], bidirectional, gather=lambda _, of_all=of_all: next(of_all)
        )
        assert torch.allclose(own, each[3:])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_clips_have_the_whole_loss_of_every_objective(objective):
    torch.manual_seed(0)
    model = CAVMAE(SMALL.with_objective(objective))
    inputs = torch.randn(5, 16, 128), torch.randn(5, 3, 16, 16)
    out = model(*inputs, PretrainOptions(mask_ratio=0.5, contrast_weight=1.0), by_clip=True)
    assert out.clip_loss.shape == (5,)
    assert not out.clip_loss.requires_grad
    assert out.clip_loss.mean() == pytest.approx(out.loss.item(), rel=1e-5)


def test_a_set_without_a_clip_so_far_has_no_loss():
    means = {"loss": 2.0, "loss_of_a": 2.0, "loss_of_b": 0.0, "share_of_a": 1.0, "share_of_b": 0.0}
    assert shown(means) == {"loss": 2.0, "loss_of_a": 2.0}


def options_of(place: Path, out: Path, *shares: object, **changes) -> dict:
    return {
        "shards": named(place, *shares),
        "out": out,
        "init": place / "init.safetensors",
        "workers": 0,
        "device": "cpu",
        "batch_size": 6,
        "epochs": 1,
        "log_steps": 1,
        **changes,
    }


def rows_of(run: Path, split: str = "train") -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def test_a_pretraining_run_logs_each_sets_loss_and_resumes_only_as_the_same_mixture(
    place, tmp_path
):
    run = tmp_path / "run"

    def train(*shares: object, **changes) -> None:
        options = options_of(place, run, *shares, mask_ratio=0.5, **changes)
        cavmae.pretrain(PretrainRun(**options))

    train(1, 3)
    config = json.loads((run / "config.json").read_text())
    assert config["shards_fingerprint"] == ["a", "b"]
    assert config["shares"] == [0.25, 0.75]
    (row,) = rows_of(run)
    taken = draws_before(A + B, np.array([0.25, 0.75])) / (A + B)
    of_sets = [float(row["loss_of_a"]), float(row["loss_of_b"])]
    assert taken @ of_sets == pytest.approx(float(row["loss"]), rel=1e-5)
    with pytest.raises(UserError, match=r"shares = \[0.25, 0.75\], not \[0.5, 0.5\]"):
        train(1, 1, epochs=2)
    with pytest.raises(UserError, match=r"shares = \[0.25, 0.75\], not"):
        train(epochs=2)
    for others, found in (
        ([f"{place}/a"], r"a\."),
        ([f"{place}/b=3", f"{place}/a=1"], r"\['b', 'a'\]"),
    ):
        with pytest.raises(UserError, match=rf"shards_fingerprint = \['a', 'b'\], not {found}"):
            train(shards=others, epochs=2)


def test_a_classifier_learns_the_classes_of_all_sets(place, tmp_path):
    run = tmp_path / "run"
    found = cavmae.finetune(
        FinetuneRun(val_shards=place / "b", **options_of(place, run), balanced=True)
    )
    assert 0 <= found.validation["accuracy"] <= 1
    labels = stored_labels(read_metadata(run / "best.safetensors"))
    assert labels is not None
    assert labels.mids == (*CLASSES.mids, "/m/x", "/m/y")
    assert {"loss_of_a", "loss_of_b"} <= found.train.keys()
    options = cavmae.EvaluateOptions(
        shards=str(place / "b"), checkpoint=run, frames="middle", workers=0, device="cpu"
    )
    evaluated = cavmae.evaluate(options)  # of the best weights, which are those of the only epoch
    assert evaluated.labels == labels
    assert evaluated.scores.map == pytest.approx(found.validation["map"])


def test_validation_clips_have_classes_that_are_trained(place, tmp_path):
    write_tiny_shards(tmp_path / "c", samples=4)
    info = read_dataset(tmp_path / "c")
    for strange, said in (
        (("/m/z", "Zebra"), r"/c: has the class '/m/z', which none of .*/a \+ .*/b has"),
        (("/m/x", "Zebra"), "class '/m/x' is 'Xylophone' in .* and 'Zebra' in .*/c"),
    ):
        write_dataset(tmp_path / "c", replace(info, labels=(*info.labels[:3], strange)))
        options = FinetuneRun(val_shards=tmp_path / "c", **options_of(place, tmp_path / "run"))
        with pytest.raises(UserError, match=said):
            cavmae.finetune(options)
    assert not (tmp_path / "run").exists()


def test_a_set_without_labels_is_no_part_of_a_classifiers_mixture(place, tmp_path):
    write_tiny_shards(tmp_path / "c", samples=4)
    write_dataset(
        tmp_path / "c", replace(read_dataset(tmp_path / "c"), class_counts=(0,) * len(CLASSES))
    )
    options = options_of(place, tmp_path / "run", shards=[f"{place}/a", f"{tmp_path}/c"])
    with pytest.raises(UserError, match="/c: its samples have no labels"):
        cavmae.finetune(FinetuneRun(val_shards=place / "a", **options))


def test_pretraining_mixes_sets_whose_classes_contradict_each_other(place, tmp_path):
    write_tiny_shards(tmp_path / "c", samples=8)
    info = read_dataset(tmp_path / "c")
    labels = (("/m/a", "Bell, big"), *info.labels[1:])
    write_dataset(tmp_path / "c", replace(info, labels=labels))
    given = [str(place / "a"), str(tmp_path / "c")]
    assert open_mixture(given, ShardOptions(), labelled=False).num_classes == 0
    with pytest.raises(UserError, match="class '/m/a' is 'Ape'"):
        open_mixture(given, ShardOptions())


def normalisation(given: list[str]) -> Normalisation:
    return choose_normalisation(open_mixture(given, ShardOptions()), init=None)


def test_the_normalisation_is_that_of_the_shares(tmp_path):
    for name, seed in (("c", 2), ("d", 3)):
        write_tiny_shards(tmp_path / name, samples=4, seed=seed)
    given = [f"{tmp_path}/c=0.9", f"{tmp_path}/d=0.1"]
    update_dataset(tmp_path / "c", fbank={"mean": -4.0, "std": 3.0})
    assert f"has not measured {tmp_path}/d" in normalisation(given).source
    update_dataset(tmp_path / "d", fbank={"mean": 2.0, "std": 5.0})
    found = normalisation(given)
    assert found.source == f"measured on {tmp_path}/c + {tmp_path}/d, by their shares"
    values = np.repeat([-7.0, -1.0, -3.0, 7.0], [9, 9, 1, 1])  # of these means and deviations
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std())


def test_sets_of_one_modality_mix_where_it_is_all_that_is_learned_from(place, tmp_path):
    write_tiny_shards(tmp_path / "c", samples=8, lacking=dict.fromkeys(range(8), "image"))
    given = [str(place / "a"), str(tmp_path / "c")]
    with pytest.raises(UserError, match=r"/c: none of its 8 samples has audio and frames"):
        open_mixture(given, ShardOptions())
    heard = open_mixture(given, ShardOptions(), ("audio",))
    assert len(loaded_audio(heard)) == A + 8


def loaded_audio(shards: Mixture) -> set[int]:
    loader = ShardLoader(shards, LoaderOptions(5, 0, modalities=("audio",)))
    return {index for batch in loader.epoch() for index in batch.index.tolist()}


def start_ranks(arguments: list[str], ranks: int, workers: int) -> list[BaseProcess]:
    """A run's processes, as torchrun starts them; they can be killed one by one."""
    sizes = ["--batch-size", 6 // ranks, "--workers", workers]
    places = forks.rank_environments(ranks)
    return [forks.start("finetune", *arguments, *sizes, environment=place) for place in places]


def kill_after(processes: list[BaseProcess], run: Path, step: int) -> None:
    """SIGKILL to all, once a checkpoint of this step or a later one is there."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and all(one.is_alive() for one in processes):
        saved = list_checkpoints(run / "checkpoints")
        if saved and int(saved[-1].name[5:]) >= step:
            break
        time.sleep(0.005)
    assert all(one.is_alive() for one in processes)
    for one in processes:
        one.kill()
    for one in processes:
        one.join()


def exit_codes(processes: list[BaseProcess]) -> list[int | None]:
    for one in processes:
        one.join(600)
    return [one.exitcode for one in processes]


def test_a_mixture_killed_and_resumed_on_more_ranks_trains_on_the_same_clips(place, tmp_path):
    """At a learning rate of zero a loss tells which clips, frames and labels there were."""

    def arguments(run: str) -> list[str]:
        return [
            *("--shards", f"{place}/a=0.4", "--shards", f"{place}/b=0.6"),
            *("--val-shards", f"{place}/b", "--out", str(tmp_path / run), "--lr", "0"),
            *("--init", str(place / "init.safetensors"), "--device", "cpu", "--epochs", "3"),
            *("--no-noise", "--freq-mask", "0", "--time-mask", "0", "--checkpoint-steps", "1"),
        ]

    assert exit_codes(start_ranks(arguments("whole"), 1, 0)) == [0]
    run = tmp_path / "killed"
    kill_after(start_ranks(arguments("killed"), 1, 0), run, 3)
    kill_after(start_ranks(arguments("killed"), 2, 1), run, 11)
    assert exit_codes(start_ranks(arguments("killed"), 3, 4)) == [0, 0, 0]
    ours, theirs = rows_of(run), rows_of(tmp_path / "whole")
    assert len(ours) == len(theirs) == 3
    for name in ("loss", "loss_of_a", "loss_of_b", "train_accuracy"):
        expected = [float(row[name]) for row in theirs]
        assert [float(row[name]) for row in ours] == pytest.approx(expected, rel=1e-5)
    assert len({row["loss_of_a"] for row in theirs}) == 3  # each epoch has clips of its own
