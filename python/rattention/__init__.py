"""Attention for CPUs: exact and windowed kernels in C++, and metrics that look into every attention map
without storing one.

``import rattention as ra``; arrays are ``[batch, heads, length, head_dim]``. See `attention` for the kernel,
`attention_metrics` for the microscope and `rattention.models` for pretrained models without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    from rattention import _core
except ImportError as error:
    if "libgomp" in str(error):
        raise ImportError(
            "rattention needs the OpenMP runtime libgomp.so.1: install it (Debian/Ubuntu: apt-get install "
            "libgomp1; Fedora: dnf install libgomp), or import torch first, which brings one"
        ) from error
    raise

from rattention._config import get_num_threads, set_num_threads, show_config
from rattention._metrics import AttentionMetrics, MetricOptions
from rattention.mechanisms.gravitational import gravitational_attention
from rattention.mechanisms.rattention import rattention
from rattention.mechanisms.rattention_cache import RAttentionCache, rattention_step
from rattention.mechanisms.residual_linear import residual_linear_attention
from rattention.mechanisms.rotary import rotary
from rattention.mechanisms.softmax import attention, attention_map, attention_metrics, attention_rows
from rattention.mechanisms.softmax_family import AttentionResult
from rattention.mechanisms.table import MECHANISMS

if TYPE_CHECKING:
    from rattention.compression import compress as compress
    from rattention.inspect.hooks import capture as capture
    from rattention.inspect.observe import observe as observe
else:

    def __getattr__(name: str) -> object:
        """`capture`, `compress` and `observe`, when they are asked for."""
        if name == "compress":
            from rattention.compression import compress

            return compress
        if name in ("capture", "observe"):
            from rattention import inspect

            return getattr(inspect, name)
        raise AttributeError(f"module 'rattention' has no attribute '{name}'")


__version__: str = _core.__version__

__all__ = [
    "MECHANISMS",
    "AttentionMetrics",
    "AttentionResult",
    "MetricOptions",
    "RAttentionCache",
    "attention",
    "attention_map",
    "attention_metrics",
    "attention_rows",
    "get_num_threads",
    "gravitational_attention",
    "rattention",
    "rattention_step",
    "residual_linear_attention",
    "rotary",
    "set_num_threads",
    "show_config",
]
