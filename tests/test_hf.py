"""Models of Transformers on "rattention": the answers of "eager", and errors where they would differ."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from tests.extras import needs

needs("hf")

import rattention.hf
import torch
import transformers
from rattention.hf import attention as implementation
from rattention.hf.masks import rattention_mask
from rattention.mechanisms.masks import Masks, reference_visible
from transformers import masking_utils as mu

from tests.hf_models import BERT, DECODERS, ENCODERS, build, padding, tokens

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


def test_maps_are_refused():
    with pytest.raises(ValueError, match=r"rattention\.observe"):
        llama()(tokens(), output_attentions=True)


@pytest.mark.parametrize("argument", ["position_bias", "indices", "cache"])
def test_what_kernels_do_not_have_is_refused(argument):
    attention = transformers.AttentionInterface()["rattention"]
    query = torch.randn(1, 2, 5, 4)
    with pytest.raises(ValueError, match=argument):
        attention(torch.nn.Module(), query, query, query, None, **{argument: torch.zeros(1)})


PADDED = torch.tensor([[1] * 12, [0] * 3 + [1] * 9]).bool()
LEFT = torch.tensor([0, 3])
SEQUENCES = torch.tensor([[0] * 5 + [1] * 7, [0] * 8 + [1] * 4])
POSITIONS = torch.tensor([[*range(5), *range(7)], [*range(8), *range(4)]])
BLOCKS = torch.tensor([[-1] * 4 + [2] * 3 + [-1] * 5, [0] * 2 + [-1] * 10])


def packed(pattern):
    return mu.and_masks(
        mu.packed_sequence_mask_function(SEQUENCES),
        mu.remap_positions_for_packed_sequence(pattern, POSITIONS),
    )


CAUSAL = mu.causal_mask_function
PATTERNS = {
    "causal": CAUSAL,
    "everything": mu.bidirectional_mask_function,
    "window": mu.sliding_window_causal_mask_function(4),
    "two-sided window": mu.sliding_window_bidirectional_mask_function(3),
    "window without causality": mu.sliding_window_overlay(4),
    "two windows": mu.and_masks(mu.sliding_window_overlay(5), mu.sliding_window_bidirectional_overlay(2)),
    "chunks": mu.chunked_causal_mask_function(5, LEFT),
    "chunks on both sides": mu.chunked_overlay(5, LEFT),
    "blocks": mu.or_masks(CAUSAL, mu.blockwise_overlay(BLOCKS)),
}
WHOLE = {
    "packed": packed(CAUSAL),
    "packed window": packed(mu.sliding_window_causal_mask_function(4)),
    "packed, both sides": packed(mu.bidirectional_mask_function),
}
TABLES = {
    "blocks of no one place": mu.or_masks(CAUSAL, mu.blockwise_overlay(BLOCKS.roll(9, 1) % 3)),
    "packed chunks": packed(mu.chunked_causal_mask_function(3, LEFT)),
    "positions that repeat": mu.remap_positions_for_packed_sequence(CAUSAL, POSITIONS),
    "no window": mu.sliding_window_causal_mask_function(0),
    "a user's": lambda batch, head, query, key: (key <= query) & (key % 3 != query % 3),
}
PLACES = {
    "all rows": (12, 12, 0, 0),
    "later rows": (3, 12, 9, 0),
    "room": (4, 12, 5, 0),
    "moved": (2, 6, 9, 5),
}


def mask_and_table(pattern, place, padding=None):
    sizes = (2, *PLACES[place])
    table = mu.sdpa_mask(*sizes, mask_function=pattern, attention_mask=padding, allow_is_causal_skip=False)
    return rattention_mask(*sizes, mask_function=pattern, attention_mask=padding), table


@pytest.mark.parametrize("padding", [None, PADDED, PADDED.flip(1), PADDED[:, :7]])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [*PATTERNS, *WHOLE])
def test_patterns_are_those_of_transformers(name, place, padding):
    if name in WHOLE and place != "all rows":
        pytest.skip("packed sequences are whole")
    mask, table = mask_and_table((PATTERNS | WHOLE)[name], place, padding)
    assert mask.pattern is not None
    got, _ = reference_visible(Masks(**numpy_of(mask.attention_options())), 2, 1, table.shape[2], mask.keys)
    assert np.array_equal(got, table[..., : mask.keys].numpy())
    assert not table[..., mask.keys :].any()


def numpy_of(options):
    return {n: v.numpy() if isinstance(v, torch.Tensor) else v for n, v in options.items()}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("padding", [None, PADDED])
def test_what_kernels_cannot_express_is_a_table(name, padding):
    mask, table = mask_and_table(TABLES[name], "all rows", padding)
    assert mask.pattern is None
    assert torch.equal(mask.attention_options()["attn_mask"], table.expand(2, 1, 12, 12))


def test_masks_are_those_of_eager_to_anyone_else():
    """Operations of PyTorch see numbers to add, and what is written into a mask counts."""
    mask, table = mask_and_table(PATTERNS["window"], "all rows", PADDED)
    added = torch.where(table, 0.0, torch.finfo(torch.float32).min)
    assert (mask.shape, mask.dtype) == (added.shape, added.dtype)
    assert torch.equal(mask + 0, added)
    assert torch.equal(torch.cat([mask, mask], dim=3), torch.cat([added, added], dim=3))
    assert mask.pattern is not None
    assert torch.equal(mask[:, :, 2:, :5], added[:, :, 2:, :5])
    mask[:, :, :, 4] = 0.5
    assert torch.equal(mask.attention_options()["attn_mask"][:, :, :, 4], torch.full((2, 1, 12), 0.5))


def test_masks_of_another_batch_apply_to_all_sequences():
    attention = transformers.AttentionInterface()["rattention"]
    mask = rattention_mask(1, 12, 12, mask_function=CAUSAL, attention_mask=PADDED[1:])
    query = torch.randn(2, 2, 12, 4)
    got, _ = attention(torch.nn.Module(), query, query, query, mask)
    expected, _ = attention(torch.nn.Module(), query, query, query, mask.visible())
    torch.testing.assert_close(got, expected)
    with pytest.raises(ValueError, match="cannot be broadcast"):
        attention(torch.nn.Module(), query[:, :, :5], query, query, mask)


def test_no_mask_of_a_model_becomes_a_table():
    """Of all models and inputs of this file: nothing grows with the square of the length."""
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
    masks = [mask for mask in seen if mask is not None]
    assert len(masks) > 30
    assert all(
        mask.pattern is not None and mask._contents.visible is mask._contents.added is None for mask in masks
    )


OWN_ATTENTION = {
    "bloom": lambda: transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=1, n_head=4)
    ),
    "mpnet": lambda: transformers.MPNetForMaskedLM(transformers.MPNetConfig(**BERT)),
    "reformer": lambda: transformers.ReformerModel(
        transformers.ReformerConfig(attn_layers=["local"], vocab_size=64)
    ),
}


@pytest.mark.parametrize("name", OWN_ATTENTION)
def test_models_that_attend_without_the_interface_are_refused_when_loaded(name, tmp_path):
    model = OWN_ATTENTION[name]()
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"cannot use attn_implementation=.rattention.: it computes attention"
    ):
        type(model).from_pretrained(tmp_path, attn_implementation="rattention")
    assert type(model).from_pretrained(tmp_path).config._attn_implementation == "eager"
    model.set_attn_implementation("rattention")  # which Transformers refuses, with a warning
    assert model.config._attn_implementation != "rattention"


def test_models_with_the_interface_are_loaded_by_name(tmp_path):
    build("llama").save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="rattention")
    torch.testing.assert_close(
        model(tokens()).logits, logits("llama", "eager", input_ids=tokens()), rtol=1e-4, atol=1e-4
    )


def test_models_without_attention_can_be_parts():
    """They attend nowhere, and ignore nothing."""
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    transformers.ResNetModel._from_config(config, attn_implementation="rattention")


@pytest.mark.parametrize("module", [rattention.hf, implementation], ids=lambda m: m.__name__)
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"softcap": 0.5},
        {"sinks": torch.tensor([1.0, -1.0])},
        {"s_aux": torch.tensor([1.0, -1.0])},
        {"position_bias": torch.linspace(-1, 1, 10).reshape(1, 2, 1, 5)},
    ],
)
def test_a_step_has_the_terms_of_longer_calls(terms):
    """One row that sees every key has a shorter way, which these leave."""
    query, key, value = (torch.randn(1, 2, n, 8) for n in (5, 5, 5))
    sizes = {"batch_size": 1, "kv_length": 5, "mask_function": mu.causal_mask_function}
    row = rattention_mask(q_length=1, q_offset=4, **sizes)
    rows = rattention_mask(q_length=5, **sizes)
    longer = dict(terms)
    if "position_bias" in terms:
        longer["position_bias"] = terms["position_bias"].expand(1, 2, 5, 5)
    module = torch.nn.Module()
    attend = implementation.attention_forward
    got, _ = attend(module, query[:, :, 4:], key, value, row, scaling=0.4, **terms)
    expected, _ = attend(module, query, key, value, rows, scaling=0.4, **longer)
    torch.testing.assert_close(got, expected[:, 4:])
    with pytest.raises(ValueError, match="dropout"):
        attend(module, query[:, :, 4:], key, value, row, dropout=0.1, **terms)
