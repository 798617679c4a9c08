"""Training steps of a small encoder that classifies sequences, with attention by plain PyTorch."""

from __future__ import annotations

from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

from benchmarks.machine import available_bytes
from benchmarks.peers.pytorch import load
from benchmarks.peers.pytorch_training import LEARNING_RATE, loss_and_gradient
from benchmarks.race import Runner

if TYPE_CHECKING:
    from types import ModuleType

    from benchmarks.race import Setup

SIZES = {"dim": 128, "heads": 4, "depth": 2, "mlp_dim": 512}
BATCH, VOCABULARY, CLASSES = 8, 256, 10
MAPS = 11
"""Maps of a gravitational layer that are in memory at once, those of all layers counted."""


def ours(setup: Setup, layer: dict[str, Any]) -> Runner:
    """Steps of the model as `rattention.nn` has it."""
    return _steps(setup, _model(setup, layer))


def plain(setup: Setup, layer: dict[str, Any]) -> Runner:
    """Steps of the model with the same mechanism in plain PyTorch; ImportError where its maps do not fit."""
    torch, model = load(setup), _model(setup, layer)
    gravity = model["encoder"].attention_layers()[0].gravity is not None
    if gravity:
        _require_memory(setup, model)
    attend = (_Gravity if gravity else _Sdpa)(torch, setup.length)
    for attention in model["encoder"].attention_layers():
        attention._attend = MethodType(attend, attention)
    return _steps(setup, model)


def _require_memory(setup: Setup, model: Any) -> None:
    """Rather no peer than a process, this one or another's, that the system ends."""
    layer = model["encoder"].attention_layers()[0]
    heads = layer.query.out_features // layer.head_dim
    needed = MAPS * BATCH * heads * setup.length**2 * 4
    if needed > available_bytes():
        raise ImportError(f"its maps take {needed / 2**30:.1f} GiB, and less memory is free")


class _Sdpa:
    """scaled_dot_product_attention; the discounts, which do not learn, are a bias made once."""

    def __init__(self, torch: ModuleType, length: int) -> None:
        self.torch, self.length, self.bias = torch, length, None

    def __call__(self, layer: Any, query: Any, key: Any, value: Any, rule: Any, masks: Any) -> Any:
        attend = self.torch.nn.functional.scaled_dot_product_attention
        return attend(query, key, value, attn_mask=self.discounts(rule))

    def discounts(self, rule: Any) -> Any:
        """``[1, heads, length, length]``, or None."""
        if self.bias is None and "log_discount" in rule:
            position = self.torch.arange(self.length, dtype=self.torch.float32)
            distance = (position[:, None] - position).abs()
            self.bias = (rule["log_discount"][:, None, None] * distance)[None]
        return self.bias


class _Gravity(_Sdpa):
    """Squares of distances from products of the vectors, the map in memory, in place what may be."""

    def __call__(self, layer: Any, query: Any, key: Any, value: Any, rule: Any, masks: Any) -> Any:
        own = (rule["query_mass"] * rule["gravity"][:, None]).unsqueeze(-1)
        scores = own * rule["key_mass"].unsqueeze(-2) / self.squares(query, key, rule["eps"])
        bias = self.discounts(rule)
        if bias is not None:
            scores += bias
        return scores.softmax(-1) @ value

    def squares(self, query: Any, key: Any, eps: float) -> Any:
        """``|q - k|^2 + eps`` of all pairs."""
        query, key = query.flatten(0, 1), key.flatten(0, 1)
        lengths = key.square().sum(-1).unsqueeze(-2) + eps
        squares = self.torch.baddbmm(lengths, query, key.mT, alpha=-2)
        squares += query.square().sum(-1, keepdim=True)
        return squares.unflatten(0, (BATCH, -1))


def _model(setup: Setup, layer: dict[str, Any]) -> Any:
    """The same weights in every call."""
    torch, layers = load(setup), import_module("rattention.nn")
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(VOCABULARY, SIZES["dim"]),
            "encoder": layers.TransformerEncoder(**SIZES, pattern=[layer]),
            "classes": torch.nn.Linear(SIZES["dim"], CLASSES),
        }
    )


def _steps(setup: Setup, model: Any) -> Runner:
    """Forward pass, backward pass and AdamW on one batch; the answer is of the first step."""
    torch = load(setup)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY, (BATCH, setup.length), generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)

    def step() -> Any:
        pooled = model["encoder"](model["embedding"](tokens)).mean(dim=1)
        loss = torch.nn.functional.cross_entropy(model["classes"](pooled), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, model["embedding"].weight.grad

    return Runner(step, loss_and_gradient)
