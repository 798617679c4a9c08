"""Every way to hide a key, one by one and in all combinations that make sense together."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.grids import covering
from tests.mechanisms import Sizes

CHOICES: dict[str, tuple[str, ...]] = {
    "reach": ("", "window", "pair"),
    "future": ("", "causal"),
    "images": ("", "blocks"),
    "batch": ("", "padding"),
    "parts": ("", "segments"),
    "dense": ("", "bool", "float"),
    "decay": ("", "discount"),
    "place": ("", "offset"),
}
"""At most one from every line."""

_ALL = ["+".join(filter(None, names)) or "none" for names in product(*CHOICES.values())]
_COVERING = covering([dict(zip(CHOICES, names, strict=True)) for names in product(*CHOICES.values())])
COMBINATIONS = [
    pytest.param(name, marks=[] if i in _COVERING else [pytest.mark.whole_grid])
    for i, name in enumerate(_ALL)
]
"""Any two of them together by default; all with --slow."""
SINGLES = [name for names in CHOICES.values() for name in names if name]


def mask_options(combination: str, sizes: Sizes, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments of `attention` for a combination such as ``"causal+padding"``."""
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {}
    for name in combination.split("+"):
        options |= _option(name, sizes.filled(), rng)
    return options


def _option(name: str, s: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    match name:
        case "none":
            return {}
        case "window":
            return {"window": max(1, s.keys // 5)}
        case "pair":
            return {"window": (max(1, s.keys // 3), s.keys // 9)}
        case "causal":
            return {"causal": True}
        case "padding":
            mask = rng.random((s.batch, s.keys)) < 0.8
            mask[0, -(s.keys // 4) :] = False
            return {"key_mask": mask}
        case "segments":
            return {"segment_ids": np.sort(rng.integers(0, 3, (s.batch, s.keys)), axis=1)}
        case "blocks":  # runs of one block and of none, as long as a vector or a tile has room for
            length = max(1, s.keys // 7)
            return {"block_ids": np.broadcast_to(np.arange(s.keys) // length % 3 - 1, (s.batch, s.keys))}
        case "bool":
            return {"attn_mask": rng.random((s.batch, 1, s.rows, s.keys)) < 0.7}
        case "float":
            mask = rng.standard_normal((1, s.heads, s.rows, s.keys), np.float32)
            mask[rng.random(mask.shape) < 0.2] = -np.inf
            return {"attn_mask": mask}
        case "discount":
            return {"log_discount": -rng.random(s.heads, np.float32) / s.keys}
        case "offset":  # away from the default, and every row still has the position of a key
            return {"query_offset": (s.keys - s.rows) // 2}
    raise ValueError(f"unknown mask {name!r}")
