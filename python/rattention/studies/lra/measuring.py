"""What is measured of a model: what it attends to, and the memory it takes."""

from __future__ import annotations

import ctypes
import gc
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention._files import json_ready, replacing
from rattention._metrics import MetricOptions
from rattention._models import evaluating
from rattention.inspect.hooks import has_hook, visiting
from rattention.mechanisms.masks import window_bounds
from rattention.studies.lra.data import collate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rattention.inspect.hooks import LayerAttention
    from rattention.studies.lra.data import Split
    from rattention.studies.lra.models import SequenceClassifier

METRICS = (
    "entropy",
    "local_concentration",
    "long_range",
    "retention",
    "context_mean",
    "context_std",
    "recent_distant_ratio",
    "max_weight",
)
"""Of `rattention.AttentionMetrics`, those that are recorded per layer and head."""

MEASURED = MetricOptions(received=False)

MAP_SHAPE = (64, 64)


def attention_by_head(model: SequenceClassifier, split: Split, samples: int) -> list[dict[str, Any]]:
    """Metrics of every layer and head: means over the rows of each of the longest samples, and over these.

    They are streamed; nothing of size n x n is stored. None where a metric has no value in any row, and for
    ``long_range`` where no row sees a key so far away. Of RAttention the local branch is measured, and
    mechanisms without a map have no lines. Each line says how many samples were measured (``samples``) and
    how many tokens these have (``shortest``, ``longest``).
    """
    pandas, seen = require("pandas"), []

    def visit(layer: LayerAttention) -> None:
        means = {name: _mean_of_numbers(values[0]) for name, values in layer.metrics(MEASURED)}
        if _farthest(layer) <= MEASURED.long_range_distance:
            means["long_range"].fill(np.nan)
        seen.append(pandas.DataFrame(means, columns=METRICS).assign(layer=layer.index))

    chosen = longest_samples(split, samples)
    for index in chosen:
        _run(model, split, int(index), visit)
    if not seen:
        return []
    means = pandas.concat(seen).rename_axis("head").groupby(["layer", "head"]).mean().reset_index()
    lengths = split.lengths[chosen]
    rest = {"samples": len(chosen), "shortest": int(lengths.min()), "longest": int(lengths.max())}
    return [json_ready(line) | rest for line in means.to_dict("records")]


def longest_samples(split: Split, count: int) -> NDArray[np.int64]:
    """Places of the `count` longest samples, or of all, the longest first: in short ones nothing is far."""
    return np.argsort(-split.lengths, kind="stable")[:count]


def _farthest(layer: LayerAttention) -> int:
    """Positions between a query row and the farthest key that one may see."""
    last = int(layer.key.shape[2]) - 1
    reaches = window_bounds(layer.options.get("window"), bool(layer.options.get("causal")))
    return max(last if reach is None else min(last, reach) for reach in reaches)


def save_maps(model: SequenceClassifier, split: Split, path: Path) -> None:
    """Write the maps of the first sample, ``layer0`` and so on ``[heads, rows, keys]``, pooled to at most
    64 x 64; none of mechanisms that have no maps."""
    maps: dict[str, NDArray[np.float32]] = {}

    def visit(layer: LayerAttention) -> None:
        maps[f"layer{layer.index}"] = np.ascontiguousarray(layer.map(shape=MAP_SHAPE)[0], dtype=np.float32)

    _run(model, split, 0, visit)
    with replacing(path) as temporary:
        require("safetensors.numpy").save_file(maps, temporary)


def _run(model: SequenceClassifier, split: Split, index: int, visit: Any) -> None:
    """The model on one sample, without dropout, if `visit` can see any of its layers."""
    if not any(has_hook(layer) for layer in model.encoder.attention_layers()):
        return
    inputs = collate(split, np.array([index]))
    with evaluating(model), visiting(model, visit):
        model(inputs["tokens"], inputs["lengths"])


def _mean_of_numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of each row without NaN; NaN where there is nothing else."""
    numbers = np.ma.array(values, mask=np.isnan(values))
    return np.asarray(np.ma.filled(numbers.mean(axis=1, dtype=np.float64), np.nan))


class PeakMemory:
    """The most resident memory of this process since this object was made.

    Where the system does not let the peak be forgotten it is that of the process since its start.
    """

    def __init__(self, before: int = 0) -> None:
        self.before = before
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)  # memory that earlier runs have freed does not count
            Path("/proc/self/clear_refs").write_text("5")
        except (OSError, AttributeError):
            pass

    def bytes(self) -> int:
        """The peak so far."""
        try:
            _, _, text = Path("/proc/self/status").read_text("utf-8").partition("VmHWM:")
            kibibytes = int(text.split()[0])
        except (OSError, IndexError):
            kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return max(self.before, 1024 * kibibytes)
