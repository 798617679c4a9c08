"""Compressed key/value caches of Transformers models, and what fills and cuts them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from transformers import EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from rattention.compression.compressing import Compression, LayerUse
from rattention.compression.held import Held
from rattention.hf.attention import attends_causally
from rattention.hf.cache import RAttentionCacheLayer, existing_layer, given_cache
from rattention.hf.converted import sliding_window_of
from rattention.hf.in_place_cache import InPlaceLayer
from rattention.hf.masks import PatternMask
from rattention.inspect.hooks import LayerAttention, attention_layers, has_hook, visiting

CONSTANT = (DynamicSlidingWindowLayer, RAttentionCacheLayer)
"""Layers whose size does not grow with the context: they stay as they are."""


class _CompressedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of Transformers' caches that counts all tokens and holds some."""

    is_croppable = False
    supports_early_init = False

    def __init__(self, held: Held) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = held
        self.expected = False
        """Whether the next tokens come from a model that is being compressed."""
        self.taken = False
        """Whether they have come."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take tokens in, and give all that is held."""
        if not self.expected:
            raise RuntimeError(
                "this cache was compressed: go on with it within rattention.compress(model, ...), or begin "
                "with a new one"
            )
        if not self.is_initialized:
            self.keys = self.values = key_states.new_empty(0)  # some models ask for their size
        self.is_initialized = self.taken = True
        self.held.append(key_states, value_states)
        return self.held.key, self.held.value

    def get_seq_length(self) -> int:
        return self.held.seen

    def reset(self) -> None:
        self.held = Held(self.held.plan, self.held.use)
        self.is_initialized = False

    def offload(self) -> None:
        """Nothing: it is on the CPU."""

    prefetch = offload

    def crop(self, tokens_to_remove: int) -> None:
        """Nothing for 0; NotImplementedError otherwise, because what was dropped does not come back."""
        if tokens_to_remove != 0:
            raise NotImplementedError(
                "a compressed cache cannot take tokens back (assisted or speculative generation): use plain "
                "generation"
            )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.held.reorder(beam_idx)

    batch_select_indices = reorder_cache  # type: ignore[assignment]

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.held.reorder(torch.arange(len(self.held.key)).repeat_interleave(repeats))


