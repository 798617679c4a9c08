"""What the attention layers of a model attend with: the one place where a model is watched while it runs.

A layer calls its ``attention_hook``, where it has one, in the place of its attention function. `visiting`
sets these hooks in a model of `rattention.nn`, of Transformers or in a `rattention.models.Bert`; `capture`,
`rattention.observe`, `examine` and `rattention.compress` are built on it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention._arguments import fields_in_brief
from rattention._metrics import AttentionMetrics, MetricOptions
from rattention._models import kind_of
from rattention.mechanisms.pooled_map import TOP_COUNT
from rattention.mechanisms.results import TopKeys
from rattention.mechanisms.table import MECHANISMS

Callback = Callable[["LayerAttention"], None]
Hook = Callable[..., Any]


@dataclass(eq=False, repr=False)
class LayerAttention:
    """What one attention layer attends with in one forward pass."""

    index: int
    """Number of the layer among the model's attention layers, from 0."""
    name: str
    """Name of its module in the model."""
    query: NDArray[Any]
    """``[batch, heads, query_length, head_dim]``, as the kernel gets it: rotated, and not scaled."""
    key: NDArray[Any]
    """``[batch, kv_heads, key_length, head_dim]``."""
    options: dict[str, Any]
    """Keyword arguments of `rattention.attention` that say what is visible and how it is scored: causal,
    window, scale, key_mask, segment_ids, attn_mask, log_discount, query_offset; of gravitational layers those
    of `rattention.gravitational_attention`, the masses among them. Options that are missing have their
    defaults."""
    call: partial[Any] | None = None
    """The layer's attention function with its own arguments, tensors or arrays, until the callback returns;
    None in RAttention layers, whose local branch is not computed alone."""
    output: Any = None
    """A callback may put here what the layer uses in the place of its own output."""
    lse: NDArray[Any] | None = None
    """The logarithm of every row's denominator, ``[batch, heads, query_length]``, once `attend` was asked for
    it: the methods below then compute nothing but what they return."""

    def __repr__(self) -> str:
        return fields_in_brief(self, ("index", "name", "query", "key"))

    def attend(self, metrics: MetricOptions | None = None, *, with_lse: bool = False) -> AttentionMetrics:
        """`metrics`, in the same pass as the layer's output where that is possible: within a callback. Also
        sets `lse`, where it is asked for."""
        if self.call is None:
            if with_lse:
                nothing = np.zeros((*self.key.shape[:3], 1), np.float32)
                self.lse = self._measure("forward", value=nothing, return_lse=True).lse
            return self.metrics(metrics)
        result = self.call(metrics=metrics or MetricOptions(), return_lse=with_lse)
        self.output = result.output
        if with_lse:
            self.lse = _plain("lse", result.lse)
        return AttentionMetrics(**{name: _plain(name, values) for name, values in result.metrics})

    def metrics(self, metrics: MetricOptions | None = None) -> AttentionMetrics:
        """The metrics of every row, ``[batch, heads, query_length]``, streamed."""
        return self._measure("metrics", metrics=metrics or MetricOptions())  # type: ignore[no-any-return]

    def rows(self, rows: ArrayLike) -> NDArray[Any]:
        """The weights of a few query rows, ``[batch, heads, len(rows), key_length]``."""
        return self._part("rows", rows=rows)  # type: ignore[no-any-return]

    def map(
        self,
        shape: tuple[int, int] = (256, 256),
        rows: tuple[int, int] | None = None,
        keys: tuple[int, int] | None = None,
    ) -> NDArray[Any]:
        """The map, or the part of it in the ranges `rows` and `keys`, ``(start, stop)`` each, pooled to at
        most `shape`; see `rattention.attention_map`."""
        return self._part("map", shape=shape, rows=rows, keys=keys)  # type: ignore[no-any-return]

    def segments(self, query_edges: ArrayLike, key_edges: ArrayLike) -> NDArray[Any]:
        """What segments of rows give to segments of keys; see `rattention.attention_segments`."""
        return self._part("segments", query_edges=query_edges, key_edges=key_edges)  # type: ignore[no-any-return]

    def top_keys(self, k: int = TOP_COUNT, rows: tuple[int, int] | None = None) -> TopKeys[NDArray[Any]]:
        """The keys that each row weighs most; see `rattention.attention_top_keys`."""
        return self._part("top_keys", k=k, rows=rows)  # type: ignore[no-any-return]

    def distances(self, edges: ArrayLike) -> NDArray[Any]:
        """The mass by distance, ``[batch, heads, len(edges) - 1]``; see `rattention.attention_distances`."""
        return self._part("distances", edges=edges)  # type: ignore[no-any-return]

    def _part(self, what: str, **asked: Any) -> Any:
        return self._measure(what, lse=self.lse, **asked)

    def _measure(self, what: str, **more: Any) -> Any:
        """The mechanism's function of that name in the table."""
        mechanism = MECHANISMS["gravitational" if "query_mass" in self.options else "softmax"]
        return getattr(mechanism.functions, what)(query=self.query, key=self.key, **self.options, **more)


