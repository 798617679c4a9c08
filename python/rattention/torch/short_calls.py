"""Short calls: attention of one row to a few hundred keys takes less time than PyTorch's dispatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

import rattention as ra
from rattention import _core
from rattention._arguments import real_number, truth
from rattention.mechanisms.gated_delta_cache import require_cache
from rattention.torch.checks import as_array, as_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.mechanisms.gated_delta_cache import GatedDeltaCache
    from rattention.torch.ops import Signature

PLAIN = (Tensor, torch.nn.Parameter)
STRIDED = torch.strided
EXCHANGE = getattr(Tensor, "__dlpack_c_exchange_api__", None)
"""PyTorch's functions by which the core reads tensors itself, since 2.10."""
DOT_PRODUCT = {"query", "key", "value", "causal", "window", "scale"}
"""The arguments of attention without terms in its scores and masks, if the window is None."""


def at_once(signature: Signature, given: dict[str, Any]) -> Tensor | None:
    """The output of a public function, where it alone is asked for and nobody looks: without the dispatcher
    and without checks of tensors beside those of arrays.

    None where that cannot be, and for arguments that fit no array, of which others speak in terms of tensors.
    """
    function = signature.functions.forward
    if function is ra.attention and _is_dot_product(given):
        return dot_product_at_once(**given)
    if any(given.get(flag) for flag in signature.results.flags):
        return None
    tensors = [given.get(name) for name in signature.of_query_dtype]
    others = (given.get(n) for n in signature.on_one_device if n not in signature.of_query_dtype)
    tensors += [value for value in others if not isinstance(value, int | float | None)]
    if not _nobody_looks(tensors):
        return None
    try:
        arrays = {n: as_array(value) if isinstance(value, Tensor) else value for n, value in given.items()}
        return as_tensor(function(**arrays))
    except (TypeError, ValueError, RuntimeError):
        return None


def dot_product_at_once(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool = False,
    scale: float | None = None,
    window: None = None,
) -> Tensor | None:
    """`at_once` for attention without terms in its scores and masks, whose tensors the core reads itself."""
    if EXCHANGE is None or not _nobody_looks((query, key, value)):
        return None
    try:
        number = None if scale is None else real_number("scale", scale)
        output = _core.attention_of_tensors(EXCHANGE, query, key, value, truth("causal", causal), number)
        return as_tensor(output)
    except (TypeError, ValueError, RuntimeError):
        return None


def step_at_once(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    beta: Tensor | None,
    cache: GatedDeltaCache,
    scale: float | None,
    normalize: bool,
) -> Tensor | None:
    """A step of the gated delta rule, of query, key, value and gates, or without a beta of gated linear
    attention. The core reads tensors itself that are dense and on the CPU; for others the result is None,
    before the state changes, as in `at_once`. A step has no gradients."""
    given = tensors if beta is None else (*tensors, beta)
    if EXCHANGE is None or not (_no_mode() and all(map(_is_itself, given))):
        return None
    try:
        require_cache(cache)
        number = None if scale is None else real_number("scale", scale)
        rule = cache.state, number, truth("normalize", normalize)
        output = as_tensor(_core.gated_delta_step_of_tensors(EXCHANGE, *tensors, beta, *rule))
    except (TypeError, ValueError, RuntimeError):
        return None
    cache.length += output.shape[2]
    return output


def _is_dot_product(given: dict[str, Any]) -> bool:
    return EXCHANGE is not None and given.keys() <= DOT_PRODUCT and given.get("window") is None


def _nobody_looks(tensors: Sequence[Any]) -> bool:
    """Whether a call may bypass PyTorch's dispatcher: for plain tensors on the CPU that need no gradients,
    outside compilers, transforms, autocast and modes that intercept operations."""
    return (
        _no_mode()
        and all(map(_is_plain, tensors))
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )


def _no_mode() -> bool:
    state = torch._C
    return not (
        torch.compiler.is_compiling()
        or state._get_tracing_state() is not None
        or state._len_torch_dispatch_stack()
        or state._is_torch_function_mode_enabled()
        or state._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or state._autograd._profiler_enabled()
        or torch.is_autocast_enabled("cpu")
    )


def _is_plain(tensor: Any) -> bool:
    return _is_itself(tensor) and tensor.is_cpu and tensor.layout is STRIDED


def _is_itself(tensor: Any) -> bool:
    """No subclass, nor a view that is negated when it is read."""
    return type(tensor) in PLAIN and not tensor.is_neg()
