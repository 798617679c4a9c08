"""What the guides to measuring and to visualizing say holds: metrics, options, numbers and names exist."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import rattention as ra
from rattention.inspect import Rules
from rattention.inspect.insights import RULES
from rattention.inspect.statistics import MOST_MASS, SINKS, TOP_SHARE, MapOptions

from tests.extras import needs
from tests.pages import ROOT, first_cells, section

GUIDE = (ROOT / "docs" / "visualization_guide.md").read_text("utf-8")
MEASURING = (ROOT / "docs" / "guides" / "measuring.md").read_text("utf-8")


def test_options_exist():
    from rattention.cli.visualize import Visualize

    known = {f"--{field.name}" for field in fields(Visualize)}
    known |= {f"--rules.{field.name}".replace("_", "-") for field in fields(Rules)}
    known = {name.replace("_", "-") for name in known} | {"--no-report", "--validate"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*", GUIDE))
    assert named <= known, named - known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rules_are_in_the_table(rule):
    rules = section("From pattern to strategy", GUIDE)
    assert rule.name in rules.lower()
    table = "\n".join(line for line in rules.splitlines() if line.startswith("|"))
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


def test_metrics_are_those_measured():
    assert first_cells(section("Metrics", MEASURING)) == [field.name for field in fields(ra.AttentionMetrics)]
    assert f"`local_radius` ({ra.MetricOptions().local_radius})" in MEASURING
    assert f"`long_range_distance` ({ra.MetricOptions().long_range_distance})" in MEASURING


def test_strategies_are_those_there_are():
    """In the table of the guide to smaller caches."""
    from rattention.compression import STRATEGIES

    table = (ROOT / "docs" / "guides" / "compression.md").read_text("utf-8")
    assert set(first_cells(table)) == set(STRATEGIES)


def test_layers_are_those_there_are():
    """In the guide to models of your own."""
    needs("torch")
    from rattention import nn

    table = section("Layers", (ROOT / "docs" / "guides" / "training.md").read_text("utf-8"))
    assert set(first_cells(table)) == {name for name in nn.__all__ if hasattr(getattr(nn, name), "as_dict")}
