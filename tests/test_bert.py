"""A BERT from its files against the same model in float64 NumPy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention.inspect import visiting
from rattention.models import Bert

from tests.bert_folder import (
    ACTIVATIONS,
    CONFIG,
    HIDDEN_TOLERANCE,
    assert_agrees,
    assert_same_metrics,
    random_weights,
    reference_bert,
    write_folder,
)
from tests.extras import needs

needs("models")

IDS = np.random.default_rng(5).integers(5, CONFIG["vocab_size"], (3, 33))
LENGTHS = np.array([33, 1, 20])
MASK = np.arange(33) < LENGTHS[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(folder):
    return Bert.from_pretrained(folder)


INPUTS = {
    "one token": (IDS[:1, :1], None, None),
    "single": (IDS[:1], None, None),
    "batch": (IDS, None, None),
    "padded": (IDS, None, MASK),
    "pairs, padded": (IDS, (np.arange(33) > 11).astype(np.int64) * np.ones((3, 1), np.int64), MASK),
    "all positions": (np.tile(IDS[:1], 2)[:, :64], None, None),
}


@pytest.mark.parametrize(("ids", "types", "mask"), INPUTS.values(), ids=INPUTS)
def test_matches_float64(model, ids, types, mask):
    options = ra.MetricOptions(local_radius=2, long_range_distance=7)
    got = model(ids, token_type_ids=types, attention_mask=mask, metrics=options, hidden_states=True)
    want = reference_bert(CONFIG, random_weights(CONFIG), ids, types, mask)
    seen = np.ones(ids.shape, bool) if mask is None else mask
    assert_agrees(got, want, seen)
    assert_same_metrics(got.metrics, want.weights, seen, options)
    assert got.logits is None


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(tmp_path, activation):
    config = CONFIG | {"hidden_act": activation}
    got = Bert.from_pretrained(write_folder(tmp_path, config))(IDS, hidden_states=True)
    assert_agrees(got, reference_bert(config, random_weights(config), IDS), np.ones(IDS.shape, bool))


SIZES = {
    "one head": {"num_attention_heads": 1, "hidden_size": 17, "intermediate_size": 5},
    "heads of width 1": {"num_attention_heads": 8, "hidden_size": 8},
    "one layer": {"num_hidden_layers": 1},
    "several panels": {"hidden_size": 400, "num_attention_heads": 5, "intermediate_size": 900},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_any_size(tmp_path, sizes):
    config = CONFIG | sizes
    weights = {name: w * (24 / config["hidden_size"]) ** 0.5 for name, w in random_weights(config).items()}
    got = Bert.from_pretrained(write_folder(tmp_path, config, weights))(IDS, hidden_states=True)
    assert_agrees(got, reference_bert(config, weights, IDS), np.ones(IDS.shape, bool))


def test_sequence_classification(tmp_path):
    config = CONFIG | {"architectures": ["BertForSequenceClassification"]}
    weights = random_weights(config, labels=3)
    prefixed = {name if name.startswith("classifier") else f"bert.{name}": w for name, w in weights.items()}
    got = Bert.from_pretrained(write_folder(tmp_path, config, prefixed))(IDS)
    want = reference_bert(config, weights, IDS)
    np.testing.assert_allclose(got.logits, want.logits, atol=HIDDEN_TOLERANCE)
    np.testing.assert_allclose(got.pooler_output, want.pooler_output, atol=HIDDEN_TOLERANCE)


def test_without_pooler(tmp_path):
    weights = {
        name: w for name, w in random_weights(CONFIG, labels=3).items() if not name.startswith("pooler")
    }
    config = CONFIG | {"architectures": ["BertForTokenClassification"]}
    got = Bert.from_pretrained(write_folder(tmp_path, config, weights))(IDS)
    assert got.pooler_output is None
    assert got.logits is None
    assert got.last_hidden_state.shape == (3, 33, 24)


def test_only_what_is_asked_for(model):
    got = model(IDS)
    assert got.metrics is None
    assert got.hidden_states is None
    without = model(IDS, metrics=ra.MetricOptions(received=False)).metrics
    assert all(layer.received is None for layer in without)


def test_padding_changes_nothing_for_the_tokens(model):
    """A text gets the same hidden states alone and in a padded batch, up to rounding."""
    batch = model(IDS, attention_mask=MASK).last_hidden_state
    for text, ids, length in zip(batch, IDS, LENGTHS, strict=True):
        alone = model(ids[None, :length]).last_hidden_state[0]
        np.testing.assert_allclose(text[:length], alone, atol=2e-6)


def test_what_stands_in_the_padding_does_not_matter(model):
    other = np.where(MASK, IDS, 7)
    np.testing.assert_array_equal(
        model(IDS, attention_mask=MASK).last_hidden_state[MASK],
        model(other, attention_mask=MASK).last_hidden_state[MASK],
    )


def test_what_is_captured_is_what_is_measured(model):
    options = ra.MetricOptions(local_radius=1, long_range_distance=3)
    with ra.capture(model) as seen:
        got = model(IDS, attention_mask=MASK, metrics=options)
    assert [layer.index for layer in seen] == [0, 1]
    for layer, inside in zip(seen, got.metrics, strict=True):
        assert layer.query.shape == layer.key.shape == (3, 3, 33, 8)
        for (name, a), (_, b) in zip(layer.metrics(options), inside, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)


def test_an_error_in_a_callback_reaches_the_caller(model):
    def fail(layer):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), visiting(model, fail):
        model(IDS)


def test_encoding_and_its_arrays_give_the_same(model):
    encoding = model.encode(["the cat sat", "a dog"], pairs=["on the mat .", "sleeps"])
    arrays = {"token_type_ids": encoding.token_type_ids, "attention_mask": encoding.attention_mask}
    from_encoding, from_arrays = model(encoding), model(encoding.input_ids, **arrays)
    np.testing.assert_array_equal(from_encoding.last_hidden_state, from_arrays.last_hidden_state)
    np.testing.assert_array_equal(from_encoding.attention_mask, encoding.attention_mask)
    assert not from_encoding.attention_mask.all()


def test_inputs_are_not_changed_and_any_layout_is_read(model):
    ids = np.asfortranarray(IDS.astype(np.uint8))[::-1]
    ids.flags.writeable = False
    np.testing.assert_array_equal(model(ids).last_hidden_state, model(IDS[::-1].copy()).last_hidden_state)


BAD_INPUTS = {
    "too long": ({"inputs": np.full((1, 65), 5)}, ValueError, "at most 64 tokens"),
    "no tokens": ({"inputs": np.zeros((1, 0), int)}, ValueError, "at least one token"),
    "no texts": ({"inputs": np.zeros((0, 4), int)}, ValueError, "at least one token"),
    "one dimension": ({"inputs": IDS[0]}, ValueError, "input_ids must have 2 dimensions"),
    "floats": ({"inputs": IDS * 1.0}, TypeError, "input_ids must be an integer array"),
    "a list": ({"inputs": [[5, 6]]}, TypeError, "input_ids must be an array"),
    "a text": ({"inputs": "the cat"}, TypeError, "input_ids must be an array"),
    "id too large": ({"inputs": IDS + 22}, ValueError, "input_ids must lie in .0, 21."),
    "id negative": ({"inputs": IDS - 100}, ValueError, "input_ids must lie in .0, 21."),
    "type too large": (
        {"inputs": IDS, "token_type_ids": IDS},
        ValueError,
        "token_type_ids must lie in .0, 1.",
    ),
    "types of another shape": (
        {"inputs": IDS, "token_type_ids": IDS[:2]},
        ValueError,
        "token_type_ids must have the",
    ),
    "mask of another shape": (
        {"inputs": IDS, "attention_mask": MASK[:, 1:]},
        ValueError,
        "attention_mask must have the",
    ),
    "mask of numbers": (
        {"inputs": IDS, "attention_mask": MASK * 1},
        TypeError,
        "attention_mask must be a boolean",
    ),
    "metrics": ({"inputs": IDS, "metrics": True}, TypeError, "metrics must be a MetricOptions"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_inputs(model, arguments, error, message):
    arguments = dict(arguments)
    with pytest.raises(error, match=message):
        model(arguments.pop("inputs"), **arguments)


def test_an_encoding_takes_no_second_mask(model):
    with pytest.raises(ValueError, match="brings its own"):
        model(model.encode("the cat"), attention_mask=np.ones((1, 4), bool))


@pytest.mark.row("N13")
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_change_no_bit(model, threads):
    options = ra.MetricOptions()
    ra.set_num_threads(1)
    want = model(IDS, attention_mask=MASK, metrics=options)
    ra.set_num_threads(threads)
    try:
        for _ in range(5):
            got = model(IDS, attention_mask=MASK, metrics=options)
            np.testing.assert_array_equal(got.last_hidden_state, want.last_hidden_state)
            for ours, theirs in zip(got.metrics, want.metrics, strict=True):
                for (name, a), (_, b) in zip(ours, theirs, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=name)
    finally:
        ra.set_num_threads(0)
