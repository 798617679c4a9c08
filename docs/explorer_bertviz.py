"""Measures the pages of the explorer and of BertViz: the same BERT, the same text, all layers and heads.

From the root of the repository, with the extra ``explore``, PyTorch, Transformers and BertViz:

    pip install bertviz
    python docs/explorer_bertviz.py --tokens 128,512 --repeats 3

Prints a row of the table in docs/explorer.md for each. Seconds are medians: the model reads the text, and the
page is written; loading the model is left out. BertViz's page is its head view, which holds every weight as a
number.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rattention as ra
import torch
import transformers
from bertviz import head_view
from rattention.models import Bert
from rattention.models.folder import find_model
from rattention.studies.degradation import default_text

if TYPE_CHECKING:
    from collections.abc import Callable


def ours(model: Bert, text: str, file: Path) -> int:
    """Write the offline page; the tokens in it."""
    seen = ra.explore(model, text)
    seen.save(file)
    return len(seen.reading.document)


def bertviz(model: Any, tokenizer: Any, text: str, count: int, file: Path) -> int:
    """Write the page of the head view; the tokens in it."""
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=count)
    with torch.no_grad():
        attention = model(**inputs, output_attentions=True).attentions
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    page = head_view(attention, tokens, html_action="return")
    file.write_text(page.data, "utf-8")
    return len(tokens)


def first_tokens(tokenizer: Any, count: int) -> str:
    """The beginning of the text in the package that has so many tokens."""
    text = default_text()
    places = tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=count)["offset_mapping"]
    return text[: max(end for _, end in places)]


def measured(write: Callable[[Path], int], repeats: int) -> tuple[int, float, float]:
    """Tokens, megabytes of the page, and the median of the seconds."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        for _ in range(repeats):
            begin = time.perf_counter()
            count = write(file)
            seconds.append(time.perf_counter() - begin)
        return count, file.stat().st_size / 1e6, statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", default="128,512")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    folder, name = find_model(None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    own = Bert(folder, name)
    names = ("rattention", "bertviz", "torch", "transformers")
    print(f"{name}, {datetime.now(UTC):%Y-%m-%d}; " + ", ".join(f"{n} {version(n)}" for n in names))
    for count in map(int, given.tokens.split(",")):
        text = first_tokens(tokenizer, count)
        writers: dict[str, Callable[[Path], int]] = {
            "explorer": lambda file, text=text: ours(own, text, file),
            "BertViz": lambda file, text=text, n=count: bertviz(theirs, tokenizer, text, n, file),
        }
        for tool, write in writers.items():
            tokens, size, seconds = measured(write, given.repeats)
            print(f"| {tokens} | {tool} | {size:.1f} MB | {seconds:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
