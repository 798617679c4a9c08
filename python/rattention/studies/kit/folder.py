"""The folder of a study: whose it is, who writes to it, where its runs were made."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rattention._config import get_num_threads, show_config
from rattention._files import writable_folder, write_json
from rattention._installed import versions
from rattention.studies.kit import distributed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STUDY, ENVIRONMENT, LOCK = "study.yaml", "environment.json", ".lock"
"""Files of a study."""

FULL = re.compile(
    r"no space left|disk quota exceeded|file too large|enforce fail|writer failed", re.IGNORECASE
)
"""How libraries that do not raise OSError say that a file could not be written."""


def default_folder() -> Path:
    """``$RATTENTION_CACHE``, or ``rattention`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("RATTENTION_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rattention"


def new_name() -> str:
    """A name for a new folder, with the time."""
    return f"results_{datetime.datetime.now():%Y%m%d_%H%M%S}"


def require_study_or_nothing(folder: str | os.PathLike[str]) -> Path:
    """The path, where there is nothing yet or a study; ValueError otherwise."""
    path = Path(folder)
    if path.is_dir() and not (path / STUDY).exists() and any(p.name != LOCK for p in path.iterdir()):
        raise ValueError(f"{path} holds no study (there is no {STUDY}): choose a new or an empty folder")
    return path


def environment() -> dict[str, Any]:
    """When and where this is: time, hardware, versions, threads."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    hardware = show_config() | {"torch": torch.__version__}
    return {"created": now, "hardware": hardware, "versions": versions(), "threads": get_num_threads()}


def write_environment(folder: Path) -> None:
    """Write down where the study was begun, once."""
    if not (folder / ENVIRONMENT).exists():
        write_json(folder / ENVIRONMENT, environment())


def read_result(path: Path) -> dict[str, Any] | None:
    """The result of a finished run; None of one that is not."""
    try:
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): remove it, and the run is finished again"
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in the folder; ValueError where another process is."""
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by another run (process {file.read().strip() or 'unknown'}): wait for "
                "it, or choose another folder"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Whatever library met it, a file that could not be written is an OSError that says what is kept."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and (isinstance(error, OSError) or not FULL.search(str(error))):
            raise
        raise OSError(
            f"{folder} cannot be written any more ({error}): finished runs and checkpoints are kept; make "
            "room and run the same again to go on"
        ) from error


@contextlib.contextmanager
def at_work(folder: str | os.PathLike[str], begin: Callable[[Path], None]) -> Iterator[Path]:
    """All ranks in a study's folder, which rank 0 locks and begins; ValueError and OSError as above."""
    with contextlib.ExitStack() as stack:
        path = writable_folder(require_study_or_nothing(folder))
        distributed.barrier()  # before rank 0 begins to write there
        if distributed.rank() == 0:
            stack.enter_context(locked(path))
            begin(path)
        distributed.barrier()
        stack.enter_context(full_disk_explained(path))
        yield path
