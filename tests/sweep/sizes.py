"""Tiny configurations of any class of Transformers: its defaults, with the sizes that are known by name made
small."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from transformers import PreTrainedConfig

from tests.sweep.types import OF_TYPE, THREE_DIMENSIONS, WINDOW

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "unpadded_vocab_size", "audio_vocab_size", "entity_vocab_size"), 99),
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
    **dict.fromkeys(("num_mel_bins", "feature_projection_input_dim", "input_feat_size"), 16),
    **dict.fromkeys(("num_self_attention_heads", "num_cross_attention_heads"), 4),
    **dict.fromkeys(("out_hidden_size", "backbone_hidden_size", "output_dim", "hidden_size_global"), 32),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("num_frames", "frames_per_clip"), 4),
    **dict.fromkeys(("speech_encoder_layers", "t2u_encoder_layers", "t2u_decoder_layers"), 2),
    **dict.fromkeys(("cross_num_attention_heads", "speech_encoder_attention_heads"), 4),
    **dict.fromkeys(("cross_num_key_value_heads", "num_adapter_layers"), 2),
    **dict.fromkeys(("output_channels", "fpn_hidden_size", "iou_head_hidden_dim"), 32),
    "num_pos_feats": 16,
    "cross_head_dim": 8,
    "cross_hidden_size": 32,
    "speech_encoder_intermediate_size": 48,
    "encoder_hidden_dim": 32,
    **dict.fromkeys(("num_queries", "num_query_tokens"), 4),
    "tubelet_size": 2,
    "num_position_embeddings": 64,
    "pos_emb_height": 8,
    "pos_emb_width": 8,
    "window_size": 32,
    "subsampling_conv_channels": 16,
    "fullatt_block_indexes": [1],
    "deepstack_visual_indexes": [0, 1],
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


def tiny(kind: type[PreTrainedConfig], **changes: Any) -> PreTrainedConfig:
    """The smallest configuration of a class."""
    try:
        default = kind()
    except ValueError:  # the defaults do not fit each other
        default = kind(**OF_TYPE.get(kind.model_type, {}))
    return kind(**(_sizes(default) | changes))


def _sizes(default: PreTrainedConfig) -> dict[str, Any]:
    names = set(vars(default)) | set(default.attribute_map)
    sizes = {name: value for name, value in SIZES.items() if name in names and _alike(default, name, value)}
    for name in default.sub_configs:
        part = getattr(default, name, None)
        if isinstance(part, PreTrainedConfig):
            sizes[name] = _sizes(part) | ({"model_type": part.model_type} if part.model_type else {})
    if "kv_lora_rank" in names:  # the heads of latent attention do not share keys
        sizes |= {name: 4 for name in ("num_key_value_heads",) if name in sizes}
    sizes |= _layers(default, sizes) | _rotary(default, sizes)
    sizes |= _by_layer(default, sizes)
    return _merged(sizes, OF_TYPE.get(default.model_type, {}))


def _merged(sizes: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """With the changes of parts within their parts, unless a part is of another type."""
    both = {
        name: _merged(sizes[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(sizes.get(name), dict) and "model_type" not in value
    }
    return sizes | changes | both


def _alike(default: PreTrainedConfig, name: str, value: Any) -> bool:
    """Whether a size is one number where the default is, and not something else of the same name."""
    before = vars(default).get(default.attribute_map.get(name, name))
    several = list | tuple
    whole = type(before) is int and type(value) is float
    return before is None or (isinstance(before, several) == isinstance(value, several) and not whole)


def _layers(default: PreTrainedConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """Layers of every kind that the defaults have."""
    field = next((n for n in ("layer_types", "layers_block_type") if vars(default).get(n)), None)
    if field is None:
        return {}
    kinds = vars(default)[field]
    different = list(dict.fromkeys(kinds))
    count = max(2, len(different))
    name = next((n for n in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if n in sizes), None)
    return {field: list(islice(cycle(different), count))} | ({name: count} if name else {})


def _by_layer(default: PreTrainedConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """As many entries of every other list as there are layers."""
    before, count = vars(default).get("num_hidden_layers"), sizes.get("num_hidden_layers")
    if type(count) is not int or type(before) is not int or before <= count:
        return {}
    return {
        name: list(islice(cycle(dict.fromkeys(value)), count)) if isinstance(value[0], str) else value[:count]
        for name, value in vars(default).items()
        if isinstance(value, list | tuple) and len(value) == before and name not in sizes
    }


def _rotary(default: PreTrainedConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """Sections of a rotary embedding in three dimensions, which must add up to half of a head."""
    rotary = vars(default).get("rope_parameters")
    if default.model_type not in THREE_DIMENSIONS and "mrope_section" not in (rotary or ()):
        return {}
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    sections = list(THREE_DIMENSIONS.get(default.model_type, (2, 1, 1)))
    return {"rope_parameters": plain | (rotary or {}) | {"mrope_section": sections}}
