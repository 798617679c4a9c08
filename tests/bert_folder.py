"""Small random BERTs on disk, and the same model by its definition: NumPy, float64, every map stored."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rattention._metrics import reference_metrics

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN_TOLERANCE = 2e-4
METRIC_TOLERANCE = 1e-4
"""How far hidden states and metrics may be from a reference, absolutely."""

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "dog",
    "##s",
    "##ing",
    "run",
    "sleep",
    ".",
    ",",
    "?",
    "caf",
    "##e",
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "hidden_size": 24,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "vocab_size": len(VOCABULARY),
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}


def shapes(config: dict[str, Any], labels: int = 0) -> dict[str, tuple[int, ...]]:
    """Names as ``BertModel`` saves them; with labels, also those of a classifier."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    names: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    modules: dict[str, tuple[int, ...]] = {"pooler.dense": (hidden, hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        modules |= {f"{layer}.attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")}
        modules |= {
            f"{layer}.attention.output.dense": (hidden, hidden),
            f"{layer}.attention.output.LayerNorm": (hidden,),
        }
        modules |= {f"{layer}.intermediate.dense": (wide, hidden), f"{layer}.output.dense": (hidden, wide)}
        modules |= {f"{layer}.output.LayerNorm": (hidden,)}
    if labels:
        modules["classifier"] = (labels, hidden)
    for name, shape in modules.items():
        names |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return names


def random_weights(config: dict[str, Any], labels: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights large enough for attention to differ from uniform."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) * 0.3 + ("LayerNorm.weight" in name)).astype(np.float32)
        for name, shape in shapes(config, labels).items()
    }


def write_folder(
    folder: Path, config: dict[str, Any] | None = None, weights: dict[str, np.ndarray] | None = None
) -> Path:
    """A model folder with ``config.json``, ``model.safetensors`` and ``vocab.txt``."""
    from safetensors.numpy import save_file

    config = CONFIG if config is None else config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    save_file(random_weights(config) if weights is None else weights, folder / "model.safetensors")
    return folder


@dataclass
class Reference:
    """Everything a forward pass computes, in float64."""

    hidden_states: list[np.ndarray]
    weights: list[np.ndarray]
    """Attention maps ``[batch, heads, length, length]``, one per layer."""
    pooler_output: np.ndarray
    logits: np.ndarray | None


def reference_bert(
    config: dict[str, Any],
    weights: dict[str, np.ndarray],
    ids: np.ndarray,
    types: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Reference:
    """Devlin et al. 2018 as ``transformers`` lays it out."""
    model = _ReferenceBert(config, {name: w.astype(np.float64) for name, w in weights.items()})
    types = np.zeros_like(ids) if types is None else types
    mask = np.ones(ids.shape, bool) if mask is None else mask
    return model.run(ids, types, mask)


class _ReferenceBert:
    def __init__(self, config: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        self.config, self.weights = config, weights

    def run(self, ids: np.ndarray, types: np.ndarray, mask: np.ndarray) -> Reference:
        tables = {
            name: self.weights[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        }
        x = tables["word"][ids] + tables["token_type"][types] + tables["position"][: ids.shape[1]]
        states, maps = [self.norm(x, "embeddings.LayerNorm")], []
        for i in range(self.config["num_hidden_layers"]):
            state, attention = self.layer(states[-1], f"encoder.layer.{i}", mask)
            states.append(state)
            maps.append(attention)
        pooled = np.tanh(self.dense(states[-1][:, 0], "pooler.dense"))
        logits = self.dense(pooled, "classifier") if "classifier.weight" in self.weights else None
        return Reference(states, maps, pooled, logits)

    def layer(self, x: np.ndarray, name: str, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        context, attention = self.attend(x, f"{name}.attention.self", mask)
        x = self.norm(
            x + self.dense(context, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        wide = ACTIVATIONS[self.config["hidden_act"]](self.dense(x, f"{name}.intermediate.dense"))
        return self.norm(x + self.dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm"), attention

    def attend(self, x: np.ndarray, name: str, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q, k, v = (self.split(self.dense(x, f"{name}.{part}")) for part in ("query", "key", "value"))
        scores = np.where(mask[:, None, None, :], q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3]), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ v).swapaxes(1, 2).reshape(x.shape), weights

    def split(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:2], self.config["num_attention_heads"], -1).swapaxes(1, 2)

    def dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = np.sqrt(x.var(-1, keepdims=True) + self.config["layer_norm_eps"])
        return (x - x.mean(-1, keepdims=True)) / scale * self.weights[f"{name}.weight"] + self.weights[
            f"{name}.bias"
        ]


def gelu(x: np.ndarray) -> np.ndarray:
    """``x`` times the standard normal distribution's cumulative density."""
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """The approximation of `gelu` by tanh."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: np.ndarray) -> np.ndarray:
    """``x`` times its logistic function."""
    return x / (1 + np.exp(-x))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": silu,
}


def assert_agrees(got, want, mask):
    """Hidden states where there are tokens; what stands at padded positions means nothing."""
    for ours, theirs in zip(got.hidden_states, want.hidden_states, strict=True):
        np.testing.assert_allclose(ours[mask], theirs[mask], atol=HIDDEN_TOLERANCE, rtol=0)
    np.testing.assert_array_equal(got.last_hidden_state, got.hidden_states[-1])
    np.testing.assert_allclose(got.pooler_output, want.pooler_output, atol=HIDDEN_TOLERANCE, rtol=0)


def assert_same_metrics(got, maps, mask, options):
    assert len(got) == len(maps)
    for measured, weights in zip(got, maps, strict=True):
        assert_same_layer_metrics(measured, weights.astype(np.float64), mask, options)


def assert_same_layer_metrics(measured, weights, mask, options):
    visible = np.broadcast_to(mask[:, None, None, :], weights.shape)
    positions = np.arange(weights.shape[2])
    want = dict(reference_metrics(np.where(visible, weights, 0), visible, positions, options))
    rows = np.broadcast_to(mask[:, None, :], weights.shape[:3])
    got = dict(measured)
    assert got.keys() == want.keys()
    for name in got.keys() - {"max_position"}:
        # The ratio has no bound, and float32 no absolute precision for large numbers.
        relative = METRIC_TOLERANCE if name == "recent_distant_ratio" else 0
        np.testing.assert_allclose(
            got[name][rows], want[name][rows], atol=METRIC_TOLERANCE, rtol=relative, err_msg=name
        )
    largest = np.take_along_axis(weights, got["max_position"][..., None], 3)[..., 0]
    np.testing.assert_allclose(largest[rows], want["max_weight"][rows], atol=METRIC_TOLERANCE)
