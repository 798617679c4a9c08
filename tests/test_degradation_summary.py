"""What the demo says about the numbers it measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rattention import MetricOptions
from rattention.studies.degradation import (
    ContextMetrics,
    Degradation,
    Recall,
    Selection,
    SyntheticConversation,
    SyntheticSource,
    Thresholds,
    WindowCutoff,
    measure,
    summarise,
)


def context(tokens: int, **numbers: float | None) -> ContextMetrics:
    """A context with made-up numbers."""
    values = {"entropy": 3.0, "local_concentration": 0.3, "long_range": 0.3, "retention": 0.6} | numbers
    share = values.pop("first_tokens_share", None) or min(1.0, 50 / tokens)
    change = values.pop("retention_change", None)
    per_head = {name: np.full((2, 2), value) for name, value in values.items()}
    return ContextMetrics(
        tokens, tokens, **values, retention_change=change, first_tokens_share=share, per_head=per_head
    )  # type: ignore[arg-type]


class TestMarks:
    @pytest.mark.parametrize(
        ("numbers", "mark"),
        [
            ({"entropy": 2.01}, "good_spread"),
            ({"local_concentration": 0.81}, "strong_local_bias"),
            ({"long_range": 0.019}, "poor_long_range"),
            ({"retention_change": -0.011}, "degradation"),
        ],
    )
    def test_each_mark(self, numbers: dict[str, float], mark: str) -> None:
        assert Thresholds().marks(context(100, **({"entropy": 1.0} | numbers))) == (mark,)

    def test_a_threshold_itself_is_not_passed(self) -> None:
        at = context(100, entropy=2.0, local_concentration=0.8, long_range=0.02, retention_change=-0.01)
        assert Thresholds().marks(at) == ()

    def test_thresholds_move_the_marks(self) -> None:
        falling = context(100, entropy=2.5, retention_change=-0.01)
        assert Thresholds(entropy=2.6, retention_drop=0.02).marks(falling) == ()
        assert Thresholds(retention_drop=0.005).marks(falling) == ("good_spread", "degradation")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_thresholds_are_numbers(self, value: float) -> None:
        with pytest.raises(ValueError, match="threshold long_range must be finite"):
            Thresholds(long_range=value)


def story(*contexts: ContextMetrics, recall: tuple[Recall, ...] = ()) -> Degradation:
    cutoff = WindowCutoff(contexts[-1].sequence_length, (8, 128), np.full((2, 2, 2), 0.25))
    return Degradation(contexts, cutoff, recall, Selection((0, 1), (0, 1)), MetricOptions(), Thresholds())


def recalled(tokens: int, mass: float) -> Recall:
    return Recall(tokens, tokens, 10, np.full((2, 2), mass), mass, 3, tokens - 5)


class TestSummary:
    def test_says_that_attention_degrades(self) -> None:
        lines = summarise(story(context(50), context(500, retention=0.4, retention_change=-0.2)))
        assert lines[0].startswith(
            "Attention degrades: the retention score falls from 0.60 at 50 tokens to 0.40 at 500"
        )

    def test_says_that_it_does_not(self) -> None:
        lines = summarise(story(context(50), context(500, retention=0.7, retention_change=0.1, entropy=4.0)))
        assert lines[0].startswith("Attention does not degrade as the context grows, it is diluted")
        assert "rises from 0.60 at 50 tokens to 0.70 at 500" in lines[0]
        assert "over 20 of 50 tokens, then over 55 of 500" in lines[1]

    @pytest.mark.parametrize(("fall", "degrades"), [(0.003, False), (0.009, False), (0.011, True)])
    def test_headline_and_marks_agree(self, fall: float, degrades: bool) -> None:
        """A change that no one can see is no degradation, neither in the table nor in the text."""
        last = context(500, retention=0.6 - fall, retention_change=-fall)
        assert ("degradation" in Thresholds().marks(last)) is degrades
        assert summarise(story(context(50), last))[0].startswith("Attention degrades") is degrades

    def test_does_not_hide_falls_within_a_rise(self) -> None:
        steps = (
            context(50),
            context(100, retention=0.5, retention_change=-0.1),
            context(150, retention_change=0.1),
        )
        assert "It fell in 1 of 2 steps, at most by 0.100 (at 100 tokens)" in summarise(story(*steps))[0]

    def test_says_no_dilution_where_the_share_holds(self) -> None:
        lines = summarise(story(context(50), context(500, first_tokens_share=0.9)))
        assert "diluted" not in lines[0]
        assert "9.0 times their even share" in lines[2]

    def test_one_context_shows_no_trend(self) -> None:
        lines = summarise(story(context(50)))
        assert "shows no trend" in lines[0]
        assert not any("Entropy" in line for line in lines)

    @pytest.mark.parametrize(
        ("last", "verdict"),
        [
            (0.002, "more than dilution alone"),
            (0.02, "about what dilution alone"),
            (0.1, "less than dilution alone"),
        ],
    )
    def test_weighs_the_loss_against_dilution(self, last: float, verdict: str) -> None:
        lines = summarise(story(context(50), context(500), recall=(recalled(50, 0.2), recalled(500, last))))
        assert verdict in lines[-1]

    def test_is_plain_ascii(self) -> None:
        lines = summarise(story(context(50), context(500), recall=(recalled(50, 0.2), recalled(500, 0.1))))
        assert "".join(lines).isascii()


class TestStory:
    def test_data_is_json_with_what_was_promised(self) -> None:
        measured = measure(SyntheticSource(), SyntheticConversation(), (60, 10, 60, 30), layers=[0, 2])
        data = json.loads(json.dumps(measured.as_data(), allow_nan=False))
        assert [c["context_length"] for c in data["contexts"]] == [10, 30, 60]
        assert data["contexts"][0]["retention_change"] is None
        for entry in data["contexts"]:
            assert {
                "sequence_length",
                "entropy",
                "local_concentration",
                "long_range",
                "retention",
            } <= entry.keys()
        assert data["selection"]["layers"] == data["window_cutoff"]["layers"] == [0, 2]
        assert [r["context_length"] for r in data["recall"]] == [30, 60]
        assert np.shape(data["recall"][0]["layer_best_mass"]) == (2,)
        assert np.shape(data["heads"]["entropy"]) == (SyntheticSource.layers, SyntheticSource.heads)

    def test_best_heads_are_named_by_their_own_numbers(self) -> None:
        measured = measure(SyntheticSource(), SyntheticConversation(), (40,), heads=[5, 7])
        (recall,) = measured.as_data()["recall"]
        mass = measured.recall[0].mass[:, [5, 7]]
        assert recall["layer_best_head"] == [(5, 7)[i] for i in mass.argmax(axis=1)]

    def test_no_length(self) -> None:
        with pytest.raises(ValueError, match="at least one context length"):
            measure(SyntheticSource(), SyntheticConversation(), ())

    def test_progress_sees_every_context(self) -> None:
        seen: list[tuple[str, int]] = []

        def progress(items, title):
            for item in items:
                seen.append((title, item))
                yield item

        measure(SyntheticSource(), SyntheticConversation(), (10, 30), progress=progress)
        assert seen == [("contexts", 10), ("contexts", 30), ("recall", 30)]
