"""Trainable modules: self-attention with every mechanism, transformers, generation at constant memory.

    >>> import torch
    >>> from rattention.nn import LanguageModel, rattention_pattern
    >>> model = LanguageModel(256, dim=32, heads=2, depth=4, pattern=rattention_pattern(window=16))
    >>> tokens = torch.randint(256, (1, 100))
    >>> logits = model(tokens)  # [batch, length, vocabulary]
    >>> loss = torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
    >>> loss.backward()
    >>> model.generate(tokens, 5).shape
    torch.Size([1, 105])

Dropout is on embeddings and residuals. Dropout on attention weights is not supported: the weights are never
stored, and a kernel that drops some would need the same random numbers again in its backward pass.
"""

from __future__ import annotations

from rattention import _extras

_extras.require("torch")

from rattention.nn.attention import SelfAttention
from rattention.nn.calibration import begin_as_windows
from rattention.nn.decoding import DecodingCache
from rattention.nn.mechanisms import (
    GLA,
    GatedDelta,
    GatedLinear,
    Gravitational,
    GravitationalMultiTimescale,
    KimiDelta,
    MultiTimescale,
    RAttention,
    SlidingWindow,
    Softmax,
    rattention_pattern,
)
from rattention.nn.models import LanguageModel, TransformerEncoder, count_parameters

__all__ = [
    "GLA",
    "DecodingCache",
    "GatedDelta",
    "GatedLinear",
    "Gravitational",
    "GravitationalMultiTimescale",
    "KimiDelta",
    "LanguageModel",
    "MultiTimescale",
    "RAttention",
    "SelfAttention",
    "SlidingWindow",
    "Softmax",
    "TransformerEncoder",
    "begin_as_windows",
    "count_parameters",
    "rattention_pattern",
]
