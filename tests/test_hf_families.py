"""Families that keep, number or collect things in ways of their own: converted, compressed, or refused."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("inspect")

import rattention as ra
import rattention.hf
import torch
from rattention.hf import cache_report, convert
from rattention.hf.converted import RAttentionModule
from transformers import DynamicCache, Gemma3nForCausalLM
from transformers.cache_utils import LinearAttentionLayer

from tests.sweep.models import build, classes
from tests.sweep.signals import tokens

pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "pad_token_id": 0}


def made(name):
    kind, model_type = classes()[name]
    return build(name, model_type, kind)


@pytest.mark.parametrize(
    "name",
    [
        "GPTNeoXForCausalLM",
        "AfmoeForCausalLM",
        "JetMoeForCausalLM",
        "MllamaForCausalLM",
        "GlmAsrForConditionalGeneration",
        "EvollaForProteinText2Text",
        "Ministral3ForCausalLM",
        "Gemma4ForCausalLM",
    ],
)
def test_converted_and_decoded(name):
    """Their caches have another name, outputs are viewed, layers skipped, numbers those of another part."""
    model, ids = made(name), tokens(2, 20)
    conversion = convert(model, window=8)
    converted = [place for place, module in model.named_modules() if isinstance(module, RAttentionModule)]
    assert len(converted) == len(conversion.layers)
    assert not any("audio" in place for place in converted)
    assert "MiB" in repr(conversion)
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        parts = [model(input_ids=ids[:, :13], past_key_values=cache, use_cache=True).logits]
        parts += [
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits
            for t in range(13, 20)
        ]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-3, atol=1e-4)
        grown = model.generate(input_ids=ids, **GREEDY)
        assert torch.equal(grown, model.generate(input_ids=ids, use_cache=False, **GREEDY))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DiffLlamaForCausalLM", "layer 0 .DiffLlamaAttention. attention is called 2 times for every token"),
        ("BltForCausalLM", r"several are number 0 \(local_encoder.layers.0.self_attn, "),
        ("MoonshineForConditionalGeneration", "that takes a causal decoder"),
        ("HrmTextForCausalLM", r"several are number 0 \(L_module.layers.0.self_attn, H_module"),
        ("CsmForConditionalGeneration", r"several are number 0 \(backbone_model.layers.0.self_attn, depth"),
        ("FalconH1ForCausalLM", "layer 0 has a cache of class LinearAttentionAndFullAttentionLayer"),
        ("ZayaForCausalLM", "layer 0 has a cache of class LinearAttentionAnd"),
        ("KyutaiSpeechToTextForConditionalGeneration", "has no layers that can be converted"),
        ("VoxtralRealtimeForConditionalGeneration", "its decoder does not run on three tokens alone"),
    ],
)
def test_conversions_that_would_be_wrong(name, message):
    model = made(name)
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        convert(model, window=8)
    assert [type(module) for module in model.modules()] == kinds


def sharing():
    """A Gemma 3n of six layers, of which two have the keys of others."""
    config = made("Gemma3nForCausalLM").config
    config.num_hidden_layers, config.num_kv_shared_layers = 6, 2
    config.layer_types = ["sliding_attention", "full_attention"] * 3
    config.activation_sparsity_pattern = [0.0] * 6
    config.intermediate_size = [config.intermediate_size[0]] * 6
    return Gemma3nForCausalLM(config).eval()


@pytest.mark.parametrize("layers", [None, [2], [5]])
def test_keys_that_layers_share(layers):
    with pytest.raises(ValueError, match=r"layer [25] has its keys from another layer or gives them to one"):
        convert(sharing(), window=8, layers=layers)


def test_layers_beside_those_that_share_keys():
    model, ids = sharing(), tokens(2, 20)
    assert convert(model, window=8, layers=[0, 1]).layers == (0, 1)
    grown = model.generate(input_ids=ids, **GREEDY)
    assert torch.equal(grown, model.generate(input_ids=ids, use_cache=False, **GREEDY))
    whole = sharing()
    with pytest.raises(ValueError, match="has its keys from another layer"), ra.compress(whole, "recency", 9):
        whole.generate(input_ids=ids, **GREEDY)


def test_a_part_can_be_converted():
    model = made("GlmAsrForConditionalGeneration")
    assert convert(model.model.language_model, window=8).layers == (0, 1)
    assert isinstance(model.model.language_model.layers[0].self_attn, RAttentionModule)


@pytest.mark.parametrize("name", ["GPTNeoXForCausalLM", "MllamaForCausalLM"])
def test_compressed(name):
    model = made(name)
    with ra.compress(model, "recency", 8, slack=0) as use:
        model.generate(input_ids=tokens(2, 20), **GREEDY)
    assert {layer.held for layer in use.layers} == {8}


@pytest.mark.parametrize("strategy", ["recency", "clusters"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DeepseekV3ForCausalLM", "attends with other keys than its cache holds"),
        ("DiffLlamaForCausalLM", "attends more than once in one call"),
        ("HrmTextForCausalLM", "keeps its keys in the cache of another layer"),
        ("FalconH1ForCausalLM", "that of layer 0 holds a state besides keys and values"),
        ("ZambaForCausalLM", "do not say by layer_idx which layer of the cache is theirs"),
    ],
)
def test_caches_that_cannot_be_compressed(name, message, strategy):
    """Refused with the first tokens, not where the budget is reached."""
    model = made(name)
    with pytest.raises(ValueError, match=message), ra.compress(model, strategy, 100):
        model.generate(input_ids=tokens(2, 20), **GREEDY)


def test_a_pass_that_was_refused_leaves_no_cache_open():
    """What was compressed stays closed outside, whatever was refused within."""
    model, ids = made("LlamaForCausalLM"), tokens(2, 9)
    model.set_attn_implementation("sdpa")
    cache, masks = DynamicCache(config=model.config), torch.ones(2, 1, 1, 10, dtype=torch.bool)
    with torch.no_grad(), ra.compress(model, "recency", 4, slack=0):
        model(ids, past_key_values=cache)
        with pytest.raises(ValueError, match="attention_mask of a compressed model"):
            model(ids[:, :1], past_key_values=cache, attention_mask=masks)
    with torch.no_grad(), pytest.raises(RuntimeError, match="this cache was compressed"):
        model(ids[:, :1], past_key_values=cache)


def test_full_layers_that_name_a_window_are_compressed():
    model = made("Exaone4ForCausalLM")
    with ra.compress(model, "recency", 8, slack=0) as use:
        model.generate(input_ids=tokens(2, 20), **GREEDY)
    assert [layer.held for layer in use.layers] == [8]


@pytest.mark.parametrize("name", ["JetMoeForCausalLM", "Exaone4ForCausalLM", "GPTNeoXForCausalLM"])
def test_the_report_has_the_bytes_that_caches_have(name):
    model, ids = made(name), tokens(1, 16)
    cache = DynamicCache(config=model.config)
    model(ids, past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    convert(model, window=4, layers=[1])
    assert cache_report(model, [16]).original == (held,)


def test_layers_that_take_keys_have_no_bytes_of_their_own():
    model, ids = sharing(), tokens(1, 16)
    cache = DynamicCache(config=model.config)
    model(ids, past_key_values=cache, use_cache=True)
    own = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    assert len(own) == 4
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in own)
    convert(model, window=4, layers=[0, 1])
    assert cache_report(model, [16]).original == (held,)


def test_an_interrupted_pass_can_be_taken_back():
    """Keys are there and states are not: a cache between two layers, not one without states."""
    model, ids = made("GraniteMoeHybridForCausalLM"), tokens(2, 9)
    cache = DynamicCache(config=model.config)
    before = rattention.hf.snapshot(cache)
    model(ids, past_key_values=cache, use_cache=True)
    linear = [layer for layer in cache.layers if isinstance(layer, LinearAttentionLayer)]
    assert linear
    for layer in linear:
        layer.is_conv_states_initialized = {0: False}
        layer.is_recurrent_states_initialized = {0: False}
    with pytest.raises(TypeError):
        rattention.hf.snapshot(cache)
    rattention.hf.restore(cache, before)
    assert cache.get_seq_length() == 0


def test_states_in_modules_have_no_snapshots():
    model = made("RecurrentGemmaForCausalLM")
    cache = DynamicCache(config=model.config)
    rattention.hf.snapshot(cache)  # nothing is in it yet
    model(tokens(2, 13), past_key_values=cache, use_cache=True)
    with pytest.raises(TypeError, match="keeps its states elsewhere, as RecurrentGemma"):
        rattention.hf.snapshot(cache)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPTBigCodeForCausalLM", "DPTModel"])
def test_maps_that_are_collected_from_outside_are_refused(name):
    """The modules are not told of `output_attentions`: a hook looks for maps in what they return."""
    model = made(name)
    inputs = {"pixel_values": torch.randn(1, 3, 8, 8)} if name == "DPTModel" else {"input_ids": tokens(2, 1)}
    rattention.hf.register()
    model.set_attn_implementation("rattention")
    with pytest.raises(ValueError, match=r"stores no attention maps \(output_attentions=True\)"):
        model(**inputs, output_attentions=True)
    model(**inputs)
