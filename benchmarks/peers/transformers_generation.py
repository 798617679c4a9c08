"""One token of a model of Transformers after a context, with either implementation of attention."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import load
from benchmarks.race import Runner

if TYPE_CHECKING:
    from benchmarks.race import Answer, Setup

HEAD_DIM = 64
DYNAMIC, IN_PLACE = "DynamicCache", "InPlaceCache"


def step(setup: Setup, implementation: str, dtype: str, context: int, cache_class: str = DYNAMIC) -> Runner:
    """The token after `context` others, whose keys and values are random; the cache stays as it was.

    A model of Gemma 3's kind, 2 layers, 1024 wide, 16 heads on 4, one with a window of 1024.
    """
    torch, transformers = load(setup), import_module("transformers")
    import_module("rattention.hf").register()
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=256,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=HEAD_DIM,
        sliding_window=1024,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=1 << 17,
        attn_implementation=implementation,
    )
    model = transformers.Gemma3ForCausalLM(config).eval().to(getattr(torch, dtype))
    module = transformers if cache_class == DYNAMIC else import_module("rattention.hf")
    cache = getattr(module, cache_class)(config=config)
    for layer in range(2):
        shape = (2, 1, 4, context, HEAD_DIM)
        cache.update(*torch.randn(shape).to(model.dtype), layer)
    before = [(layer, dict(vars(layer))) for layer in cache.layers]
    before += [(room, dict(vars(room))) for layer in cache.layers for room in getattr(layer, "rooms", ())]
    token = torch.ones((1, 1), dtype=torch.int64)

    def call() -> Any:
        for changed, state in before:
            vars(changed).update(state)
        with torch.no_grad():
            return model(token, past_key_values=cache).logits

    return Runner(call, _logits)


def _logits(result: Any) -> Answer:
    return {"logits": result.float().numpy()}
