"""Compressed key/value caches of Transformers models, and the listener that fills and cuts them."""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from transformers import EncoderDecoderCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

import rattention.torch as rt
from rattention.compression.held import Held, Plan
from rattention.compression.report import LayerUse
from rattention.hf.attention import attend, attends_causally, kernel_options
from rattention.hf.cache import RAttentionCacheLayer, existing_layer
from rattention.hf.listening import attention_modules, listening
from rattention.hf.masks import SEGMENT_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from rattention.compression.report import Compression

CONSTANT = (DynamicSlidingWindowLayer, RAttentionCacheLayer)
"""Layers whose size does not grow with the context: they stay as they are."""


class CompressedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """A layer of Transformers' caches that counts all tokens and holds some."""

    is_sliding = False
    supports_early_init = False

    def __init__(self, held: Held) -> None:
        """Around what is held."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = held
        self.expected = False
        """Whether the tokens that come next meet a model that knows of the compression."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: memory comes with the tokens."""
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take tokens in, and give all that is held."""
        if not self.expected:
            raise RuntimeError(
                "this cache was compressed: go on with it within rattention.compress(model, ...), or begin "
                "with a new one"
            )
        self.is_initialized = True
        self.held.append(key_states, value_states)
        return self.held.key, self.held.value

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the tokens that masks are made for: all of them."""
        return self.held.seen + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen."""
        return self.held.seen

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def reset(self) -> None:
        """Empty again."""
        self.held = Held(self.held.plan, self.held.use)
        self.is_initialized = False

    def offload(self) -> None:
        """Nothing: it is on the CPU."""

    def prefetch(self) -> None:
        """Nothing: it is on the CPU."""

    def crop(self, tokens_to_remove: int) -> None:
        """Nothing for 0; NotImplementedError otherwise, because what was dropped does not come back."""
        if tokens_to_remove != 0:
            raise NotImplementedError(
                "a compressed cache cannot take tokens back (assisted or speculative generation): use plain "
                "generation"
            )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these sequences."""
        self.held.reorder(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these sequences."""
        self.held.reorder(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        self.held.reorder(torch.arange(len(self.held.key)).repeat_interleave(repeats))


class _Compressor:
    """The listener of a model's attention layers."""

    def __init__(self, plan: Plan, uses: dict[torch.nn.Module, LayerUse]) -> None:
        self.plan = plan
        self.uses = uses
        self.present: WeakKeyDictionary[torch.nn.Module, CompressedLayer] = WeakKeyDictionary()
        """The cache of a module in the pass that it is in."""

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before an attention module runs: see to its layer of the cache."""
        cache = kwargs.get("past_key_values")
        if cache is None and len(args) > 1:
            given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
            cache = given.get("past_key_values")
        self.present.pop(module, None)
        if cache is None:
            return
        layer = compressed_layer(cache, module.layer_idx, self.plan, self.uses[module])
        if layer is not None:
            layer.expected = True
            self.present[module] = layer

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        arguments: dict[str, Any],
        /,
    ) -> torch.Tensor:
        """The layer's output, over what is held; afterwards the cache is cut where that is due."""
        layer = self.present.pop(module, None)
        if layer is None:
            return attend(module, query, key, value, mask, **arguments)  # type: ignore[no-any-return]
        layer.expected = False
        _require_padding_only(module, mask, arguments)
        options = kernel_options(module, None, **arguments)
        held = layer.held
        held.show(mask, query.shape[2])
        output: torch.Tensor = rt.attention(query, key, value, **options, **held.masks(query.shape[1]))
        held.attended(query, options["scale"])
        return output


def compressed_layer(cache: Any, index: int, plan: Plan, use: LayerUse) -> CompressedLayer | None:
    """Layer `index` of `cache` as a compressed one, which takes over what is there; None for one whose size
    is constant."""
    if isinstance(cache, EncoderDecoderCache):
        raise ValueError("caches of encoder-decoder models cannot be compressed")
    layer: Any = existing_layer(cache, index)
    if isinstance(layer, CONSTANT):
        return None
    if isinstance(layer, CompressedLayer):
        layer.held.plan, layer.held.use = plan, use
        return layer
    if type(layer) is not DynamicLayer:
        raise ValueError(
            f"only dynamic caches can be compressed, got a {type(layer).__name__}: leave out "
            "cache_implementation, or give past_key_values=DynamicCache(config=model.config)"
        )
    own = CompressedLayer(Held(plan, use))
    if layer.get_seq_length() > 0:
        there: tuple[Any, Any] = (layer.keys, layer.values)
        own.held.append(*there)
    cache.layers[index] = own
    return own


@contextmanager
def compressing(model: PreTrainedModel, plan: Plan, compression: Compression) -> Iterator[None]:
    """`rattention.compress` for models of Transformers."""
    modules = _growing(model)
    uses = {module: LayerUse(name) for name, module in modules.items()}
    compression.layers.extend(uses.values())
    compressor = _Compressor(plan, uses)
    with listening(model, compressor), ExitStack() as hooks:
        for module in modules.values():
            hook = module.register_forward_pre_hook(compressor.before, with_kwargs=True)
            hooks.callback(hook.remove)
        yield


def _growing(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Attention modules of a decoder whose caches grow, by name."""
    modules = attention_modules(model)
    if model.config.is_encoder_decoder or not all(attends_causally(m, None) for m in modules.values()):
        raise ValueError(
            f"{type(model).__name__} is no decoder-only model: there is no cache of keys to compress"
        )
    found = {n: m for n, m in modules.items() if _window(m) is None and hasattr(m, "layer_idx")}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has sliding windows in every layer: its caches are constant already"
        )
    return found


def _window(module: Any) -> int | None:
    """The sliding window of an attention module: its own, that of its layer's kind, or that of the model."""
    if hasattr(module, "sliding_window"):
        return module.sliding_window  # type: ignore[no-any-return]
    kinds = getattr(module.config, "layer_types", None)
    if kinds is not None and kinds[module.layer_idx] == "full_attention":
        return None
    return getattr(module.config, "sliding_window", None)


def _require_padding_only(
    module: torch.nn.Module, mask: torch.Tensor | None, arguments: dict[str, Any]
) -> None:
    if mask is not None and (mask.dim() != 2 or mask.dtype == SEGMENT_DTYPE):
        raise ValueError(
            "attention_mask of a compressed model must be [batch, tokens], 0 for padding, and sequences must "
            "not be packed"
        )
    if not attends_causally(module, arguments.get("is_causal")) or arguments.get("sliding_window"):
        raise ValueError("only causal attention without a sliding window can be compressed")
