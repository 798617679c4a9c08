"""What the README says holds: its examples print what it shows, its table was measured, names exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import rattention as ra

from benchmarks import summary
from tests.extras import needs

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def section(title: str, text: str = README) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Names in the first column of a table."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


FIRST, *OTHERS = blocks("python")
EXAMPLES = list(zip(OTHERS, blocks("text"), strict=True))


@pytest.mark.parametrize(("code", "shown"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_prints_what_is_shown(code: str, shown: str) -> None:
    for package in ("torch", "transformers"):
        if f"import {package}" in code or f"from {package}" in code:
            needs(package)
    # Threads that spin while they wait would take a busy machine's cores from those that work.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown


def test_first_example_computes_attention_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small model in the place of the one that it names, which would be downloaded."""
    needs("hf")
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    (name,) = re.findall(r'from_pretrained\("([^"]+)"', FIRST)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    saved = Qwen3ForCausalLM(Qwen3Config(vocab_size=99, num_key_value_heads=2, head_dim=8, **sizes)).eval()
    saved.save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    done: dict[str, Any] = {}
    exec(FIRST, done)
    model, tokens = done["model"], torch.arange(50)[None]
    with torch.no_grad(), ra.observe(model) as seen:
        logits = model(tokens).logits
    assert model.config._attn_implementation == "rattention"
    assert seen.entropy.shape == (2, 1, 4, 50)
    torch.testing.assert_close(logits, saved(tokens).logits.detach(), rtol=0, atol=1e-5)


def test_table_of_models_is_that_of_the_run() -> None:
    """`python -m benchmarks.summary` writes both; without a run there is neither."""
    (shown,) = summary.BLOCK.findall(README)
    run = summary.results() if (ROOT / summary.RESULTS).exists() else None
    assert shown == ("" if run is None else summary.block(run))
    assert (ROOT / summary.FIGURE).exists() == (run is not None)


def test_metrics_are_those_measured() -> None:
    assert first_cells(section("Metrics")) == [field.name for field in fields(ra.AttentionMetrics)]
    assert f"`local_radius` ({ra.MetricOptions().local_radius})" in README
    assert f"`long_range_distance` ({ra.MetricOptions().long_range_distance})" in README


def test_commands_are_those_there_are() -> None:
    from rattention.cli.parser import COMMANDS

    assert first_cells(section("The command line")) == [f"rattention {name}" for name in COMMANDS]


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


@pytest.mark.parametrize("page", ["README.md", "docs/transformers.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_extras_and_constraints_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"'\.\[([a-z]+)\]'", README)) <= set(extras)
    assert set(re.findall(r"-c (\S+)", README)) == {"constraints.txt"}


def test_ci_runs_the_test_commands_of_this_file() -> None:
    """.ci/run takes the lines from here: it must find exactly these, the lean one first."""
    (pattern,) = re.findall(r"grep -xE '([^']+)' README\.md", (ROOT / ".ci" / "run").read_text("utf-8"))
    lines = [line for line in README.splitlines() if re.fullmatch(pattern, line)]
    commands = [f"pip install -c constraints.txt '.[{extras}]' && pytest" for extras in ("test", "test,all")]
    assert lines == commands
