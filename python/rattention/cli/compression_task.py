"""What ``rattention compress`` works on: a model with its task, by the command's options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.cli.specimen import MAKE_ONE, loaded
from rattention.cli.subject import read_text
from rattention.models import Bert
from rattention.models.errors import WeightsError, read_json_object
from rattention.models.folder import BUNDLED_PACKAGE, find_model
from rattention.studies.degradation import default_text

if TYPE_CHECKING:
    from rattention.cli.compress import Compress
    from rattention.studies.compression import Task


def of(options: Compress) -> Task:
    """The task.

    Raises
    ------
    WeightsError
        There is no such checkpoint or model, or it is damaged.
    ValueError
        Options that do not fit the model or each other.
    ImportError
        An extra that it needs is not installed; the message names it.
    """
    if options.model is None:
        if options.text is not None:
            raise ValueError("--text is for --model: a HistoryTransformer reads histories")
        return _rooms(options)
    if options.checkpoint is not None:
        raise ValueError("--checkpoint and --model exclude each other: give one of them")
    words = default_text() if options.text is None else read_text(options.text)
    if options.model.endswith(".safetensors"):
        return _native(options, Path(options.model), words)
    folder, name = find_model(None if options.model in ("bert", BUNDLED_PACKAGE) else options.model)
    if read_json_object(folder / "config.json").get("model_type") == "bert":
        return _sentences(options, Bert(folder, name), words)
    return _pretrained(options, folder, name, words)


def _rooms(options: Compress) -> Task:
    from rattention.studies.compression.rooms import Rooms
    from rattention.studies.dark_room import HistoryTransformer, example_checkpoint

    file = options.checkpoint or example_checkpoint()
    if not file.is_file():
        raise WeightsError(f"there is no checkpoint {file}: {MAKE_ONE}")
    task = Rooms(HistoryTransformer.load(file), episodes=options.episodes)
    if options.goals is not None:
        if not 1 <= options.goals <= len(task.goals):
            raise ValueError(f"--goals must be between 1 and {len(task.goals)}, got {options.goals}")
        task = Rooms(task.model, task.goals[: options.goals], episodes=options.episodes)
    return task


def _sentences(options: Compress, model: Bert, words: str) -> Task:
    from rattention.studies.compression.sentences import Sentences

    longest = model.config.max_positions - 2
    return Sentences(model, words, length=min(options.prefix, longest), batch=options.batch)


def _native(options: Compress, path: Path, words: str) -> Task:
    require("torch")
    from rattention.nn import LanguageModel

    model = LanguageModel.load(path)
    ids = np.frombuffer(words.encode(), np.uint8)
    if ids.max() >= model.config["vocabulary"]:
        raise ValueError(
            f"texts are read as bytes: the model has {model.config['vocabulary']} tokens, and byte "
            f"{ids.max()} stands in the text"
        )
    return _continuation(options, model, ids)


def _pretrained(options: Compress, folder: Path, name: str, words: str) -> Task:
    transformers: Any = require("transformers")
    model = loaded(lambda: transformers.AutoModelForCausalLM.from_pretrained(folder), name, "causal model")
    tokenizer = loaded(lambda: transformers.AutoTokenizer.from_pretrained(folder), name, "tokenizer")
    return _continuation(options, model, tokenizer(words, verbose=False)["input_ids"])


def _continuation(options: Compress, model: Any, ids: Any) -> Task:
    from rattention.studies.compression.language import Continuation

    sizes = {"prefix": options.prefix, "continuation": options.continuation, "batch": options.batch}
    return Continuation(model, ids, **sizes)
