"""What a sliding window would cut off: the case for a linear branch (arXiv 2506.15545, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rattention._metrics import MetricOptions
from rattention.mechanisms.softmax import attention_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rattention.studies.degradation.sources import Context

WINDOWS = (8, 16, 32, 64, 128, 256)
"""Window sizes looked at by default, in tokens on either side."""


@dataclass(frozen=True)
class WindowCutoff:
    """Attention that would be lost if every row saw only its `windows[i]` neighbours on either side."""

    sequence_length: int
    windows: tuple[int, ...]
    mass: NDArray[np.float64]
    """Mean over the query rows of the weight farther away than the window, ``[layers, heads, windows]``."""


def measure_window_cutoff(context: Context, windows: Sequence[int] = WINDOWS) -> WindowCutoff:
    """Measure, for every layer and head, how much weight lies beyond each of `windows`."""
    layers: list[NDArray[np.float64]] = []

    def visitor(_layer: int, query: NDArray[np.float32], key: NDArray[np.float32]) -> None:
        layers.append(np.stack([_beyond(query, key, window) for window in windows], axis=-1))

    context.visit(visitor)
    return WindowCutoff(context.sequence_length, tuple(windows), np.stack(layers))


def _beyond(query: NDArray[np.float32], key: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    options = MetricOptions(long_range_distance=window, received=False)
    far: NDArray[np.float64] = (
        attention_metrics(query, key, metrics=options).long_range[0].mean(-1, np.float64)
    )
    return far
