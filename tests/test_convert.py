"""rattention.hf.convert: layers are RAttention, and generation gives what the whole text would."""

from __future__ import annotations

import copy
import doctest

import numpy as np
import pytest

from tests.extras import needs

needs("hf")

import rattention as ra
import torch
import transformers
from rattention.hf import cache_report, conversion, convert
from rattention.hf.cache import RAttentionCacheLayer
from rattention.mechanisms.rattention import reference_rattention
from rattention.mechanisms.rattention_cache import rattention_step

from tests.hf_models import build, padding, tokens, uneven

LLAMA_FAMILY = ("llama", "mistral", "qwen2", "qwen3")
WINDOW = 4
GREEDY = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0}

by_model = pytest.mark.parametrize("name", LLAMA_FAMILY)
by_layers = pytest.mark.parametrize("layers", [None, [0], [1]], ids=["all", "first", "last"])
pytestmark = pytest.mark.filterwarnings("error:.*fine-tun")


def converted(name="llama", layers=None, window=WINDOW, **changes):
    return uneven(convert, build(name, **changes), window, layers)


def whole(model, ids, mask=None):
    """Logits without a cache."""
    with torch.no_grad():
        return model(ids, attention_mask=mask, use_cache=False).logits


@by_model
def test_a_converted_layer_is_rattention(name):
    model = converted(name)
    attention = model.model.layers[0].self_attn
    hidden = torch.randn(2, 17, 32)
    with torch.no_grad():
        got = attention(hidden)[0]
        rows = [p(hidden).view(2, 17, -1, 8) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        if name == "qwen3":
            rows[:2] = attention.q_norm(rows[0]), attention.k_norm(rows[1])
        expected = reference_rattention(
            *(r.transpose(1, 2).numpy() for r in rows),
            window=WINDOW,
            rope_theta=10_000.0,
            local_norm_weight=attention.local_norm_weight.numpy(),
            linear_norm_weight=attention.linear_norm_weight.numpy(),
        )[0]
        output = torch.from_numpy(expected).float().transpose(1, 2).reshape(2, 17, 32)
        torch.testing.assert_close(got, attention.o_proj(output), rtol=1e-4, atol=1e-4)


@by_model
def test_the_window_is_rotated_as_before(name):
    """With a window as long as the text the local branch is the model's own attention, up to its norm."""
    model = build(name, sliding_window=None)
    attention = model.model.layers[0].self_attn
    outputs = []

    def keep(_, args):
        outputs.append(args[0].view(2, 17, 4, 8))

    with attention.o_proj.register_forward_pre_hook(keep):
        whole(model, tokens())
    convert(model, 17, 0)
    with attention.o_proj.register_forward_pre_hook(keep):
        whole(model, tokens())
    before, after = outputs
    normed = before * (before.square().mean(-1, keepdim=True) + 1e-8).rsqrt()
    torch.testing.assert_close(after, normed, rtol=1e-3, atol=1e-3)


def test_projections_are_shared_and_only_norms_are_new():
    model = build("llama")
    before = dict(model.named_parameters())
    done = convert(model, WINDOW, [1])
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    new = {name: tuple(after[name].shape) for name in after.keys() - before.keys()}
    prefix = "model.layers.1.self_attn."
    assert new == {f"{prefix}local_norm_weight": (4, 8), f"{prefix}linear_norm_weight": (4, 8)}
    assert done.layers == (1,)
    assert done.new_parameters == 64


@by_model
@by_layers
@pytest.mark.parametrize("side", ["none", "left"])
def test_greedy_generation_is_that_without_a_cache(name, layers, side):
    model = converted(name, layers)
    mask = padding(side) if side != "none" else torch.ones(2, 17, dtype=torch.int64)
    settings = GREEDY | {"output_logits": True, "return_dict_in_generate": True, "attention_mask": mask}
    got = model.generate(tokens(), **settings)
    expected = model.generate(tokens(), **settings, use_cache=False)
    assert torch.equal(got.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(expected.logits), rtol=1e-3, atol=1e-3)
    kinds = [isinstance(layer, RAttentionCacheLayer) for layer in got.past_key_values.layers]
    assert kinds == [layers is None or i in layers for i in range(2)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    mask = padding(side)
    visible = mask[1].bool()
    for model in (converted(), converted(layers=[1])):
        alone = whole(model, tokens()[1:, visible])[0]
        torch.testing.assert_close(whole(model, tokens(), mask)[1, visible], alone, rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            cached = model(tokens(), attention_mask=mask, use_cache=True).logits
        torch.testing.assert_close(cached[1, visible], alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "top_k": 5},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": False, "num_beams": 3},
    ],
    ids=["sampling", "several answers", "beams"],
)
def test_other_ways_of_generation(options):
    model = converted(layers=[0])

    def generate(**cache):
        torch.manual_seed(4)
        return model.generate(tokens(), **(GREEDY | options | cache), attention_mask=padding("left"))

    assert torch.equal(generate(), generate(use_cache=False))


@by_layers
def test_chats_that_go_on(layers):
    model = converted(layers=layers)
    first = model.generate(tokens(1), **GREEDY, return_dict_in_generate=True)
    longer = torch.cat([first.sequences, tokens(1, 6, seed=7)], dim=1)
    settings = GREEDY | {"attention_mask": torch.ones_like(longer)}  # else generated 0s would be padding
    second = model.generate(longer, **settings, past_key_values=first.past_key_values)
    assert torch.equal(second, model.generate(longer, **settings, use_cache=False))


def test_padding_between_turns():
    """Sequences of a batch whose new turns differ in length."""
    model = converted()
    with torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
        turn = tokens(2, 6, seed=8)
        mask = torch.ones(2, 23, dtype=torch.int64)
        mask[1, 17:19] = 0
        got = model(turn, attention_mask=mask, past_key_values=cache).logits
    expected = whole(model, torch.cat([tokens()[1:], turn[1:, 2:]], dim=1))
    torch.testing.assert_close(got[1, 2:], expected[0, 17:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("implementation", [None, "static"])
def test_caches_that_users_choose(implementation):
    model = converted(layers=[0])
    expected = model.generate(tokens(), **GREEDY)
    assert torch.equal(model.generate(tokens(), **GREEDY, cache_implementation=implementation), expected)
    given = transformers.DynamicCache()
    assert torch.equal(model.generate(tokens(), **GREEDY, past_key_values=given), expected)


def cache_bytes(cache):
    return sum(
        layer.nbytes if isinstance(layer, RAttentionCacheLayer) else layer.keys.nbytes + layer.values.nbytes
        for layer in cache.layers
    )


@by_model
@by_layers
def test_the_report_tells_the_bytes_there_are(name, layers):
    contexts = (3, 40)
    original = build(name)
    model = converted(name, layers)
    report = cache_report(model, contexts)
    with torch.no_grad():
        for i, context in enumerate(contexts):
            for each, bytes_told in ((original, report.original), (model, report.converted)):
                cache = each(tokens(1, context), use_cache=True).past_key_values
                assert cache_bytes(cache) == bytes_told[i], (context, each)
    if layers is None:
        assert report.converted[0] == report.converted[1]


def test_the_report_in_words():
    report = convert(build("llama"), 512)
    text = str(report)
    assert text == repr(report)
    assert text.startswith("2 layers are now RAttention with a window of 512; 128 parameters are new.")
    assert "The model needs fine-tuning" in text
    assert text.splitlines()[-1].split()[0] == "262144"


def test_fine_tuning_brings_the_loss_down():
    model = converted(layers=[0]).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(tokens(), labels=tokens(), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    attention = model.model.layers[0].self_attn
    for weight in (attention.local_norm_weight, attention.linear_norm_weight, attention.q_proj.weight):
        assert weight.grad.abs().max() > 0


def test_gradients_do_not_depend_on_the_cache():
    def gradients(use_cache):
        model = converted()
        model(tokens(), attention_mask=padding("right"), labels=tokens(), use_cache=use_cache).loss.backward()
        return [p.grad for p in model.parameters()]

    for got, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(got, expected)


def test_norms_alone_can_be_trained():
    model = converted()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("_norm_weight"))
    model(tokens(), labels=tokens()).loss.backward()
    assert model.model.layers[0].self_attn.linear_norm_weight.grad.abs().max() > 0


def test_packed_sequences_stay_apart():
    model = converted()
    positions = torch.cat([torch.arange(7), torch.arange(10)])[None]
    with torch.no_grad():
        got = model(tokens(1), position_ids=positions, use_cache=False).logits[:, 7:]
    torch.testing.assert_close(got, whole(model, tokens(1)[:, 7:]), rtol=1e-3, atol=1e-3)


def test_a_state_dict_reads_back():
    model, other = converted(layers=[1]), build("llama")
    convert(other, WINDOW, [1])
    other.load_state_dict(model.state_dict())
    assert torch.equal(whole(other, tokens()), whole(model, tokens()))


def test_bfloat16():
    model = converted().bfloat16()
    got = model.generate(tokens(), **GREEDY, output_logits=True, return_dict_in_generate=True)
    assert got.past_key_values.layers[0].contents.nbytes < cache_report(converted(), [1]).converted[0]
    logits = whole(model, got.sequences[:, :-1])[:, -1]
    torch.testing.assert_close(got.logits[-1], logits.float(), rtol=0.1, atol=0.15)


def test_converting_in_two_steps():
    model = converted(layers=[0])
    assert convert(model, 2, 1).layers == (1,)
    with pytest.raises(ValueError, match="LlamaForCausalLM has no layers that can be converted"):
        convert(model)


@pytest.mark.parametrize("layers", [[0], None])
def test_observing_what_was_converted(layers):
    model = converted(layers=layers)
    with torch.no_grad(), ra.observe(model) as seen:
        model(tokens())
    assert seen.modules == ("model.layers.0.self_attn", "model.layers.1.self_attn")
    assert seen.entropy.shape == (2, 2, 4, 17)


@pytest.mark.parametrize("name", ["gpt2", "bert", "modernbert"])
def test_models_without_such_layers(name):
    with pytest.raises(ValueError, match="has no layers that can be converted"):
        convert(build(name))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"window": -1}, ValueError, "window must be >= 0, got -1"),
        ({"window": 2.5}, TypeError, "window must be"),
        ({"layers": [0, 5]}, ValueError, r"layers must be numbers from 0 to 1, got \[0, 5\]"),
        ({"layers": []}, ValueError, "layers must be numbers from 0 to 1"),
        ({"layers": "first"}, TypeError, "layers must be"),
    ],
)
def test_bad_arguments(arguments, error, message):
    model = build("llama")
    with pytest.raises(error, match=message):
        convert(model, **arguments)
    assert type(model.model.layers[0].self_attn).__name__ == "LlamaAttention"
    assert model.config._attn_implementation == "eager"


