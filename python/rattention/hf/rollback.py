"""Going back to an earlier state of a model's cache, recurrent states included."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import BaseQuantizedLayer, DynamicLayer, LinearAttentionLayer

from rattention.hf.cache import RAttentionCacheLayer
from rattention.hf.in_place_cache import InPlaceLayer
from rattention.mechanisms.rattention_cache import RAttentionCache

if TYPE_CHECKING:
    from transformers import Cache

GROWING = ("keys", "values", "indexer_keys", "indexer_position_ids")
"""What a `DynamicLayer` never writes into: a longer tensor takes its place, the old one stays as it was."""


@dataclass(frozen=True)
class CacheSnapshot:
    """The contents of a cache at one time; made by `snapshot`."""

    layers: tuple[tuple[type, dict[str, Any]], ...]
    """Of each layer its class and attributes, copies as `_Copy`."""

    @property
    def nbytes(self) -> int:
        """Bytes of the copies; what the cache shares with its snapshot is not counted."""
        return sum(_bytes(held) for _, attributes in self.layers for held in attributes.values())


@dataclass(frozen=True)
class _Copy:
    of: Any


def snapshot(cache: Cache) -> CacheSnapshot:
    """What `restore` needs to take tokens back that come after this.

    A linear layer cannot forget tokens: its state holds them all as one sum, which is why Transformers cannot
    crop the cache of a model that has such layers. Here its state is copied, whose size does not depend on
    the number of tokens, as is the cache of a layer that `convert` has converted. Keys and values of other
    layers are shared where nothing writes into them (`DynamicCache`, `InPlaceCache`), and copied otherwise::

        before = rattention.hf.snapshot(cache)
        draft = model(guesses, past_key_values=cache).logits
        rattention.hf.restore(cache, before)
        model(guesses[:, :accepted], past_key_values=cache)

    Parameters
    ----------
    cache:
        Of Transformers, of any model.

    Raises
    ------
    TypeError
        `cache` is not a cache, or has layers of classes from elsewhere or with quantized keys, or is one of a
        model that keeps recurrent states in its modules (RecurrentGemma).
    """
    layers = _layers(cache)
    _require_states(layers)
    return CacheSnapshot(tuple((type(layer), _taken(layer)) for layer in layers))


def restore(cache: Cache, snapshot: CacheSnapshot) -> None:
    """Go back to `snapshot`, bit for bit; as often as wished.

    Parameters
    ----------
    cache:
        That of the snapshot, or another one of the same model.
    snapshot:
        Of `snapshot`.

    Raises
    ------
    ValueError
        The cache has layers of other classes.
    TypeError
        An argument is something else.
    """
    if not isinstance(snapshot, CacheSnapshot):
        raise TypeError(f"snapshot must come from rattention.hf.snapshot, got {type(snapshot).__name__}")
    layers = _layers(cache)
    for index, (layer, (kind, _)) in enumerate(zip(layers, snapshot.layers, strict=False)):
        if type(layer) is not kind:
            raise ValueError(
                f"layer {index} of the cache is of class {type(layer).__name__}, that of the snapshot of "
                f"{kind.__name__}: restore a cache of the same model"
            )
    if len(layers) < len(snapshot.layers):
        raise ValueError(
            f"the cache has {len(layers)} layers, the snapshot {len(snapshot.layers)}: restore a cache of "
            "the same model"
        )
    del layers[len(snapshot.layers) :]  # made since, where a cache makes its layers as they are asked for
    for layer, (_, attributes) in zip(layers, snapshot.layers, strict=True):
        given = {name: _given(held, vars(layer).get(name)) for name, held in attributes.items()}
        vars(layer).clear()
        vars(layer).update(given)


def _layers(cache: Cache) -> list[Any]:
    if not isinstance(cache, cache_utils.Cache) or isinstance(cache, cache_utils.EncoderDecoderCache):
        raise TypeError(
            f"cache must be a Cache of Transformers with layers, got {type(cache).__name__}; of an "
            "EncoderDecoderCache give the part self_attention_cache"
        )
    for layer in cache.layers:
        known = type(layer).__module__ == cache_utils.__name__ and not isinstance(layer, BaseQuantizedLayer)
        if not known and not isinstance(layer, InPlaceLayer | RAttentionCacheLayer):
            raise TypeError(
                f"a cache with layers of class {type(layer).__name__} has no snapshots: use "
                "copy.deepcopy(cache)"
            )
    layers: list[Any] = cache.layers
    return layers


def _require_states(layers: list[Any]) -> None:
    lengths = [layer.get_seq_length() for layer in layers if hasattr(layer, "get_seq_length")]
    if any(lengths) and any(
        isinstance(layer, LinearAttentionLayer) and _has_no_state(layer) for layer in layers
    ):
        raise TypeError(
            "a cache of keys whose linear layers hold no state has no snapshots: the model keeps its states "
            "elsewhere, as RecurrentGemma does in its modules"
        )


def _has_no_state(layer: LinearAttentionLayer) -> bool:
    return not any(
        [*layer.is_conv_states_initialized.values(), *layer.is_recurrent_states_initialized.values()]
    )


@torch.no_grad()
def _taken(layer: Any) -> dict[str, Any]:
    shared = GROWING if isinstance(layer, DynamicLayer) else ()
    return {name: value if name in shared else _copied(value) for name, value in vars(layer).items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Copy(value.clone())
    if isinstance(value, RAttentionCache):
        return _Copy(copy.deepcopy(value))
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return value


@torch.no_grad()
def _given(held: Any, current: Any) -> Any:
    if isinstance(held, dict):
        return {key: _given(part, (current or {}).get(key)) for key, part in held.items()}
    if not isinstance(held, _Copy):
        return held
    if not isinstance(held.of, Tensor):
        return copy.deepcopy(held.of)
    if _can_be_written(current, held.of):  # its address may be known to a compiled model
        return current.copy_(held.of)
    return held.of.clone()


def _can_be_written(current: Any, like: Tensor) -> bool:
    if not isinstance(current, Tensor) or current.requires_grad:
        return False
    same = (current.shape, current.dtype, current.device) == (like.shape, like.dtype, like.device)
    return same and not (current.is_inference() and not torch.is_inference_mode_enabled())


def _bytes(held: Any) -> int:
    if isinstance(held, dict):
        return sum(_bytes(part) for part in held.values())
    return int(held.of.nbytes) if isinstance(held, _Copy) else 0
