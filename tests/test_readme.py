"""What the README says holds: its first example, what was measured, the commands that .ci/run takes from it;
and what CONTRIBUTING.md says of folders and files. Other examples and links: tests/test_pages.py.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import rattention as ra
from rattention._installed import EXTRAS

from benchmarks import summary
from tests.extras import needs
from tests.pages import PAGES, README, ROOT, examples, first_cells, section

if TYPE_CHECKING:
    from pathlib import Path

TEXT = README.read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_first_example_computes_attention_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small model in the place of the one that it names, which would be downloaded."""
    needs("hf")
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    first = examples(README)[0].code
    (name,) = re.findall(r'from_pretrained\("([^"]+)"', first)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    saved = Qwen3ForCausalLM(Qwen3Config(vocab_size=99, num_key_value_heads=2, head_dim=8, **sizes)).eval()
    saved.save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    done: dict[str, Any] = {}
    exec(first, done)
    model, tokens = done["model"], torch.arange(50)[None]
    with torch.no_grad(), ra.observe(model) as seen:
        logits = model(tokens).logits
    assert model.config._attn_implementation == "rattention"
    assert seen.entropy.shape == (2, 1, 4, 50)
    torch.testing.assert_close(logits, saved(tokens).logits.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("page", summary.PAGES)
def test_what_was_measured_is_that_of_the_run(page: str) -> None:
    """`python -m benchmarks.summary` writes it, and the figure."""
    (shown,) = summary.BLOCK.findall((ROOT / page).read_text("utf-8"))
    assert shown == summary.PAGES[page](summary.results())
    assert (ROOT / summary.FIGURE).exists()


def test_folders_are_those_there_are() -> None:
    listed = first_cells(section("Where things live", CONTRIBUTING).split("\n\n")[0])
    assert all((ROOT / folder).is_dir() for folder in listed), listed
    packages = {path.parent for path in (ROOT / "python" / "rattention").glob("*/*.py")}
    assert packages <= {ROOT / folder for folder in listed}


def test_files_are_where_they_are_said_to_be() -> None:
    table = CONTRIBUTING.split("\n### Where is ...?\n")[1].split("\n\n")[0]
    named = re.findall(r"`((?:cpp|python|tests)/[^`]+)`", table)
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_extras_have_the_names_of_pyproject() -> None:
    """Wherever they are written; the page on installing has all of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {*project["optional-dependencies"]}
    pages = (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md")
    named = [re.findall(r"'\.\[([a-z,]+)\]'", page.read_text("utf-8")) for page in pages]
    assert {name for groups in named for group in groups for name in group.split(",")} <= extras
    assert extras == {*EXTRAS}
    install = (ROOT / "docs" / "start" / "install.md").read_text("utf-8")
    assert {*first_cells(section("The package and its extras", install))} == extras
    assert {*first_cells(section("Install", TEXT))} <= extras


def test_constraints_exist() -> None:
    assert set(re.findall(r"-c (\S+)", TEXT)) == {"constraints.txt"}


def test_ci_runs_the_test_commands_of_this_file() -> None:
    """.ci/run takes the lines from here: it must find exactly these, the lean one first."""
    (pattern,) = re.findall(r"grep -xE '([^']+)' README\.md", (ROOT / ".ci" / "run").read_text("utf-8"))
    lines = [line for line in TEXT.splitlines() if re.fullmatch(pattern, line)]
    commands = [f"pip install -c constraints.txt '.[{extras}]' && pytest" for extras in ("test", "test,all")]
    assert lines == commands
