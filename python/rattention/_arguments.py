"""Checks of arguments: every array a user passes goes through here once, on its way to the C++ core.

The core reads arrays where they lie, whatever their strides, alignment or flags. bfloat16, which NumPy
itself does not have, reaches the core as its 16-bit storage (uint16).
"""

from __future__ import annotations

import math
import reprlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT_DTYPES = ("float32", "bfloat16", "float16")
_FLOAT32 = np.dtype(np.float32)
_READ_AS_THEY_ARE = (_FLOAT32, np.dtype(np.float16))
LARGEST_SEED = 2**32 - 1
"""The largest that every generator takes: NumPy's legacy one, which Transformers seeds, has 32 bits."""
MOST_SHOWN = 200
"""Characters of a value in a message."""


class BFloat16Storage(np.ndarray):
    """A uint16 array whose bits are bfloat16 numbers: the form in which frameworks that have bfloat16, unlike
    NumPy, hand it over without a copy."""


def float_array(name: str, value: Any, rank: int | None = None) -> NDArray[Any]:
    """`value` as an array in native byte order, bfloat16 as uint16; TypeError and ValueError name the
    argument."""
    # What needs nothing comes first: a tenth of a short call is saved.
    if type(value) is np.ndarray and value.dtype in _READ_AS_THEY_ARE and rank in (None, value.ndim):
        return value
    if isinstance(value, BFloat16Storage):
        _require_rank(name, value, rank)
        return value.view(np.ndarray)
    array = _as_array(name, value)
    dtype = _dtype_name(array.dtype)
    if dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{_cast(name, array.dtype)}{name} has dtype {dtype}; allowed are {', '.join(FLOAT_DTYPES)}"
        )
    _require_rank(name, array, rank)
    return array.view(np.uint16) if dtype == "bfloat16" else array


def optional(check: Callable[..., Any], name: str, value: Any, rank: int) -> Any:
    """``check(name, value, rank)``, or None."""
    return None if value is None else check(name, value, rank)


def float32_array(name: str, value: Any, rank: int | None = None) -> NDArray[np.float32]:
    """`value`, an array of one of `FLOAT_DTYPES`, as contiguous float32."""
    array = float_array(name, value, rank)
    if array.dtype is _FLOAT32 and array.flags.c_contiguous:  # as of a short call; the rest takes longer
        return array
    if array.dtype == np.uint16:  # the upper half of a float32's bits
        array = (array.astype(np.uint32, order="C") << 16).view(np.float32)
    return np.asarray(array, np.float32, order="C")  # np.ascontiguousarray makes a number an array of one


def float64_array(name: str, value: Any, rank: int) -> NDArray[np.float64]:
    """An array of float32 or float64, as contiguous float64."""
    array = _as_array(name, value)
    if array.dtype.name not in ("float32", "float64"):
        cast = _cast(name, array.dtype)
        raise TypeError(f"{cast}{name} must be float32 or float64, got dtype {array.dtype.name}")
    _require_rank(name, array, rank)
    return np.ascontiguousarray(array, np.float64)


def same_dtype(**arrays: NDArray[Any]) -> None:
    """Refuse arrays of different precision: an implicit cast would hide where precision is lost."""
    if len({a.dtype for a in arrays.values()}) > 1:
        names = {name: "bfloat16" if a.dtype == np.uint16 else a.dtype.name for name, a in arrays.items()}
        listing = ", ".join(f"{name} is {dtype}" for name, dtype in names.items())
        raise TypeError(f"all inputs must have the same dtype: {listing}")


def _cast(name: str, dtype: np.dtype[Any]) -> str:
    """What to write for an array of other real numbers."""
    return f"write {name}.astype(np.float32): " if dtype.kind in "fiu" else ""


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    """Cached, because NumPy rebuilds the name every time: a tenth of a short call."""
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


def words_array(name: str, value: Any, rank: int) -> NDArray[np.int32]:
    """Contiguous words of 32 bits, as the core hands them out."""
    array = _as_array(name, value)
    if array.dtype != np.int32:
        raise TypeError(f"{name} must be an int32 array, got dtype {array.dtype.name}")
    _require_rank(name, array, rank)
    return np.ascontiguousarray(array)


