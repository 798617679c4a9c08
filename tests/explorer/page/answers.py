"""Answers for the page, computed by the definitions from weights that are stored or have a formula."""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRICS = [
    {"name": "entropy", "label": "Entropy", "unit": "nats", "help": "How spread a row is."},
    {"name": "local", "label": "Local share", "unit": "share", "help": "Mass on near keys."},
]
Answer = tuple[dict[str, Any], "dict[str, NDArray[Any]]"]


def pack(values: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """The wire format: header length, header, arrays from a multiple of 8 on."""
    about, parts, offset = {}, [], 0
    for name, array in arrays.items():
        part = np.ascontiguousarray(array).tobytes()
        about[name] = {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "offset": offset,
            "length": array.size,
        }
        parts.append(part + bytes(-len(part) % 8))
        offset += len(parts[-1])
    header = json.dumps({"values": values, "arrays": about}).encode()
    header += b" " * (-(4 + len(header)) % 8)
    return struct.pack("<I", len(header)) + header + b"".join(parts)


class Text:
    """A text cut into tokens: tags, at most four letters, signs; one beyond 16 bits counts as two."""

    def __init__(self, text: str) -> None:
        self.text = text
        spans: list[tuple[int, int]] = [(0, 0)]
        for found in re.finditer(r" ?\w{1,4}|<[^>]*>| ?[^\w\s]|\s", text):
            times = 2 if any(ord(sign) > 0xFFFF for sign in found.group()) else 1
            spans += [found.span()] * times
        units = np.cumsum([0] + [2 if ord(sign) > 0xFFFF else 1 for sign in text])
        self.starts = units[[a for a, _ in spans]].astype(np.int32)
        self.ends = units[[b for _, b in spans]].astype(np.int32)
        begins = [i for i, (a, b) in enumerate(spans) if a == b or not text[a].isalnum()]
        self.words = np.array([i for i in begins if i == 0 or spans[i] != spans[i - 1]], np.int32)
        self.sentences = np.array([0], np.int32)
        self.count = len(spans)


class Answers:
    """What a server would answer. Weights [layers, heads, n, n], or None: each row attends evenly."""

    generated: int | None = None
    """The first token that the model wrote."""
    parts: tuple[int, ...] = ()
    """The tokens at which parts begin."""

    def __init__(self, text: str, weights: NDArray[np.float64] | None = None) -> None:
        self.text = Text(text)
        self.weights = weights
        self.layers, self.heads = (1, 1) if weights is None else weights.shape[:2]

    def of(self, layer: str, head: str) -> NDArray[np.float64]:
        """The map [n, n] of one head, or of a mean."""
        assert self.weights is not None
        kept = self.weights.mean(0) if layer == "mean" else self.weights[int(layer)]
        chosen: NDArray[np.float64] = kept.mean(0) if head == "mean" else kept[int(head)]
        return chosen

    def document(self) -> Answer:
        text = self.text
        values = {
            "title": "A text",
            "reading": "of the test",
            "model": "stored weights",
            "text": text.text,
            "tokens": text.count,
            "layers": self.layers,
            "heads": self.heads,
            "causal": True,
            "windows": [None] * self.layers,
            "sinks": [0],
            "metrics": METRICS,
            "choices": None,
            "live": False,
            "conversation": False,
            "examples": [],
            "remarks": [],
            "generated": self.generated,
            "parts": list(self.parts),
            "how": "greedy",
            "state": "ready",
        }
        arrays = {
            "starts": text.starts,
            "ends": text.ends,
            "words": text.words,
            "sentences": text.sentences,
        }
        return values, arrays

    def grid(self) -> Answer:
        values = np.arange(2 * self.layers * self.heads).reshape(2, self.layers, self.heads)
        return {}, {"values": values.astype(np.float32)}

    def overview(self, layer: str, head: str) -> Answer:
        n = self.text.count
        if self.weights is None:
            received = np.cumsum(1 / np.arange(n, 0, -1))[::-1] / np.arange(n, 0, -1)
        else:
            received = self.of(layer, head).sum(0) / np.arange(n, 0, -1)
        first = n if self.generated is None else self.generated
        edges = np.append(np.linspace(0, first, 11), np.arange(first + 1, n + 1)).astype(np.int32)
        curves = np.arange(2 * (len(edges) - 1), dtype=np.float32).reshape(2, -1)
        return {}, {"received": received.astype(np.float32), "curves": curves, "edges": edges}

    def map(self, layer: str, head: str, rows: str, keys: str, shape: str) -> Answer:
        n = self.text.count
        if self.weights is None:
            return {"rows": [0, n], "keys": [0, n]}, {"weights": np.full((1, 1), 1 / n, np.float32)}
        (a, b), (c, d) = (tuple(map(int, part.split(","))) for part in (rows, keys))
        part = self.of(layer, head)[a:b, c:d].astype(np.float32)
        return {"rows": [a, b], "keys": [c, d]}, {"weights": part}

    def reads(self, layer: str, head: str, start: str, stop: str) -> Answer:
        first, last = int(start), int(stop)
        if self.weights is None:
            return {}, {"reads": ((np.arange(self.text.count) < first) / first).astype(np.float32)}
        return {}, {"reads": self.of(layer, head)[first:last].mean(0).astype(np.float32)}

    def readers(self, layer: str, head: str, start: str, stop: str) -> Answer:
        first, last = int(start), int(stop)
        if self.weights is None:
            return {}, {"readers": (np.arange(self.text.count) < first).astype(np.float32)}
        return {}, {"readers": self.of(layer, head)[:, first:last].sum(1).astype(np.float32)}


def stored(text: str, layers: int = 2, heads: int = 3) -> Answers:
    """A text with causal softmax weights of random scores, and a sink at token 0."""
    n = Text(text).count
    scores = np.random.default_rng(7).normal(0, 2, (layers, heads, n, n))
    scores[..., 0] += 4
    scores[..., np.triu_indices(n, 1)[0], np.triu_indices(n, 1)[1]] = -np.inf
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return Answers(text, exponentials / exponentials.sum(-1, keepdims=True))
