"""rattention.compress: what is dropped is hidden and nothing else changes, for models of Transformers and of
rattention.nn."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from tests.extras import needs

needs("inspect")

import rattention as ra
import rattention.hf
import rattention.torch as rt
import torch
from rattention.compression import STRATEGIES, Clusters
from rattention.compression.compressing import Compression, LayerUse
from rattention.compression.held import RECENT, Held
from rattention.nn import LanguageModel, RAttention, SlidingWindow, Softmax
from transformers import DynamicCache

from tests.compressed_models import FAMILIES, GREEDY, family, run, small, stepwise
from tests.hf_models import build, padding, tokens
from tests.processes import run_python

CHOOSING = [name for name, strategy in STRATEGIES.items() if not strategy.replaces]
PROMPT, LENGTH, BUDGET = 13, 17, 6

pytestmark = pytest.mark.usefixtures("one_thread")
by_family = pytest.mark.parametrize("name", FAMILIES)
by_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def hiding(hidden):
    """An additive mask ``[batch, heads, queries, keys]`` for eager attention: causal, without `hidden`."""
    queries, keys = hidden.shape[-2:]
    future = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
    return torch.zeros(hidden.shape).masked_fill(hidden | future, torch.finfo(torch.float32).min)


@by_family
@pytest.mark.parametrize("strategy", CHOOSING)
def test_dropped_tokens_are_hidden_and_positions_are_the_true_ones(name, strategy):
    """Against a model of one layer that sees everything but what each head has dropped."""
    layers = {"n_layer": 1} if name == "gpt2" else {"num_hidden_layers": 1}
    model, text = family(name, **layers), tokens()
    with ra.compress(model, strategy, BUDGET) as use:
        got, _ = run(model, text[:, :PROMPT], text[:, PROMPT:])
    (positions,) = (use.layers[0].positions for _ in range(1))
    heads = model.config.num_attention_heads
    first = kept_after(model, strategy, text[:, :PROMPT])
    assert positions.shape == (2, first.shape[1], BUDGET)
    hidden = torch.ones(2, heads, LENGTH - PROMPT, LENGTH, dtype=torch.bool)
    hidden[..., PROMPT:] = False
    shown = torch.from_numpy(first).long().repeat_interleave(heads // first.shape[1], dim=1)
    hidden.scatter_(3, shown[:, :, None].expand(-1, -1, LENGTH - PROMPT, -1), False)
    whole, cache = run(model, text[:, :PROMPT])
    with torch.no_grad():
        rest = model(text[:, PROMPT:], past_key_values=cache, attention_mask=hiding(hidden)).logits
    torch.testing.assert_close(got, torch.cat([whole, rest], dim=1), rtol=1e-3, atol=1e-3)


def kept_after(model, strategy, prompt):
    with ra.compress(model, strategy, BUDGET) as use:
        run(model, prompt)
    return use.layers[0].positions


@by_family
@pytest.mark.parametrize("slack", [0, 3])
def test_generation_sees_the_newest_and_the_slack(name, slack):
    """Token by token, with all layers: the keys that each row sees, counted slowly."""
    model, text = family(name), tokens()
    with ra.compress(model, "recency", BUDGET, slack=slack) as use:
        got, _ = run(model, *text.split(1, dim=1))
    hidden, held = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool), []
    for row in range(LENGTH):
        held.append(row)
        hidden[0, 0, row, held] = False
        if len(held) > BUDGET + slack:
            held = held[-BUDGET:]
    with torch.no_grad():
        expected = model(text, attention_mask=hiding(hidden).expand(2, -1, -1, -1)).logits
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    assert [layer.held for layer in use.layers] == [len(held)] * 2
    assert [layer.seen for layer in use.layers] == [LENGTH] * 2


@by_family
@by_strategy
def test_the_whole_budget_changes_nothing(name, strategy):
    """Bit for bit."""
    rattention.hf.register()
    expected = family(name, "rattention").generate(
        tokens(), max_new_tokens=6, **GREEDY, output_logits=True, return_dict_in_generate=True
    )
    model = family(name)
    with ra.compress(model, strategy, 1.0) as use:
        got = model.generate(
            tokens(), max_new_tokens=6, **GREEDY, output_logits=True, return_dict_in_generate=True
        )
    assert torch.equal(got.sequences, expected.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, expected.logits, strict=True))
    assert [(layer.held, layer.cuts) for layer in use.layers] == [(22, 0)] * 2


@by_family
@by_strategy
@pytest.mark.parametrize("budget", [5, 0.4])
def test_generate(name, strategy, budget):
    model = family(name)
    with ra.compress(model, strategy, budget, slack=4) as use:
        text = model.generate(tokens(), max_new_tokens=20, min_new_tokens=20, **GREEDY)
    assert text.shape == (2, 37)
    most = 5 if budget == 5 else int(0.4 * 36)
    for layer in use.layers:
        assert layer.seen == 36
        assert layer.held <= most + 4
        assert layer.cuts >= 2
        assert layer.mass_kept > 0
    assert use.nbytes < use.full_nbytes
    assert f"{use.layers[0].name}" in str(use)


@by_strategy
def test_sequences_with_padding_are_cut_as_if_alone(strategy):
    model, text, mask = family("llama"), tokens(), padding("left")
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, **GREEDY}
    with ra.compress(model, strategy, 0.5, slack=2) as both:
        got = model.generate(text, attention_mask=mask, **settings)
    with ra.compress(model, strategy, 0.5, slack=2):
        alone = model.generate(text[1:, 5:], **settings)
    assert torch.equal(got[1, 17:], alone[0, 12:])
    assert (both.layers[0].positions[1] >= 5).any()


def test_padding_is_dropped_first():
    model = family("llama")
    with ra.compress(model, "uniform", 6) as use:
        _, cache = run(model, tokens(), mask=padding("left"))
    positions = use.layers[0].positions
    assert positions[0, 0].tolist() == [0, 3, 6, 10, 13, 16]
    assert positions[1, 0].tolist() == [5, 7, 9, 12, 14, 16]
    assert cache.get_seq_length() == 17
    assert cache.layers[0].held.key.shape[2] == 6


def test_padding_on_the_right_and_between():
    """What comes later cannot see it either."""
    model, text, mask = family("llama"), tokens(), padding("right")
    positions = (mask.cumsum(1) - 1).clamp(0)
    with torch.no_grad(), ra.compress(model, "recency", 4):
        first = model(text, attention_mask=mask, position_ids=positions, use_cache=True)
        longer = torch.nn.functional.pad(mask, (0, 1), value=1)
        got = model(
            text[:, :1],
            attention_mask=longer,
            past_key_values=first.past_key_values,
            position_ids=longer.sum(1, keepdim=True) - 1,
        ).logits[1]
    with torch.no_grad(), ra.compress(model, "recency", 4):
        first = model(text[1:, :12], use_cache=True)
        alone = model(text[1:, :1], past_key_values=first.past_key_values).logits[0]
    torch.testing.assert_close(got, alone, rtol=1e-4, atol=1e-4)


@by_strategy
@pytest.mark.parametrize("kind", ["transformers", "nn"])
def test_nothing_sees_what_comes_after_the_cut(strategy, kind):
    """Two futures after one prompt: the same tokens stay, and the same logits come before they differ."""
    model, text = small(kind), tokens()
    other = text.clone()
    other[:, 15] = (other[:, 15] + 7) % 60
    results = []
    for ids in (text, other):
        with ra.compress(model, strategy, BUDGET, slack=1) as use:
            logits = stepwise(model, [ids[:, :13], ids[:, 13:15]], [ids[:, 15:]])
        results.append((logits, use.layers))
    assert torch.equal(results[0][0][:, :15], results[1][0][:, :15])
    assert not torch.equal(results[0][0][:, 15:], results[1][0][:, 15:])
    kept = [kept_by(model, strategy, ids[:, :13]) for ids in (text, other)]
    np.testing.assert_array_equal(*kept)


def kept_by(model, strategy, prompt):
    with ra.compress(model, strategy, BUDGET) as use:
        stepwise(model, [prompt])
    return np.stack([layer.positions for layer in use.layers])


@pytest.mark.parametrize("by", ["mean", "representative"])
def test_clusters_of_equal_keys_are_exactly_full_attention(by):
    """Three distinct keys among eighteen: any later query gets what it would get from all of them."""
    rng = torch.Generator().manual_seed(0)
    distinct = torch.randn(1, 2, 3, 8, generator=rng)
    order = torch.tensor([0, 1, 2] * 3 + [0] * 9)
    key = distinct[:, :, order]
    value = torch.randn(1, 2, 18, 8, generator=rng) if by == "mean" else distinct[:, :, order] + 1
    query = torch.randn(1, 4, 18, 8, generator=rng)
    held = Held(Compression(Clusters(by), 3, 0), LayerUse("layer"))
    held.append(key, value)
    held.show(None, 18)
    held.attended(query, None)
    assert held.key.shape == (1, 2, 3, 8)
    assert held.use.mass_kept == pytest.approx(1, abs=1e-5)
    later = torch.randn(1, 4, 5, 8, generator=rng)
    got = rt.attention(later, held.key, held.value, **held.masks(4))
    torch.testing.assert_close(got, rt.attention(later, key, value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [RECENT, 2 * RECENT - 9])
def test_the_newest_64_queries_choose(steps):
    """Those before them look at the first four tokens, and harder; they look at the next four."""
    key = torch.zeros(1, 1, 8 + steps, 4)
    key[:, :, :4, 0] = key[:, :, 4:8, 1] = 1
    query = torch.zeros(1, 1, 8 + steps, 4)
    query[:, :, :-RECENT, 0], query[:, :, -RECENT:, 1] = 40, 7
    held = Held(Compression(STRATEGIES["received"], 4, steps + 3), LayerUse("layer"))
    for i in range(8 + steps):
        held.append(key[:, :, i : i + 1], key[:, :, i : i + 1])
        held.show(None, 1)
        held.attended(query[:, :, i : i + 1], None)
    assert held.use.cuts == 1
    assert held.use.positions.ravel().tolist() == [4, 5, 6, 7]


def test_all_queries_of_a_prompt_choose():
    key = torch.zeros(1, 1, 300, 4)
    key[:, :, :4, 0] = key[:, :, 4:8, 1] = 1
    query = torch.zeros(1, 1, 300, 4)
    query[:, :, :-RECENT, 0] = query[:, :, -RECENT:, 1] = 40
    held = Held(Compression(STRATEGIES["received"], 4, 0), LayerUse("layer"))
    held.append(key, key)
    held.show(None, 300)
    held.attended(query, None)
    assert held.use.positions.ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", ["clusters", "representatives"])
def test_clusters_in_a_model_whose_tokens_are_all_alike(strategy):
    """Without positions all their keys are equal: a budget of one token loses nothing."""
    torch.manual_seed(0)
    model = LanguageModel(9, dim=16, heads=2, depth=2, pattern="softmax").eval()
    prompt, rest = torch.full((1, 20), 3), torch.tensor([[5, 1, 3]])
    expected = stepwise(model, [prompt, rest])
    with ra.compress(model, strategy, 1) as use:
        got = stepwise(model, [prompt, rest])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert use.layers[1].cuts == 2


@pytest.mark.parametrize("kind", ["transformers", "nn"])
def test_recency_without_slack_is_a_sliding_window(kind):
    """The same weights with a window of as many keys as are held beside the token itself."""
    text = tokens()
    if kind == "transformers":
        model = build("mistral", sliding_window=None)
        expected = run(build("mistral", sliding_window=BUDGET + 1), text)[0]
    else:
        model, local = small("nn"), SlidingWindow(BUDGET, rope_theta=1e4)
        other = LanguageModel(64, dim=32, heads=4, depth=2, kv_heads=2, pattern=local).eval()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            expected = other(text)
    with ra.compress(model, "recency", BUDGET, slack=0):
        got = stepwise(model, text.split(1, dim=1))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@by_strategy
def test_language_models(strategy):
    model = small("nn")
    expected = model.generate(tokens(), 12)
    with ra.compress(model, strategy, 1.0):
        assert torch.equal(model.generate(tokens(), 12), expected)
    cache = model.new_cache(2)
    with ra.compress(model, strategy, BUDGET, slack=3) as use:
        model.generate(tokens(), 12, cache=cache)
    assert cache.length == 28
    assert all(BUDGET <= layer.held <= BUDGET + 3 for layer in use.layers)
    assert len(use.layers) == 2
    assert cache.nbytes == use.nbytes < use.full_nbytes
    assert torch.equal(model.generate(tokens(), 12), expected)


def test_layers_of_constant_size_stay():
    """RAttention's and those of windows; of a pattern the full layers are compressed."""
    pattern = [RAttention(4), SlidingWindow(4), Softmax()]
    model = LanguageModel(64, dim=32, heads=2, depth=3, pattern=pattern).eval()
    with ra.compress(model, "received", 5) as use:
        model.generate(tokens(), 3)
    assert [layer.name for layer in use.layers] == ["encoder.layers.2.attention"]
    gemma = build("gemma3")
    with ra.compress(gemma, "recency", 5) as use:
        run(gemma, tokens(), tokens())
    assert [(layer.name, layer.held) for layer in use.layers] == [("model.layers.1.self_attn", 5)]


