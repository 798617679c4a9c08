"""Attention of single layers by the code of Transformers: gpt-oss with sinks, T5 with a bias by distance.

Queries, keys and values are random. Projections are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import load, output
from benchmarks.peers.transformers_models import OURS, require_memory
from benchmarks.race import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.race import Setup

WINDOW = 128
"""`sliding_window` of gpt-oss: a row sees itself and the 127 keys before."""
BUCKETS, FARTHEST = 32, 128
"""Of T5's bias: keys farther away than `FARTHEST` share a bucket."""
WHOLE = 1024
"""The longest text for which the eager formula holds the maps of all heads at once."""
TABLES = 4
"""Maps that the eager formula has in memory at once."""


@dataclass(frozen=True)
class Layer:
    """The attention of one layer, and the implementation in Transformers that it is compared with."""

    title: str
    heads: int
    kv_heads: int
    scale: float
    against: str


LAYERS = {
    "gpt-oss": Layer("gpt-oss-20b, attention alone, window 128, sinks", 64, 8, 0.125, "eager"),
    "t5": Layer("T5-base encoder, attention alone, position bias", 12, 12, 1.0, "sdpa"),
}
HEAD_DIM = 64


def attend(
    setup: Setup,
    name: str,
    implementation: str,
    *,
    dtype: str = "float32",
    batch: int = 1,
    prepared: bool = True,
) -> Runner:
    """Attention alone. `prepared`: masks and biases of queries by keys are made beforehand, as a model makes
    them once for all layers, and maps that are too large for memory are made for some heads at a time."""
    torch, layer = load(setup), LAYERS[name]
    require_memory(tables(name, implementation, setup.length, dtype=dtype, batch=batch, whole=not prepared))
    generator = torch.Generator().manual_seed(0)

    def random(heads: int) -> Any:
        values = torch.randn(batch, heads, setup.length, HEAD_DIM, generator=generator)
        return values.to(getattr(torch, dtype))

    query, key, value = random(layer.heads), random(layer.kv_heads), random(layer.kv_heads)
    query = query * (0.125 / layer.scale)
    make = {"gpt-oss": _with_sinks, "t5": _with_bias}[name]
    return Runner(make(torch, implementation, query, key, value, prepared), output)


def tables(
    name: str, implementation: str, length: int, *, dtype: str = "float32", batch: int = 1, whole: bool = True
) -> float:
    """Bytes of queries by keys that an implementation holds at once."""
    if implementation == OURS:
        return 0.0
    layer, size = LAYERS[name], 4 if dtype == "float32" else 2
    if name == "t5":
        return 2.0 * layer.heads * length**2 * 4  # made once, then copied into the order of SDPA
    heads = layer.heads if whole or length <= WHOLE else layer.heads // layer.kv_heads
    return float(TABLES * batch * heads * length**2 * size)


def _with_sinks(
    torch: Any, implementation: str, query: Any, key: Any, value: Any, prepared: bool
) -> Callable[[], Any]:
    scale, heads = LAYERS["gpt-oss"].scale, query.shape[1]
    sinks = torch.linspace(-2, 2, heads).to(query.dtype)
    if implementation == OURS:
        attention = import_module("rattention.torch").attention
        options = {"causal": True, "window": WINDOW - 1, "scale": scale, "sinks": sinks.float()}
        return lambda: attention(query, key, value, **options)
    eager = import_module("transformers.models.gpt_oss.modeling_gpt_oss").eager_attention_forward
    group, length = heads // key.shape[1], query.shape[2]
    pieces = key.shape[1] if prepared and length > WHOLE else 1

    def mask() -> Any:
        visible = torch.ones(length, length, dtype=torch.bool).tril().triu(1 - WINDOW)
        table = torch.zeros(length, length, dtype=query.dtype)
        return table.masked_fill_(~visible, torch.finfo(query.dtype).min)[None, None]

    def of_heads(table: Any, piece: tuple[Any, ...]) -> Any:
        q, k, v, sink = piece
        module = SimpleNamespace(num_key_value_groups=group, sinks=sink, training=False)
        return eager(module, q, k, v, table, scaling=scale)[0]

    ready = mask() if prepared else None

    def call() -> Any:
        table = mask() if ready is None else ready
        parts = zip(*(t.chunk(pieces, dim=1) for t in (query, key, value)), sinks.chunk(pieces), strict=True)
        return torch.cat([of_heads(table, piece) for piece in parts], dim=2).transpose(1, 2)

    return call


def _with_bias(
    torch: Any, implementation: str, query: Any, key: Any, value: Any, prepared: bool
) -> Callable[[], Any]:
    torch.manual_seed(0)
    configuration = import_module("transformers").T5Config(
        num_heads=query.shape[1],
        d_kv=HEAD_DIM,
        relative_attention_num_buckets=BUCKETS,
        relative_attention_max_distance=FARTHEST,
    )
    t5 = import_module("transformers.models.t5.modeling_t5").T5Attention(configuration, True)
    t5 = t5.requires_grad_(False)
    t5.relative_attention_bias.weight.normal_()
    scale = LAYERS["t5"].scale
    if implementation == OURS:
        distances = torch.arange(-FARTHEST, FARTHEST + 1)
        near = t5.relative_attention_bias(t5._relative_position_bucket(distances)).T
        attention = import_module("rattention.torch").attention
        return lambda: attention(query, key, value, scale=scale, relative_bias=near)
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def bias() -> Any:
        return t5.compute_bias(query.shape[2], query.shape[2]).to(query.dtype).contiguous()

    ready = bias() if prepared else None
    return lambda: sdpa(query, key, value, attn_mask=bias() if ready is None else ready, scale=scale)
