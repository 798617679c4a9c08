"""Reading ``pytorch_model.bin``: only through PyTorch's loader that refuses to run code."""

from __future__ import annotations

import importlib
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import first_line
from rattention.models.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray


@dataclass(frozen=True)
class TorchEntry:
    """One tensor of a state dict."""

    tensor: Any
    shape: tuple[int, ...]
    dtype: str
    """As PyTorch calls it; of tensors that are no plain arrays in memory it says what they are."""

    @property
    def is_floating(self) -> bool:
        """Whether the tensor has a dtype that `read` can convert."""
        return self.dtype in ("torch.float32", "torch.float16", "torch.bfloat16")

    def read(self) -> NDArray[np.float32]:
        """The tensor as float32."""
        array: NDArray[np.float32] = self.tensor.detach().resolve_neg().float().contiguous().numpy()
        return array


def read_pickle(path: Path) -> dict[str, TorchEntry]:
    """The tensors of a state dict by name.

    Raises
    ------
    WeightsError
        PyTorch is not installed, the file holds anything but tensors, or it would unpack to far more than its
        size.
    """
    torch = _torch(path)
    _refuse_bomb(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many classes, by the kind of damage
        raise WeightsError(f"{path} cannot be loaded safely: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} must hold a state dict, got {type(state).__name__}")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    _refuse_views(path, sum(_bytes(tensor) for tensor in tensors.values()))
    return {name: _entry(tensor) for name, tensor in tensors.items()}


def _entry(tensor: Any) -> TorchEntry:
    """What the tensor is, for all kinds that a file may hold: sparse, nested, quantised, without data."""
    kinds = [] if _is_plain(tensor) else [str(tensor.layout), f"on {tensor.device}"]
    shape = () if tensor.is_nested else tuple(tensor.shape)
    return TorchEntry(tensor, shape, " ".join([str(tensor.dtype), *kinds]))


def _is_plain(tensor: Any) -> bool:
    return str(tensor.layout) == "torch.strided" and tensor.device.type == "cpu" and not tensor.is_nested


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size()) if _is_plain(tensor) else 0


def _refuse_views(path: Path, size: int) -> None:
    """A few stored numbers, repeated by strides of 0 or under many names, can stand for any amount. Weights
    that are shared stand twice in files that are older than safetensors."""
    if size > 2 * path.stat().st_size:
        raise WeightsError(f"{path} would become {size} bytes of tensors from {path.stat().st_size}: refused")


def _torch(path: Path) -> ModuleType:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise WeightsError(
            f"{path} is a pickle, which only PyTorch reads: install torch, or save the model as "
            "model.safetensors"
        ) from error


def _refuse_bomb(path: Path) -> None:
    """PyTorch stores tensors uncompressed; an archive that unpacks to more than its size is no checkpoint."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (
        Exception
    ) as error:  # BadZipFile, NotImplementedError, struct.error and more, by the kind of damage
        raise WeightsError(f"{path} is a damaged archive: {error}") from error
    if unpacked > 2 * path.stat().st_size:
        raise WeightsError(f"{path} would unpack to {unpacked} bytes from {path.stat().st_size}: refused")
