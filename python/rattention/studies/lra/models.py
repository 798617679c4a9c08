"""One classifier for every mechanism of the comparison: all that differs is how its layers attend."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rattention._arguments import at_least
from rattention.mechanisms.table import MECHANISMS as TABLE
from rattention.nn import TransformerEncoder, count_parameters
from rattention.nn.mechanisms import Mechanism, as_mechanism
from rattention.nn.weights import load_model, save_model
from rattention.studies.kit.settings import require_name
from rattention.studies.lra.settings import BASELINE, MECHANISMS, ModelSize

if TYPE_CHECKING:
    import os

MATCHED_WITHIN = 0.1
"""Largest difference in parameters to softmax attention that counts as matched."""

HEAD_DIM_STEP = 4
"""Matched head sizes are multiples of this: others leave vector registers half empty."""


def mechanism_of(name: str, size: ModelSize) -> Mechanism:
    """The mechanism of a model's layers, with the options in `size` that concern it."""
    require_name("mechanism", name, MECHANISMS)
    options: dict[str, Any] = {"mechanism": name}
    if name == "rattention":
        options["window"] = size.window
    if "multi_timescale" in name:
        options |= {"timescales": size.timescales, "adaptive": size.adaptive_timescales}
    if "gravitational" in name:
        options |= {"distance": size.distance, "learn_exponent": size.learn_exponent}
    return as_mechanism(options)


