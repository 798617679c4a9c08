"""Caches of layers while they generate: ring and state for RAttention, the state where it decays, keys and
values for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rattention.mechanisms.gated_delta_cache import GatedDeltaCache
from rattention.mechanisms.masks import window_bounds
from rattention.mechanisms.rattention_cache import RAttentionCache
from rattention.nn.attention import LayerCache
from rattention.nn.mechanisms import GLA, GatedLinear, RAttention, Recurrent
from rattention.torch import gated_delta_step, rattention_step
from rattention.torch.checks import as_array, as_tensor
from rattention.torch.rotary import rotary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rattention.nn.attention import SelfAttention
    from rattention.nn.recurrence import Recurrence


LEAST_ROOM = 16
"""Rows for which there is room at least, whenever there is no room left."""


class Rows:
    """Several tensors ``[batch, heads, rows, ...]`` that grow at the end and lose rows at the front.

    Joining old and new rows for every token takes longer than attending to them. Here they are copied only
    when the spare room, a quarter of the rows, is used up, so each token costs at most four row copies. Rows
    that `tensors` has returned are never overwritten.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._first = self._end = 0

    def __len__(self) -> int:
        """Rows there are."""
        return self._end - self._first

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, without the room for more."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """The rows of each tensor, as views."""
        return [buffer[:, :, self._first : self._end] for buffer in self._buffers]

    def append(self, new: Sequence[Tensor]) -> None:
        """As many rows for each tensor. Not for gradients, which writing would lose."""
        if not self._buffers:
            self._replace(list(new))
            return
        count = new[0].shape[2]
        # Tensors of inference mode cannot be written to outside.
        writable = torch.is_inference_mode_enabled() or not self._buffers[0].is_inference()
        if not writable or self._end + count > self._buffers[0].shape[2]:
            held, rows = self.tensors(), len(self)
            self._replace([_with_room(tensor, rows + count + _room(rows + count)) for tensor in held])
            self._end = rows
        for buffer, tensor in zip(self._buffers, new, strict=True):
            buffer[:, :, self._end : self._end + count] = tensor
        self._end += count

    def keep_last(self, count: int) -> None:
        """Drop all rows but the last `count`; their memory is given back when it is much."""
        self._first = max(self._first, self._end - count)
        if self._buffers and self._buffers[0].shape[2] > count + _room(count + 1) + 1:
            self._replace([tensor.clone() for tensor in self.tensors()])

    def _replace(self, tensors: list[Tensor]) -> None:
        self._buffers, self._first, self._end = tensors, 0, tensors[0].shape[2]


def _room(rows: int) -> int:
    return max(LEAST_ROOM, rows // 4)


def _with_room(tensor: Tensor, rows: int) -> Tensor:
    """A copy of `tensor` with space for `rows` rows in all."""
    wide = tensor.new_empty((*tensor.shape[:2], rows, *tensor.shape[3:]))
    wide[:, :, : tensor.shape[2]] = tensor
    return wide


class KeyValueCache(LayerCache):
    """Keys, values and masses: the last ones with a window, else all, growing with the context."""

    def __init__(self, window: int | None) -> None:
        self.length = 0
        self.window = window
        self.kept = Rows()

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept; room for what follows is a quarter of it at most, or 16 tokens."""
        return self.kept.nbytes

    def attend(
        self, layer: SelfAttention, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any]
    ) -> Tensor:
        """Attention to what is kept and to the new tokens."""
        query, key = rotary(query, key, theta=layer.rope_theta, first_position=self.length)
        self.kept.append([key, value, *(rule[name] for name in ("key_mass",) if name in rule)])
        seen = self.kept.tensors()
        self.length += query.shape[2]
        if self.window is not None:
            self.kept.keep_last(self.window)
        rule = rule | dict(zip(("key_mass",), seen[2:], strict=False))
        return layer.softmax_family(query, seen[0], seen[1], **rule)


