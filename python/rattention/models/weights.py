"""The tensors of a checkpoint, whatever its file format, and whether they are the ones a model needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from rattention.models.errors import WeightsError, read_json_object
from rattention.models.pickle_file import read_pickle
from rattention.models.safetensors_file import SafetensorsEntry, read_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_INDEX = "model.safetensors.index.json"
_SHOWN = 8


class StoredTensor(Protocol):
    """A tensor that can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""

    @property
    def dtype(self) -> str:
        """The tensor's dtype in the file's own words."""

    @property
    def is_floating(self) -> bool:
        """Whether `read` can convert it: float32, float16 or bfloat16."""

    def read(self) -> NDArray[np.float32]:
        """The tensor as float32."""


class Checkpoint:
    """Tensors under the names a model asks for, checked against what it expects before any is read."""

    def __init__(self, origin: str, tensors: Mapping[str, StoredTensor]) -> None:
        """`origin` is what errors call the checkpoint."""
        self._origin = origin
        self._tensors = tensors
        self._not_finite: list[str] = []

    def __contains__(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self._tensors

    def names(self) -> Iterable[str]:
        """All names."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self._tensors[name].shape

    def check(self, expected: Mapping[str, tuple[int, ...]], unexpected: Iterable[str]) -> None:
        """One WeightsError that lists what is missing, has another shape or dtype, or should not be there."""
        present = [name for name in expected if name in self._tensors]
        faults = {
            "missing": [name for name in expected if name not in self._tensors],
            "wrong shape": [
                f"{name} {list(self.shape(name))} instead of {list(expected[name])}"
                for name in present
                if self.shape(name) != expected[name]
            ],
            "no dense float32, float16 or bfloat16": [
                f"{name} {self._tensors[name].dtype}"
                for name in present
                if not self._tensors[name].is_floating
            ],
            "not part of this model": sorted(unexpected),
        }
        texts = [f"{fault}: {_listing(names)}" for fault, names in faults.items() if names]
        if texts:
            raise WeightsError(f"{self._origin} does not fit its config.json; " + "; ".join(texts))

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32. NaN and infinity are remembered for `require_finite`."""
        values = self._tensors[name].read()
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


def _read_shards(index: Path) -> dict[str, SafetensorsEntry]:
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
