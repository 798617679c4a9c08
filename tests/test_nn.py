"""rattention.nn: layers of every mechanism train, mask, generate and are saved."""

from __future__ import annotations

import doctest

import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.nn as rn
import rattention.torch as rt
import torch
from rattention.nn import attention, mechanisms, models
from rattention.nn.decoding import Rows
from rattention.nn.mechanisms import BY_NAME
from rattention.torch.rotary import rotary

from tests.nn_models import PATTERNS, TEXT, by_pattern, language_model, loss_of
from tests.processes import run_python

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_mechanism_has_a_layer():
    """But residual linear attention, which does not see the nearest tokens."""
    names = set(ra.MECHANISMS) - {"residual_linear"}
    assert {p[0].name for p in PATTERNS.values()} == set(BY_NAME) == names


@by_pattern
def test_training_lowers_the_loss(pattern):
    """A few steps learn the letters of a sentence, and every parameter takes part."""
    model = language_model(pattern)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = loss_of(model).item()
    for _ in range(12):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert [n for n, p in model.named_parameters() if not (p.grad.isfinite().all() and p.grad.any())] == []
    assert loss_of(model).item() < 0.7 * first


@by_pattern
def test_causal(pattern):
    """A later token changes no earlier row; the last one sees the first."""
    model = language_model(pattern, dropout=0.0)
    changed = TEXT.clone()
    changed[0, 60] += 1
    before, after = model(TEXT), model(changed)
    assert torch.equal(before[:, :60], after[:, :60])
    assert not torch.equal(before[:, 60:], after[:, 60:])


@by_pattern
def test_padding_hides_tokens(pattern):
    """Rows of a padded sequence equal those of the sequence alone."""
    model = language_model(pattern)
    padded = torch.cat([TEXT[:, :40], torch.zeros(1, 11, dtype=torch.int64)], dim=1)
    shown = torch.arange(51)[None] < 40
    got = model(padded, attention_mask=shown)[:, :40]
    torch.testing.assert_close(got, model(TEXT[:, :40]), rtol=1e-4, atol=1e-5)
    assert torch.equal(model(padded, shown.long())[:, :40], got)


@by_pattern
def test_segments_do_not_see_each_other(pattern):
    """Without rotary embedding, whose absolute positions are of no account to scores, up to rounding."""
    model = language_model(pattern)
    ids = (torch.arange(121)[None] >= 50).long()
    got = model(TEXT, segment_ids=ids)[:, 50:]
    torch.testing.assert_close(got, model(TEXT[:, 50:]), rtol=1e-3, atol=1e-4)


@by_pattern
def test_encoder(pattern):
    """Both directions where the mechanism has them: the first row sees the last."""
    mechanism = PATTERNS[pattern][0]
    if ra.MECHANISMS[mechanism.name].causal_only:
        with pytest.raises(ValueError, match="causal=True"):
            rn.TransformerEncoder(16, 2, 1, pattern=mechanism)
        return
    encoder = rn.TransformerEncoder(16, 2, 1, pattern=mechanism)
    x = torch.randn(2, 9, 16, requires_grad=True)
    encoder(x)[0, 0].sum().backward()
    assert x.grad[0, 8].any()
    assert not x.grad[1].any()


def test_layer_is_the_function_between_projections():
    mechanism = rn.SlidingWindow(3, rope_theta=50.0)
    layer = rn.SelfAttention(16, 4, 2, mechanism=mechanism, causal=True, bias=True)
    x = torch.randn(2, 9, 16)
    query, key, value = (
        p(x).reshape(2, 9, -1, 4).transpose(1, 2) for p in (layer.query, layer.key, layer.value)
    )
    heads = rt.attention(*rotary(query, key, theta=50.0), value, causal=True, window=3)
    torch.testing.assert_close(layer(x), layer.output(heads.transpose(1, 2).reshape(2, 9, 16)))


