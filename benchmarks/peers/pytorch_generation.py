"""Generation with a full cache of keys and values in plain PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.peers import pytorch_training
from benchmarks.peers.pytorch import load
from benchmarks.race import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Answer, Setup


class FullCache:
    """Room for all keys and values, made beforehand: nothing is copied but the new token's. The first
    `length` are random, as if a prompt had been read: their values do not change the time."""

    def __init__(self, torch: Any, layer: Any, length: int, more: int) -> None:
        self.attend_to = torch.nn.functional.scaled_dot_product_attention
        self.rotary = import_module("rattention.torch.rotary").rotary
        heads = layer.key.weight.shape[0] // layer.head_dim
        self.keys, self.values = (torch.randn(1, heads, length + more, layer.head_dim) for _ in range(2))
        self.start = self.length = length

    @property
    def nbytes(self) -> int:
        return (self.keys.nbytes + self.values.nbytes) * self.start // self.keys.shape[2]

    def attend(self, layer: Any, query: Any, key: Any, value: Any, rule: Any) -> Any:
        query, key = self.rotary(query, key, theta=layer.rope_theta, first_position=self.length)
        self.keys[:, :, self.length] = key[:, :, 0]
        self.values[:, :, self.length] = value[:, :, 0]
        self.length += 1
        return self.attend_to(query, self.keys[:, :, : self.length], self.values[:, :, : self.length])


def full_cache(setup: Setup, steps: int) -> tuple[Runner, int]:
    """`steps` tokens after `setup.length`, always the same positions; and the bytes of the cache."""
    torch = load(setup)
    model = pytorch_training.model(setup, pytorch_training.FULL)
    cache = model.new_cache(1)
    cache.layers = [
        FullCache(torch, layer, setup.length, steps) for layer in model.encoder.attention_layers()
    ]

    def call() -> Any:
        for layer in cache.layers:
            layer.length = layer.start
        return generate(model, cache, torch.zeros((1, 1), dtype=torch.int64), steps)

    return Runner(call, logits), cache.nbytes


def generate(model: Any, cache: Any, token: Any, steps: int) -> Any:
    """The logits of the first of so many greedy steps."""
    torch = import_module("torch")
    first = None
    with torch.no_grad():
        for _ in range(steps):
            last = model(token, cache=cache)[:, -1]
            first = last if first is None else first
            token = last.argmax(dim=-1, keepdim=True)
    return first


def logits(result: Any) -> Answer:
    """Of the first step."""
    return {"logits": result.numpy()}


def in_one_pass(model: Any, text: Any) -> Callable[[], Any]:
    """The last token's logits, everything read at once."""
    torch = import_module("torch")

    def call() -> Any:
        with torch.no_grad():
            return model(text)[:, -1]

    return call
