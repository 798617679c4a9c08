"""Tasks that need one place of a long context, after RULER (arXiv 2404.06654, section 3), as text.

Each sequence ends with a prompt and its answer. What the answer needs lies at random places of a haystack,
which is text of the corpus:

- ``single``: one line that gives a name a number of five digits; the number is asked for;
- ``multi``: four such lines, one of which is asked for;
- ``tracking``: one such line, and two lines that each give the last name's value to a new name; the number
  of the last name is asked for;
- ``words``: no corpus but words, a third of which are the same one; the commonest word is asked for.

Every sample has a control: the same sequence, but what it says is another number or word. A model that uses
its context finds the answer likely in the sample and unlikely in the control.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Encode = Callable[[str], NDArray[np.int64]]

NAMES = ("single", "multi", "tracking", "words")
LABELS = {
    "single": "Single needle",
    "multi": "Multi needle",
    "tracking": "Variable tracking",
    "words": "Common words",
}
NEEDLES, HOPS, WORDS, COMMON_SHARE = 4, 2, 40, 1 / 3


@dataclass(frozen=True, eq=False)
class Sample:
    """A sequence and its control, ``[2, length]``; the last tokens are the answer."""

    tokens: NDArray[np.int64]
    answer_length: int


def draw(
    task: str,
    generator: np.random.Generator,
    length: int,
    haystack: NDArray[np.integer],
    encode: Encode,
) -> Sample:
    """A random sample of a task.

    Parameters
    ----------
    haystack:
        The tokens of a split.
    encode:
        Gives the tokens of a text.

    Raises
    ------
    ValueError
        `length` is too small for what the task says.
    """
    lines, answers, prompt = _parts(task, generator)
    end = np.concatenate([encode(prompt), encode(answers[0])])
    start = int(generator.integers(len(haystack) - length)) if len(haystack) > length else 0
    seed = int(generator.integers(2**63))
    rows = []
    for said in answers:
        fill = _words(said, seed, encode, length) if task == "words" else haystack[start : start + length]
        own = [encode(line.replace("{}", said)) for line in lines]
        rows.append(np.concatenate([_scattered(own, fill, length - len(end), seed), end]))
    return Sample(np.stack(rows).astype(np.int64), len(encode(answers[0])))


def _parts(task: str, generator: np.random.Generator) -> tuple[list[str], list[str], str]:
    """Lines of the context with ``{}`` for what is asked, the answer and that of the control, the prompt."""
    names = [_word(generator) for _ in range(NEEDLES)]
    numbers = [str(number) for number in generator.choice(90_000, NEEDLES + 1, replace=False) + 10_000]
    needle = f"\n# {names[0]} = {{}}\n"
    if task == "words":
        return [], [_word(generator), _word(generator)], "\n# commonest = "
    if task == "tracking":
        hops = [f"\n# {names[i + 1]} = {names[i]}\n" for i in range(HOPS)]
        return [needle, *hops], numbers[:2], f"\n# number of {names[HOPS]} = "
    others = [f"\n# {name} = {number}\n" for name, number in zip(names[1:], numbers[2:], strict=False)]
    lines = [needle, *others] if task == "multi" else [needle]
    order = generator.permutation(len(lines))
    return [lines[i] for i in order], numbers[:2], f"\n# {names[0]} = "


def _word(generator: np.random.Generator) -> str:
    return "".join(generator.choice(list(string.ascii_lowercase), 6))


def _words(common: str, seed: int, encode: Encode, length: int) -> NDArray[np.int64]:
    """At least `length` tokens of words in random order."""
    generator = np.random.default_rng(seed)
    others = [_word(generator) for _ in range(WORDS)]
    kinds = generator.integers(len(others), size=length)
    drawn = np.where(generator.random(length) < COMMON_SHARE, -1, kinds)
    return encode(" ".join(common if kind < 0 else others[kind] for kind in drawn))


def _scattered(
    lines: list[NDArray[np.int64]], fill: NDArray[np.integer], length: int, seed: int
) -> NDArray[np.integer]:
    """Lines in their order at random places of the haystack, `length` tokens in all."""
    left = length - sum(map(len, lines))
    if left < len(lines):
        raise ValueError(f"a context of {length} tokens is too short for the lines of a task")
    places = np.sort(np.random.default_rng(seed).integers(left + 1, size=len(lines)))
    pieces = np.split(fill[:left], places)
    parts = [pieces[0]]
    for line, piece in zip(lines, pieces[1:], strict=True):
        parts += [line, piece]
    return np.concatenate(parts)