@by_pattern
def test_queries_and_keys_are_normed(pattern):
    """Longer queries and keys change nothing; without the norm they do. Generation has the norm, too."""
    torch.manual_seed(0)
    model = rn.LanguageModel(128, 32, 4, 2, kv_heads=2, pattern=PATTERNS[pattern], qk_norm=True).eval()
    with torch.no_grad():
        whole = model(TEXT)
        cache = model.new_cache(1)
        parts = torch.cat([model(TEXT[:, start : start + 40], cache=cache) for start in (0, 40, 80, 120)], 1)
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)
        for layer in model.encoder.attention_layers():
            layer.query.weight *= 4
            layer.key.weight *= 4
        torch.testing.assert_close(model(TEXT), whole, rtol=1e-3, atol=1e-4)
        for layer in model.encoder.attention_layers():
            layer.query_norm.weight *= torch.linspace(0.2, 4, 8)
        assert not torch.allclose(model(TEXT), whole, rtol=1e-3, atol=1e-3)


def test_a_norm_of_queries_and_keys_is_saved_and_trained(tmp_path):
    model = rn.LanguageModel(16, 8, 2, 1, qk_norm=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.arange(16)[None]).float().square().mean()
    loss.backward()
    (layer,) = model.encoder.attention_layers()
    assert layer.query_norm.weight.grad.any()
    assert layer.key_norm.weight.grad.any()
    model.save(tmp_path / "m.safetensors")
    loaded = rn.LanguageModel.load(tmp_path / "m.safetensors")
    assert "qk_norm=True" in repr(loaded)
    assert torch.equal(loaded(torch.arange(9)[None]), model(torch.arange(9)[None]))


def test_timescales_have_their_own_heads():
    """The heads of one timescale share a discount; the decoder joins all of them."""
    layer = rn.SelfAttention(8, 2, 1, mechanism=rn.MultiTimescale(timescales=[2.0, 50.0]))
    torch.testing.assert_close(
        layer.timescales.log_discount(torch.zeros(1, 1, 8)), torch.tensor([-0.5, -0.5, -0.02, -0.02])
    )
    assert layer.query.weight.shape == (16, 8)
    assert layer.key.weight.shape == (8, 8)
    assert layer.output.weight.shape == (8, 16)
    assert [n for n, _ in layer.named_parameters() if "timescale" in n] == ["timescales.log_timescale"]
    fixed = rn.SelfAttention(8, 2, mechanism=rn.MultiTimescale(learn=False))
    assert not [n for n, _ in fixed.named_parameters() if "timescale" in n]
    assert "timescales.log_timescale" in fixed.state_dict()


def test_adaptive_timescales_begin_at_those_given_and_are_bounded():
    layer, plain = (
        rn.SelfAttention(8, 2, 1, mechanism=rn.MultiTimescale(timescales=[2.0, 50.0], adaptive=adaptive))
        for adaptive in (True, False)
    )
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(3, 9, 8)
    assert torch.equal(layer(x), plain(x))
    torch.nn.init.normal_(layer.timescales.gate.weight, std=100.0)
    scales = -1 / layer.timescales.log_discount(x)
    assert scales.shape == (3, 4, 9)
    assert torch.equal(scales[:, 0], scales[:, 1])
    factors = scales / torch.tensor([2.0, 2.0, 50.0, 50.0])[:, None]
    assert 0.367 < factors.min() < 0.4
    assert 2.7 < factors.max() < 2.719


def test_masses_and_gravity_are_positive():
    mechanism = rn.GravitationalMultiTimescale(timescales=[2.0, 9.0, 50.0])
    layer = rn.SelfAttention(8, 2, mechanism=mechanism)
    own, other = layer.gravity(100 * torch.randn(1, 5, 8))
    assert own.shape == other.shape == (1, 6, 5)
    assert min(own.min(), other.min(), layer.gravity.strength().min()) >= 0


