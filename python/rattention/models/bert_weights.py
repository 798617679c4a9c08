"""The names under which a BERT's tensors are stored, in the spellings that checkpoints have had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rattention.models.errors import WeightsError
from rattention.models.weights import Checkpoint, open_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from rattention.models.bert_config import BertConfig

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
    expected = expected_shapes(config, checkpoint)
    inside = (name for name in names if name.startswith(_ENCODER) and name not in _BUFFERS)
    checkpoint.check(expected, unexpected=(name for name in inside if name not in expected))
    return checkpoint


def expected_shapes(config: BertConfig, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor the model reads, with its shape; pooler and classifier only where there are any."""
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_positions, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
        **_norm("embeddings.LayerNorm", hidden),
    }
    for i in range(config.layers):
        shapes |= _layer(f"encoder.layer.{i}", config)
    if has_any(checkpoint, "pooler.dense"):
        shapes |= _dense("pooler.dense", hidden, hidden)
    if has_classifier(config, checkpoint):
        shapes |= _dense("classifier", _labels(checkpoint), hidden)
    return shapes


def has_any(checkpoint: Checkpoint, module: str) -> bool:
    """Whether the checkpoint has tensors of a module."""
    return any(name.startswith(f"{module}.") for name in checkpoint.names())


def has_classifier(config: BertConfig, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint classifies sequences; a ``classifier`` of tokens has no pooler beside it."""
    return (
        config.sequence_classifier
        and has_any(checkpoint, "pooler.dense")
        and has_any(checkpoint, "classifier")
    )


def _labels(checkpoint: Checkpoint) -> int:
    shape = checkpoint.shape("classifier.weight") if "classifier.weight" in checkpoint else ()
    return shape[0] if shape and shape[0] > 0 else 1


def _layer(prefix: str, config: BertConfig) -> dict[str, tuple[int, ...]]:
    hidden, wide = config.hidden_size, config.intermediate_size
    return {
        **_dense(f"{prefix}.attention.self.query", hidden, hidden),
        **_dense(f"{prefix}.attention.self.key", hidden, hidden),
        **_dense(f"{prefix}.attention.self.value", hidden, hidden),
        **_dense(f"{prefix}.attention.output.dense", hidden, hidden),
        **_norm(f"{prefix}.attention.output.LayerNorm", hidden),
        **_dense(f"{prefix}.intermediate.dense", wide, hidden),
        **_dense(f"{prefix}.output.dense", hidden, wide),
        **_norm(f"{prefix}.output.LayerNorm", hidden),
    }


def _dense(name: str, out_features: int, in_features: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out_features, in_features), f"{name}.bias": (out_features,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _canonical(name: str) -> str:
    """Task checkpoints prefix the encoder with ``bert.``; early ones, from TensorFlow, say gamma and beta."""
    plain = name.removeprefix("bert.")
    return plain.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
