"""Sampling weights: equal to a naive computation, and to what balanced epochs draw by."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.clips import Clip
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.shards.format import weigh_classes
from avprep.weights import count_classes, store_weights, write_weights

MIDS = tuple(f"/m/{n}" for n in range(6))
LABELS = LabelSet(MIDS, tuple(f"Class {n}" for n in range(6)))
CLIPS = st.lists(st.sets(st.sampled_from(MIDS)), max_size=40).map(
    lambda sets: [Clip(f"c{n}", tuple(labels), "x.mp4") for n, labels in enumerate(sets)]
)


def test_the_published_class_weights():
    assert weigh_classes([0, 1, 999]) == (1000 / 0.01, 1000 / 1.01, 1000 / 999.01)


def naive_weights(clips):
    """As the published script does it, on the manifest's own entries."""
    count = Counter(label for clip in clips for label in clip.labels)
    return [sum(1000.0 / (count[label] + 0.01) for label in clip.labels) for clip in clips]


@given(clips=CLIPS)
def test_weights_are_one_number_a_line_and_equal_a_naive_computation(clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("w") / "weights.csv"
    weights = weigh_classes(count_classes(clips, LABELS))
    assert write_weights(path, iter(clips), LABELS, weights) == len(clips)
    read = np.loadtxt(path, delimiter=",", ndmin=1) if clips else np.empty(0)
    np.testing.assert_allclose(read, naive_weights(clips), rtol=1e-12)


def test_a_label_that_no_class_has_is_named():
    with pytest.raises(UserError, match="unknown label '/m/9'"):
        count_classes([Clip("a", ("/m/9",), "a.mp4")], LABELS)


def test_stored_weights_are_those_that_balanced_epochs_compute_and_then_draw_by(tmp_path):
    """The shard set's own counts and the stored ones agree where no clip failed."""
    from cavmae.data import LoaderOptions, ShardLoader, ShardSet
    from tests.cavmae.tiny_shards import write_tiny_shards

    folder = write_tiny_shards(tmp_path / "shards").folder
    shards = ShardSet.open(folder)
    labels = LabelSet(*zip(*shards.info.labels, strict=True))
    clips = [
        Clip(shards.entry(n).video_id, tuple(labels.mids[i] for i in shards.label_indices(n)), "x")
        for n in range(len(shards))
    ]
    counts = count_classes(clips, labels)
    before = shards.class_weights
    assert counts.tolist() == shards.class_counts
    store_weights(str(folder), labels, counts, weigh_classes(counts))
    stored = ShardSet.open(folder)
    assert stored.info.class_weights == tuple(before)
    np.testing.assert_array_equal(stored.class_weights, before)
    np.testing.assert_allclose(stored.sample_weights(stored.class_weights), naive_weights(clips))
    # Weights that favour one class alone show that the stored ones are what is drawn by.
    only = [0.0] * len(labels)
    only[1] = 1.0
    store_weights(str(folder), labels, counts, only)
    loader = ShardLoader(ShardSet.open(folder), LoaderOptions(8, 0, balanced=True))
    drawn = {video_id for batch in loader.epoch(0) for video_id in batch.video_ids}
    with_class = {clip.video_id for clip in clips if labels.mids[1] in clip.labels}
    assert drawn <= with_class
    selection = ShardSet.open(folder).select(classes=[labels.mids[0]])
    np.testing.assert_array_equal(selection.class_weights, weigh_classes(selection.class_counts))
    with pytest.raises(UserError, match="was built with another class CSV"):
        store_weights(str(folder), LABELS, count_classes([], LABELS), only)
    document = json.loads((folder / "dataset.json").read_text())
    assert document["weights"]["class_counts"] == counts.tolist()
