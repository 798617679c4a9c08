"""Strategies: their definitions against slow ones, budgets, and what combinations keep."""

from __future__ import annotations

import numpy as np
import pytest
from rattention.compression import (
    STRATEGIES,
    Clusters,
    Combined,
    Past,
    Recency,
    TopK,
    Uniform,
    most_kept,
    require_strategy,
    resolve_budget,
)

from tests.extras import needs

HEADS, TOKENS, DIM = 3, 23, 4

by_name = pytest.mark.parametrize("name", STRATEGIES)


def draw(tokens=TOKENS, seed=0, log_size=None):
    """Keys, values and two kinds of attention, all random."""
    rng = np.random.default_rng(seed)
    key, value = rng.standard_normal((2, HEADS, tokens, DIM), np.float32)
    attention = {kind: rng.random((HEADS, tokens), np.float32) for kind in ("received", "query")}
    return Past(key, value, log_size=log_size, measure=attention.__getitem__)


@by_name
@pytest.mark.parametrize("count", [1, 2, 11, TOKENS - 1, TOKENS])
def test_every_strategy_keeps_exactly_the_budget(name, count):
    past, strategy = draw(), STRATEGIES[name]
    if strategy.replaces:
        needs("sklearn")
    kept = strategy.keep(past, count)
    assert kept.indices.shape == (HEADS, count)
    assert (np.diff(kept.indices, axis=1) > 0).all()
    assert (kept.indices >= 0).all()
    assert (kept.indices < TOKENS).all()
    if isinstance(strategy, Recency | Uniform):
        assert (kept.indices == kept.indices[0]).all()
    if strategy.replaces and count > 1:  # of one token, a combination's first part has it
        np.testing.assert_allclose(np.exp(kept.log_size).sum(axis=1), TOKENS, rtol=1e-5)
    elif not strategy.replaces:
        assert kept.key is kept.value is kept.log_size is None


@by_name
def test_the_whole_budget_changes_nothing(name):
    past, strategy = draw(), STRATEGIES[name]
    if strategy.replaces:
        needs("sklearn")
    kept = strategy.keep(past, TOKENS)
    np.testing.assert_array_equal(kept.indices, np.tile(np.arange(TOKENS), (HEADS, 1)))
    if strategy.replaces:
        np.testing.assert_allclose(kept.key, past.key, rtol=1e-6)
        np.testing.assert_allclose(kept.log_size, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("sinks", "expected"), [(0, [5, 6, 7]), (1, [0, 6, 7]), (2, [0, 1, 7]), (9, [0, 1, 7])]
)
def test_recency(sinks, expected):
    assert Recency(sinks).keep(draw(8), 3).indices[1].tolist() == expected


@pytest.mark.parametrize(("count", "expected"), [(1, [8]), (2, [0, 8]), (3, [0, 4, 8]), (5, [0, 2, 4, 6, 8])])
def test_uniform(count, expected):
    assert Uniform().keep(draw(9), count).indices[0].tolist() == expected


@pytest.mark.parametrize("kind", ["received", "query"])
@pytest.mark.parametrize("count", [1, 7])
def test_top_k_against_a_loop(kind, count):
    past = draw()
    kept = TopK(by=kind).keep(past, count).indices
    for head in range(HEADS):
        scores = past.attention(kind)[head]
        taken = []
        for _ in range(count):
            taken.append(max((j for j in range(TOKENS) if j not in taken), key=lambda j: scores[j]))
        assert kept[head].tolist() == sorted(taken)


def test_the_newer_of_equals_stays():
    past = Past(np.zeros((1, 5, 1), np.float32), measure=lambda _: np.array([[1, 0, 1, 0, 1]], np.float32))
    assert TopK().keep(past, 2).indices.tolist() == [[2, 4]]


def test_a_combination_takes_what_is_left():
    """Half the newest; then the largest of the others, none twice."""
    past = draw()
    kept = (Recency() + TopK()).keep(past, 9).indices
    for head in range(HEADS):
        newest = list(range(TOKENS - 5, TOKENS))
        others = sorted(range(TOKENS - 5), key=lambda j: past.attention("received")[head, j])[-4:]
        assert kept[head].tolist() == sorted(others) + newest


