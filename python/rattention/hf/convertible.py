"""Which layers of a model `convert` can turn into RAttention."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rattention.hf.converted import RAttentionModule
from rattention.hf.interface import calls_interface
from rattention.hf.rotation import decoder_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TAKES, GIVES = "is_kv_shared_layer", "store_full_length_kv"
"""What modules say of keys that layers share, as in Gemma 3n. Those that give them may have no taker."""


def attentions_of(model: PreTrainedModel) -> dict[int, Any]:
    """Attention modules of the decoder with rotary embedding that call the interface, by layer."""
    return {int(module.layer_idx): module for _, module in _rotated(model)}


def _rotated(model: PreTrainedModel) -> list[tuple[str, Any]]:
    return [
        (name, module)
        for name, module in cast("Iterable[tuple[str, Any]]", decoder_of(model).named_modules())
        if calls_interface(module)
        and isinstance(getattr(module, "layer_idx", None), int)
        and "position_embeddings" in inspect.signature(type(module).forward).parameters
    ]


def convertible(model: PreTrainedModel) -> dict[int, Any]:
    """Attention modules that are not converted yet, by layer."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers.PreTrainedModel, got {type(model).__name__}")
    found = {i: m for i, m in attentions_of(model).items() if not isinstance(m, RAttentionModule)}
    name = type(model).__name__
    if model.config.is_encoder_decoder or not found:
        raise ValueError(
            f"{name} has no layers that can be converted: that takes a causal decoder whose layers have a "
            "rotary embedding, call Transformers' AttentionInterface, and are not converted yet"
        )
    _require_one_module_per_layer(model)
    if any(getattr(m, "is_causal", True) is False for m in found.values()):
        raise ValueError(
            f"{name} has no layers that can be converted: they attend to both sides, RAttention to what came "
            "before; convert a causal model"
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"{name} has no weights yet (device meta), convert it once they are loaded")
    return found


def caches_of(model: PreTrainedModel) -> dict[int, Any]:
    """What Transformers makes as the caches of the model's layers, empty, by layer."""
    return dict(enumerate(DynamicCache(config=model.config.get_text_config(decoder=True)).layers))


def require_caches_of_keys(model: PreTrainedModel, layers: Mapping[int, Any]) -> None:
    """ValueError where a layer keeps more between tokens than keys and values of its own."""
    made = caches_of(model)
    takers = any(getattr(attention, TAKES, False) for attention in attentions_of(model).values())
    for index, attention in layers.items():
        if getattr(attention, TAKES, False) or (takers and getattr(attention, GIVES, False)):
            raise ValueError(
                f"{type(model).__name__} cannot be converted: layer {index} has its keys from another layer "
                "or gives them to one; leave such layers out by layers="
            )
        if index in made and type(made[index]) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise ValueError(
                f"{type(model).__name__} cannot be converted: layer {index} has a cache of class "
                f"{type(made[index]).__name__}, not of keys and values alone; leave such layers out by "
                "layers="
            )


def _require_one_module_per_layer(model: PreTrainedModel) -> None:
    by_layer: dict[int, list[str]] = {}
    for place, module in _rotated(model):
        by_layer.setdefault(int(module.layer_idx), []).append(place)
    for index, places in by_layer.items():
        if len(places) > 1:
            raise ValueError(
                f"{type(model).__name__} has no layers that can be converted: several are number {index} "
                f"({', '.join(places)})"
            )
