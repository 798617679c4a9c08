"""Optional dependencies: imported where they are first used, so that the kernels need NumPy alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


EXTRA_OF = {
    "torch": "torch",
    "transformers": "hf",
    "safetensors": "models",
    "tokenizers": "models",
    "huggingface_hub": "models",
    "matplotlib": "plots",
    "PIL": "plots",
    "pypdf": "pdf",
    "jinja2": "inspect",
    "pandas": "inspect",
    "sklearn": "inspect",
    "scipy": "inspect",
    "gymnasium": "studies",
    "tensorboard": "studies",
    "tqdm": "studies",
    "pyarrow": "studies",
    "yaml": "studies",
    "datasets": "studies",
}
"""The extra of ``pyproject.toml`` that brings a package."""


def require(module: str) -> ModuleType:
    """Import `module`, which may be missing.

    Raises
    ------
    ImportError
        `module` cannot be imported; the message names the extra to install and the underlying fault.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed here and cannot be imported ({error}); "
            f"install it with: pip install 'rattention[{EXTRA_OF[package]}]'",
            name=package,
        ) from error
