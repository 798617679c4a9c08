"""How many rows may see each key, by whatever hides keys."""

from __future__ import annotations

import numpy as np
import pytest
from rattention.explorer.received import rows_that_see
from rattention.inspect import LayerAttention
from rattention.mechanisms.masks import Masks, reference_visible

MASKS = {
    "none": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": 5},
    "padding": {"key_mask": np.arange(33)[None] % 3 > 0},
    "segments": {"segment_ids": np.arange(33)[None] // 7},
    "packed": {"causal": True, "cu_seqlens": np.array([0, 5, 20, 33])},
    "blocks": {"causal": True, "block_ids": np.where(np.arange(33) < 9, 0, -1)[None]},
    "dense": {"attn_mask": np.tri(33, k=-2, dtype=bool)},
    "added": {"attn_mask": np.where(np.tri(33, k=3), np.float32(-2), np.float32(-np.inf))[None, None]},
}


@pytest.mark.parametrize("name", MASKS)
def test_rows_that_see(name):
    x = np.random.default_rng(0).standard_normal((1, 2, 33, 4)).astype(np.float32)
    counts = rows_that_see(LayerAttention(0, "layer", x, x, MASKS[name]))
    visible = reference_visible(Masks(**MASKS[name]), 1, 2, 33, 33)[0][0, 0]
    np.testing.assert_allclose(counts, visible.sum(axis=0), rtol=1e-6)
