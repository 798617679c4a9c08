"""The parts of a BERT: weights from a checkpoint, arithmetic in the C++ core.

Hidden states are rows ``[batch * length, width]``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention import _core
from rattention._metrics import AttentionMetrics, MetricOptions
from rattention.mechanisms.results import AttentionResult
from rattention.mechanisms.softmax import attention
from rattention.models.bert_config import ACTIVATIONS, BertConfig
from rattention.models.folder import WeightsError
from rattention.models.weights import Checkpoint, open_tensors

_ENCODER = ("embeddings.", "encoder.", "pooler.")
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def open_bert(folder: Path, config: BertConfig) -> Checkpoint:
    """The checkpoint in `folder`, checked to be the encoder of `config`; names lose the prefix ``bert.``.

    Heads for other tasks are left alone; anything unknown inside the encoder is refused, because the encoder
    would compute something else without it.
    """
    tensors = open_tensors(folder)
    names = {_canonical(name): name for name in tensors}
    if len(names) < len(tensors):
        twice = sorted(set(tensors) - set(names.values()))
        raise WeightsError(f"{folder} holds some tensors in two spellings: {', '.join(twice)}")
    checkpoint = Checkpoint(str(folder), {name: tensors[stored] for name, stored in names.items()})
    expected = _expected_shapes(config, checkpoint)
    inside = (name for name in names if name.startswith(_ENCODER) and name not in _BUFFERS)
    checkpoint.check(expected, unexpected=(name for name in inside if name not in expected))
    return checkpoint


def _expected_shapes(config: BertConfig, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor the model reads, with its shape; pooler and classifier only where there are any."""
    hidden, wide = config.hidden_size, config.intermediate_size
    tables = {
        "word": config.vocab_size,
        "position": config.max_positions,
        "token_type": config.type_vocab_size,
    }
    layer: dict[str, tuple[int, ...]] = {
        **{f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")},
        "attention.output.dense": (hidden, hidden),
        "attention.output.LayerNorm": (hidden,),
        "intermediate.dense": (wide, hidden),
        "output.dense": (hidden, wide),
        "output.LayerNorm": (hidden,),
    }
    modules: dict[str, tuple[int, ...]] = {"embeddings.LayerNorm": (hidden,)}
    for i in range(config.layers):
        modules |= {f"encoder.layer.{i}.{name}": shape for name, shape in layer.items()}
    if checkpoint.has_any("pooler.dense"):
        modules["pooler.dense"] = (hidden, hidden)
    if has_classifier(config, checkpoint):
        stored = checkpoint.tensors.get("classifier.weight")
        labels = stored.shape[0] if stored and stored.shape else 0
        modules["classifier"] = (max(labels, 1), hidden)
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{kind}_embeddings.weight": (rows, hidden) for kind, rows in tables.items()
    }
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def has_classifier(config: BertConfig, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint classifies sequences; a ``classifier`` of tokens has no pooler beside it."""
    heads = ("pooler.dense", "classifier")
    return config.sequence_classifier and all(checkpoint.has_any(name) for name in heads)


def _canonical(name: str) -> str:
    """Task checkpoints prefix the encoder with ``bert.``; early ones, from TensorFlow, say gamma and beta."""
    plain = name.removeprefix("bert.")
    return plain.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def dense(checkpoint: Checkpoint, *names: str, activation: str = "none") -> _core.Linear:
    """One dense layer; several names are stacked, so that their products share one pass over the input."""
    weight = np.concatenate([checkpoint.read(f"{name}.weight") for name in names])
    bias = np.concatenate([checkpoint.read(f"{name}.bias") for name in names])
    return _core.Linear(weight, bias, getattr(_core.Activation, activation))


def layer_norm(checkpoint: Checkpoint, name: str, config: BertConfig) -> Callable[..., NDArray[np.float32]]:
    """Layer norm over the last axis, of an input ``[rows, width]`` or of the sum of two."""
    weight, bias = (checkpoint.read(f"{name}.{part}") for part in ("weight", "bias"))
    return lambda x, residual=None: _core.layer_norm(x, weight, bias, config.layer_norm_eps, residual)


class Embeddings:
    """Words, positions and token types, summed and normalised."""

    def __init__(self, checkpoint: Checkpoint, config: BertConfig) -> None:
        self._words, self._positions, self._types = (
            checkpoint.read(f"embeddings.{kind}_embeddings.weight")
            for kind in ("word", "position", "token_type")
        )
        self._norm = layer_norm(checkpoint, "embeddings.LayerNorm", config)

    def __call__(
        self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Both ``[batch, length]``; ValueError for an id outside its table."""
        batch, length = input_ids.shape
        lookups = [
            ("input_ids", self._words, input_ids.reshape(-1)),
            ("token_type_ids", self._types, token_type_ids.reshape(-1)),
            ("positions", self._positions, np.tile(np.arange(length), batch)),
        ]
        return self._norm(_core.embedding_sum(lookups))


class Layer:
    """Self-attention and a two-layer perceptron, each added to its input and normalised."""

    def __init__(self, checkpoint: Checkpoint, config: BertConfig, index: int) -> None:
        prefix = f"encoder.layer.{index}"
        output = f"{prefix}.attention.output"
        self._heads, self._head_dim = config.heads, config.head_dim
        self._qkv = dense(
            checkpoint, *(f"{prefix}.attention.self.{name}" for name in ("query", "key", "value"))
        )
        self._attention_output = dense(checkpoint, f"{output}.dense")
        self._attention_norm = layer_norm(checkpoint, f"{output}.LayerNorm", config)
        self._expand = dense(
            checkpoint, f"{prefix}.intermediate.dense", activation=ACTIVATIONS[config.activation]
        )
        self._contract = dense(checkpoint, f"{prefix}.output.dense")
        self._norm = layer_norm(checkpoint, f"{prefix}.output.LayerNorm", config)
        self.attention_hook: Callable[..., Any] | None = None
        """Called as ``attention_hook(function, query, key, value, options)`` in the place of the function;
        function and value are None where the call measures metrics itself."""

    def __call__(
        self,
        hidden: NDArray[np.float32],
        batch: int,
        key_mask: NDArray[np.bool_] | None,
        metrics: MetricOptions | None,
    ) -> tuple[NDArray[np.float32], AttentionMetrics | None]:
        """The next hidden states of `batch` sequences, and what was measured on the attention."""
        qkv = self._qkv(hidden).reshape(batch, -1, 3, self._heads, self._head_dim)
        query, key, value = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        result = self._attend(query, key, value, metrics, {"key_mask": key_mask})
        output, measured = (
            (result.output, result.metrics) if isinstance(result, AttentionResult) else (result, None)
        )
        # With one text and heads of width 1 the reshaped view would not be contiguous.
        context = np.ascontiguousarray(output.transpose(0, 2, 1, 3).reshape(hidden.shape))
        hidden = self._attention_norm(self._attention_output(context), hidden)
        return self._norm(self._contract(self._expand(hidden)), hidden), measured

    def _attend(
        self, query: Any, key: Any, value: Any, metrics: MetricOptions | None, options: dict[str, Any]
    ) -> Any:
        if self.attention_hook is not None and metrics is None:
            return self.attention_hook(attention, query, key, value, options)
        if self.attention_hook is not None:
            self.attention_hook(None, query, key, None, options)
        return attention(query, key, value, metrics=metrics, **options)
