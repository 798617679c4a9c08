"""Optional dependencies: imported where they are first used, so that the kernels need NumPy alone."""

from __future__ import annotations

import importlib
import re
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


OLDEST = {"torch": (2, 5), "transformers": (5, 23)}
"""Versions of packages of which older ones fail late and obscurely, as in ``pyproject.toml``."""


def require(module: str) -> ModuleType:
    """Import `module`, which may be missing.

    Raises
    ------
    ImportError
        `module` cannot be imported or is too old; the message names the extra to install and the underlying
        fault.
    """
    package = module.partition(".")[0]
    install = f"install it with: pip install 'rattention[{EXTRA_OF[package]}]'"
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{package} is needed here and cannot be imported ({error}); {install}", name=package
        ) from error
    version = getattr(loaded, "__version__", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and module in OLDEST and tuple(map(int, numbers.groups())) < OLDEST[module]:
        least = ".".join(map(str, OLDEST[module]))
        raise ImportError(f"{package} >= {least} is needed here, got {version}; {install}", name=package)
    return loaded