def mask_array(name: str, value: Any) -> NDArray[Any]:
    """A dense mask: bool, or floating numbers that are added to the scores."""
    if isinstance(value, BFloat16Storage):
        return float_array(name, value)
    array = _as_array(name, value)
    if array.dtype == np.bool_:
        return array
    if array.dtype.name not in FLOAT_DTYPES:
        cast = _cast(name, array.dtype) if array.dtype.kind == "f" else ""
        raise TypeError(
            f"{cast}{name} must be bool or one of {', '.join(FLOAT_DTYPES)}, got dtype {array.dtype.name}"
        )
    return float_array(name, array)


def real_number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, got {brief(value)}")
    number = as_float(value)
    if not abs(number) <= FLOAT32_MAX:
        raise ValueError(f"{name} must be finite in float32, got {brief(value)}")
    return number


def as_float(value: Any) -> float:
    """A number as float64, infinite where it is too large for that."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def positive(name: str, value: Any) -> float:
    """A finite number > 0."""
    number = real_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be > 0, got {brief(value)}")
    return number


def whole_number(name: str, value: Any) -> int:
    """An integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {brief(value)}")
    return int(value)


def at_least(name: str, value: Any, least: int) -> int:
    """An integer that is not smaller."""
    number = whole_number(name, value)
    if number < least:
        raise ValueError(f"{name} must be >= {least}, got {brief(value)}")
    return number


def truth(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {brief(value)}")
    return bool(value)


def chosen_numbers(name: str, numbers: int | Iterable[int] | None, there: Iterable[int]) -> tuple[int, ...]:
    """One number or several as a sorted tuple, all that are `there` for None; ValueError for any other."""
    available = sorted(there)
    if numbers is None:
        return tuple(available)
    given: Any = numbers if hasattr(numbers, "__iter__") else (numbers,)
    chosen = sorted({whole_number(name, number) for number in given})
    if not chosen or not set(chosen) <= set(available):
        whole = available == [*range(len(available))]
        allowed = f"numbers from 0 to {len(available) - 1}" if whole else f"some of {available}"
        raise ValueError(f"{name} must be {allowed}, got {chosen}")
    return tuple(chosen)


def require_seed(name: str, value: Any) -> int:
    """What all random generators take: an integer from 0 to `LARGEST_SEED`."""
    seed = whole_number(name, value)
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"{name} must be between 0 and {LARGEST_SEED}, got {brief(value)}")
    return seed


class _Short(reprlib.Repr):
    """Representations of what is long, deep, or has none."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, MOST_SHOWN, MOST_SHOWN

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write more than 4300 digits."""
        if x.bit_length() > 256:
            return f"{'-' if x < 0 else ''}an integer of {x.bit_length()} bits"
        return super().repr_int(x, level)


_SHORT = _Short()


def brief(value: Any) -> str:
    """A value as messages show it: in a few words, however long, deep or odd it is."""
    text = _SHORT.repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fields_in_brief(owner: object, names: Iterable[str]) -> str:
    """A representation of an object with these fields: of arrays and tensors dtype and shape alone."""
    shown = ", ".join(f"{name}={array_in_brief(getattr(owner, name))}" for name in names)
    return f"{type(owner).__name__}({shown})"


def array_in_brief(value: Any) -> str:
    """Dtype and shape, as in ``float32[2, 4, 100]``; of anything else its representation."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return repr(value)
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def _as_array(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, list | tuple | str | bytes | int | float | complex) or value is None:
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(f"{name} must have no masked elements, got {value.size - value.count()}: fill them")
    array = as_array(name, value)
    if array.dtype == object:
        raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__} of dtype object")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_array(name: str, value: Any) -> NDArray[Any]:
    """What NumPy makes of anything; TypeError names the argument, whatever the object raises."""
    try:
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        other = "; rattention.torch takes tensors" if type(value).__module__ == "torch" else ""
        raise TypeError(f"{name} cannot be read as an array: {reason}{other}") from error


def _require_rank(name: str, array: NDArray[Any], rank: int | None) -> None:
    if rank is not None and array.ndim != rank:
        raise ValueError(f"{name} must have {rank} dimensions, got {array.ndim} (shape {array.shape})")
