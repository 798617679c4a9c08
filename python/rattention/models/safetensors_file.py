"""Reading safetensors files: the library checks the layout, this module refuses what the library accepts.

The library's own tensors would not do: it accepts a name that is there twice, and its NumPy interface reads
bfloat16 with ``ml_dtypes`` only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import BFloat16Storage, float32_array
from rattention._extras import require
from rattention.models.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_HEADER_BYTES = 1 << 20
"""A header holds about 110 bytes per tensor, and no BERT has 9000 tensors: the bound keeps the memory that a
hostile header takes small."""

_STORAGE: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True)
class SafetensorsEntry:
    """One tensor of a file, not yet read."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def is_floating(self) -> bool:
        """Whether the tensor has a dtype that `read` can convert."""
        return self.dtype in _STORAGE

    def read(self) -> NDArray[np.float32]:
        """The tensor as float32."""
        count = prod(self.shape)
        try:
            stored = np.fromfile(self.path, _STORAGE[self.dtype], count, offset=self.start)
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error.strerror}") from error
        if stored.size != count:
            raise WeightsError(f"{self.path} ends within {self.name}")
        bits = stored.view(BFloat16Storage) if self.dtype == "BF16" else stored
        return float32_array(self.name, bits).reshape(self.shape)


def read_safetensors(path: Path) -> dict[str, SafetensorsEntry]:
    """The tensors of a file by name, not yet read; WeightsError names the file and what is wrong with it."""
    length, header = _header(path)
    header.pop("__metadata__", None)
    return {
        name: SafetensorsEntry(
            path, name, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
    }


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Length and content of the header. The library checks it: offsets inside the file, without holes or
    overlap, and extents as large as shape and dtype say."""
    library = require("safetensors")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(min(length, MAX_HEADER_BYTES))
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise WeightsError(f"{str(path)!r} cannot be read: {error}") from error
    try:
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header claims {length} bytes")
        with library.safe_open(path, framework="np"):
            return length, json.loads(raw, object_pairs_hook=_without_duplicates)
    except Exception as error:  # SafetensorError for most faults, OSError for an empty or vanished file
        raise WeightsError(f"{path} is no usable safetensors file: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The library keeps the last of several entries of one name, which need not be the intended one."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"its header names {', '.join(repeated)} more than once")
    return result
