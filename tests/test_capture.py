"""rattention.inspect.capture: what a model attended with gives the maps that it attended by."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import replace

import numpy as np
import pytest

from tests.extras import needs

needs("hf")

import rattention.hf
import rattention.nn as rn
import torch
from rattention._metrics import MetricOptions, reference_metrics
from rattention.inspect import LayerAttention, capture, visiting
from rattention.inspect.statistics import visible_keys
from rattention.mechanisms.gravitational import reference_gravitational_weights
from rattention.mechanisms.pooled_map import (
    reference_distances,
    reference_map,
    reference_segments,
    reference_top_keys,
)
from rattention.mechanisms.softmax import reference_weights
from rattention.models import Bert
from rattention.nn import LanguageModel, SelfAttention, TransformerEncoder
from rattention.torch.rotary import rotary

from tests import hf_models
from tests.bert_folder import write_folder

OPTIONS = MetricOptions(local_radius=2, long_range_distance=6)
MECHANISMS = {
    mechanism.name: mechanism
    for mechanism in (
        rn.Softmax(rope_theta=100.0),
        rn.SlidingWindow(5, rope_theta=100.0),
        rn.MultiTimescale(timescales=[3.0, 20.0]),
        rn.Gravitational(),
        rn.GravitationalMultiTimescale(
            timescales=[3.0, 20.0], adaptive=True, distance="euclidean", learn_exponent=True
        ),
        rn.RAttention(5, rope_theta=100.0),
    )
}


def layer_of(mechanism):
    torch.manual_seed(0)
    layer = SelfAttention(16, 4, kv_heads=2, mechanism=MECHANISMS[mechanism], causal=True)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(2)
        for parameter in layer.parameters():
            if not parameter.any():  # gates and exponents
                parameter.normal_(std=0.3)
    return layer


def inputs(length=21, batch=2):
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(1))


def maps_in_torch(layer, x, shown=None):
    """The weights of a causal layer from its parameters, in float64: ``[batch, heads, length, length]``."""
    layer, x = layer.double(), x.double()
    split = (*x.shape[:2], -1, layer.head_dim)
    query, key = (linear(x).reshape(split).transpose(1, 2) for linear in (layer.query, layer.key))
    query, key = rotary(query, key, theta=layer.rope_theta)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    distance = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
    scores = query @ key.mT * layer.head_dim**-0.5
    if layer.gravity is not None:
        own, other = layer.gravity(x)
        other = other.repeat_interleave(query.shape[1] // other.shape[1], dim=1)
        strength = layer.gravity.strength()[:, None, None] * own[..., None] * other[:, :, None]
        exponent = layer.gravity.exponent()
        power = 2 if exponent is None else exponent[:, None, None]
        scores = strength / (torch.cdist(query, key) ** power + layer.mechanism.softening)
    if layer.timescales is not None:
        slope = layer.timescales.log_discount(x).double()
        slope = slope[..., None] if slope.dim() == 3 else slope[:, None, None]
        scores = scores + slope * distance
    hidden = distance < 0
    if layer.window is not None:
        hidden = hidden | (distance > layer.window)
    if shown is not None:
        hidden = hidden | ~shown[:, None, None]
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1).nan_to_num()
    return weights.detach().numpy()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_rows_metrics_and_maps_of_modules(mechanism):
    layer, shown = layer_of(mechanism), torch.ones(2, 21, dtype=torch.bool)
    shown[1, :4] = False
    with torch.no_grad(), capture(layer) as seen:
        layer(inputs(), attention_mask=shown)
    (attention,) = seen
    assert (attention.index, attention.name) == (0, "")
    expected = maps_in_torch(layer, inputs(), shown)
    np.testing.assert_allclose(attention.rows(range(21)), expected, atol=2e-5)
    pooled = attention.map((5, 8), rows=(3, 18), keys=(2, 20))
    np.testing.assert_allclose(pooled, reference_map(expected, (5, 8), (3, 18), (2, 20)), atol=2e-5)
    mass = attention.segments([0, 4, 21], [2, 3, 17])
    np.testing.assert_allclose(mass, reference_segments(expected, [0, 4, 21], [2, 3, 17]), atol=2e-4)
    top, law = attention.top_keys(3, rows=(5, 21)), reference_top_keys(expected, expected > 0, 3)
    np.testing.assert_allclose(top.weights, law[1][:, :, 5:], atol=2e-5)
    shares = attention.distances([0, 2, 9])
    exact = reference_distances(expected, expected > 0, np.arange(21), [0, 2, 9])
    np.testing.assert_allclose(shares, exact, atol=2e-5)
    for name, values in reference_metrics(expected, expected > 0, np.arange(21), OPTIONS):
        got = getattr(attention.metrics(OPTIONS), name)
        np.testing.assert_allclose(got, values, rtol=2e-3, atol=1e-4, err_msg=name)


def reference_of(attention):
    """The map by the slow reference, from what was captured."""
    arrays = [np.asarray(a, np.float64) for a in (attention.query, attention.key)]
    if "query_mass" not in attention.options:
        return reference_weights(*arrays, **attention.options)[0]
    masses = [np.asarray(attention.options[name], np.float64) for name in ("query_mass", "key_mass")]
    rest = {n: v for n, v in attention.options.items() if not n.endswith("_mass")}
    return reference_gravitational_weights(*arrays, *masses, **rest)[0]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_what_is_captured_is_what_the_module_attends_with(mechanism):
    layer = layer_of(mechanism)
    with torch.no_grad(), capture(layer) as seen:
        layer(inputs())
    np.testing.assert_allclose(reference_of(seen[0]), maps_in_torch(layer, inputs()), atol=2e-5)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_decoding_with_a_cache(mechanism):
    """Rows of later passes are those of the whole text, over the keys that the cache still has."""
    torch.manual_seed(0)
    model = LanguageModel(40, dim=16, heads=2, depth=1, pattern=MECHANISMS[mechanism]).eval()
    tokens = torch.randint(40, (2, 17), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), capture(model) as whole:
        model(tokens)
    with torch.no_grad(), capture(model) as parts:
        cache = model.new_cache(2)
        for start, stop in ((0, 9), (9, 10), (10, 17)):
            model(tokens[:, start:stop], cache=cache)
    expected = reference_of(whole[0])
    assert [a.query.shape[2] for a in parts] == [9, 1, 7]
    for attention, start in zip(parts, (0, 9, 10), strict=True):
        keys, stop = attention.key.shape[2], start + attention.query.shape[2]
        np.testing.assert_allclose(
            reference_of(attention), expected[:, :, start:stop, stop - keys : stop], atol=2e-5
        )


def test_modules_in_order_and_restored():
    torch.manual_seed(0)
    encoder = TransformerEncoder(16, heads=2, depth=3)
    with capture(encoder) as seen:
        encoder(inputs())
        encoder(inputs(5))
    encoder(inputs())
    assert [(a.index, a.key.shape[2]) for a in seen] == [(0, 21), (1, 21), (2, 21), (0, 5), (1, 5), (2, 5)]
    assert [a.name for a in seen[:3]] == [f"layers.{i}.attention" for i in range(3)]


def test_outputs_and_gradients_are_unchanged():
    layer = layer_of("gravitational")
    expected = layer(inputs())
    with capture(layer):
        got = layer(inputs())
        got.sum().backward()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert layer.query.weight.grad is not None


def test_a_visitor_that_fails_ends_the_pass():
    layer = layer_of("softmax")
    with pytest.raises(ZeroDivisionError), visiting(layer, lambda _: 1 / 0):
        layer(inputs())
    assert layer.attention_hook is None


def test_a_callback_that_attends_keeps_the_output():
    """One pass for output and metrics; what the callback keeps holds no values and no gradients."""
    layer, seen, metrics = layer_of("gravitational"), [], []
    expected = layer(inputs())

    def attend(attention):
        seen.append(attention)
        metrics.append(attention.attend(OPTIONS))

    with visiting(layer, attend):
        got = layer(inputs())
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    got.sum().backward()
    assert layer.query.weight.grad is not None
    assert (seen[0].call, seen[0].output) == (None, None)
    for name, values in seen[0].metrics(OPTIONS):
        np.testing.assert_allclose(getattr(metrics[0], name), values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_output_in_the_place_of_the_layers():
    layer = layer_of("softmax")

    def blank(attention):
        attention.output = torch.zeros_like(attention.call.args[0])

    with torch.no_grad(), visiting(layer, blank):
        assert not layer(inputs()).any()


def test_capturing_twice_at_once():
    layer = layer_of("softmax")
    with capture(layer), pytest.raises(RuntimeError, match="captured or compressed already"), capture(layer):
        pass
    assert layer.attention_hook is None


def test_half_precision():
    layer = layer_of("gravitational_multi_timescale").bfloat16()
    with torch.no_grad(), capture(layer) as seen:
        layer(inputs().bfloat16())
    assert seen[0].options["gravity"].dtype == np.float32
    assert seen[0].query.dtype == np.uint16


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return Bert.from_pretrained(write_folder(tmp_path_factory.mktemp("bert")))


def test_bert(bert):
    ids = np.arange(1, 19).reshape(2, 9)
    mask = np.arange(9) < [[9], [6]]
    with capture(bert) as seen:
        plain = bert(ids, attention_mask=mask)
        bert(ids[:1])
    with capture(bert) as measured:
        expected = bert(ids, attention_mask=mask, metrics=OPTIONS).metrics
    np.testing.assert_array_equal(plain.last_hidden_state, bert(ids, attention_mask=mask).last_hidden_state)
    assert [a.index for a in seen] == 2 * [*range(bert.config.layers)]
    assert "key_mask" not in seen[-1].options
    for attention, again, metrics in zip(seen, measured, expected, strict=False):
        np.testing.assert_array_equal(attention.query, again.query)
        for name, values in metrics:
            np.testing.assert_array_equal(getattr(attention.metrics(OPTIONS), name), values)
    with capture(bert), pytest.raises(RuntimeError, match="captured or compressed already"), capture(bert):
        pass
    assert not any(layer.attention_hook for layer in bert.attention_layers().values())


@pytest.mark.parametrize("name", [*hf_models.ENCODERS, *hf_models.DECODERS])
def test_rows_and_metrics_of_transformers(name):
    """Against the maps that eager attention stores."""
    tokens = hf_models.tokens()
    with torch.no_grad():
        maps = hf_models.build(name, "eager")(tokens, output_attentions=True).attentions
    model = hf_models.build(name)
    with torch.no_grad(), capture(model) as seen:
        model(tokens)
    assert [a.index for a in seen] == [0, 1]
    for attention, stored in zip(seen, maps, strict=True):
        expected = stored.numpy().astype(np.float64)
        np.testing.assert_allclose(attention.rows(range(17)), expected, atol=2e-4)
        entropy = -(expected * np.log(np.where(expected > 0, expected, 1))).sum(axis=-1)
        np.testing.assert_allclose(attention.metrics(OPTIONS).entropy, entropy, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_transformers(side):
    tokens, mask = hf_models.tokens(), hf_models.padding(side)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    with torch.no_grad():
        stored = hf_models.build("llama", "eager")(**inputs, output_attentions=True).attentions[1].numpy()
    model = hf_models.build("llama")
    with torch.no_grad(), capture(model) as seen:
        model(**inputs)
    real = mask.bool().numpy()
    got = seen[1].rows(range(17))
    for b in range(2):
        np.testing.assert_allclose(got[b][:, real[b]], stored[b][:, real[b]], atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dense_masks_of_transformers(dtype):
    tokens = hf_models.tokens(1)
    mask = torch.zeros(1, 1, 17, 17, dtype=dtype).masked_fill(~torch.ones(17, 17).tril(2).bool(), -torch.inf)
    model = hf_models.build("llama").to(dtype)
    with torch.no_grad(), capture(model) as seen:
        model(tokens, attention_mask=mask)
    np.testing.assert_array_equal(
        seen[1].rows(range(17)) > 0, np.tri(17, k=2, dtype=bool)[None, None].repeat(4, 1)
    )
    np.testing.assert_array_equal(visible_keys(seen[1], 5)[0, 0], np.arange(17) <= 7)


def converted():
    model = hf_models.build("llama")
    rattention.hf.convert(model, window=5, layers=[0])
    return model


def test_layers_that_were_converted():
    """Their local branch, which is sliding-window attention of the model they were made from."""
    tokens = hf_models.tokens()
    model = converted()
    with torch.no_grad(), capture(model) as seen:
        model(tokens)
    plain = hf_models.build("llama")
    with torch.no_grad(), capture(plain) as full:
        plain(tokens)
    assert [a.name for a in seen] == [a.name for a in full]
    windowed = replace(full[0], options=full[0].options | {"window": 5})
    np.testing.assert_allclose(seen[0].rows(range(17)), windowed.rows(range(17)), atol=2e-5)


def test_converted_layers_that_generate():
    model = converted()
    settings = {"do_sample": False, "max_new_tokens": 5, "pad_token_id": 0}
    with capture(model) as seen:
        text = model.generate(hf_models.tokens(), **settings)
    steps = [a for a in seen if a.index == 0]
    with torch.no_grad(), capture(model) as whole:
        model(text[:, :-1])
    expected = whole[0].rows(range(21))
    assert [a.query.shape[2] for a in steps] == [17, 1, 1, 1, 1]
    for attention, stop in zip(steps, range(17, 22), strict=True):
        rows, keys = attention.query.shape[2], attention.key.shape[2]
        got = attention.rows(range(rows))
        np.testing.assert_allclose(got, expected[:, :, stop - rows : stop, stop - keys : stop], atol=2e-4)


def test_a_model_of_transformers_is_restored():
    model = hf_models.build("llama", "sdpa")
    before = model(hf_models.tokens()).logits
    with capture(model):
        during = model(hf_models.tokens()).logits
        with pytest.raises(RuntimeError, match="captured or compressed already"), capture(model):
            pass
    torch.testing.assert_close(during, before, rtol=1e-4, atol=1e-4)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (torch.nn.Linear(2, 2), ValueError, "Linear has no attention layers of rattention.nn"),
        ("a model", TypeError, "model must be a torch.nn.Module"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_models_that_cannot_be_captured(model, error, message):
    with pytest.raises(error, match=message), capture(model):
        pass


def test_models_elsewhere():
    layer = layer_of("softmax").to("meta")
    with pytest.raises(ValueError, match="on the CPU only, the model is on meta"), capture(layer):
        layer(inputs().to("meta"))


def test_rows_are_counted_from_the_end():
    layer = layer_of("softmax")
    with torch.no_grad(), capture(layer) as seen:
        layer(inputs())
    assert isinstance(seen[0], LayerAttention)
    np.testing.assert_array_equal(seen[0].rows([-1]), seen[0].rows([20]))


def test_examples():
    module = importlib.import_module("rattention.inspect.hooks")
    assert doctest.testmod(module).failed == 0
