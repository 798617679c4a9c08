"""Tiny configurations of any class of Transformers: its defaults, with the sizes that are known by name made
small."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from transformers import PreTrainedConfig

WINDOW = 6
"""Keys that a row with a sliding window sees, shorter than the inputs."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "audio_vocab_size", "entity_vocab_size"), 99),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "hidden_dim"), 32
    ),
    **dict.fromkeys(("projection_dim", "text_hidden_size", "vision_hidden_size", "encoder_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "attention_head_dim", "d_kv", "v_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(
        ("qk_rope_head_dim", "kv_lora_rank", "q_lora_rank", "swa_head_dim", "global_head_dim"), 8
    ),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "num_global_key_value_heads"), 2),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner"), 48
    ),
    **dict.fromkeys(("ffn_hidden_size", "moe_intermediate_size", "expert_ffn_hidden_size"), 48),
    **dict.fromkeys(("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "num_experts_per_token"), 2
    ),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_source_positions"), 128),
    **dict.fromkeys(("max_target_positions", "max_encoder_position_embeddings"), 128),
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
    "local_attention": WINDOW,
    "sliding_window_size": WINDOW,
    "use_sliding_window": True,
    "image_size": 16,
    "patch_size": 8,
    "num_mel_bins": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "attn_pdrop": 0.0,
    "ep_size": 1,
    "num_nextn_predict_layers": 0,
    "vocab_size_per_layer_input": 99,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
    "state_size": 8,
    "rescale_every": 0,
    "type_vocab_size": 2,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "apply_spec_augment": False,
    "conv_dim": (32, 32),
    "conv_stride": (4, 2),
    "conv_kernel": (8, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_codevector_groups": 2,
    "codevector_dim": 32,
    "proj_codevector_dim": 32,
}
"""By the names that configurations have for them."""

SWIN = {
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "image_size": 32,
    "patch_size": 4,
    "window_size": 4,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
OF_TYPE: dict[str, dict[str, Any]] = {
    "falcon": {"new_decoder_architecture": False, "alibi": False},
    "modernbert": {"global_attn_every_n_layers": 2},
    "led": {"attention_window": 8},
    "longformer": {"attention_window": 8},
    "gemma2": {"attn_logit_softcapping": None},
    "nllb-moe": {"encoder_sparse_step": 0, "decoder_sparse_step": 0},
    "pegasus_x": {"block_size": 8, "num_global_tokens": 4},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "big_bird": {"attention_type": "original_full"},
    "ctrl": {"dff": 48},
    "xlm": {"emb_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "albert": {"embedding_size": 16},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "yolos": {"image_size": [16, 16]},
    **dict.fromkeys(("qwen2", "qwen3", "qwen2_moe"), MIXED),
    **dict.fromkeys(("swin", "donut-swin", "swinv2", "maskformer-swin"), SWIN),
    "speech_to_text": {"input_feat_per_channel": 16, "conv_channels": 32},
}
"""What a type needs besides, by its ``model_type``."""

THREE_DIMENSIONS = dict.fromkeys(
    ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "paddleocr_vl_text", "glm4v_text"), (2, 1, 1)
) | {"glm4v_moe_text": (1, 1, 0)}
"""Sections of rotary embeddings for pictures, by types whose configuration does not show them."""


def tiny(kind: type[PreTrainedConfig], **changes: Any) -> PreTrainedConfig:
    """The smallest configuration of a class."""
    return kind(**(_sizes(kind()) | changes))


def _sizes(default: PreTrainedConfig) -> dict[str, Any]:
    names = set(vars(default)) | set(default.attribute_map)
    sizes = {name: value for name, value in SIZES.items() if name in names and _alike(default, name, value)}
    for name in default.sub_configs:
        part = getattr(default, name, None)
        if isinstance(part, PreTrainedConfig):
            sizes[name] = _sizes(part) | {"model_type": part.model_type}
    if "kv_lora_rank" in names:  # the heads of latent attention do not share keys
        sizes |= {name: 4 for name in ("num_key_value_heads",) if name in sizes}
    sizes |= _layers(default, sizes) | _rotary(default, sizes)
    return sizes | OF_TYPE.get(default.model_type, {})


def _alike(default: PreTrainedConfig, name: str, value: Any) -> bool:
    """Whether a size is one number where the default is, and not something else of the same name."""
    before = vars(default).get(name)
    several = list | tuple
    whole = type(before) is int and type(value) is float
    return before is None or (isinstance(before, several) == isinstance(value, several) and not whole)


def _layers(default: PreTrainedConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """Layers of every kind that the defaults have."""
    kinds = vars(default).get("layer_types")
    if not kinds or isinstance(getattr(type(default), "layer_types", None), property):
        return {}
    different = list(dict.fromkeys(kinds))
    count = max(2, len(different))
    name = next((n for n in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if n in sizes), None)
    return {"layer_types": list(islice(cycle(different), count))} | ({name: count} if name else {})


def _rotary(default: PreTrainedConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """Sections of a rotary embedding in three dimensions, which must add up to half of a head."""
    rotary = vars(default).get("rope_parameters")
    if default.model_type not in THREE_DIMENSIONS and "mrope_section" not in (rotary or ()):
        return {}
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    sections = list(THREE_DIMENSIONS.get(default.model_type, (2, 1, 1)))
    return {"rope_parameters": plain | (rotary or {}) | {"mrope_section": sections}}
