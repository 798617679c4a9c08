"""The machine a run was made on."""

from __future__ import annotations

import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import rattention as ra

PEERS = ("torch", "onnxruntime", "openvino", "transformers")


def describe() -> dict[str, Any]:
    """Processor, cores, instruction set and versions, as far as they matter for a timing."""
    return {
        **ra.show_config(),
        "cores": len(os.sched_getaffinity(0)),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "peers": {name: _version(name) for name in PEERS},
    }


def multiplies_bfloat16() -> bool:
    """Whether our kernels do."""
    return ra.show_config()["instruction_set"] in ("avx512_bf16", "amx")


def available_bytes() -> int:
    """Memory that can be had without swapping; as much as one likes where /proc does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return sys.maxsize
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def line(machine: dict[str, Any]) -> str:
    """The machine and the versions in two lines."""
    onednn = f"oneDNN {machine['onednn']}, " if machine["onednn"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['instruction_set']}, "
        f"{machine['threads']} threads; "
        f"rattention {machine['rattention']}, {onednn}NumPy {machine['numpy']}, "
        f"Python {machine['python']}\n"
        "peers: "
        + ", ".join(f"{name} {version or '(missing)'}" for name, version in machine["peers"].items())
    )
