"""The tensors of a checkpoint, from safetensors or PyTorch's pickle, and whether a model can use them.

The safetensors library checks a file's layout, and this module refuses what it accepts. Its own tensors would
not do: it accepts a name that is there twice, and its NumPy interface reads bfloat16 with ``ml_dtypes`` only.
A pickle is read only by PyTorch's loader that refuses to run code.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import BFloat16Storage, first_line, float32_array
from rattention._extras import require
from rattention.models.folder import WeightsError, read_json_object

MAX_HEADER_BYTES = 1 << 20
"""A header holds about 110 bytes per tensor, and no BERT has 9000 tensors: the bound keeps the memory that a
hostile header takes small."""

_INDEX = "model.safetensors.index.json"
_SHOWN = 8
_STORAGE: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_READABLE = (*_STORAGE, "torch.float32", "torch.float16", "torch.bfloat16")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that can be read."""

    shape: tuple[int, ...]
    dtype: str
    """In the file's own words; of a pickled tensor that is no plain array in memory it says what it is."""
    read: Callable[[], NDArray[np.float32]]
    """The tensor as float32."""

    @property
    def is_floating(self) -> bool:
        """Whether `read` can convert it: float32, float16 or bfloat16."""
        return self.dtype in _READABLE


class Checkpoint:
    """Tensors under the names a model asks for, checked against what it expects before any is read."""

    def __init__(self, origin: str, tensors: Mapping[str, StoredTensor]) -> None:
        """`origin` is what errors call the checkpoint."""
        self._origin, self.tensors = origin, tensors
        self._not_finite: list[str] = []

    def has_any(self, module: str) -> bool:
        """Whether there are tensors of a module."""
        return any(name.startswith(f"{module}.") for name in self.tensors)

    def check(self, expected: Mapping[str, tuple[int, ...]], unexpected: Iterable[str]) -> None:
        """One WeightsError that lists what is missing, has another shape or dtype, or should not be there."""
        present = [name for name in expected if name in self.tensors]
        faults = {
            "missing": [name for name in expected if name not in self.tensors],
            "wrong shape": [
                f"{name} {list(self.tensors[name].shape)} instead of {list(expected[name])}"
                for name in present
                if self.tensors[name].shape != expected[name]
            ],
            "no dense float32, float16 or bfloat16": [
                f"{name} {self.tensors[name].dtype}" for name in present if not self.tensors[name].is_floating
            ],
            "not part of this model": sorted(unexpected),
        }
        texts = [f"{fault}: {_listing(names)}" for fault, names in faults.items() if names]
        if texts:
            raise WeightsError(f"{self._origin} does not fit its config.json; " + "; ".join(texts))

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32. NaN and infinity are remembered for `require_finite`."""
        values = self.tensors[name].read()
        if not np.isfinite(values).all():
            self._not_finite.append(name)
        return values

    def require_finite(self) -> None:
        """WeightsError with the names of all tensors read so far that hold NaN or infinity."""
        if self._not_finite:
            raise WeightsError(f"{self._origin} holds NaN or infinity in {_listing(self._not_finite)}")


def open_tensors(folder: Path) -> Mapping[str, StoredTensor]:
    """The tensors in a model folder by name: safetensors, in one file or several, before PyTorch's pickle."""
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")
    if (folder / _INDEX).is_file():
        return _read_shards(folder / _INDEX)
    if (folder / "pytorch_model.bin").is_file():
        return read_pickle(folder / "pytorch_model.bin")
    raise WeightsError(
        f"{folder} holds no weights: neither model.safetensors nor {_INDEX} nor pytorch_model.bin"
    )


def _read_shards(index: Path) -> dict[str, StoredTensor]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_file_name(name) for name in weight_map.values()):
        raise WeightsError(f"{index} must have a weight_map from tensors to names of files in its folder")
    shards = {shard: read_safetensors(index.parent / shard) for shard in sorted(set(weight_map.values()))}
    lost = [f"{name} in {shard}" for name, shard in weight_map.items() if name not in shards[shard]]
    if lost:
        raise WeightsError(f"{index} promises tensors that are not there: {_listing(lost)}")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _is_file_name(name: object) -> bool:
    """A path could lead out of the model's folder."""
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0")


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name, not yet read; WeightsError names the file and what is wrong with it."""
    length, header = _header(path)
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype, shape, start = entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        tensors[name] = StoredTensor(shape, dtype, partial(_read_stored, path, name, dtype, shape, start))
    return tensors


def _read_stored(
    path: Path, name: str, dtype: str, shape: tuple[int, ...], start: int
) -> NDArray[np.float32]:
    count = prod(shape)
    try:
        stored = np.fromfile(path, _STORAGE[dtype], count, offset=start)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if stored.size != count:
        raise WeightsError(f"{path} ends within {name}")
    bits = stored.view(BFloat16Storage) if dtype == "BF16" else stored
    return float32_array(name, bits).reshape(shape)


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


def read_pickle(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a state dict by name.

    Raises
    ------
    WeightsError
        PyTorch is not installed, the file holds anything but tensors, or it would unpack to far more than its
        size.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise WeightsError(
            f"{path} is a pickle, which only PyTorch reads: install torch, or save the model as "
            "model.safetensors"
        ) from error
    _refuse_bomb(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many classes, by the kind of damage
        raise WeightsError(f"{path} cannot be loaded safely: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} must hold a state dict, got {type(state).__name__}")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    # A few stored numbers, repeated by strides of 0 or under many names, can stand for any amount. Weights
    # that are shared stand twice in files that are older than safetensors.
    size = sum(t.numel() * t.element_size() for t in tensors.values() if _is_plain(t))
    if size > 2 * path.stat().st_size:
        raise WeightsError(f"{path} would become {size} bytes of tensors from {path.stat().st_size}: refused")
    return {name: _entry(tensor) for name, tensor in tensors.items()}


def _entry(tensor: Any) -> StoredTensor:
    """What the tensor is, for all kinds that a file may hold: sparse, nested, quantised, without data."""
    kinds = [] if _is_plain(tensor) else [str(tensor.layout), f"on {tensor.device}"]
    shape = () if tensor.is_nested else tuple(tensor.shape)
    dtype = " ".join([str(tensor.dtype), *kinds])
    return StoredTensor(shape, dtype, lambda: tensor.detach().resolve_neg().float().contiguous().numpy())


def _is_plain(tensor: Any) -> bool:
    return str(tensor.layout) == "torch.strided" and tensor.device.type == "cpu" and not tensor.is_nested


def _refuse_bomb(path: Path) -> None:
    """PyTorch stores tensors uncompressed; an archive that unpacks to more than its size is no checkpoint."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # of many classes, by the kind of damage
        raise WeightsError(f"{path} is a damaged archive: {error}") from error
    if unpacked > 2 * path.stat().st_size:
        raise WeightsError(f"{path} would unpack to {unpacked} bytes from {path.stat().st_size}: refused")
