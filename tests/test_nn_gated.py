"""Layers whose state decays: convolution, gates and gated norm against their definition, masks, decoding."""

from __future__ import annotations

import itertools
import math

import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.nn as rn
import torch
from rattention.inspect import capture
from rattention.nn.decoding import DecodingCache
from rattention.nn.recurrence import Decay, ShortConvolution
from torch.nn import functional

from tests.nn_models import TEXT, loss_of

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {
    "gated_linear": rn.GatedLinear(),
    "gated_linear, relu": rn.GatedLinear(feature_map="relu", convolution=2),
    "gla": rn.GLA(),
    "gla, convolution": rn.GLA(convolution=3),
    "gated_delta": rn.GatedDelta(),
    "gated_delta, no convolution": rn.GatedDelta(convolution=0),
    "kda": rn.KimiDelta(),
}
by_kind = pytest.mark.parametrize("kind", KINDS)
LENGTH = 40


def layer_of(kind, **options):
    torch.manual_seed(0)
    sizes = {"dim": 16, "heads": 4, "kv_heads": 2, "head_dim": 8} | options
    return rn.SelfAttention(**sizes, mechanism=KINDS[kind], causal=True)


def model_of(kind, **options):
    torch.manual_seed(0)
    sizes = {"vocabulary": 128, "dim": 32, "heads": 2, "kv_heads": 1, "depth": 2} | options
    return rn.LanguageModel(**sizes, pattern=KINDS[kind])


def inputs(length=LENGTH, batch=2, dim=16):
    return torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(1))


def convolved(rows, taps):
    """SiLU of the causal convolution of rows ``[length, channels]``, by its definition."""
    width = taps.shape[2]
    out = torch.zeros_like(rows)
    for t in range(len(rows)):
        for back in range(min(width, t + 1)):
            out[t] += taps[:, 0, width - 1 - back] * rows[t - back]
    return functional.silu(out)


def rule_of(layer, x, value):
    """Gates, what is written, and options of the function, for tokens ``[length, dim]``."""
    parts = layer.recurrence
    if isinstance(layer.mechanism, rn.GLA):
        gates = functional.logsigmoid(parts.decay.logit(x)) / 16
        return {"log_gate": gates.unflatten(1, (-1, layer.head_dim)).transpose(0, 1)}
    rates = parts.decay.log_rate.exp()[:, None]
    step = functional.softplus(parts.decay.step(x) + parts.decay.step_bias).unflatten(1, (len(rates), -1))
    log_gate = (-rates * step).transpose(0, 1)
    if parts.write is None:
        written = {"value": value * step.transpose(0, 1), "feature_map": layer.mechanism.feature_map}
        return written | {"log_gate": log_gate[..., 0]}
    gates = log_gate if log_gate.shape[2] > 1 else log_gate[..., 0]
    return {"log_gate": gates, "beta": parts.write(x).sigmoid().T, "normalize": True}


def by_definition(layer, x, shown):
    """A layer's output for tokens ``[length, dim]`` of which some are hidden, token by token, in float64."""
    layer, x = layer.double(), x.double()
    parts, size = layer.recurrence, layer.head_dim
    rows = [linear(x) * shown[:, None] for linear in (layer.query, layer.key, layer.value)]
    if parts.convolution is not None:
        widths = [row.shape[1] for row in rows]
        rows = convolved(torch.cat(rows, dim=1), parts.convolution.taps.weight).split(widths, dim=1)
    q, k, v = (row.unflatten(1, (-1, size)).transpose(0, 1) for row in rows)
    options = {"query": q, "key": k, "value": v} | rule_of(layer, x, v)
    tensors = {n: a for n, a in options.items() if isinstance(a, torch.Tensor)}
    given = options | {n: a[None].detach().numpy() for n, a in tensors.items()} | {"key_mask": shown[None]}
    heads = torch.from_numpy(ra.MECHANISMS[layer.mechanism.name].reference(**given)[0][0])
    normed = heads * (heads.square().mean(dim=2, keepdim=True) + 1e-8).rsqrt() * parts.norm_weight
    gated = normed.transpose(0, 1).flatten(1) * functional.silu(parts.gate(x))
    return layer.output(gated)


@by_kind
@pytest.mark.parametrize("hidden", [False, True])
def test_layer_is_its_definition(kind, hidden):
    """Hidden tokens are zeros to the convolution and nothing to the state."""
    layer, x, shown = layer_of(kind, bias=hidden), inputs(), torch.ones(2, LENGTH, dtype=torch.bool)
    torch.nn.init.normal_(layer.recurrence.norm_weight)
    if hidden:
        shown[0, :5] = shown[0, 17:19] = shown[1, 30:] = False
    got = layer(x, shown if hidden else None).double()
    expected = torch.stack([by_definition(layer, *row) for row in zip(x, shown, strict=True)])
    torch.testing.assert_close(got[shown], expected[shown], rtol=1e-4, atol=1e-5)


