"""What each strategy of compression would keep of a document, layer by layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rattention.compression.past import Attention, Past, resolve_budget
from rattention.compression.strategies import STRATEGIES
from rattention.explorer.reading import Reading
from rattention.inspect.hooks import LayerAttention

SHOWN = tuple(name for name, strategy in STRATEGIES.items() if not strategy.replaces)
"""Strategies that drop tokens and replace none, in the order of the table."""


def kept_share(
    reading: Reading, received: list[NDArray[np.float32]], name: str, budget: float
) -> tuple[NDArray[np.float32], float]:
    """What a strategy keeps within a share of the tokens.

    Parameters
    ----------
    received:
        Of every layer, ``[heads, tokens]``.

    Returns
    -------
    For each token the share of the key/value heads of all layers that keep it, ``[tokens]``; and the share of
    the newest row's attention that is kept, the mean over layers and heads.
    """
    shares, held, heads = np.zeros(len(reading.document)), [], 0
    for layer, own in zip(reading.layers, received, strict=True):
        past = _past(layer, own)
        kept = STRATEGIES[name].keep(past, resolve_budget(budget, len(past))).indices
        np.add.at(shares, kept.ravel(), 1)
        heads += len(kept)
        held.append(np.take_along_axis(past.attention("query"), kept, axis=1).sum(axis=1).mean())
    return (shares / heads).astype(np.float32), float(np.mean(held))


def _past(layer: LayerAttention, received: NDArray[np.float32]) -> Past:
    groups, length = layer.query.shape[1] // layer.key.shape[1], layer.key.shape[2]

    def measure(kind: Attention) -> NDArray[np.float32]:
        each = received if kind == "received" else layer.rows([length - 1])[0, :, 0]
        return np.asarray(each.reshape(-1, groups, length).mean(axis=1), np.float32)

    unseen = np.broadcast_to(np.float32(0), layer.key.shape[1:])  # none of these strategies looks at keys
    return Past(unseen, measure=measure)
