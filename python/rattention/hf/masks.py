"""Masks of Transformers as one number per key: padding or segments, never a table of queries by keys.

Causality and window reach the attention through their own arguments, as with the flash implementations; this
module makes sure that a mask holds nothing else.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = "transformers.masking_utils"
CAUSAL = "causal_mask_function"
PACKED = "packed_sequence_mask_function.<locals>.inner_mask"
EXPRESSED = {
    CAUSAL,
    PACKED,
    "bidirectional_mask_function",
    "sliding_window_overlay.<locals>.inner_mask",
    "sliding_window_bidirectional_overlay.<locals>.inner_mask",
}
"""Patterns that causality, a window and segments express."""

CONJUNCTION = "and_masks.<locals>.and_mask"
REMAPPED = "remap_positions_for_packed_sequence.<locals>.inner_mask"
"""Positions within a segment increase by one: distances are those of the rows."""

SEGMENT_DTYPE = torch.int32
"""Distinguishes segment ids from padding, which is bool."""


def rattention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable[..., Any],
    attention_mask: torch.Tensor | None = None,
    device: torch.device | str | None = None,
    **others: Any,
) -> torch.Tensor | None:
    """What `AttentionMaskInterface` calls: a mask of the keys, or None where all may be seen.

    Parameters
    ----------
    batch_size, q_length, kv_length:
        Sizes of queries and keys.
    q_offset, kv_offset:
        Positions of the first query and of the first key.
    mask_function:
        The pattern, as Transformers composes it.
    attention_mask:
        Bool ``[batch, positions]`` from position 0 on, True = attend.
    device:
        Of the mask that is made where none is given.
    others:
        Arguments for other implementations.

    Returns
    -------
    Bool ``[batch, keys]``, True = attend; or int32 segment ids of that shape for packed sequences; or None.
    ``keys`` is less than `kv_length` where a cache of fixed size has room for later tokens.

    Raises
    ------
    ValueError
        A pattern that is not made of causality, windows, packing and padding.
    """
    patterns = dict(_patterns(mask_function))
    if PACKED in patterns:
        segments: torch.Tensor = patterns[PACKED]["packed_sequence_mask"]
        return segments.to(SEGMENT_DTYPE)
    known = int(q_offset) + q_length - int(kv_offset)
    seen = min(kv_length, known) if CAUSAL in patterns else kv_length
    if attention_mask is None:
        return None if seen == kv_length else torch.ones((batch_size, seen), dtype=torch.bool, device=device)
    mask = _columns(attention_mask, int(kv_offset), seen)
    return None if seen == kv_length and bool(mask.all()) else mask


def _columns(mask: torch.Tensor, start: int, count: int) -> torch.Tensor:
    """`count` columns from `start` on; positions that the mask does not reach are hidden."""
    columns = mask[:, start : start + count].to(torch.bool)
    return torch.nn.functional.pad(columns, (0, count - columns.shape[1]))


def _patterns(function: Callable[..., Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and variables of each pattern that `function` is the conjunction of."""
    name = function.__qualname__
    if getattr(function, "__module__", None) != SOURCE:
        name = f"{function.__module__}.{name}"
    variables = dict(inspect.getclosurevars(function).nonlocals)
    if name == CONJUNCTION:
        for part in variables["mask_functions"]:
            yield from _patterns(part)
    elif name == REMAPPED:
        yield from _patterns(variables["mask_function"])
    elif name in EXPRESSED:
        yield name, variables
    else:
        raise ValueError(
            f'attention implementation "rattention" cannot express the mask pattern {name}; it has '
            'causality, sliding windows, packed sequences and padding. Use attn_implementation="sdpa"'
        )