class StateCache(LayerCache):
    """RAttention's ring and state, in the layer's dtype and with its norm weights of this moment; their size
    does not depend on the context."""

    def __init__(self, layer: SelfAttention, batch: int) -> None:
        options, norms, weight = layer.mechanism, layer.norms, layer.key.weight
        assert isinstance(options, RAttention)
        assert norms is not None
        _require_cpu(layer)
        weights: dict[str, Any] = {name: as_array(w.float()) for name, w in norms.rule().items()}
        self.length = 0
        self.contents = RAttentionCache(
            batch,
            weight.shape[0] // layer.head_dim,
            layer.head_dim,
            options.window,
            feature_map=options.feature_map,
            rope_theta=options.rope_theta,
            dtype=str(weight.dtype).removeprefix("torch."),
            **weights,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of ring and state."""
        return self.contents.nbytes

    def attend(
        self, layer: SelfAttention, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any]
    ) -> Tensor:
        """One step of the cache."""
        if layer.attention_hook is not None:
            seen = torch.cat([as_tensor(self.contents.recent_keys()), key], dim=2)
            first = self.length + query.shape[2] - seen.shape[2]
            layer.show_local(query, seen, first_position=first)
        self.length += query.shape[2]
        return rattention_step(query, key, value, self.contents)


class RecurrentCache(LayerCache):
    """The state of a layer where it decays, float32, and the last rows that its convolution reads, in the
    layer's dtype; their size does not depend on the context."""

    def __init__(self, layer: SelfAttention, batch: int) -> None:
        assert layer.recurrence is not None
        _require_cpu(layer)
        self.length = 0
        convolution, weight = layer.recurrence.convolution, layer.key.weight
        sizes = (0, 0) if convolution is None else (convolution.before, convolution.taps.in_channels)
        self.recent = weight.new_zeros((batch, *sizes), requires_grad=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the state and of the rows for the convolution."""
        return self.recent.nbytes + self.state_nbytes()

    def state_nbytes(self) -> int:
        """Bytes of the state."""
        raise NotImplementedError

    def attend(
        self, layer: SelfAttention, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any]
    ) -> Tensor:
        """The convolution of what is kept and the new tokens, and one step of the state."""
        recurrence = layer.recurrence
        assert recurrence is not None
        recent = self.recent
        if recurrence.convolution is not None:
            (query, key, value), recent = recurrence.convolution.step((query, key, value), recent)
        rows = self.step(recurrence, query, key, value, rule)  # which may refuse the tokens
        self.recent = recent
        self.length += query.shape[2]
        return rows

    def step(
        self, recurrence: Recurrence, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any]
    ) -> Tensor:
        """What the heads read, after the convolution; the state goes on."""
        raise NotImplementedError


class LinearStateCache(RecurrentCache):
    """Of gated linear attention."""

    def __init__(self, layer: SelfAttention, batch: int) -> None:
        super().__init__(layer, batch)
        options, kv_heads = layer.mechanism, layer.key.out_features // layer.head_dim
        mapped = isinstance(options, GatedLinear) and options.feature_map is not None
        features = layer.head_dim * (2 if mapped else 1)
        self.state = torch.zeros(batch, kv_heads, features, layer.head_dim)

    def state_nbytes(self) -> int:
        """Bytes of the state."""
        return self.state.nbytes

    def step(
        self, recurrence: Recurrence, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any]
    ) -> Tensor:
        """The state goes in as the initial one of the new tokens."""
        heads: Tensor
        more: dict[str, Any] = {"initial_state": self.state, "return_state": True}
        heads, self.state = recurrence.linear(query, key, value, **rule, **more)
        return heads


class DeltaStateCache(RecurrentCache):
    """Of the delta rules."""

    def __init__(self, layer: SelfAttention, batch: int) -> None:
        super().__init__(layer, batch)
        self.contents = GatedDeltaCache(batch, layer.query.out_features // layer.head_dim, layer.head_dim)

    def state_nbytes(self) -> int:
        """Bytes of the state."""
        return self.contents.nbytes

    def step(
        self, recurrence: Recurrence, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any]
    ) -> Tensor:
        """The state is changed in place."""
        return gated_delta_step(query, key, value, **rule, cache=self.contents, normalize=True)


def _require_cpu(layer: SelfAttention) -> None:
    device = layer.key.weight.device
    if device.type != "cpu":
        kind = type(layer.mechanism).__name__
        raise ValueError(f"{kind} layers generate on the CPU only, the model is on {device}")


def _cache_of(layer: SelfAttention, batch: int) -> LayerCache:
    if isinstance(layer.mechanism, RAttention):
        return StateCache(layer, batch)
    if isinstance(layer.mechanism, GatedLinear | GLA):
        return LinearStateCache(layer, batch)
    if isinstance(layer.mechanism, Recurrent):
        return DeltaStateCache(layer, batch)
    return KeyValueCache(window_bounds(layer.window, causal=True)[0])


class DecodingCache:
    """The past of a model's layers, made by `LanguageModel.new_cache`.

    Layers with a state and those of windowed attention keep the same number of bytes for any context, the
    others keep all keys and values.
    """

    def __init__(self, layers: Iterable[SelfAttention], batch: int) -> None:
        self.layers: list[LayerCache] = [_cache_of(layer, batch) for layer in layers]

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self.layers[0].length if self.layers else 0

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers)
