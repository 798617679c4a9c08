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
    "starlette": "explore",
    "uvicorn": "explore",
    "anywidget": "explore",
    "gymnasium": "studies",
    "tensorboard": "studies",
    "tqdm": "studies",
    "pyarrow": "studies",
    "yaml": "studies",
    "datasets": "studies",
}
"""The extra of ``pyproject.toml`` that brings a package."""


SUPPORTED = {"torch": ((2, 10), None), "transformers": ((5, 23), (5, 24))}
"""Oldest and newest minor versions of packages of which others fail late, obscurely or not at all: what
Transformers hands to attention implementations changes without notice. As in ``pyproject.toml``."""


TORCH_ALONE = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
"""Installs PyTorch without CUDA: on Linux PyPI's brings gigabytes of it, which nothing here uses."""


def require(module: str) -> ModuleType:
    """Import `module`, which may be missing.

    Raises
    ------
    ImportError
        `module` cannot be imported, or its version is not supported; the message names the extra to install
        and the underlying fault.
    """
    package = module.partition(".")[0]
    install = f"install it with: pip install 'rattention[{EXTRA_OF[package]}]'"
    if package == "torch":
        install += f" (after {TORCH_ALONE}, which brings no CUDA)"
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{package} is needed here and cannot be imported ({error}); {install}", name=package
        ) from error
    version = getattr(loaded, "__version__", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and module in SUPPORTED:
        oldest, newest = SUPPORTED[module]
        minor = tuple(map(int, numbers.groups()))
        if minor < oldest or (newest is not None and minor > newest):
            wanted = f">= {_dotted(oldest)}" if newest is None else f"{_dotted(oldest)} to {_dotted(newest)}"
            raise ImportError(f"{package} {wanted} is needed here, got {version}; {install}", name=package)
    return loaded


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
