"""Retrieval: ranks are those of a naive search, ties are fair, and the command says the same."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from avprep.errors import UserError
from avprep.shards.format import read_dataset, write_dataset
from cavmae.cli.retrieve import retrieve
from cavmae.data import ShardSet
from cavmae.evaluation.ranking import rank_pairs, top_matches
from cavmae.evaluation.retrieve import per_class_subset, write_similarities
from tests.cavmae.tiny_shards import SIZE, write_tiny_shards
from tests.conftest import run
from tests.forks import on_ranks


def naive_ranks(queries, answers):
    """The possible ranks of each right answer, one for every order of the tied answers."""
    possible = []
    queries, answers = queries.numpy(), answers.numpy()
    for i, query in enumerate(queries):
        scores = [float(np.dot(query, answer)) for answer in answers]
        better = sum(score > scores[i] + 1e-6 for score in scores)
        tied = sum(abs(score - scores[i]) <= 1e-6 for score in scores)
        possible.append(list(range(better + 1, better + tied + 1)))
    return possible


def unit(rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


# Few different directions, so that ties are the rule.
vectors = st.sampled_from([v for v in itertools.product((-1, 0, 1), repeat=3) if any(v)])


@given(
    pairs=st.lists(st.tuples(vectors, vectors), min_size=1, max_size=12),
    block=st.integers(1, 2000),
)
@settings(max_examples=150, deadline=None)
def test_ranks_equal_a_naive_search_whatever_the_block_size(pairs, block):
    audio, image = (unit([pair[k] for pair in pairs]) for k in (0, 1))
    found = rank_pairs(audio, image, memory=block)
    for ranks, possible in zip(
        found, (naive_ranks(audio, image), naive_ranks(image, audio)), strict=True
    ):
        assert ranks.expected().tolist() == [np.mean(options) for options in possible]
        assert ranks.median() == np.median([np.mean(options) for options in possible])
        for k in (1, 5, 10):
            shares = [np.mean([rank <= k for rank in options]) for options in possible]
            assert ranks.recall(k) == pytest.approx(np.mean(shares))


def test_recall_is_the_mean_over_all_ways_to_break_ties():
    audio = unit([[1, 0], [1, 0], [0, 1]])
    image = unit([[1, 0], [1, 0], [1, 0]])
    to_image, _ = rank_pairs(audio, image)
    # Query 0 ties with all three images: each order of them is equally likely.
    orders = list(itertools.permutations(range(3)))
    assert to_image.recall(1) == pytest.approx(np.mean([order[0] == 0 for order in orders]))
    assert to_image.recall(2) == pytest.approx(np.mean([0 in order[:2] for order in orders]))


def test_a_constant_model_scores_as_chance_does():
    constant = unit([[1.0, 2.0]] * 40)
    for ranks in rank_pairs(constant, constant):
        assert [ranks.recall(k) for k in (1, 5, 10)] == pytest.approx([1 / 40, 5 / 40, 10 / 40])
        assert ranks.median() == 20.5


def test_random_features_rank_as_a_full_sort_does():
    torch.manual_seed(0)
    audio, image = unit(torch.randn(301, 32).tolist()), unit(torch.randn(301, 32).tolist())
    order = (audio @ image.T).argsort(dim=1, descending=True)
    place = (order == torch.arange(301)[:, None]).int().argmax(dim=1) + 1
    to_image, to_audio = rank_pairs(audio, image, memory=4 * 301 * 100)
    # Two similarities can be equal to six digits by chance, which moves a rank by a half.
    assert np.abs(to_image.expected() - place.numpy()).max() <= 0.5
    swapped, _ = rank_pairs(image, audio)
    assert to_audio.expected().tolist() == swapped.expected().tolist()


def test_top_matches_are_the_best_of_all_and_no_more_than_there_are():
    audio, image = unit([[1, 0], [0, 1]]), unit([[1, 1], [1, 0], [0, -1]])
    scores, places = top_matches(audio, image, 5)
    assert places.tolist() == [[1, 0, 2], [0, 1, 2]]
    assert scores[0].tolist() == pytest.approx([1, 0.5**0.5, 0])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_shards(tmp_path_factory.mktemp("retrieval") / "shards", samples=23)


def command(tiny, checkpoint, *arguments):
    result = CliRunner().invoke(
        retrieve,
        ["--shards", str(tiny.folder), "--checkpoint", str(checkpoint), "--workers", "0",
         "--json", *map(str, arguments)],
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.output.splitlines()[-1])


def test_the_command_reports_what_the_models_features_give(tiny, checkpoint):
    from cavmae.data import LoaderOptions, ShardLoader
    from cavmae.evaluation.trained import load_trained

    facts = command(tiny, checkpoint, "--batch-size", 4)
    trained = load_trained(checkpoint)
    loader = ShardLoader(
        ShardSet.open(tiny.folder), LoaderOptions(23, 0, shuffle=False, frame="middle")
    )
    (batch,) = loader.epoch()
    inputs = trained.frontend(batch)
    with torch.no_grad():
        audio, image = trained.model.features(inputs.audio, inputs.image)
    pooled = [unit(tokens.mean(dim=1).tolist()) for tokens in (audio, image)]
    for ranks, name in zip(rank_pairs(*pooled), ("audio_to_image", "image_to_audio"), strict=True):
        assert facts[name]["median_rank"] == ranks.median()
        assert facts[name]["recall_at_5"] == pytest.approx(ranks.recall(5))
    assert facts["clips"] == 23


def test_the_subset_has_so_many_clips_of_each_class_and_depends_on_the_seed_alone(tiny, tmp_path):
    chosen = [per_class_subset(ShardSet.open(tiny.folder), 3, seed) for seed in (0, 0, 1)]
    ids = [{subset.entry(number).video_id for number in range(len(subset))} for subset in chosen]
    assert ids[0] == ids[1] != ids[2]
    assert chosen[0].class_counts == [3, 3, 3, 3]
    otherwise = write_tiny_shards(tmp_path / "other", samples=23, per_shard=5)
    again = per_class_subset(ShardSet.open(otherwise.folder), 3, 0)
    assert {again.entry(number).video_id for number in range(len(again))} == ids[0]


def test_a_subset_is_what_the_command_measures(tiny, checkpoint):
    assert command(tiny, checkpoint, "--per-class", 2)["clips"] == 8


def test_a_selection_is_what_the_command_measures(tiny, checkpoint):
    facts = command(tiny, checkpoint, "--split", "test")
    assert (facts["clips"], facts["splits"]) == (5, ["test"])  # every fifth of 23
    assert command(tiny, checkpoint, "--classes", "Dog", "--split", "train")["clips"] == 4


def test_a_list_of_clips_is_what_the_command_measures_and_absent_ones_are_named(
    tiny, checkpoint, tmp_path
):
    listed = {"data": [{"video_id": f"clip.{n}", "wav": ""} for n in (3, 40, 1, 9, 41)]}
    (tmp_path / "ids.json").write_text(json.dumps(listed))
    line = ("--shards", tiny.folder, "--checkpoint", checkpoint, "--workers", 0)
    result = CliRunner().invoke(
        retrieve, list(map(str, (*line, "--ids", tmp_path / "ids.json", "--frames", "all")))
    )
    assert result.exit_code == 0, result.exception
    assert f"{tiny.folder}: lacks 2 of the 5 clips that" in result.stderr
    assert "names: clip.40, clip.41" in result.stderr
    assert "3 of the 5 clips that" in result.stdout
    assert "3 clips, frame 0, 1, 2, 16 rows of the fbank" in result.stdout
    facts = command(tiny, checkpoint, "--ids", tmp_path / "ids.json")
    assert (facts["clips"], facts["ids_absent"], facts["frame_numbers"]) == (3, 2, [1])


def test_similarities_are_those_that_the_ranks_come_from(tiny, checkpoint, tmp_path):
    path = tmp_path / "new" / "similarities.npz"
    facts = command(tiny, checkpoint, "--similarities", path)
    with np.load(path) as stored:
        similarity, ids = stored["similarity"], stored["video_ids"].tolist()
    assert ids == [f"clip.{n}" for n in range(23)]
    own = np.diag(similarity)
    ranks = 1 + (similarity > own[:, None] + 1e-6).sum(axis=1)
    assert (ranks <= 5).mean() == pytest.approx(facts["audio_to_image"]["recall_at_5"], abs=0.05)
    audio, image = unit(np.eye(7)[:, :4] + 0.1), unit(np.eye(7)[:, 1:5] + 0.2)
    write_similarities(path, audio, image, list("abcdefg"), memory=60)
    with np.load(path) as stored:
        assert np.allclose(stored["similarity"], audio @ image.T)


def test_a_model_looks_at_as_much_of_the_sound_as_it_is_told(tiny, checkpoint):
    short, trained = (command(tiny, checkpoint, *more) for more in (["--audio-frames", 32], []))
    assert (short["audio_frames"], trained["audio_frames"]) == (32, 16)
    assert command(tiny, checkpoint, "--audio-frames", 16) == trained
    line = ("--shards", tiny.folder, "--checkpoint", checkpoint, "--audio-frames", 20)
    refused = CliRunner().invoke(retrieve, list(map(str, line)))
    assert isinstance(refused.exception, UserError)


def test_intervals_of_recalls_hold_the_recalls(tiny, checkpoint):
    facts = command(tiny, checkpoint, "--bootstrap", 300)
    for direction in ("audio_to_image", "image_to_audio"):
        for k in (1, 5, 10):
            low, high = facts[direction][f"recall_at_{k}_interval"]
            assert low <= facts[direction][f"recall_at_{k}"] <= high
    recall = facts["audio_to_image"]["recall_at_10"]
    low, high = facts["audio_to_image"]["recall_at_10_interval"]
    assert high - low == pytest.approx(2 * 1.96 * (recall * (1 - recall) / 23) ** 0.5, rel=0.35)


def test_the_page_shows_queries_and_matches_plays_them_and_marks_the_right_one(
    tiny, checkpoint, tmp_path, browser
):
    facts = command(tiny, checkpoint, "--out", tmp_path / "out", "--queries", 4)
    assert json.loads((tmp_path / "out" / "retrieval.json").read_text()) == facts
    browser.open(tmp_path / "out" / "retrieval.html")
    assert browser.console_messages() == []
    assert browser.network_requests() == []
    assert len(browser.shown("article.query")) == 8
    assert len(browser.shown('article[data-direction="audio_to_image"] [data-kind="match"]')) == 20
    # Marked where the query's own clip is among the matches, and nowhere else.
    marked = browser.run(
        "return [...document.querySelectorAll('article.query')].map(q => {"
        " const name = e => e.querySelector('.id').textContent;"
        " const own = name(q.querySelector('[data-kind=query]'));"
        " const all = [...q.querySelectorAll('[data-kind=match]')];"
        " return [all.map(name).indexOf(own), all.findIndex(m => m.matches('.right')),"
        "  q.querySelector('h3').textContent] })"
    )
    assert all(place == found for place, found, _ in marked)
    assert any(place >= 0 for place, _, _ in marked)
    for place, _, heading in marked:
        rank = float(heading.split("rank ")[1].split(" of ")[0])
        assert (rank <= 5) == (place >= 0)
    pictures = browser.run(
        "return [...document.images].map(i => (i.loading = 'eager', i.decode().then(() => "
        "i.naturalWidth)))[0]"
    )
    assert pictures == SIZE
    assert f"{facts['image_to_audio']['recall_at_5']:.1%}" in browser.find("#recalls").text


@pytest.mark.parametrize("width", [1280, 390])
def test_the_figures_of_the_page_keep_their_heads_and_stand_beside_chance(
    tiny, checkpoint, tmp_path, browser, width
):
    facts = command(tiny, checkpoint, "--out", tmp_path / "out", "--queries", 1)
    browser.open(tmp_path / "out" / "retrieval.html", width)
    assert browser.overflow() <= 0
    heads = [head.text for head in browser.shown("#recalls thead th")]
    assert heads == ["direction", "R@1", "R@5", "R@10", "median rank"]
    rows = browser.run(
        "return [...document.querySelectorAll('#recalls tbody tr')].map("
        "row => [...row.cells].map(cell => cell.textContent))"
    )
    for (_, *shown), name in zip(rows, ("audio_to_image", "image_to_audio", "chance"), strict=True):
        recalls = [f"{facts[name][f'recall_at_{k}']:.1%}" for k in (1, 5, 10)]
        assert shown == [*recalls, f"{facts[name]['median_rank']:g}"]
    count = facts["clips"]
    assert facts["chance"] == {
        **{f"recall_at_{k}": pytest.approx(k / count) for k in (1, 5, 10)},
        "median_rank": (count + 1) / 2,
    }
    lefts = (
        "return [...document.querySelectorAll('#recalls tr')].map(row => row.cells[1].offsetLeft)"
    )
    assert len(set(browser.run(lefts))) == 1


def test_sounds_of_the_page_play_one_at_a_time(tiny, checkpoint, tmp_path, browser):
    command(tiny, checkpoint, "--out", tmp_path / "out", "--queries", 2)
    browser.open(tmp_path / "out" / "retrieval.html", width=360)
    assert browser.overflow() <= 0
    browser.run(
        "window.played = []; document.querySelectorAll('audio').forEach((a, n) => {"
        " a.addEventListener('playing', () => played.push(n));"
        " a.addEventListener('error', () => played.push(-1)) });"
        "document.querySelectorAll('audio')[1].play()"
    )
    assert browser.wait_until("return played.length && played") == [1]
    seconds = browser.run("return document.querySelectorAll('audio')[1].duration")
    assert 0.02 < seconds < 0.5


def test_names_on_the_page_are_text(tiny, checkpoint, tmp_path, browser):
    hostile = "</script><img src=x onerror=\"document.title='owned'\">"
    named = write_tiny_shards(tmp_path / "shards", samples=6)
    info = read_dataset(named.folder)
    labels = tuple((mid, hostile if name == "Ape" else name) for mid, name in info.labels)
    write_dataset(named.folder, replace(info, labels=labels))
    command(named, checkpoint, "--out", tmp_path / "out")
    browser.open(tmp_path / "out" / "retrieval.html")
    assert browser.run("return document.title").startswith("Retrieval")
    assert hostile in browser.find("body").text


@pytest.mark.parametrize("name", ["retrieve", "knn"])
def test_two_ranks_measure_what_one_does(tiny, checkpoint, name):
    words = [name, "--shards", tiny.folder, "--checkpoint", checkpoint, "--workers", "0", "--json"]
    ranks, alone = on_ranks(2, *words), run("cavmae", *words)
    assert ranks.returncode == alone.returncode == 0, ranks.stderr
    (by_ranks,), (by_one,) = (map(json.loads, done.stdout.splitlines()) for done in (ranks, alone))
    assert by_ranks["clips"] == 23
    assert by_ranks == by_one
