"""Histories before a model: what is kept, against the model's own attention, and nothing sees the future."""

from __future__ import annotations

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import rattention as ra
import torch
from rattention.cli import main
from rattention.compression import Clusters, Recency, Uniform
from rattention.compression.strategies import TopK
from rattention.inspect import capture
from rattention.studies.compression.history import (
    TOKEN_STRATEGIES,
    HistoryBudget,
    choose_transitions,
    compress_history,
    past_of,
)
from rattention.studies.dark_room import History, HistoryTransformer, evaluate

CONTEXT, BATCH = 30, 3

pytestmark = pytest.mark.usefixtures("one_thread")
by_strategy = pytest.mark.parametrize("strategy", TOKEN_STRATEGIES)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = HistoryTransformer(81, 5, CONTEXT, dim=32, heads=2, depth=2).eval()
    for parameter in made.parameters():
        parameter.data.mul_(1.5)
    return made


def history(length=20, seed=0):
    rng = np.random.default_rng(seed)
    states, following = rng.integers(0, 81, (2, BATCH, length))
    return History(
        states, rng.integers(0, 5, (BATCH, length)), rng.random((BATCH, length), np.float32), following
    )


def tensors(given):
    return [torch.from_numpy(array) for array in (*given.arrays(), given.next_states[:, -1])]


def test_attention_is_the_mean_of_layers_and_heads(model):
    """Of the query token, and received; the query itself is not counted."""
    given = history()
    with torch.no_grad(), capture(model) as layers:
        model(*tensors(given))
    weights = [
        ra.attention_rows(layer.query, layer.key, range(21), **layer.options).astype(np.float64)
        for layer in layers
    ]
    query = np.mean([w[:, :, -1, :20].mean(axis=1) for w in weights], axis=0)
    seen = 21 - np.arange(20)
    received = np.mean([w[..., :20].sum(axis=2).mean(axis=1) / seen for w in weights], axis=0)
    past = past_of(model, given, TopK())
    np.testing.assert_allclose(past.attention("query"), query, rtol=1e-4)
    np.testing.assert_allclose(past.attention("received"), received, rtol=1e-4)
    for kind, scores in (("query", query), ("received", received)):
        kept = choose_transitions(model, given, kind, 7)
        np.testing.assert_array_equal(kept, np.sort(np.argsort(scores, axis=1)[:, -7:], axis=1))


@by_strategy
@pytest.mark.parametrize("budget", [1, 0.5, 19, 20, 1.0])
def test_what_is_kept_are_transitions_of_the_history(model, strategy, budget):
    given = history()
    indices = choose_transitions(model, given, strategy, budget)
    kept = compress_history(model, given, strategy, budget)
    count = budget if isinstance(budget, int) else int(budget * 20)
    assert kept.states.shape == (BATCH, count)
    for new, old in zip(kept.arrays(), given.arrays(), strict=True):
        np.testing.assert_array_equal(new, np.take_along_axis(old, np.broadcast_to(indices, new.shape), 1))


@by_strategy
def test_a_whole_budget_gives_the_same_actions(model, strategy):
    given = history()
    with torch.no_grad():
        expected = model(*tensors(given))
        got = model(*tensors(compress_history(model, given, strategy, 1.0)))
    assert torch.equal(got, expected)


@by_strategy
def test_the_future_is_not_seen(model, strategy):
    """Cut at 20 transitions, whatever follows."""
    futures = [history(26, seed) for seed in (1, 2)]
    begun = history()
    whole = [
        History(*(np.concatenate([a, b[:, 20:]], 1) for a, b in zip(begun.arrays(), f.arrays(), strict=True)))
        for f in futures
    ]
    kept = [choose_transitions(model, w.select(range(20)), strategy, 8) for w in whole]
    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_array_equal(kept[0], choose_transitions(model, begun, strategy, 8))


