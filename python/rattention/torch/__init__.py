"""The mechanisms on PyTorch tensors: differentiable, compiled and exported like any operation of PyTorch.

The functions are those of `rattention`, with the same names, parameters, shapes and results, on tensors
``[batch, heads, length, head_dim]`` in place of arrays; `scaled_dot_product_attention` has the arguments of
PyTorch's::

    >>> import torch
    >>> import rattention.torch as rt
    >>> query, key, value = torch.randn(3, 1, 4, 256, 32).requires_grad_()
    >>> output = rt.attention(query, key, value, causal=True, window=64)
    >>> output.shape
    torch.Size([1, 4, 256, 32])
    >>> output.square().sum().backward()
    >>> far = rt.rattention(query, key, value, window=64, rope_theta=10_000.0)
    >>> far.shape
    torch.Size([1, 4, 256, 32])

They are differentiable in every floating input: query, key, value, masses, gravity, log_discount, log_gate,
beta, norm weights and initial state, through the output and through the lse or state that is returned with
it. Second derivatives are refused with NotImplementedError.

- Tensors of float32 and bfloat16 are read where they lie, with any strides, and results are not copied.
- ``torch.compile(fullgraph=True)``, ``torch.export`` and ``torch.func.vmap`` work, the latter one sample
  after another; ``torch.func.grad`` and forward-mode derivatives (``torch.func.jvp``) raise
  NotImplementedError.
- Under ``torch.autocast("cpu")`` query, key, value and masses are cast to its dtype.
- Tensors that are not on the CPU (CUDA, meta, ...) are computed in plain PyTorch by the same formula, the
  linear family in chunks. Values of tensors, such as masses below 0, are checked on the CPU alone.
- Metrics, rows and maps are measured on the CPU alone and are not differentiable: a backward pass through
  them raises NotImplementedError. `rattention_step`, `gated_delta_step` and `gated_linear_step` have none.
- `rattention.torch.distributed` splits one long sequence over several processes.
- `torch.set_num_threads` sets the threads, unless `rattention.set_num_threads` does.
"""

from __future__ import annotations

from rattention import _extras

_extras.require("torch")

from rattention import _core
from rattention.torch.functional import (
    attention,
    attention_metrics,
    gated_delta_rule,
    gated_linear_attention,
    gravitational_attention,
    rattention,
    residual_linear_attention,
    rotary,
)
from rattention.torch.maps import (
    attention_distances,
    attention_map,
    attention_rows,
    attention_segments,
    attention_top_keys,
)
from rattention.torch.sdpa import scaled_dot_product_attention
from rattention.torch.steps import gated_delta_step, gated_linear_step, rattention_step

_core.share_openmp_team()

__all__ = [
    "attention",
    "attention_distances",
    "attention_map",
    "attention_metrics",
    "attention_rows",
    "attention_segments",
    "attention_top_keys",
    "gated_delta_rule",
    "gated_delta_step",
    "gated_linear_attention",
    "gated_linear_step",
    "gravitational_attention",
    "rattention",
    "rattention_step",
    "residual_linear_attention",
    "rotary",
    "scaled_dot_product_attention",
]
