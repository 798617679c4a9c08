"""How the attention layers of a model turn queries and keys, measured on three tokens."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from rattention._models import evaluating
from rattention.hf.attention import REFUSED
from rattention.hf.cache import CACHES
from rattention.torch.rotary import plain_rotary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONVERTED = "rattention_converted"
"""The implementation of converted layers: it hands queries, keys and values to `RECEIVER`."""
RECEIVER = "rattention_receiver"
NEVER = {
    "softcap": ("soft-capped scores", "set attn_logit_softcapping to None in its config and load it again"),
    "s_aux": ("attention sinks", "convert a model without them"),
    "sinks": ("attention sinks", "convert a model without them"),
    "position_bias": ("a learned position bias", "convert a model with rotary embedding"),
    **{
        name: (REFUSED[name], "convert a model with dense attention") for name in ("indices", "block_indices")
    },
}
"""What a layer may ask of its attention that RAttention does not have, by argument, and the remedy."""


REPLACED = ("hidden_states", "position_embeddings", "attention_mask", *CACHES)
"""Arguments of a layer that are not those of the model where it is called alone."""

ROUNDING = 0.02
"""What 16 bits may change of a rotated query, relative; the wrong pairs change it by tenths."""


@dataclass(frozen=True)
class Rotation:
    """Pairs ``(order[i], order[i + head_dim / 2])`` turn by `frequencies` times the position."""

    frequencies: tuple[float, ...]
    """Radians per token; 0 for what a partial embedding leaves."""
    factors: tuple[float, ...]
    """Of the turned pairs: the attention factor of YaRN and longrope, else 1."""
    order: tuple[int, ...] | None
    """None: as they lie."""

    @classmethod
    def of(
        cls, frequencies: Sequence[float], factors: Sequence[float], order: Sequence[int] | None
    ) -> Rotation:
        """From lists, as JSON has them."""
        return cls(tuple(frequencies), tuple(factors), None if order is None else tuple(order))

    @cached_property
    def rates(self) -> torch.Tensor:
        """`rope_frequencies` of `rattention.rattention`."""
        return torch.tensor([self.frequencies, self.factors], dtype=torch.float64)

    def ordered(self, tensor: torch.Tensor) -> torch.Tensor:
        """With pairs where the kernels expect them: scores and both feature maps do not depend on the order
        of dimensions."""
        return tensor if self.order is None else tensor[..., list(self.order)]


@dataclass(frozen=True)
class LayerShape:
    """What a converted layer needs to know of the layer it was."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    rotary_dims: int
    """Of the cosines and sines that the model hands to the layer."""
    rotation: Rotation | None


def hand_over(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **arguments: Any,
) -> Any:
    """The implementation `CONVERTED`."""
    receiver = arguments.pop(RECEIVER)
    return receiver(query, key, value, **arguments)


AttentionInterface.register(CONVERTED, hand_over)


