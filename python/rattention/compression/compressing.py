"""`rattention.compress`: the caches of a model held within a budget while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rattention._arguments import at_least
from rattention._models import kind_of
from rattention.compression.budget import Budget, require_budget
from rattention.compression.report import Compression
from rattention.compression.strategies import Strategy, require_strategy


@contextmanager
def compress(
    model: Any, strategy: Strategy | str, budget: Budget, *, slack: int = 32
) -> Iterator[Compression]:
    """Hold the key/value caches of `model` within a budget in every forward pass of the ``with`` block.

    A pass of several tokens, a prompt, attends to everything held; then each layer's cache is cut to the
    budget. A pass of one token, as in generation, cuts where more than budget and `slack` are held by then,
    with the attention of the queries since the last cut (at most 64) in the place of the prompt's. Tokens
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
        from rattention.compression.nn_cache import compressing
    else:
        bert = hasattr(model, "attention_layers")
        raise TypeError(
            "model must be a transformers.PreTrainedModel or a module of rattention.nn, got "
            f"{type(model).__name__}{': an encoder has no cache of keys and values to compress' * bert}"
        )
    with compressing(model, compression):
        yield compression
