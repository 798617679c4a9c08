"""The attention microscope: what a model attends to in its history, as numbers, figures and advice.

`capture` records what any model attends with.
"""

from __future__ import annotations

from rattention.microscope.capture import LayerAttention, capture, visiting

__all__ = ["LayerAttention", "capture", "visiting"]
