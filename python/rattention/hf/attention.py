"""Softmax attention as models of Transformers call it: the implementation ``"rattention"``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.utils.output_capturing import _active_collector

import rattention.torch as rt
from rattention.hf.interface import guard
from rattention.hf.linear_layers import follow_implementation
from rattention.hf.masks import SEES_ALL, PatternMask, rattention_mask
from rattention.torch.short_calls import dot_product_at_once

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "rattention"
"""Of the implementation: ``attn_implementation="rattention"``."""

REFUSED = {
    "indices": "sparse attention to chosen keys",
    "block_indices": "sparse attention to chosen blocks",
    "cache": "a paged cache",
}
"""Arguments of models that the kernels do not support; to ignore them would change results."""
SPECIAL = ("softcap", "s_aux", "sinks", "position_bias", *REFUSED)
"""Arguments that change results where they are given."""


def register(*, linear_layers: bool = False) -> None:
    """Make ``attn_implementation="rattention"`` known to Transformers; calling it again does no harm.

    What a row sees is what its model's mask says, as with "eager". Causality, sliding windows, chunks, packed
    sequences (position ids that restart) and padding on either side reach the kernels as such: nothing grows
    with the square of the length. Other patterns, such as images that see both sides, become one bool table
    for all layers, as do 4-D masks given by the user, and all masks within ``torch.compile``. Capped scores,
    attention sinks and position biases are exact and have gradients. Paged caches, sparse attention to chosen
    keys and, in training, dropout of attention weights raise ValueError; so do models that take attention
    from the interface in none of their layers, when they are made or loaded with this implementation.

    Parameters
    ----------
    linear_layers:
        Whether models that are made or loaded from now on have their linear layers computed here, too, while
        they have this implementation; `use_linear_kernels` does so for one model, whatever its attention has.

    Examples
    --------
    >>> import rattention.hf
    >>> rattention.hf.register()
    >>> from transformers import AttentionInterface
    >>> "rattention" in AttentionInterface().valid_keys()
    True
    """
    register_as(NAME, attention_forward)
    guard(NAME)
    if linear_layers:
        follow_implementation(NAME)


def register_as(name: str, forward: Callable[..., Any]) -> None:
    """Make `forward` known under `name`, with masks of `rattention_mask`."""
    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, rattention_mask)


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    attend: Callable[..., Any] = rt.attention,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """What `AttentionInterface` calls: `rattention.torch.attention` of a model's tensors.

    Parameters
    ----------
    module:
        The attention module; errors name it.
    query:
        ``[batch, heads, query_length, head_dim]``.
    key, value:
        ``[batch, kv_heads, key_length, head_dim]``.
    attention_mask:
        Of `rattention_mask`, or 4-D, bool (True = attend) or added to the scores. It alone says what is seen,
        as with the implementation "eager"; None: everything.
    attend:
        What is called in place of `rattention.torch.attention`, with its arguments.
    arguments:
        ``scaling``, the factor on the scores; ``softcap``, their bound; ``s_aux`` or ``sinks``, one number
        per head; ``position_bias``, added to the scores as a 4-D mask is; ``dropout`` of the weights, which
        must be 0. What says again what the mask holds (``is_causal``, ``sliding_window``) is not read.

    Returns
    -------
    The output ``[batch, query_length, heads, head_dim]``, and None in place of the attention map.

    Raises
    ------
    ValueError
        The model asks for something that the kernels do not support; the message names it.
    """
    if attend is rt.attention:
        row = _row_at_once(query, key, value, attention_mask, arguments)
        if row is not None:
            return row, None
    if isinstance(attention_mask, PatternMask) and not attention_mask.fits(query, key):
        attention_mask = attention_mask.visible()  # which fits by broadcasting, or is refused
    options = kernel_options(module, attention_mask, **arguments)
    key, value = known_keys(attention_mask, key, value)
    output: torch.Tensor = attend(query, key, value, **options)
    return output.transpose(1, 2).contiguous(), None


def _row_at_once(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    arguments: dict[str, Any],
) -> torch.Tensor | None:
    """The output for one row that sees every key, with nothing else to see to: a step of generation, of which
    Python is most. None where it is another call."""
    if type(mask) is not PatternMask or mask.pattern is not SEES_ALL or mask.shape[3] != key.shape[2]:
        return None
    if query.shape[2] != 1 or query.shape[0] != mask.shape[0]:
        return None
    if arguments.get("dropout") or arguments.get("output_attentions") or maps_are_collected():
        return None
    if any(arguments.get(name) is not None for name in SPECIAL):
        return None
    output = dot_product_at_once(query, key, value, scale=arguments.get("scaling"))
    return None if output is None else output.transpose(1, 2).contiguous()


def kernel_options(
    module: torch.nn.Module,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Options of `rattention.torch.attention` for the arguments of `attention_forward`."""
    refuse(module, dropout, others)
    options = {"scale": scaling, "causal": False, "window": None, **_masks(module, attention_mask)}
    if softcap is not None:
        options["softcap"] = softcap
    if s_aux is not None or sinks is not None:
        options["sinks"] = _per_head(module, s_aux if sinks is None else sinks)
    if position_bias is not None:
        if position_bias.dim() != 4:
            raise ValueError(
                f"position_bias of {type(module).__name__} must be [batch or 1, heads, queries, keys], got "
                f"shape {tuple(position_bias.shape)}"
            )
        options["attn_mask"] = _biased(options.get("attn_mask"), position_bias, attention_mask)
    return options


