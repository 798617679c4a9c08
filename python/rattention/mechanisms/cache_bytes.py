"""An `RAttentionCache` as bytes: a header with a checksum, the norm weights, and the contents."""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import FLOAT_DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

FEATURE_MAP_CODES = ("softmax", "relu")
SIZES = ("batch", "kv_heads", "head_dim", "value_dim", "window")

NORM_WEIGHTS = ("local_norm_weight", "linear_norm_weight")

MAGIC = b"\x93RATCACH"
VERSION = 4
HEADER = struct.Struct("<8sII 5q BBB5x 2d 2q")
"""Magic, version, CRC-32 of all that follows it, the sizes, feature map, dtype, whether there is a rotary
embedding, scale (NaN = none), eps, and the heads of both norm weights (-1 = none). Next come the frequencies
and factors of a rotary embedding, float64 ``[2, head_dim / 2]``, the norm weights, and the contents."""
CHECKED_FROM = 16
"""Where in the header the checksum begins to count."""


def pack(sizes: Mapping[str, int], settings: Mapping[str, Any], contents: Iterable[NDArray[Any]]) -> bytes:
    """The bytes of a cache with these sizes, settings and contents, which the core's ``write`` gives."""
    rope, weights = settings["rope_frequencies"], [settings[name] for name in NORM_WEIGHTS]
    header = HEADER.pack(
        MAGIC,
        VERSION,
        0,
        *sizes.values(),
        FEATURE_MAP_CODES.index(settings["feature_map"]),
        FLOAT_DTYPES.index(settings["dtype"]),
        rope is not None,
        math.nan if settings["scale"] is None else settings["scale"],
        settings["eps"],
        *(-1 if weight is None else len(weight) for weight in weights),
    )
    given = (array for array in (rope, *weights) if array is not None)
    body = header[CHECKED_FROM:] + b"".join(array.tobytes() for array in (*given, *contents))
    return MAGIC + struct.pack("<II", VERSION, zlib.crc32(body)) + body


def parse(view: memoryview) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Settings and contents of a saved cache, after every check that needs no cache."""
    if view[: len(MAGIC)] != MAGIC[: len(view)]:
        raise ValueError("data is no saved RAttentionCache: it begins otherwise")
    _require_version(view)
    if len(view) < HEADER.size:
        raise ValueError(f"data is cut off: it has {len(view)} bytes, the header alone has {HEADER.size}")
    _, _, checksum, *numbers = HEADER.unpack_from(view)
    sizes, (feature_map, dtype, rotates, scale, eps, *heads) = numbers[:5], numbers[5:]
    if zlib.crc32(view[CHECKED_FROM:]) != checksum:
        raise ValueError(f"data is damaged or cut off: the checksum of its {len(view)} bytes does not match")
    known = feature_map < len(FEATURE_MAP_CODES) and dtype < len(FLOAT_DTYPES) and rotates < 2
    if min(sizes) < 0 or min(heads) < -1 or not known:
        raise ValueError("data is no saved RAttentionCache: its header makes no sense")
    settings = dict(zip(SIZES, sizes, strict=True)) | {
        "feature_map": FEATURE_MAP_CODES[feature_map],
        "dtype": FLOAT_DTYPES[dtype],
        "scale": None if math.isnan(scale) else scale,
        "eps": eps,
    }
    return _contents(
        view[HEADER.size :], settings, bool(rotates), dict(zip(NORM_WEIGHTS, heads, strict=True))
    )


def _require_version(view: memoryview) -> None:
    if len(view) >= CHECKED_FROM:
        (version,) = struct.unpack_from("<I", view, len(MAGIC))
        if version != VERSION:
            raise ValueError(
                f"data is of version {version} of the format; this release reads version {VERSION}"
            )


def _contents(
    view: memoryview, settings: dict[str, Any], rotates: bool, heads: dict[str, int]
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The settings with the rotary embedding and the norm weights, and the arrays in the order of the core's
    ``write``."""
    rows, dim = settings["batch"] * settings["kv_heads"], settings["value_dim"]
    item = 4 if settings["dtype"] == "float32" else 2
    key_item = 4 if rotates else item
    state = rows * 2 * settings["head_dim"] * dim * 4
    ring = rows * settings["window"]
    weights = [max(count, 0) * dim * 4 for count in heads.values()]
    rates = 8 * 2 * (settings["head_dim"] // 2) if rotates else 0
    sizes = [rates, *weights, settings["batch"] * 8, ring * settings["head_dim"] * key_item]
    sizes += [ring * dim * item, state, state]
    if sum(sizes) != len(view):
        raise ValueError(f"data has {len(view)} bytes of contents, its header says {sum(sizes)}")
    ends = np.cumsum(sizes).tolist()
    arrays = [np.frombuffer(view[end - size : end], np.uint8) for end, size in zip(ends, sizes, strict=True)]
    saved = {
        name: array.view(np.float32).reshape(count, dim)
        for (name, count), array in zip(heads.items(), arrays[1:], strict=False)
        if count >= 0
    }
    rope = arrays[0].view(np.float64).reshape(2, -1) if rotates else None
    return settings | saved | {"rope_frequencies": rope}, arrays[1 + len(weights) :]
