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


def random_inputs(length: int) -> Inputs:
    """One batch of eight heads, as in the figures this project is held to."""
    rng = np.random.default_rng(0)
    return Inputs(*(rng.standard_normal((1, HEADS, length, HEAD_DIM), dtype=np.float32) for _ in range(3)))
