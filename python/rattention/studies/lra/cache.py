"""Samples that take long to make, cached as Parquet."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import first_line
from rattention._extras import require
from rattention._files import replacing, writable_folder
from rattention.studies.lra.data import Split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def default_folder() -> Path:
    """``$RATTENTION_CACHE``, or ``rattention`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("RATTENTION_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rattention"


def load_or_create(
    name: str, settings: Mapping[str, Any], make: Callable[[], Split], folder: Path | None
) -> Split:
    """The samples of these settings: read from the cache, or made and written there.

    A file that is damaged is made again, with a warning that names it.
    """
    text = json.dumps(settings, sort_keys=True)
    path = (folder or default_folder()) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.parquet"
    if path.exists():
        try:
            return _read(path, text)
        except ValueError as error:
            warnings.warn(f"{path} is damaged and made again: {error}", stacklevel=2)
    writable_folder(path.parent)
    split = make()
    _write(path, split, text)
    return split


def _write(path: Path, split: Split, settings: str) -> None:
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    offsets = arrow.array(split.offsets, arrow.int64())
    tokens = arrow.LargeListArray.from_arrays(offsets, arrow.array(split.tokens))
    table = arrow.table({"tokens": tokens, "label": split.labels}).replace_schema_metadata(
        {"settings": settings}
    )
    with replacing(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _read(path: Path, settings: str) -> Split:
    """ValueError for anything but what `_write` wrote with these settings."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        table = parquet.read_table(path, page_checksum_verification=True).combine_chunks()
        written = (table.schema.metadata or {}).get(b"settings", b"").decode("utf-8", "replace")
        tokens, labels = table.column("tokens"), table.column("label").to_numpy()
        rows = tokens.chunk(0) if tokens.num_chunks == 1 else arrow.concat_arrays(tokens.chunks)
        offsets = rows.offsets.to_numpy()
        values = rows.values.slice(offsets[0], offsets[-1] - offsets[0]).to_numpy()
    except (arrow.ArrowException, KeyError, OSError, AttributeError, IndexError) as error:
        raise ValueError(first_line(error)) from error
    if written != settings:
        raise ValueError("it was made with other settings")
    return Split(values, (offsets - offsets[0]).astype(np.int64), labels.astype(np.int64))
