"""The classifier of the comparison: every mechanism in one encoder, parameters matched, padding unseen."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import asdict, replace

import pytest

from tests.extras import needs

needs("studies")

import rattention as ra
import torch
from rattention.models.folder import WeightsError
from rattention.studies.lra import MECHANISMS, PRESETS, ModelSize, SequenceClassifier, matched_size
from rattention.studies.lra.models import mechanism_of, mismatch, parameters, sinusoids

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = ModelSize(dim=16, heads=2, mlp_dim=32, timescales=(2.0, 8.0), window=3)


def classifier(mechanism="softmax", size=SIZE, length=30):
    torch.manual_seed(0)
    return SequenceClassifier(9, 4, mechanism, size, length).eval()


def sequences(*lengths):
    torch.manual_seed(1)
    tokens = torch.randint(1, 9, (len(lengths), max(lengths)))
    sizes = torch.tensor(lengths)
    return tokens * (torch.arange(max(lengths)) < sizes[:, None]), sizes


class TestForward:
    @pytest.mark.parametrize("mechanism", MECHANISMS)
    @pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
    def test_padding_is_not_seen(self, mechanism, positions):
        """A sequence has the same logits alone and beside a longer one, whatever stands behind it."""
        model = classifier(mechanism, replace(SIZE, positions=positions))
        tokens, lengths = sequences(30, 7)
        together = model(tokens, lengths)["logits"]
        tokens[1, 7:] = 5
        assert torch.equal(model(tokens, lengths)["logits"], together)
        alone = model(tokens[1:, :7], lengths[1:])["logits"]
        torch.testing.assert_close(alone, together[1:], rtol=1e-4, atol=1e-5)
        assert together.shape == (2, 4)

    @pytest.mark.parametrize("mechanism", MECHANISMS)
    def test_every_token_counts(self, mechanism):
        model = classifier(mechanism)
        tokens, lengths = sequences(20)
        before = model(tokens, lengths)["logits"]
        for place in (0, 10, 19):
            changed = tokens.clone()
            changed[0, place] = changed[0, place] % 8 + 1
            assert (model(changed, lengths)["logits"] != before).any()

    @pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
    def test_order_counts_with_positions(self, positions):
        tokens, lengths = sequences(20)
        flipped = tokens.flip(1)
        bag, ordered = (
            classifier(size=replace(SIZE, positions="none")),
            classifier(size=replace(SIZE, positions=positions)),
        )
        torch.testing.assert_close(bag(tokens, lengths)["logits"], bag(flipped, lengths)["logits"])
        assert not torch.allclose(
            ordered(tokens, lengths)["logits"], ordered(flipped, lengths)["logits"], atol=1e-4
        )

    def test_loss(self):
        model, (tokens, lengths), labels = classifier(), sequences(9, 5), torch.tensor([1, 3])
        outputs = model(tokens, lengths, labels)
        expected = torch.nn.functional.cross_entropy(outputs["logits"], labels)
        torch.testing.assert_close(outputs["loss"], expected)

    def test_too_long(self):
        with pytest.raises(ValueError, match="the model takes 30 tokens at most, got 31"):
            classifier()(*sequences(31))

    def test_sinusoids(self):
        table = sinusoids(50, 6)
        assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
        assert float(table[7, 0]) == pytest.approx(torch.sin(torch.tensor(7.0)).item())
        assert float(table[7, 5]) == pytest.approx(torch.cos(torch.tensor(7.0) / 10_000 ** (4 / 6)).item())
        assert sinusoids(5, 7).shape == (5, 7)


class TestLayers:
    @pytest.mark.parametrize("name", MECHANISMS)
    def test_are_of_the_mechanism(self, name):
        layers = classifier(name).encoder.attention_layers()
        assert [layer.mechanism.name for layer in layers] == [name] * 2
        assert all(layer.causal == ra.MECHANISMS[name].causal_only for layer in layers)
        assert all(layer.window == (3 if name == "rattention" else None) for layer in layers)
        assert all(
            (layer.timescales is not None) == (name in ("multi_timescale", "gravitational_multi_timescale"))
            for layer in layers
        )

    def test_all_but_the_attention_is_the_same(self):
        counts = [parameters(9, 4, name, SIZE, 30) for name in MECHANISMS]
        for part in ("mlp", "embedding", "norm"):
            assert len({count[part] for count in counts}) == 1

    def test_unknown_mechanism(self):
        with pytest.raises(
            ValueError, match=r"unknown mechanism 'linear': there are softmax, gravit.*rattention"
        ):
            mechanism_of("linear", SIZE)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "concerned", "parameter"),
        [
            ({"learn_exponent": True}, ("gravitational", "gravitational_multi_timescale"), "exponent"),
            ({"distance": "cosine"}, ("gravitational", "gravitational_multi_timescale"), None),
            ({"distance": "euclidean"}, ("gravitational", "gravitational_multi_timescale"), None),
            ({"adaptive_timescales": True}, ("multi_timescale", "gravitational_multi_timescale"), "gate"),
        ],
    )
    def test_reach_the_layers_they_concern(self, options, concerned, parameter):
        tokens, lengths = sequences(20, 11)
        for mechanism in MECHANISMS:
            plain, other = classifier(mechanism), classifier(mechanism, replace(SIZE, **options))
            added = {*other.state_dict()} - {*plain.state_dict()}
            assert all(parameter in name for name in added)
            assert bool(added) == (parameter is not None and mechanism in concerned)
            same = torch.equal(plain(tokens, lengths)["logits"], other(tokens, lengths)["logits"])
            if parameter is None:
                assert same == (mechanism not in concerned)
            other.train()(tokens, lengths, torch.tensor([0, 1]))["loss"].backward()
            assert all(p.grad is not None for p in other.parameters())

    def test_unknown_distance(self):
        with pytest.raises(ValueError, match="unknown distance 'manhattan': there are squared_euclidean"):
            replace(SIZE, distance="manhattan")


class TestMatching:
    @pytest.mark.parametrize("mechanism", MECHANISMS)
    @pytest.mark.parametrize(
        "size",
        [ModelSize(), PRESETS["smoke"].model, PRESETS["small"].model, ModelSize(dim=512, heads=8, depth=6)],
    )
    @pytest.mark.parametrize("vocabulary", [16, 257, 20_000])
    def test_within_a_tenth(self, mechanism, size, vocabulary):
        arguments = (vocabulary, 10, mechanism, replace(size, match_parameters=True), 1_000)
        wanted = parameters(vocabulary, 10, "softmax", replace(size, match_parameters=False), 1_000)["total"]
        with torch.device("meta"):
            have = sum(p.numel() for p in SequenceClassifier(*arguments).parameters())
        assert abs(have / wanted - 1) <= 0.1
        assert mismatch(*arguments) == have / wanted - 1

    def test_unmatched_timescales_have_more(self):
        assert mismatch(16, 10, "multi_timescale", ModelSize(), 100) > 0.1

    def test_softmax_stays_as_it_is(self):
        size = ModelSize(match_parameters=True)
        assert matched_size(16, 10, "softmax", size, 100) == replace(size, match_parameters=False)

    def test_says_when_it_cannot(self):
        """Twelve timescales of one head each do not fit the width of one head and a narrow MLP."""
        size = ModelSize(dim=16, heads=2, mlp_dim=4, timescales=tuple(range(1, 13)), match_parameters=True)
        assert matched_size(16, 10, "gravitational_multi_timescale", size, 100).mlp_dim == 1
        assert mismatch(16, 10, "gravitational_multi_timescale", size, 100) > 0.1


class TestFiles:
    @pytest.mark.parametrize("mechanism", MECHANISMS)
    @pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
    def test_round_trip(self, mechanism, positions, tmp_path):
        model = classifier(mechanism, replace(SIZE, positions=positions, match_parameters=True))
        model.save(tmp_path / "m.safetensors")
        loaded = SequenceClassifier.load(tmp_path / "m.safetensors").eval()
        assert loaded.settings == model.settings
        tokens, lengths = sequences(30, 7)
        assert torch.equal(loaded(tokens, lengths)["logits"], model(tokens, lengths)["logits"])

    def test_other_sizes(self, tmp_path):
        model = classifier()
        model.settings["size"] = asdict(replace(SIZE, dim=32))
        model.save(tmp_path / "m.safetensors")
        with pytest.raises(WeightsError, match="does not fit the model it describes"):
            SequenceClassifier.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"heads": 3}, "heads must divide dim, got dim=128 and heads=3"),
        ({"dropout": 1.0}, "dropout must be >= 0 and < 1"),
        ({"timescales": ()}, "timescales must be one or more numbers > 0"),
        ({"timescales": (4.0, -1.0)}, "timescales must be one or more numbers > 0"),
        ({"window": -1}, "window must be >= 0"),
        ({"positions": "rotary"}, "unknown positions 'rotary': there are sinusoidal, learned, none"),
    ],
)
def test_wrong_sizes(options, said):
    with pytest.raises(ValueError, match=said):
        ModelSize(**options)


@pytest.mark.parametrize("module", ["", ".models"])
def test_documentation_is_right(module):
    result = doctest.testmod(importlib.import_module(f"rattention.studies.lra{module}"))
    assert result.attempted > 0
    assert result.failed == 0


class TestStandardizedMeans:
    SIZE = replace(SIZE, standardize=True)

    def test_training_is_by_the_batch(self):
        model = classifier(size=self.SIZE).train()
        out = model.pooled(3 + 0.1 * torch.randn(50, 16))
        assert torch.allclose(out.mean(dim=0), torch.zeros(16), atol=1e-5)
        assert torch.allclose(out.std(dim=0, correction=0), torch.ones(16), atol=1e-2)

    def test_evaluation_is_by_what_was_seen(self):
        model = classifier(size=self.SIZE).train()
        for _ in range(100):
            model.pooled(torch.randn(64, 16) + 1)
        assert model.eval().pooled(torch.ones(2, 16)).detach().numpy() == pytest.approx(0, abs=0.2)

    def test_one_sequence_and_gradients(self):
        model = classifier(size=self.SIZE).train()
        tokens, lengths = sequences(9)
        model(tokens, lengths, torch.tensor([1]))["loss"].backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())

    def test_is_saved(self, tmp_path):
        model = classifier(size=self.SIZE).train()
        tokens, lengths = sequences(9, 5)
        model(tokens, lengths)
        model.save(tmp_path / "model.safetensors")
        loaded = SequenceClassifier.load(tmp_path / "model.safetensors").eval()
        assert torch.equal(loaded(tokens, lengths)["logits"], model.eval()(tokens, lengths)["logits"])
