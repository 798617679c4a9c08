"""How far back a token's n-gram was seen last: what a window cuts off.

The n-gram of position t is ``tokens[t - order + 1 .. t]``; its last occurrence ends at the largest s < t
with the same n-gram. The row that predicts token t stands at t - 1 and sees, with a window w, the positions
from t - 1 - w on: s, the token that followed the same beginning, is in its window where t - s <= w + 1. So
the *reach* that is recorded is ``t - s - 1``, and s is outside the window where reach > w. That is the window
of one layer; several layers pass on what lies up to as many windows back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER = -1
"""The reach of a token whose n-gram has not occurred before in the sequence."""


def reaches(tokens: NDArray[np.integer], order: int) -> NDArray[np.int64]:
    """``[length]`` tokens to their reaches; `NEVER` also for the first ``order - 1``, which end no n-gram.

    >>> reaches(np.array([1, 2, 3, 1, 2, 3, 3]), order=2).tolist()
    [-1, -1, -1, -1, 2, 2, -1]
    """
    found = np.full(len(tokens), NEVER, np.int64)
    if len(tokens) <= order:
        return found
    grams = np.lib.stride_tricks.sliding_window_view(tokens, order)
    ids = np.unique(grams, axis=0, return_inverse=True)[1].reshape(-1)
    places = np.argsort(ids, kind="stable")
    same = ids[places[1:]] == ids[places[:-1]]
    later, earlier = places[1:][same], places[:-1][same]
    found[later + order - 1] = later - earlier - 1
    return found


def bounds_of(context: int, windows: tuple[int, ...] = ()) -> list[int]:
    """Upper bounds of the classes of reaches: powers of 2 from 4 on, and the windows, up to the context."""
    powers = [2**k for k in range(2, context.bit_length() + 1)]
    return sorted({min(bound, context) for bound in (*powers, *windows) if bound > 0})


def classes(reach: NDArray[np.int64], bounds: list[int]) -> NDArray[np.int64]:
    """The class of each reach: 0 for `NEVER`, then i for those up to ``bounds[i - 1]``."""
    found = 1 + np.searchsorted(bounds, reach, side="left")
    return np.where(reach == NEVER, 0, found)
