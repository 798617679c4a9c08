"""What ``rattention lm`` measures: last occurrences, recall, tasks, n-grams, losses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

from rattention.studies.lm import Evaluation
from rattention.studies.lm import tasks as tasks_module
from rattention.studies.lm.evaluation import described, outside, sequences_of
from rattention.studies.lm.mqar import NO_LABEL, draw
from rattention.studies.lm.ngram import NGrams
from rattention.studies.lm.occurrences import NEVER, bounds_of, classes, reaches


class TestOccurrences:
    def test_by_hand(self):
        #         a  b  c  d  x  a  b  c  d  a  b
        tokens = [1, 2, 3, 4, 9, 1, 2, 3, 4, 1, 2]
        # "a b" ends at 1, 6, 10: 5 and 4 apart; "b c" at 2, 7; "c d" at 3, 8
        expected = [NEVER] * 6 + [4, 4, 4, NEVER, 3]
        assert reaches(np.array(tokens), order=2).tolist() == expected

    @pytest.mark.parametrize("order", [1, 3, 4])
    def test_as_the_definition_says(self, order):
        tokens = np.random.default_rng(order).integers(0, 3, 200)
        grams = [tuple(tokens[t - order + 1 : t + 1]) if t >= order - 1 else None for t in range(200)]
        expected = [
            max((s for s in range(t) if grams[s] is not None and grams[s] == grams[t]), default=None)
            for t in range(200)
        ]
        found = reaches(tokens, order)
        assert found.tolist() == [NEVER if s is None else t - s - 1 for t, s in enumerate(expected)]

    def test_a_window_holds_the_token_exactly_up_to_its_reach(self):
        # The row before t sees t - 1 - w .. t - 1.
        window, t = 5, 30
        for s in range(t):
            sees = t - 1 - window <= s
            assert sees == (t - s - 1 <= window)

    def test_classes(self):
        bounds = bounds_of(100, (20,))
        assert bounds == [4, 8, 16, 20, 32, 64, 100]
        assert classes(np.array([NEVER, 0, 4, 5, 20, 21, 99]), bounds).tolist() == [0, 1, 1, 2, 4, 5, 7]

    def test_short_sequences_have_none(self):
        assert reaches(np.array([1, 1]), order=4).tolist() == [NEVER, NEVER]


class TestRecall:
    def test_every_key_is_asked_for_once_and_the_label_is_its_value(self):
        drawn = draw(np.random.default_rng(0), 50, 64, 8, 64)
        for tokens, labels, gaps in zip(drawn.tokens, drawn.labels, drawn.gaps, strict=True):
            values = dict(zip(tokens[:16:2], tokens[1:16:2], strict=True))
            places = np.flatnonzero(labels != NO_LABEL)
            assert len(values) == len(places) == 8
            assert places.min() >= 16
            assert {*tokens[places]} == {*values}
            for place in places:
                assert labels[place] == values[tokens[place]]
                assert tokens[place - gaps[place]] == labels[place]
            assert all(0 < key < 32 for key in values)
            assert all(32 <= value < 64 for value in values.values())
            assert (gaps[labels == NO_LABEL] == 0).all()

    def test_seeded(self):
        one, two = (draw(np.random.default_rng([3, 4]), 5, 32, 4, 32) for _ in range(2))
        assert (one.tokens == two.tokens).all()

    def test_early_places_are_likelier(self):
        drawn = draw(np.random.default_rng(0), 2000, 64, 1, 64)
        places = np.argmax(drawn.labels != NO_LABEL, axis=1)
        weights = np.arange(1, 32) ** -0.99
        assert abs((places == 2).mean() - weights[0] / weights.sum()) < 0.05


class TestTasks:
    text = np.frombuffer(b"some code = here()\n" * 100, np.uint8)

    @pytest.mark.parametrize("task", tasks_module.NAMES)
    def test_only_the_sample_says_the_answer(self, task):
        for seed in range(20):
            sample = tasks_module.draw(task, np.random.default_rng(seed), 400, self.text, _encode)
            own, control = (bytes(row.tolist()) for row in sample.tokens)
            answer = own[-sample.answer_length :]
            assert len(own) == len(control) == 400
            assert control.endswith(answer)
            assert answer in own[: -sample.answer_length]
            assert answer not in control[: -sample.answer_length]

    def test_tracking_follows_names(self):
        sample = tasks_module.draw("tracking", np.random.default_rng(1), 400, self.text, _encode)
        text = bytes(sample.tokens[0].tolist()).decode()
        given = dict(
            line[2:].split(" = ") for line in text.split("\n") if line.startswith("# ") and " of " not in line
        )
        name = text.rpartition("number of ")[2].partition(" = ")[0]
        for _ in range(tasks_module.HOPS):
            name = given[name]
        assert given[name] == text[-5:]

    def test_common_words(self):
        sample = tasks_module.draw("words", np.random.default_rng(1), 1000, self.text, _encode)
        words = bytes(sample.tokens[0].tolist()).decode().partition("\n")[0].split()
        assert max({*words}, key=words.count) == bytes(sample.tokens[0][-6:].tolist()).decode()

    def test_too_short(self):
        with pytest.raises(ValueError, match="too short"):
            tasks_module.draw("multi", np.random.default_rng(1), 50, self.text, _encode)


def _encode(text):
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


class TestNGrams:
    tokens = np.random.default_rng(0).integers(0, 6, 300) % 5

    @pytest.mark.parametrize("context", [[], [0], [1, 2], [1, 2, 3, 4], [5, 5, 5, 5], [4, 0, 1, 2, 3]])
    def test_probabilities_sum_to_one(self, context):
        found = NGrams(self.tokens, 6).distribution(np.array(context, np.int64))
        assert found.min() > 0
        assert found.sum() == pytest.approx(1, abs=1e-12)

    def test_by_the_formula(self):
        text = np.array([0, 1, 0, 1, 0, 2])
        # P1(1) = (2 + 3/4) / (6 + 3); after 0: 1 twice, 2 once, so P2(1 | 0) = (2 + 2 P1(1)) / (3 + 2)
        lower = (2 + 3 / 4) / 9
        assert NGrams(text, 4, order=2).distribution(np.array([0]))[1] == pytest.approx((2 + 2 * lower) / 5)

    def test_losses_are_those_of_the_distributions(self):
        grams, row = NGrams(self.tokens, 6, order=3), np.array([1, 2, 3, 4, 0, 5])
        expected = [-math.log(grams.distribution(row[:i])[row[i]]) for i in range(1, 6)]
        assert grams.losses(row[None])[0].tolist() == pytest.approx(expected)

    def test_a_large_vocabulary_needs_a_smaller_order(self):
        with pytest.raises(ValueError, match="smaller order"):
            NGrams(self.tokens, 2**16)


class TestLosses:
    def test_described(self):
        sequences = np.array([[7, 1, 2, 3, 1, 2, 3, 1, 2]])
        losses = np.arange(1, 9, dtype=np.float64)[None] * math.log(2)
        found = described(losses, sequences, np.full(8, 2.0), Evaluation(order=2, positions=4), (2,))
        assert found["bits_per_byte"] == pytest.approx(36 / 16)
        assert found["second_half_bits_per_byte"] == pytest.approx((5 + 6 + 7 + 8) / 8)
        assert [row["position"] for row in found["by_position"]] == [1, 3, 5, 7]
        assert found["by_position"][1]["bits_per_byte"] == pytest.approx(7 / 4)
        # targets of the second half: 2 (bigram "1 2", reach 2), 3 (reach 2), 1 (reach 2), 2 (reach 2)
        assert {row["reach"]: row["tokens"] for row in found["by_reach"]} == {None: 0, 2: 4, 4: 0, 8: 0}
        assert math.isnan(outside(found["by_reach"], 2))
        assert outside(found["by_reach"], 1) == pytest.approx(6.5)

    def test_sequences_do_not_overlap_and_reach_the_end(self):
        split = np.arange(100)
        found = sequences_of(split, 9, 10)
        assert found.shape == (10, 10)
        assert found[0, 0] == 0
        assert found[-1, -1] == 99
        assert len(np.unique(found)) == 100
        assert sequences_of(split, 9, 50).shape == (10, 10)
