"""Mechanisms, sizes of models, and how they are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rattention._arguments import real_number
from rattention.studies.kit.settings import require_ranges

MECHANISMS = {
    "softmax": "Softmax",
    "gravitational": "Gravitational",
    "multi_timescale": "Multi-timescale",
    "gravitational_multi_timescale": "Gravitational multi-timescale",
    "gated_linear": "Gated linear",
    "gated_delta": "Gated delta rule",
    "kda": "Kimi Delta",
    "rattention": "RAttention",
}
"""Mechanisms of `rattention.MECHANISMS` in the order of tables and figures, and their labels there."""

BASELINE = "softmax"
"""The mechanism that others are compared with."""


@dataclass(frozen=True)
class ModelSize:
    """Sizes of the encoder, the same for every mechanism. ValueError where a number is not in its range."""

    dim: int = 128
    """Width of the tokens."""
    heads: int = 4
    """Heads of each timescale, where there are several."""
    depth: int = 2
    """Layers."""
    mlp_dim: int = 512
    """Width inside the MLPs."""
    dropout: float = 0.1
    """Dropout of embeddings and residuals."""
    timescales: tuple[float, ...] = (4.0, 32.0, 256.0)
    """First values of the timescales, in positions, for mechanisms that have several."""
    window: int = 128
    """RAttention's window: how many tokens before itself a token attends to exactly."""
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    """How tokens know where they are."""
    distance: Literal["squared_euclidean", "euclidean", "cosine"] = "squared_euclidean"
    """The distance of the gravitational mechanisms."""
    learn_exponent: bool = False
    """Whether the gravitational mechanisms learn the power of their distance."""
    adaptive_timescales: bool = False
    """Whether tokens move the timescales of the mechanisms that have several."""
    match_parameters: bool = False
    """Give every mechanism as many parameters as softmax attention has, within 10 %."""
    standardize: bool = False
    """Standardise the pooled mean over the batch (batch normalisation) before the classifier. Means of long
    sequences differ little from each other; this makes much of what differs, and training shorter. Batches
    should then be of mixed lengths (`Training.pool`), or evaluation is of other statistics than training."""
    head_dim: int | None = None
    """Width of a head; None is dim / heads."""

    def __post_init__(self) -> None:
        require_ranges(self, dim=1, heads=1, depth=1, mlp_dim=1, window=0, head_dim=1)
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(f"heads must divide dim, got dim={self.dim} and heads={self.heads}")
        if not 0 <= real_number("dropout", self.dropout) < 1:
            raise ValueError(f"dropout must be >= 0 and < 1, got {self.dropout}")
        object.__setattr__(self, "timescales", tuple(self.timescales))
        if not self.timescales or not all(real_number("timescales", t) > 0 for t in self.timescales):
            raise ValueError(f"timescales must be one or more numbers > 0, got {self.timescales}")


@dataclass(frozen=True)
class Training:
    """How models are trained. ValueError where a number is not in its range."""

    batch: int = 32
    """Sequences in a step, those of all processes together."""
    learning_rate: float = 1e-4
    """The learning rate of AdamW after the warm-up."""
    weight_decay: float = 1e-5
    """Weight decay of AdamW, on weight matrices alone."""
    epochs: int = 20
    """The most epochs."""
    patience: int = 10
    """Epochs without a better validation accuracy after which training stops."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after that; linear and cosine fall to 0."""
    pool: int = 50
    """Batches whose sequences are sorted by length together, so that little is padding; 1 mixes lengths."""
    measured: int = 32
    """How many of the longest validation samples have their attention measured after every epoch."""

    def __post_init__(self) -> None:
        require_ranges(
            self,
            batch=1,
            epochs=1,
            patience=1,
            pool=1,
            warmup_steps=0,
            measured=0,
            positive=("learning_rate", "clip"),
            not_negative=("weight_decay",),
        )

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0, of a training of `steps`."""
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        share = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
        return self.learning_rate * share[self.schedule]
