"""The option ``--threads`` of the subcommands that compute."""

from __future__ import annotations

import contextlib

from rattention._config import set_num_threads


def use_threads(threads: int, *, pytorch: bool = True) -> None:
    """Compute with so many threads; 0 leaves the defaults.

    `pytorch`: its layers, too, where it is installed. A subcommand that runs without it spares its import.
    """
    if threads < 0:
        raise ValueError(f"--threads must be >= 0, got {threads}")
    if threads:
        set_num_threads(threads)
    if threads and pytorch:
        with contextlib.suppress(ImportError):
            import torch

            torch.set_num_threads(threads)
