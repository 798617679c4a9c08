"""What a server or a widget shows: one model, the text it has read last, and the turns of a conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Event, Thread
from typing import Any

from rattention._arguments import brief, first_line
from rattention.explorer.conversation import Turn, turns_data
from rattention.explorer.examples import examples
from rattention.explorer.explorer import Explorer
from rattention.explorer.generation import Generation
from rattention.explorer.reader_kinds import Reader
from rattention.explorer.reading import Progress, Reading, no_progress
from rattention.explorer.wire import Answer

MOST_TEXT = 2**22
"""Characters of a text that a page may send."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair, which UTF-8 and tokenizers do not have."""


CLOSED = "the explorer was closed"


class Cancelled(ValueError):
    """The reader of the page ended the work."""


@dataclass(eq=False)
class Session:
    """Reads texts with a model, one at a time, and answers about the last.

    Threads may share it: answers wait until a reading is there.
    """

    reader: Reader
    generation: Generation | None = None
    """What the model appends to the texts that are opened; turns and examples are read as they are."""
    _explorer: Explorer | None = None
    _turns: list[Turn] = field(default_factory=list)
    _working: Thread | None = None
    _error: str = ""
    _progress: Answer = field(default_factory=lambda: {"stage": "loading", "done": 0, "total": 0})
    _changed: Condition = field(default_factory=Condition)
    _cancelled: Event = field(default_factory=Event)
    _closed: bool = False

    @property
    def explorer(self) -> Explorer:
        """Answers about the last text, once it was read."""
        return self._waited()

    def read(self, text: str, title: str = "", progress: Progress = no_progress) -> None:
        """Read a text and wait; whatever fails is raised as it is."""
        reading = _read(self.reader, checked(text), title, progress, self.generation)
        self._explorer, self._turns = Explorer(reading), [Turn.after(text, reading, [])]

    def open(self, text: str, title: str = "") -> None:
        """Begin to read a text; ValueError where another is being read."""
        self._begin([], (checked(text),), title, lambda: self.reader, self.generation)

    def open_example(self, name: str) -> None:
        """Begin to read one of the examples, turn by turn."""
        listed = examples()
        if not isinstance(name, str) or name not in listed:
            raise ValueError(f"example must be one of {', '.join(listed)}; got {brief(name)}")
        chosen = listed[name]
        self._begin([], chosen.turns, chosen.title, chosen.reader or (lambda: self.reader))

    def say(self, text: str) -> None:
        """Add a turn to the conversation, and begin to read all of it."""
        self._begin(self._turns, (checked(text),), "conversation", lambda: self.reader)

    def cancel(self) -> None:
        """End what is at work."""
        self._cancelled.set()
        if self._explorer is not None:
            self._explorer.background.cancel()

    def close(self) -> None:
        """End what is at work, and let nobody wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.cancel()

    def ask(self, question: str, params: Mapping[str, str] | None = None, reading: str = "") -> Answer:
        """As `Explorer.ask`; waits for the first reading. ``progress`` and ``turns`` do not wait.

        The answer to ``document`` names its ``reading``. ValueError where a later question names one and
        another text was read since.
        """
        if question == "progress":
            return self._how_far()
        if question == "turns":
            return {"turns": turns_data(self._turns)}
        explorer = self._waited()
        if question != "document" and reading not in ("", explorer.name):
            raise ValueError("another text was opened, perhaps in another tab: reload the page to see it")
        answer = explorer.ask(question, params)
        if question == "document":
            listed = [{"id": i, "title": one.title, "about": one.about} for i, one in examples().items()]
            answer |= {"conversation": True, "examples": listed, "reading": explorer.name}
        return answer

    def wait(self) -> None:
        """Wait for what is being read; ValueError says why it failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._working is None or self._closed)
            if self._error or self._closed:
                raise ValueError(self._error or CLOSED)

    def _how_far(self) -> Answer:
        if self._working is not None:
            return self._progress | {"state": "working", "error": ""}
        if self._explorer is None or self._error:
            return self._progress | {"state": "failed", "error": self._error}
        return self._explorer.ask("progress")

    def _waited(self) -> Explorer:
        with self._changed:
            self._changed.wait_for(lambda: self._explorer or self._working is None or self._closed)
            if self._explorer is None:
                raise ValueError(self._error or (CLOSED if self._closed else "no text has been opened"))
            return self._explorer

    def _begin(
        self,
        before: list[Turn],
        said: tuple[str, ...],
        title: str,
        by: Callable[[], Reader],
        generation: Generation | None = None,
    ) -> None:
        with self._changed:
            if self._working is not None:
                raise ValueError("another text is being read: wait for it, or cancel it")
            self._cancelled.clear()
            self._error = ""
            self._progress = {"stage": "reading", "done": 0, "total": 0}
            work = partial(self._read, [*before], said, title, generation)
            self._working = Thread(target=self._work, args=(work, by), daemon=True)
            self._working.start()

    def _work(self, read: Callable[[Reader], tuple[list[Turn], Reading]], by: Callable[[], Reader]) -> None:
        try:
            turns, reading = read(by())
            explorer = Explorer(reading)
        except Exception as fault:
            with self._changed:
                self._error, self._working = first_line(fault), None
                self._changed.notify_all()
            return
        with self._changed:
            if self._explorer is not None:
                self._explorer.background.cancel()
            self._explorer, self._turns, self._working = explorer, turns, None
            self._changed.notify_all()
        explorer.background.start()

    def _read(
        self,
        turns: list[Turn],
        said: tuple[str, ...],
        title: str,
        generation: Generation | None,
        reader: Reader,
    ) -> tuple[list[Turn], Reading]:
        """Read the turns that there are with one more after the other."""
        for text in said:
            whole = "\n".join([*(turn.text for turn in turns), text])
            reading = _read(reader, whole, title, self._show, generation)
            turns.append(Turn.after(text, reading, turns))
        return turns, reading

    def _show(self, stage: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise Cancelled("the reading was cancelled")
        self._progress = {"stage": stage, "done": done, "total": total}


def _read(
    reader: Reader, text: str, title: str, progress: Progress, generation: Generation | None
) -> Reading:
    """What the reader reads, with what it appends where that is asked for."""
    if generation is None:
        return reader.read(text, title, progress)
    return reader.go_on(text, generation, title, progress)


def checked(text: Any) -> str:
    """A text that may be read; TypeError and ValueError say why another may not."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {type(text).__name__}")
    if not text.strip():
        raise ValueError("the text is empty: there is nothing to attend to")
    if len(text) > MOST_TEXT:
        raise ValueError(f"the text has {len(text)} characters: at most {MOST_TEXT} are read")
    half = SURROGATE.search(text)
    if half:
        raise ValueError(
            f"the text must be Unicode: character {half.start()} is half of a surrogate pair, "
            f"U+{ord(half[0]):04X}"
        )
    return text
