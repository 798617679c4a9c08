"""Models in safetensors files: the weights, and the configuration among the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rattention.extras import require
from rattention.files import replacing
from rattention.models.errors import WeightsError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from torch import nn

Model = TypeVar("Model", bound="nn.Module")

CONFIG = "rattention.config"
"""The key of the metadata."""


def save_model(model: nn.Module, config: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write what `load_model` needs to make `model` again."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with replacing(Path(path)) as temporary:
        require("safetensors.torch", "torch").save_file(
            tensors, temporary, {"format": "pt", CONFIG: json.dumps(dict(config))}
        )


def load_model(make: Callable[..., Model], path: str | os.PathLike[str]) -> Model:
    """``make(**config)`` with the weights in the file; WeightsError where they do not fit."""
    tensors, metadata = _read(Path(path))
    if CONFIG not in metadata:
        raise WeightsError(f"{path} has no configuration: it was not written by save()")
    try:
        with torch.device("meta"):  # sizes that a damaged file claims take no memory
            model = make(**json.loads(metadata[CONFIG]))
        model.load_state_dict(tensors, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} does not fit the model it describes: {error}") from error
    for parameter in model.parameters():
        parameter.requires_grad_()
    return model


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    safetensors = require("safetensors", "torch")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
