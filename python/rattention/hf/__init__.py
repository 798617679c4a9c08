"""Models of Hugging Face Transformers on these kernels.

After `register`, any model that takes its attention from Transformers' ``AttentionInterface`` can compute it
here, with the same logits as with the implementation "eager"::

    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> import rattention.hf
    >>> rattention.hf.register()
    >>> config = LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    ...                      num_attention_heads=4, num_key_value_heads=2)
    >>> model = LlamaForCausalLM(config).eval()
    >>> model.set_attn_implementation("rattention")
    >>> tokens = torch.arange(12)[None]
    >>> model(tokens).logits.shape
    torch.Size([1, 12, 99])
    >>> model.generate(tokens, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape
    torch.Size([1, 15])

A model can also be loaded with it: ``from_pretrained(..., attn_implementation="rattention")``.

`use_linear_kernels` does the same for the linear layers of Qwen3-Next, Qwen3.5, OLMo-hybrid and Kimi Linear,
and for the Mamba2 layers of Granite 4, Bamba, Nemotron-H, Zamba2 and Falcon-H1.
`InPlaceCache` spares generation the copy of the whole cache at every token.
`snapshot` and `restore` take tokens back that a cache has seen, from recurrent states as well.
`convert` turns layers of a model into RAttention, whose cache does not grow with the text.
`rattention.observe` measures the attention of a model while it runs.
"""

from __future__ import annotations

from rattention import _extras

_extras.require("torch")
_extras.require("transformers")

from rattention.hf.attention import register
from rattention.hf.conversion import CacheReport, Conversion, cache_report, convert
from rattention.hf.in_place_cache import InPlaceCache
from rattention.hf.linear_layers import use_linear_kernels
from rattention.hf.rollback import CacheSnapshot, restore, snapshot

__all__ = [
    "CacheReport",
    "CacheSnapshot",
    "Conversion",
    "InPlaceCache",
    "cache_report",
    "convert",
    "register",
    "restore",
    "snapshot",
    "use_linear_kernels",
]
