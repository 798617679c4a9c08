"""Atomic writes: a file is written under a temporary name beside its target, then renamed."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from matplotlib.figure import Figure


FIGURE_FORMATS = ("png", "svg", "pdf")
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Metadata of figures that would differ from one time to the next, left out."""
MOST_TEXT = 2**24
"""Bytes of a text, five times War and Peace: what never ends, such as /dev/zero, is not read on and on."""


def writable_folder(folder: str | os.PathLike[str]) -> Path:
    """Make `folder` and its parents and try to write there.

    OSError with the path says what is wrong; ValueError for an empty name, which would be the current folder.
    """
    if not os.fspath(folder):
        raise ValueError("the name of the folder must not be empty; the current one is '.'")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot write there: {error.strerror}", str(path)) from error
    return path


def require_place(path: Path) -> None:
    """OSError, which names `path`, where no file can be written there: before long work, not behind it."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file or a pipe, read no further than `MOST_TEXT` bytes.

    OSError with the path where it cannot be read, ValueError where it is longer or no UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise ValueError(f"{path} is too long: at most {MOST_TEXT} bytes are read")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as JSON; ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def json_ready(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for NaN and infinity, in mappings within mappings as well."""
    ready = dict(values)
    for name, value in values.items():
        if isinstance(value, dict):
            ready[name] = json_ready(value)
        elif isinstance(value, float) and not math.isfinite(value):
            ready[name] = None
    return ready


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; None becomes an empty cell."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def save_figure(path: Path, figure: Figure, *, dpi: float = 200) -> None:
    """Save a figure in the format that the extension of `path` names; ValueError where that is none of
    `FIGURE_FORMATS`. `dpi` is pixels per inch of what is made of pixels.

    The same figure gives the same bytes at any time.
    """
    import matplotlib as mpl

    kind = figure_format(path.suffix.lstrip("."))
    with replacing(path) as temporary, mpl.rc_context({"svg.hashsalt": "rattention"}):
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=UNDATED.get(kind))


def save_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Save figures by name into a folder, each as PNG and SVG; return the paths of the PNGs."""
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            save_figure(folder / f"{name}.{kind}", figure)
    return [folder / f"{name}.png" for name in figures]


def figure_format(name: str) -> str:
    """One of `FIGURE_FORMATS`."""
    if name not in FIGURE_FORMATS:
        raise ValueError(f"the format of a figure must be one of {', '.join(FIGURE_FORMATS)}, got {name!r}")
    return name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place if all goes well and disappears otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
