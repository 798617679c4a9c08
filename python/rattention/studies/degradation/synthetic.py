"""Attention of no model at all: seeded queries and keys of any length, to run the demo with NumPy alone.

A head's score is a bump around its own position plus noise, ``strength * exp(-d^2 / (2 width^2)) + noise``:
heads of the first layers are local, those of the last look everywhere. The bump is a sum of random cosines
(random Fourier features of a Gaussian), so that a context is the beginning of every longer one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention.studies.degradation.sources import Context, Source, check_length

LAYERS, HEADS, HEAD_DIM = 4, 8, 64
FREQUENCIES = 16
"""Cosines per head; twice as many of the head's dimensions carry the position, the others carry noise."""
FACT, QUESTION = slice(1, 11), slice(-8, None)
"""Where the synthetic fact and question stand."""


class _Layer:
    def __init__(self) -> None:
        self.attention_hook: Callable[..., Any] | None = None


class _SyntheticModel:
    """Shows the queries and keys that it is called with, in the place of a model that computes them."""

    def __init__(self) -> None:
        self._layers = {f"layer {i}": _Layer() for i in range(LAYERS)}

    def attention_layers(self) -> dict[str, _Layer]:
        """By name, for `rattention.inspect.visiting`."""
        return self._layers

    def __call__(self, arrays: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
        """Queries and keys, ``[layers, 1, heads, length, head_dim]`` each."""
        for layer, query, key in zip(self._layers.values(), *arrays, strict=True):
            if layer.attention_hook is not None:
                layer.attention_hook(None, query, key, None, {})


class SyntheticSource(Source):
    """Seeded queries and keys: 4 layers of 8 heads. Nothing in them comes from a model or a text."""

    layers = LAYERS
    heads = HEADS

    def __init__(self, seed: int = 0) -> None:
        """The same `seed` gives the same numbers."""
        self._seed = seed
        self._model = _SyntheticModel()

    def context(self, length: int) -> Context:
        """The first `length` positions; ValueError below 3."""
        return Context(self._model, self._arrays(length), length)

    def _arrays(self, length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        check_length(length)
        rng = np.random.default_rng(self._seed)
        bump = _bump_features(rng, length)
        noise = rng.standard_normal((length, 2, LAYERS, 1, HEADS, HEAD_DIM - bump.shape[-1]))
        noise = np.moveaxis(noise, 0, -2) * _per_head(1.0, 1.5)
        query, key = (np.concatenate([bump, n], axis=-1, dtype=np.float32) for n in noise)
        return query, key


class SyntheticConversation(SyntheticSource):
    """The same, with a question at the end whose queries point at the keys of a fact at the beginning."""

    shortest = 20
    """Fact, question and a little room."""

    def context(self, length: int) -> Context:
        """`length` positions; ValueError where fact and question do not fit."""
        self._require_both_fit(length)
        query, key = self._arrays(length)
        direction = np.random.default_rng([self._seed, 1]).standard_normal((LAYERS, 1, HEADS, 1, HEAD_DIM))
        direction *= HEAD_DIM**0.25 * _per_head(1.0, 1.6) / np.linalg.norm(direction, axis=-1, keepdims=True)
        key[..., FACT, :] += direction.astype(np.float32)
        query[..., QUESTION, :] += direction.astype(np.float32)
        positions = np.arange(length)
        return Context(self._model, (query, key), length, positions[FACT], positions[QUESTION])


def _bump_features(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """Features of every position whose dot product is the bump: ``[layers, 1, heads, length, features]``."""
    width = np.geomspace(2, 40, HEADS)[:, None, None]
    frequency = rng.standard_normal((LAYERS, 1, HEADS, 1, FREQUENCIES)) / width
    angle = np.arange(length)[:, None] * frequency
    strength = _per_head(6.0, 1.0) * HEAD_DIM**0.5
    waves = np.concatenate([np.cos(angle), np.sin(angle)], -1)
    return np.asarray(waves * (strength / FREQUENCIES) ** 0.5)


def _per_head(first: float, last: float) -> NDArray[np.float64]:
    """Numbers from `first` in the very first head to `last` in the last: ``[layers, 1, heads, 1, 1]``."""
    return np.linspace(first, last, LAYERS * HEADS).reshape(LAYERS, 1, HEADS, 1, 1)
