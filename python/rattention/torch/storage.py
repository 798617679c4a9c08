"""Tensors as the arrays they are, and back: no element is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rattention._arguments import BFloat16Storage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_array(tensor: torch.Tensor) -> NDArray[Any]:
    """The CPU tensor's memory, whatever its strides; bfloat16 as its storage."""
    plain = tensor.detach().resolve_neg()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.uint16).numpy().view(BFloat16Storage)
    return plain.numpy()


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array's memory as a tensor; uint16, in which the core returns bfloat16, as that."""
    tensor: torch.Tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
