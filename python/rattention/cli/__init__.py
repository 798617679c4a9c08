"""The command line: ``rattention`` and ``python -m rattention``.

Every command is a dataclass of options with a method ``run`` that gives the exit code; the table of them is
in `rattention.cli.parser`. This module turns faults into one line on stderr and a code.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; failed while running; wrong usage or input; stopped with Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (``sys.argv[1:]`` by default) and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that cannot be shown becomes an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        code = attempt(lambda: _run(list(sys.argv[1:] if argv is None else argv)))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fault("interrupted", INTERRUPTED)
    except BrokenPipeError:  # rattention ... | head: nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def attempt(part: Callable[[], int]) -> int:
    """Run a part of a program and return its exit code; a fault becomes one line on stderr and a code."""
    try:
        return part()
    except BrokenPipeError:
        raise
    except ValueError as error:
        return _fault(_one_line(error), BAD_INPUT)
    except OSError as error:  # one that names a path comes from opening it; a full disk names none
        return _fault(_one_line(error), FAILED if error.filename is None else BAD_INPUT)
    except ImportError as error:
        return _fault(_one_line(error), FAILED)
    except Exception as error:
        return _fault(f"{type(error).__name__}: {_one_line(error)}", FAILED)


def _run(argv: list[str]) -> int:
    from rattention.cli.parser import parse

    return parse(argv)()


def _fault(message: str, code: int) -> int:
    """One line on what went wrong; RATTENTION_TRACEBACK=1 shows where."""
    if os.environ.get("RATTENTION_TRACEBACK") and sys.exception() is not None:
        traceback.print_exc()
    print(f"rattention: {message}", file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    """The message without line breaks; an OSError's without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
