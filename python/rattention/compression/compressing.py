"""`rattention.compress`: the caches of a model held within a budget while it runs, and what that took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import at_least, fields_in_brief
from rattention._models import kind_of
from rattention.compression.past import Budget, require_budget
from rattention.compression.strategies import Strategy, require_strategy


@dataclass(eq=False, repr=False)
class LayerUse:
    """One attention layer, after the last pass through it."""

    name: str
    """Name of its module."""
    seen: int = 0
    """Tokens so far, padding among them."""
    held: int = 0
    """Tokens held, of the longest sequence."""
    nbytes: int = 0
    """Bytes held: keys, values, positions, sizes of clusters and remembered queries. Room for tokens to come
    is at most another quarter, or 16 tokens."""
    full_nbytes: int = 0
    """Bytes that keys and values of all tokens seen would take."""
    cuts: int = 0
    seconds: float = 0.0
    """Spent on choosing and cutting."""
    mass_kept: float | None = None
    """At the last cut: the share of the newest row's attention that stayed, mean of sequences and heads."""
    positions: NDArray[np.int32] | None = None
    """``[batch, kv_heads, kept]``: the tokens that the last cut has kept."""

    def __repr__(self) -> str:
        return fields_in_brief(self, ("name", "seen", "held", "cuts", "mass_kept"))


@dataclass
class Compression:
    """What `rattention.compress` does within its block; filled while the model runs."""

    strategy: Strategy
    budget: Budget
    slack: int
    """Tokens beyond the budget that may pile up one by one before the next cut."""
    layers: list[LayerUse] = field(default_factory=list)
    """One per attention layer whose cache grows with the context, in the order of the modules."""

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def full_nbytes(self) -> int:
        """Bytes that keys and values of all tokens would take."""
        return sum(layer.full_nbytes for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Spent on choosing and cutting."""
        return sum(layer.seconds for layer in self.layers)

    def __str__(self) -> str:
        lines = [f"{'layer':<40}{'seen':>8}{'held':>8}{'cuts':>6}{'mass kept':>11}{'saved':>8}"]
        for layer in self.layers:
            mass = "-" if layer.mass_kept is None else f"{layer.mass_kept:.1%}"
            saved = 1 - layer.nbytes / layer.full_nbytes if layer.full_nbytes else 0.0
            lines.append(
                f"{layer.name:<40}{layer.seen:>8}{layer.held:>8}{layer.cuts:>6}{mass:>11}{saved:>8.0%}"
            )
        lines.append(
            f"{self.nbytes / 2**20:.2f} MiB held, {self.full_nbytes / 2**20:.2f} MiB would be everything"
        )
        return "\n".join(lines)


@contextmanager
def compress(
    model: Any, strategy: Strategy | str, budget: Budget, *, slack: int = 32
) -> Iterator[Compression]:
    """Hold the key/value caches of `model` within a budget in every forward pass of the ``with`` block.

    A pass of several tokens, a prompt, attends to everything held; then each layer's cache is cut to the
    budget. A pass of one token, as in generation, cuts once more than budget plus `slack` tokens are held,
    using the attention of the queries since the last cut (at most 64) instead of the prompt's. Tokens
    keep their true positions. The model is restored at the end, also after an exception.

    Parameters
    ----------
    model:
        A decoder-only model of Transformers whose layers take their attention from ``AttentionInterface``,
        or a model of `rattention.nn` such as `LanguageModel`; on the CPU. Not a `rattention.models.Bert`: an
        encoder has no cache of keys and values.
    strategy:
        A `rattention.compression.Strategy`, or a name in `rattention.compression.STRATEGIES`.
    budget:
        An int is a count of tokens: while there are fewer, all are held. A float in (0, 1] is a share of the
        tokens seen by then; 1.0 changes nothing. Padding does not count.
    slack:
        Tokens beyond the budget before generation cuts again.

    Yields
    ------
    A `Compression`: tokens and bytes held per layer, kept positions, time spent; filled as the model runs.

    Raises
    ------
    TypeError, ValueError
        Arguments of other kinds, unknown strategies, impossible budgets, models without such layers.
    RuntimeError
        The model, or a part of it, is within such a block already, or is being observed or captured.

    Notes
    -----
    Layers whose caches are constant (sliding windows, RAttention) stay as they are, as do those of
    `rattention.nn` whose scores depend on distance or mass. Without a cache (``use_cache=False``) nothing is
    compressed. Transformers' caches that were compressed can be used within such a block only.

    >>> import torch, rattention
    >>> from rattention.nn import LanguageModel
    >>> _ = torch.manual_seed(0)
    >>> model = LanguageModel(100, dim=32, heads=2, depth=2)
    >>> with rattention.compress(model, "recent+received", 16, slack=4) as use:
    ...     text = model.generate(torch.arange(50)[None], 10)
    >>> [layer.held for layer in use.layers], use.layers[0].seen
    ([20, 20], 59)
    """
    compression = Compression(require_strategy(strategy), require_budget(budget), at_least("slack", slack, 0))
    if kind_of(model) == "transformers":
        from rattention.compression.transformers_cache import compressing
    elif kind_of(model) == "torch":
        from rattention.compression.held import compressing
    else:
        bert = hasattr(model, "attention_layers")
        raise TypeError(
            "model must be a transformers.PreTrainedModel or a module of rattention.nn, got "
            f"{type(model).__name__}{': an encoder has no cache of keys and values to compress' * bert}"
        )
    with compressing(model, compression):
        yield compression
