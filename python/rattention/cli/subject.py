"""What a demo looks at: a pretrained model with a text, or synthetic numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rattention import _files
from rattention.studies.degradation import (
    Conversation,
    SyntheticConversation,
    SyntheticSource,
    TextSource,
    default_text,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rattention.models import Bert
    from rattention.models.bert_config import BertConfig
    from rattention.studies.degradation import Source


@dataclass(frozen=True)
class Subject:
    """Where contexts come from, and how to speak of it."""

    name: str
    """The model's name."""
    description: str
    """One line about model and text."""
    source: Source
    conversation: Source
    longest: int | None
    """The model's positions; None where there is no limit."""
    data: dict[str, Any]
    """The same for the JSON file."""


def pretrained(model: str | None, text: Path | None) -> Subject:
    """A model and a text; ValueError for an empty or unreadable text, and what `load` raises."""
    words = default_text() if text is None else read_text(text)
    bert = load(model)
    config = bert.config
    origin = "the history of lighthouses (built in)" if text is None else str(text)
    return Subject(
        name=bert.name,
        description=f"{_sizes(config)}, {config.max_positions} positions; text: {origin}",
        source=TextSource(bert, words),
        conversation=Conversation(bert),
        longest=config.max_positions,
        data={
            "name": bert.name,
            "synthetic": False,
            "layers": config.layers,
            "heads": config.heads,
            "max_positions": config.max_positions,
            "text": "built in: lighthouses" if text is None else str(text),
        },
    )


def synthetic(seed: int) -> Subject:
    """Seeded queries and keys."""
    source = SyntheticSource(seed)
    return Subject(
        name="synthetic queries and keys",
        description=f"{_sizes(source)} of random numbers, seed {seed}: no model, no text",
        source=source,
        conversation=SyntheticConversation(seed),
        longest=None,
        data={"name": "synthetic", "synthetic": True, "layers": source.layers, "heads": source.heads},
    )


def _sizes(model: Source | BertConfig) -> str:
    return f"{model.layers} layers of {model.heads} heads"


def load(model: str | None) -> Bert:
    """The model in a folder, of an id, or the default one."""
    from rattention.models import Bert

    return Bert.from_pretrained(model)


def read_text(path: Path) -> str:
    """The text of a file or a pipe; ValueError when it is empty, too long or not UTF-8."""
    words = _files.read_text(path, "utf-8-sig")
    if not words.strip():
        raise ValueError(f"{path} is empty: there is nothing to measure")
    return words
