"""`explore`: from a model and a text to a page."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from rattention._arguments import at_least
from rattention._files import require_place, write_text
from rattention.explorer.explorer import Explorer
from rattention.explorer.generation import Generation
from rattention.explorer.offline import offline_page
from rattention.explorer.reader_kinds import reader_of
from rattention.explorer.reading import Progress, Reading, no_progress
from rattention.explorer.session import Session


class Exploration:
    """A text that a model has read. A notebook that ends a cell with it shows the page."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return (
            f"Exploration({self.reading!r}): in a notebook the page needs the extra 'explore'; .save(file) "
            "writes one that a browser opens, .serve() starts a local one"
        )

    @property
    def explorer(self) -> Explorer:
        """Answers to what the page asks, as numbers."""
        return self._session.explorer

    @property
    def reading(self) -> Reading:
        """What the layers attended with."""
        return self.explorer.reading

    @cached_property
    def widget(self) -> Any:
        """The page as a widget of anywidget; ImportError without the extra ``explore``."""
        from rattention.explorer.widget import widget

        return widget(self.explorer)

    def save(self, path: str | os.PathLike[str], *, progress: Progress = no_progress) -> Path:
        """Write one HTML file that a browser opens without a network; OSError where that fails."""
        file = Path(path)
        require_place(file)
        write_text(file, offline_page(self.explorer, progress))
        return file

    def serve(self, port: int = 0) -> None:
        """Serve the page at 127.0.0.1 until interrupted, and print its address; port 0 takes a free one."""
        from rattention.explorer.server import address, listening, serve

        listener = listening(port)
        print(address(listener), flush=True)
        serve(self._session, listener)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        try:
            return self.widget._repr_mimebundle_(**options)
        except ImportError:
            return {"text/plain": repr(self)}


def explore(
    model: Any,
    text: str,
    *,
    tokenizer: Any = None,
    title: str = "",
    generate: int = 0,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Exploration:
    """Let `model` read `text`, and what it appends to it, and walk through its attention.

    Parameters
    ----------
    model:
        A model of Transformers, a `rattention.models.Bert`, or a module with layers of `rattention.nn` that
        reads bytes; on the CPU.
    text:
        Of any length that the model has positions for; what is longer is left out with a remark.
    tokenizer:
        Of a model of Transformers: a fast one.
    title:
        What the text is called.
    generate:
        How many tokens the model appends, fewer where it ends its text; text and answer are then read in one
        pass. For causal models of Transformers; text and answer must fit into the model's positions.
    temperature, seed:
        How tokens are chosen: 0 takes the most likely one, with 0.0001 to 100 they are drawn from the
        softmax of the logits divided by the temperature, with the seed. The page says which.
    progress:
        Called with a stage, and how much of it is done of how much; it may raise to end the reading.

    Returns
    -------
    An `Exploration`: the last line of a notebook's cell shows it, ``.save("page.html")`` writes it,
    ``.serve()`` opens it to a browser.

    Raises
    ------
    TypeError
        `model` is something else, or `text` is no string.
    ValueError
        An empty text or one with half of a surrogate pair, a tokenizer that does not fit, a model without
        layers that can be looked into, a model that cannot generate, or too many tokens to generate.

    Memory is that of the layers' queries and keys.

    Examples
    --------
    >>> import rattention as ra, torch
    >>> model = ra.nn.LanguageModel(256, dim=32, heads=2, depth=2)  # untrained: it reads bytes
    >>> seen = ra.explore(model, "Never odd or even.")
    >>> seen.reading
    Reading(Document('Never odd or even.', tokens=18), model='LanguageModel', layers=2)
    """
    wanted = Generation(generate, temperature, seed) if at_least("generate", generate, 0) else None
    session = Session(reader_of(model, tokenizer), wanted)
    session.read(text, title, progress)
    return Exploration(session)
