"""rattention.observe on other models than those of test_observe: which layers it finds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.extras import needs

needs("inspect")

import rattention as ra
import torch
import transformers
from rattention._metrics import ROW_METRICS, MetricOptions
from rattention.hf.masks import rattention_mask
from rattention.inspect import pretrained
from rattention.models import Bert
from rattention.nn import GravitationalMultiTimescale, LanguageModel, RAttention, SlidingWindow, Softmax
from transformers.masking_utils import causal_mask_function

from tests.bert_folder import write_folder
from tests.hf_models import tokens

OPTIONS = MetricOptions(local_radius=2, long_range_distance=6)


MODULES = (
    Softmax(rope_theta=100.0),
    SlidingWindow(5),
    GravitationalMultiTimescale(timescales=[3.0, 20.0]),
    RAttention(5, rope_theta=100.0),
)


@pytest.mark.parametrize("mechanism", MODULES, ids=lambda mechanism: mechanism.name)
def test_models_of_rattention_nn(mechanism):
    """In one pass with the output what `capture` gives in a pass of its own; padding is in no average."""
    torch.manual_seed(0)
    model = LanguageModel(64, dim=16, heads=2, depth=2, pattern=mechanism).eval()
    with torch.no_grad():
        expected = model(tokens())
        with ra.observe(model, names=(*ROW_METRICS, "received"), metrics=OPTIONS) as seen:
            got = model(tokens())
        with ra.capture(model) as layers:
            model(tokens())
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert seen.modules == tuple(layer.name for layer in layers)
    for name, values in layers[1].metrics(OPTIONS):
        np.testing.assert_allclose(getattr(seen, name)[1], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_bert_without_pytorch(tmp_path):
    bert, mask = Bert.from_pretrained(write_folder(tmp_path)), np.arange(9) < [[9], [6]]
    ids = np.arange(1, 19).reshape(2, 9)
    expected = bert(ids, attention_mask=mask, metrics=OPTIONS)
    with ra.observe(bert, metrics=OPTIONS) as seen:
        got = bert(ids, attention_mask=mask)
    np.testing.assert_array_equal(got.last_hidden_state, expected.last_hidden_state)
    assert seen.received.shape == seen.entropy.shape == (bert.config.layers, 2, bert.config.heads, 9)
    assert np.isnan(seen.entropy[:, 1, :, 6:]).all()
    for layer, metrics in enumerate(expected.metrics):
        np.testing.assert_array_equal(seen.entropy[layer, 0], metrics.entropy[0])
        np.testing.assert_array_equal(seen.max_position[layer, 1, :, :6], metrics.max_position[1, :, :6])


PICTURES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 8,
}


def test_layers_of_encoder_decoders_and_pictures():
    """Modules that do not say whether they are causal attend as well."""
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 64, "pad_token_id": 0}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = transformers.BartModel(transformers.BartConfig(**sizes, **heads)).eval()
    with torch.no_grad(), ra.observe(model) as seen:
        model(tokens(), decoder_input_ids=tokens(length=9))
    parts = [name.split(".")[0] for name in seen.modules]
    assert parts == ["encoder", "decoder", "decoder"]
    assert sorted(seen.passes[0].layers) == [0, 1, 2]
    model = transformers.ViTModel(transformers.ViTConfig(**PICTURES)).eval()
    with torch.no_grad(), ra.observe(model) as seen:
        model(torch.randn(1, 3, 16, 16))
    assert seen.entropy.shape == (2, 1, 4, 5)


def test_layers_that_are_not_seen_are_named():
    config = transformers.SiglipVisionConfig(**PICTURES | {"num_hidden_layers": 1})
    model = transformers.SiglipVisionModel(config).eval()
    with (
        pytest.warns(UserWarning, match="not seen: SiglipMultiheadAttentionPoolingHead"),
        ra.observe(model) as seen,
    ):
        pass
    assert len(seen.modules) == 1


def test_a_mask_for_one_sequence_applies_to_all():
    """As it does where nothing is watched."""
    padding = torch.tensor([[0] * 3 + [1] * 9]).bool()
    mask = rattention_mask(1, 12, 12, mask_function=causal_mask_function, attention_mask=padding)
    query = torch.randn(2, 2, 12, 4)
    got, _ = pretrained._hooked_forward(torch.nn.Module(), query, query, query, mask)
    expected, _ = pretrained.attention_forward(torch.nn.Module(), query, query, query, mask)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
