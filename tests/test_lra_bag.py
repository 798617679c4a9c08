"""The bag of tokens: what can be told of a sequence without the order of its tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

from rattention.studies.lra.data import SPLITS, Split, TaskData

TOKENS, LENGTH = 6, 16


def task(label, samples=(600, 200, 400), seed=0):
    """Random sequences of tokens 1 to 5 with `label` of each row."""
    drawn = np.random.default_rng(seed)
    rows = [drawn.integers(1, TOKENS, (count, LENGTH)) for count in samples]
    splits = (Split.of(some, np.apply_along_axis(label, 1, some)) for some in rows)
    return TaskData("made", TOKENS, 2, **dict(zip(SPLITS, splits, strict=True)))


def more_twos_than_threes(row):
    return int((row == 2).sum() > (row == 3).sum())


def rises_at_the_end(row):
    return int(row[-1] > row[-2])


def test_counts_that_decide_are_found():
    assert task(more_twos_than_threes).bag_accuracy > 0.95


def test_order_is_not_seen():
    data = task(rises_at_the_end)
    assert data.bag_accuracy < data.majority_accuracy() + 0.05
    shuffled = np.random.default_rng(1)
    rows = {
        name: Split.of([shuffled.permutation(split[i][0]) for i in range(len(split))], split.labels)
        for name in SPLITS
        for split in (getattr(data, name),)
    }
    assert replace(data, **rows).bag_accuracy == data.bag_accuracy


def test_sequences_of_different_lengths():
    """A sequence's tokens count for itself: neighbours are others."""
    drawn = np.random.default_rng(2)
    labels = drawn.integers(0, 2, 900)
    rows = [np.full(drawn.integers(1, 9), 1 + label) for label in labels]
    splits = {
        name: Split.of(rows[part], labels[part])
        for name, part in zip(SPLITS, (slice(500), slice(500, 700), slice(700, 900)), strict=True)
    }
    assert TaskData("made", TOKENS, 2, **splits).bag_accuracy == 1


def test_the_penalty_is_chosen_by_validation_and_not_by_test():
    data = task(more_twos_than_threes, samples=(40, 200, 400))
    flipped = replace(data, test=Split(data.test.tokens, data.test.offsets, 1 - data.test.labels))
    assert flipped.bag_accuracy == pytest.approx(1 - data.bag_accuracy)


def test_it_is_fitted_once(monkeypatch):
    data = task(more_twos_than_threes)
    first = data.bag_accuracy
    monkeypatch.setattr("rattention.studies.lra.data.fitted_accuracy", lambda *_: pytest.fail("fitted again"))
    assert data.bag_accuracy == first


def test_a_single_label_is_the_majority():
    data = task(lambda row: 1)
    assert data.bag_accuracy == data.majority_accuracy() == 1
