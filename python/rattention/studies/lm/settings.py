"""Sizes of models, and how they are trained, measured and timed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from rattention.studies.kit.settings import require_ranges


@dataclass(frozen=True)
class ModelSize:
    """Sizes of the decoder. ValueError where a number is not in its range."""

    dim: int = 128
    """Width of the tokens."""
    heads: int = 4
    """Query heads; key/value heads are as many, or `kv_heads`."""
    kv_heads: int | None = None
    depth: int = 4
    """Layers."""
    mlp_dim: int = 512
    """Width inside the MLPs; mechanisms with more parameters get less, see `matched_mlp`."""
    head_dim: int | None = None
    """None is dim / heads."""
    rope_theta: float = 10_000.0
    """Base of the rotary embedding, where a mechanism has one."""
    qk_norm: bool = False
    """Whether queries and keys are normed, as in the paper's models."""

    def __post_init__(self) -> None:
        require_ranges(
            self, dim=1, heads=1, kv_heads=1, depth=1, mlp_dim=1, head_dim=1, positive=("rope_theta",)
        )
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(f"heads must divide dim, got dim={self.dim} and heads={self.heads}")


@dataclass(frozen=True)
class Training:
    """AdamW with warm-up and a cosine schedule. ValueError where a number is not in its range."""

    context: int = 2048
    """Tokens of a sequence."""
    batch: int = 4
    """Sequences in a step, those of all processes together."""
    steps: int = 500
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    """Learning rates that are tried for every mechanism; the one with the least validation loss is taken."""
    tuning_steps: int = 100
    """Steps of each trial, with a schedule of their own."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    floor: float = 0.1
    """Share of the learning rate with which the schedule ends."""
    weight_decay: float = 0.1
    """On weight matrices alone."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    bfloat16: bool = False
    """Mixed precision: matrices and heads in bfloat16, parameters in float32."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""

    def __post_init__(self) -> None:
        require_ranges(
            self,
            context=8,
            batch=1,
            steps=1,
            tuning_steps=1,
            checkpoint_every=1,
            positive=("clip",),
            not_negative=("weight_decay",),
            shares=("warmup_share", "floor"),
        )
        object.__setattr__(self, "rates", tuple(self.rates))
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise ValueError(f"rates must be one or more numbers > 0, got {self.rates}")

    def rate_at(self, step: int, steps: int, peak: float) -> float:
        """The learning rate of a step, from 0, of a training of `steps`."""
        warmup = math.ceil(self.warmup_share * steps)
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1, steps - warmup)
        return peak * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2)


@dataclass(frozen=True)
class Evaluation:
    """What the loss is measured on."""

    sequences: int = 64
    """Sequences of the test split, or as many as it has."""
    validation_sequences: int = 32
    """Sequences of the validation split by which learning rates are chosen."""
    order: int = 4
    """Tokens of the n-gram whose last occurrence is looked for."""
    positions: int = 32
    """Stretches of the context whose loss is recorded."""

    def __post_init__(self) -> None:
        require_ranges(self, sequences=1, validation_sequences=1, order=1, positions=1)


@dataclass(frozen=True)
class Recall:
    """Multi-query associative recall, see `rattention.studies.lm.mqar`."""

    length: int = 256
    vocabulary: int = 512
    pairs: tuple[int, ...] = (8, 32)
    windows: tuple[int, ...] = (16, 64)
    test_sequences: int = 500
    model: ModelSize = field(default_factory=lambda: ModelSize(dim=64, heads=1, depth=2, mlp_dim=128))
    training: Training = field(
        default_factory=lambda: Training(context=256, batch=64, steps=1000, tuning_steps=400)
    )

    def __post_init__(self) -> None:
        require_ranges(self, length=8, vocabulary=8, test_sequences=1)
        for pairs in self.pairs:
            if not 1 <= pairs <= min(self.length // 4, self.vocabulary // 2 - 1):
                raise ValueError(
                    f"pairs must be from 1 to length / 4 and to vocabulary / 2 - 1, got {pairs} with "
                    f"length={self.length} and vocabulary={self.vocabulary}"
                )
        if self.training.context != self.length:
            raise ValueError(
                f"training.context must be the length, {self.length}, got {self.training.context}"
            )


@dataclass(frozen=True)
class Length:
    """Models evaluated on longer contexts than they were trained on."""

    window: int = 32
    factors: tuple[int, ...] = (1, 2, 4, 8)
    """Contexts as multiples of that of the training."""
    task_share: float = 0.25
    """Share of the sequences of a batch that are tasks, see `rattention.studies.lm.tasks`."""
    samples: int = 50
    """Of every task and context."""

    def __post_init__(self) -> None:
        require_ranges(self, window=0, samples=1, shares=("task_share",))
        _require_each("factors", self.factors, 1)


@dataclass(frozen=True)
class Conversion:
    """A model of full attention is given other layers and trained on."""

    windows: tuple[int, ...] = (16, 32, 64)
    steps: tuple[int, ...] = (0, 50, 200, 800)
    """Steps of training on, each number a training of its own, with its own schedule."""
    rate: float = 1e-3
    """The peak of every schedule, one for all mechanisms."""

    def __post_init__(self) -> None:
        require_ranges(self, positive=("rate",))
        _require_each("windows", self.windows, 1)
        _require_each("steps", self.steps, 0)


@dataclass(frozen=True)
class Cost:
    """What is timed."""

    lengths: tuple[int, ...] = (512, 2048, 4096)
    windows: tuple[int, ...] = (32, 512, 1024)
    tokens: int = 64
    """Tokens that are decoded after each length."""
    repeats: int = 3
    """The least time of so many counts."""

    def __post_init__(self) -> None:
        require_ranges(self, tokens=1, repeats=1)


def _require_each(name: str, given: tuple[int, ...], least: int) -> None:
    if not given or min(given) < least:
        raise ValueError(f"{name} must be one or more whole numbers >= {least}, got {given}")


Level = Literal["bytes", "bpe"]
