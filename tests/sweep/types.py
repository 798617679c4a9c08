"""What a type of Transformers' configurations needs beside the sizes that are known by name."""

from __future__ import annotations

from typing import Any

WINDOW = 6
"""Keys that a row with a sliding window sees, shorter than the inputs."""

SWIN = {
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "image_size": 32,
    "patch_size": 4,
    "window_size": 4,
}
MIXED: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]}
SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
MIXED_LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
QWEN4 = {
    "hc_lowrank": 8,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}
MIMI = {
    "num_filters": 4,
    "codebook_dim": 32,
    "vector_quantization_hidden_dimension": 32,
    "upsample_groups": 32,
    "codebook_size": 64,
    "upsampling_ratios": [4, 2],
    "num_quantizers": 8,
}


def _resnet(*stages: str) -> dict[str, Any]:
    """A backbone that does not come from another package."""
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "layer_type": "basic"}
    backbone = {"model_type": "resnet", **sizes, "out_features": list(stages)}
    return {"use_timm_backbone": False, "backbone_config": backbone}


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
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16, "layer_types": ["hybrid_sliding", "hybrid"]},
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "granitemoehybrid": {**MIXED_LINEAR, "shared_intermediate_size": 48},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_key_value_heads": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "esmc": {"num_key_value_heads": 4},
    "mistral4": {"head_dim": 16},
    "nemotron_h": {"n_groups": 2},
    "zamba": {
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "num_hidden_layers": 4,
    },
    "cohere_compass_text": {**MIXED, "rope_parameters": dict.fromkeys(MIXED["layer_types"], SECTIONS)},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"moe_top_k": 2},
    },
    "xlstm": {"hidden_size": 128},
    "lilt": {"hidden_size": 48},
    **dict.fromkeys(("mimi_encoder", "mimi_decoder"), MIMI),
    **dict.fromkeys(("pocket_tts_audio_tokenizer_encoder", "pocket_tts_audio_tokenizer_decoder"), MIMI),
    "pocket_tts_audio_tokenizer": MIMI,
    **dict.fromkeys(("detr", "conditional_detr", "dab-detr", "table-transformer"), _resnet("stage4")),
    **dict.fromkeys(("deformable_detr", "omdet-turbo"), _resnet("stage2", "stage3", "stage4")),
    **{name: {"vision_start_token_id": 98} for name in ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")},
    "t5gemma2_encoder": {"text_config": {"dropout_rate": 0.0}},
    "gemma4_assistant": {
        "text_config": {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_hidden_layers": 2,
            "num_kv_shared_layers": 2,
        },
    },
    **{name: {"prediction_length": 4} for name in ("autoformer", "informer", "time_series_transformer")},
    "lw_detr": {"image_size": 64, "backbone_config": {"image_size": 64}},
    "pix2struct": {"vision_config": {"patch_embed_hidden_size": 192}},
    "qwen3_asr_encoder": {"n_window": 8, "n_window_infer": 16, "downsample_hidden_size": 16},
    "zamba2": {"attention_head_dim": 16, "num_key_value_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "neomme": {"head_dim": 16},
    "qwen4_exp_text": {**QWEN4},
    "xmod": {"default_language": "en_XX"},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 2},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "local"],
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "local_attn_chunk_length": 8,
    },
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 2},
    "musicgen_decoder": {"num_codebooks": 1},
    "musicgen_melody_decoder": {"num_codebooks": 1},
    "blt": {
        "encoder_hash_byte_group_vocab": 99,
        "num_hidden_layers": 2,
        "local_attention_window_len": WINDOW,
    },
    "bridgetower": {name: {"hidden_size": 64} for name in ("text_config", "vision_config")}
    | {"hidden_size": 64},
    "bros": {"hidden_size": 64},
    "chameleon": {"vocabulary_map": {"<image>": 98}},
    "dinov3_convnext": {"image_size": 64},
    "ernie4_5_vl_moe_text": {"rope_parameters": SECTIONS | {"mrope_section": [1, 1, 2]}},
    "fastspeech2_conformer_with_hifigan": {"vocoder_config": {"model_in_dim": 16}},
    "florence_vision": {
        "embed_dim": [16, 32],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "window_size": 4,
    },
    "fun_asr_nano_encoder": {"num_timestamp_prediction_layers": 1},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 8}},
    "gemma4_vision": {"pooling_kernel_size": 2},
    "glm5_next_text": {
        "qk_rope_head_dim": 0,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "mlp_layer_types": ["dense", "sparse"],
        "indexer_types": ["full", "full"],
        "index_topk": 8,
        "index_kpool": 4,
    },
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"]},
    "granite_docling_vision": {"image_size": 32},
    "hunyuan_vl_text": {"rope_parameters": SECTIONS | {"mrope_section": [1, 1, 1, 1]}},
    "kyutai_speech_to_text": {"num_codebooks": 1, "audio_pad_token_id": 98},
    "sam2_hiera_det_model": {
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "blocks_per_stage": [1, 1, 2, 1],
        "window_size_per_stage": [4, 2, 2, 2],
        "window_positional_embedding_background_size": [2, 2],
        "global_attention_blocks": [3],
    },
    "sam2_vision_model": {
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "sam2": {"prompt_encoder_config": {"image_size": 64, "patch_size": 16}},
    "sapiens2": {"num_key_value_heads_per_layer": [4, 2]},
    "unlimited_ocr_text": {"num_key_value_heads": 4},
    "rf_detr": {"backbone_config": {"image_size": 64, "out_indices": [1, 2]}},
    "videoprism_vision_model": {"image_size": 36},
    "swin2sr": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "pvt": {"image_size": 64},
    "emu3": {
        "vocabulary_map": {"<image>": 98, "<|extra_200|>": 97},
        "vq_config": {"base_channels": 32, "channel_multiplier": [1, 1], "codebook_size": 64},
    },
    "janus": {"vq_config": {"base_channels": 32, "channel_multiplier": [1, 1], "num_embeddings": 64}},
    "granite4_vision": {
        "deepstack_layer_map": [[0, 0]],
        "spatial_target_layers": [1],
        "vision_config": {"hidden_size": 64},
    },
    **{name: {"flow_head_config": {"condition_dim": 32}} for name in ("gradium_phonon_tts", "pocket_tts")},
    "kosmos-2": {"latent_query_num": 4},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "levit": {"image_size": 64},
    "mobilevitv2": {"image_size": 64, "patch_size": 2},
    "mask2former": {"feature_size": 32, "mask_feature_size": 32},
    "maskformer": {"backbone_config": {"depths": [1] * 4, "num_heads": [2] * 4, "image_size": 64}},
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    "nemotron3_diarization": {"head_config": {"audio_hidden_size": 32}},
    "nemotron3_5_transcribe_audio": {
        "diarization_config": {"head_config": {"audio_hidden_size": 32}},
    },
    "nemotron3_5_transcribe_word_timestamp": {"blank_token_id": 98, "num_key_value_heads": 4},
    **{
        name: {"num_key_value_heads": 4}
        for name in (
            "nemotron3_diarization_audio",
            "nemotron3_5_transcribe_asr_audio",
            "granite_speech5_encoder",
            "moonshine_streaming",
        )
    },
    **{
        name: _resnet("stage2", "stage3", "stage4")
        | {"encoder_in_channels": [8, 8, 16], "decoder_in_channels": [32] * 3, "encoder_layers": 1}
        for name in ("d_fine", "deimv2", "rt_detr", "rt_detr_v2", "pp_doclayout_v3", "pp_doclayout_v4")
    },
    **{name: {"image_token_id": 98} for name in ("blip-2", "instructblip", "instructblipvideo")},
    **{
        name: {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
        for name in ("convnext", "convnextv2")
    },
    "mimi": MIMI,
    "audio-spectrogram-transformer": {"max_length": 32},
    **{name: {"rope_parameters": SECTIONS} for name in ("glm_ocr_text", "glm_image_text")},
}
"""By ``model_type``; of parts of composite models, too."""

THREE_DIMENSIONS = dict.fromkeys(
    ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "paddleocr_vl_text", "glm4v_text"), (2, 1, 1)
) | {"glm4v_moe_text": (1, 1, 0)}
"""Sections of rotary embeddings for pictures, by types whose configuration does not show them."""
