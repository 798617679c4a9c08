"""Checks at the door: every array a user passes goes through here once, on its way to the C++ core.

The core reads arrays where they lie, whatever their strides, alignment or flags. bfloat16, which NumPy
itself does not have, reaches the core as its 16-bit storage (uint16).
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT_DTYPES = ("float32", "bfloat16", "float16")


class BFloat16Storage(np.ndarray):
    """A uint16 array whose bits are bfloat16 numbers: the form in which frameworks that have bfloat16, unlike
    NumPy, hand it over without a copy."""


def float_array(name: str, value: Any, rank: int | None = None) -> NDArray[Any]:
    """The array behind `value` in native byte order, bfloat16 as uint16; TypeError and ValueError name the
    argument."""
    if isinstance(value, BFloat16Storage):
        _require_rank(name, value, rank)
        return value.view(np.ndarray)
    array = _as_array(name, value)
    dtype = _dtype_name(array.dtype)
    if dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{name} has dtype {dtype}; allowed are {', '.join(FLOAT_DTYPES)} "
            f"(cast with {name}.astype(numpy.float32))"
        )
    _require_rank(name, array, rank)
    return array.view(np.uint16) if dtype == "bfloat16" else array


def same_dtype(**arrays: NDArray[Any]) -> None:
    """Refuse arrays of different precision: an implicit cast would hide where precision is lost."""
    if len({a.dtype for a in arrays.values()}) > 1:
        names = {name: "bfloat16" if a.dtype == np.uint16 else a.dtype.name for name, a in arrays.items()}
        listing = ", ".join(f"{name} is {dtype}" for name, dtype in names.items())
        raise TypeError(f"all inputs must have the same dtype: {listing}")


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    """NumPy makes the name anew every time, which for short calls takes a tenth of them."""
    return dtype.name


def bool_array(name: str, value: Any, rank: int) -> NDArray[np.bool_]:
    """A boolean array."""
    array = _as_array(name, value)
    if array.dtype != np.bool_:
        raise TypeError(f"{name} must be a boolean array (True = attend), got dtype {array.dtype.name}")
    _require_rank(name, array, rank)
    return array


def integer_array(name: str, value: Any, rank: int) -> NDArray[np.int64]:
    """An array of whole numbers, as contiguous int64."""
    array = _as_array(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer array, got dtype {array.dtype.name}")
    _require_rank(name, array, rank)
    return np.ascontiguousarray(array, dtype=np.int64)


def mask_array(name: str, value: Any) -> NDArray[Any]:
    """A dense mask: bool, or floating numbers that are added to the scores."""
    if isinstance(value, BFloat16Storage):
        return float_array(name, value)
    array = _as_array(name, value)
    if array.dtype == np.bool_:
        return array
    if array.dtype.name not in FLOAT_DTYPES:
        raise TypeError(
            f"{name} must be bool or one of {', '.join(FLOAT_DTYPES)}, got dtype {array.dtype.name}"
        )
    return float_array(name, array)


def real_number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= FLOAT32_MAX:
        raise ValueError(f"{name} must be finite in float32, got {value!r}")
    return number


def whole_number(name: str, value: Any) -> int:
    """An integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def at_least(name: str, value: Any, least: int) -> int:
    """An integer that is not smaller."""
    number = whole_number(name, value)
    if number < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")
    return number


def _as_array(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, list | tuple | str | bytes | int | float | complex) or value is None:
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    try:
        array = np.asarray(value)
    except Exception as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype == object:
        raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__} of dtype object")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _require_rank(name: str, array: NDArray[Any], rank: int | None) -> None:
    if rank is not None and array.ndim != rank:
        raise ValueError(f"{name} must have {rank} dimensions, got {array.ndim} (shape {array.shape})")
