"""How many tokens may be kept: a count, or a share of those there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Budget = int | float
"""An int is a count of tokens, a float in (0, 1] a share."""


def require_budget(budget: Any) -> Budget:
    """The budget, if it is one.

    Raises
    ------
    TypeError
        Neither an int nor a float; bool is neither.
    ValueError
        A count below 1, or a share outside (0, 1]; NaN is outside.
    """
    if isinstance(budget, bool | np.bool_) or not isinstance(budget, int | float | np.integer | np.floating):
        raise TypeError(f"budget must be an int (tokens) or a float (a share in (0, 1]), got {budget!r}")
    if isinstance(budget, int | np.integer):
        if budget < 1:
            raise ValueError(f"budget must keep at least 1 token, got {budget}")
        return int(budget)
    if not 0 < budget <= 1:
        raise ValueError(
            f"budget must be a share in (0, 1], or an int for a count of tokens, got {float(budget)!r}"
        )
    return float(budget)


def resolve_budget(budget: Any, length: int) -> int:
    """How many of `length` tokens `budget` keeps; ValueError for a count above `length`.

    Shares are rounded down, but at least one token stays.

    >>> resolve_budget(0.5, 9), resolve_budget(9, 9)
    (4, 9)
    """
    if require_budget(budget) > max(length, 1):
        raise ValueError(f"budget must be at most the {length} tokens there are, got {budget}")
    return most_kept(budget, length)


def most_kept(budget: Any, length: int) -> int:
    """`resolve_budget` where tokens are still to come: a count above `length` keeps them all."""
    allowed = require_budget(budget)
    if isinstance(allowed, int):
        return min(allowed, length)
    share = math.floor(round(allowed * length, 6))  # 0.29 * 100 is 28.999999999999996
    return min(max(1, share), length)