@contextmanager
def capture(model: Any) -> Iterator[list[LayerAttention]]:
    """Record what the attention layers of `model` attend with in every forward pass within the block.

    Parameters
    ----------
    model:
        A module with layers of `rattention.nn`, a model of Transformers whose layers take their attention
        from ``AttentionInterface``, or a `rattention.models.Bert`; on the CPU.

    Yields
    ------
    A list that fills with one `LayerAttention` per layer and forward pass, in the order of the calls. Memory
    is that of queries and keys; `visiting` keeps none.

    Raises
    ------
    TypeError
        `model` is something else.
    ValueError
        A model without such attention layers.
    RuntimeError
        The model, or a part of it, is within such a block of `visiting`, `capture`, `rattention.observe` or
        `rattention.compress` already.

    Notes
    -----
    Arrays are views of what the model computed with: a sliding static cache of Transformers writes over the
    keys of earlier tokens when later ones come. Of RAttention layers the local branch is recorded: rotated
    queries and keys under the window; the state beside it has no weights to look at. Layers that are a state
    alone (`GatedLinear`, `GLA`, `GatedDelta`, `KimiDelta`) are passed over and not counted.

    >>> import torch
    >>> from rattention.inspect import capture
    >>> from rattention.nn import LanguageModel
    >>> model = LanguageModel(100, dim=32, heads=2, depth=3)
    >>> with torch.no_grad(), capture(model) as seen:
    ...     _ = model(torch.arange(50)[None])
    >>> seen[2]
    LayerAttention(index=2, name='encoder.layers.2.attention', query=float32[1, 2, 50, 16], \
key=float32[1, 2, 50, 16])
    >>> seen[2].metrics().entropy.shape  # batch, heads, tokens
    (1, 2, 50)
    """
    seen: list[LayerAttention] = []
    with visiting(model, seen.append):
        yield seen


@contextmanager
def visiting(model: Any, callback: Callback) -> Iterator[None]:
    """Call `callback` with every `LayerAttention` before the layer attends, and keep nothing.

    Arguments and errors are those of `capture`; an exception of the callback ends the forward pass.
    """
    layers = attention_layers(model)
    hooks = {layer: _hook(i, name, callback) for i, (name, layer) in enumerate(layers.items())}
    carriers = [layer for layer in hooks if has_hook(layer)]
    calling: AbstractContextManager[None] = nullcontext()
    if kind_of(model) == "transformers" and any(map(takes_implementation, hooks)):  # not all were converted
        from rattention.inspect.pretrained import calling_hooks

        calling = calling_hooks(model)
    with alone(model, hooks), calling:
        for layer in carriers:
            layer.attention_hook = hooks[layer]
        try:
            yield
        finally:
            for layer in carriers:
                layer.attention_hook = None


def attention_layers(model: Any) -> dict[str, Any]:
    """The attention layers of `model` by name, in the order of its modules; errors as in `capture`."""
    kind = kind_of(model)
    if kind in ("torch", "transformers"):
        foreign = kind == "transformers"
        parts = model.named_modules()
        layers = {n: part for n, part in parts if has_hook(part) or (foreign and takes_implementation(part))}
        if not layers:
            other = "that take their attention from Transformers' AttentionInterface"
            ours = "of rattention.nn with a map of weights"
            raise ValueError(f"{type(model).__name__} has no attention layers {other if foreign else ours}")
        return layers
    if not hasattr(model, "attention_layers"):
        raise TypeError(
            "model must be a torch.nn.Module with layers of rattention.nn, a transformers.PreTrainedModel or "
            f"a rattention.models.Bert, got {type(model).__name__}"
        )
    return model.attention_layers()  # type: ignore[no-any-return]


def takes_implementation(module: Any) -> bool:
    """Whether a module of Transformers takes its attention from the ``AttentionInterface``."""
    from rattention.hf.interface import calls_interface

    return calls_interface(module)


def has_hook(layer: Any) -> bool:
    """Whether a layer calls its ``attention_hook``."""
    return "attention_hook" in vars(layer)


_OCCUPIED: WeakKeyDictionary[Any, Hook | None] = WeakKeyDictionary()
"""Models and their modules that are within a block, and the hooks of those that cannot carry their own."""
_LOCK = threading.Lock()


@contextmanager
def alone(model: Any, hooks: dict[Any, Hook] | None = None) -> Iterator[None]:
    """Hold `model` and its parts for this block alone; RuntimeError if another block holds any of them."""
    modules = model.modules() if hasattr(model, "modules") else (model,)
    parts = {part: (hooks or {}).get(part) for part in modules}
    with _LOCK:
        if any(part in _OCCUPIED for part in parts):
            raise RuntimeError(
                f"this {type(model).__name__}, or a part of it, is being observed, captured or compressed "
                "already: leave the other with-block first"
            )
        _OCCUPIED.update(parts)
    try:
        yield
    finally:
        for part in parts:
            del _OCCUPIED[part]


def hook_of(layer: Any) -> Hook | None:
    """The hook of a layer that carries none itself."""
    return _OCCUPIED.get(layer)


def _hook(index: int, name: str, callback: Callback) -> Hook:
    def hook(function: Any, query: Any, key: Any, value: Any, options: dict[str, Any]) -> Any:
        call = None if function is None else partial(function, query, key, value, **options)
        given = {n: _plain(n, option) for n, option in options.items() if option is not None}
        layer = LayerAttention(index, name, _plain("query", query), _plain("key", key), given, call)
        callback(layer)
        output = call() if layer.output is None and call is not None else layer.output
        layer.call = layer.output = None  # a callback that keeps the layer keeps no values and no gradients
        return output

    return hook


def _plain(name: str, value: Any) -> Any:
    """Tensors as arrays: numbers per head and masks that are added as float32, which everything can read."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    if value.device.type != "cpu":
        raise ValueError(f"attention is looked into on the CPU only, the model is on {value.device}")
    from rattention.torch.checks import as_array

    added = name == "attn_mask" and value.is_floating_point()
    return as_array(value.float() if value.dim() == 1 or added else value)
