"""Models and passes for tests of compression."""

from __future__ import annotations

from tests.extras import needs

needs("inspect")

import torch
from rattention.nn import LanguageModel

from tests.hf_models import build

FAMILIES = {"llama": {}, "mistral": {"sliding_window": None}, "qwen3": {}, "gpt2": {}}
GREEDY = {"do_sample": False, "pad_token_id": 0}
WORDS = "The lamp was lit at dusk and burned until the dawn came over the cold water. " * 8


def family(name, implementation="eager", **changes):
    return build(name, implementation, **FAMILIES[name], **changes)


def run(model, *parts, mask=None, cache=None):
    """Logits of the parts of a text, one pass each, and the cache."""
    logits, seen = [], 0
    for part in parts:
        seen += part.shape[1]
        shown = None if mask is None else mask[:, :seen]
        with torch.no_grad():
            out = model(part, past_key_values=cache, use_cache=True, attention_mask=shown)
        cache = out.past_key_values
        logits.append(out.logits)
    return torch.cat(logits, dim=1), cache


def small(kind):
    if kind == "transformers":
        return family("llama")
    torch.manual_seed(0)
    model = LanguageModel(64, dim=32, heads=4, depth=2, kv_heads=2).eval()
    for parameter in model.parameters():
        parameter.data.mul_(2)
    return model


def stepwise(model, *groups):
    """Logits of consecutive parts, whichever kind of model it is."""
    parts = [part for group in groups for part in group]
    if isinstance(model, LanguageModel):
        cache = model.new_cache(len(parts[0]))
        with torch.no_grad():
            return torch.cat([model(part, cache=cache) for part in parts], dim=1)
    return run(model, *parts)[0]


def native(pattern=None, vocabulary=128):
    torch.manual_seed(0)
    options = {} if pattern is None else {"pattern": pattern}
    model = LanguageModel(vocabulary, dim=32, heads=2, depth=4, **options).eval()
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    return model
