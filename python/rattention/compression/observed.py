"""Tokens before a model: chosen by what all of its layers and heads attend to, taken together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention.compression.past import Past
from rattention.inspect import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rattention.compression.past import Attention
    from rattention.compression.strategies import Strategy
    from rattention.inspect import LayerAttention


def observed_past(
    model: Any,
    run: Callable[[], Any],
    shape: tuple[int, int],
    strategy: Strategy,
    *,
    first: int = 0,
    query_row: int = -1,
) -> Past:
    """Tokens that `model` sees in ``run()``, each sequence in the place of a head.

    Parameters
    ----------
    model:
        What `rattention.inspect.capture` takes.
    run:
        One forward pass; not called where `strategy` looks at positions alone.
    shape:
        ``(batch, tokens)``; what the model sees besides, such as a query, is not chosen.
    first:
        The position of the first of these tokens.
    strategy:
        What the past is for.
    query_row:
        Whose attention counts as the query's.

    Returns
    -------
    A `Past` whose attention is the mean over layers and heads, and whose keys are those of all layers and
    heads side by side.
    """
    batch, tokens = shape
    if not (strategy.needs_queries or strategy.replaces):
        return Past(np.zeros((batch, tokens, 0), np.float32))
    with capture(model) as layers:
        run()

    these = slice(first, first + tokens)

    def measure(kind: Attention) -> NDArray[np.float32]:
        parts = [_attention(layer, kind, query_row)[..., these].mean(axis=1) for layer in layers]
        return np.asarray(np.mean(parts, axis=0), np.float32)

    keys = [_side_by_side(layer.key[:, :, these]) for layer in layers] if strategy.replaces else []
    empty = np.zeros((batch, tokens, 0), np.float32)
    return Past(np.concatenate([empty, *keys], axis=2), measure=measure)


def _attention(layer: LayerAttention, kind: Attention, query_row: int) -> NDArray[np.float32]:
    """``[batch, heads, tokens]``."""
    if kind == "query":
        return layer.rows([query_row])[:, :, 0]
    received = layer.metrics().received
    assert received is not None
    return received


def _side_by_side(key: NDArray[Any]) -> NDArray[np.float32]:
    """``[batch, kv_heads, tokens, dim]`` to ``[batch, tokens, kv_heads * dim]``."""
    batch, _, tokens, _ = key.shape
    return key.transpose(0, 2, 1, 3).reshape(batch, tokens, -1).astype(np.float32)
