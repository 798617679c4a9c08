"""The mechanisms on tensors, each one call of its operation, and their metrics, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

import rattention as ra
from rattention._arguments import positive
from rattention.mechanisms.options import (
    GatedDeltaCall,
    GatedLinearCall,
    GravityCall,
    LinearCall,
    RAttentionCall,
    SoftmaxCall,
    Typed,
    shows_options_of,
)
from rattention.mechanisms.rotary import turning_dims
from rattention.torch.checks import (
    INTEGERS,
    require_floats,
    require_no_tangents,
    require_tensors,
)
from rattention.torch.functions import run
from rattention.torch.rotary import plain_angles, plain_turn, turn

if TYPE_CHECKING:
    from rattention._metrics import AttentionMetrics, MetricOptions
    from rattention.mechanisms.options import SoftmaxOptions
    from rattention.mechanisms.results import AttentionResult, LinearResult


@Typed[SoftmaxCall[Tensor, Tensor]]()
@shows_options_of(ra.attention, "Tensor", but=())
def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor | AttentionResult[Tensor]:
    """Exact softmax attention on tensors: `rattention.attention`, which describes every option.

    Parameters
    ----------
    query, key, value:
        ``[batch, heads, query_length, head_dim]``, ``[batch, kv_heads, key_length, head_dim]`` and
        ``[batch, kv_heads, key_length, value_dim]``: tensors of one dtype, float32, bfloat16 or float16, and
        on one device.
    metrics:
        Measured on the CPU alone and without gradients.

    Returns
    -------
    A tensor ``[batch, heads, query_length, value_dim]``, or an `AttentionResult` of tensors. Differentiable
    in query, key, value, a float attn_mask, log_discount, sinks and relative_bias, through output and lse.

    Raises
    ------
    ValueError
        Shapes, values or devices that do not fit; the message names the argument.
    TypeError
        Another dtype, or objects that are no dense tensors.
    NotImplementedError
        A second derivative, `torch.func.grad`, or forward-mode derivatives (`torch.func.jvp`).
    """
    given = {"query": query, "key": key, "value": value, **options}
    return run(ra.attention, given)  # type: ignore[no-any-return]


@Typed[GravityCall[Tensor, Tensor]]()
@shows_options_of(ra.gravitational_attention, "Tensor", but=())
def gravitational_attention(
    query: Tensor, key: Tensor, value: Tensor, query_mass: Tensor, key_mass: Tensor, **options: Any
) -> Tensor | AttentionResult[Tensor]:
    """Gravitational attention on tensors: `rattention.gravitational_attention`.

    Masses, ``[batch, heads, query_length]`` and ``[batch, heads or kv_heads, key_length]``, have the dtype of
    the query; gravity and exponent are numbers or tensors ``[heads]``. Other inputs, what is returned and the
    errors are those of `attention`. Differentiable in query, key, value, masses, gravity, exponent and
    log_discount.
    """
    given = {"query": query, "key": key, "value": value, "query_mass": query_mass, "key_mass": key_mass}
    return run(ra.gravitational_attention, given | options)  # type: ignore[no-any-return]


@Typed[LinearCall[Tensor, Tensor]]()
@shows_options_of(ra.residual_linear_attention, "Tensor", but=())
def residual_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, **options: Any
) -> Tensor | LinearResult[Tensor]:
    """Residual linear attention on tensors: `rattention.residual_linear_attention`, which describes every
    option.

    Parameters
    ----------
    query, key, value:
        Tensors ``[batch, heads, length, head_dim]``, ``[batch, kv_heads, length, head_dim]`` and ``[batch,
        kv_heads, length, value_dim]`` of one dtype.
    initial_state:
        A tensor ``[batch, kv_heads or heads, 2 * head_dim, value_dim]``.

    Returns
    -------
    A tensor ``[batch, heads, length, value_dim]``, or a `LinearResult` of tensors. Differentiable in query,
    key, value and initial_state, through output and state. Errors are those of `attention`.
    """
    given = {"query": query, "key": key, "value": value, **options}
    return run(ra.residual_linear_attention, given)  # type: ignore[no-any-return]


@Typed[GatedLinearCall[Tensor, Tensor]]()
@shows_options_of(ra.gated_linear_attention, "Tensor", but=())
def gated_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, log_gate: Tensor, **options: Any
) -> Tensor | LinearResult[Tensor]:
    """Gated linear attention on tensors: `rattention.gated_linear_attention`, which describes every option.

    log_gate, ``[batch, kv_heads, length]`` or ``[batch, kv_heads, length, head_dim]``, may have another dtype
    than query, key and value; it is read as float32. Other inputs, what is returned and the errors are those
    of `residual_linear_attention`. Differentiable in query, key, value, log_gate and initial_state; the
    gradient of a gate that forgets everything is 0.

    For a backward pass with a gate per channel the state before every 48th token is kept.
    """
    given = {"query": query, "key": key, "value": value, "log_gate": log_gate, **options}
    return run(ra.gated_linear_attention, given)  # type: ignore[no-any-return]


@Typed[GatedDeltaCall[Tensor, Tensor]]()
@shows_options_of(ra.gated_delta_rule, "Tensor", but=())
def gated_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, log_gate: Tensor, beta: Tensor, **options: Any
) -> Tensor | LinearResult[Tensor]:
    """The gated delta rule on tensors: `rattention.gated_delta_rule`, which describes every option.

    log_gate, ``[batch, heads, length]`` or ``[batch, heads, length, head_dim]``, and beta, ``[batch, heads,
    length]``, may have another dtype than query, key and value; they are read as float32. Other inputs, what
    is returned and the errors are those of `residual_linear_attention`. Differentiable in query, key, value,
    log_gate, beta and initial_state; the gradient of a gate that forgets everything is 0.

    For a backward pass the state before every 48th token is kept.
    """
    given = {"query": query, "key": key, "value": value, "log_gate": log_gate, "beta": beta, **options}
    return run(ra.gated_delta_rule, given)  # type: ignore[no-any-return]


@Typed[RAttentionCall[Tensor, Tensor]]()
@shows_options_of(ra.rattention, "Tensor", but=())
def rattention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor | LinearResult[Tensor]:
    """RAttention on tensors: `rattention.rattention`, which describes every option.

    Norm weights are tensors ``[heads, value_dim]``, gate is like the log_gate of `gated_linear_attention`.
    Other inputs, what is returned and errors are those of `residual_linear_attention`. Differentiable in
    query, key, value, the norm weights, gate and initial_state.

    For a backward pass both branches are kept rather than computed again: ``2 * value_dim + 2`` numbers of
    float32 for each head and token, whatever the dtype of the tensors. Where memory is short,
    ``torch.utils.checkpoint`` keeps none of it.
    """
    given = {"query": query, "key": key, "value": value, **options}
    return run(ra.rattention, given)  # type: ignore[no-any-return]


@shows_options_of(ra.attention, "Tensor")
def attention_metrics(
    query: Tensor,
    key: Tensor,
    *,
    metrics: MetricOptions | None = None,
    **options: Unpack[SoftmaxOptions[Tensor]],
) -> AttentionMetrics[Tensor]:
    """Metrics of attention maps, on tensors: `rattention.attention_metrics`.

    Parameters
    ----------
    query, key:
        CPU tensors as in `attention`, and so are the options.
    metrics:
        Distances, and whether to measure `received`; ``MetricOptions()`` by default.

    Returns
    -------
    `AttentionMetrics` of tensors ``[batch, heads, query_length]``; a backward pass through them raises
    NotImplementedError. Other errors are those of `attention`.

    Examples
    --------
    >>> import torch
    >>> import rattention.torch as rt
    >>> query, key = torch.randn(2, 1, 4, 256, 32)
    >>> rt.attention_metrics(query, key, causal=True).entropy.shape
    torch.Size([1, 4, 256])
    """
    inputs = {"query": query, "key": key}
    require_tensors(inputs, inputs, ("query", "key"))
    chosen = ra.MetricOptions() if metrics is None else metrics
    result = attention(query, key, key[..., :0], metrics=chosen, **options)
    assert result.metrics is not None
    return result.metrics


def rotary(
    x: Tensor,
    *,
    theta: float = 10_000.0,
    positions: Tensor | None = None,
    interleaved: bool = False,
    dims: int | None = None,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
) -> Tensor:
    """Queries or keys turned to their positions, on tensors: `rattention.rotary`.

    Parameters
    ----------
    x:
        A tensor ``[batch, heads, length, head_dim]``, float32, bfloat16 or float16.
    positions:
        Integers ``[length]`` or ``[batch, length]``; 0, 1, 2, ... by default.
    theta, interleaved, dims:
        As in `rattention.rotary`.
    cos, sin:
        Your own tables, tensors ``[length, dims / 2]`` or ``[batch, length, dims / 2]``, in place of `theta`
        and `positions`.

    Returns
    -------
    A tensor like `x`, differentiable in x, cos and sin. Tensors that are not on the CPU, and tables that ask
    for a gradient, take plain PyTorch.

    Raises
    ------
    ValueError, TypeError
        As `attention`.

    Examples
    --------
    >>> import torch
    >>> import rattention.torch as rt
    >>> query = torch.randn(1, 4, 256, 32)
    >>> rt.rotary(query, theta=500_000.0, positions=torch.arange(100, 356)).shape
    torch.Size([1, 4, 256, 32])
    """
    tensors = {"x": x, "positions": positions, "cos": cos, "sin": sin}
    require_tensors(tensors, tensors, ("x",))
    require_floats(tensors, ("x", "cos", "sin"))
    if positions is not None and positions.dtype not in INTEGERS:
        raise TypeError(f"positions must be a tensor of integers, got {positions.dtype}")
    if x.dim() != 4:
        raise ValueError(f"x must have 4 dimensions, got {x.dim()} (shape {tuple(x.shape)})")
    tables = {name: table for name, table in (("cos", cos), ("sin", sin)) if table is not None}
    turning = turning_dims(x.shape, dims, positions, tables)
    base = positive("theta", theta)
    table = torch.cat([*tables.values()], dim=-1).to(torch.float32) if tables else None
    if x.device.type == "cpu" and not (table is not None and table.requires_grad):
        require_no_tangents("rotary", tensors.values())
        at = None if positions is None else positions.to(torch.int64)
        turned: Tensor = turn(x, at, table, base, 0, turning, bool(interleaved), False)
        return turned
    if table is None:
        at = torch.arange(x.shape[2], device=x.device) if positions is None else positions
        halves = plain_angles(at, base, turning)
    else:
        halves = table[..., : turning // 2], table[..., turning // 2 :]
    return plain_turn(x, *halves, interleaved=bool(interleaved))
