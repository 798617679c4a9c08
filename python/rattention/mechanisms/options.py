"""The types of the public functions on arrays and on tensors: their keyword arguments, and what they return.

The functions that users read have the options in their signatures; others take them as
``**options: Unpack[SoftmaxOptions[ArrayLike]]`` and show them with `shows_options_of`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, Literal, Protocol, Required, TypeAlias, TypedDict, TypeVar, Unpack, overload

from rattention._metrics import ArrayT, MetricOptions
from rattention.mechanisms.masks import Window
from rattention.mechanisms.results import AttentionResult, LinearResult

CallT = TypeVar("CallT")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
In = TypeVar("In", contravariant=True)
"""What users give: ``ArrayLike`` or ``Tensor``."""
Out = TypeVar("Out")
"""What they get: arrays or tensors."""
FlagT = TypeVar("FlagT")
MetricsT = TypeVar("MetricsT")
No: TypeAlias = Literal[False]
Yes: TypeAlias = Literal[True]


class SharedOptions(TypedDict, Generic[ArrayT], total=False):
    """Options of the whole softmax family; see `attention`."""

    causal: bool
    window: Window
    key_mask: ArrayT | None
    segment_ids: ArrayT | None
    attn_mask: ArrayT | None
    log_discount: ArrayT | float | None
    query_offset: int | None
    block_ids: ArrayT | None
    cu_seqlens: ArrayT | None


class SoftmaxOptions(SharedOptions[ArrayT], total=False):
    """Options of `attention`."""

    scale: float | None
    softcap: float | None
    sinks: ArrayT | float | None
    relative_bias: ArrayT | None


class GravityOptions(SharedOptions[ArrayT], total=False):
    """Options of `gravitational_attention`."""

    gravity: ArrayT | float
    eps: float
    exponent: ArrayT | float | None


class LinearOptions(TypedDict, Generic[ArrayT], total=False):
    """Options of `residual_linear_attention` besides its window."""

    feature_map: str
    initial_state: ArrayT | None
    key_mask: ArrayT | None
    segment_ids: ArrayT | None


class GatedLinearOptions(TypedDict, Generic[ArrayT], total=False):
    """Options of `gated_linear_attention`."""

    window: int
    feature_map: str | None
    scale: float | None
    initial_state: ArrayT | None
    key_mask: ArrayT | None
    segment_ids: ArrayT | None


class GatedDeltaOptions(TypedDict, Generic[ArrayT], total=False):
    """Options of `gated_delta_rule`."""

    scale: float | None
    normalize: bool
    initial_state: ArrayT | None
    key_mask: ArrayT | None
    segment_ids: ArrayT | None


class RAttentionOptions(LinearOptions[ArrayT], total=False):
    """Options of `rattention`."""

    scale: float | None
    rope_theta: float | None
    rope_frequencies: ArrayT | None
    local_norm_weight: ArrayT | None
    linear_norm_weight: ArrayT | None
    eps: float
    gate: ArrayT | None


# With their flags, whose types decide that of the result. Type checkers try the parts of ``MetricOptions |
# None`` one by one.
class _Softmax(SoftmaxOptions[ArrayT], Generic[FlagT, MetricsT, ArrayT], total=False):
    return_lse: FlagT
    metrics: MetricsT


class _Gravity(GravityOptions[ArrayT], Generic[FlagT, MetricsT, ArrayT], total=False):
    return_lse: FlagT
    metrics: MetricsT


class _Linear(LinearOptions[ArrayT], Generic[FlagT, ArrayT], total=False):
    window: Required[int]
    return_state: FlagT


class _GatedLinear(GatedLinearOptions[ArrayT], Generic[FlagT, ArrayT], total=False):
    return_state: FlagT


class _GatedDelta(GatedDeltaOptions[ArrayT], Generic[FlagT, ArrayT], total=False):
    return_state: FlagT


class _RAttention(RAttentionOptions[ArrayT], Generic[FlagT, ArrayT], total=False):
    window: Required[int]
    return_state: FlagT


class SoftmaxCall(Protocol[In, Out]):
    """Calls of `attention`."""

    @overload
    def __call__(self, query: In, key: In, value: In, **options: Unpack[_Softmax[No, None, In]]) -> Out: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, **options: Unpack[_Softmax[Yes, None, In]]
    ) -> AttentionResult[Out]: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, **options: Unpack[_Softmax[bool, None, In]]
    ) -> Out | AttentionResult[Out]: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, **options: Unpack[_Softmax[bool, MetricOptions, In]]
    ) -> AttentionResult[Out]: ...


class GravityCall(Protocol[In, Out]):
    """Calls of `gravitational_attention`."""

    @overload
    def __call__(
        self,
        query: In,
        key: In,
        value: In,
        query_mass: In,
        key_mass: In,
        **options: Unpack[_Gravity[No, None, In]],
    ) -> Out: ...
    @overload
    def __call__(
        self,
        query: In,
        key: In,
        value: In,
        query_mass: In,
        key_mass: In,
        **options: Unpack[_Gravity[Yes, None, In]],
    ) -> AttentionResult[Out]: ...
    @overload
    def __call__(
        self,
        query: In,
        key: In,
        value: In,
        query_mass: In,
        key_mass: In,
        **options: Unpack[_Gravity[bool, None, In]],
    ) -> Out | AttentionResult[Out]: ...
    @overload
    def __call__(
        self,
        query: In,
        key: In,
        value: In,
        query_mass: In,
        key_mass: In,
        **options: Unpack[_Gravity[bool, MetricOptions, In]],
    ) -> AttentionResult[Out]: ...


class LinearCall(Protocol[In, Out]):
    """Calls of `residual_linear_attention`."""

    @overload
    def __call__(self, query: In, key: In, value: In, **options: Unpack[_Linear[No, In]]) -> Out: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, **options: Unpack[_Linear[Yes, In]]
    ) -> LinearResult[Out]: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, **options: Unpack[_Linear[bool, In]]
    ) -> Out | LinearResult[Out]: ...


class GatedLinearCall(Protocol[In, Out]):
    """Calls of `gated_linear_attention`."""

    @overload
    def __call__(
        self, query: In, key: In, value: In, log_gate: In, **options: Unpack[_GatedLinear[No, In]]
    ) -> Out: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, log_gate: In, **options: Unpack[_GatedLinear[Yes, In]]
    ) -> LinearResult[Out]: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, log_gate: In, **options: Unpack[_GatedLinear[bool, In]]
    ) -> Out | LinearResult[Out]: ...


class GatedDeltaCall(Protocol[In, Out]):
    """Calls of `gated_delta_rule`."""

    @overload
    def __call__(
        self, query: In, key: In, value: In, log_gate: In, beta: In, **options: Unpack[_GatedDelta[No, In]]
    ) -> Out: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, log_gate: In, beta: In, **options: Unpack[_GatedDelta[Yes, In]]
    ) -> LinearResult[Out]: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, log_gate: In, beta: In, **options: Unpack[_GatedDelta[bool, In]]
    ) -> Out | LinearResult[Out]: ...


class RAttentionCall(Protocol[In, Out]):
    """Calls of `rattention`."""

    @overload
    def __call__(self, query: In, key: In, value: In, **options: Unpack[_RAttention[No, In]]) -> Out: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, **options: Unpack[_RAttention[Yes, In]]
    ) -> LinearResult[Out]: ...
    @overload
    def __call__(
        self, query: In, key: In, value: In, **options: Unpack[_RAttention[bool, In]]
    ) -> Out | LinearResult[Out]: ...


class Typed(Generic[CallT]):
    """Decorates a function with the type of its calls: ``@Typed[SoftmaxCall[ArrayLike, NDArray[Any]]]()``.

    The types of results follow from flags; as overloads they would be written for arrays and for tensors.
    """

    def __call__(self, function: Callable[..., Any]) -> CallT:  # noqa: D102
        call: Any = function
        return call  # type: ignore[no-any-return]


def shows_options_of(
    model: Callable[..., Any], array: str = "ArrayLike", but: tuple[str, ...] = ("return_lse", "metrics")
) -> Callable[[FunctionT], FunctionT]:
    """Show in a function's signature the keywords of `model` that it takes as ``**options``, with `array` as
    the type of arrays."""

    def shown(function: FunctionT) -> FunctionT:
        own = inspect.signature(function)
        *named, _ = own.parameters.values()
        options = [
            p.replace(annotation=str(p.annotation).replace("ArrayLike", array))
            for name, p in inspect.signature(model).parameters.items()
            if p.kind is p.KEYWORD_ONLY and name not in (*own.parameters, *but)
        ]
        function.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return function

    return shown
