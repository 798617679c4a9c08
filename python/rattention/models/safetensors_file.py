"""Reading safetensors files: the library checks the layout, this file what the library lets pass."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
        stored = np.empty(self.shape, _STORAGE[self.dtype])
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                read = file.readinto(stored.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error.strerror}") from error
        if read != stored.nbytes:
            raise WeightsError(f"{self.path} ends within {self.name}")
        return _bfloat16_to_float32(stored) if self.dtype == "BF16" else stored.astype(np.float32, copy=False)


def read_safetensors(path: Path) -> dict[str, SafetensorsEntry]:
    """The tensors of a file by name, not yet read; WeightsError names the file and what is wrong with it."""
    header_bytes = _header_length(path)
    _check_layout(path)
    header = _read_header(path, header_bytes)
    header.pop("__metadata__", None)
    return {name: _entry(path, name, entry, 8 + header_bytes) for name, entry in header.items()}


def _entry(path: Path, name: str, entry: dict[str, Any], data_start: int) -> SafetensorsEntry:
    start = data_start + entry["data_offsets"][0]
    return SafetensorsEntry(path, name, entry["dtype"], tuple(entry["shape"]), start)


def _header_length(path: Path) -> int:
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise WeightsError(f"{str(path)!r} cannot be read: {error}") from error
    length = int.from_bytes(prefix, "little")
    if len(prefix) == 8 and length > MAX_HEADER_BYTES:
        raise WeightsError(f"{path} is no usable safetensors file: its header claims {length} bytes")
    return length


def _check_layout(path: Path) -> None:
    """Offsets inside the file, without holes or overlap, and as large as shape and dtype say."""
    library = require("safetensors")
    try:
        with library.safe_open(path, framework="np"):
            pass
    except Exception as error:  # SafetensorError for most faults, OSError for an empty or vanished file
        raise WeightsError(f"{path} is no usable safetensors file: {error}") from error


def _read_header(path: Path, length: int) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            file.seek(8)
            header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is no usable safetensors file: {error}") from error
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The library keeps the last of several entries of one name, which need not be the one that was meant."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"its header names {', '.join(repeated)} more than once")
    return result


def _bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
