"""Every mechanism, once: what it computes, what it is called with, what it costs.

Tests and benchmarks iterate over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rattention.mechanisms.gravitational import (
    gravitational_attention,
    gravitational_attention_backward,
    reference_gravitational_attention,
)
from rattention.mechanisms.softmax import attention, attention_backward, reference_attention

if TYPE_CHECKING:
    from collections.abc import Callable

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Sizes:
    """Sizes of one problem; `window` counts neighbours to the left, None is all."""

    batch: int
    heads: int
    length: int
    head_dim: int
    value_dim: int
    kv_heads: int
    window: int | None = None
    causal: bool = True

    @property
    def pairs(self) -> int:
        """Visible (query, key) pairs over batch and heads."""
        n, w = self.length, self.length if self.window is None else min(self.window, self.length)
        if not self.causal:
            return self.batch * self.heads * (n * n if w == n else n * (2 * w + 1) - w * (w + 1))
        return self.batch * self.heads * (n * (w + 1) - w * (w + 1) // 2 if w < n else n * (n + 1) // 2)

    @property
    def elements(self) -> int:
        """Numbers in query, key, value and output."""
        queries = self.heads * (self.head_dim + self.value_dim)
        return self.batch * self.length * (queries + self.kv_heads * (self.head_dim + self.value_dim))


@dataclass(frozen=True)
class Mechanism:
    """One row of the table."""

    name: str
    formula: str
    source: str
    parameters: tuple[str, ...]
    """Arrays and numbers besides the masks; all of them are differentiable."""
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    reference: Callable[..., Any]
    """The same in float64 NumPy, with the whole map in memory: the law."""
    options: dict[str, Any]
    """What makes this mechanism of its function, such as a window."""
    flops: Callable[[Sizes], int]
    """Multiplications and additions of the forward pass; exponentials and divisions count as one."""

    def bytes_moved(self, sizes: Sizes) -> int:
        """Bytes the forward pass must read and write at least, in float32: inputs and outputs once."""
        return FLOAT32_BYTES * sizes.elements


def _softmax_flops(sizes: Sizes) -> int:
    return sizes.pairs * (2 * sizes.head_dim + 2 * sizes.value_dim + 4)


def _discounted_flops(sizes: Sizes) -> int:
    return _softmax_flops(sizes) + 2 * sizes.pairs


def _gravitational_flops(sizes: Sizes) -> int:
    return sizes.pairs * (3 * sizes.head_dim + 2 * sizes.value_dim + 8)


def _discounted_gravitational_flops(sizes: Sizes) -> int:
    return _gravitational_flops(sizes) + 2 * sizes.pairs


_SOFTMAX = ("query", "key", "value")
_GRAVITY = (*_SOFTMAX, "query_mass", "key_mass", "gravity")
_SOFTMAX_FUNCTIONS = (attention, attention_backward, reference_attention)
_GRAVITY_FUNCTIONS = (
    gravitational_attention,
    gravitational_attention_backward,
    reference_gravitational_attention,
)

MECHANISMS: dict[str, Mechanism] = {
    row.name: row
    for row in (
        Mechanism(
            "softmax",
            "out_i = sum_j softmax_j(scale q_i.k_j) v_j",
            "Vaswani et al. 2017, arXiv 1706.03762, eq. 1",
            _SOFTMAX,
            *_SOFTMAX_FUNCTIONS,
            options={},
            flops=_softmax_flops,
        ),
        Mechanism(
            "sliding_window",
            "out_t = sum_{j=t-w..t} softmax_j(scale q_t.k_j) v_j",
            "RAttention, arXiv 2506.15545, section 2",
            _SOFTMAX,
            *_SOFTMAX_FUNCTIONS,
            options={"causal": True, "window": 64},
            flops=_softmax_flops,
        ),
        Mechanism(
            "multi_timescale",
            "out_i = sum_j softmax_j(scale q_i.k_j + ln(gamma_h) |i-j|) v_j",
            "exponential discount per head; timescales fold into heads",
            (*_SOFTMAX, "log_discount"),
            *_SOFTMAX_FUNCTIONS,
            options={"log_discount": -0.05},
            flops=_discounted_flops,
        ),
        Mechanism(
            "gravitational",
            "out_i = sum_j softmax_j(G m_i m_j / (|q_i-k_j|^2 + eps)) v_j",
            "Newton's law with softened squared distance in place of the dot product",
            _GRAVITY,
            *_GRAVITY_FUNCTIONS,
            options={"eps": 1e-3},
            flops=_gravitational_flops,
        ),
        Mechanism(
            "gravitational_multi_timescale",
            "out_i = sum_j softmax_j(G m_i m_j / (|q_i-k_j|^2 + eps) + ln(gamma_h) |i-j|) v_j",
            "gravitational scores with the discount of multi_timescale",
            (*_GRAVITY, "log_discount"),
            *_GRAVITY_FUNCTIONS,
            options={"eps": 1e-3, "log_discount": -0.05},
            flops=_discounted_gravitational_flops,
        ),
    )
}
"""The mechanisms by name."""
