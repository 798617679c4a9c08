"""Snapshots of caches: after `restore` the same tokens give the same bits, as if nothing had come between."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("hf")

import rattention.hf
import torch
from rattention.hf import InPlaceCache, convert, restore, snapshot, use_linear_kernels
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from tests import hf_models
from tests.hf_models import padding, tokens
from tests.linear_models import LAYERS, MODELS, build, going_on

CACHES = {
    "dynamic": lambda model: DynamicCache(config=model.config),
    "in place": lambda model: InPlaceCache(model.config),
    "static": lambda model: StaticCache(config=model.config, max_cache_len=64),
    "lazy": lambda model: DynamicCache(),
}


@torch.no_grad()
def logits(model, ids, cache):
    return going_on(model, ids, cache).logits


def test_speculation_leaves_no_trace():
    """Tokens are guessed and taken back as in assisted generation, several times over."""
    model = build("qwen3_5")
    ids, guesses = tokens(length=30), tokens(length=6, seed=3)
    plain, cache = DynamicCache(config=model.config), DynamicCache(config=model.config)
    for start in range(0, 30, 10):
        expected = logits(model, ids[:, start : start + 10], plain)
        before = snapshot(cache)
        logits(model, guesses, cache)
        restore(cache, before)
        assert torch.equal(logits(model, ids[:, start : start + 10], cache), expected)
    assert cache.get_seq_length() == plain.get_seq_length() == 30


@pytest.mark.parametrize("name", [*MODELS, "ours", "llama", "mistral"])
@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("prefilled", [0, 12])
def test_the_same_bits_as_often_as_wished(name, kind, prefilled):
    if kind == "lazy" and name not in hf_models.DECODERS:
        pytest.skip("linear layers need a cache that was made for them")
    model = (
        hf_models.build(name)
        if name in hf_models.DECODERS
        else build("qwen3_next" if name == "ours" else name)
    )
    if name == "ours":
        use_linear_kernels(model)
    cache = CACHES[kind](model)
    if prefilled:
        logits(model, tokens(length=prefilled), cache)
    before = snapshot(cache)

    def generated():
        steps = [logits(model, tokens(length=n, seed=n), cache) for n in (3, 1, 1, 9)]
        return torch.cat(steps, dim=1)

    first = generated()
    for _ in range(2):
        restore(cache, before)
        assert torch.equal(generated(), first)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_generation_resumes(mode):
    """`generate` on the cache of a prompt, twice, with padding, here and where tensors cannot be written."""
    model = build("olmo_hybrid")
    cache = DynamicCache(config=model.config)
    ids, mask = tokens(length=17), padding("left")
    with mode():
        model(ids[:, :-1], attention_mask=mask[:, :-1], past_key_values=cache)
    before = snapshot(cache)

    def generated():
        options = {"max_new_tokens": 7, "do_sample": False, "pad_token_id": 0}
        with mode():
            return model.generate(ids, attention_mask=mask, past_key_values=cache, **options)

    first = generated()
    restore(cache, before)
    assert torch.equal(generated(), first)


def test_converted_layers():
    model = hf_models.build("llama")
    convert(model, 4)
    cache = DynamicCache(config=model.config)
    logits(model, tokens(length=12), cache)
    before = snapshot(cache)
    first = logits(model, tokens(length=3, seed=3), cache)
    restore(cache, before)
    assert torch.equal(logits(model, tokens(length=3, seed=3), cache), first)


def test_another_cache_of_the_same_model():
    model = build("qwen3_next")
    cache, other = (DynamicCache(config=model.config) for _ in range(2))
    logits(model, tokens(length=12), cache)
    restore(other, snapshot(cache))
    got, expected = (logits(model, tokens(length=3, seed=3), c) for c in (other, cache))
    assert torch.equal(got, expected)


def test_copies_are_of_the_states_alone():
    model = build("qwen3_next")
    sizes = []
    for length in (12, 60):
        cache = DynamicCache(config=model.config)
        logits(model, tokens(length=length), cache)
        sizes.append(snapshot(cache).nbytes)
    layers = [cache.layers[i] for i in LAYERS["qwen3_next"]]
    states = [t for layer in layers for t in (layer.conv_states[0], layer.recurrent_states[0])]
    assert sizes == [sum(tensor.nbytes for tensor in states)] * 2


def test_what_is_refused():
    model = build("qwen3_next")
    cache = DynamicCache(config=model.config)
    with pytest.raises(TypeError, match="cache must be a Cache of Transformers with layers, got tuple"):
        snapshot(())
    with pytest.raises(TypeError, match="got EncoderDecoderCache"):
        snapshot(EncoderDecoderCache(DynamicCache(), DynamicCache()))
    with pytest.raises(TypeError, match=r"snapshot must come from rattention\.hf\.snapshot, got dict"):
        restore(cache, {})
    with pytest.raises(
        ValueError, match="layer 0 of the cache is of class DynamicLayer, that of the snapshot"
    ):
        restore(DynamicCache(config=hf_models.build("llama").config), snapshot(cache))
    with pytest.raises(ValueError, match="the cache has 0 layers, the snapshot 4"):
        restore(DynamicCache(), snapshot(cache))

    class Own(type(cache.layers[-1])):
        pass

    cache.layers[-1] = Own()
    with pytest.raises(TypeError, match=r"layers of class Own has no snapshots: use copy\.deepcopy"):
        snapshot(cache)


def test_snapshots_are_listed():
    assert {"snapshot", "restore", "CacheSnapshot"} <= set(rattention.hf.__all__)
