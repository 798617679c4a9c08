"""`InPlaceCache`: the contents of `DynamicCache`, whatever is done to it."""

from __future__ import annotations

import copy

import pytest

from tests.extras import needs

needs("hf")

import rattention.hf
import torch
import transformers

from tests.hf_models import DECODERS, build, padding, tokens
from tests.test_hf_generation import OPTIONS, unlike

rattention.hf.register()

WINDOW = 7
SHAPE = (2, 3, 5)


def config(window=None):
    types = ["sliding_attention" if window else "full_attention"]
    return transformers.Gemma3TextConfig(
        num_hidden_layers=1, layer_types=types, sliding_window=window or 4096, vocab_size=9
    )


class Pair:
    """One layer of each cache, to which the same is done."""

    def __init__(self, window=None, seed=0):
        classes = (transformers.DynamicCache, rattention.hf.InPlaceCache)
        self.caches = [make(config=config(window)) for make in classes]
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def layers(self):
        return [cache.layers[0] for cache in self.caches]

    def draw(self, count):
        batch, heads, dim = SHAPE
        layer = self.layers[0]
        batch = layer.keys.shape[0] if layer.is_initialized and layer.keys.dim() == 4 else batch
        return torch.randn(2, batch, heads, count, dim, generator=self.generator)

    def update(self, count):
        key, value = self.draw(count)
        sizes = [layer.get_mask_sizes(count) for layer in self.layers]
        assert sizes[0] == sizes[1]
        expected, got = (cache.update(key, value, 0) for cache in self.caches)
        assert_equal(got, expected)
        self.check()
        return got

    def check(self):
        theirs, ours = self.layers
        assert ours.get_seq_length() == theirs.get_seq_length()
        if theirs.is_initialized:
            assert_equal((ours.keys, ours.values), (theirs.keys, theirs.values))

    def both(self, name, *arguments):
        for cache in self.caches:
            getattr(cache, name)(*arguments)
        self.check()


def assert_equal(got, expected):
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("window", [None, 2, WINDOW, 64, 65])
@pytest.mark.parametrize("seed", range(8))
def test_anything_done_to_it(window, seed):
    """Steps, prompts, crops, beams and copies in any order; tensors given out before do not change."""
    pair, choice = Pair(window, seed), torch.Generator().manual_seed(100 + seed)
    given = []
    if seed % 2:
        pair.both("activate_past_recording")
    for _ in range(120):
        action = int(torch.randint(8, (1,), generator=choice))
        if action < 5:
            got = pair.update([1, 1, 1, 4, 11][action])
            given += [(tensor, tensor.clone()) for tensor in got]
        elif action == 5 and seed % 2:
            pair.both("crop", -min(2, pair.layers[0].get_seq_length() // 2))
        elif action == 6:
            pair.both("reorder_cache", torch.tensor([1, 0]))
        elif action == 7:
            pair.caches = [copy.deepcopy(cache) for cache in pair.caches]
    assert_equal(*zip(*given, strict=True))


def test_tokens_are_written_in_place():
    """No tensor is moved but a few times; a window of 64 moves once per window."""
    for window, moves in ((None, 10), (64, 12)):
        pair = Pair(window)
        places = {pair.update(1)[0].untyped_storage().data_ptr() for _ in range(600)}
        kept = [pair.update(1)[0] for _ in range(64)]
        assert len({t.untyped_storage().data_ptr() for t in kept}) <= 2
        assert len(places) <= moves


def test_two_continuations_of_one_prompt():
    """Of copies that share their tensors: neither writes into the other's."""
    pair = Pair()
    pair.update(5)
    ours = pair.layers[1]
    branches = [copy.copy(ours) for _ in range(2)]
    new = [pair.draw(1) for _ in range(2)]
    results = [branch.update(*states) for branch, states in zip(branches, new, strict=True)]
    for (keys, values), states in zip(results, new, strict=True):
        assert torch.equal(keys[..., -1:, :], states[0])
        assert torch.equal(values[..., -1:, :], states[1])


def test_gradients_of_a_cache():
    pair = Pair()
    key = torch.randn(2, 3, 4, 5, requires_grad=True)
    for cache in pair.caches:
        cache.update(key, key, 0)
        keys, _ = cache.update(key, key, 0)
        (grad,) = torch.autograd.grad(keys.sum(), key)
        assert torch.equal(grad, torch.full_like(key, 2))


def test_gradients_of_queries_alone():
    """Autograd keeps views of the cache, beside which tokens are written."""
    gradients = []
    for make in (transformers.DynamicCache, rattention.hf.InPlaceCache):
        model = build("llama", "rattention").requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("q_proj" in name)
        cache = make(config=model.config)
        total = sum(model(part, past_key_values=cache).logits.sum() for part in tokens().split(5, dim=1))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients.append(torch.autograd.grad(total, trained))
    assert_equal(*gradients)


def test_the_room_of_a_window_shrinks_after_a_prompt():
    pair = Pair(64)
    pair.update(4000)
    assert pair.update(1)[0].untyped_storage().nbytes() < 3 * 64 * 4 * 30


def test_inference_mode_and_back():
    pair = Pair()
    with torch.inference_mode():
        pair.update(3)
    with torch.no_grad():
        pair.update(1)
        pair.update(1)


def test_sizes_that_differ_are_refused():
    pair = Pair()
    pair.update(3)
    for cache in pair.caches:
        with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
            cache.update(torch.ones(1, 3, 1, 5), torch.ones(1, 3, 1, 5), 0)
        with pytest.raises(RuntimeError, match="same number of dimensions"):
            cache.update(torch.ones(3, 1, 5), torch.ones(3, 1, 5), 0)


def test_a_cache_from_the_contents_of_another():
    pair = Pair(WINDOW)
    pair.update(11)
    pair.caches = [type(cache)(iter(cache)) for cache in pair.caches]
    pair.check()
    pair.update(1)


def test_within_vmap():
    def grown(key):
        cache = rattention.hf.InPlaceCache()
        cache.update(key, key, 0)
        return cache.update(key, key, 0)[0]

    keys = torch.randn(4, *SHAPE[:2], 2, SHAPE[2])
    assert torch.equal(torch.vmap(grown)(keys), torch.cat([keys, keys], dim=-2))


def test_wider_dtypes_are_kept():
    pair = Pair()
    pair.update(2)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        key, value = pair.draw(1).to(dtype)
        expected, got = (cache.update(key, value, 0) for cache in pair.caches)
        assert_equal(got, expected)
        assert got[0].dtype == torch.float64


def test_reset():
    pair = Pair(WINDOW)
    pair.update(9)
    pair.both("reset")
    pair.update(3)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("how", ["greedy", "beams", "assisted", "padded"])
def test_generations_equal_those_with_a_dynamic_cache(name, how):
    batch = 1 if how == "assisted" else 2
    options = {"beams": {"num_beams": 3}, "padded": {"attention_mask": padding("left")}}.get(how, {})

    def generate(make):
        model = build(name, "rattention")
        helper = {"assistant_model": unlike(build(name, "rattention"))} if how == "assisted" else {}
        cache = make(config=model.config)
        return model.generate(tokens(batch), past_key_values=cache, **OPTIONS, **options, **helper)

    assert torch.equal(generate(rattention.hf.InPlaceCache), generate(transformers.DynamicCache))
