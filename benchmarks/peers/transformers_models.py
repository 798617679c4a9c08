"""Models of Transformers in the shapes of published ones, with few layers and random weights.

The vocabulary is cut to 1,024 entries, and there is no language-modelling head, which a prefill computes for
one token alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.machine import available_bytes
from benchmarks.peers.pytorch import load
from benchmarks.race import Runner

if TYPE_CHECKING:
    from benchmarks.race import Answer, Setup

VOCABULARY = 1024
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
OURS, SDPA = "rattention", "sdpa"


@dataclass(frozen=True)
class Shape:
    """A model: its configuration, what a quick run changes of it, and what makes it a model of one layer."""

    title: str
    config: str
    sizes: dict[str, Any]
    quick: dict[str, Any] = field(default_factory=dict)
    one_layer: dict[str, Any] = field(default_factory=lambda: {"num_hidden_layers": 1})
    windowed: bool = False
    """Whether Transformers gives SDPA a table of queries by keys."""


SMALL = {"hidden_size": 128, "intermediate_size": 256}
SHAPES = {
    "llama": Shape(
        "Llama-3.2-1B, 2 layers",
        "LlamaConfig",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 2,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        SMALL,
    ),
    "qwen3": Shape(
        "Qwen3-0.6B, 2 layers",
        "Qwen3Config",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 2,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        SMALL,
    ),
    "gemma3": Shape(
        "Gemma-3-270M, 6 layers, 5 with window 512",
        "Gemma3TextConfig",
        {
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "max_position_embeddings": 32768,
        },
        SMALL | {"sliding_window": 64},
        {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
        windowed=True,
    ),
    "modernbert": Shape(
        "ModernBERT-base, 3 layers, 2 with window 128",
        "ModernBertConfig",
        {
            "hidden_size": 768,
            "intermediate_size": 1152,
            "num_hidden_layers": 3,
            "num_attention_heads": 12,
            "local_attention": 128,
            "max_position_embeddings": 32768,
        },
        one_layer={"num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
        windowed=True,
    ),
}


def prepared(
    setup: Setup, name: str, implementation: str, *, dtype: str = "float32", batch: int = 1, **changes: Any
) -> tuple[Any, dict[str, Any]]:
    """The model and its inputs; `changes` are of the configuration."""
    require_memory(tables(name, implementation, setup.length))
    torch, transformers = load(setup), import_module("transformers")
    import_module("rattention.hf").register()
    shape = SHAPES[name]
    sizes = shape.sizes | (shape.quick if setup.quick else {}) | changes
    special = dict.fromkeys(SPECIAL_TOKENS, 0)
    config = getattr(transformers, shape.config)(vocab_size=VOCABULARY, **special, **sizes)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config, attn_implementation=implementation)
    model = model.to(getattr(torch, dtype)).eval()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCABULARY, (batch, setup.length), generator=generator)
    return model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def prefill(
    setup: Setup, name: str, implementation: str, *, dtype: str = "float32", batch: int = 1, **changes: Any
) -> Runner:
    """The forward pass over a prompt, the cache included where the model has one; all its hidden states.

    `changes` are of the configuration. ImportError where a package or the memory is missing.
    """
    model, inputs = prepared(setup, name, implementation, dtype=dtype, batch=batch, **changes)
    torch = load(setup)

    def call() -> Any:
        with torch.no_grad():
            return model(**inputs).last_hidden_state

    return Runner(call, hidden_states)


def hidden_states(result: Any) -> Answer:
    return {"hidden states": result.float().numpy()}


def tables(name: str, implementation: str, length: int) -> float:
    """Bytes of the masks that SDPA gets, as bool and as float, while they are made."""
    return 8.0 * length**2 if implementation == SDPA and SHAPES[name].windowed else 0.0


def require_memory(needed: float) -> None:
    """ImportError, so that a peer counts as missing, where its tables do not fit into memory."""
    if needed > available_bytes():
        raise ImportError(f"its tables take {needed / 2**30:.1f} GiB, and less memory is free")
