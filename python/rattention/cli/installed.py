"""What is installed around the kernels: OpenMP runtimes and models."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from rattention.models.folder import BUNDLED_PACKAGE, bundled_folder


def openmp_runtimes() -> list[str]:
    """Paths of the OpenMP libraries mapped into this process; empty where that cannot be told."""
    try:
        mapped = Path("/proc/self/maps").read_text("utf-8", errors="replace")
    except OSError:
        return []
    return sorted(set(re.findall(r"(/\S*/lib(?:gomp|iomp5|omp)[^\s/]*\.so[^\s/]*)", mapped)))


def models_found() -> list[dict[str, str]]:
    """Name and path of the BERT checkpoints in the model package and the Hub's cache; nothing is loaded."""
    return [*_packaged(), *_cached()]


def _packaged() -> list[dict[str, str]]:
    folder = bundled_folder()
    return [] if folder is None else [{"name": f"{BUNDLED_PACKAGE} (the default)", "path": str(folder)}]


def _cached() -> list[dict[str, str]]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    found = []
    for config in sorted(cache.glob("models--*/snapshots/*/config.json")):
        if _is_bert(config):
            name = config.parts[-4].removeprefix("models--").replace("--", "/")
            found.append({"name": name, "path": str(config.parent)})
    return found


def _is_bert(config: Path) -> bool:
    try:
        return bool(json.loads(config.read_text("utf-8")).get("model_type") == "bert")
    except (OSError, ValueError, AttributeError):
        return False