@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("learned", [False, True])
def test_distances(distance, learned):
    """A layer with 2 heads that read one, against the definition; one token is 0."""
    mechanism = rn.Gravitational(distance=distance, learn_exponent=learned, softening=0.3)
    layer = rn.SelfAttention(8, 2, 1, mechanism=mechanism)
    x = torch.randn(2, 9, 8)
    x[0, 3] = 0
    if learned:
        torch.nn.init.normal_(layer.gravity.log_exponent)
    q, k, v = (p(x).reshape(2, 9, -1, 4).transpose(1, 2) for p in (layer.query, layer.key, layer.value))
    if distance == "cosine":
        apart = (1 - torch.cosine_similarity(q[..., None, :], k[:, :, None], dim=-1)).clamp(min=0).sqrt()
    else:
        apart = (q[..., None, :] - k[:, :, None]).norm(dim=-1)
    exponent = (
        layer.gravity.log_exponent.exp() if learned else torch.tensor([1.0 + (distance != "euclidean")])
    )
    own, other = layer.gravity(x)
    masses = layer.gravity.strength()[:, None, None] * own[..., None] * other[:, :, None]
    heads = (masses / (apart ** exponent[:, None, None] + 0.3)).softmax(-1) @ v
    expected = layer.output(heads.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_cosines_have_gradients_everywhere():
    """That of a vector of length 0 is 0, as is that of the exponent where all cosines are 1."""
    mechanism = rn.Gravitational(distance="cosine", learn_exponent=True)
    layer = rn.SelfAttention(8, 2, mechanism=mechanism)
    x = torch.zeros(1, 5, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()
    torch.nn.init.ones_(layer.query.weight)
    torch.nn.init.ones_(layer.key.weight)
    layer.zero_grad()
    layer(torch.ones(1, 5, 8)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
    assert not layer.gravity.log_exponent.grad.any()


@by_pattern
@pytest.mark.row("N5")
def test_generation_equals_recomputation(pattern):
    """Prompts in parts and single tokens, against the whole at once; gates that start at 0 are open."""
    model = language_model(pattern).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)
    cache = model.new_cache(1)
    with torch.no_grad():
        parts = [model(TEXT[:, i:j], cache=cache) for i, j in ((0, 1), (1, 70), (70, 71), (71, 90))]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(TEXT[:, :90]), rtol=1e-3, atol=1e-4)
    assert cache.length == 90
    expected = TEXT[:, :20]
    for _ in range(6):
        expected = torch.cat([expected, model(expected)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(TEXT[:, :20], 6), expected)


def test_generation_goes_on_with_a_cache():
    model = language_model("hybrid")
    whole = model.generate(TEXT[:, :20], 9)
    cache = model.new_cache(1)
    first = model.generate(TEXT[:, :20], 4, cache=cache)
    rest = model.generate(first[:, -1:], 5, cache=cache)
    assert torch.equal(torch.cat([first, rest[:, 1:]], dim=1), whole)


@pytest.mark.parametrize("pattern", ["rattention", "sliding_window", "gated_linear", "gated_delta", "kda"])
def test_generation_keeps_the_same_bytes(pattern):
    model = language_model(pattern)
    sizes = []
    for length in (20, 120):
        cache = model.new_cache(1)
        model.generate(TEXT[:, :length], 2, cache=cache)
        sizes.append(cache.nbytes)
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize("window", [None, 0, 5, 40])
@pytest.mark.parametrize("first", [1, 3, 130])
def test_kept_rows_are_the_newest(window, first):
    """Against joined tensors; what was given out before does not change, and room is a quarter at most."""
    rows, expected, given = Rows(), torch.empty(1, 2, 0, 3), []
    generator = torch.Generator().manual_seed(0)
    for count in (first, *[1] * 150, 7, 60, 1):
        new = torch.randn(1, 2, count, 3, generator=generator)
        rows.append([new, new[..., 0]])
        expected = torch.cat([expected, new], dim=2)
        wide, narrow = rows.tensors()
        assert torch.equal(wide, expected)
        assert torch.equal(narrow, expected[..., 0])
        given.append((wide, expected))
        if window is not None:
            rows.keep_last(window)
            expected = expected[:, :, max(0, expected.shape[2] - window) :]
        assert len(rows) == expected.shape[2]
        assert rows.nbytes == 4 * 2 * 4 * len(rows)
        assert sum(buffer.nbytes for buffer in rows._buffers) <= 4 * 2 * 4 * (1.25 * (len(rows) + count) + 16)
    assert all(torch.equal(view, then) for view, then in given)


def test_kept_rows_of_inference_mode_may_grow_outside():
    rows = Rows()
    with torch.inference_mode():
        for _ in range(3):
            rows.append([torch.ones(1, 1, 1, 1)])
    with torch.no_grad():
        rows.append([torch.zeros(1, 1, 1, 1)])
    assert rows.tensors()[0].flatten().tolist() == [1, 1, 1, 0]


def test_generation_draws_by_temperature():
    model = language_model("hybrid", dropout=0.5)
    drawn = [
        model.generate(TEXT[:, :9], 8, temperature=5.0, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert model.training
    assert torch.equal(model.generate(TEXT[:, :9], 8), model.generate(TEXT[:, :9], 8))


@by_pattern
def test_bfloat16(pattern):
    """Forward, backward and generation of a model in bfloat16, and of one under autocast."""
    model = language_model(pattern)
    full = model(TEXT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(TEXT)
        loss_of(model).backward()
    half = model.to(torch.bfloat16)(TEXT)
    for logits in (mixed, half):
        assert (logits.float() - full).norm() < 0.05 * full.norm()
    model.zero_grad()
    loss_of(model).backward()
    assert model.generate(TEXT[:, :9], 3).shape == (1, 12)


def test_compiles_in_one_graph():
    model = language_model("hybrid")
    expected = torch.autograd.grad(loss_of(model), [*model.parameters()])
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    mask = (torch.arange(121)[None] < 90).long()
    torch.testing.assert_close(compiled(TEXT, mask), model(TEXT, mask), rtol=1e-4, atol=1e-5)
    for got, grad in zip(
        torch.autograd.grad(loss_of(compiled), [*model.parameters()]), expected, strict=True
    ):
        torch.testing.assert_close(got, grad, rtol=1e-4, atol=1e-5)


def test_other_devices_have_the_same_shapes():
    model = language_model("hybrid").to("meta")
    assert model(TEXT.to("meta")).shape == (1, 121, 128)
    with pytest.raises(ValueError, match="generate on the CPU only, the model is on meta"):
        model.new_cache(1)


def test_dropout_is_on_embeddings_and_residuals():
    model = language_model("rattention", dropout=0.5)
    assert not torch.equal(model(TEXT), model(TEXT))
    model.eval()
    assert torch.equal(model(TEXT), model(TEXT))
    with pytest.raises(TypeError, match="dropout"):
        rn.SelfAttention(8, 2, dropout=0.5)


def test_parameter_counts():
    counts = rn.count_parameters(language_model("hybrid"))
    projections = 4 * (2 * 32 * 32 + 2 * 32 * 16)
    norms = 3 * 2 * 32  # RAttention's own, in three of the four layers
    assert counts["attention"] == projections + norms
    assert counts["embedding"] == 128 * 32
    assert counts["mlp"] == 4 * 2 * 32 * 128
    assert counts["norm"] == 9 * 32
    assert counts["total"] == sum(n for kind, n in counts.items() if kind != "total")


def test_wrong_calls():
    model = language_model("rattention")
    cache = model.new_cache(1)
    with pytest.raises(ValueError, match=r"torch\.no_grad"):
        model(TEXT, cache=cache)
    with torch.no_grad(), pytest.raises(ValueError, match="cannot be combined with a cache"):
        model(TEXT, cache=cache, attention_mask=TEXT > 0)
    with pytest.raises(ValueError, match=r"tokens must be \[batch, length\]"):
        model.generate(TEXT[0], 3)
    with pytest.raises(ValueError, match="temperature and count must be >= 0"):
        model.generate(TEXT, 3, temperature=-1.0)
    layer = rn.SelfAttention(8, 2)
    with torch.no_grad(), pytest.raises(ValueError, match="needs causal attention"):
        layer(torch.zeros(1, 3, 8), cache=cache.layers[0])


@pytest.mark.parametrize("module", [rn, attention, mechanisms, models], ids=lambda m: m.__name__)
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_without_torch():
    code = """
import sys
sys.modules["torch"] = None
try:
    import rattention.nn
except ImportError as error:
    print(error)
"""
    assert "pip install 'rattention[torch]'" in run_python(code)
