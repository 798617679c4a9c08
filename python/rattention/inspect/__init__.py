"""The attention microscope: what a model attends to in its history, as numbers, figures and advice.

`capture` records what any model attends with; `examine` measures it on samples, and `advise` says by stated
rules what the numbers mean and which compression of the history they suggest.
"""

from __future__ import annotations

from rattention.inspect.findings import Findings, examine
from rattention.inspect.hooks import LayerAttention, capture, visiting
from rattention.inspect.insights import Insight, Limits, Rules, advise
from rattention.inspect.observe import Observation, observe
from rattention.inspect.statistics import Sample

__all__ = [
    "Findings",
    "Insight",
    "LayerAttention",
    "Limits",
    "Observation",
    "Rules",
    "Sample",
    "advise",
    "capture",
    "examine",
    "observe",
    "visiting",
]