@by_strategy
def test_acting_within_a_budget(model, strategy):
    """Never more than the budget is held, and cuts come when it is exceeded."""
    budget = HistoryBudget(model, strategy, 0.5, interval=4)
    lengths = []

    def watch(given):
        kept = budget(given)
        lengths.append((len(given), len(kept)))
        return kept

    returns = evaluate(model, [3, 60], 3, seed=1, compress=watch, forget=True)
    assert returns.shape == (2, 3)
    assert max(kept for _, kept in lengths) == 15
    for given, kept in lengths:
        assert kept == (given if given <= 15 else 12)
    assert sum(given > kept for given, kept in lengths) == (60 - 1 - 15) // 4


def test_recency_of_the_whole_context_is_no_compression(model):
    full = evaluate(model, [3, 60], 3, seed=1)
    for strategy in ("recency", "received"):
        ours = evaluate(model, [3, 60], 3, seed=1, compress=HistoryBudget(model, strategy, 1.0), forget=True)
        np.testing.assert_array_equal(ours, full)


def test_positions_alone_need_no_model():
    given = history()
    np.testing.assert_array_equal(
        choose_transitions(None, given, Recency(sinks=1), 3), np.tile([0, 18, 19], (BATCH, 1))
    )
    np.testing.assert_array_equal(
        choose_transitions(None, given, Uniform(), 3), np.tile([0, 9, 19], (BATCH, 1))
    )


@pytest.mark.parametrize(
    ("strategy", "budget", "error", "message"),
    [
        ("clusters", 4, ValueError, "transitions have no means"),
        (Recency() + Clusters(), 4, ValueError, r"representative.*recency, sinks"),
        ("recency", 21, ValueError, "at most the 20 tokens there are, got 21"),
        ("recency", 0, ValueError, "at least 1 token"),
        ("recency", True, TypeError, "got True"),
        ("best", 4, ValueError, "must be one of recency"),
    ],
)
def test_impossible_arguments(model, strategy, budget, error, message):
    with pytest.raises(error, match=message):
        compress_history(model, history(), strategy, budget)


@pytest.mark.parametrize(
    ("budget", "interval", "message"),
    [(4, 4, "below the budget of 4, got 4"), (0.5, 0, "at least 1"), (31, 1, "at most the 30 tokens")],
)
def test_impossible_budgets(model, budget, interval, message):
    with pytest.raises(ValueError, match=message):
        HistoryBudget(model, "recency", budget, interval)


def test_nan_weights(model):
    broken = HistoryTransformer(**model.config)
    broken.head.weight.data.fill_(float("nan"))  # not looked at by attention
    compress_history(broken, history(), "query", 4)
    broken.encoder.layers[0].attention.key.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        compress_history(broken, history(), "query", 4)


def test_rooms_and_the_command(model, tmp_path, capsys):
    """Quality, bytes and attention of the task, and its command with a checkpoint."""
    from rattention.studies.compression.rooms import Rooms

    task = Rooms(model, [3, 60], episodes=3, steps_between=4)
    full = task.full(7)
    assert full.quality == evaluate(model, [3, 60], 3, seed=7).mean()
    half = task.compressed(Uniform(), 0.5)
    assert half.nbytes == 15
    assert full.nbytes == CONTEXT
    assert 0 < half.mass < 1
    assert task.compressed(Uniform(), 1.0).quality == full.quality
    preview = task.preview(7, Recency(), 0.5)
    assert preview.positions["all layers"] == list(range(15, 30))
    file = tmp_path / "model.safetensors"
    model.save(file)
    assert main(["compress", "--checkpoint", str(file), "--budget", "5"]) == 0
    assert "25-29" in capsys.readouterr().out
    words = ["--validate", "--seeds", "1", "--episodes", "2", "--goals", "2", "--budget", "0.5"]
    out = ["--out", str(tmp_path / "figs")]
    assert main(["compress", "--checkpoint", str(file), *words, *out, "--strategy", "recency"]) == 0
    assert "dark rooms, 2 goals, context 30" in capsys.readouterr().out
    assert main(["compress", "--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    assert "rattention ad train" in capsys.readouterr().err
    assert main(["compress", "--checkpoint", str(file), "--goals", "99"]) == 2
    assert "--goals must be between 1 and" in capsys.readouterr().err
