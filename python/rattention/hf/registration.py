"""Registration of the implementation with Transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AttentionInterface, AttentionMaskInterface

from rattention.hf.attention import NAME, attention_forward
from rattention.hf.masks import rattention_mask

if TYPE_CHECKING:
    from collections.abc import Callable


def register() -> None:
    """Make ``attn_implementation="rattention"`` known to Transformers; calling it again does no harm.

    Supported are causality, sliding windows, scaling, grouped key/value heads, padding on either side, packed
    sequences (position ids that restart), cached decoding and 4-D masks given by the user. Masks that models
    make have one number per key, so that nothing grows with the square of the length. Capped scores, sinks,
    position biases, paged caches, other mask patterns and, in training, dropout of attention weights raise
    ValueError.

    >>> import rattention.hf
    >>> rattention.hf.register()
    >>> from transformers import AttentionInterface
    >>> "rattention" in AttentionInterface().valid_keys()
    True
    """
    register_as(NAME, attention_forward)


def register_as(name: str, forward: Callable[..., Any]) -> None:
    """Make `forward` known under `name`, with masks of one number per key."""
    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, rattention_mask)
