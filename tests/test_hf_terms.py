"""Models whose scores are more than products, as with "eager": soft caps, sinks and position biases."""

from __future__ import annotations

from tests.extras import needs

needs("hf")

import pytest
import rattention.hf
import rattention.torch as rt
import torch
import transformers as tf
import transformers.masking_utils as mu
from rattention.hf.masks import rattention_mask

from tests.hf_models import LLAMA

rattention.hf.register()

WINDOWED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
MODELS = {
    "gemma2, soft-capped": (
        tf.Gemma2ForCausalLM,
        tf.Gemma2Config(**LLAMA | WINDOWED, attn_logit_softcapping=0.4, query_pre_attn_scalar=8),
    ),
    "gpt-oss, with sinks": (
        tf.GptOssForCausalLM,
        tf.GptOssConfig(**LLAMA | WINDOWED, num_local_experts=2, num_experts_per_tok=1),
    ),
    "t5, with a position bias": (
        tf.T5ForConditionalGeneration,
        tf.T5Config(
            vocab_size=64,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        ),
    ),
}
by_model = pytest.mark.parametrize("name", MODELS)


def model_of(name):
    kind, config = MODELS[name]
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter_name, parameter in model.named_parameters():  # scores of a few units
        if "sinks" in parameter_name or "relative_attention_bias" in parameter_name:
            torch.nn.init.normal_(parameter, std=2.0)
        elif "q_proj.weight" in parameter_name or "k_proj.weight" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch_of(model, side):
    tokens = torch.randint(3, 64, (2, 23), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    if side:
        mask[1, slice(0, 5) if side == "left" else slice(18, 23)] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        return inputs | {"decoder_input_ids": tokens[:, :9]}, torch.ones(2, 9, dtype=torch.bool)
    return inputs, mask.bool()


@pytest.mark.parametrize("side", ["", "left", "right"])
@by_model
def test_logits_and_gradients(name, side):
    model = model_of(name)
    inputs, shown = batch_of(model, side)
    results = {}
    for implementation in ("eager", "rattention"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        logits = model(**inputs).logits[shown]
        logits.square().mean().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results[implementation] = logits.detach(), gradients
    (wanted, law), (got, gradients) = results["eager"], results["rattention"]
    torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-5)
    assert gradients.keys() == law.keys()
    for parameter, gradient in gradients.items():
        scale = law[parameter].abs().max().item()
        torch.testing.assert_close(gradient, law[parameter], atol=1e-4 * scale + 1e-9, rtol=1e-4)


@by_model
def test_what_makes_the_difference_counts(name):
    """Without the cap, the sinks or the bias logits are others: the test above would see it."""
    model = model_of(name)
    inputs, shown = batch_of(model, "")
    model.set_attn_implementation("rattention")
    with torch.no_grad():
        before = model(**inputs).logits[shown]
        for module in model.modules():
            if getattr(module, "attn_logit_softcapping", None) is not None:
                module.attn_logit_softcapping = None
        for parameter_name, parameter in model.named_parameters():
            if "sinks" in parameter_name:
                parameter.fill_(-100)
            if "relative_attention_bias" in parameter_name:
                parameter.zero_()
        assert (model(**inputs).logits[shown] - before).abs().max() > 1e-3


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@by_model
def test_greedy_tokens(name, cache):
    model = model_of(name)
    inputs, _ = batch_of(model, "left")
    inputs.pop("decoder_input_ids", None)
    tokens = {}
    for implementation in ("eager", "rattention"):
        model.set_attn_implementation(implementation)
        tokens[implementation] = model.generate(
            **inputs, max_new_tokens=14, do_sample=False, cache_implementation=cache, disable_compile=True
        )
    assert torch.equal(tokens["rattention"], tokens["eager"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@by_model
def test_in_16_bits(name, dtype):
    model = model_of(name)
    inputs, shown = batch_of(model, "")
    with torch.no_grad():
        exact = model(**inputs).logits[shown]
        errors = {}
        for implementation in ("eager", "rattention"):
            rounded = model_of(name).to(dtype)
            rounded.set_attn_implementation(implementation)
            errors[implementation] = (rounded(**inputs).logits[shown].float() - exact).abs().max().item()
    assert errors["rattention"] <= 1.5 * errors["eager"]


def test_sinks_take_their_weight_in_what_is_observed():
    """The keys' weights are those that "eager" returns, whose sum is less than one."""
    model = model_of("gpt-oss, with sinks")
    inputs, _ = batch_of(model, "")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions
    with rattention.observe(model) as observation, torch.no_grad():
        model(**inputs)
    for layer, weights in enumerate(maps):
        weights = weights.double()
        entropy = -(weights * weights.clamp_min(1e-300).log()).sum(-1)
        assert (weights.sum(-1) < 0.99).any()
        got = torch.as_tensor(observation.passes[-1].layers[layer]["entropy"])
        torch.testing.assert_close(got.double(), entropy, atol=1e-5, rtol=1e-5)


IMAGES = torch.full((2, 40), -1)
IMAGES[0, 5:12], IMAGES[0, 12:15], IMAGES[1, 30:] = 0, 1, 0


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("window", [None, 10])
def test_blocks_that_see_both_sides_are_no_table(window, inner):
    """Images in a causal text, as Transformers says it; what the kernels take shows what its table shows."""
    blocks = mu.blockwise_overlay(IMAGES)
    if window is None:
        pattern = mu.or_masks(mu.causal_mask_function, blocks)
    elif inner:
        pattern = mu.and_masks(
            mu.or_masks(mu.causal_mask_function, blocks), mu.sliding_window_overlay(window)
        )
    else:
        pattern = mu.or_masks(mu.sliding_window_causal_mask_function(window), blocks)
    padding = torch.ones(2, 40, dtype=torch.bool)
    padding[1, :4] = False
    mask = rattention_mask(2, 40, 40, mask_function=pattern, attention_mask=padding)
    query, key, value = torch.randn(3, 2, 2, 40, 8)
    options = mask.attention_options()
    assert "attn_mask" not in options
    wanted = rt.attention(query, key, value, attn_mask=mask.visible())
    torch.testing.assert_close(rt.attention(query, key, value, **options), wanted)


@pytest.mark.parametrize(
    "what", ["an image in two places", "an image to come", "packed sequences", "a short window"]
)
def test_blocks_that_only_a_table_can_say(what):
    ids = IMAGES.clone()
    base, queries = mu.causal_mask_function, 40
    if what == "an image in two places":
        ids[0, 20:22] = 0
    elif what == "an image to come":
        queries = 33
    elif what == "a short window":
        base = mu.sliding_window_causal_mask_function(9)
    else:
        base = mu.and_masks(base, mu.packed_sequence_mask_function(torch.arange(40).expand(2, -1) // 9))
    mask = rattention_mask(2, queries, 40, mask_function=mu.or_masks(base, mu.blockwise_overlay(ids)))
    assert mask.attention_options().keys() == {"attn_mask"}


def test_compression_refuses_what_it_does_not_know():
    needs("inspect")
    model = model_of("gpt-oss, with sinks")
    for layer in model.model.layers:
        layer.attention_type = "full_attention"
    model.config.layer_types = ["full_attention"] * 2
    model.set_attn_implementation("rattention")
    inputs, _ = batch_of(model, "")
    with (
        pytest.raises(ValueError, match="attention with sinks cannot be compressed"),
        rattention.compress(model, "recency", budget=8),
        torch.no_grad(),
    ):
        model.generate(**inputs, max_new_tokens=2, do_sample=False)


@pytest.mark.parametrize("window", [None, 5, 9])
def test_the_mask_of_one_row_may_be_extended(window):
    """DeepSeek-V4 adds columns to it, where it is a tensor."""
    function = mu.causal_mask_function if window is None else mu.sliding_window_causal_mask_function(window)
    mask = rattention_mask(1, 1, 5, 4, mask_function=function, allow_is_causal_skip=True)
    assert mask.pattern == {"causal": True, "window": None}
    extended = torch.cat([mask, torch.full((1, 1, 1, 2), -1.0)], dim=-1)
    assert extended.tolist() == [[[[0.0] * 5 + [-1.0] * 2]]]


@pytest.mark.parametrize("known", [False, True])
def test_masks_that_transformers_makes_by_vmap_may_be_padded(known):
    """Gemma 4's encoder of sound does so; vmap fails within the dispatch of an operation."""
    base, other = mu.bidirectional_mask_function, lambda batch, head, query, key: (query - key).abs() < 3
    if known:
        function = mu.or_masks(mu.causal_mask_function, mu.blockwise_overlay(IMAGES))
    else:
        function = mu.and_masks(base, other)
    mask = rattention_mask(2, 40, 40, mask_function=function, use_vmap=True)
    assert (mask.pattern is not None) == known
    padded = torch.nn.functional.pad(mask, (0, 1))
    seen = mu.sdpa_mask(2, 40, 40, mask_function=function, use_vmap=True, allow_is_causal_skip=False)
    assert torch.equal(padded[..., :-1] == 0, seen.expand(2, 1, 40, 40))
