"""What tensors must be, in PyTorch's terms, and tensors as arrays; the core checks shapes and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from rattention._arguments import BFloat16Storage
from rattention.mechanisms.masks import packed_segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from rattention.mechanisms.row import Functions

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
ALLOWED = "float32, bfloat16, float16"
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def require_tensors(arguments: Mapping[str, Any], names: Iterable[str], needed: Sequence[str] = ()) -> None:
    """Refuse anything but dense tensors on one device, and None for what is `needed`."""
    device = None
    for name in names:
        value = arguments[name]
        if value is None and name not in needed:
            continue
        if not isinstance(value, Tensor):
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
    """Refuse tensors of unsupported dtypes."""
    for name in names:
        value = arguments[name]
        if isinstance(value, Tensor) and value.dtype not in FLOATS:
            cast = "" if value.dtype == torch.bool or value.is_complex() else f"write {name}.float(): "
            raise TypeError(f"{cast}{name} has dtype {value.dtype}; allowed are {ALLOWED}")


def require_one_dtype(arguments: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse different precisions: an implicit cast would hide where precision is lost."""
    dtypes = {name: arguments[name].dtype for name in names}
    if len(set(dtypes.values())) > 1:
        listing = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"all inputs must have the same dtype: {listing} (torch.autocast casts them to one)")


def require_mask_dtypes(arguments: Mapping[str, Any]) -> None:
    """Refuse masks of another kind of numbers."""
    padding, dense = arguments.get("key_mask"), arguments.get("attn_mask")
    if padding is not None and padding.dtype != torch.bool:
        raise TypeError(f"key_mask must be a bool tensor (True = attend), got {padding.dtype}")
    for name in ("segment_ids", "block_ids", "cu_seqlens"):
        ids = arguments.get(name)
        if ids is not None and ids.dtype not in INTEGERS:
            raise TypeError(f"{name} must be a tensor of integers, got {ids.dtype}")
    if dense is None:
        return
    if dense.dtype != torch.bool and dense.dtype not in FLOATS:
        cast = "write attn_mask.float(): " if dense.dtype == torch.float64 else ""
        raise TypeError(f"{cast}attn_mask must be bool or one of {ALLOWED}, got {dense.dtype}")


def require_shapes(query: Tensor, key: Tensor, value: Tensor | None) -> None:
    """The core's shape checks of query, key and value, for calls that bypass the core."""
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


def features(query: Tensor, feature_map: str | None) -> int:
    """Elements of phi(query) in the linear family."""
    return query.shape[3] if feature_map is None else 2 * query.shape[3]


def require_other_shapes(functions: Functions, inputs: Mapping[str, Any]) -> None:
    """The core's shape checks of all other tensors, once query, key and value fit each other."""
    query, key, value = (inputs[name] for name in ("query", "key", "value"))
    batch, heads, rows, dim = query.shape
    kv_heads, keys = key.shape[1:3]
    sizes = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "query_length": rows, "key_length": keys}
    sizes |= {"length": keys, "head_dim": dim, "features": 2 * dim, "value_dim": value.shape[3]}
    table = inputs.get("relative_bias")
    sizes["distances"] = 1 if table is None else table.shape[-1] | 1
    for argument in functions.arguments:
        if argument.shape and argument.name not in ("query", "key", "value"):
            own = dict(sizes)
            if argument.name == "initial_state":
                own["head_dim"] = features(query, inputs.get("feature_map"))
            expected = [tuple(own[name] for name in argument.shape)]
            if argument.name in ("key_mass", "initial_state"):
                own["kv_heads"] = heads
                expected.append(tuple(own[name] for name in argument.shape))
            if argument.name == "log_gate":
                per_head = (batch, own[argument.shape[1]], keys)
                expected = [per_head, (*per_head, dim)]
            _require_shape(argument.name, inputs[argument.name], *expected)
    for name in ("key_mask", "segment_ids", "block_ids"):
        _require_shape(name, inputs.get(name), (batch, keys))
    if inputs.get("cu_seqlens") is not None:
        packed_segments(as_array(inputs["cu_seqlens"].cpu()), batch, keys)
    if inputs.get("attn_mask") is not None:
        _require_broadcast("attn_mask", inputs["attn_mask"], (batch, heads, rows, keys))
    offset = keys - rows if inputs.get("query_offset") is None else inputs["query_offset"]
    if inputs["segment_ids"] is not None and rows > 0 and not 0 <= offset <= keys - rows:
        raise ValueError(
            f"segment_ids covers key positions 0 to {keys - 1}, but the query rows have positions "
            f"{offset} to {offset + rows - 1}; every query row needs a segment id"
        )


def _require_shape(name: str, tensor: Tensor | None, *allowed: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) not in allowed:
        listing = " or ".join(str(shape) for shape in dict.fromkeys(allowed))
        raise ValueError(f"{name} must have shape {listing}, got {tuple(tensor.shape)}")


def _require_broadcast(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    own = (1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape)
    if len(own) > len(shape) or any(a not in (1, b) for a, b in zip(own, shape, strict=True)):
        raise ValueError(f"{name} must be broadcastable to {shape}, got shape {tuple(tensor.shape)}")


def require_no_tangents(name: str, tensors: Iterable[Any]) -> None:
    """Refuse tensors in forward-mode differentiation: operations of others drop tangents without a word."""
    if forward_ad._current_level < 0:
        return
    unpack: Any = forward_ad.unpack_dual
    if any(isinstance(x, Tensor) and unpack(x).tangent is not None for x in tensors):
        raise NotImplementedError(
            f"rattention.torch.{name} has no forward-mode derivatives (torch.func.jvp, jacfwd, "
            "torch.autograd.forward_ad); torch.autograd and torch.func.vmap work"
        )


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The CPU tensor's memory, not copied, whatever its strides; bfloat16 as its storage."""
    plain = tensor.detach().resolve_neg()
    if torch._C._functorch.is_functorch_wrapped_tensor(plain):
        raise NotImplementedError(
            "a tensor inside a transform of torch.func (vmap, grad, jvp) has no memory to read: call this "
            "function outside, on plain tensors"
        )
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.uint16).numpy().view(BFloat16Storage)
    return plain.numpy()


def as_tensor(array: NDArray[Any]) -> Tensor:
    """The array's memory as a tensor; uint16, in which the core returns bfloat16, as that."""
    tensor: Tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
