"""Decoding with RAttention: a cache whose size and whose time per token do not depend on the context.

It keeps the last ``window`` keys and values of each sequence and, for earlier ones, the state ``S`` of the
residual branch (arXiv 2506.15545, section 3). Nothing is copied from token to token, and nothing forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import _core
from rattention._arguments import (
    FLOAT_DTYPES,
    array_in_brief,
    float32_array,
    float_array,
    integer_array,
    optional,
    positive,
    real_number,
    whole_number,
)
from rattention.mechanisms.cache_bytes import NORM_WEIGHTS, SIZES, pack, parse
from rattention.mechanisms.residual_linear import FEATURE_MAPS, as_given, feature_map_name
from rattention.mechanisms.rotary import rotary_rates
from rattention.mechanisms.softmax_family import scale_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

MAX_SIZE = 2**60
"""Beyond any memory, and small enough for the core's integers."""

FLOAT32 = np.dtype(np.float32)


class RAttentionSnapshot:
    """The contents of an `RAttentionCache` at one time; made by its method ``snapshot``."""

    def __init__(self, core: _core.RAttentionCache) -> None:
        self._core = core


class RAttentionCache:
    """The past of a batch of sequences, for `rattention_step`; empty at first.

    Parameters
    ----------
    batch:
        Number of sequences.
    kv_heads:
        Key/value heads; queries may have a multiple of them.
    head_dim:
        Elements of a query and of a key.
    window:
        w of `rattention`: a token sees itself and the w before it in full, the earlier ones through the
        state.
    value_dim:
        Elements of a value, `head_dim` by default; 0 makes empty rows, as everywhere.
    feature_map, rope_theta, rope_frequencies, scale, local_norm_weight, linear_norm_weight, eps:
        As in `rattention`, of every step. The weights, ``[heads, value_dim]``, are copied.
    dtype:
        Dtype of the tokens and of the cached keys and values: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        The state is always float32, and so are keys of a cache with a rotary embedding, which are kept as
        they are scored: steps are as accurate as `rattention`.

    Raises
    ------
    ValueError
        Sizes or values out of range.
    TypeError
        Sizes that are no integers, or another dtype.
    MemoryError
        The cache does not fit into memory.

    Notes
    -----
    Only one thread at a time can use a cache; any other gets RuntimeError. Caches can be pickled and
    copied.
    """

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        head_dim: int,
        window: int,
        *,
        value_dim: int | None = None,
        feature_map: str = "softmax",
        rope_theta: float | None = None,
        rope_frequencies: ArrayLike | None = None,
        dtype: DTypeLike = "float32",
        scale: float | None = None,
        local_norm_weight: ArrayLike | None = None,
        linear_norm_weight: ArrayLike | None = None,
        eps: float = 1e-8,
    ) -> None:
        given = (batch, kv_heads, head_dim, head_dim if value_dim is None else value_dim, window)
        sizes = (whole_number(name, size) for name, size in zip(SIZES, given, strict=True))
        self._sizes = dict(zip(SIZES, (max(-MAX_SIZE, min(size, MAX_SIZE)) for size in sizes), strict=True))
        weights = zip(NORM_WEIGHTS, (local_norm_weight, linear_norm_weight), strict=True)
        self._settings: dict[str, Any] = {
            "feature_map": feature_map_name(feature_map),
            "rope_frequencies": rotary_rates(rope_theta, rope_frequencies, self._sizes["head_dim"]),
            "scale": None if scale is None else real_number("scale", scale),
            "eps": positive("eps", eps),
            **{name: self._own_weight(name, weight) for name, weight in weights},
            "dtype": _dtype_name(dtype),
        }
        self._dtype: str = self._settings["dtype"]
        self._plain_dtype = None if self._dtype == "bfloat16" else np.dtype(self._dtype)
        self._core = _core.RAttentionCache(
            **self._sizes,
            feature_map=FEATURE_MAPS[self._settings["feature_map"]],
            rope=self._settings["rope_frequencies"],
            dtype=self._dtype,
        )

    def _own_weight(self, name: str, value: ArrayLike | None) -> NDArray[np.float32] | None:
        if value is None:
            return None
        weight = float32_array(name, value, 2).copy()
        heads, kv_heads, dim = len(weight), self._sizes["kv_heads"], self._sizes["value_dim"]
        if weight.shape[1] != dim or heads % max(kv_heads, 1) != 0:
            raise ValueError(
                f"{name} must have shape (heads, value_dim), a multiple of {kv_heads} heads and {dim}; got "
                f"{weight.shape}"
            )
        return weight

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens seen so far, one number per sequence."""
        return self._core.lengths()

    @property
    def length(self) -> int:
        """Tokens seen so far; of sequences that differ, the longest."""
        return int(self.lengths.max(initial=0))

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and states: the same for every number of tokens."""
        return self._core.nbytes()

    def recent_keys(self) -> NDArray[Any]:
        """The keys that are still there in full, oldest first and as they came: those of a cache with a
        rotary embedding are turned back, which changes them by rounding.

        ``[batch, kv_heads, min(length, window), head_dim]``; ValueError where sequences differ in length.
        """
        lengths = self.lengths
        if len(set(lengths.tolist())) > 1:
            raise ValueError(f"the sequences have different lengths, {lengths.tolist()}")
        return self._core.recent_keys()

    def snapshot(self) -> RAttentionSnapshot:
        """A copy of the contents, to go back to with `restore`."""
        return RAttentionSnapshot(self._core.copy())

    def restore(self, snapshot: RAttentionSnapshot) -> None:
        """Go back to `snapshot`, bit for bit.

        It may come from another cache of the same sizes, feature map, rotary embedding and dtype; from any
        other it raises ValueError.
        """
        if not isinstance(snapshot, RAttentionSnapshot):
            raise TypeError(f"snapshot must come from snapshot(), got {type(snapshot).__name__}")
        self._core.restore(snapshot._core)

    def select(self, sequences: ArrayLike) -> RAttentionCache:
        """A new cache with these sequences of the batch, integers ``[new batch]`` in any order, repeats
        allowed: for beam search, or for several answers to one prompt."""
        indices = integer_array("sequences", sequences, 1)
        batch = self._sizes["batch"]
        if indices.size and (indices.min() < 0 or indices.max() >= batch):
            raise ValueError(f"sequences must lie in [0, {batch - 1}], got {indices.tolist()}")
        changed: dict[str, Any] = {"batch": len(indices)}
        chosen = RAttentionCache(**(self._sizes | self._settings | changed))
        kept = (array.reshape(batch, array.size // max(batch, 1))[indices] for array in self._core.write())
        chosen._core.read(*(array.reshape(-1).view(np.uint8) for array in kept))
        return chosen

    def to_bytes(self) -> bytes:
        """The cache as bytes that `from_bytes` reads, in any process with this version of the format."""
        return pack(self._sizes, self._settings, self._core.write())

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> RAttentionCache:
        """The cache that `to_bytes` was called on; ValueError says what is wrong with damaged, truncated
        or unrelated data."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, got {type(data).__name__}")
        settings, arrays = parse(memoryview(data).cast("B"))
        cache = cls(**settings)
        cache._core.read(*arrays)
        return cache

    def __reduce__(self) -> tuple[Any, ...]:
        return RAttentionCache.from_bytes, (self.to_bytes(),)

    def __repr__(self) -> str:
        options = self._sizes | self._settings
        listing = ", ".join(f"{name}={array_in_brief(value)}" for name, value in options.items())
        return f"RAttentionCache({listing}, length={self.length})"


def rattention_step(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    cache: RAttentionCache,
    *,
    scale: float | None = None,
    local_norm_weight: ArrayLike | None = None,
    linear_norm_weight: ArrayLike | None = None,
    eps: float | None = None,
    lengths: ArrayLike | None = None,
) -> NDArray[Any]:
    """The rows of `rattention` for the next tokens: a prompt, one token, or any number of them.

    Parameters
    ----------
    query:
        ``[batch, heads, tokens, head_dim]``, in the dtype of the cache. `heads` is a multiple of kv_heads.
    key, value:
        ``[batch, kv_heads, tokens, head_dim]`` and ``[batch, kv_heads, tokens, value_dim]``.
    cache:
        What came before; afterwards it holds these tokens as well. It is unchanged where the call fails.
    scale, local_norm_weight, linear_norm_weight, eps:
        Override the values the cache was made with; None keeps those.
    lengths:
        Number of valid tokens at the start of each sequence: integers ``[batch]``, all by default. The rest
        is padding: it is ignored, and its output rows are 0.

    Returns
    -------
    ``[batch, heads, tokens, value_dim]`` in the dtype of the query.

    Raises
    ------
    ValueError
        Shapes or values that do not fit the cache; the message names the argument.
    TypeError
        Another dtype than the cache's, or objects that are no arrays.
    RuntimeError
        The cache is in use by another thread.
    """
    if not isinstance(cache, RAttentionCache):
        raise TypeError(f"cache must be an RAttentionCache, got {type(cache).__name__}")
    queries = _tokens("query", query, cache)
    output = cache._core.step(
        queries,
        _tokens("key", key, cache),
        _tokens("value", value, cache),
        scale_of(cache._settings["scale"] if scale is None else scale, queries),
        _norm_weight(cache, "local_norm_weight", local_norm_weight),
        _norm_weight(cache, "linear_norm_weight", linear_norm_weight),
        cache._settings["eps"] if eps is None else positive("eps", eps),
        optional(integer_array, "lengths", lengths, 1),
    )
    return as_given(output, query)


def _tokens(name: str, value: ArrayLike, cache: RAttentionCache) -> NDArray[Any]:
    """A rank 4 array of the cache's dtype. What is one already passes at once: full checks take as long as
    the kernel."""
    if isinstance(value, np.ndarray) and value.ndim == 4 and value.dtype is cache._plain_dtype:
        return value
    array = float_array(name, value, 4)
    dtype = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
    if dtype != cache._dtype:
        raise TypeError(f"{name} is {dtype}, the cache keeps {cache._dtype}: they must be equal")
    return array


def _norm_weight(cache: RAttentionCache, name: str, value: ArrayLike | None) -> NDArray[np.float32] | None:
    if value is None:
        return cache._settings[name]  # type: ignore[no-any-return]
    plain = isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype is FLOAT32
    return np.ascontiguousarray(value) if plain else float32_array(name, value, 2)


def _dtype_name(dtype: DTypeLike) -> str:
    try:
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    except (TypeError, ValueError):  # what NumPy knows no dtype for
        name = repr(dtype)
    if name not in FLOAT_DTYPES or dtype is None:
        raise TypeError(
            f"dtype must be one of {', '.join(FLOAT_DTYPES)}, got {dtype if dtype is None else name}"
        )
    return name
