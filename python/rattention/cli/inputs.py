"""Models and texts that commands look at: the one place that loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rattention import _files
from rattention._arguments import first_line
from rattention._extras import require
from rattention.models.folder import BUNDLED_PACKAGE, WeightsError, find_model, read_json_object
from rattention.studies.degradation import default_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rattention.cli.options import LooksInside
    from rattention.models import Bert
    from rattention.studies.dark_room import HistoryTransformer


def reads_text(options: LooksInside) -> bool:
    """Whether the options name a model that reads texts; ValueError where they contradict each other."""
    if options.model is None and options.text is not None:
        raise ValueError("--text is for --model: a HistoryTransformer reads histories")
    if options.model is not None and options.checkpoint is not None:
        raise ValueError("--checkpoint and --model exclude each other: give one of them")
    return options.model is not None


def text_and_origin(path: Path | None) -> tuple[str, str]:
    """The text of a file or a pipe, by default the one in the package, and what to call it.

    ValueError where it is empty, too long or not UTF-8.
    """
    if path is None:
        return default_text(), "the history of lighthouses (built in)"
    words = _files.read_text(path, "utf-8-sig")
    if not words.strip():
        raise ValueError(f"{path} is empty: there is nothing to measure")
    return words, str(path)


def model_folder(source: str | None) -> tuple[Path, str, bool]:
    """The folder of a model, its name, and whether it is a BERT, which runs without PyTorch."""
    folder, name = find_model(None if source in ("bert", BUNDLED_PACKAGE) else source)
    return folder, name, read_json_object(folder / "config.json").get("model_type") == "bert"


def bert(source: str | None) -> Bert:
    """The BERT in a folder, of an id, or the default one."""
    from rattention.models import Bert

    return Bert.from_pretrained(None if source == "bert" else source)


def history_transformer(path: Path | None) -> tuple[HistoryTransformer, Path]:
    """The transformer in a file, by default the one in the package, and its file.

    WeightsError where there is no such file, or it is damaged; ImportError without the extra ``studies``.
    """
    from rattention.studies.dark_room import HistoryTransformer, example_checkpoint

    file = path or example_checkpoint()
    if not file.is_file():
        raise WeightsError(
            f"there is no checkpoint {file}: make one with: rattention ad train, or name another with "
            "--checkpoint FILE or --model FOLDER|ID"
        )
    return HistoryTransformer.load(file), file


def pretrained(folder: Path, name: str, *, causal: bool = False) -> tuple[Any, Any]:
    """A model of Transformers and its tokenizer.

    With `causal` WeightsError where it has no weights to predict tokens.
    """
    transformers = require("transformers")
    require("torch")
    transformers.logging.set_verbosity_error()  # its report of unused weights reads like a fault
    transformers.logging.disable_progress_bar()
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    what = "causal model" if causal else "model"
    model, info = _loaded(lambda: kind.from_pretrained(folder, output_loading_info=True), name, what)
    if causal and (missing := _without_head(model, info["missing_keys"])):
        raise WeightsError(f"{name} holds no causal model: there are no weights {missing}")
    tokenizer = _loaded(lambda: transformers.AutoTokenizer.from_pretrained(folder), name, "tokenizer")
    return model, tokenizer


def _without_head(model: Any, missing: Iterable[str]) -> str:
    """The weights of the head that turns states into tokens, where they are missing."""
    head = model.get_output_embeddings()
    own = [name for name, part in model.named_modules() if part is head and part is not None]
    return next((key for key in missing for name in own if key.startswith(f"{name}.")), "")


def _loaded(load: Callable[[], Any], name: str, what: str) -> Any:
    """What Transformers loads; WeightsError with the first line of whatever it raises."""
    try:
        return load()
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"{name} holds no {what} that Transformers can load: {reason}") from error
