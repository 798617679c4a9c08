"""Acting with fixed weights: what the model sees, what it is compared with, and the shipped checkpoint."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import rattention.studies.dark_room as ad
import torch
from rattention.studies.dark_room import (
    Collection,
    History,
    HistoryTransformer,
    Room,
    collect,
    compare,
    evaluate,
    example_checkpoint,
    train,
)
from rattention.studies.dark_room.samples import samples

from tests.histories import QUICK, SIZES, SMALL, small_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def histories():
    return collect(SMALL)


class TestEvaluation:
    def test_returns(self):
        model = small_model()
        returns = evaluate(model, [0, 4, 4], 3, room=SMALL.room)
        assert returns.shape == (3, 3)
        assert ((returns >= 0) & (returns <= 4)).all()

    def test_what_the_model_is_shown(self):
        """The history so far, across episodes, at most a context; the model trains on afterwards."""
        model = small_model().train()
        seen = watch(model)
        evaluate(model, [0, 4], 4, room=SMALL.room, seed=2)
        assert [h.shape[1] for h, *_ in seen] == [min(i, 8) for i in range(16)]
        for i, (states, _, _, reached, query) in enumerate(seen):
            if i % 4 == 0:
                assert query.tolist() == [4, 4]
            else:
                assert torch.equal(reached[:, -1], query)
            if i > 8:
                assert torch.equal(states[:, :-1], seen[i - 1][0][:, 1:])
        assert model.training

    def test_seeds_and_temperature(self):
        model = small_model()

        def acted(seed, temperature=1.0):
            seen = watch(model)
            evaluate(model, [0] * 8, 2, room=SMALL.room, seed=seed, temperature=temperature)
            return torch.cat([query for *_, query in seen])

        assert torch.equal(acted(1), acted(1))
        assert not torch.equal(acted(1), acted(2))
        assert torch.equal(acted(1, 0), acted(2, 0))

    def test_actions_follow_the_logits(self):
        """A model that always answers the same: shares of actions are those of its softmax."""
        model = small_model(context=1)
        logits = torch.tensor([0.0, 1.0, -1.0, 0.5, -30.0])
        seen = watch(model, logits)
        evaluate(model, [0] * 500, 1, room=Room(size=3, steps=8), seed=3, temperature=2.0)
        actions = torch.cat([actions[:, -1] for _, actions, *_ in seen[1:]])
        shares = torch.bincount(actions, minlength=5) / len(actions)
        torch.testing.assert_close(shares, (logits / 2).softmax(0), atol=0.03, rtol=0)

    @pytest.mark.parametrize("forget", [False, True])
    def test_compress(self, forget):
        """The model sees what compress returns, which is given everything, or what it kept itself."""
        model, given = small_model(), []

        def newest(history):
            given.append(len(history))
            return history.last(3)

        seen = watch(model)
        evaluate(model, [0, 4], 3, room=SMALL.room, compress=newest, forget=forget)
        assert [h.shape[1] for h, *_ in seen] == [min(i, 3) for i in range(12)]
        assert given == [min(i, 4 if forget else 8) for i in range(12)]

    def test_compress_that_keeps_all_changes_nothing(self):
        model = small_model()
        plain, kept = (evaluate(model, [0, 4], 4, room=SMALL.room, compress=c) for c in (None, lambda h: h))
        np.testing.assert_array_equal(plain, kept)

    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({"episodes": 0}, ValueError, "episodes must be >= 1, got 0"),
            ({"goals": [9]}, ValueError, "goals must be between 0 and 8"),
            ({"goals": []}, ValueError, "at least one"),
            ({"room": Room()}, ValueError, "knows 9 states, a room of side 9 has 81"),
            ({"temperature": -1.0}, ValueError, "temperature must be a number >= 0"),
            ({"compress": lambda h: h.states}, TypeError, "compress must return a History, got ndarray"),
            ({"compress": lambda h: History.empty(7)}, ValueError, "compress must keep the batch of 1"),
        ],
    )
    def test_mistakes(self, options, error, said):
        arguments = {"goals": [3], "episodes": 1, "room": SMALL.room} | options
        with pytest.raises(error, match=said):
            evaluate(small_model(), **arguments)

    def test_random_starts(self):
        seen = watch(model := small_model())
        evaluate(model, [0] * 50, 1, room=Room(size=3, steps=4, random_start=True))
        assert len(seen[0][-1].unique()) == 9


def watch(model, logits=None):
    """A list that fills with what the model is called with."""
    seen = []

    def forward(*arguments):
        seen.append(arguments)
        answer = HistoryTransformer.forward(model, *arguments)
        return answer if logits is None else logits.expand_as(answer)

    model.forward = forward
    return seen


class TestComparison:
    def test_everything_is_of_the_same_goals(self, histories, tmp_path):
        model = train(histories, tmp_path, replace(QUICK, steps=2), sizes=SIZES)
        result = compare(model, episodes=3, attempts=2)
        held_out = SMALL.split()[1]
        assert result.goals.tolist() == held_out.tolist()
        assert result.returns.shape == (2, 3)
        assert result.source.shape == (2, 6)
        np.testing.assert_array_equal(result.oracle, ad.oracle_returns(held_out, SMALL.room))
        np.testing.assert_array_equal(result.random, ad.random_returns(held_out, SMALL.room))
        both = evaluate(model, np.repeat(held_out, 2), 3, room=SMALL.room)
        np.testing.assert_array_equal(result.returns, both.reshape(2, 2, 3).mean(axis=1))
        data = result.as_data()
        assert data["mean"]["last_episodes"] == pytest.approx(result.returns.mean(), abs=1e-4)

    def test_figure(self, histories, tmp_path):
        from rattention.studies.dark_room.figures import plot_goals, plot_returns, returns_figure

        model = train(histories, tmp_path, replace(QUICK, steps=2), sizes=SIZES)
        result = compare(model, [0, 4, 8], 5)
        lines = [np.asarray(line.get_ydata(), float).tolist() for line in plot_returns(result).get_lines()]
        assert result.returns.mean(axis=0).tolist() in lines
        assert result.source.mean(axis=0)[:5].tolist() in lines
        drawn = [np.asarray(line.get_ydata(), float).tolist() for line in plot_goals(result).get_lines()]
        assert sorted(result.last().tolist()) in [sorted(line) for line in drawn]
        assert len(returns_figure(result, title="Title").axes) == 2

    def test_labels_are_legible(self, histories, tmp_path):
        """Where model, teacher and chance all end near zero: no label on another, none on the axis below."""
        from matplotlib.text import Text
        from rattention.studies.dark_room.figures import returns_figure

        model = train(histories, tmp_path, replace(QUICK, steps=2), sizes=SIZES)
        result = compare(model, [0, 4, 8], 5)
        nothing = np.zeros_like(result.returns)
        figure = returns_figure(replace(result, returns=nothing, source=nothing, random=nothing[:, 0]))
        figure.draw_without_rendering()
        for ax in figure.axes:
            boxes = sorted((Text.get_window_extent(text) for text in ax.texts), key=lambda box: box.y0)
            assert boxes[0].y0 > ax.bbox.y0
            ends = ax.transData.transform([(end, 0) for end in ax.spines["bottom"].get_bounds()])
            assert ends[1, 0] <= min(box.x0 for box in boxes)  # no axis under them
            assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
        assert figure.get_suptitle() == "Learning in context: 3 goals"


class TestExample:
    @pytest.fixture
    def model(self):
        return HistoryTransformer.load(example_checkpoint())

    def test_file(self, model):
        assert example_checkpoint().stat().st_size < 1_500_000
        assert {"collection", "training", "model", "hardware"} <= set(model.record)
        assert model.record["steps_done"] == model.record["training"]["steps"]
        assert model.record["model"] == model.config

    def test_it_learns_in_context(self, model):
        """Goals it was not trained on, weights unchanged: late episodes give far more than early ones."""
        weights = [weight.clone() for weight in model.state_dict().values()]
        goals = Collection.of(model.record["collection"]).split()[1]
        near = goals[np.argsort(-ad.oracle_returns(goals))[:8]]
        returns = evaluate(model, near, 16, seed=1)
        assert returns[:, -4:].mean() > 2.5 * returns[:, :2].mean() + 2
        assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))


@pytest.mark.parametrize("steps", [100, 37, 20, 3])
def test_where_episodes_of_a_sample_begin(steps):
    """Within an episode each transition begins where the last one ended; a new one begins somewhere else."""
    model = ad.HistoryTransformer.load(ad.example_checkpoint())
    made = samples(model, [30, 39, 20], steps, 0)
    begins = set()
    for sample in made:
        states, _, _, reached, query = (array.numpy().ravel() for array in sample.inputs)
        assert len(states) == steps
        begins |= {*(1 + np.flatnonzero(np.append(states, query)[1:] != reached)).tolist()}
    assert {sample.episodes for sample in made} == {tuple(sorted(begins))}
