"""The moving picture of the documentation can be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.extras import needs

needs("explore", "models")

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "explorer_gif.py"


@pytest.mark.slow
def test_the_script_makes_the_picture(browser, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    subprocess.run([sys.executable, SCRIPT, tmp_path / "made.gif"], check=True, timeout=300)
    kept_file = SCRIPT.with_name("explorer.gif")
    with image.open(tmp_path / "made.gif") as made, image.open(kept_file) as kept:
        assert (made.n_frames, made.size) == (kept.n_frames, kept.size)
