"""Metrics equal their definitions, and empty classes poison nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cavmae.evaluation.metrics import d_prime, score


def naive_average_precision(scores, truth):
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    ranks = np.flatnonzero(truth[order])
    return np.mean([hits[rank] / (rank + 1) for rank in ranks])


def naive_auc(scores, truth):
    positive, negative = scores[truth > 0], scores[truth == 0]
    return np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 40), st.integers(2, 6))
def test_equal_to_the_definitions(seed, clips, classes):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(clips * classes).reshape(clips, classes) / (clips * classes)
    labels = (rng.random((clips, classes)) < 0.3).astype(float)
    labels[0] = 1 - labels[1]
    result = score(scores, labels)
    known = [k for k in range(classes) if labels[:, k].any()]
    expected = np.mean([naive_average_precision(scores[:, k], labels[:, k]) for k in known])
    assert result.map == pytest.approx(expected)
    both = [k for k in known if not labels[:, k].all()]
    if both:
        aucs = [naive_auc(scores[:, k], labels[:, k]) for k in both]
        assert result.auc == pytest.approx(np.mean(aucs))
    assert result.left_out == classes - len(known)


@pytest.mark.parametrize("digits", [1, 9])
def test_equal_to_scikit_learns_with_and_without_ties(digits):
    rng = np.random.default_rng(digits)
    scores = np.round(rng.random((300, 7)), digits)
    labels = (rng.random((300, 7)) < 0.2).astype(float)
    for k, one in enumerate(score(scores, labels).classes):
        expected = average_precision_score(labels[:, k], scores[:, k])
        assert one.average_precision == pytest.approx(expected, abs=1e-12)
        assert one.auc == pytest.approx(roc_auc_score(labels[:, k], scores[:, k]), abs=1e-12)


def test_accuracy_counts_any_of_a_clips_labels():
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    labels = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert score(scores, labels).accuracy == pytest.approx(2 / 3)


def test_a_class_without_positives_is_left_out_and_counted():
    scores = np.array([[0.9, 0.1], [0.8, 0.2]])
    labels = np.array([[1.0, 0], [0.0, 0]])
    result = score(scores, labels)
    assert (result.map, result.left_out) == (1.0, 1)


def test_d_prime_is_the_published_transform():
    assert d_prime(0.5) == pytest.approx(0)
    assert d_prime(0.97) == pytest.approx(math.sqrt(2) * 1.8807936)
    assert d_prime(1.0) == math.inf
