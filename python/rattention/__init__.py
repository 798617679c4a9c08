"""Attention for CPUs: exact and windowed kernels in C++, and metrics of every attention map without storing
one.

``import rattention as ra``; arrays are ``[batch, heads, length, head_dim]``. The functions here take NumPy
arrays and need NumPy alone:

- `attention`, `gravitational_attention`, `residual_linear_attention`, `gated_linear_attention`,
  `gated_delta_rule`, `rattention`: the mechanisms; the last three decode with `GatedDeltaCache` and
  `gated_linear_step` or `gated_delta_step`, with `RAttentionCache` and `rattention_step`; `rotary` turns
  queries and keys.
- `attention_metrics`, `attention_rows`, `attention_map`, `attention_segments`, `attention_top_keys`,
  `attention_distances`: what an attention map looks like.
- `MECHANISMS`: the table of all mechanisms; their gradients are in `rattention.mechanisms`.

What else there is, and the extra that installs it:

- `rattention.torch`: the same functions on tensors, differentiable, and a drop-in for PyTorch's
  ``scaled_dot_product_attention`` (``rattention[torch]``);
- `rattention.nn`: modules, language models, generation (``rattention[torch]``);
- `rattention.hf`: models of Transformers on these kernels, and their conversion (``rattention[hf]``);
- `rattention.inspect`, with `observe` and `capture`: what a model attends to (``rattention[inspect]``);
- `rattention.explorer`, with `explore`: a page to walk through the attention of a long document
  (``rattention[explore]``);
- `rattention.compression`, with `compress`: smaller key/value caches (``rattention[inspect]``);
- `rattention.models`: pretrained BERT without PyTorch (``rattention[models]``);
- `rattention.studies`: the comparisons in the documentation, repeated (``rattention[studies]``).
"""

from __future__ import annotations

from importlib import import_module
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
from rattention.mechanisms.gated_delta import gated_delta_rule
from rattention.mechanisms.gated_delta_cache import GatedDeltaCache, gated_delta_step, gated_linear_step
from rattention.mechanisms.gated_linear import gated_linear_attention
from rattention.mechanisms.gravitational import gravitational_attention
from rattention.mechanisms.rattention import rattention
from rattention.mechanisms.rattention_cache import RAttentionCache, rattention_step
from rattention.mechanisms.residual_linear import residual_linear_attention
from rattention.mechanisms.results import AttentionResult, LinearResult, TopKeys
from rattention.mechanisms.rotary import rotary
from rattention.mechanisms.softmax import attention, attention_metrics
from rattention.mechanisms.softmax_maps import (
    attention_distances,
    attention_map,
    attention_rows,
    attention_segments,
    attention_top_keys,
)
from rattention.mechanisms.table import MECHANISMS

if TYPE_CHECKING:
    from rattention.compression import compress as compress
    from rattention.explorer import explore as explore
    from rattention.inspect.hooks import capture as capture
    from rattention.inspect.observe import observe as observe

_LAZY = {
    "capture": "rattention.inspect",
    "compress": "rattention.compression",
    "explore": "rattention.explorer",
    "observe": "rattention.inspect",
}
"""Public names that need optional packages, by module: imported when they are first used."""

__version__: str = _core.__version__

__all__ = [
    "MECHANISMS",
    "AttentionMetrics",
    "AttentionResult",
    "GatedDeltaCache",
    "LinearResult",
    "MetricOptions",
    "RAttentionCache",
    "TopKeys",
    "attention",
    "attention_distances",
    "attention_map",
    "attention_metrics",
    "attention_rows",
    "attention_segments",
    "attention_top_keys",
    "capture",
    "compress",
    "explore",
    "gated_delta_rule",
    "gated_delta_step",
    "gated_linear_attention",
    "gated_linear_step",
    "get_num_threads",
    "gravitational_attention",
    "observe",
    "rattention",
    "rattention_step",
    "residual_linear_attention",
    "rotary",
    "set_num_threads",
    "show_config",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module 'rattention' has no attribute '{name}'")
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
