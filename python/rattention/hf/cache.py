"""The cache of a converted layer, as a layer of Transformers' caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import CacheLayerMixin

from rattention.mechanisms.rattention_cache import RAttentionCache
from rattention.torch import rattention_step
from rattention.torch.checks import as_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import Cache


class RAttentionCacheLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """A ring of the last keys and values and the state of all before them: `rattention.RAttentionCache`.

    Padding is not kept. The size does not depend on the number of tokens; they cannot be removed.
    """

    is_sliding = False
    supports_early_init = False

    def __init__(self, window: int, **settings: Any) -> None:
        """Empty; sizes and dtype come with the first tokens, other arguments of `RAttentionCache` are
        `settings`, in which arrays are tensors."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = window
        self.settings = settings
        self.contents: RAttentionCache | None = None
        self.seen = 0
        """Tokens, padding among them, as Transformers counts positions."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and states; 0 before the first tokens."""
        return 0 if self.contents is None else self.contents.nbytes

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Memory for the sizes of these keys and values."""
        if key_states.device.type != "cpu":
            raise ValueError(
                f"converted layers keep their cache on the CPU, keys are on {key_states.device}: generate "
                "there, or with use_cache=False"
            )
        settings: dict[str, Any] = {
            name: as_array(_at_least_float32(value)) if isinstance(value, torch.Tensor) else value
            for name, value in self.settings.items()
        }
        batch, kv_heads, _, head_dim = key_states.shape
        dtype = str(key_states.dtype).removeprefix("torch.")
        self.contents = RAttentionCache(
            batch,
            kv_heads,
            head_dim,
            self.window,
            value_dim=value_states.shape[3],
            dtype=dtype,
            **settings,
        )
        self.keys = self.values = key_states.new_empty(0)  # Transformers asks for their size in some models
        self.is_initialized = True

    @torch.no_grad()
    def step(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        shown: torch.Tensor | None,
    ) -> torch.Tensor:
        """Add the next tokens and return their rows of RAttention.

        `shown` is bool ``[batch, tokens]``, False for padding, whose rows are 0; None is all True.
        """
        if self.contents is None:
            self.lazy_initialization(key, value)
        assert self.contents is not None
        if shown is None or bool(shown.all()):
            output = rattention_step(query, key, value, self.contents)
        else:
            order = shown.logical_not().long().argsort(dim=1, stable=True)  # what is shown comes first
            query, key, value = (_along(tensor, order) for tensor in (query, key, value))
            output = rattention_step(query, key, value, self.contents, lengths=shown.sum(dim=1))
            output = _along(output, order.argsort(dim=1))
        self.seen += query.shape[2]
        return output

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Refused: keys and values before the window exist as a state only."""
        raise NotImplementedError("this cache belongs to a layer that rattention.hf.convert has converted")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that masks are made for."""
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen."""
        return self.seen

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def reset(self) -> None:
        """Empty again."""
        self.contents, self.seen, self.is_initialized = None, 0, False

    def offload(self) -> None:
        """Do nothing: it is on the CPU."""

    def prefetch(self) -> None:
        """Do nothing: it is on the CPU."""

    def crop(self, tokens_to_remove: int) -> None:
        """Do nothing for 0; NotImplementedError otherwise, because the state cannot forget."""
        if tokens_to_remove != 0:
            raise NotImplementedError(
                "RAttention's state cannot take tokens back (assisted or speculative generation): use plain "
                "generation, or copy.deepcopy(past_key_values) beforehand"
            )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these sequences."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these sequences."""
        if self.contents is not None:
            self.contents = self.contents.select(indices.cpu().numpy())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        if self.contents is not None:
            batch = len(self.contents.lengths)
            self.contents = self.contents.select(torch.arange(batch).repeat_interleave(repeats).numpy())


CACHES = ("cache", "past_key_values", "layer_past")
"""Names that attention modules have for the cache: since Transformers 5.24, until 5.23, and in GPT-NeoX."""


def given_cache(arguments: dict[str, Any]) -> Any:
    """The cache among a module's arguments, None where there is none."""
    return next((arguments[name] for name in CACHES if arguments.get(name) is not None), None)


def existing_layer(cache: Cache, index: int) -> Any:
    """Layer `index` of `cache`, which makes its layers when they are asked for."""
    while len(cache.layers) <= index and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    return cache.layers[index]


def layer_of(cache: Cache, index: int, make: Callable[[], RAttentionCacheLayer]) -> RAttentionCacheLayer:
    """Layer `index` of `cache`, put in the place of an empty one of another kind."""
    layer = existing_layer(cache, index)
    if isinstance(layer, RAttentionCacheLayer):
        return layer
    if layer.get_seq_length() > 0:
        raise ValueError(
            f"layer {index} of past_key_values was filled before the model was converted: begin with a new "
            "cache"
        )
    own = make()
    cache.layers[index] = own
    return own


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _along(tensor: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Tokens of ``[batch, heads, tokens, dim]`` in another order, per sequence."""
    return tensor.gather(2, order[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3]))
