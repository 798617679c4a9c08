"""The parts of a BERT: weights from a checkpoint, arithmetic in the C++ core.

Hidden states are rows ``[batch * length, width]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import _core
from rattention.mechanisms.softmax import attention
from rattention.mechanisms.softmax_family import AttentionResult
from rattention.models.bert_config import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rattention._metrics import AttentionMetrics, MetricOptions
    from rattention.models.bert_config import BertConfig
    from rattention.models.weights import Checkpoint

    Hook = Callable[..., Any]


def dense(checkpoint: Checkpoint, *names: str, activation: str = "none") -> _core.Linear:
    """One dense layer; several names are stacked, so that their products share one pass over the input."""
    weight = np.concatenate([checkpoint.read(f"{name}.weight") for name in names])
    bias = np.concatenate([checkpoint.read(f"{name}.bias") for name in names])
    return _core.Linear(weight, bias, getattr(_core.Activation, activation))


class LayerNorm:
    """Layer norm over the last axis, of an input or of the sum of two."""

    def __init__(self, checkpoint: Checkpoint, name: str, eps: float) -> None:
        """Reads weight and bias."""
        self._weight = checkpoint.read(f"{name}.weight")
        self._bias = checkpoint.read(f"{name}.bias")
        self._eps = eps

    def __call__(
        self, x: NDArray[np.float32], residual: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """``x`` and ``residual`` are ``[rows, width]``."""
        normed: NDArray[np.float32] = _core.layer_norm(x, self._weight, self._bias, self._eps, residual)
        return normed


class Embeddings:
    """Words, positions and token types, summed and normalised."""

    def __init__(self, checkpoint: Checkpoint, config: BertConfig) -> None:
        """Reads the three tables."""
        self._words = checkpoint.read("embeddings.word_embeddings.weight")
        self._positions = checkpoint.read("embeddings.position_embeddings.weight")
        self._types = checkpoint.read("embeddings.token_type_embeddings.weight")
        self._norm = LayerNorm(checkpoint, "embeddings.LayerNorm", config.layer_norm_eps)

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


@dataclass(frozen=True)
class Request:
    """What every layer of one forward pass is asked for."""

    batch: int
    key_mask: NDArray[np.bool_] | None
    metrics: MetricOptions | None


class Layer:
    """Self-attention and a two-layer perceptron, each added to its input and normalised."""

    def __init__(self, checkpoint: Checkpoint, config: BertConfig, index: int) -> None:
        """Reads layer `index`."""
        prefix = f"encoder.layer.{index}"
        self._heads, self._head_dim = config.heads, config.head_dim
        self._qkv = dense(
            checkpoint, *(f"{prefix}.attention.self.{name}" for name in ("query", "key", "value"))
        )
        self._attention_output = dense(checkpoint, f"{prefix}.attention.output.dense")
        self._attention_norm = LayerNorm(
            checkpoint, f"{prefix}.attention.output.LayerNorm", config.layer_norm_eps
        )
        self._expand = dense(
            checkpoint, f"{prefix}.intermediate.dense", activation=ACTIVATIONS[config.activation]
        )
        self._contract = dense(checkpoint, f"{prefix}.output.dense")
        self._norm = LayerNorm(checkpoint, f"{prefix}.output.LayerNorm", config.layer_norm_eps)
        self.attention_hook: Hook | None = None
        """Called as ``attention_hook(function, query, key, value, options)`` in the place of the function;
        function and value are None where the call measures metrics itself."""

    def __call__(
        self, hidden: NDArray[np.float32], request: Request
    ) -> tuple[NDArray[np.float32], AttentionMetrics | None]:
        """The next hidden states, and what was measured on the attention."""
        context, measured = self._attend(hidden, request)
        hidden = self._attention_norm(self._attention_output(context), hidden)
        return self._norm(self._contract(self._expand(hidden)), hidden), measured

    def _attend(
        self, hidden: NDArray[np.float32], request: Request
    ) -> tuple[NDArray[np.float32], AttentionMetrics | None]:
        qkv = self._qkv(hidden).reshape(request.batch, -1, 3, self._heads, self._head_dim)
        query, key, value = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        options: dict[str, Any] = {"key_mask": request.key_mask}
        result: Any
        if self.attention_hook is not None and request.metrics is None:
            result = self.attention_hook(attention, query, key, value, options)
        else:
            if self.attention_hook is not None:
                self.attention_hook(None, query, key, None, options)
            result = attention(query, key, value, metrics=request.metrics, **options)
        output, measured = (
            (result.output, result.metrics) if isinstance(result, AttentionResult) else (result, None)
        )
        # With one text and heads of width 1 the reshaped view would not be contiguous.
        return np.ascontiguousarray(output.transpose(0, 2, 1, 3).reshape(hidden.shape)), measured
