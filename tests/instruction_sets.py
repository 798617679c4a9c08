"""The instruction sets that this processor may be asked for, by name."""

from __future__ import annotations

import pytest
from rattention import _core

LEVELS = _core.instruction_sets()
"""Each has all that those before it have."""
OWN = _core.instruction_set()
"""The processor's, or the one that this process is capped to."""
LOWER = LEVELS[: LEVELS.index(OWN)]
"""Than `OWN`."""

CAPS = {
    "baseline": ("SSE41", "Nehalem"),
    "avx2": ("AVX2", "Haswell"),
    "avx512": ("AVX512_CORE", "SkylakeX"),
    "avx512_bf16": ("AVX512_CORE_BF16", "SkylakeX"),
    "amx": ("AVX512_CORE_AMX", "SkylakeX"),
    "neon": ("", "ARMV8"),
}
"""oneDNN is capped along, and so is NumPy's BLAS, as its error is the yardstick."""

every_isa = pytest.mark.parametrize(
    "isa", [name for name in LEVELS if name in ("baseline", "avx2", "avx512", "neon")]
)
"""That float32 has kernels for."""


def capped(cap: str) -> dict[str, str]:
    """What a process finds in its environment."""
    onednn, blas = CAPS[cap][0], CAPS[min(cap, OWN, key=LEVELS.index)][1]  # BLAS obeys, and would crash
    return {
        "RATTENTION_MAX_ISA": cap,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "OPENBLAS_CORETYPE": blas,
        "OPENBLAS_NUM_THREADS": "1",
    }
