"""`scaled_dot_product_attention`, as `torch.nn.functional` has it, on the kernels of this package."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch

from rattention._arguments import real_number, truth
from rattention.torch.checks import require_tensors
from rattention.torch.functional import attention

if TYPE_CHECKING:
    from torch import Tensor

    from rattention.mechanisms.masks import Window

Shape = Sequence[int]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    window: Window = None,
    key_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    log_discount: Tensor | float | None = None,
    query_offset: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | float | None = None,
    relative_bias: Tensor | None = None,
    block_ids: Tensor | None = None,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, with its arguments and semantics: one changed
    import moves a script here.

    Parameters
    ----------
    query, key, value:
        ``[..., heads, query_length, head_dim]``, ``[..., heads, key_length, head_dim]`` and ``[..., heads,
        key_length, value_dim]``, with any batch dimensions or none, which broadcast. Tensors of one dtype,
        float32, bfloat16 or float16; not float64.
    attn_mask:
        Bool (True = attend) or floating (added to the scores), broadcastable to ``[..., heads, query_length,
        key_length]``. Not together with `is_causal`.
    dropout_p:
        0: the weights are never stored, so none can be dropped.
    is_causal:
        Row i sees no key j > i, as in PyTorch, also where the lengths differ. (`attention` aligns its
        causal mask at the end: ``query_offset=key_length - query_length``.)
    scale:
        Factor on the scores, ``1 / sqrt(head_dim)`` by default.
    enable_gqa:
        Key and value may have fewer heads, whose number divides that of the query.
    window, log_discount, relative_bias:
        As in `attention`, by distance between positions.
    softcap, sinks:
        As in `attention`.
    key_mask, segment_ids, block_ids:
        As in `attention`, ``[..., key_length]`` with the batch dimensions of the query.
    query_offset:
        Position of the first query row among the keys; 0 under `is_causal`, else ``key_length -
        query_length``.

    Returns
    -------
    ``[..., heads, query_length, value_dim]``, differentiable in query, key, value, a float attn_mask,
    log_discount, sinks and relative_bias. A row that may attend to nothing gives 0.

    Raises
    ------
    ValueError
        Shapes or values that do not fit, dropout, or `attn_mask` together with `is_causal`.
    TypeError
        Another dtype, or objects that are no dense tensors.

    Examples
    --------
    >>> import torch
    >>> from rattention.torch import scaled_dot_product_attention
    >>> query, key, value = torch.randn(3, 2, 8, 100, 32)
    >>> scaled_dot_product_attention(query, key, value, is_causal=True, window=15).shape
    torch.Size([2, 8, 100, 32])
    """
    inputs = {"query": query, "key": key, "value": value}
    require_tensors(inputs, inputs, ("query", "key", "value"))
    if real_number("dropout_p", dropout_p) != 0:
        raise ValueError(
            f"dropout_p must be 0, got {dropout_p}: the weights are never stored, so none can be dropped"
        )
    causal = truth("is_causal", is_causal)
    if causal and attn_mask is not None:
        raise ValueError("attn_mask must be None where is_causal=True: fold causality into the mask")
    batch, *heads = _leading(query, key, value, truth("enable_gqa", enable_gqa))
    has_heads = bool(heads[0])
    output = attention(
        *(_as_four(tensor, batch, own) for tensor, own in zip((query, key, value), heads, strict=True)),
        causal=causal,
        window=window,
        scale=scale,
        key_mask=_flat("key_mask", key_mask, batch, 1),
        segment_ids=_flat("segment_ids", segment_ids, batch, 1),
        block_ids=_flat("block_ids", block_ids, batch, 1),
        attn_mask=_dense(attn_mask, batch, has_heads),
        log_discount=_discount(log_discount, batch, has_heads),
        query_offset=0 if causal and query_offset is None else query_offset,
        softcap=softcap,
        sinks=sinks,
        relative_bias=relative_bias,
    )
    return output.reshape(*batch, *heads[0], *output.shape[-2:])


def _leading(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> tuple[Shape, ...]:
    """The batch dimensions that all three broadcast to, and the heads of each: one number, or none where no
    tensor has more than three dimensions."""
    shapes = [tensor.shape[:-2] for tensor in (query, key, value)]
    if min(tensor.dim() for tensor in (query, key, value)) < 2:
        given = _given(query, key, value)
        raise ValueError(f"query, key and value must have at least 2 dimensions, got {given}")
    own_heads = grouped and all(shapes)
    batches = [s[:-1] for s in shapes] if own_heads else shapes
    shape = batches[0]
    try:
        if not batches[0] == batches[1] == batches[2]:  # the next line takes as long as a short call
            shape = torch.broadcast_shapes(*batches)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(
            "batch dimensions and heads of query, key and value must broadcast (fewer heads of key and value "
            f"need enable_gqa=True), got {_given(query, key, value)}"
        ) from error
    if own_heads:
        return shape, *(s[-1:] for s in shapes)
    return (shape[:-1], *[shape[-1:]] * 3) if len(shape) > 1 else (shape, (), (), ())


def _as_four(tensor: Tensor, batch: Shape, heads: Shape) -> Tensor:
    """``[batch, heads, length, dim]``, with one head where there are none."""
    if tensor.dim() == 4 and tensor.shape[:2] == (*batch, *heads):
        return tensor
    whole = tensor.expand(*batch, *heads, *tensor.shape[-2:])
    return whole.reshape(prod(batch), *(heads or (1,)), *tensor.shape[-2:])


def _flat(name: str, tensor: Tensor | None, batch: Shape, trailing: int) -> Tensor | None:
    """With all batch dimensions in one, before `trailing` others."""
    if tensor is None:
        return None
    require_tensors({name: tensor}, (name,))
    try:
        whole = tensor.expand(*batch, *tensor.shape[tensor.dim() - trailing :])
    except RuntimeError as error:
        raise ValueError(
            f"{name} must have the batch dimensions {tuple(batch)} or some that broadcast, got shape "
            f"{tuple(tensor.shape)}"
        ) from error
    return whole.reshape(prod(batch), *whole.shape[len(batch) :])


def _dense(mask: Tensor | None, batch: Shape, has_heads: bool) -> Tensor | None:
    if mask is None:
        return None
    require_tensors({"attn_mask": mask}, ("attn_mask",))
    if mask.dim() < 3:
        return mask
    if not has_heads:
        mask = mask.unsqueeze(-3)
    return mask if mask.dim() < 4 else _flat("attn_mask", mask, batch, 3)


def _discount(value: Tensor | float | None, batch: Shape, has_heads: bool) -> Tensor | float | None:
    if not isinstance(value, torch.Tensor) or value.dim() < 2:
        return value
    return _flat("log_discount", value if has_heads else value.unsqueeze(-2), batch, 2)


def _given(*tensors: Tensor) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