@by_kind
def test_what_is_hidden_changes_no_bit(kind):
    """Neither padding on both sides and within, NaN included, nor tokens of other segments."""
    layer, x = layer_of(kind, bias=True), inputs()
    shown = torch.ones(2, LENGTH, dtype=torch.bool)
    shown[0, :5] = shown[0, 17:19] = shown[1, 30:] = False
    got = layer(x, attention_mask=shown)
    for other in (7.0, torch.nan):
        changed = torch.where(shown[..., None], x, other)
        assert torch.equal(layer(changed, attention_mask=shown)[shown], got[shown])
    ids = torch.tensor([[0] * 9 + [3] * 20 + [0] * 11, [1] * 38 + [2] * 2])
    own = torch.tensor([[9, 29], [0, 38]])
    inside = (torch.arange(LENGTH) >= own[:, :1]) & (torch.arange(LENGTH) < own[:, 1:])
    got = layer(x, segment_ids=ids)
    changed = torch.where(inside[..., None], x, 100 * x.flip(1))
    assert torch.equal(layer(changed, segment_ids=ids)[inside], got[inside])


@by_kind
@pytest.mark.parametrize("hidden", [False, True])
def test_segments_are_sequences_of_their_own(kind, hidden):
    layer, x = layer_of(kind), inputs(batch=1)
    edges = [0, 1, 3, 20, LENGTH]
    ids = torch.tensor([[i for i in range(4) for _ in range(edges[i], edges[i + 1])]])
    shown = torch.arange(LENGTH)[None] != 21 if hidden else None
    got = layer(x, shown, segment_ids=ids)
    for start, stop in itertools.pairwise(edges):
        alone = layer(x[:, start:stop], None if shown is None else shown[:, start:stop])
        torch.testing.assert_close(got[:, start:stop], alone, rtol=1e-4, atol=1e-5)


def test_convolution_of_one_segment_is_that_of_none():
    convolution, heads = ShortConvolution(12, 4), [torch.randn(2, n, 9, 3) for n in (2, 1, 1)]
    ids = torch.full((2, 9), 5)
    for got, expected in zip(convolution(heads, segment_ids=ids), convolution(heads), strict=True):
        torch.testing.assert_close(got, expected)


@by_kind
@pytest.mark.row("N5")
def test_every_split_decodes_as_the_whole(kind):
    """A prompt of any length, then token by token; and two parts that meet anywhere."""
    model = model_of(kind).eval()
    tokens = torch.cat([TEXT[:, :18], TEXT[:, 5:23]])
    with torch.no_grad():
        whole = model(tokens)
        for split in range(1, 18):
            cache = model.new_cache(2)
            parts = [model(tokens[:, :split], cache=cache)]
            parts += [model(tokens[:, t : t + 1], cache=cache) for t in range(split, 18)]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-3, atol=1e-4)
            cache = model.new_cache(2)
            parts = [model(part, cache=cache) for part in (tokens[:, :split], tokens[:, split:])]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-3, atol=1e-4)
    assert cache.length == 18


@by_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_caches_hold_a_state_and_the_rows_of_the_convolution(kind, dtype):
    model, mechanism = model_of(kind).to(dtype), KINDS[kind]
    cache = model.new_cache(3)
    shared = mechanism.name == "gla" or (mechanism.name == "gated_linear" and mechanism.feature_map is None)
    states = 1 if shared else 2  # of one key/value head; of two heads, or of twice as many features
    recent = max(0, mechanism.convolution - 1) * (2 + 1 + 1) * 16
    expected = 2 * 3 * (4 * states * 16 * 16 + dtype.itemsize * recent)
    assert cache.nbytes == expected
    for _ in range(2):
        model.generate(TEXT[:, :40].expand(3, 40), 3, cache=cache)
        assert cache.nbytes == expected


@by_kind
def test_every_parameter_has_a_gradient(kind):
    model = model_of(kind)
    loss_of(model).backward()
    assert [n for n, p in model.named_parameters() if not (p.grad.isfinite().all() and p.grad.any())] == []


@by_kind
def test_gradients_stay_with_what_is_seen(kind):
    """Those of hidden tokens, of tokens of other segments and of later ones are 0."""
    layer, x = layer_of(kind), inputs().requires_grad_()
    shown = torch.arange(LENGTH)[None] != torch.tensor([[20], [26]])
    ids = (torch.arange(LENGTH)[None] >= 15).long().expand(2, LENGTH)
    layer(x, shown, segment_ids=ids)[:, 30].sum().backward()
    seen = x.grad.any(dim=2)
    inside = (torch.arange(LENGTH) >= 15) & (torch.arange(LENGTH) <= 30) & shown
    assert torch.equal(seen, inside)


@by_kind
def test_bfloat16_and_autocast(kind):
    layer, x = layer_of(kind), inputs()
    full = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
        mixed.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    half = layer.to(torch.bfloat16)(x.to(torch.bfloat16))
    for got in (mixed, half):
        assert got.dtype == torch.bfloat16
        assert (got.float() - full).norm() < 0.05 * full.norm()


