"""A cache for generation that writes new tokens beside the old ones instead of copying all of them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

SPARE = 2
"""A new room has place for 1 / `SPARE` more tokens than it gets."""
LEAST_SPARE = 64


class InPlaceCache(DynamicCache):
    """A `transformers.DynamicCache` with the same contents, whose tokens are not copied at every step.

    `DynamicCache` copies all keys and values of a layer when a token is added: after 32 k tokens that takes
    longer than their attention. Here layers have room for more tokens and move to a larger room when it is
    full; a layer with a sliding window moves once per window. Room takes up to half as much memory again.
    Pass one to a model of any attention implementation, on any device::

        model.generate(**inputs, past_key_values=rattention.hf.InPlaceCache(model.config))

    Beam search, assisted generation and everything else that `DynamicCache` can do give the same results.
    Tokens are copied where writing beside the old ones could change tensors that somebody else holds, where
    gradients of keys or values are recorded, and in compiled models. Layers that are not attention are
    Transformers' own.

    Parameters
    ----------
    config:
        The model's; windows are read from it. Without it no layer has a window.
    options:
        Those of `DynamicCache`, whose first one may come by position, too.
    """

    def __init__(self, config: PreTrainedConfig | Any | None = None, **options: Any) -> None:
        if config is not None and not isinstance(config, PreTrainedConfig):
            options["ddp_cache_data"], config = config, None
        super().__init__(config=config, **options)
        self.layers = [_in_place(layer) for layer in self.layers]
        if self.layer_class_to_replicate is DynamicLayer:
            self.layer_class_to_replicate = InPlaceLayer


class _Room:
    """Memory for keys or values, of which the tokens up to `used` have been written."""

    def __init__(self) -> None:
        self.memory: torch.Tensor | None = None
        self.used = 0

    def append(self, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """[batch, heads, held + new tokens, dim]: in place where `held` lies in this room and is the last
        thing written there, so that no tensor given out before changes."""
        if held.numel() and (held.device != new.device or _sizes(held) != _sizes(new)):
            return torch.cat([held, new], dim=-2)  # raises
        start, count = self._start(held, new), new.shape[-2]
        if start is None:
            start = self._move(held, new)
        assert self.memory is not None
        # By `data`, because what autograd saved beside it would count as changed.
        self.memory.data.narrow(-2, self.used, count).copy_(new)
        self.used += count
        return self.memory.narrow(-2, start, self.used - start)

    def _start(self, held: torch.Tensor, new: torch.Tensor) -> int | None:
        """The place of `held` in this room; None where `new` cannot be written after it."""
        memory = self.memory
        if memory is None or held.dim() != new.dim() or self.used + new.shape[-2] > memory.shape[-2]:
            return None
        if memory.shape[-2] > 2 * _with_spare(held.shape[-2] + new.shape[-2]):  # a window's, after a prompt
            return None
        if memory.dtype != new.dtype or _sizes(memory) != _sizes(new):
            return None
        if memory.is_inference() and not torch.is_inference_mode_enabled():
            return None
        same = held.untyped_storage().data_ptr() == memory.untyped_storage().data_ptr()
        start = held.storage_offset() // memory.stride(-2)
        last = start + held.shape[-2] == self.used
        return start if same and last and held.stride() == memory.stride() else None

    def _move(self, held: torch.Tensor, new: torch.Tensor) -> int:
        """To a new room that begins with what is held."""
        self.used = held.shape[-2] if held.dim() == new.dim() else 0
        room = _with_spare(self.used + new.shape[-2])
        dtype = torch.promote_types(held.dtype, new.dtype)
        self.memory = new.new_empty(*new.shape[:-2], room, new.shape[-1], dtype=dtype)
        if self.used:
            self.memory.narrow(-2, 0, self.used).copy_(held)
        return 0


def _with_spare(tokens: int) -> int:
    return tokens + max(tokens // SPARE, LEAST_SPARE)


def _sizes(tensor: torch.Tensor) -> tuple[int, ...]:
    """All but the number of tokens."""
    return (*tensor.shape[:-2], tensor.shape[-1])


def _in_place(layer: Any) -> Any:
    classes: dict[type, Any] = {DynamicLayer: InPlaceLayer, DynamicSlidingWindowLayer: InPlaceWindowLayer}
    if type(layer) not in classes:
        return layer
    made = classes[type(layer)](sliding_window=getattr(layer, "sliding_window", None))
    vars(made).update(vars(layer))
    return made


def _must_copy(*tensors: torch.Tensor) -> bool:
    if torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None:
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


class InPlaceLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """The keys and values of all tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._leave_rooms()

    def _leave_rooms(self) -> None:
        self.rooms = _Room(), _Room()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values that the given tokens may see, their own last."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if _must_copy(self.keys, self.values, key_states, value_states):
            self._leave_rooms()
            return super().update(key_states, value_states, *args, **kwargs)
        keys, values = self.rooms
        return self._keep(
            keys.append(self.keys, key_states), values.append(self.values, value_states), key_states.shape[-2]
        )

    def _keep(self, keys: torch.Tensor, values: torch.Tensor, new: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is kept of the held and the new tokens; returns what these may see."""
        self.keys, self.values = keys, values
        return keys, values

    def offload(self) -> None:
        """To the CPU; no memory stays on the device."""
        super().offload()  # type: ignore[no-untyped-call]
        if self.is_initialized and self.keys is not None and self.keys.device != self.device:
            self._leave_rooms()

    def reset(self) -> None:
        """Empty, without memory."""
        super().reset()
        self._leave_rooms()


class InPlaceWindowLayer(InPlaceLayer, DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
    """The keys and values of the last tokens, one less than the window has."""

    def _keep(self, keys: torch.Tensor, values: torch.Tensor, new: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.cumulative_length += new
        before = self.sliding_window - 1
        if not self.record_past:
            self.keys, self.values = _last(keys, before), _last(values, before)
            return keys, values
        self.keys, self.values = keys, values  # `crop` follows
        return _last(keys, before + new), _last(values, before + new)


def _last(tensor: torch.Tensor, tokens: int) -> torch.Tensor:
    held = tensor.shape[-2]
    return tensor if held <= tokens else tensor.narrow(-2, held - tokens, tokens)
