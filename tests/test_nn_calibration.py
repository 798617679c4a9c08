"""rattention.nn.begin_as_windows: layers of RAttention give what their windows give before training."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("torch")

import torch
from rattention.nn import (
    LanguageModel,
    RAttention,
    SelfAttention,
    SlidingWindow,
    Softmax,
    TransformerEncoder,
    begin_as_windows,
)

WINDOW = 4


def pair(pattern=None, **changes):
    """A model of windows, and one of RAttention with the same weights."""
    made = []
    for kind in (SlidingWindow, RAttention):
        torch.manual_seed(0)
        own = [kind(WINDOW, rope_theta=100.0)] if pattern is None else pattern(kind)
        made.append(LanguageModel(32, 16, 4, 4, pattern=own, **changes).eval())
    windows, ours = made
    ours.load_state_dict(windows.state_dict(), strict=False)
    return windows, ours


def distance(one, other, tokens):
    with torch.no_grad():
        wanted = other(tokens)
        return ((one(tokens) - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qk_norm": True},
        {"kv_heads": 2},
        {"head_dim": 6},
        {"pattern": lambda kind: [kind(WINDOW, rope_theta=100.0), Softmax(), kind(0)]},
    ],
    ids=["plain", "qk_norm", "grouped", "head_dim", "mixed"],
)
def test_a_model_is_nearly_that_of_its_windows(changes):
    windows, ours = pair(**changes)
    sample, others = torch.randint(32, (2, 3, 40))
    before = distance(ours, windows, others)
    begin_as_windows(ours, sample)
    assert distance(ours, windows, others) < 0.4 * before
    for layer in ours.encoder.attention_layers():
        if layer.norms is not None:
            assert not layer.norms.linear_norm_weight.any()


def test_one_token_everywhere_is_given_exactly():
    """All rows of a window are the same value, and one factor gives it its size."""
    windows, ours = pair()
    same = torch.full((1, 12), 7)
    begin_as_windows(ours, same)
    assert distance(ours, windows, same) < 1e-5


def test_nothing_else_changes():
    _, ours = pair(dropout=0.3)
    ours.train()
    ours.encoder.layers[1].eval()
    before = {name: weight.clone() for name, weight in ours.state_dict().items()}
    modes = [part.training for part in ours.modules()]
    state = torch.random.get_rng_state()
    begin_as_windows(ours, torch.randint(32, (2, 30), generator=torch.Generator().manual_seed(1)))
    assert torch.equal(state, torch.random.get_rng_state())
    assert modes == [part.training for part in ours.modules()]
    changed = {name for name, weight in ours.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if "_norm_weight" in name}
    assert not any(part._forward_pre_hooks for part in ours.modules())


def test_training_goes_on_from_there():
    _, ours = pair()
    begin_as_windows(ours, torch.randint(32, (2, 30)))
    ours(torch.randint(32, (2, 30))).square().mean().backward()
    for layer in ours.encoder.attention_layers():
        assert layer.norms.local_norm_weight.grad.any()
        assert layer.norms.linear_norm_weight.grad.any()


def test_other_modules_have_such_layers_too():
    layer = SelfAttention(16, 4, mechanism=RAttention(WINDOW), causal=True)
    begin_as_windows(layer, torch.randn(2, 30, 16))
    assert not layer.norms.linear_norm_weight.any()


def test_a_compiled_model_that_has_run():
    """Its graph would not call what is hooked to a layer later."""
    _, ours = pair()
    sample = torch.randint(32, (2, 30))
    plain = pair()[1]
    begin_as_windows(plain, sample)
    ours.compile(backend="eager")
    with torch.no_grad():
        ours(sample)
    begin_as_windows(ours, sample)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e15])
def test_rows_of_any_size_keep_it(size):
    """Those of one token, which are alike; the norm adds 1e-8 to the mean of their squares."""
    layer = SelfAttention(16, 4, mechanism=RAttention(WINDOW), causal=True)
    x = torch.randn(1, 1, 16).expand(1, 9, 16)
    layer.value.weight.data *= size
    window = SelfAttention(16, 4, mechanism=SlidingWindow(WINDOW), causal=True)
    window.load_state_dict(layer.state_dict(), strict=False)
    begin_as_windows(layer, x)
    with torch.no_grad():
        got, wanted = layer(x), window(x)
    assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()


class Twice(torch.nn.Module):
    """One layer, called twice and by keyword."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = SelfAttention(16, 4, mechanism=RAttention(WINDOW), causal=True)

    def forward(self, x):
        return self.layer(20 * self.layer(x=x))


def test_a_layer_that_a_model_has_twice_is_set_by_its_first_call():
    model, x = Twice(), torch.randn(2, 30, 16)
    begin_as_windows(model, x)
    alone = Twice().layer
    begin_as_windows(alone, x)
    assert torch.equal(model.layer.norms.local_norm_weight, alone.norms.local_norm_weight)


class Masked(torch.nn.Module):
    """A model that hides tokens from its layers."""

    def __init__(self):
        super().__init__()
        self.encoder = TransformerEncoder(16, 4, 1, pattern=RAttention(WINDOW), causal=True)

    def forward(self, x):
        return self.encoder(x, attention_mask=torch.ones(x.shape[:2], dtype=torch.bool))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"LanguageModel has no layers of rattention\.nn\.RAttention"):
        begin_as_windows(pair()[0], torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        begin_as_windows("model", torch.zeros(1, 3))
    unreached = torch.nn.ModuleList([Twice().layer])
    unreached.forward = lambda x: x
    with pytest.raises(ValueError, match="ModuleList calls 1 of its 1 layers of RAttention not at all"):
        begin_as_windows(unreached, torch.zeros(1, 3, 16))
    none, nan = torch.randn(1, 0, 16), torch.full((1, 3, 16), torch.nan)
    for rows, got in ((none, "no tokens"), (nan, "NaN or infinity")):
        layer = Twice().layer
        with pytest.raises(ValueError, match=f"norms something to begin with, got {got}"):
            begin_as_windows(layer, rows)
        assert (layer.norms.linear_norm_weight == 1).all()
    model = Masked()
    with pytest.raises(ValueError, match="without padding, segments or a cache"):
        begin_as_windows(model, torch.randn(2, 30, 16))
    assert not any(part._forward_pre_hooks for part in model.modules())