def test_shares_of_three():
    three = Combined((Recency(sinks=2), TopK(by="query"), Uniform()), (0.2, 0.5, 0.3))
    past = draw()
    kept = three.keep(past, 10).indices[0].tolist()
    left = [j for j in range(TOKENS) if j not in (0, TOKENS - 1)]
    largest = sorted(left, key=lambda j: past.attention("query")[0, j])[-5:]
    left = [j for j in left if j not in largest]
    spaced = [left[i] for i in (0, (len(left) - 1) // 2, -1)]
    assert kept == sorted([0, TOKENS - 1, *largest, *spaced])


@pytest.mark.parametrize("by", ["mean", "representative"])
def test_clusters_against_loops(by):
    """The clusters of well separated keys, their means, sizes and nearest members."""
    needs("sklearn")
    rng = np.random.default_rng(3)
    groups = np.array([0, 1, 2, 0, 1, 0, 2, 2, 2])  # at equal distances stand one of each
    key = (np.eye(3, DIM)[groups] * 100 + rng.standard_normal((1, 9, DIM))).astype(np.float32)
    value = rng.standard_normal((1, 9, 2)).astype(np.float32)
    sizes = rng.integers(1, 4, 9)
    start = [0, 4, 8]
    assert sorted(groups[start]) == [0, 1, 2]
    kept = Clusters(by).keep(Past(key, value, log_size=np.log(sizes)[None].astype(np.float32)), 3)
    expected = []
    for group in range(3):
        members = np.flatnonzero(groups == group)
        mean = np.average(key[0, members], axis=0, weights=sizes[members])
        nearest = members[np.square(key[0, members] - mean).sum(axis=1).argmin()]
        replaced = np.average(value[0, members], axis=0, weights=sizes[members])
        own = (mean, replaced) if by == "mean" else (key[0, nearest], value[0, nearest])
        expected.append((nearest, *own, np.log(sizes[members].sum())))
    for got, wanted in zip(kept.indices[0], sorted(expected, key=lambda e: e[0]), strict=True):
        assert got == wanted[0]
    for got, place in ((kept.key, 1), (kept.value, 2), (kept.log_size, 3)):
        wanted = np.stack([e[place] for e in sorted(expected, key=lambda e: e[0])])
        np.testing.assert_allclose(got[0], wanted, rtol=1e-5, atol=1e-5)


def test_clusters_of_fewer_distinct_keys_than_budget():
    """Equal keys may be anywhere, but none is lost and no cluster is empty."""
    needs("sklearn")
    key = np.repeat(np.eye(2, DIM, dtype=np.float32), [5, 3], axis=0)[None]
    value = np.arange(8, dtype=np.float32)[None, :, None]
    kept = Clusters().keep(Past(key, value), 6)
    size = np.exp(kept.log_size[0])
    assert size.min() >= 1 - 1e-6
    np.testing.assert_allclose([size[kept.key[0, :, c] == 1].sum() for c in (0, 1)], [5, 3], rtol=1e-6)
    np.testing.assert_allclose((size * kept.value[0, :, 0]).sum(), value.sum(), rtol=1e-6)


def test_clusters_of_many_tokens_are_drawn_with_the_seed():
    needs("sklearn")
    key = np.random.default_rng(0).standard_normal((1, 4500, 2), np.float32)
    once, again, other = (Clusters(seed=seed).keep(Past(key, key), 8) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once.key, again.key)
    assert not np.array_equal(once.key, other.key)
    np.testing.assert_allclose(np.exp(once.log_size).sum(), 4500, rtol=1e-5)


@pytest.mark.parametrize("strategy", [TopK(), TopK(by="query"), Clusters(), Recency() + TopK()], ids=str)
def test_nan_is_refused_where_it_would_decide(strategy):
    if strategy.replaces:
        needs("sklearn")
    broken = np.full((1, 6, DIM), np.nan, np.float32)
    past = Past(broken, broken, measure=lambda _: broken[..., 0])
    with pytest.raises(ValueError, match="NaN"):
        strategy.keep(past, 3)
    assert Recency().keep(past, 3).indices.tolist() == [[3, 4, 5]]


def test_without_queries():
    with pytest.raises(ValueError, match="no queries here to measure attention by 'received'"):
        TopK().keep(Past(np.zeros((1, 4, 2), np.float32)), 2)


@pytest.mark.parametrize(
    ("budget", "length", "count"),
    [(1, 9, 1), (9, 9, 9), (np.int64(3), 9, 3), (1.0, 9, 9), (0.5, 9, 4), (0.01, 9, 1), (0.29, 100, 29)],
)
def test_budgets(budget, length, count):
    assert resolve_budget(budget, length) == most_kept(budget, length) == count


@pytest.mark.parametrize("resolve", [resolve_budget, most_kept])
@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        (0, ValueError, "at least 1 token, got 0"),
        (-3, ValueError, "got -3"),
        (0.0, ValueError, r"share in \(0, 1\].*got 0.0"),
        (1.5, ValueError, "got 1.5"),
        (-0.5, ValueError, "got -0.5"),
        (float("nan"), ValueError, "got nan"),
        (float("inf"), ValueError, "got inf"),
        (True, TypeError, "got True"),
        ("half", TypeError, "got 'half'"),
        (None, TypeError, "got None"),
    ],
)
def test_impossible_budgets(resolve, budget, error, message):
    with pytest.raises(error, match=message):
        resolve(budget, 9)


def test_a_count_above_the_length():
    with pytest.raises(ValueError, match="at most the 9 tokens there are, got 10"):
        resolve_budget(10, 9)
    assert most_kept(10, 9) == 9


def test_unknown_strategies_list_the_known():
    with pytest.raises(ValueError, match=r"recency, sinks, uniform, received.*got 'newest'"):
        require_strategy("newest")
    with pytest.raises(TypeError, match="got int"):
        require_strategy(3)
    assert require_strategy("sinks") is STRATEGIES["sinks"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recency(sinks=-1), "sinks must be >= 0"),
        (lambda: TopK(by="mass"), "by must be one of received, query, got 'mass'"),
        (lambda: Clusters(by="median"), "by must be one of mean, representative"),
        (lambda: Clusters(iterations=0), "iterations must be >= 1"),
        (lambda: Combined((Recency(),), (0.5, 0.5)), "one per part"),
        (lambda: Combined((Recency(), Uniform()), (0.5, 0.6)), "sum 1"),
        (lambda: Combined((Recency(), Uniform()), (1.5, -0.5)), "positive"),
        (lambda: Clusters() + Recency(), "must be the last"),
    ],
)
def test_impossible_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
