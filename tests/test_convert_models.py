"""rattention.hf.convert on many models and every rotary type: what each layer rotates, and how far."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from tests.extras import needs

needs("hf")

import torch
import transformers as tf
from rattention.hf import convert
from rattention.hf.cache import RAttentionCacheLayer
from rattention.hf.converted import RAttentionModule
from rattention.mechanisms.rattention import reference_rms_norm
from rattention.mechanisms.residual_linear import reference_residual_linear_attention
from rattention.mechanisms.softmax import reference_attention

from tests.hf_models import LLAMA, tokens, uneven

WINDOW, LENGTH = 4, 17
THETA = {"rope_theta": 10_000.0}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
OPTIONS = {
    "Llama": {},
    "Ministral": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "Mistral": {"sliding_window": 6},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2": {},
    "Qwen3": {},
    "Qwen2Moe": EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "Qwen3Moe": EXPERTS | {"num_experts": 4},
    "Olmo": {"clip_qkv": 0.3},
    "Olmo2": {},
    "Olmo3": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "Gemma": {},
    "Gemma2": {"attn_logit_softcapping": None, "query_pre_attn_scalar": 5},
    "Gemma3": {"query_pre_attn_scalar": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "Phi": {"rope_parameters": THETA | {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "Phi3": {},
    "SmolLM3": {"no_rope_layers": [0, 1]},
    "Granite": {"attention_multiplier": 0.7, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "Cohere": {"use_qk_norm": True},
    "Cohere2": {"sliding_window": 6, "layer_types": ["full_attention", "sliding_attention"]},
    "Glm": {"rope_parameters": THETA | {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "StableLm": {"qk_layernorm": True},
    "Starcoder2": {},
}
ROTARY_TYPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.5, 2.0, 2.5],
        "long_factor": [1.0, 3.0, 5.0, 9.0],
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
PARTIAL_LONGROPE = ROTARY_TYPES["longrope"] | {
    "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [1.0, 3.0, 5.0],
    "partial_rotary_factor": 0.75,
}
ROTARY_MODELS = [("Llama", THETA | kind) for kind in ROTARY_TYPES.values()]
ROTARY_MODELS += [("Phi3", THETA | PARTIAL_LONGROPE), ("Qwen3", THETA | ROTARY_TYPES["yarn"])]
LATENT = dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8)
LATENT |= {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "first_k_dense_replace": 2,
    "n_group": 1,
    "topk_group": 1,
}
CASES = [(name, {}) for name in OPTIONS] + [(name, {"rope_parameters": r}) for name, r in ROTARY_MODELS]
by_case = pytest.mark.parametrize(
    ("name", "changes"),
    CASES,
    ids=[f"{name}-{c['rope_parameters']['rope_type']}" if c else name for name, c in CASES],
)


def build(name: str, implementation: str = "eager", **changes):
    config_name = {"Gemma3": "Gemma3TextConfig"}.get(name, f"{name}Config")
    sizes = LLAMA | {"num_experts_per_tok": 2} if "Mo" in name and "Olmo" not in name else LLAMA
    options = sizes | {"bos_token_id": 1} | OPTIONS[name] | changes
    torch.manual_seed(0)
    config = getattr(tf, config_name)(**options, attn_implementation=implementation)
    model = getattr(tf, f"{name}ForCausalLM")(config).eval()
    for key, parameter in model.named_parameters():
        parameter.data.mul_(1 if "norm" in key else 3)
    return model


def converted(name, window=WINDOW, layers=None, **changes):
    return uneven(convert, build(name, **changes), window, layers)


def logits(model, ids, **options):
    with torch.no_grad():
        return model(ids, **options).logits


@contextlib.contextmanager
def unrotated(attention):
    """The layer with cosines of 1 and sines of 0."""

    def still(_, args, kwargs):
        cos, sin = kwargs["position_embeddings"]
        return args, kwargs | {"position_embeddings": (torch.ones_like(cos), torch.zeros_like(sin))}

    with attention.register_forward_pre_hook(still, with_kwargs=True):
        yield


def attended(model, ids, layer):
    """Query, key, value and scale of one layer, as Transformers gives them to its attention function."""
    seen = {}

    def spy(module, query, key, value, attention_mask, scaling=None, **_):
        seen.setdefault(module.layer_idx, (query, key, value, scaling))
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        output = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling
        )
        return output.transpose(1, 2), None

    tf.AttentionInterface.register("spy", spy)
    tf.AttentionMaskInterface.register("spy", tf.masking_utils.eager_mask)
    before, model.config._attn_implementation = model.config._attn_implementation, "spy"
    logits(model, ids, use_cache=False)
    model.config._attn_implementation = before
    return seen[layer]


def output_projection(model, layer):
    attention = model.model.layers[layer].self_attn
    return attention.o_proj if hasattr(attention, "o_proj") else attention.dense


@pytest.mark.parametrize("layer", [0, 1])
@by_case
def test_a_converted_layer_is_rattention_of_its_own_queries_and_keys(name, changes, layer):
    """Both branches by their definitions in float64, of what the model itself computes: rotated for the
    window, not rotated for the rest."""
    plain, ids = build(name, **changes), tokens(2, LENGTH)
    query, key, value, scale = attended(plain, ids, layer)
    with unrotated(plain.model.layers[layer].self_attn):
        raw_query, raw_key, *_ = attended(plain, ids, layer)
    arrays = (tensor.numpy() for tensor in (query, key, value))
    local = reference_attention(*arrays, causal=True, window=WINDOW, scale=scale).output
    arrays = (tensor.numpy() for tensor in (raw_query, raw_key, value))
    far, _ = reference_residual_linear_attention(*arrays, window=WINDOW)
    model, outputs = converted(name, layers=[layer], **changes), []
    attention = model.model.layers[layer].self_attn
    weights = (w.detach().numpy() for w in (attention.local_norm_weight, attention.linear_norm_weight))
    expected = sum(reference_rms_norm(r, w, 1e-8) for r, w in zip((local, far), weights, strict=True))
    with output_projection(model, layer).register_forward_pre_hook(lambda _, a: outputs.append(a[0])):
        logits(model, ids, use_cache=False)
    got = outputs[0].reshape(2, LENGTH, *expected.shape[1::2]).transpose(1, 2).numpy()
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


@by_case
def test_steps_are_the_forward_pass(name, changes):
    model, ids = converted(name, **changes), tokens(2, 60)
    whole = logits(model, ids, use_cache=False)
    with torch.no_grad():
        first = model(ids[:, :23], use_cache=True)
        cache, rows = first.past_key_values, [first.logits]
        for begin, end in ((23, 24), (24, 25), (25, 40), *((i, i + 1) for i in range(40, 60))):
            rows.append(model(ids[:, begin:end], past_key_values=cache).logits)
    assert all(isinstance(layer, RAttentionCacheLayer) for layer in cache.layers)
    torch.testing.assert_close(torch.cat(rows, dim=1), whole, rtol=2e-3, atol=2e-3)


@by_case
def test_a_saved_model_is_read_back(name, changes, tmp_path):
    model, ids = converted(name, layers=[1], **changes), tokens(2, LENGTH)
    model.save_pretrained(tmp_path)
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    kinds = [isinstance(layer.self_attn, RAttentionModule) for layer in again.model.layers]
    assert kinds == [False, True]
    assert again.model.layers[1].self_attn.window == WINDOW
    torch.testing.assert_close(logits(again, ids), logits(model, ids), rtol=0, atol=0)
    settings = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    assert torch.equal(
        again.generate(ids, attention_mask=mask, **settings),
        model.generate(ids, attention_mask=mask, **settings),
    )


@by_case
def test_gradients_reach_every_parameter_of_a_layer(name, changes):
    model = converted(name, **changes)
    model(tokens(), labels=tokens(), use_cache=False).loss.backward()
    for key, parameter in model.model.layers[0].self_attn.named_parameters():
        if not key.startswith("k_proj.bias"):
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_are_those_of_a_text_as_long_as_the_window(kind):
    """Beyond the original context they change: what a wide window needs, a narrow one does not."""
    rope = {"rope_parameters": THETA | ROTARY_TYPES[kind], "max_position_embeddings": 32}
    rates = {}
    for window in (WINDOW, 30, 99):
        model = converted("Llama", window, [0], **rope)
        rotation = model.model.layers[0].self_attn.shape.rotation
        rates[window] = torch.tensor(rotation.frequencies)
        cos, _ = model.model.rotary_emb(torch.zeros(1), torch.tensor([[1, window]]))
        torch.testing.assert_close(rates[window].cos() * rotation.factors[0], cos[0, 0, :4])
    assert torch.equal(rates[WINDOW], rates[30])
    assert (rates[99][1:] < rates[30][1:]).all()


def test_attention_factors_multiply_what_turns():
    model = converted("Phi3", rope_parameters=THETA | PARTIAL_LONGROPE)
    shape, factor = model.model.layers[0].self_attn.shape, model.model.rotary_emb.attention_scaling
    assert factor > 1.05
    assert shape.rotation.factors[:3] == pytest.approx([factor] * 3)
    assert shape.rotation.factors[3:] == (1.0,)
    assert shape.rotation.frequencies[3:] == (0.0,)
    assert shape.rotation.order == (0, 1, 2, 6, 3, 4, 5, 7)


@pytest.mark.parametrize("name", ["Llama", "Glm", "Gemma3", "Phi3"])
def test_rotation_of_16_bit_models_is_measured_in_float32(name, tmp_path):
    exact = build(name)
    exact.save_pretrained(tmp_path)
    rounded = type(exact).from_pretrained(tmp_path, dtype=torch.bfloat16)
    for model in (exact, rounded):
        convert(model, WINDOW)
    for layer in (0, 1):
        got, expected = (m.model.layers[layer].self_attn.shape.rotation for m in (rounded, exact))
        assert got == expected


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Gemma2", {"attn_logit_softcapping": 50.0}, "Gemma2ForCausalLM .* layer 0 .*soft-capped .*None"),
        ("GptOss", {"num_local_experts": 4}, "GptOssForCausalLM .* layer 0 .*attention sinks"),
        ("DeepseekV3", LATENT, "DeepseekV3.*layer 0"),
        ("Llama", {"attention_bias": True, "zero": True}, "all queries are 0; load the weights"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(monkeypatch, name, changes, message):
    monkeypatch.setitem(OPTIONS, name, OPTIONS.get(name, {}))
    zero = "zero" in changes
    model = build(name, **{key: value for key, value in changes.items() if key != "zero"})
    if zero:
        for parameter in model.parameters():
            parameter.data.zero_()
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        convert(model, WINDOW)
    assert kinds == [type(module) for module in model.modules()]
    assert not hasattr(model.config, "rattention")


def test_other_implementations_keep_the_rotation():
    """Layers that were converted stay so, whatever the others are set to."""
    model, ids = converted("Llama", layers=[0]), tokens()
    expected = logits(model, ids, use_cache=False)
    torch.testing.assert_close(logits(model, ids, use_cache=False), expected)
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match='set_attn_implementation\\("rattention"\\)'):
        logits(model, ids, use_cache=False)
