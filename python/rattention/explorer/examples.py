"""What is ready to be read: texts for any model, and what the shipped transformer did in a dark room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from rattention.explorer.reader_kinds import Reader
from rattention.explorer.reading import Progress, Reading, no_progress, read_sample
from rattention.inspect import Sample
from rattention.studies.degradation import default_text, read_turns

STEP = 40
"""Words, about 50 tokens, by which the growing context grows."""
STEPS = 9
TRANSITIONS = 100
GOAL = 30
"""Of the dark room, a cell that the transformer was not trained on."""


@dataclass(frozen=True)
class Example:
    """A text in turns, each of which is measured with all before it."""

    title: str
    about: str
    turns: tuple[str, ...]
    reader: Callable[[], Reader] | None = None
    """Who reads it, where that is no model of the user's."""


class SampleReader(Reader):
    """Reads one sample whatever the text; its labels are the document."""

    def __init__(self, model: object, name: str, sample: Sample) -> None:
        super().__init__(model, name)
        self._sample = sample

    def read(self, text: str, title: str = "", progress: Progress = no_progress) -> Reading:
        """The reading of the sample."""
        return read_sample(self.model, self._sample, self.name, title, progress)


def dark_room() -> Reader:
    """The shipped transformer and what it has done in a room; ImportError without the extra ``studies``."""
    from rattention.studies.dark_room import HistoryTransformer, example_checkpoint
    from rattention.studies.dark_room.samples import samples

    model = HistoryTransformer.load(example_checkpoint())
    return SampleReader(model, "HistoryTransformer", samples(model, [GOAL], TRANSITIONS, 0)[0])


@cache
def examples() -> dict[str, Example]:
    """By name."""
    words = default_text().split()
    growing = tuple(" ".join(words[i * STEP : (i + 1) * STEP]) for i in range(STEPS))
    return {
        "text": Example(
            "The history of lighthouses", "a text of several hundred words", (default_text().strip(),)
        ),
        "growing": Example(
            "A growing context", f"the same in {STEPS} steps of {STEP} words: how attention changes", growing
        ),
        "recall": Example(
            "A fact and a question", "a conversation that asks for what was said first", tuple(read_turns())
        ),
        "dark room": Example(
            "A dark room",
            f"{TRANSITIONS} transitions of a transformer that learns from its history where the goal is",
            ("the history of one room",),
            dark_room,
        ),
    }
