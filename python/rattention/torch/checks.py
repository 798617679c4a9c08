"""What tensors must be, told in PyTorch's terms; the core checks shapes and values itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
ALLOWED = "float32, bfloat16, float16"
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def require_tensors(arguments: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse anything but dense tensors on one device."""
    device = None
    for name in names:
        value = arguments[name]
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        if value.layout != torch.strided:
            raise TypeError(f"{name} must be a dense (strided) tensor, got layout {value.layout}")
        if device is None:
            first, device = name, value.device
        elif value.device != device:
            raise ValueError(
                f"all tensors must be on one device: {first} is on {device}, {name} on {value.device}"
            )


def require_floats(arguments: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse tensors of a dtype that is not computed with."""
    for name in names:
        value = arguments[name]
        if isinstance(value, torch.Tensor) and value.dtype not in FLOATS:
            raise TypeError(
                f"{name} has dtype {value.dtype}; allowed are {ALLOWED} (cast with {name}.float())"
            )


def require_one_dtype(arguments: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse different precisions: an implicit cast would hide where precision is lost."""
    dtypes = {name: arguments[name].dtype for name in names}
    if len(set(dtypes.values())) > 1:
        listing = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"all inputs must have the same dtype: {listing} (torch.autocast casts them to one)")


def require_mask_dtypes(arguments: Mapping[str, Any]) -> None:
    """Refuse masks of another kind of numbers, and dense masks that ask for a gradient."""
    padding, segments, dense = (
        arguments.get(name) for name in ("key_padding_mask", "segment_ids", "attn_mask")
    )
    if padding is not None and padding.dtype != torch.bool:
        raise TypeError(f"key_padding_mask must be a bool tensor (True = attend), got {padding.dtype}")
    if segments is not None and segments.dtype not in INTEGERS:
        raise TypeError(f"segment_ids must be a tensor of integers, got {segments.dtype}")
    if dense is None:
        return
    if dense.dtype != torch.bool and dense.dtype not in FLOATS:
        raise TypeError(f"attn_mask must be bool or one of {ALLOWED}, got {dense.dtype}")
    if dense.requires_grad and torch.is_grad_enabled():
        raise ValueError("attn_mask is not differentiable: give attn_mask.detach()")


def require_shapes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor | None) -> None:
    """What the core asks of its three main inputs, for where it is not called."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor is not None and tensor.dim() != 4:
            raise ValueError(
                f"{name} must have 4 dimensions, got {tensor.dim()} (shape {tuple(tensor.shape)})"
            )
    for name, at in (("batch", 0), ("head_dim", 3)):
        if query.shape[at] != key.shape[at]:
            raise ValueError(
                f"key has {name} {key.shape[at]}, query has {query.shape[at]}; they must be equal"
            )
    heads, kv_heads = query.shape[1], key.shape[1]
    if heads != kv_heads and (kv_heads == 0 or heads % kv_heads != 0):
        raise ValueError(f"key has {kv_heads} heads, which must divide the {heads} heads of query")
    if value is not None and value.shape[:3] != key.shape[:3]:
        raise ValueError(
            f"value has shape {tuple(value.shape)}, key has {tuple(key.shape)}; batch, heads and length must "
            "be equal"
        )
