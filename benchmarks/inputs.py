"""Inputs of the attention cases: standard normal, the same in every run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADS = 8
HEAD_DIM = 64


class Inputs(NamedTuple):
    """Arrays ``[batch, heads, length, head_dim]``, float32."""

    query: NDArray[np.float32]
    key: NDArray[np.float32]
    value: NDArray[np.float32]

    @property
    def length(self) -> int:
        return int(self.query.shape[2])


def random_inputs(length: int, heads: int = HEADS, head_dim: int = HEAD_DIM, seed: int = 0) -> Inputs:
    """One batch; of eight heads in most of the figures this project is held to."""
    rng = np.random.default_rng(seed)
    return Inputs(*(rng.standard_normal((1, heads, length, head_dim), dtype=np.float32) for _ in range(3)))


def random_gradient(inputs: Inputs) -> NDArray[np.float32]:
    """A gradient of the output, in the shape of the value."""
    return np.random.default_rng(1).standard_normal(inputs.value.shape, dtype=np.float32)