@by_kind
def test_generation_under_autocast(kind):
    model = model_of(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.generate(TEXT[:, :9], 4).shape == (1, 13)


@by_kind
def test_compiles_in_one_graph(kind):
    layer, x = layer_of(kind), inputs()
    shown, ids = torch.arange(LENGTH)[None] < torch.tensor([[30], [40]]), (inputs()[..., 0] > 2).cumsum(1)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for masks in ({}, {"attention_mask": shown.long(), "segment_ids": ids}):
        got, expected = compiled(x, **masks), layer(x, **masks)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        grads = [torch.autograd.grad(y.square().sum(), [*layer.parameters()]) for y in (got, expected)]
        for ours, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@by_kind
@pytest.mark.parametrize("shape", [(1, 0), (0, 5)])
def test_nothing_gives_nothing(kind, shape):
    layer, x = layer_of(kind), torch.zeros(*shape, 16, requires_grad=True)
    for ids in (None, torch.zeros(shape, dtype=torch.int64)):
        y = layer(x, segment_ids=ids)
        assert y.shape == x.shape
        y.sum().backward()
    cache = model_of(kind).new_cache(shape[0])
    with torch.no_grad():
        assert model_of(kind)(torch.zeros(shape, dtype=torch.int64), cache=cache).shape == (*shape, 128)
    assert cache.length == shape[1]


def test_first_decays_are_those_of_mamba2():
    torch.manual_seed(0)
    for decay, shape in ((Decay(8, 500), (1, 500, 1)), (Decay(8, 50, 10), (1, 50, 1, 10))):
        steps, log_gate = decay(torch.zeros(1, 1, 8))
        assert steps.shape == log_gate.shape == shape
        assert steps.dtype == log_gate.dtype == torch.float32
        assert 0.99e-3 < steps.min() < 1.2e-3
        assert 0.09 < steps.max() < 0.101
        assert steps.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.2)
        rates = decay.log_rate.exp()
        assert 1 <= rates.min() < 2.5
        assert 14.5 < rates.max() <= 16
        quotients = (-log_gate / steps).flatten(2)
        torch.testing.assert_close(quotients, rates[None, :, None].expand_as(quotients))


def test_gates_are_of_the_heads_that_have_states():
    sizes = {kind: layer_of(kind).recurrence.rule(inputs()) for kind in KINDS}
    assert sizes["gated_linear"]["log_gate"].shape == (2, 2, LENGTH)
    assert sizes["gated_delta"]["log_gate"].shape == (2, 4, LENGTH)
    assert sizes["kda"]["log_gate"].shape == (2, 4, LENGTH, 8)
    assert sizes["gla"]["log_gate"].shape == (2, 2, LENGTH, 8)
    for kind, rule in sizes.items():
        assert (rule["log_gate"] < 0).all()
        assert (rule["beta"] is None) == kind.startswith("gla")
        if rule["beta"] is not None:
            assert (rule["beta"] > 0).all()
            assert rule["beta"].shape == rule["log_gate"].shape[:3]


def test_layers_without_a_map_are_passed_over():
    model = rn.LanguageModel(128, 16, 2, 3, pattern=["gated_delta", rn.Softmax(), "kda"])
    with torch.no_grad(), capture(model) as seen:
        model(TEXT)
    assert [(layer.index, layer.name) for layer in seen] == [(0, "encoder.layers.1.attention")]
    with torch.no_grad(), ra.observe(model) as observed:
        model(TEXT)
    assert observed.entropy.shape[0] == 1
    without = rn.LanguageModel(128, 16, 2, 1, pattern="gated_linear")
    for look in (capture, ra.observe):
        with pytest.raises(ValueError, match=r"no attention layers of .* with a map of"), look(without):
            pass


def test_other_devices():
    """Layers have a shape on any device and generate on the CPU."""
    model = model_of("kda").to("meta")
    assert model(TEXT.to("meta")).shape == (1, 121, 128)
    with pytest.raises(ValueError, match="KimiDelta layers generate on the CPU only, the model is on meta"):
        model.new_cache(1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rn.GatedDelta(convolution=-1), ValueError, "convolution must be >= 0, got -1"),
        (lambda: rn.KimiDelta(convolution=2.5), TypeError, "convolution must be an integer, got 2.5"),
        (lambda: rn.GatedLinear(feature_map="elu"), ValueError, "feature_map must be one of"),
        (lambda: rn.GatedDelta(feature_map="relu"), TypeError, "feature_map"),
        (lambda: rn.GLA(feature_map="relu"), TypeError, "feature_map"),
        (lambda: rn.SelfAttention(8, 2, mechanism="kda"), ValueError, "'kda' is causal: give causal=True"),
    ],
)
def test_wrong_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_tokens_that_are_refused_leave_the_cache_as_it_was() -> None:
    layer = rn.SelfAttention(32, 4, mechanism="gated_delta", causal=True).eval()
    cache = DecodingCache([layer], 1).layers[0]
    tokens = torch.randn(1, 5, 32)
    with torch.no_grad():
        layer(tokens[:, :3], cache=cache)
        with pytest.raises(ValueError, match="log_gate"):
            layer(torch.full((1, 1, 32), torch.nan), cache=cache)
        assert cache.length == 3
        rest = layer(tokens[:, 3:], cache=cache)
        torch.testing.assert_close(rest, layer(tokens)[:, 3:], rtol=1e-4, atol=1e-5)
