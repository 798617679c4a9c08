"""Every mechanism, once: what it computes, what it is called with, what it costs.

Tests, benchmarks and the operations for other frameworks iterate over it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rattention.mechanisms.gravitational import (
    gravitational_attention,
    gravitational_attention_backward,
    gravitational_map,
    gravitational_metrics,
    gravitational_rows,
    reference_gravitational_attention,
)
from rattention.mechanisms.masks import Masks
from rattention.mechanisms.rattention import rattention, rattention_backward, reference_rattention
from rattention.mechanisms.residual_linear import (
    reference_residual_linear_attention,
    residual_linear_attention,
    residual_linear_attention_backward,
)
from rattention.mechanisms.softmax import (
    attention,
    attention_backward,
    attention_map,
    attention_metrics,
    attention_rows,
    reference_attention,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Argument:
    """An argument of a mechanism's functions; where it is optional, its default is in their signature."""

    name: str
    kind: Literal["array", "per head", "per query", "number", "integer", "choice", "table"]
    """``"per head"`` is a number, or an array ``[heads]``; ``"per query"`` the same or an array
    ``[batch, heads, query_length]``; ``"choice"`` one of a few strings;
    ``"table"`` an array of any real dtype."""
    shape: tuple[str, ...] = ()
    """Of an array, in attributes of `Sizes`. The arrays that have a length share one dtype, that of the
    output; all others are float32. Where it says ``kv_heads``, key_mass and initial_state may have
    ``heads``."""
    optional: bool = False
    differentiable: bool = False
    """Whether the backward function returns its gradient, a float32 array of the argument's shape
    (``[heads]`` for numbers); those of optional arguments without a default only
    where they were given."""


@dataclass(frozen=True)
class Functions:
    """One set of functions, all with the same arguments besides `masks`, through which mechanisms run."""

    family: ClassVar[Literal["softmax", "linear"]]
    masks: ClassVar[tuple[str, ...]]
    """Options that hide keys; of them a float attn_mask alone is differentiable, where it is asked for."""
    second: ClassVar[str]
    """The flag of `forward` that asks for its second result, through which gradients flow, too."""

    forward: Callable[..., Any]
    """The output ``[batch, heads, query_length, value_dim]``."""
    backward: Callable[..., dict[str, Any]]
    """Gradients of ``sum(output * grad_output)`` by the argument's name."""
    reference: Callable[..., Any]
    """The definition, in float64 NumPy with the whole map in memory. A tuple that begins with the output."""
    arguments: tuple[Argument, ...]
    """In the order of the signature."""
    has_rope: bool
    """Whether a rotary embedding may turn what is scored: the scores are dot products."""
    metrics: Callable[..., Any] | None = None
    """Metrics of the map; it and the next two take all arguments of `forward` but the values, by name, and
    are None where there is no map: in the linear family."""
    rows: Callable[..., Any] | None = None
    """The weights of a few query rows, which it takes as ``rows``."""
    map: Callable[..., Any] | None = None
    """The map, mean-pooled; takes ``shape``, and ranges as ``rows`` and ``keys``."""

    def gradients(self, grad_output: Any, **arguments: Any) -> dict[str, Any]:
        """Gradients of ``sum(output * grad_output)`` by name, for the arguments of `forward`."""
        return self.backward(grad_output, **arguments)


class SoftmaxFunctions(Functions):
    """Weights that sum to 1. Forward passes its result to backward::

    result = forward(**inputs, return_lse=True)                # an AttentionResult
    gradients = backward(grad_output, **inputs, result=result, grad_lse=None)
    """

    family = "softmax"
    masks = Masks._fields
    second = "return_lse"

    def gradients(self, grad_output: Any, **arguments: Any) -> dict[str, Any]:
        """Those gradients, after a forward pass."""
        return self.backward(grad_output, **arguments, result=self.forward(**arguments, return_lse=True))


class LinearFunctions(Functions):
    """A state of fixed size. Backward needs nothing of forward::

    output, state = forward(**inputs, return_state=True)       # a LinearResult
    gradients = backward(grad_output, **inputs, grad_state=None)
    """

    family = "linear"
    masks = ("key_mask", "segment_ids")
    second = "return_state"


