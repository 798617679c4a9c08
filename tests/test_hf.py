"""Models of Transformers on "rattention": the answers of "eager", and errors where they would differ."""

from __future__ import annotations

import doctest

import pytest

from tests.extras import needs

needs("hf")

import rattention.hf
import torch
import transformers
from rattention.hf import attention as implementation
from rattention.hf.masks import rattention_mask

from tests.hf_models import DECODERS, ENCODERS, build, padding, tokens

rattention.hf.register()

by_model = pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
by_decoder = pytest.mark.parametrize("name", DECODERS)
sides = pytest.mark.parametrize("side", ["none", "left", "right"])


def logits(name, implementation, **inputs):
    with torch.no_grad():
        return build(name, implementation)(**inputs).logits


def assert_equal_where(visible, got, expected):
    torch.testing.assert_close(got[visible], expected[visible], rtol=1e-4, atol=1e-4)


@by_model
@sides
def test_logits_equal_those_of_eager(name, side):
    inputs = {"input_ids": tokens()}
    if side != "none":
        inputs["attention_mask"] = padding(side)
    visible = inputs.get("attention_mask", torch.ones(2, 17)).bool()
    assert_equal_where(visible, *(logits(name, i, **inputs) for i in ("rattention", "eager")))


@by_decoder
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("cache", [None, "static"])
def test_greedy_generations_equal_those_of_eager(name, side, cache):
    inputs = {"attention_mask": padding(side)} if side != "none" else {}

    def generate(implementation):
        model = build(name, implementation)
        options = {"do_sample": False, "max_new_tokens": 9, "pad_token_id": 0, "cache_implementation": cache}
        return model.generate(tokens(), **inputs, **options, output_logits=True, return_dict_in_generate=True)

    got, expected = generate("rattention"), generate("eager")
    assert torch.equal(got.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-4)


@by_decoder
def test_packed_sequences(name):
    """Positions that begin anew: rows see their own sequence alone."""
    positions = torch.cat([torch.arange(7), torch.arange(10)])[None]
    inputs = {"input_ids": tokens(1), "position_ids": positions, "use_cache": False}
    got = logits(name, "rattention", **inputs)
    torch.testing.assert_close(got, logits(name, "eager", **inputs), rtol=1e-4, atol=1e-4)
    alone = logits(name, "rattention", input_ids=tokens(1)[:, 7:], use_cache=False)
    torch.testing.assert_close(got[:, 7:], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "llama", "mistral"])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_of_ones_own(name, kind):
    """4-D masks reach the kernels as they are."""
    visible = torch.rand(2, 1, 17, 17, generator=torch.Generator().manual_seed(3)) < 0.5
    visible |= torch.eye(17, dtype=torch.bool)
    added = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
    eager = logits(name, "eager", input_ids=tokens(), attention_mask=added)
    mask = visible if kind == "bool" else added
    got = logits(name, "rattention", input_ids=tokens(), attention_mask=mask)
    torch.testing.assert_close(got, eager, rtol=1e-4, atol=1e-4)


def test_bidirectional_decoder():
    inputs = {"input_ids": tokens(), "is_causal": False}
    got, expected = (logits("llama", i, **inputs) for i in ("rattention", "eager"))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, logits("llama", "eager", input_ids=tokens()), atol=1e-2)


def test_prompts_in_parts():
    """Several tokens after a cache that holds some already."""
    for name in ("llama", "gemma3"):
        model = build(name, "rattention")
        with torch.no_grad():
            first = model(tokens()[:, :11], use_cache=True)
            second = model(tokens()[:, 11:], past_key_values=first.past_key_values)
        expected = logits(name, "eager", input_ids=tokens())[:, 11:]
        torch.testing.assert_close(second.logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "llama", "modernbert"])