def no_rotation(hidden_states: torch.Tensor, dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines that leave queries and keys as they are."""
    shape = (1, hidden_states.shape[-2], dims)
    return hidden_states.new_ones(shape), hidden_states.new_zeros(shape)


@torch.no_grad()
def measured(
    model: PreTrainedModel, attentions: Mapping[int, torch.nn.Module], window: int
) -> dict[int, LayerShape]:
    """The shapes and rotations of these layers, as in a text of window + 1 tokens.

    Frequencies that depend on the length of the text (dynamic, longrope) are those for the longest distance
    that a converted layer scores. ValueError where a layer cannot be converted.
    """
    calls, tables = _observed(model, attentions, max(window, 1))
    shapes = {}
    for index, attention in attentions.items():
        try:
            shapes[index] = _measured(model, attention, calls.get(index), tables)
        except (TypeError, RuntimeError, KeyError, AttributeError) as error:
            raise _refusal(model, attention, f"called alone, it fails: {error}") from error
    return shapes


def _refusal(model: PreTrainedModel, attention: torch.nn.Module, what: str, remedy: str = "") -> ValueError:
    return ValueError(
        f"{type(model).__name__} cannot be converted: in layer {attention.layer_idx} "
        f"({type(attention).__name__}) {what}; {remedy or 'leave such layers out by layers='}"
    )


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that decodes: its text model where it also sees or hears."""
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    return decoder if isinstance(decoder, PreTrainedModel) else model


def _observed(
    model: PreTrainedModel, attentions: Mapping[int, torch.nn.Module], last: int
) -> tuple[dict[int, dict[str, Any]], list[tuple[Any, torch.Tensor, torch.Tensor]]]:
    """What each layer is called with for three tokens, and, for each pair of cosines and sines made, itself
    and the same in float32."""
    calls: dict[int, dict[str, Any]] = {}
    tables: list[tuple[Any, torch.Tensor, torch.Tensor]] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        calls[module.layer_idx] = kwargs | ({"hidden_states": args[0]} if args else {})

    def again(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        exact = torch.zeros(1, dtype=torch.float32, device=model.device)
        if args:
            args = (exact, *args[1:])
        else:
            kwargs = kwargs | {"x": exact}
        tables.append((output[0], *type(module).forward(module, *args, **kwargs)))

    # The embedding of padding is 0, and nothing would be seen to turn.
    padding = getattr(model.config, "pad_token_id", None)
    ids = torch.tensor([[i for i in range(4) if i != padding][:3]], device=model.device)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for attention in attentions.values():
            stack.callback(attention.register_forward_pre_hook(keep, with_kwargs=True).remove)
        for module in model.modules():
            if any("inv_freq" in name for name, _ in module.named_buffers(recurse=False)):
                stack.callback(module.register_forward_hook(again, with_kwargs=True).remove)
        for positions in ([0, 1, 2], [0, 1, last]):
            tables.clear()
            at = torch.tensor([positions], device=model.device)
            try:
                decoder_of(model).base_model(input_ids=ids, position_ids=at, use_cache=False)
            except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{type(model).__name__} cannot be converted: its decoder does not run on three tokens "
                    f"alone: {error}"
                ) from error
    return calls, tables


def _measured(
    model: PreTrainedModel, attention: torch.nn.Module, call: dict[str, Any] | None, tables: Any
) -> LayerShape:
    given = (call or {}).get("position_embeddings")
    if call is None or not isinstance(given, tuple) or given[0].dim() != 3:
        raise _refusal(model, attention, "no rotary embedding of one position per token is used")
    hidden, dims = call["hidden_states"], given[0].shape[-1]
    others = {name: value for name, value in call.items() if name not in REPLACED}
    plain = _received(attention, others, hidden, no_rotation(hidden, dims))
    turned = _received(attention, others, hidden, given)
    if plain["calls"] != 1:
        raise _refusal(model, attention, f"attention is called {plain['calls']} times for every token")
    if not isinstance(call.get("attention_mask"), torch.Tensor | None):
        raise _refusal(model, attention, "there are several masks")
    for name, (meaning, remedy) in NEVER.items():
        if plain["arguments"].get(name) is not None:
            raise _refusal(model, attention, f"there are {meaning}, which RAttention does not have", remedy)
    exact = next((table[1:] for table in tables if table[0] is given[0]), None)
    if exact is None:
        raise _refusal(model, attention, "the rotary embedding does not come from a module with frequencies")
    query, key, value = plain["query"], plain["key"], plain["value"]
    if query.shape[3] % 2 != 0:
        raise _refusal(model, attention, f"head_dim is odd, {query.shape[3]}")
    if not query.any():
        raise _refusal(model, attention, "all queries are 0", "load the weights before converting")
    try:
        rotation = _rotation(query, turned["query"], *(table[0].double().cpu() for table in exact))
    except ValueError:
        what = "queries are rotated neither by halves nor by neighbouring pairs"
        raise _refusal(model, attention, what) from None
    return LayerShape(query.shape[1], key.shape[1], query.shape[3], value.shape[3], dims, rotation)


def _received(
    attention: Any, others: dict[str, Any], hidden: torch.Tensor, embeddings: Any
) -> dict[str, Any]:
    """What a layer would attend with."""
    received: dict[str, Any] = {"calls": 0}

    def receive(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **arguments: Any) -> Any:
        received.update(query=query, key=key, value=value, arguments=arguments)
        received["calls"] += 1
        return query.new_zeros((query.shape[0], query.shape[2], query.shape[1], value.shape[3])), None

    config = attention.config
    attention.config = with_implementation(config)
    try:
        own = {"hidden_states": hidden, "position_embeddings": embeddings, "attention_mask": None}
        attention(**others, **own, **{RECEIVER: receive})
    finally:
        attention.config = config
    return received


def with_implementation(config: Any) -> Any:
    """A copy of a configuration for the layers that were converted."""
    own = copy.copy(config)
    own._attn_implementation_internal = CONVERTED
    return own


def _rotation(
    plain: torch.Tensor, turned: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> Rotation | None:
    """The rotation that turns the first two tokens of one tensor as the other; ValueError: none."""
    plain, turned = (tensor[:, :, :2].double().cpu() for tensor in (plain, turned))
    if _distance(turned, plain) <= 1e-6:
        return None
    found = [
        _with_rates(cos[1, layout], sin[1, layout], order)
        for layout in (slice(0, cos.shape[-1] // 2), slice(0, None, 2))
        for order in _orders(plain.shape[3], cos.shape[-1])
    ]
    best = min(found, key=lambda rotation: _distance(turned, _turned(plain, rotation)))
    if _distance(turned, _turned(plain, best)) > ROUNDING:
        raise ValueError
    return best


def _distance(tensor: torch.Tensor, other: torch.Tensor) -> float:
    return float((tensor - other).norm() / other.norm().clamp_min(1e-30))


def _orders(head_dim: int, dims: int) -> list[tuple[int, ...]]:
    """Dimensions with pairs half a head apart: for "rotate-half", and for neighbouring pairs."""
    rest = range(dims, head_dim)
    middle = len(rest) // 2
    return [
        (*first, *rest[:middle], *second, *rest[middle:])
        for first, second in (
            (range(dims // 2), range(dims // 2, dims)),
            (range(0, dims, 2), range(1, dims, 2)),
        )
    ]


def _with_rates(cos: torch.Tensor, sin: torch.Tensor, order: tuple[int, ...]) -> Rotation:
    still = len(order) // 2 - len(cos)
    frequencies = (*torch.atan2(sin, cos).tolist(), *[0.0] * still)
    factors = (*torch.hypot(sin, cos).tolist(), *[1.0] * still)
    return Rotation(frequencies, factors, None if order == tuple(range(len(order))) else order)


def _turned(plain: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    (turned,) = plain_rotary(rotation.ordered(plain), frequencies=rotation.rates)
    if rotation.order is None:
        return turned
    back = torch.empty_like(turned)
    back[..., list(rotation.order)] = turned
    return back
