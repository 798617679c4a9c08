"""Softmax attention as models of Transformers call it: the implementation ``"rattention"``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

import rattention.torch as rt
from rattention.hf.masks import SEGMENT_DTYPE, rattention_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from rattention.mechanisms.masks import Window

NAME = "rattention"
"""Of the implementation: ``attn_implementation="rattention"``."""

REFUSED = {
    "softcap": "capped scores (attn_logit_softcapping)",
    "position_bias": "a learned position bias",
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "indices": "sparse attention to chosen keys",
    "block_indices": "sparse attention to chosen blocks",
    "cache": "a paged cache",
}
"""Arguments of models that the kernels do not support; to ignore them would change results."""


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


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """What `AttentionInterface` calls: `rattention.torch.attention` of a model's tensors.

    Parameters
    ----------
    module:
        The attention module; its attribute ``is_causal`` applies where the argument of that name is None.
    query:
        ``[batch, heads, query_length, head_dim]``; the last row stands on the last key there is.
    key, value:
        ``[batch, kv_heads, key_length, head_dim]``.
    attention_mask:
        Of `rattention_mask`, or 4-D as a user gives it: then it alone says what is seen, as with the
        implementation "eager".
    arguments:
        ``scaling``, the factor on the scores; ``is_causal``; ``sliding_window=W``: a row sees W keys on each
        side, its own among them; ``dropout`` of the weights, which must be 0.

    Returns
    -------
    The output ``[batch, query_length, heads, head_dim]``, and None in place of the attention map.

    Raises
    ------
    ValueError
        The model asks for something that the kernels do not support; the message names it.
    """
    options = kernel_options(module, attention_mask, **arguments)
    key, value = known_keys(attention_mask, key, value)
    output: torch.Tensor = rt.attention(query, key, value, **options)
    return output.transpose(1, 2).contiguous(), None


def kernel_options(
    module: torch.nn.Module,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Masks and scale of `rattention.torch.attention` for the arguments of `attention_forward`."""
    refuse(dropout, others)
    if attention_mask is not None and attention_mask.dim() == 4:
        return {"scale": scaling, "attn_mask": attention_mask}
    causal = attends_causally(module, is_causal)
    window = _window(sliding_window, causal)
    return {"scale": scaling, "causal": causal, "window": window, **key_masks(attention_mask)}


def known_keys(mask: torch.Tensor | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Keys or values without those beyond a mask of keys, where a cache has room for later tokens."""
    if mask is None or mask.dim() == 4:
        return tensors
    return tuple(tensor[:, :, : mask.shape[1]] for tensor in tensors)


def attends_causally(module: torch.nn.Module, is_causal: bool | None) -> bool:
    """The argument where it is given, else what the module says."""
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def refuse(dropout: float, others: dict[str, Any]) -> None:
    """Raise ValueError where a model asks for something that the kernels do not support."""
    if others.get("output_attentions"):
        raise ValueError(
            f'attention implementation "{NAME}" stores no attention maps (output_attentions=True); '
            'rattention.observe measures them, attn_implementation="eager" stores them'
        )
    if dropout > 0:
        raise ValueError(
            f'attention implementation "{NAME}" has no dropout of attention weights, got dropout={dropout}: '
            "set it to 0 in the model's config (attention_dropout, attention_probs_dropout_prob, attn_pdrop)"
        )
    for name, meaning in REFUSED.items():
        if others.get(name) is not None:
            raise ValueError(
                f'attention implementation "{NAME}" does not have {meaning}, which the model asks for by '
                f'{name}; use attn_implementation="eager"'
            )


def key_masks(mask: torch.Tensor | None) -> dict[str, Any]:
    """A mask of `rattention_mask` as arguments of the kernels."""
    if mask is None:
        return {}
    if mask.dim() != 2:
        raise ValueError(
            f"attention_mask must be [batch, keys] or [batch, 1 or heads, queries, keys], got shape "
            f"{tuple(mask.shape)}"
        )
    if mask.dtype == SEGMENT_DTYPE:
        return {"segment_ids": mask}
    return {"key_mask": mask.to(torch.bool)}


def _window(sliding_window: int | None, causal: bool) -> Window:
    """The keys before the row, and after it: Transformers counts the row's own key as well."""
    if sliding_window is None:
        return None
    return sliding_window - 1, 0 if causal else sliding_window - 1
