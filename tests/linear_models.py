"""Small models with random weights whose layers are mostly linear, one per kind."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf

from tests.hf_models import LLAMA

TYPES = {"num_hidden_layers": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}
GATED = LLAMA | TYPES
GATED |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
GATED |= {"linear_key_head_dim": 8, "linear_value_head_dim": 6}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
KIMI = LLAMA | TYPES | {"num_key_value_heads": 4, "linear_num_heads": 4, "linear_head_dim": 8}
KIMI |= {"kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
KIMI |= {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "bos_token_id": None}
OLMO = {name: value for name, value in GATED.items() if name != "head_dim"}
SIZES = {name: value for name, value in LLAMA.items() if name != "head_dim"}
CHUNK = 16
"""Tokens that Transformers' loops for state spaces take at once."""
SHORTEST = 1e-9
"""Its loops cut step sizes below a limit off, but not where it takes one token: not to be seen with this."""
MIXER = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 12, "mamba_chunk_size": CHUNK}
GRANITE = SIZES | TYPES | EXPERTS | MIXER | {"num_local_experts": 4, "shared_intermediate_size": 16}
GRANITE |= {"position_embedding_type": "rope"}
BAMBA = SIZES | MIXER | {"num_hidden_layers": 4, "attn_layer_indices": [3], "num_logits_to_keep": 0}
NEMOTRON = LLAMA | {"layers_block_type": ["linear_attention"] * 3 + ["full_attention"], "chunk_size": CHUNK}
NEMOTRON |= {"mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 12}
NEMOTRON |= {"num_logits_to_keep": 0, "time_step_min": SHORTEST}
MAMBA2 = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 4, "num_heads": 4, "head_dim": 16}
MAMBA2 |= {"n_groups": 2, "state_size": 12, "chunk_size": CHUNK, "pad_token_id": 0, "eos_token_id": None}
ZAMBA2 = SIZES | {
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "chunk_size": CHUNK,
    "hybrid_layer_ids": [1],
}
ZAMBA2 |= {"layers_block_type": ["linear_attention", "hybrid", "linear_attention"], "mamba_ngroups": 2}
ZAMBA2 |= {"n_mamba_heads": 4, "mamba_d_state": 12, "num_logits_to_keep": 0, "adapter_rank": 4}
ZAMBA2 |= {"time_step_min": SHORTEST}
FALCON = LLAMA | MIXER | {"mamba_d_ssm": 64, "num_hidden_layers": 3}

DELTA = {
    "qwen3_next": ("Qwen3NextForCausalLM", "Qwen3NextConfig", GATED | EXPERTS),
    "qwen3_5": ("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", GATED),
    "qwen3_5_moe": ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeTextConfig", GATED | EXPERTS),
    "olmo_hybrid": ("OlmoHybridForCausalLM", "OlmoHybridConfig", OLMO),
    "kimi_linear": ("KimiLinearForCausalLM", "KimiLinearConfig", KIMI),
}
STATE_SPACES = {
    "granite": ("GraniteMoeHybridForCausalLM", "GraniteMoeHybridConfig", GRANITE),
    "bamba": ("BambaForCausalLM", "BambaConfig", BAMBA),
    "nemotron_h": ("NemotronHForCausalLM", "NemotronHConfig", NEMOTRON),
    "mamba2": ("Mamba2ForCausalLM", "Mamba2Config", MAMBA2),
    "zamba2": ("Zamba2ForCausalLM", "Zamba2Config", ZAMBA2),
    "falcon_h1": ("FalconH1ForCausalLM", "FalconH1Config", FALCON),
}
MODELS = DELTA | STATE_SPACES
LAYERS = {name: [0, 1, 2] for name in MODELS} | {"mamba2": [0, 1, 2, 3]}
"""The linear ones of each."""


def build(name: str, implementation: str = "eager") -> tf.PreTrainedModel:
    """The same weights each time, in evaluation."""
    model_class, config_class, sizes = MODELS[name]
    torch.manual_seed(0)
    config = getattr(tf, config_class)(**sizes, attn_implementation=implementation)
    model = getattr(tf, model_class)(config).eval()
    for part, parameter in model.named_parameters():
        if parameter.dim() > 1:  # weights of 0.02 would leave hardly anything to mix
            parameter.data.normal_(0, 1 / parameter[0].numel() ** 0.5)
        elif part.endswith("A_log"):
            parameter.data.uniform_(-4, 0)  # states that last
    return model


def going_on(model: tf.PreTrainedModel, ids: torch.Tensor, cache: tf.Cache | None) -> Any:
    """The output for tokens after those of `cache`, which it holds then, too."""
    if model.config.model_type == "mamba2":
        return model(ids, cache_params=cache, use_cache=True)
    start = 0 if cache is None else cache.get_seq_length()
    positions = torch.arange(start, start + ids.shape[1])[None]  # Bamba would begin at 0
    return model(ids, position_ids=positions, past_key_values=cache, use_cache=True)


def cache_of(output: Any) -> tf.Cache:
    """What a model has returned besides logits."""
    return output.get("past_key_values", output.get("cache_params"))
