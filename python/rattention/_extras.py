"""Optional dependencies: imported where they are first used, so that the kernels need NumPy alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, which `pip install 'rattention[extra]'` brings.

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
            f"install it with: pip install 'rattention[{extra}]'",
            name=package,
        ) from error