@dataclass(frozen=True)
class Sizes:
    """Sizes of one problem with as many queries as keys; `window` counts neighbours to the left, None is
    all."""

    batch: int
    heads: int
    length: int
    head_dim: int
    value_dim: int
    kv_heads: int
    window: int | None = None
    causal: bool = True

    @property
    def features(self) -> int:
        """Elements of phi(query) in the linear family."""
        return 2 * self.head_dim

    query_length = key_length = property(lambda self: self.length)
    """The length, as the softmax family calls it."""

    @property
    def distances(self) -> int:
        """Entries of a relative bias that reaches over half the length."""
        return 2 * (self.length // 2) + 1

    @property
    def pairs(self) -> int:
        """Visible (query, key) pairs over batch and heads."""
        n, w = self.length, self.length if self.window is None else min(self.window, self.length)
        if not self.causal:
            return self.batch * self.heads * (n * n if w == n else n * (2 * w + 1) - w * (w + 1))
        return self.batch * self.heads * (n * (w + 1) - w * (w + 1) // 2 if w < n else n * (n + 1) // 2)


@dataclass(frozen=True)
class Mechanism:
    """One row of the table."""

    name: str
    formula: str
    source: str
    functions: Functions
    parameters: tuple[str, ...]
    """The differentiable arguments that this mechanism is called with."""
    options: dict[str, Any]
    """What makes this mechanism of its function, such as a window."""
    flops: Callable[[Sizes], int]
    """Multiplications and additions of the forward pass; exponentials, divisions and roots count as one. The
    linear family is counted token by token, the fewest there are."""

    family = property(lambda self: self.functions.family)
    """``"softmax"`` (weights that sum to 1) or ``"linear"`` (a state of fixed size)."""
    forward = property(lambda self: self.functions.forward)
    """The public function."""
    backward = property(lambda self: self.functions.backward)
    """Its gradients."""
    reference = property(lambda self: self.functions.reference)
    """The slow float64 reference that defines it."""
    gradients = property(lambda self: self.functions.gradients)
    """Gradients of ``sum(output * grad_output)`` by name, for the arguments of `forward`."""
    has_rope = property(lambda self: self.functions.has_rope)
    """Whether a rotary embedding may turn its queries and keys: its scores are dot products."""

    @property
    def needs_window(self) -> bool:
        """Whether the mechanism requires a window."""
        return "window" in self.options

    @property
    def causal_only(self) -> bool:
        """Whether no row can see what comes after it, whatever the options."""
        return "causal" not in self.functions.masks

    def argument(self, name: str) -> Argument:
        """One of its functions' arguments."""
        return next(a for a in self.functions.arguments if a.name == name)


def _array(name: str, shape: str, *, optional: bool = False) -> Argument:
    return Argument(name, "array", tuple(shape.split()), optional, differentiable=True)


_QUERY_KEY_VALUE = (
    _array("query", "batch heads query_length head_dim"),
    _array("key", "batch kv_heads key_length head_dim"),
    _array("value", "batch kv_heads key_length value_dim"),
)
_LOG_DISCOUNT = Argument("log_discount", "per query", optional=True, differentiable=True)
_SCALE = Argument("scale", "number", optional=True)
_EPS = Argument("eps", "number", optional=True)
_FEATURE_MAP = Argument("feature_map", "choice", optional=True)
_WINDOW = Argument("window", "integer")
_INITIAL_STATE = _array("initial_state", "batch kv_heads features value_dim", optional=True)

_ATTENTION = SoftmaxFunctions(
    attention,
    attention_backward,
    reference_attention,
    (
        *_QUERY_KEY_VALUE,
        _SCALE,
        _LOG_DISCOUNT,
        Argument("softcap", "number", optional=True),
        Argument("sinks", "per head", optional=True, differentiable=True),
        _array("relative_bias", "heads distances", optional=True),
    ),
    has_rope=True,
    metrics=attention_metrics,
    rows=attention_rows,
    map=attention_map,
)
_GRAVITATIONAL = SoftmaxFunctions(
    gravitational_attention,
    gravitational_attention_backward,
    reference_gravitational_attention,
    (
        *_QUERY_KEY_VALUE,
        _array("query_mass", "batch heads query_length"),
        _array("key_mass", "batch kv_heads key_length"),
        Argument("gravity", "per head", optional=True, differentiable=True),
        _EPS,
        Argument("exponent", "per head", optional=True, differentiable=True),
        _LOG_DISCOUNT,
    ),
    has_rope=False,
    metrics=gravitational_metrics,
    rows=gravitational_rows,
    map=gravitational_map,
)
_RESIDUAL_LINEAR = LinearFunctions(
    residual_linear_attention,
    residual_linear_attention_backward,
    reference_residual_linear_attention,
    (*_QUERY_KEY_VALUE, _WINDOW, _FEATURE_MAP, _INITIAL_STATE),
    has_rope=False,
)
_RATTENTION = LinearFunctions(
    rattention,
    rattention_backward,
    reference_rattention,
    (
        *_QUERY_KEY_VALUE,
        _WINDOW,
        _SCALE,
        Argument("rope_theta", "number", optional=True),
        Argument("rope_frequencies", "table", optional=True),
        _FEATURE_MAP,
        _array("local_norm_weight", "heads value_dim", optional=True),
        _array("linear_norm_weight", "heads value_dim", optional=True),
        _EPS,
        _INITIAL_STATE,
    ),
    has_rope=True,
)


def _softmax_flops(sizes: Sizes) -> int:
    """Two products, and four operations for each weight."""
    return sizes.pairs * (2 * sizes.head_dim + 2 * sizes.value_dim + 4)


def _gravitational_flops(sizes: Sizes) -> int:
    """A sum of squared differences, a product with the values, and eight operations for each weight."""
    return sizes.pairs * (3 * sizes.head_dim + 2 * sizes.value_dim + 8)


def _residual_linear_flops(sizes: Sizes) -> int:
    """Per head and token: phi, and 2 F Dv for the product with the state or for the addition to it."""
    per_head = 3 * sizes.features + 2 * sizes.features * sizes.value_dim
    return sizes.batch * sizes.length * (sizes.heads + sizes.kv_heads) * per_head


def _rattention_flops(sizes: Sizes) -> int:
    """Both branches, the rotation of queries and keys, two norms and their sum."""
    rotations = 3 * (sizes.heads + sizes.kv_heads) * sizes.head_dim
    norms = sizes.heads * (2 * (4 * sizes.value_dim + 2) + sizes.value_dim)
    branches = _softmax_flops(replace(sizes, causal=True)) + _residual_linear_flops(sizes)
    return branches + sizes.batch * sizes.length * (rotations + norms)


_SOFTMAX = ("query", "key", "value")
_GRAVITY = (*_SOFTMAX, "query_mass", "key_mass", "gravity")

MECHANISMS: dict[str, Mechanism] = {
    row.name: row
    for row in (
        Mechanism(
            "softmax",
            "out_i = sum_j softmax_j(scale q_i.k_j) v_j",
            "Vaswani et al. 2017, arXiv 1706.03762, eq. 1",
            _ATTENTION,
            _SOFTMAX,
            options={},
            flops=_softmax_flops,
        ),
        Mechanism(
            "sliding_window",
            "out_t = sum_{j=t-w..t} softmax_j(scale q_t.k_j) v_j",
            "Longformer, arXiv 2004.05150, section 3.1; RAttention, arXiv 2506.15545, section 2",
            _ATTENTION,
            _SOFTMAX,
            options={"causal": True, "window": 64},
            flops=_softmax_flops,
        ),
        Mechanism(
            "multi_timescale",
            "out_i = sum_j softmax_j(scale q_i.k_j + ln(gamma_h) |i-j|) v_j",
            "ALiBi, arXiv 2108.12409, section 3, for one slope -log_discount per head; constant decays as in "
            "RetNet, arXiv 2307.08621, section 2.2; several timescales as heads of one softmax: our own",
            _ATTENTION,
            (*_SOFTMAX, "log_discount"),
            options={"log_discount": -0.05},
            flops=lambda s: _softmax_flops(s) + 2 * s.pairs,
        ),
        Mechanism(
            "gravitational",
            "out_i = sum_j softmax_j(G m_i m_j / (|q_i-k_j|^2 + eps)) v_j",
            "our own: Newton's law, its squared distance softened by eps, in place of the dot product",
            _GRAVITATIONAL,
            _GRAVITY,
            options={"eps": 1e-3},
            flops=_gravitational_flops,
        ),
        Mechanism(
            "gravitational_multi_timescale",
            "out_i = sum_j softmax_j(G m_i m_j / (|q_i-k_j|^2 + eps) + ln(gamma_h) |i-j|) v_j",
            "our own: gravitational scores with the discount of multi_timescale",
            _GRAVITATIONAL,
            (*_GRAVITY, "log_discount"),
            options={"eps": 1e-3, "log_discount": -0.05},
            flops=lambda s: _gravitational_flops(s) + 2 * s.pairs,
        ),
        Mechanism(
            "residual_linear",
            "out_t = phi(q_t) S_{t-w-1}, S_t = S_{t-1} + phi(k_t)^T v_t, phi(x) = [softmax(x), softmax(-x)]",
            "RAttention, arXiv 2506.15545, section 3; feature map of Hedgehog, arXiv 2402.04347",
            _RESIDUAL_LINEAR,
            (*_SOFTMAX, "initial_state"),
            options={"window": 64},
            flops=_residual_linear_flops,
        ),
        Mechanism(
            "rattention",
            "out = RMSNorm(sliding_window(rope(q), rope(k), v)) + RMSNorm(residual_linear(q, k, v))",
            "RAttention, arXiv 2506.15545, section 3",
            _RATTENTION,
            (*_SOFTMAX, "local_norm_weight", "linear_norm_weight", "initial_state"),
            options={"window": 64, "rope_theta": 10000.0},
            flops=_rattention_flops,
        ),
    )
}
"""The mechanisms by name."""