def test_bad_models():
    with pytest.raises(TypeError, match=r"must be a transformers\.PreTrainedModel, got Linear"):
        convert(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="has no converted layers"):
        cache_report(build("llama"))


def test_calls_that_cannot_be_honoured():
    model = converted()
    with torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="no gradient flows through the cache"):
        model(tokens(), past_key_values=cache)
    with pytest.raises(ValueError, match="RAttention is causal"):
        model(tokens(), is_causal=False)
    with pytest.raises(ValueError, match=r"need masks \[batch, keys\]"):
        model(tokens(), attention_mask=torch.ones(2, 1, 17, 17, dtype=torch.bool))
    with pytest.raises(NotImplementedError, match="cannot take tokens back"):
        cache.crop(-2)
    cache.crop(0)
    with pytest.raises(NotImplementedError, match="belongs to a layer that rattention"):
        cache.update(torch.zeros(1), torch.zeros(1), 0)
    with pytest.raises(ValueError, match="no dropout"):
        converted(attention_dropout=0.1).train()(tokens())


def test_caches_from_before_the_conversion():
    model = build("llama")
    with torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
        convert(model, WINDOW)
        with pytest.raises(ValueError, match="was filled before the model was converted"):
            model(tokens(), past_key_values=cache)


def test_caches_can_be_copied_and_reset():
    model = converted()
    with torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
        kept = copy.deepcopy(cache)
        first = model(tokens(seed=3), past_key_values=cache).logits
        assert torch.equal(model(tokens(seed=3), past_key_values=kept).logits, first)
        cache.reset()
        assert cache.get_seq_length() == 0
        again = model(tokens(), past_key_values=cache).logits
    torch.testing.assert_close(again, whole(model, tokens()), rtol=1e-3, atol=1e-3)


