"""Readings to ask about, and their maps, stored."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rattention.explorer import Document, Reading
from rattention.explorer.explorer import Explorer
from rattention.explorer.reading import read
from rattention.inspect import Sample

TEXT = (
    "A wolf met a lamb. 'You muddied my water,' he said!\nIt was 狼 and 😀, <b>not</b> the lamb; e\u0301. End"
)
LENGTH = 61


class Model:
    """Layers of seeded queries and keys; what a model of one's own needs to be looked into."""

    class Layer:
        def __init__(self) -> None:
            self.attention_hook: Any = None

    def __init__(self, layers: list[dict[str, Any]], heads: tuple[int, ...], length: int, seed: int) -> None:
        self._layers = {f"layer.{i}": Model.Layer() for i in range(len(layers))}
        self._options = layers
        rng = np.random.default_rng(seed)
        self._arrays = [
            [
                rng.standard_normal((1, h, length, 8)).astype(np.float32) * 2
                for h in (count, max(1, count // 2))
            ]
            for count in heads
        ]

    def attention_layers(self) -> dict[str, Any]:
        return self._layers

    def __call__(self, inputs: Any) -> None:
        for layer, (query, key), options in zip(
            self._layers.values(), self._arrays, self._options, strict=True
        ):
            if layer.attention_hook is not None:
                layer.attention_hook(None, query, key, None, options)


def document(length: int = LENGTH) -> Document:
    """Tokens of one or two characters, a special one at either end."""
    inner = [(i * 2, i * 2 + 2) for i in range(length - 2)]
    text = (TEXT * (1 + 2 * length // len(TEXT)))[: 2 * (length - 2)]
    return Document(text, np.array([(0, 0), *inner, (0, 0)], np.int32), "a fable")


LAYERS: tuple[dict[str, Any], ...] = (
    {"causal": True},
    {"causal": True, "window": 7, "sinks": np.array([0.5, -1.0, 2.0, 0.0], np.float32)},
    {"key_mask": np.arange(LENGTH)[None] != 5, "log_discount": np.array([-0.1, -0.2], np.float32)},
)


@cache
def reading() -> Reading:
    """Of three layers of 4, 4 and 2 heads."""
    model = Model([*LAYERS], (4, 4, 2), LENGTH, 3)
    return read(model, Sample("seeded", (None,)), document(), name="seeded")


@cache
def explorer() -> Explorer:
    """Of the same."""
    return Explorer(reading())


@cache
def maps() -> list[NDArray[np.float64]]:
    """Of every layer, ``[heads, rows, keys]``."""
    return [layer.rows(np.arange(LENGTH))[0].astype(np.float64) for layer in reading().layers]


def chosen(layer: int | None, head: int | None) -> NDArray[np.float64]:
    """The map that a choice averages, ``[rows, keys]``: heads of a layer first, then layers."""
    some = maps() if layer is None else [maps()[layer]]
    if head is not None:
        some = [m[head : head + 1] for m in some if head < len(m)]
    return np.mean([m.mean(axis=0) for m in some], axis=0)
