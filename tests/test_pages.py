"""What pages of the documentation say holds: examples print what they show, links lead somewhere."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.extras import needs
from tests.pages import PAGES, ROOT, Example, examples, links

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkServerContext

EXAMPLES = [example for page in PAGES for example in examples(page)]
NEED = {
    "torch": ("import torch", "from torch", "rattention.torch", "rattention.nn"),
    "hf": ("transformers",),
    "inspect": ("ra.observe", "ra.capture", "ra.compress", "rattention.inspect"),
    "explore": ("ra.explore",),
}
"""Extras, and what in an example asks for them."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names of models that would be downloaded are those of small ones."""
    folder = tmp_path_factory.mktemp("models")
    needs("hf")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen3Config(vocab_size=256, num_key_value_heads=2, head_dim=8, eos_token_id=None, **sizes)
    Qwen3ForCausalLM(config).save_pretrained(folder / "Qwen/Qwen3-0.6B")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / "Qwen/Qwen3-0.6B")
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.page}:{example.line}")
def test_example_prints_what_is_shown(
    example: Example, request: pytest.FixtureRequest, tmp_path: Path, forks: ForkServerContext
) -> None:
    needs(*(extra for extra, words in NEED.items() if any(word in example.code for word in words)))
    downloads = "from_pretrained(" in example.code
    printed = run(example.code, request.getfixturevalue("models") if downloads else tmp_path, forks)
    if example.shown is not None:
        assert printed == example.shown


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServerContext]:
    """Makes processes that have the large packages already: to import them takes ten seconds.

    Threads that spin while they wait would take a busy machine's cores from those that work.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers.modeling_utils", "rattention"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield context


def run(code: str, folder: Path, forks: ForkServerContext) -> str:
    """What it prints in a process of its own."""
    with tempfile.TemporaryDirectory() as output:
        printed, failed = Path(output, "printed"), Path(output, "failed")
        process = forks.Process(target=execute, args=(code, folder, printed, failed))
        process.start()
        process.join(300)
        process.kill()
        assert process.exitcode == 0, failed.read_text("utf-8")
        return printed.read_text("utf-8")


def execute(code: str, folder: Path, printed: Path, failed: Path) -> None:
    """Runs in that process, as a script would: its output into files."""
    for stream, path in (1, printed), (2, failed):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream)
    os.chdir(folder)
    sys.path.insert(0, "")
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})


def test_every_block_of_python_is_an_example() -> None:
    """None is passed over because it is written in another way."""
    for page in PAGES:
        text = page.read_text("utf-8")
        blocks = text.count("```python\n") - text.count("<!-- not run: ")
        assert len(examples(page)) == blocks, page


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path = (page.parent / target).resolve()
        assert path.exists() or "reference/api" in path.as_posix(), target