def test_tensors_that_are_not_on_the_cpu():
    """Shapes without numbers: the plain composition runs, the cache refuses."""
    attention = converted().model.layers[0].self_attn.to("meta")
    hidden = torch.empty(2, 17, 32, device="meta")
    assert attention(hidden)[0].shape == (2, 17, 32)
    with pytest.raises(ValueError, match="keep their cache on the CPU"):
        attention(hidden, past_key_values=transformers.DynamicCache())


def test_selected_sequences_go_on_as_before():
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 3, 2, 9, 4), dtype=np.float32)
    cache = ra.RAttentionCache(3, 2, 4, 3, rope_theta=100.0)
    rattention_step(query[:, :, :8], key[:, :, :8], value[:, :, :8], cache, lengths=np.array([8, 5, 7]))
    order = np.array([2, 0, 0])
    chosen = cache.select(order)
    np.testing.assert_array_equal(chosen.lengths, [7, 8, 8])
    last = [a[:, :, 8:] for a in (query, key, value)]
    got = rattention_step(*(a[order] for a in last), chosen)
    np.testing.assert_array_equal(got, rattention_step(*last, cache)[order])
    for wrong in ([3], [-1]):
        with pytest.raises(ValueError, match=r"sequences must lie in \[0, 2\]"):
            cache.select(np.array(wrong))


def test_examples():
    assert doctest.testmod(conversion).failed == 0