class SequenceClassifier(nn.Module):
    """Embedding and positions, an encoder, the mean over what is no padding, and a linear classifier.

    Parameters
    ----------
    vocabulary:
        Number of tokens, with 0 for padding.
    classes:
        Number of labels.
    mechanism:
        A name in `rattention.studies.lra.MECHANISMS`. RAttention and the gated
        ones are causal; all others see both sides.
    size:
        The sizes; with ``match_parameters`` those that `matched_size` gives.
    length:
        The most tokens of a sequence.

    Raises
    ------
    ValueError
        An unknown mechanism, or sizes that do not fit each other.

    Examples
    --------
    >>> import torch
    >>> from rattention.studies.lra import ModelSize, SequenceClassifier
    >>> model = SequenceClassifier(16, 10, "gravitational", ModelSize(dim=32, heads=2, mlp_dim=64), 100)
    >>> tokens, lengths = torch.randint(1, 16, (2, 50)), torch.tensor([50, 30])
    >>> model(tokens, lengths)["logits"].shape
    torch.Size([2, 10])
    """

    def __init__(
        self, vocabulary: int, classes: int, mechanism: str, size: ModelSize | dict[str, Any], length: int
    ) -> None:
        super().__init__()
        size = ModelSize(**size) if isinstance(size, dict) else size
        if size.match_parameters:
            size = matched_size(vocabulary, classes, mechanism, size, length)
        at_least("vocabulary", vocabulary, 2)
        at_least("classes", classes, 2)
        at_least("length", length, 1)
        self.length = length
        self.settings = {
            "vocabulary": vocabulary,
            "classes": classes,
            "mechanism": mechanism,
            "size": asdict(size),
            "length": length,
        }
        layers = mechanism_of(mechanism, size)
        self.tokens = nn.Embedding(vocabulary, size.dim)
        self.positions = nn.Embedding(length, size.dim) if size.positions == "learned" else None
        if self.positions is not None:
            self.positions.weight.data.copy_(sinusoids(length, size.dim))
        self.dropout = nn.Dropout(size.dropout)
        self.encoder = TransformerEncoder(
            size.dim,
            size.heads,
            size.depth,
            pattern=layers,
            causal=TABLE[layers.name].causal_only,
            head_dim=size.head_dim,
            mlp_dim=size.mlp_dim,
            dropout=size.dropout,
        )
        self.pooled = _Standardized(size.dim) if size.standardize else nn.Identity()
        self.head = nn.Linear(size.dim, classes)
        self._sinusoidal = size.positions == "sinusoidal"

    def forward(
        self, tokens: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Logits of the classes, and the loss where there are labels.

        Parameters
        ----------
        tokens:
            ``[batch, length]`` integers, padding after the sequences.
        lengths:
            ``[batch]``, the length of each sequence, >= 1.
        labels:
            ``[batch]``.

        Returns
        -------
        ``{"logits": [batch, classes]}``, and ``"loss"``, the mean cross entropy in nats, with labels.
        """
        longest = tokens.shape[1]
        if longest > self.length:
            raise ValueError(f"the model takes {self.length} tokens at most, got {longest}")
        shown = torch.arange(longest, device=tokens.device) < lengths[:, None]
        x: torch.Tensor = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[:longest]
        elif self._sinusoidal:
            x = x + sinusoids(self.length, x.shape[2])[:longest].to(x)
        x = self.encoder(self.dropout(x), None if bool(shown.all()) else shown)
        mean = (x * shown[..., None]).sum(dim=1) / lengths[:, None]
        logits = self.head(self.pooled(mean))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration to a safetensors file, whole or not at all."""
        save_model(self, self.settings, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SequenceClassifier:
        """The model in a file that `save` wrote; WeightsError names the fault of any other file."""
        return load_model(cls, path)


class _Standardized(nn.BatchNorm1d):
    """Batch normalisation that takes a batch of one by what it has seen before, also in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, dim]`` to the same."""
        if self.training and len(x) == 1:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)
        y: torch.Tensor = super().forward(x)
        return y


@lru_cache(maxsize=4)
def sinusoids(length: int, dim: int) -> torch.Tensor:
    """Sines in the even columns and cosines in the odd ones, of wavelengths from 2 pi to 10,000 times that,
    ``[length, dim]`` (arXiv 1706.03762, section 3.5)."""
    with torch.device("cpu"):
        position = torch.arange(length, dtype=torch.float64)[:, None]
        rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10_000.0) / dim))
        table = torch.zeros(length, dim, dtype=torch.float64)
        table[:, 0::2] = torch.sin(position * rate)
        table[:, 1::2] = torch.cos(position * rate[: dim // 2])
        return table.float()


def parameters(vocabulary: int, classes: int, mechanism: str, size: ModelSize, length: int) -> dict[str, int]:
    """Numbers of parameters by part, as `rattention.nn.count_parameters` gives them, without any memory."""
    with torch.device("meta"):
        return count_parameters(SequenceClassifier(vocabulary, classes, mechanism, size, length))


def matched_size(vocabulary: int, classes: int, mechanism: str, size: ModelSize, length: int) -> ModelSize:
    """A size with which a mechanism has as many parameters as softmax attention has with `size`.

    Timescales share the width: the head size becomes the multiple of 4 nearest to a share of it. What is then
    still more than 10 % off is taken from or given to the MLP. Where the MLP is not wide enough for that it
    becomes as narrow as one unit, and `mismatch` says how much is left.
    """
    size = replace(size, match_parameters=False)
    wanted = parameters(vocabulary, classes, BASELINE, size, length)["total"]
    if "multi_timescale" in mechanism:
        share = (size.head_dim or size.dim // size.heads) / len(size.timescales)
        size = replace(size, head_dim=max(1, round(share / HEAD_DIM_STEP)) * HEAD_DIM_STEP)
    have = parameters(vocabulary, classes, mechanism, size, length)["total"]
    if abs(have - wanted) > MATCHED_WITHIN * wanted:
        units = round((wanted - have) / (2 * size.dim * size.depth))
        size = replace(size, mlp_dim=max(1, size.mlp_dim + units))
    return size


def mismatch(vocabulary: int, classes: int, mechanism: str, size: ModelSize, length: int) -> float:
    """By how much the parameters exceed those of softmax attention, relative to these."""
    plain = replace(size, match_parameters=False)
    wanted = parameters(vocabulary, classes, BASELINE, plain, length)["total"]
    return parameters(vocabulary, classes, mechanism, size, length)["total"] / wanted - 1
