"""Models in safetensors files: the weights, and the configuration among the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rattention._extras import require
from rattention._files import replacing
from rattention.models.folder import WeightsError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from torch import nn

Model = TypeVar("Model", bound="nn.Module")

CONFIG, RECORD = "rattention.config", "rattention.record"
"""Keys of the metadata: what makes the model, and what it is good to know of it."""


def save_model(
    model: nn.Module,
    config: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write what `load_model` needs to make `model` again, and a `record` for `load_record`."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": "pt", CONFIG: json.dumps(dict(config))}
    if record:
        metadata[RECORD] = json.dumps(dict(record))
    with replacing(Path(path)) as temporary:
        require("safetensors.torch").save_file(tensors, temporary, metadata)


def load_model(make: Callable[..., Model], path: str | os.PathLike[str]) -> Model:
    """``make(**config)`` with the weights in the file; WeightsError where they do not fit."""
    tensors, metadata = read_tensors(Path(path))
    if CONFIG not in metadata:
        raise WeightsError(f"{path} has no configuration: it was not written by save()")
    try:
        with torch.device("meta"):  # sizes that a damaged file claims take no memory
            model = make(**json.loads(metadata[CONFIG]))
        # Copies, aligned as those of a new model: PyTorch's product with one row rounds by alignment.
        model.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} does not fit the model it describes: {error}") from error
    for parameter in model.parameters():
        parameter.requires_grad_()
    return model


def load_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record that `save_model` was given; empty where there was none."""
    _, metadata = read_tensors(Path(path))
    try:
        record: dict[str, Any] = dict(json.loads(metadata.get(RECORD, "{}")))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path} has a record that cannot be read: {error}") from error
    return record


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; WeightsError where it cannot be read."""
    safetensors = require("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
