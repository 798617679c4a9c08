"""Compressed key/value caches of the models of `rattention.nn`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from rattention.compression.compressing import Compression, LayerUse
from rattention.compression.held import Held
from rattention.inspect.hooks import alone
from rattention.nn import SelfAttention, Softmax, TransformerEncoder
from rattention.nn.attention import LayerCache
from rattention.nn.decoding import DecodingCache, KeyValueCache
from rattention.torch.rotary import rotary


class CompressedCache(LayerCache):
    """The past of one layer, some of it."""

    def __init__(self, held: Held) -> None:
        self.held = held

    @property
    def length(self) -> int:  # type: ignore[override]
        """Tokens seen."""
        return self.held.seen

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return self.held.nbytes

    def attend(
        self,
        layer: SelfAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: dict[str, Any],
    ) -> torch.Tensor:
        """Attention to what is held and to the new tokens; then the cut, where it is due."""
        held = self.held
        query, key = rotary(query, key, theta=layer.rope_theta, first_position=held.seen)
        held.append(key, value)
        held.show(None, query.shape[2])
        heads = layer.softmax_family(query, held.key, held.value, **rule, **held.masks(query.shape[1]))
        held.attended(query, None)
        return heads


@contextmanager
def compressing(model: torch.nn.Module, plan: Compression) -> Iterator[None]:
    """`rattention.compress` for modules that hold a `TransformerEncoder`."""
    encoders = [(n, part) for n, part in model.named_modules() if isinstance(part, TransformerEncoder)]
    uses = [_uses(name, encoder) for name, encoder in encoders]
    plan.layers.extend(use for group in uses for use in group.values())
    if not plan.layers:
        raise ValueError(
            f"{type(model).__name__} has no causal layers of full softmax attention, whose caches grow"
        )
    with alone(model), ExitStack() as hooks:
        for (_, encoder), group in zip(encoders, uses, strict=True):
            hook = encoder.register_forward_pre_hook(partial(_swap, plan, group), with_kwargs=True)
            hooks.callback(hook.remove)
        yield


def _uses(name: str, encoder: TransformerEncoder) -> dict[int, LayerUse]:
    """Of the layers whose caches can be compressed, by number."""
    return {
        index: LayerUse(f"{name}.layers.{index}.attention".lstrip("."))
        for index, layer in enumerate(encoder.attention_layers())
        if isinstance(layer.mechanism, Softmax) and layer.causal
    }


def _swap(plan: Compression, uses: dict[int, LayerUse], *call: Any) -> None:
    """Compressed caches take the place of those that grow, before an encoder runs."""
    cache: DecodingCache | None = call[-1].get("cache")
    if cache is not None:
        for index, use in uses.items():
            cache.layers[index] = _compressed(cache.layers[index], plan, use)


def _compressed(layer: LayerCache, plan: Compression, use: LayerUse) -> LayerCache:
    if isinstance(layer, CompressedCache):
        layer.held.plan, layer.held.use = plan, use
    elif isinstance(layer, KeyValueCache):
        own = CompressedCache(Held(plan, use))
        if len(layer.kept) > 0:
            own.held.append(*layer.kept.tensors())
        return own
    return layer
