"""The page of `cavmae retrieve`: queries with their best matches, to look at and listen to."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray
from torch import Tensor

from avprep.audio import SAMPLE_RATE
from avprep.pages.page import data_uri, render_page
from cavmae.data import ShardSet
from cavmae.data.sample import Wanted, decode_sample
from cavmae.evaluation.features import Features
from cavmae.evaluation.ranking import RECALLS, Ranks, chance, top_matches
from cavmae.options import Modality

MATCHES = 5  # shown of each query
_LONGEST = 20 * SAMPLE_RATE  # of a clip's sound


@dataclass(frozen=True)
class ClipCard:
    """A clip as the page shows it."""

    key: str  # of its sound
    video_id: str
    labels: str
    picture: str  # data URI


@dataclass(frozen=True)
class Match:
    """One answer to a query."""

    clip: ClipCard
    similarity: str
    is_right: bool


@dataclass(frozen=True)
class Query:
    """A clip whose other half is looked for."""

    clip: ClipCard
    rank: str  # expected rank of the right answer
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Direction:
    """Queries of one modality among answers of the other."""

    name: str
    title: str
    hint: str
    asked: str
    answer: str
    figures: tuple[str, ...]  # see `_figures`
    queries: tuple[Query, ...]


def retrieval_page(
    shards: ShardSet,
    features: Features,
    ranks: Mapping[str, Ranks],
    queries: int,
    frame: int,
    title: str,
) -> bytes:
    """The page as UTF-8 HTML.

    Args:
        shards: where the clips are.
        features: of all clips.
        ranks: by direction, `audio_to_image` and `image_to_audio`.
        queries: how many to show of each direction, evenly spaced over the shard set.
        frame: number of the frame that stands for a clip.
        title: what was measured.
    """
    count = len(features.index)
    places = np.unique(np.linspace(0, count - 1, min(queries, count)).round().astype(int))
    cards = _Cards(shards, features, frame)
    directions = [
        _direction(cards, features, ranks[name], places, name) for name in _WORDS if name in ranks
    ]
    return render_page(
        "cavmae.evaluation", "retrieval.html", ["retrieval.js"],
        title=title, clips=count, directions=directions, chance=_figures(chance(count)),
        heads=(*(f"R@{k}" for k in RECALLS), "median rank"), sounds=cards.sounds,
    )  # fmt: skip


def _figures(ranks: Ranks) -> tuple[str, ...]:
    """R@1, R@5, R@10 and the median rank, for people."""
    return (*(f"{ranks.recall(k):.1%}" for k in RECALLS), f"{ranks.median():g}")


_WORDS: dict[str, tuple[Modality, Modality, str]] = {
    "audio_to_image": ("audio", "image", "A sound looks for its picture among those of all clips."),
    "image_to_audio": ("image", "audio", "A picture looks for its sound among those of all clips."),
}


def _direction(
    cards: _Cards, features: Features, ranks: Ranks, places: np.ndarray, name: str
) -> Direction:
    asked, answer, hint = _WORDS[name]
    vectors: Mapping[Modality, Tensor] = features.vectors
    similarities, found = top_matches(vectors[asked][places], vectors[answer], MATCHES)
    expected = ranks.expected()
    queries = []
    for place, row, values in zip(
        places.tolist(), found.tolist(), similarities.tolist(), strict=True
    ):
        matches = tuple(
            Match(cards.of(other), f"{value:.3f}", other == place)
            for other, value in zip(row, values, strict=True)
        )
        queries.append(Query(cards.of(place), f"{expected[place]:g}", matches))
    return Direction(
        name=name,
        title=f"{asked} → {answer}",
        hint=hint,
        asked=asked,
        answer=answer,
        figures=_figures(ranks),
        queries=tuple(queries),
    )


class _Cards:
    """Reads each clip that the page shows once."""

    def __init__(self, shards: ShardSet, features: Features, frame: int) -> None:
        self.sounds: dict[str, str] = {}
        self._shards = shards
        self._features = features
        self._frame = frame
        self._made: dict[int, ClipCard] = {}

    def of(self, place: int) -> ClipCard:
        """The card of a clip, by its place among the features."""
        if place not in self._made:
            self._made[place] = self._read(place)
        return self._made[place]

    def _read(self, place: int) -> ClipCard:
        number = int(self._features.index[place])
        sample = self._shards.read(number)
        names = [self._shards.labels[label][1] for label in sample.entry.labels]
        frame = self._shards.own_frame(number, self._frame)
        wanted = Wanted(audio=True, frames=(frame,))
        clip = decode_sample(sample, wanted, _LONGEST, self._shards.frame_size)
        self.sounds[str(place)] = data_uri("audio/mpeg", encode_mp3(clip.pcm))
        picture = data_uri("image/jpeg", sample.members[f"{frame}.jpg"])
        return ClipCard(str(place), sample.entry.video_id, "; ".join(names), picture)


def encode_mp3(pcm: NDArray[np.int16]) -> bytes:
    """MP3 bytes of int16 [samples]: a tenth of the size, and every browser plays it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="MP3")
    return buffer.getvalue()
