"""The transformer that learns from histories: its inputs, and its files."""

from __future__ import annotations

import doctest

import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention.models.folder import WeightsError
from rattention.studies.dark_room import HistoryTransformer

from tests.histories import PATTERNS, random_history, small_model, tensors

pytestmark = pytest.mark.usefixtures("one_thread")


class TestModel:
    @pytest.mark.parametrize("length", [0, 1, 8])
    @pytest.mark.parametrize("columns", [None, 3])
    def test_logits(self, length, columns):
        model = small_model(columns=columns)
        logits = model(*tensors(random_history(length)), torch.tensor([4, 7]))
        assert logits.shape == (2, 5)
        assert logits.isfinite().all()

    def test_every_input_counts(self):
        model, history, query = small_model(), random_history(5), torch.tensor([4, 7])
        before = model(*tensors(history), query)
        assert (model(*tensors(history), torch.tensor([5, 7]))[0] != before[0]).any()
        for i in range(4):
            changed = tensors(history)
            changed[i][0, 2] = (changed[i][0, 2] + 1) % 3
            after = model(*changed, query)
            assert (after[0] != before[0]).any()
            assert torch.equal(after[1], before[1])

    @pytest.mark.parametrize("pattern", PATTERNS)
    @pytest.mark.parametrize("length", [0, 3, 8])
    def test_training_sees_what_evaluation_sees(self, pattern, length):
        """The query of a window has the logits of the transitions before it, whatever lies behind."""
        model = small_model(pattern=PATTERNS[pattern])
        history = random_history(9)
        states, *others = tensors(history)
        whole = model.predict(states, *others, torch.full((2,), length))
        alone = model(*(tensor[:, :length] for tensor in (states, *others)), states[:, length])
        torch.testing.assert_close(whole[:, length], alone, rtol=1e-4, atol=1e-5)

    def test_layers_are_those_of_the_pattern(self):
        model = small_model(pattern=PATTERNS["rattention"], depth=4)
        layers = model.encoder.attention_layers()
        assert [layer.mechanism.name for layer in layers] == ["rattention"] * 3 + ["softmax"]
        assert all(layer.causal for layer in layers)

    def test_places_share_rows_and_columns(self):
        embedded = small_model().place(torch.arange(9)).detach()
        torch.testing.assert_close(embedded[4] - embedded[1], embedded[5] - embedded[2])
        apart = small_model(columns=None).place(torch.arange(9)).detach()
        assert not torch.allclose(apart[4] - apart[1], apart[5] - apart[2])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda h, q: (*h[:3], h[3][:, 1:], q), "alike"),
            (lambda h, q: (*h, q[:1]), r"query_state \[batch\]"),
            (lambda h, q: (h[0] + 9, *h[1:], q), "states must be between 0 and 8"),
            (lambda h, q: (h[0], h[1] - 9, *h[2:], q), "actions must be between 0 and 4"),
            (lambda h, q: (*h, q + 9), "query_state must be between 0 and 8"),
            (lambda h, q: (*(torch.cat([t, t], dim=1) for t in h), q), "8 transitions at most, got 10"),
        ],
    )
    def test_wrong_inputs(self, change, said):
        with pytest.raises(ValueError, match=said):
            small_model()(*change(tensors(random_history(5)), torch.tensor([4, 7])))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"context": 0}, "context must be >= 1"),
            ({"columns": 4}, "columns must divide"),
            ({"heads": 3}, "heads"),
        ],
    )
    def test_wrong_sizes(self, options, said):
        with pytest.raises(ValueError, match=said):
            small_model(**options)


class TestFiles:
    def test_round_trip(self, tmp_path):
        model = small_model(pattern=PATTERNS["rattention"])
        model.record = {"seed": 3}
        model.save(tmp_path / "m.safetensors")
        loaded = HistoryTransformer.load(tmp_path / "m.safetensors")
        assert loaded.config == model.config
        assert loaded.record == {"seed": 3}
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, loaded.state_dict()[name])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda model: model.head.weight.data.fill_(float("nan")), "NaN or infinity in head.weight"),
            (lambda model: model.config.update(dim=32), "does not fit the model it describes"),
            (lambda model: model.config.update(depth=3), "does not fit"),
            (lambda model: model.config.update(colour="red"), "does not fit"),
        ],
    )
    def test_other_weights(self, tmp_path, change, said):
        model = small_model()
        change(model)
        model.save(tmp_path / "m.safetensors")
        with pytest.raises(WeightsError, match=said):
            HistoryTransformer.load(tmp_path / "m.safetensors")

    def test_no_file(self, tmp_path):
        with pytest.raises(WeightsError, match=r"none\.safetensors cannot be read"):
            HistoryTransformer.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("module", ["__init__", "model", "rooms"])
def test_documentation_is_right(module):
    name = (
        "rattention.studies.dark_room" if module == "__init__" else f"rattention.studies.dark_room.{module}"
    )
    result = doctest.testmod(__import__(name, fromlist=["_"]), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
