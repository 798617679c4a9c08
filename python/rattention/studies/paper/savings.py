"""What the keys, values and states of a model weigh while it decodes one sequence.

A layer of full attention keeps a key and a value per token: ``2 * kv_heads * head_dim`` numbers. A sliding
window keeps the last w + 1 tokens of them (arXiv 2506.15545, section 2.1). RAttention keeps the same ring and
a state of ``2 head_dim x head_dim`` numbers per key/value head, as phi(k) = [softmax(k), softmax(-k)] is
``2 head_dim`` wide (sections 2.2 and 3.1). In a local-global model the last of every few layers is one of
full attention (section 3.3). With b bytes of keys and values per token and layer, s bytes of states per layer
and a share g of global layers, RAttention saves at L tokens

    ``(1 - g) * (1 - (min(L, w + 1) * b + s) / (L * b))``

of the full cache. The paper leaves s out where it states about 56 % for w = 1024 at 4096 tokens (section 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class CacheModel:
    """The shape of a local-global model, as far as its caches depend on it; ValueError where it cannot be.

    Parameters
    ----------
    layers, heads, kv_heads, head_dim:
        As in the model's configuration; `kv_heads` divides `heads`.
    window:
        w: a local layer keeps the current token and the w before it.
    global_every:
        Of every group of this many layers the last is global; 0 if all are local.
    dtype, state_dtype:
        Of keys and values, and of the states.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int = 512
    global_every: int = 4
    dtype: str = "bfloat16"
    state_dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse shapes that no model has."""
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("window", "global_every") else 1
            if isinstance(value, int) and value < least:
                raise ValueError(f"{field.name} must be at least {least}, got {value}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads, got {self.kv_heads} and {self.heads}")
        for name in ("dtype", "state_dtype"):
            if getattr(self, name) not in DTYPE_BYTES:
                allowed = ", ".join(DTYPE_BYTES)
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")

    @property
    def global_layers(self) -> int:
        """Layers of full attention: the last of every `global_every`."""
        return self.layers // self.global_every if self.global_every else 0

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's key and value in one layer."""
        return 2 * self.kv_heads * self.head_dim * DTYPE_BYTES[self.dtype]

    def state_bytes(self, states: int) -> int:
        """Bytes of one layer's linear-attention states."""
        return states * 2 * self.head_dim * self.head_dim * DTYPE_BYTES[self.state_dtype]


PRESETS = {
    "3b": CacheModel(layers=56, heads=16, kv_heads=4, head_dim=128),
    "12b": CacheModel(layers=40, heads=40, kv_heads=8, head_dim=128),
}
"""The paper's models (figure 3)."""


@dataclass(frozen=True)
class CacheBytes:
    """Bytes held for one sequence of `length` tokens under each design."""

    length: int
    full: int
    sliding_window: int
    rattention: int
    rattention_state_per_query_head: int
    """The same with a state for every query head. Only an initial state per query head makes that necessary:
    without one, the query heads of a group all have the same state, and one per key/value head is exact."""

    def saved(self, design: str) -> float:
        """Share of the full cache that `design`, a field above, saves; negative where it costs more."""
        return 1 - int(getattr(self, design)) / self.full


def cache_bytes(model: CacheModel, length: int) -> CacheBytes:
    """Bytes at `length` tokens. States are counted at any length: they are held from the first token on."""
    if length < 1:
        raise ValueError(f"a length must be at least 1, got {length}")
    local_layers = model.layers - model.global_layers
    full_layers = model.global_layers * length * model.token_bytes
    ring = min(length, model.window + 1) * model.token_bytes

    def with_states(states: int) -> int:
        return full_layers + local_layers * (ring + model.state_bytes(states))

    return CacheBytes(
        length=length,
        full=model.layers * length * model.token_bytes,
        sliding_window=with_states(0),
        rattention=with_states(model.kv_heads),
        rattention_state_per_query_head=with_states(model.heads),
    )
