"""Small models with random weights, one per class that `rattention.hf` is checked on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as tf

VOCABULARY = 64
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
LLAMA = BERT | {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "eos_token_id": None}
GEMMA = LLAMA | {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}

ENCODERS = {
    "bert": (tf.BertForMaskedLM, tf.BertConfig, BERT),
    "roberta": (tf.RobertaForMaskedLM, tf.RobertaConfig, BERT),
    "distilbert": (
        tf.DistilBertForMaskedLM,
        tf.DistilBertConfig,
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "modernbert": (
        tf.ModernBertForMaskedLM,
        tf.ModernBertConfig,
        BERT | {"local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 0},
    ),
}
DECODERS = {
    "gpt2": (
        tf.GPT2LMHeadModel,
        tf.GPT2Config,
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "eos_token_id": None},
    ),
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig, LLAMA),
    "mistral": (tf.MistralForCausalLM, tf.MistralConfig, LLAMA | {"sliding_window": 6}),
    "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config, LLAMA),
    "qwen3": (tf.Qwen3ForCausalLM, tf.Qwen3Config, LLAMA),
    "gemma2": (tf.Gemma2ForCausalLM, tf.Gemma2Config, GEMMA | {"attn_logit_softcapping": None}),
    "gemma3": (tf.Gemma3ForCausalLM, tf.Gemma3TextConfig, GEMMA),
}


def build(name: str, implementation: str = "eager", **changes: object) -> tf.PreTrainedModel:
    """The same weights for every implementation."""
    model_class, config_class, sizes = (ENCODERS | DECODERS)[name]
    torch.manual_seed(0)
    config = config_class(**(sizes | changes), attn_implementation=implementation)
    model = model_class(config).eval()
    for parameter in model.parameters():  # weights of 0.02 would leave attention nearly uniform
        parameter.data.mul_(3)
    return model


def uneven(convert: Callable[..., object], model: tf.PreTrainedModel, *options: object) -> tf.PreTrainedModel:
    """The model converted, with norm weights that are not all alike."""
    convert(model, *options)
    generator = torch.Generator().manual_seed(2)
    for key, parameter in model.named_parameters():
        if key.endswith("_norm_weight"):
            parameter.data.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return model


def tokens(batch: int = 2, length: int = 17, seed: int = 1) -> torch.Tensor:
    """Token ids, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, VOCABULARY, (batch, length), generator=generator)


def padding(side: str, length: int = 17) -> torch.Tensor:
    """A mask of two rows, the second five tokens short."""
    mask = torch.ones(2, length, dtype=torch.int64)
    mask[1, :5] = 0
    return mask if side == "left" else mask.flip(1)


def byte_tokenizer() -> tf.PreTrainedTokenizerFast:
    """Every byte a token (ids 1 to 256), 0 is the end of a text."""
    import tokenizers

    signs = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0} | {sign: i + 1 for i, sign in enumerate(signs)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")