def _per_head(module: torch.nn.Module, sinks: Any) -> torch.Tensor:
    if isinstance(sinks, torch.Tensor) and sinks.dim() == 1:
        return sinks
    raise ValueError(
        f'attention implementation "{NAME}" in {type(module).__name__} has attention sinks of one number per '
        f'head, got shape {tuple(getattr(sinks, "shape", ()))}; use attn_implementation="eager"'
    )


def _biased(table: torch.Tensor | None, bias: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """A bias of scores in one table with a mask that no pattern says."""
    (bias,) = known_keys(mask, bias.mT)
    bias = bias.mT
    if table is None:
        return bias
    if table.dtype == torch.bool:
        return bias.masked_fill(~table, -torch.inf)
    return bias + table


def known_keys(mask: torch.Tensor | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Keys or values without those beyond the pattern of a mask, where a cache has room for later tokens."""
    if not isinstance(mask, PatternMask) or mask.pattern is None or mask.keys in (None, tensors[0].shape[2]):
        return tensors
    return tuple(tensor[:, :, : mask.keys] for tensor in tensors)


def attends_causally(module: torch.nn.Module) -> bool:
    """What a module says of itself; in a forward pass its mask decides."""
    return bool(getattr(module, "is_causal", True))


def maps_are_collected() -> bool:
    """Whether a model collects what its attention modules return as maps, of which it tells them nothing:
    what GPT-2 and others do with ``output_attentions=True``. Not seen while a model is compiled."""
    if torch.compiler.is_compiling():
        return False
    collected: Any = _active_collector.context_var.get()
    return bool(collected) and any(name.endswith("attentions") for name in collected)


def refuse(module: torch.nn.Module, dropout: float, others: dict[str, Any]) -> None:
    """Raise ValueError where a model asks for something that the kernels do not support."""
    what = None
    if others.get("output_attentions") or maps_are_collected():
        what = (
            "stores no attention maps (output_attentions=True); rattention.observe measures them, "
            'attn_implementation="eager" stores them'
        )
    elif dropout > 0:
        what = (
            f"has no dropout of attention weights, got dropout={dropout}: set it to 0 in the model's config "
            "(attention_dropout, attention_probs_dropout_prob, attn_pdrop)"
        )
    elif asked := next((name for name in REFUSED if others.get(name) is not None), None):
        what = (
            f"does not have {REFUSED[asked]}, which the model asks for by {asked}; use "
            'attn_implementation="eager"'
        )
    if what is not None:
        raise ValueError(f'attention implementation "{NAME}" in {type(module).__name__} {what}')


def _masks(module: torch.nn.Module, mask: torch.Tensor | None) -> dict[str, Any]:
    """A mask as arguments of the kernels."""
    if mask is None:
        return {}
    if isinstance(mask, PatternMask):
        return mask.attention_options()
    kind = f"attention_mask of {type(module).__name__}"
    if mask.dim() != 4 or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError(
            f"{kind} must be [batch, 1 or heads, queries, keys], bool or floating, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}: no other kind is expected here from a model that follows Transformers' "
            'AttentionInterface; use attn_implementation="eager"'
        )
    return {"attn_mask": mask}