def test_gradients_equal_those_of_eager(name):
    def gradients(implementation):
        model = build(name, implementation, attention_dropout=0.0)
        model(tokens(), attention_mask=padding("right")).logits[:, :12].square().sum().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    got, expected = gradients("rattention"), gradients("eager")
    assert set(got) == set(expected)
    # Not of each gradient: a key's bias has none but rounding.
    largest = max(g.abs().max().item() for g in expected.values())
    for key, gradient in expected.items():
        torch.testing.assert_close(got[key], gradient, rtol=1e-3, atol=1e-5 * largest)


def test_bfloat16():
    got, expected = (build("llama", i).bfloat16()(tokens()).logits for i in ("rattention", "eager"))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, rtol=0.1, atol=0.1)


def test_implementation_can_be_changed_at_run_time():
    model = build("llama", "eager")
    expected = model(tokens()).logits
    model.set_attn_implementation("rattention")
    torch.testing.assert_close(model(tokens()).logits, expected, rtol=1e-4, atol=1e-4)


def llama(training=False, **changes):
    model = build("llama", "rattention", **changes)
    return model.train(training)


def test_dropout_in_training_is_refused():
    model = llama(training=True, attention_dropout=0.1)
    with pytest.raises(ValueError, match=r"no dropout of attention weights, got dropout=0\.1"):
        model(tokens())
    model.eval()(tokens())


def test_capped_scores_are_refused():
    with pytest.raises(ValueError, match="capped scores"):
        build("gemma2", "rattention", attn_logit_softcapping=50.0)(tokens())


def test_maps_are_refused():
    with pytest.raises(ValueError, match=r"rattention\.observe"):
        llama()(tokens(), output_attentions=True)


@pytest.mark.parametrize("argument", ["position_bias", "s_aux", "cache"])
def test_what_kernels_do_not_have_is_refused(argument):
    attention = transformers.AttentionInterface()["rattention"]
    query = torch.randn(1, 2, 5, 4)
    with pytest.raises(ValueError, match=argument):
        attention(torch.nn.Module(), query, query, query, None, **{argument: torch.zeros(1)})


def test_other_mask_patterns_are_refused():
    from transformers import masking_utils

    def pattern(batch, head, query, key):
        return key >= 0

    for function in (
        pattern,
        masking_utils.or_masks(masking_utils.causal_mask_function, pattern),
        masking_utils.chunked_overlay(4, torch.zeros(1)),
    ):
        with pytest.raises(ValueError, match="cannot express the mask pattern"):
            rattention_mask(1, 5, 5, mask_function=function)


@pytest.mark.parametrize("kv_offset", [0, 4])
@pytest.mark.parametrize("given", [6, 9, 12])
def test_masks_begin_at_position_0(given, kv_offset):
    """Shorter ones hide what they do not reach, as with the other implementations."""
    mask = torch.ones(1, given, dtype=torch.bool)
    mask[:, 5] = False
    causal = transformers.masking_utils.causal_mask_function
    sizes = {"q_length": 2, "kv_length": 9 - kv_offset, "q_offset": 7, "kv_offset": kv_offset}
    got = rattention_mask(1, **sizes, mask_function=causal, attention_mask=mask)
    expected = [i != 5 and i < given for i in range(kv_offset, 9)]
    assert got.tolist() == [expected]


def test_no_mask_is_a_table():
    """Of all models and inputs of this file: one number per key, or nothing."""
    seen = []

    def recorded(*args, **kwargs):
        seen.append(rattention_mask(*args, **kwargs))
        return seen[-1]

    transformers.AttentionMaskInterface.register("rattention", recorded)
    try:
        for name in (*ENCODERS, *DECODERS):
            for mask in (None, padding("left"), torch.ones(2, 17)):
                logits(name, "rattention", input_ids=tokens(), attention_mask=mask)
    finally:
        rattention.hf.register()
    assert {None if mask is None else tuple(mask.shape) for mask in seen} == {None, (2, 17)}


@pytest.mark.parametrize("module", [rattention.hf, implementation], ids=lambda m: m.__name__)
def test_examples(module):
    assert doctest.testmod(module).failed == 0
