"""Every mechanism, once: what it computes, what it is called with, what it costs.

Tests, benchmarks and the operations for other frameworks iterate over it.
"""

from __future__ import annotations

from dataclasses import replace

from rattention.mechanisms.gated_delta import (
    delta_states_kept,
    gated_delta_rule,
    gated_delta_rule_backward,
    gated_delta_rule_keeping,
    reference_gated_delta_rule,
)
from rattention.mechanisms.gated_linear import (
    gated_linear_attention,
    gated_linear_attention_backward,
    gated_linear_attention_keeping,
    reference_gated_linear_attention,
)
from rattention.mechanisms.gravitational import (
    gravitational_attention,
    gravitational_attention_backward,
    gravitational_distances,
    gravitational_map,
    gravitational_metrics,
    gravitational_rows,
    gravitational_segments,
    gravitational_top_keys,
    reference_gravitational_attention,
)
from rattention.mechanisms.rattention import (
    numbers_kept,
    rattention,
    rattention_backward,
    rattention_keeping,
    reference_rattention,
)
from rattention.mechanisms.residual_linear import (
    reference_residual_linear_attention,
    residual_linear_attention,
    residual_linear_attention_backward,
    residual_linear_attention_keeping,
    states_kept,
)
from rattention.mechanisms.row import Argument, LinearFunctions, Mechanism, Sizes, SoftmaxFunctions
from rattention.mechanisms.softmax import (
    attention,
    attention_backward,
    attention_metrics,
    reference_attention,
)
from rattention.mechanisms.softmax_maps import (
    attention_distances,
    attention_map,
    attention_rows,
    attention_segments,
    attention_top_keys,
)


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
    segments=attention_segments,
    top_keys=attention_top_keys,
    distances=attention_distances,
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
    segments=gravitational_segments,
    top_keys=gravitational_top_keys,
    distances=gravitational_distances,
)
_RESIDUAL_LINEAR = LinearFunctions(
    residual_linear_attention,
    residual_linear_attention_backward,
    reference_residual_linear_attention,
    (*_QUERY_KEY_VALUE, _WINDOW, _FEATURE_MAP, _INITIAL_STATE),
    has_rope=False,
    keeping=residual_linear_attention_keeping,
    kept=states_kept,
)
_GATED_LINEAR = LinearFunctions(
    gated_linear_attention,
    gated_linear_attention_backward,
    reference_gated_linear_attention,
    (
        *_QUERY_KEY_VALUE,
        _array("log_gate", "batch kv_heads length"),
        replace(_WINDOW, optional=True),
        _FEATURE_MAP,
        _SCALE,
        _array("initial_state", "batch kv_heads head_dim value_dim", optional=True),
    ),
    has_rope=False,
    keeping=gated_linear_attention_keeping,
    kept=states_kept,
    kept_of_channels=delta_states_kept,
)
_GATED_DELTA = LinearFunctions(
    gated_delta_rule,
    gated_delta_rule_backward,
    reference_gated_delta_rule,
    (
        *_QUERY_KEY_VALUE,
        _array("log_gate", "batch heads length"),
        _array("beta", "batch heads length"),
        _SCALE,
        Argument("normalize", "flag", optional=True),
        _array("initial_state", "batch heads head_dim value_dim", optional=True),
    ),
    has_rope=False,
    keeping=gated_delta_rule_keeping,
    kept=delta_states_kept,
)


def _per_channel(functions: LinearFunctions) -> LinearFunctions:
    """The same functions, called with a gate per key channel."""
    arguments = (
        replace(a, shape=(*a.shape, "head_dim")) if a.name == "log_gate" else a for a in functions.arguments
    )
    return replace(functions, arguments=tuple(arguments))


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
        _array("gate", "batch kv_heads length", optional=True),
        _EPS,
        _INITIAL_STATE,
    ),
    has_rope=True,
    keeping=rattention_keeping,
    kept=numbers_kept,
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


def _gated_linear_flops(sizes: Sizes) -> int:
    """Per head and token 2 D Dv for the product with the state; to add to it as much, and its decay."""
    state = sizes.head_dim * sizes.value_dim
    per_token = sizes.heads * (2 * state + sizes.value_dim) + sizes.kv_heads * (3 * state + 1)
    return sizes.batch * sizes.length * per_token


def _gated_delta_flops(sizes: Sizes) -> int:
    """Per head and token: a decay, the state's value for the key, its correction, the value for the query."""
    return sizes.batch * sizes.heads * sizes.length * (7 * sizes.head_dim + 3) * sizes.value_dim


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
            "gated_linear",
            "out_t = scale q_t S_{t-w-1}, S_t = a_t S_{t-1} + k_t^T v_t, ln a_t = log_gate_t <= 0",
            "Mamba2, arXiv 2405.21060; constant gates: RetNet, arXiv 2307.08621, section 2.1; Lightning "
            "attention, arXiv 2405.17381",
            _GATED_LINEAR,
            (*_SOFTMAX, "log_gate", "initial_state"),
            options={},
            flops=_gated_linear_flops,
        ),
        Mechanism(
            "gla",
            "out_t = scale q_t S_t, S_t = Diag(a_t) S_{t-1} + k_t^T v_t, ln a_t = log_gate_t <= 0",
            "Gated Linear Attention, arXiv 2312.06635, section 4.1",
            _per_channel(_GATED_LINEAR),
            (*_SOFTMAX, "log_gate", "initial_state"),
            options={},
            flops=_gated_linear_flops,
        ),
        Mechanism(
            "gated_delta",
            "out_t = scale q_t S_t, S_t = a_t S_{t-1} + b_t k_t^T (v_t - a_t k_t S_{t-1})",
            "Gated DeltaNet, arXiv 2412.06464, section 3.1; a_t = 1: DeltaNet, arXiv 2406.06484, section 2.2",
            _GATED_DELTA,
            (*_SOFTMAX, "log_gate", "beta", "initial_state"),
            options={"normalize": True},
            flops=_gated_delta_flops,
        ),
        Mechanism(
            "kda",
            "out_t = scale q_t S_t, S_t = D_t S_{t-1} + b_t k_t^T (v_t - k_t D_t S_{t-1}), D_t diagonal",
            "Kimi Delta Attention, arXiv 2510.26692, section 3",
            _per_channel(_GATED_DELTA),
            (*_SOFTMAX, "log_gate", "beta", "initial_state"),
            options={"normalize": True},
            flops=_gated_delta_flops,
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
