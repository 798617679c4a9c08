"""What the visualization guide says holds: its example runs, its options, numbers and names exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from rattention.inspect import Rules
from rattention.inspect.insights import RULES
from rattention.inspect.statistics import MOST_MASS, SINKS, TOP_SHARE, MapOptions

from tests.extras import needs
from tests.processes import run_python

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "visualization_guide.md").read_text("utf-8")


def test_example_runs():
    needs("torch")
    (code,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    shapes = run_python(code, OMP_WAIT_POLICY="passive").splitlines()
    assert [shapes[0], *shapes[2:]] == ["(1, 3, 2)", "(1, 2, 1, 60)", "(1, 2, 16, 16)"]


def test_options_exist():
    from rattention.cli.visualize import Visualize

    known = {f"--{field.name}" for field in fields(Visualize)}
    known |= {f"--rules.{field.name}".replace("_", "-") for field in fields(Rules)}
    known = {name.replace("_", "-") for name in known} | {"--no-report", "--validate"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*", GUIDE))
    assert named <= known, named - known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rules_are_in_the_table(rule):
    section = GUIDE.split("## From pattern to strategy")[1].split("\n## ")[0]
    assert rule.name in section.lower()
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert f"`{rule.strategy}`" in table


def test_numbers():
    rules = Rules()
    for text in (
        f"ratio above {rules.recency_ratio:g}",
        f"entropy above {rules.entropy:g} nats or {rules.relative_entropy:g} ln n",
        f"top 10 % above {rules.top_mass:g}",
        f"clustering above {rules.clustering:g}",
        f"more than {MapOptions().shape[0]} positions are mean-pooled",
    ):
        assert text in GUIDE
    assert (TOP_SHARE, MOST_MASS, SINKS) == (0.1, 0.9, 4)


def test_figures_have_the_names_of_the_files():
    for name in ("sampleN_layerM_maps", "sampleN_layerM_lines", "distributions", "layers", "heads"):
        assert f"**`{name}`**" in GUIDE