@pytest.mark.parametrize("seen", [0, 5])
def test_an_in_place_cache(seen):
    """Empty or not; its layers with windows stay."""

    def tokens_with(make):
        model = build("gemma3")
        cache = make(config=model.config)
        with ra.compress(model, "recency", 5, slack=0) as use:
            _, cache = run(model, tokens()[:, :seen], cache=cache) if seen else (None, cache)
            got = model.generate(tokens(), past_key_values=cache, max_new_tokens=9, **GREEDY)
        assert [layer.held for layer in use.layers] == [5]
        return got

    assert torch.equal(tokens_with(rattention.hf.InPlaceCache), tokens_with(DynamicCache))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_beams(name):
    model = family(name)
    settings = {"num_beams": 3, "max_new_tokens": 10, **GREEDY}
    expected = model.generate(tokens(), **settings)
    with ra.compress(model, "received", 1.0):
        assert torch.equal(model.generate(tokens(), **settings), expected)
    with ra.compress(model, "recent+clusters", 5, slack=2) as use:
        assert model.generate(tokens(), **settings).shape == expected.shape
    assert use.layers[0].cuts > 2


def test_a_cache_from_before_the_block_is_taken_over():
    model, text = family("llama"), tokens()
    with ra.compress(model, "recency", BUDGET):
        expected, _ = run(model, text[:, :PROMPT], text[:, PROMPT:15], text[:, 15:])
    _, cache = run(model, text[:, :PROMPT])
    with ra.compress(model, "recency", BUDGET) as use:
        got, _ = run(model, text[:, PROMPT:15], text[:, 15:], cache=cache)
    assert use.layers[0].seen == 17
    full, _ = run(model, text[:, :15])
    torch.testing.assert_close(got[:, :2], full[:, PROMPT:], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(got[:, :2], expected[:, PROMPT:15], rtol=1e-2, atol=1e-2)
    assert use.layers[0].held == BUDGET


def test_bfloat16():
    model = family("llama").to(torch.bfloat16)
    for strategy in STRATEGIES:
        with ra.compress(model, strategy, 6, slack=2) as use:
            text = model.generate(tokens(), max_new_tokens=6, min_new_tokens=6, **GREEDY)
        assert text.shape == (2, 23)
        assert torch.equal(text[:, :17], tokens())
        assert all(6 <= layer.held <= 8 and layer.cuts > 0 for layer in use.layers)


def test_import_needs_numpy_alone():
    run_python(
        "import sys, rattention, rattention.compression;"
        "assert not {'torch', 'transformers', 'sklearn', 'scipy'} & {*sys.modules};"
        "assert callable(rattention.compress)"
    )


def test_examples():
    assert doctest.testmod(importlib.import_module("rattention.compression.compressing")).failed == 0
