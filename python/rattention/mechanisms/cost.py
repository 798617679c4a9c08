"""What the mechanisms cost: multiplications and additions of their forward passes, by the sizes of a problem.

Exponentials, divisions and roots count as one. The linear family is counted token by token, the fewest there
are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sizes:
    """Sizes of one problem with as many queries as keys; `window` counts neighbours to the left, None is
    all."""

    batch: int
    heads: int
    length: int
    head_dim: int
    value_dim: int
    kv_heads: int
    window: int | None = None
    causal: bool = True

    @property
    def features(self) -> int:
        """Elements of phi(query) in the linear family."""
        return 2 * self.head_dim

    @property
    def query_length(self) -> int:
        """The length, as the softmax family calls it."""
        return self.length

    @property
    def key_length(self) -> int:
        """The length, as the softmax family calls it."""
        return self.length

    @property
    def pairs(self) -> int:
        """Visible (query, key) pairs over batch and heads."""
        n, w = self.length, self.length if self.window is None else min(self.window, self.length)
        if not self.causal:
            return self.batch * self.heads * (n * n if w == n else n * (2 * w + 1) - w * (w + 1))
        return self.batch * self.heads * (n * (w + 1) - w * (w + 1) // 2 if w < n else n * (n + 1) // 2)


def softmax_flops(sizes: Sizes) -> int:
    """Two products, and four operations for each weight."""
    return sizes.pairs * (2 * sizes.head_dim + 2 * sizes.value_dim + 4)


def discounted_flops(sizes: Sizes) -> int:
    """Those, the distance and its product."""
    return softmax_flops(sizes) + 2 * sizes.pairs


def gravitational_flops(sizes: Sizes) -> int:
    """A sum of squared differences, a product with the values, and eight operations for each weight."""
    return sizes.pairs * (3 * sizes.head_dim + 2 * sizes.value_dim + 8)


def discounted_gravitational_flops(sizes: Sizes) -> int:
    """Those, the distance and its product."""
    return gravitational_flops(sizes) + 2 * sizes.pairs


def residual_linear_flops(sizes: Sizes) -> int:
    """Per head and token: phi, and 2 F Dv for the product with the state or for the addition to it."""
    per_head = 3 * sizes.features + 2 * sizes.features * sizes.value_dim
    return sizes.batch * sizes.length * (sizes.heads + sizes.kv_heads) * per_head


def rattention_flops(sizes: Sizes) -> int:
    """Both branches, the rotation of queries and keys, two norms and their sum."""
    rotations = 3 * (sizes.heads + sizes.kv_heads) * sizes.head_dim
    norms = sizes.heads * (2 * (4 * sizes.value_dim + 2) + sizes.value_dim)
    branches = softmax_flops(replace(sizes, causal=True)) + residual_linear_flops(sizes)
    return branches + sizes.batch * sizes.length * (rotations + norms)
