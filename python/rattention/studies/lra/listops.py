"""ListOps: the value of nested operators on lists of digits, from the expression as a sequence of tokens.

The grammar is that of Long Range Arena (arXiv 2011.04006, section 2.2.1): MIN, MAX, MED (median, truncated)
and SM (sum modulo 10) of 2 to 10 arguments, which are digits or expressions again. Brackets stay: an
operator's token opens and ``]`` closes, 15 tokens in all. A pipeline that dropped the brackets, as the
benchmark's first one did, makes another task, nearly unsolvable.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import _core
from rattention._arguments import first_line, whole_number
from rattention._extras import require
from rattention._files import replacing, writable_folder
from rattention.studies.kit.folder import default_folder
from rattention.studies.kit.settings import require_ranges, with_given
from rattention.studies.lra.data import SPLITS, Split, Task, TaskData

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
TOKENS = ("", *map(str, range(10)), *OPERATORS, "]")
"""By number; 0 is padding."""

VERSION = 1
"""Of what is drawn: another number means other samples from the same settings."""

TREES = 1 << 16
"""Drawn at once: a second or less, so that Ctrl-C is heard."""

PATIENCE = 20
"""Draws in a row without a new sample after which there are none to be had."""

RAREST = 1_000
"""Trees drawn for each sample that is wanted after which samples are too rare."""


@dataclass(frozen=True)
class ListOps:
    """Settings; those of the benchmark by default. ValueError where a number is not in its range."""

    train: int = 96_000
    validation: int = 2_000
    test: int = 2_000
    min_length: int = 500
    """Shorter expressions, and those of just this length, are left out, as in the published generator."""
    max_length: int = 2_000
    """Longer expressions, and those of just this length, are left out."""
    max_depth: int = 10
    """Levels; there are only digits on the last."""
    max_args: int = 10
    """The most arguments of an operator; 2 at least."""
    operator_share: float = 0.25
    """Probability of an operator where the depth allows one."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_ranges(
            self,
            train=1,
            validation=1,
            test=1,
            min_length=0,
            max_depth=1,
            max_args=2,
            seed=0,
            shares=("operator_share",),
        )
        if whole_number("max_length", self.max_length) < self.min_length + 2:
            raise ValueError(
                f"max_length must be at least min_length + 2, as both are exclusive; got {self.max_length} "
                f"and {self.min_length}"
            )

    def scaled(self, length: int | None, samples: int | None) -> ListOps:
        """With expressions below `length` tokens, the other bound in proportion; `samples` to train on."""
        least = None if length is None else self.min_length * length // self.max_length
        return with_given(self, train=samples, min_length=least, max_length=length)

    def load(self) -> TaskData:
        """Sample the expressions, none of them twice, or read them where they have been made before.

        They are cached in `default_folder`; a damaged file there is made again, with a warning that names it.

        Raises
        ------
        ValueError
            There are fewer different expressions within these bounds, or none is ever sampled.
        OSError
            The cache cannot be written.
        """
        whole = self._cached_or_new()
        ends = np.cumsum([getattr(self, name) for name in SPLITS])
        parts = np.split(np.arange(ends[-1]), ends[:-1])
        splits = {name: whole.select(part) for name, part in zip(SPLITS, parts, strict=True)}
        return TaskData("listops", len(TOKENS), 10, **splits, token_names=TOKENS)

    def _cached_or_new(self) -> Split:
        settings = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        path = default_folder() / f"listops-{hashlib.sha256(settings.encode()).hexdigest()[:16]}.parquet"
        if path.exists():
            try:
                return _read(path, settings)
            except ValueError as error:
                warnings.warn(f"{path} is damaged and made again: {error}", stacklevel=3)
        writable_folder(path.parent)
        samples = self._new()
        _write(path, samples, settings)
        return samples

    def _new(self) -> Split:
        """All samples, shuffled: as none comes twice, those found later are longer."""
        wanted = self.train + self.validation + self.test
        found: dict[bytes, int] = {}
        drawn = fruitless = 0
        while len(found) < wanted:
            before = len(found)
            for sequence, label in self._trees(drawn):
                found.setdefault(sequence, label)
            drawn += TREES
            fruitless = 0 if len(found) > before else fruitless + 1
            if fruitless == PATIENCE or drawn > PATIENCE * TREES + RAREST * wanted:
                raise ValueError(self._too_few(wanted, len(found), drawn))
        sequences, labels = list(found), np.array([*found.values()])
        order = np.random.default_rng(self.seed).permutation(wanted)
        return Split.of((np.frombuffer(sequences[i], np.uint8) for i in order), labels[order])

    def _trees(self, first: int) -> Iterable[tuple[bytes, int]]:
        grammar = {n: v for n, v in asdict(self).items() if n not in (*SPLITS, "seed")}
        tokens, lengths, labels = _core.draw_listops(self.seed, first, TREES, **grammar)
        parts = itertools.pairwise([0, *np.cumsum(lengths).tolist()])
        everything = tokens.tobytes()
        return zip((everything[a:b] for a, b in parts), labels.tolist(), strict=True)

    def _too_few(self, wanted: int, found: int, drawn: int) -> str:
        return (
            f"train, validation and test want {wanted:,} different expressions, and {drawn:,} trees have "
            f"only {found:,} with more than min_length={self.min_length} and fewer than "
            f"max_length={self.max_length} tokens, max_depth={self.max_depth} and max_args={self.max_args}: "
            f"widen these or ask for fewer"
        )


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
        table = parquet.read_table(path, page_checksum_verification=True)
        written = (table.schema.metadata or {}).get(b"settings", b"").decode("utf-8", "replace")
        rows, labels = table.column("tokens").combine_chunks(), table.column("label").to_numpy()
        tokens, lengths = rows.flatten().to_numpy(), rows.value_lengths().to_numpy()
    except (arrow.ArrowException, KeyError, OSError, AttributeError, IndexError) as error:
        raise ValueError(first_line(error)) from error
    if written != settings:
        raise ValueError("it was made with other settings")
    return Split(tokens, np.cumsum([0, *lengths], dtype=np.int64), labels.astype(np.int64))


