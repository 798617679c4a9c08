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
    model = Masked()
    with pytest.raises(ValueError, match="without padding, segments or a cache"):
        begin_as_windows(model, torch.randn(2, 30, 16))
    assert not any(part._forward_pre_hooks for part in model.modules())
