"""Decoding with the gated delta rule, and with gated linear attention: a state of fixed size, which goes on
in place."""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import _core
from rattention._arguments import at_least, bool_array, float32_array, integer_array, optional, truth
from rattention.mechanisms.gates import log_gates
from rattention.mechanisms.residual_linear import as_given, linear_inputs
from rattention.mechanisms.softmax_family import scale_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


MAGIC = b"\x93RATDLTA"
HEADER = struct.Struct("<8sII 5q")
"""Magic, version, CRC-32 of all that follows it, batch, heads, head_dim, value_dim and length. The state is
next, float32."""
VERSION = 1
CHECKED_FROM = 16


class GatedDeltaCache:
    """The past of a batch of sequences, for `gated_delta_step` and `gated_linear_step`; empty at first.

    Parameters
    ----------
    batch, heads, head_dim:
        Number of sequences, query heads, and elements of a query and of a key. For `gated_linear_step` heads
        may be those of keys and values, whose state query heads then share.
    value_dim:
        Elements of a value, `head_dim` by default.

    Raises
    ------
    ValueError, TypeError
        Sizes that are negative or no integers.
    MemoryError
        The state does not fit into memory.

    Notes
    -----
    One thread at a time may use a cache. Caches can be pickled and copied.
    """

    def __init__(self, batch: int, heads: int, head_dim: int, *, value_dim: int | None = None) -> None:
        sizes = {"batch": batch, "heads": heads, "head_dim": head_dim}
        sizes["value_dim"] = head_dim if value_dim is None else value_dim
        shape = tuple(at_least(name, size, 0) for name, size in sizes.items())
        try:
            self._state = np.zeros(shape, np.float32)
        except ValueError as error:
            raise MemoryError(f"a state of shape {shape} does not fit into memory") from error
        self.length = 0
        """Tokens seen so far, hidden ones included."""

    @property
    def state(self) -> NDArray[np.float32]:
        """The state, ``[batch, heads, head_dim, value_dim]``; it is the cache's own."""
        return self._state

    @property
    def nbytes(self) -> int:
        """Bytes of the state: the same for every number of tokens."""
        return self._state.nbytes

    def snapshot(self) -> GatedDeltaCache:
        """A copy, to go back to with `restore`."""
        return self.select(np.arange(len(self._state)))

    def restore(self, snapshot: GatedDeltaCache) -> None:
        """Go back to `snapshot`, bit for bit; ValueError where that has other sizes."""
        if not isinstance(snapshot, GatedDeltaCache):
            raise TypeError(f"snapshot must come from snapshot(), got {type(snapshot).__name__}")
        if snapshot.state.shape != self._state.shape:
            raise ValueError(
                f"snapshot must have a state of shape {self._state.shape}, got {snapshot.state.shape}"
            )
        self._state[:] = snapshot.state
        self.length = snapshot.length

    def select(self, sequences: ArrayLike) -> GatedDeltaCache:
        """A new cache with these sequences of the batch, integers ``[new batch]`` in any order, repeats
        allowed."""
        indices = integer_array("sequences", sequences, 1)
        batch = len(self._state)
        if indices.size and (indices.min() < 0 or indices.max() >= batch):
            raise ValueError(f"sequences must lie in [0, {batch - 1}], got {indices.tolist()}")
        return self._made_of(self._state[indices], self.length)

    @classmethod
    def of(cls, state: ArrayLike, length: int = 0, *, copy: bool = True) -> GatedDeltaCache:
        """A cache that goes on from a state ``[batch, heads, head_dim, value_dim]``, such as that of
        `gated_delta_rule`.

        Without `copy` steps change the array itself, which must be contiguous float32.
        """
        array = float32_array("state", state, 4)
        if copy:
            array = array.copy()
        elif array is not state or not array.flags.writeable:
            raise ValueError("state must be a contiguous float32 array that can be written to, or copied")
        return cls._made_of(array, at_least("length", length, 0))

    def to_bytes(self) -> bytes:
        """The cache as bytes that `from_bytes` reads."""
        header = HEADER.pack(MAGIC, VERSION, 0, *self._state.shape, self.length)
        body = header[CHECKED_FROM:] + self._state.tobytes()
        return MAGIC + struct.pack("<II", VERSION, zlib.crc32(body)) + body

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> GatedDeltaCache:
        """The cache that `to_bytes` was called on; ValueError where data is damaged or another."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, got {type(data).__name__}")
        view = memoryview(data).cast("B")
        if len(view) < HEADER.size or view[: len(MAGIC)] != MAGIC:
            raise ValueError("data is no saved GatedDeltaCache: it begins otherwise or is cut off")
        _, version, checksum, *shape, length = HEADER.unpack_from(view)
        if version != VERSION:
            raise ValueError(f"data is a GatedDeltaCache of format {version}; this version reads {VERSION}")
        if zlib.crc32(view[CHECKED_FROM:]) != checksum:
            raise ValueError("data is damaged or cut off: its checksum does not match")
        numbers = np.frombuffer(view, np.float32, offset=HEADER.size)
        if min(*shape, length) < 0 or math.prod(shape) != numbers.size:
            raise ValueError("data is no saved GatedDeltaCache: its header makes no sense")
        return cls._made_of(numbers.reshape(shape).copy(), length)

    @classmethod
    def _made_of(cls, state: NDArray[np.float32], length: int) -> GatedDeltaCache:
        cache = cls(0, 0, 0)
        cache._state, cache.length = state, length
        return cache

    def __repr__(self) -> str:
        sizes = zip(("batch", "heads", "head_dim", "value_dim"), self._state.shape, strict=True)
        return f"GatedDeltaCache({', '.join(f'{n}={size}' for n, size in sizes)}, length={self.length})"


def gated_delta_step(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    beta: ArrayLike,
    cache: GatedDeltaCache,
    *,
    scale: float | None = None,
    normalize: bool = False,
    key_mask: ArrayLike | None = None,
) -> NDArray[Any]:
    """The rows of `gated_delta_rule` for the next tokens: a prompt, one token, or any number of them.

    Parameters
    ----------
    query, key, value, log_gate, beta, scale, normalize:
        As in `gated_delta_rule`, of the new tokens.
    cache:
        What came before; afterwards it holds these tokens as well. It is unchanged where the call is refused,
        but not where memory runs out.
    key_mask:
        Bool ``[batch, tokens]``: where False, the sequence has no token there, as in batches whose sequences
        differ in length.

    Returns
    -------
    ``[batch, heads, tokens, value_dim]`` in the dtype of the query.

    Raises
    ------
    ValueError, TypeError
        As `gated_delta_rule`.

    Examples
    --------
    >>> import numpy as np
    >>> import rattention as ra
    >>> cache = ra.GatedDeltaCache(1, 4, 32)
    >>> query, key, value = np.ones((3, 1, 4, 1, 32), np.float32)
    >>> log_gate, beta = np.zeros((1, 4, 1), np.float32), np.ones((1, 4, 1), np.float32)
    >>> ra.gated_delta_step(query, key, value, log_gate, beta, cache, normalize=True).shape
    (1, 4, 1, 32)
    """
    rule = log_gates(log_gate), float32_array("beta", beta, 3), truth("normalize", normalize)
    return _step(linear_inputs(query, key, value), rule, cache, scale, key_mask, query)


def gated_linear_step(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    cache: GatedDeltaCache,
    *,
    scale: float | None = None,
    key_mask: ArrayLike | None = None,
) -> NDArray[Any]:
    """The rows of `gated_linear_attention` for the next tokens, without window and feature map.

    Parameters
    ----------
    query, key, value, log_gate, scale:
        As in `gated_linear_attention`, of the new tokens; gates per head or per key channel.
    cache, key_mask:
        As in `gated_delta_step`; the cache may have one state per key/value head or one per query head.

    Returns
    -------
    ``[batch, heads, tokens, value_dim]`` in the dtype of the query.

    Raises
    ------
    ValueError, TypeError
        As `gated_linear_attention`.

    Examples
    --------
    >>> import numpy as np
    >>> import rattention as ra
    >>> cache = ra.GatedDeltaCache(1, 4, 32)
    >>> query, key, value = np.ones((3, 1, 4, 1, 32), np.float32)
    >>> ra.gated_linear_step(query, key, value, np.zeros((1, 4, 1, 32), np.float32), cache).shape
    (1, 4, 1, 32)
    """
    arrays = linear_inputs(query, key, value)
    return _step(arrays, (log_gates(log_gate), None, False), cache, scale, key_mask, query)


def require_cache(cache: GatedDeltaCache) -> None:
    """TypeError for anything else."""
    if not isinstance(cache, GatedDeltaCache):
        raise TypeError(f"cache must be a GatedDeltaCache, got {type(cache).__name__}")


def _step(
    arrays: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    rule: tuple[NDArray[np.float32], NDArray[np.float32] | None, bool],
    cache: GatedDeltaCache,
    scale: float | None,
    key_mask: ArrayLike | None,
    like: ArrayLike,
) -> NDArray[Any]:
    """One call of the core, which checks shapes and gates before the state changes."""
    require_cache(cache)
    log_gate, beta, normalize = rule
    shown = optional(bool_array, "key_mask", key_mask, 2)
    factor = scale_of(scale, arrays[0])
    output = _core.gated_delta_step(*arrays, log_gate, beta, cache.state, factor, normalize, shown)
    cache.length += arrays[0].shape[2]
    return as_given(output, like)
