"""Tests that need a process of their own: its memory, its limits, its import order."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

REPOSITORY = Path(__file__).resolve().parents[1]


def run_python(code: str, *, timeout: float = 120, **environment: str) -> str:
    """What `code` prints when a fresh interpreter runs it at the repository's root without failing."""
    finished = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert finished.returncode == 0, (
        f"exit status {finished.returncode}\n{finished.stdout}\n{finished.stderr}"
    )
    return finished.stdout


def resident_bytes(field: str = "VmRSS") -> int:
    """This process's memory, or with ``"VmHWM"`` the most it ever was since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_beyond(call, returned_bytes: int) -> int:
    """Bytes that `call` needs at its peak beyond what is resident already and what it returns."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the call takes
    forget_peak()
    before = resident_bytes()
    call()
    return resident_bytes("VmHWM") - before - returned_bytes
