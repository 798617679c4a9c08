"""Norms of converted layers that are set by a sample of text: the model begins as with windows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.extras import needs

needs("hf")

import torch
from rattention.hf import convert
from rattention.torch.calibration import begin_as_window

from tests.hf_models import build, tokens

WINDOW = 4
SAMPLE = tokens(batch=3, length=40, seed=3)
"""Norms are set by these tokens, and tested on others."""


def calibrated(name="llama", layers=None, sample=SAMPLE, **changes):
    model = build(name, **changes)
    convert(model, WINDOW, layers, calibration=sample)
    return model


def heads_of(model, index, ids):
    """What the attention of a layer gives its output projection, ``[tokens, features]``."""
    kept = []
    projection = model.model.layers[index].self_attn.o_proj
    with projection.register_forward_pre_hook(lambda _, args: kept.append(args[0])), torch.no_grad():
        model(ids, use_cache=False)
    return kept[0].flatten(0, 1)


def test_weights_are_those_of_least_squares():
    local = torch.randn(2, 3, 50, 4) * torch.tensor([0.1, 1.0, 7.0, 0.0])
    ours, linear = torch.ones(3, 4), torch.ones(3, 4)
    begin_as_window(local, ours, linear)
    rows = local.double().numpy()
    normed = rows / np.sqrt(np.mean(rows**2, axis=-1, keepdims=True))
    for head in range(3):
        for column in range(3):
            x, y = (a[:, head, :, column].reshape(-1) for a in (normed, rows))
            (nearest,), *_ = np.linalg.lstsq(x[:, None], y, rcond=None)
            assert ours[head, column].item() == pytest.approx(nearest, rel=1e-5)
    torch.testing.assert_close(ours[:, 3], torch.ones(3))  # a column of zeros says nothing
    torch.testing.assert_close(linear, torch.zeros(3, 4))


@pytest.mark.parametrize("length", [17, 40])
@pytest.mark.parametrize("name", ["mistral", "qwen3"])
def test_a_model_begins_nearly_as_with_windows(name, length):
    """Sliding windows of Transformers see `window` + 1 tokens."""
    options = {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}
    before = build(name, sliding_window=WINDOW + 1, **options if name == "qwen3" else {})
    plain = build(name)
    convert(plain, WINDOW)
    ids = tokens(length=length)
    for index in (0, 1):
        wanted, got, without = (heads_of(m, index, ids) for m in (before, calibrated(name), plain))
        error, other = ((found - wanted).norm() / wanted.norm() for found in (got, without))
        assert error < 0.45 * other


def test_rows_that_are_alike_in_size_are_the_windows_own():
    """Where all tokens are one, every row of the window is its value, and one factor gives it its size."""
    same = torch.full((1, 12), 7)
    before = build("mistral", sliding_window=WINDOW + 1)
    model = calibrated("mistral", sample=same)
    for index in (0, 1):
        wanted, got = (heads_of(each, index, same) for each in (before, model))
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_only_new_layers_are_calibrated_each_on_what_it_is_given():
    model = calibrated(layers=[0])
    first = model.model.layers[0].self_attn.local_norm_weight.clone()
    convert(model, WINDOW, [1], calibration=SAMPLE)
    torch.testing.assert_close(model.model.layers[0].self_attn.local_norm_weight, first, rtol=0, atol=0)
    together = calibrated()
    for index in (0, 1):
        one, other = (m.model.layers[index].self_attn.local_norm_weight for m in (model, together))
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_model_is_trained_from_there():
    model = build("llama", attention_dropout=0.0).train()
    model.model.layers[1].eval()
    convert(model, WINDOW, calibration=SAMPLE)
    assert [layer.training for layer in model.model.layers] == [True, False]
    attention = model.model.layers[0].self_attn
    before = attention.local_norm_weight.clone()
    model(tokens(), use_cache=False).logits.square().mean().backward()
    assert attention.linear_norm_weight.grad.abs().min() > 0
    torch.testing.assert_close(attention.local_norm_weight, before, rtol=0, atol=0)


def test_what_was_done_is_said():
    told = [repr(convert(build("llama"), WINDOW, calibration=sample)) for sample in (None, SAMPLE)]
    assert "With calibration=, token ids of some text, it would begin" in told[0]
    assert "It begins nearly as with sliding windows of that size." in told[1]


def test_weights_are_kept(tmp_path):
    model = calibrated()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(tokens()).logits, model(tokens()).logits, rtol=0, atol=0)


def test_bfloat16_and_other_integers():
    model = build("llama").bfloat16()
    convert(model, WINDOW, calibration=SAMPLE.int())
    attention, exact = model.model.layers[0].self_attn, calibrated().model.layers[0].self_attn
    assert attention.local_norm_weight.dtype == torch.bfloat16
    torch.testing.assert_close(
        attention.local_norm_weight.float(), exact.local_norm_weight, rtol=0.05, atol=0.01
    )


def raising(*_):
    raise KeyboardInterrupt


def state_of(attention):
    return type(attention), {*vars(attention)}, {*attention._parameters}, attention.config


@pytest.mark.parametrize("fault", ["interrupt", "maps", "dtype", "infinity"])
def test_a_conversion_that_fails_is_taken_back(fault):
    model = build("llama")
    if fault == "interrupt":
        calls = iter((None, None, raising))  # twice while rotations are measured, then for calibration
        model.model.layers[1].register_forward_pre_hook(lambda *_: (next(calls) or len)(_))
    elif fault == "maps":
        model.config.output_attentions = True
    elif fault == "dtype":
        model.double()
    else:
        model.model.layers[1].self_attn.v_proj.weight.data.fill_(torch.inf)
    before = [state_of(layer.self_attn) for layer in model.model.layers]
    settings = model.config.to_dict()
    with pytest.raises((KeyboardInterrupt, ValueError, TypeError)):
        convert(model, WINDOW, calibration=SAMPLE)
    assert [state_of(layer.self_attn) for layer in model.model.layers] == before
    assert model.config.to_dict() == settings
    assert model.config._attn_implementation == "eager"
    if fault == "interrupt":
        model.model.layers[1]._forward_pre_hooks.clear()
        with torch.no_grad():
            torch.testing.assert_close(model(tokens()).logits, build("llama")(tokens()).logits)
        assert convert(model, WINDOW, calibration=SAMPLE).layers == (0, 1)


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        ("text", TypeError, r"calibration must be a tensor of integers \[batch, length\], got str"),
        ([[1, 2]], TypeError, "got list"),
        (SAMPLE.float(), TypeError, "got a tensor of torch.float32"),
        (SAMPLE > 7, TypeError, "got a tensor of torch.bool"),
        (SAMPLE[0], ValueError, r"must be \[batch, length\] with tokens, got shape \(40,\)"),
        (SAMPLE[:, :0], ValueError, r"got shape \(3, 0\)"),
        (SAMPLE + 30, ValueError, r"must hold token ids from 0 to 63, got \d+ to 9\d"),
        (SAMPLE - 64, ValueError, r"must hold token ids from 0 to 63, got -\d+"),
    ],
)
def test_bad_samples(sample, error, message):
    model = build("llama")
    with pytest.raises(error, match=message):
        convert(model, WINDOW, calibration=sample)
    assert type(model.model.layers[0].self_attn).__name__ == "LlamaAttention"
    assert model.config._attn_implementation == "eager"
