"""The shape of a BERT, from its ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rattention._arguments import FLOAT32_MAX, brief
from rattention.models.folder import WeightsError, read_json_object

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Names in ``config.json`` and the core's activation of the same formula."""

_CLASSIFIER = "BertForSequenceClassification"
_SIZES = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "type_vocab_size": "type_vocab_size",
}
_MOST_LAYERS = 10_000
"""The names of all layers' weights are listed before any is looked for."""


@dataclass(frozen=True)
class BertConfig:
    """Sizes and choices of a BERT encoder."""

    layers: int
    heads: int
    hidden_size: int
    intermediate_size: int
    max_positions: int
    """Longest sequence, special tokens counted."""
    vocab_size: int
    type_vocab_size: int
    layer_norm_eps: float
    activation: str
    """A name of `ACTIVATIONS`."""
    pad_token_id: int
    sequence_classifier: bool
    """Whether a ``classifier`` among the weights works on the pooled output of the whole sequence."""

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.heads


def read_config(path: Path) -> BertConfig:
    """The configuration in `path`; WeightsError lists everything in it that does not fit a BERT encoder."""
    if not path.is_file():
        raise WeightsError(f"{path.parent} is no model folder: it holds no {path.name}")
    raw = read_json_object(path)
    faults = [*_other_architecture(raw), *_bad_sizes(raw), *_bad_choices(raw)]
    if faults:
        raise WeightsError(f"{path}: " + "; ".join(faults))
    architectures = raw.get("architectures") or [_CLASSIFIER]
    return BertConfig(
        **{name: raw[key] for name, key in _SIZES.items()},
        layer_norm_eps=float(raw.get("layer_norm_eps", 1e-12)),
        activation=raw.get("hidden_act", "gelu"),
        pad_token_id=raw.get("pad_token_id") or 0,
        sequence_classifier=_CLASSIFIER in architectures,
    )


def _other_architecture(raw: dict[str, Any]) -> list[str]:
    """Early checkpoints name no model_type: then the names of the weights decide."""
    faults = [
        f"{key} is {brief(raw[key])}, and only {runs!r} can be run"
        for key, runs in (("model_type", "bert"), ("position_embedding_type", "absolute"))
        if raw.get(key, runs) != runs
    ]
    decoder = (key for key in ("is_decoder", "add_cross_attention") if raw.get(key))
    return faults + [f"{key} is set: only encoders can be run" for key in decoder]


def _bad_sizes(raw: dict[str, Any]) -> list[str]:
    faults = [
        f"{key} must be a whole number > 0, got {brief(raw.get(key))}"
        for key in _SIZES.values()
        if isinstance(raw.get(key), bool) or not isinstance(raw.get(key), int) or not 0 < raw[key] < 2**31
    ]
    if not faults and raw["num_hidden_layers"] > _MOST_LAYERS:
        faults.append(f"num_hidden_layers must be at most {_MOST_LAYERS}, got {raw['num_hidden_layers']}")
    if not faults and raw["hidden_size"] % raw["num_attention_heads"]:
        faults.append(
            f"hidden_size ({raw['hidden_size']}) must be a multiple of "
            f"num_attention_heads ({raw['num_attention_heads']})"
        )
    return faults


def _bad_choices(raw: dict[str, Any]) -> list[str]:
    faults = []
    eps = raw.get("layer_norm_eps", 1e-12)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps <= FLOAT32_MAX:
        faults.append(f"layer_norm_eps must be a number >= 0, got {brief(eps)}")
    activation = raw.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        faults.append(f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {brief(activation)}")
    if not isinstance(raw.get("architectures") or [], list):
        faults.append(f"architectures must be a list, got {brief(raw['architectures'])}")
    pad = raw.get("pad_token_id") or 0
    words = raw.get("vocab_size")
    most = words if isinstance(words, int) else 2**31
    if isinstance(pad, bool) or not isinstance(pad, int) or not 0 <= pad < most:
        faults.append(f"pad_token_id must be a token's id, below vocab_size, got {brief(pad)}")
    return faults
