"""Decoding steps on tensors, which go on in a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rattention as ra
from rattention.torch.checks import (
    as_array,
    as_tensor,
    require_floats,
    require_mask_dtypes,
    require_tensors,
)
from rattention.torch.short_calls import step_at_once

if TYPE_CHECKING:
    from torch import Tensor

    from rattention.mechanisms.gated_delta_cache import GatedDeltaCache
    from rattention.mechanisms.rattention_cache import RAttentionCache


DELTA_INPUTS = ("query", "key", "value", "log_gate", "beta")
"""Of the delta rule; of gated linear attention all but the last."""


def gated_delta_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_gate: Tensor,
    beta: Tensor,
    cache: GatedDeltaCache,
    *,
    scale: float | None = None,
    normalize: bool = False,
    key_mask: Tensor | None = None,
) -> Tensor:
    """The rows of `gated_delta_rule` for the next tokens, on tensors: `rattention.gated_delta_step`.

    Parameters
    ----------
    query, key, value, log_gate, beta, scale, normalize:
        CPU tensors as in `gated_delta_rule`, of the new tokens.
    cache, key_mask:
        As in `rattention.gated_delta_step`.

    Returns
    -------
    ``[batch, heads, tokens, value_dim]``, without gradients.

    Raises
    ------
    ValueError, TypeError
        As `rattention.gated_delta_step`; tensors that are not dense or not on the CPU.
    """
    tensors = query, key, value, log_gate
    if key_mask is None and beta is not None:
        output = step_at_once(tensors, beta, cache, scale, normalize)
        if output is not None:
            return output
    arrays = _on_arrays(_named((*tensors, beta), key_mask), DELTA_INPUTS, needed=DELTA_INPUTS)
    return as_tensor(ra.gated_delta_step(**arrays, cache=cache, scale=scale, normalize=normalize))


def gated_linear_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_gate: Tensor,
    cache: GatedDeltaCache,
    *,
    scale: float | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """The rows of `gated_linear_attention` for the next tokens, on tensors: `rattention.gated_linear_step`.

    Parameters
    ----------
    query, key, value, log_gate, scale:
        CPU tensors as in `gated_linear_attention`, of the new tokens; no window and no feature map.
    cache, key_mask:
        As in `rattention.gated_linear_step`.

    Returns
    -------
    ``[batch, heads, tokens, value_dim]``, without gradients.

    Raises
    ------
    ValueError, TypeError
        As `rattention.gated_linear_step`; tensors that are not dense or not on the CPU.
    """
    tensors = query, key, value, log_gate
    if key_mask is None:
        output = step_at_once(tensors, None, cache, scale, normalize=False)
        if output is not None:
            return output
    names = DELTA_INPUTS[:4]
    arrays = _on_arrays(_named(tensors, key_mask), names, needed=names)
    return as_tensor(ra.gated_linear_step(**arrays, cache=cache, scale=scale))


def _named(tensors: tuple[Tensor, ...], key_mask: Tensor | None) -> dict[str, Tensor | None]:
    named: dict[str, Tensor | None] = dict(zip(DELTA_INPUTS, tensors, strict=False))
    return named | {"key_mask": key_mask}


def rattention_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: RAttentionCache,
    *,
    scale: float | None = None,
    local_norm_weight: Tensor | None = None,
    linear_norm_weight: Tensor | None = None,
    eps: float | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The rows of `rattention` for the next tokens, on tensors: `rattention.rattention_step`.

    Parameters
    ----------
    query, key, value:
        CPU tensors in the dtype of the cache, ``[batch, heads, tokens, head_dim]``, ``[batch, kv_heads,
        tokens, head_dim]`` and ``[batch, kv_heads, tokens, value_dim]``.
    cache, scale, local_norm_weight, linear_norm_weight, eps, lengths:
        As in `rattention.rattention_step`.

    Returns
    -------
    ``[batch, heads, tokens, value_dim]``, without gradients.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As `rattention.rattention_step`; tensors that are not dense or not on the CPU.
    """
    weights = {"local_norm_weight": local_norm_weight, "linear_norm_weight": linear_norm_weight}
    tensors: dict[str, Tensor | None] = {"query": query, "key": key, "value": value, **weights}
    arrays = _on_arrays(tensors | {"lengths": lengths}, tuple(tensors), needed=("query", "key", "value"))
    return as_tensor(ra.rattention_step(**arrays, cache=cache, scale=scale, eps=eps))


def _on_arrays(
    tensors: dict[str, Tensor | None], floats: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, Any]:
    """The tensors' memory by name, after the checks that the functions on arrays cannot make."""
    require_tensors(tensors, tensors, needed)
    require_floats(tensors, floats)
    require_mask_dtypes(tensors)
    query = tensors["query"]
    assert query is not None
    if query.device.type != "cpu":
        raise ValueError(f"query must be on the CPU, got {query.device}: the cache is there")
    return {name: None if tensor is None else as_array(tensor) for name, tensor in tensors.items()}
