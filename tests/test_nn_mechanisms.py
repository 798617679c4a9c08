"""Options of the mechanisms of rattention.nn, and masks: what they accept, and what they say of the rest."""

from __future__ import annotations

import dataclasses
import json

import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.nn as rn
import torch
from rattention.nn import mechanisms
from rattention.nn.mechanisms import BY_NAME

from tests.nn_models import PATTERNS, TEXT, by_pattern, language_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", BY_NAME.values(), ids=BY_NAME)
def test_options_are_those_of_the_table(kind):
    """A mechanism has the options of what its row of the table is called with, and no others."""
    row, options = ra.MECHANISMS[kind.name], {field.name for field in dataclasses.fields(kind)}
    assert ("timescales" in options) == ("log_discount" in row.parameters)
    assert ("distance" in options) == ("gravity" in row.parameters)
    assert ("rope_theta" in options) == row.has_rope
    mapped = any(a.name == "feature_map" for a in row.functions.arguments) and kind is not rn.GLA
    assert ("feature_map" in options) == mapped  # of which gates per channel allow None alone
    required = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    assert required == ({"window"} if row.needs_window else set())


@by_pattern
def test_options_as_json(pattern):
    """Mappings of names and options are the same mechanisms again."""
    stored = json.loads(json.dumps([mechanism.as_dict() for mechanism in PATTERNS[pattern]]))
    assert mechanisms.as_pattern(stored) == PATTERNS[pattern]


def test_a_name_is_the_mechanism_with_its_defaults():
    assert rn.SelfAttention(8, 2, mechanism="gravitational").mechanism == rn.Gravitational()
    assert rn.SelfAttention(8, 2).mechanism == rn.Softmax()
    assert repr(rn.SlidingWindow((3, 1))) == "SlidingWindow(rope_theta=None, window=(3, 1))"


def test_a_window_of_two_sides():
    """Generation keeps as many keys as lie on the left."""
    torch.manual_seed(0)
    model = rn.LanguageModel(128, 16, 2, 2, pattern=rn.SlidingWindow((5, 3), rope_theta=9.0)).eval()
    narrow = rn.LanguageModel(128, 16, 2, 2, pattern=rn.SlidingWindow(5, rope_theta=9.0)).eval()
    narrow.load_state_dict(model.state_dict())
    expected = TEXT[:, :20]
    for _ in range(9):
        expected = torch.cat([expected, narrow(expected)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(TEXT[:, :20], 9), expected)
    cache = model.new_cache(1)
    model.generate(TEXT[:, :20], 9, cache=cache)
    assert [len(layer.kept) for layer in cache.layers] == [5, 5]
    encoder = rn.TransformerEncoder(16, 2, 1, pattern=rn.SlidingWindow((5, 3)))
    x = torch.randn(1, 20, 16, requires_grad=True)
    encoder(x)[0, 9].sum().backward()
    assert x.grad[0].any(dim=1).nonzero().flatten().tolist() == list(range(4, 13))


WRONG = {
    "heads": (lambda: rn.SelfAttention(16, 3), ValueError, "heads must divide dim"),
    "kv_heads": (lambda: rn.SelfAttention(16, 4, 3), ValueError, "kv_heads must divide heads"),
    "no kv_heads": (lambda: rn.SelfAttention(16, 4, 0), ValueError, "kv_heads must divide heads"),
    "qk_norm": (lambda: rn.SelfAttention(8, 2, qk_norm=1), TypeError, "qk_norm must be True or False, got 1"),
    "unknown": (lambda: layer("quantum"), ValueError, "mechanism must be one of softmax, .*, got 'quantum'"),
    "number": (lambda: layer(3), TypeError, "mechanism must be a name or .*, got 3"),
    "needed": (
        lambda: layer("sliding_window"),
        ValueError,
        r"'sliding_window' needs a window: give rattention\.nn\.SlidingWindow\(window=",
    ),
    "of another": (
        lambda: layer({"mechanism": "softmax", "window": 3, "learn_timescales": True}),
        ValueError,
        "mechanism 'softmax' has no option learn_timescales, window; it has rope_theta",
    ),
    "nameless": (lambda: layer({"window": 3}), ValueError, "mechanism must be one of softmax, .*, got None"),
    "both directions": (lambda: layer(rn.RAttention(3)), ValueError, "is causal: give causal=True"),
    "rotated gravity": (lambda: rn.Gravitational(rope_theta=9.0), TypeError, "rope_theta"),
    "timescales of softmax": (lambda: rn.Softmax(timescales=[2.0]), TypeError, "timescales"),
    "feature map": (lambda: rn.RAttention(3, feature_map="elu"), ValueError, "feature_map must be one of"),
    "distance": (
        lambda: rn.Gravitational(distance="taxicab"),
        ValueError,
        "distance must be one of squared_euclidean, euclidean, cosine, got 'taxicab'",
    ),
    "softening": (lambda: rn.Gravitational(softening=0.0), ValueError, "softening must be > 0, got 0.0"),
    "exponent": (
        lambda: rn.Gravitational(learn_exponent=1),
        TypeError,
        "learn_exponent must be True or False",
    ),
    "zero": (lambda: rn.MultiTimescale(timescales=[0.0]), ValueError, "timescales must be > 0, got 0.0"),
    "none": (lambda: rn.MultiTimescale(timescales=[]), ValueError, "timescales must be one or more"),
    "infinite": (lambda: rn.MultiTimescale(timescales=[1e39]), ValueError, "timescales must be finite"),
    "not numbers": (lambda: rn.MultiTimescale(timescales="long"), ValueError, "timescales must be"),
    "theta": (lambda: rn.Softmax(rope_theta=0), ValueError, "rope_theta must be > 0, got 0"),
    "window": (lambda: rn.SlidingWindow(-1), ValueError, "window must be >= 0, got -1"),
    "no window": (lambda: rn.SlidingWindow(None), TypeError, "window must be an integer, got None"),
    "pair": (lambda: rn.RAttention((3, 0)), TypeError, "window must be an integer, got"),
    "no pattern": (lambda: rn.TransformerEncoder(8, 2, 1, pattern=[]), ValueError, "at least one layer"),
    "other pattern": (lambda: rn.TransformerEncoder(8, 2, 1, pattern=3), TypeError, "pattern must be"),
}


def layer(mechanism):
    return rn.SelfAttention(16, 4, mechanism=mechanism)


@pytest.mark.parametrize(("make", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


WRONG_MASKS = {
    "opposite sign": (
        torch.tensor([[0.0, -1e9, 0.0]]),
        TypeError,
        r"be bool or integers .* torch\.float32",
    ),
    "list": ([[1, 1, 0]], TypeError, "be a tensor, got list"),
    "numbers": (torch.tensor([[1, 2, 0]]), ValueError, "hold 0 and 1 .* got 2"),
    "shape": (torch.ones(1, 1, 3, 3).long(), ValueError, r"be .* = \[1, 3\], got \[1, 1, 3, 3\]"),
    "length": (torch.ones(1, 4).bool(), ValueError, r"be \[batch, length\] = \[1, 3\], got \[1, 4\]"),
}


@pytest.mark.parametrize(("mask", "error", "message"), WRONG_MASKS.values(), ids=WRONG_MASKS)
def test_wrong_masks(mask, error, message):
    for module, x in (
        (rn.SelfAttention(8, 2), torch.zeros(1, 3, 8)),
        (language_model("softmax"), TEXT[:, :3]),
    ):
        with pytest.raises(error, match=f"attention_mask must {message}"):
            module(x, mask)
