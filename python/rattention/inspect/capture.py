"""What the attention layers of a model attend with: queries, keys and masks, which is all that maps are made
of, in memory that grows with the length and not with its square."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rattention._metrics import MetricOptions
from rattention.mechanisms import gravitational, softmax
from rattention.models import Bert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import ArrayLike, NDArray

    from rattention._metrics import AttentionMetrics

    Visitor = Callable[["LayerAttention"], None]

BY_POSITION = ("query_mass", "key_mass")
"""Options that the gravitational functions take after query and key."""


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """What one attention layer attended with in one forward pass."""

    index: int
    """Of the layer among the model's attention layers, from 0."""
    name: str
    """Of its module in the model."""
    query: NDArray[Any]
    """``[batch, heads, query_length, head_dim]``, as the kernel had it: rotated, and not scaled."""
    key: NDArray[Any]
    """``[batch, kv_heads, key_length, head_dim]``."""
    options: dict[str, Any]
    """Keyword arguments of `rattention.attention` that say what is seen and how it is scored: causal, window,
    scale, key_mask, segment_ids, attn_mask, log_discount, query_offset; of gravitational layers those
    of `rattention.gravitational_attention`, the masses among them. What is not there has its default."""

    def metrics(self, options: MetricOptions | None = None) -> AttentionMetrics:
        """The metrics of every row, ``[batch, heads, query_length]``, streamed."""
        measured = MetricOptions() if options is None else options
        return self._call("metrics", metrics=measured)  # type: ignore[no-any-return]

    def rows(self, rows: ArrayLike) -> NDArray[Any]:
        """The weights of a few query rows, ``[batch, heads, len(rows), key_length]``."""
        return self._call("rows", rows)  # type: ignore[no-any-return]

    def map(
        self,
        shape: tuple[int, int] = (256, 256),
        rows: tuple[int, int] | None = None,
        keys: tuple[int, int] | None = None,
    ) -> NDArray[Any]:
        """The map, or the part of it in the ranges `rows` and `keys`, ``(start, stop)`` each, pooled to at
        most `shape`; see `rattention.attention_map`."""
        return self._call("map", shape=shape, rows=rows, keys=keys)  # type: ignore[no-any-return]

    def _call(self, what: str, *arguments: Any, **more: Any) -> Any:
        options = {name: value for name, value in self.options.items() if name not in BY_POSITION}
        if "query_mass" not in self.options:
            function = getattr(softmax, f"attention_{what}")
            return function(self.query, self.key, *arguments, **options, **more)
        masses = (self.options[name] for name in BY_POSITION)
        function = getattr(gravitational, f"gravitational_{what}")
        return function(self.query, self.key, *masses, *arguments, **options, **more)


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
        A model without attention layers that can be listened to.
    RuntimeError
        The model, or a part of it, is being listened to already.

    Notes
    -----
    Arrays are views of what the model computed with: a sliding static cache of Transformers writes over the
    keys of earlier tokens when later ones come. Of RAttention layers the local branch is recorded: rotated
    queries and keys under the window; the state beside it has no weights to look at.

    >>> import torch
    >>> from rattention.inspect import capture
    >>> from rattention.nn import LanguageModel
    >>> model = LanguageModel(100, dim=32, heads=2, depth=3)
    >>> with torch.no_grad(), capture(model) as seen:
    ...     _ = model(torch.arange(50)[None])
    >>> len(seen), seen[2].name
    (3, 'encoder.layers.2.attention')
    >>> seen[2].metrics().entropy.shape  # batch, heads, tokens
    (1, 2, 50)
    """
    seen: list[LayerAttention] = []
    with visiting(model, seen.append):
        yield seen


def visiting(model: Any, visitor: Visitor) -> AbstractContextManager[None]:
    """Call `visitor` with every `LayerAttention` before the layer attends, and keep nothing.

    Arguments and errors are those of `capture`; an exception of the visitor ends the forward pass.
    """
    if isinstance(model, Bert):
        return _visiting_bert(model, visitor)
    torch = sys.modules.get("torch")  # without PyTorch there are no modules of it
    if torch is not None and isinstance(model, torch.nn.Module):
        from rattention.inspect.torch_models import visiting_module

        return visiting_module(model, visitor)
    raise TypeError(
        "model must be a torch.nn.Module with layers of rattention.nn, a transformers.PreTrainedModel or a "
        f"rattention.models.Bert, got {type(model).__name__}"
    )


@contextmanager
def _visiting_bert(model: Bert, visitor: Visitor) -> Iterator[None]:
    def listen(index: int, query: NDArray[Any], key: NDArray[Any], shown: NDArray[Any] | None) -> None:
        options = {} if shown is None else {"key_mask": shown}
        visitor(LayerAttention(index, f"encoder.layer.{index}.attention.self", query, key, options))

    if model.listener is not None:
        raise RuntimeError(f"{model.name} is being listened to already: leave the other with-block first")
    model.listener = listen
    try:
        yield
    finally:
        model.listener = None