def reference_tree(settings: ListOps, generator: np.random.Generator, depth: int = 1) -> list[int]:
    """The tokens of one tree, of any length: the grammar as it reads; `_core` draws by it."""
    if depth >= settings.max_depth or generator.random() >= settings.operator_share:
        return [1 + int(generator.integers(10))]
    operator = 11 + int(generator.integers(len(OPERATORS)))
    count = int(generator.integers(2, settings.max_args + 1))
    parts = [reference_tree(settings, generator, depth + 1) for _ in range(count)]
    return [operator, *(token for part in parts for token in part), len(TOKENS) - 1]


def evaluate(tokens: NDArray[np.integer[Any]] | list[int]) -> int:
    """The value of an expression; ValueError where it is none."""
    stack: list[list[int]] = [[]]
    operators: list[int] = []
    for token in map(int, tokens):
        if 1 <= token <= 10:
            stack[-1].append(token - 1)
        elif 11 <= token <= 14:
            operators.append(token - 11)
            stack.append([])
        elif token == len(TOKENS) - 1 and operators and stack[-1]:
            arguments = stack.pop()
            stack[-1].append(_VALUES[operators.pop()](arguments))
        else:
            raise ValueError(f"token {token} does not fit there")
    if operators or len(stack[0]) != 1:
        raise ValueError("tokens are no single closed expression")
    return stack[0][0]


_VALUES: tuple[Callable[[list[int]], int], ...] = (
    min,
    max,
    lambda digits: int(np.median(digits)),
    lambda digits: sum(digits) % 10,
)

TASK = Task(
    "ListOps",
    ListOps,
    {
        "smoke": ListOps(
            train=1_500, validation=200, test=200, min_length=10, max_length=60, max_depth=4, max_args=4
        ),
        "small": ListOps(
            train=20_000, validation=1_000, test=2_000, min_length=20, max_length=100, max_depth=5, max_args=5
        ),
    },
)