class _Compressor:
    """Compresses the caches of a model's layers, which are known by their names."""

    def __init__(self, plan: Compression, uses: dict[str, LayerUse]) -> None:
        self.plan = plan
        self.uses = uses
        self.present: dict[str, _CompressedLayer] = {}
        """The cache of a layer in the pass that it is in."""

    def before(
        self, name: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Called before an attention module runs: see to its layer of the cache; the arguments, if others are
        to be given."""
        cache = given_cache(kwargs)
        if cache is None and len(args) > 1:
            cache = given_cache(inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments)
        self.present.pop(name, None)
        if cache is None:
            return None
        layer = compressed_layer(cache, module.layer_idx, self.plan, self.uses[name])
        if layer is None:
            return None
        layer.expected, layer.taken = True, False
        self.present[name] = layer
        return tuple(map(_of_held_keys, args)), {n: _of_held_keys(value) for n, value in kwargs.items()}

    def __call__(self, attention: LayerAttention) -> None:
        """Let the layer attend to what is held; afterwards the cache is cut where that is due."""
        layer = self.present.get(attention.name)
        if layer is None:
            return
        assert attention.call is not None
        call = attention.call
        again, layer.expected = not layer.expected, False
        _require_its_own_keys(attention.name, layer, call.args[1], again)
        query, options = call.args[0], dict(call.keywords)
        _require_padding_only(options)
        held = layer.held
        held.show(options.pop("key_mask", None), query.shape[2])
        attention.output = call.func(*call.args, **options, **held.masks(query.shape[1]))
        held.attended(query, options["scale"])


def _require_its_own_keys(name: str, layer: _CompressedLayer, key: torch.Tensor, again: bool) -> None:
    """ValueError where what a layer attends with is not what its cache has just taken in."""
    why = ""
    if again:
        why = "attends more than once in one call"
    elif not layer.taken:
        why = "keeps its keys in the cache of another layer"
    elif key.shape[2:] != layer.held.key.shape[2:]:
        why = "attends with other keys than its cache holds (latent attention)"
    if why:
        raise ValueError(f"the cache of {name} cannot be compressed: the layer {why}")


def _of_held_keys(argument: Any) -> Any:
    return argument.of_held_keys() if isinstance(argument, PatternMask) else argument


def compressed_layer(cache: Any, index: int, plan: Compression, use: LayerUse) -> _CompressedLayer | None:
    """Layer `index` of `cache` as a compressed one, which takes over what is there; None for one whose size
    is constant."""
    if isinstance(cache, EncoderDecoderCache):
        raise ValueError("caches of encoder-decoder models cannot be compressed")
    layer: Any = existing_layer(cache, index)
    if isinstance(layer, CONSTANT):
        return None
    if isinstance(layer, _CompressedLayer):
        layer.held.plan, layer.held.use = plan, use
        return layer
    if isinstance(layer, DummyLayer):
        raise ValueError(
            f"caches of the model cannot be compressed: layer {index} has its keys from another layer"
        )
    if isinstance(layer, LinearAttentionLayer):
        raise ValueError(
            f"caches of the model cannot be compressed: that of layer {index} holds a state besides keys and "
            f"values ({type(layer).__name__})"
        )
    if type(layer) not in (DynamicLayer, InPlaceLayer):
        raise ValueError(
            f"only dynamic caches can be compressed, got a {type(layer).__name__}: leave out "
            "cache_implementation, or give past_key_values=DynamicCache(config=model.config)"
        )
    own = _CompressedLayer(Held(plan, use))
    if layer.get_seq_length() > 0:
        there: tuple[Any, Any] = (layer.keys, layer.values)
        own.held.append(*there)
    cache.layers[index] = own
    return own


@contextmanager
def compressing(model: PreTrainedModel, plan: Compression) -> Iterator[None]:
    """`rattention.compress` for models of Transformers."""
    modules = _growing(model)
    uses = {name: LayerUse(name) for name in modules}
    plan.layers.extend(uses.values())
    compressor = _Compressor(plan, uses)
    with visiting(model, compressor), ExitStack() as hooks:
        for name, module in modules.items():
            hook = module.register_forward_pre_hook(partial(compressor.before, name), with_kwargs=True)
            hooks.callback(hook.remove)
        yield


def _growing(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Attention modules of a decoder whose caches grow, by name."""
    layers = attention_layers(model)
    modules = {name: layer for name, layer in layers.items() if not has_hook(layer)}
    if model.config.is_encoder_decoder or not all(attends_causally(m) for m in modules.values()):
        raise ValueError(
            f"{type(model).__name__} is no decoder-only model: there is no cache of keys to compress"
        )
    numbered = {n: m for n, m in modules.items() if isinstance(getattr(m, "layer_idx", None), int)}
    if not numbered:
        raise ValueError(
            f"{type(model).__name__} cannot be compressed: its attention layers do not say by layer_idx "
            "which layer of the cache is theirs"
        )
    found = {n: m for n, m in numbered.items() if _window(m) is None}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has sliding windows in every layer: its caches are constant already"
        )
    return found


def _window(module: Any) -> int | None:
    """The sliding window of an attention module: its own, that of its layer's kind, or that of the model."""
    kinds = None if hasattr(module, "sliding_window") else getattr(module.config, "layer_types", None)
    if kinds is not None and kinds[module.layer_idx] == "full_attention":
        return None
    return sliding_window_of(module)


def _require_padding_only(options: dict[str, Any]) -> None:
    if not {"attn_mask", "segment_ids"}.isdisjoint(options):
        raise ValueError(
            "attention_mask of a compressed model must be [batch, tokens], 0 for padding, and sequences must "
            "not be packed"
        )
    if not options["causal"] or options["window"] is not None:
        raise ValueError("only causal attention without a sliding window can be compressed")
    if other := {"softcap", "sinks", "block_ids"} & options.keys():
        raise ValueError(f"attention with {', '.join(sorted(other))} cannot be compressed")
