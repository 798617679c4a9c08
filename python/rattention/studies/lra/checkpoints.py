"""Checkpoints of `transformers.Trainer` that are known to be whole, and lines of numbers that fit them."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

from rattention._files import write_json, write_text

SEAL = "complete.json"
"""Written last into a checkpoint: its epoch, and the sizes and check sums of its files."""


def seal(checkpoint: Path, epoch: int) -> None:
    """Say that the checkpoint is whole."""
    write_json(checkpoint / SEAL, {"epoch": epoch, "files": _sums(checkpoint)})


def whole_checkpoints(folder: Path) -> dict[int, Path]:
    """By epoch, the checkpoints whose files are all there and unharmed."""
    found = {}
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            said = json.loads((checkpoint / SEAL).read_text("utf-8"))
            if said["files"] == _sums(checkpoint):
                found[int(said["epoch"])] = checkpoint
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def keep_only(folder: Path, kept: set[Path]) -> None:
    """Remove all other checkpoints, half-written ones included."""
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint not in kept:
            (checkpoint / SEAL).unlink(missing_ok=True)
            shutil.rmtree(checkpoint, ignore_errors=True)


def _sums(checkpoint: Path) -> dict[str, list[int]]:
    files = (path for path in sorted(checkpoint.iterdir()) if path.name != SEAL)
    return {path.name: [path.stat().st_size, zlib.crc32(path.read_bytes())] for path in files}


class Lines:
    """A file of JSON lines, one or more for each epoch."""

    def __init__(self, path: Path) -> None:
        """Those in the file, up to the first that is not whole."""
        self.path = path
        self.lines: list[dict[str, Any]] = []
        for text in path.read_text("utf-8").splitlines() if path.exists() else []:
            try:
                line = json.loads(text)
                self.lines.append({"epoch": int(line["epoch"]), **line})
            except (ValueError, KeyError, TypeError):
                break

    def forget_after(self, epoch: int) -> None:
        """Drop the lines of later epochs, in the file as well."""
        self.lines = [line for line in self.lines if line["epoch"] <= epoch]
        write_text(self.path, "".join(_text(line) for line in self.lines))

    def add(self, *lines: dict[str, Any]) -> None:
        """Append, and have it on the disk before anything that relies on it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(_text(line) for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self.lines.extend(lines)

    def epochs(self) -> int:
        """How many epochs it tells of, from the first without a gap."""
        told = {line["epoch"] for line in self.lines}
        return next(epoch for epoch in range(len(told) + 1) if epoch + 1 not in told)


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"
