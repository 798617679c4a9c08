"""What a page may ask about a reading, and the answers: `Explorer.ask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import signature
from secrets import token_hex
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import brief
from rattention.explorer.background import Background
from rattention.explorer.compression import SHOWN, kept_share
from rattention.explorer.labels import METRICS, STRATEGIES
from rattention.explorer.params import choice, pair, share, span
from rattention.explorer.reading import Reading
from rattention.explorer.received import mean_received
from rattention.explorer.views import Views
from rattention.explorer.wire import Answer

MOST_PIXELS = 2048
"""Along a side of a map that is asked for."""
SINK_PLACES = 4
"""Attention sinks are looked for among as many first tokens."""
SINK_SHARE = 0.05
"""They receive at least this share of the attention of the last rows, on average over layers and heads."""
LAST_ROWS = 8
SHORT = 16
"""Tokens of a document in which a share says nothing."""


class Explorer:
    """Answers about one reading; threads may share it.

    What takes a sweep over all maps is computed in the background, layer by layer, once `background` is
    started; averages over layers are those of the layers that are done.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.name = token_hex(8)
        """Unlike that of any other: a server tells by it which reading a page shows."""
        self.background = Background(reading)
        self._views = Views(reading)
        self.questions: Mapping[str, Callable[..., Answer]] = {
            "document": self._document,
            "progress": self.background.progress,
            "grid": self._grid,
            "overview": self._overview,
            "map": self._map,
            "reads": self._reads,
            "readers": self._readers,
            "window": self._window,
            "compression": self._compression,
        }

    def ask(self, question: str, params: Mapping[str, str] | None = None) -> Answer:
        """The answer to a question of the page: plain values and arrays.

        ValueError names a question or a parameter that is none. The questions are ``document``,
        ``progress``, ``grid``, ``overview`` (layer, head), ``map`` (layer, head, rows, keys, shape),
        ``reads`` and ``readers`` (layer, head, start, stop), ``window`` and ``compression`` (budget); layer
        and head are numbers or ``mean``.
        """
        if question not in self.questions:
            raise ValueError(f"question must be one of {', '.join(self.questions)}; got {brief(question)}")
        asked, given = self.questions[question], dict(params or {})
        expected = tuple(signature(asked).parameters)
        if set(given) != set(expected):
            raise ValueError(f"{question} takes {', '.join(expected) or 'nothing'}; got {', '.join(given)}")
        return asked(**given)

    def _document(self) -> Answer:
        reading, document = self.reading, self.reading.document
        starts, ends = np.ascontiguousarray(document.utf16.T)
        return {
            "title": document.title,
            "model": reading.model,
            "text": document.text,
            "tokens": len(document),
            "layers": len(reading.layers),
            "heads": reading.heads,
            "causal": all(bool(layer.options.get("causal")) for layer in reading.layers),
            "windows": [_window_of(layer.options) for layer in reading.layers],
            "sinks": self._sinks,
            "metrics": [
                {"name": name, "label": label, "unit": unit, "help": help}
                for name, (label, unit, help) in METRICS.items()
            ],
            "choices": None,
            "live": True,
            "conversation": False,
            "examples": [],
            "remarks": list(document.remarks),
            "generated": document.generated,
            "parts": list(document.parts),
            "how": document.how,
            "state": self.background.state,
            "starts": starts,
            "ends": ends,
            "words": document.words,
            "sentences": document.sentences,
        }

    @cached_property
    def _sinks(self) -> list[int]:
        """Tokens at the beginning that receive much from the last rows; none in a short document."""
        length = len(self.reading.document)
        if length <= SHORT:
            return []
        row = self._views.reads(None, None, length - LAST_ROWS, length)
        return [int(i) for i in np.flatnonzero(row[:SINK_PLACES] >= SINK_SHARE)]

    def _grid(self) -> Answer:
        means = self.reading.means
        values = np.full((len(METRICS), len(means), self.reading.heads), np.nan, np.float32)
        for layer, mean in enumerate(means):
            values[:, layer, : mean.shape[1]] = mean
        return {"values": values}

    def _overview(self, layer: str, head: str) -> Answer:
        chosen = self._choice(layer, head)
        curves = [_heads_of(one, chosen[1]) for one in self._curves(chosen[0])]
        return {
            "received": mean_received(self.background.received(chosen[0]), chosen[1]),
            "curves": _mean_of([curve.mean(axis=1) for curve in curves if curve.shape[1]]),
            "edges": self.reading.edges.astype(np.int32),
        }

    def _curves(self, layer: int | None) -> list[NDArray[np.float32]]:
        return self.reading.curves if layer is None else [self.reading.curves[layer]]

    def _map(self, layer: str, head: str, rows: str, keys: str, shape: str) -> Answer:
        length = len(self.reading.document)
        parts = span("rows", rows, length), span("keys", keys, length)
        size = pair("shape", shape, 1, MOST_PIXELS)
        weights, shown_rows, shown_keys = self._views.map(*self._choice(layer, head), *parts, size)
        return {"rows": shown_rows, "keys": shown_keys, "weights": weights}

    def _reads(self, layer: str, head: str, start: str, stop: str) -> Answer:
        return {"reads": self._views.reads(*self._choice(layer, head), *self._selection(start, stop))}

    def _readers(self, layer: str, head: str, start: str, stop: str) -> Answer:
        return {"readers": self._views.readers(*self._choice(layer, head), *self._selection(start, stop))}

    def _selection(self, start: str, stop: str) -> tuple[int, int]:
        return span("start, stop", f"{start},{stop}", len(self.reading.document))

    def _window(self) -> Answer:
        edges = np.array([1 << i for i in range(len(self.reading.document).bit_length())])
        lost = [lost_beyond(layer, edges) for layer in self.reading.layers]
        return {"edges": edges.astype(np.int32), "lost": np.stack(lost).astype(np.float32)}

    def _compression(self, budget: str) -> Answer:
        kept, listed = [], []
        received, part = self.background.all_received(), share("budget", budget)
        for name in SHOWN:
            shares, held = kept_share(self.reading, received, name, part)
            kept.append(shares >= 0.5)
            listed.append({"name": name, **STRATEGIES[name]._asdict(), "held": held})
        return {"strategies": listed, "kept": np.stack(kept).astype(np.uint8)}

    def _choice(self, layer: str, head: str) -> tuple[int | None, int | None]:
        chosen = choice("layer", layer, len(self.reading.layers))
        return chosen, choice("head", head, self.reading.heads_of(chosen))


def lost_beyond(layer: Any, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of a layer's attention at distances above `sizes`: what windows of these sizes would cut
    off, on average over heads."""
    beyond = max(layer.key.shape[2], int(sizes[-1]) + 1) + 1
    mass = layer.distances([*(sizes + 1).tolist(), beyond])[0].mean(axis=0)
    return np.cumsum(mass[::-1], dtype=np.float64)[::-1]


def _heads_of(curves: NDArray[np.float32], head: int | None) -> NDArray[np.float32]:
    """Curves ``[metrics, heads, bins]`` of one head, or of all; of none where there is no such head."""
    return curves if head is None else curves[:, head : head + 1]


def _window_of(options: Mapping[str, Any]) -> int | None:
    window = options.get("window")
    return max(window) if isinstance(window, tuple) else window


def _mean_of(curves: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean over layers, of those that have a number."""
    stacked = np.stack(curves)
    there = ~np.isnan(stacked)
    total = np.where(there, stacked, 0).sum(axis=0, dtype=np.float64)
    return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan).astype(np.float32)
