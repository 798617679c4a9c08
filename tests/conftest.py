"""What all tests share: the options --slow and --grid, counts of the reliability matrix, shared data."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.extras import lacking
from tests.grids import covering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUPS = {
    "N": "numerics",
    "S": "special values",
    "H": "shapes",
    "M": "memory",
    "Z": "sizes",
    "T": "threads, processes",
    "W": "weights",
    "B": "build",
}
"""Groups of the reliability matrix: a row is named by its group's letter and a number."""


NOTEBOOKS = {
    "03_pytorch_and_transformers.ipynb": "inspect",
    "04_microscope_and_compression.ipynb": "studies",
    "05_long_range_arena.ipynb": "studies",
    "06_evidence.ipynb": "studies",
}
"""The extras of notebooks that need more than the README's first test command; skipped without them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests marked slow, and the whole grids")
    parser.addoption(
        "--grid",
        choices=("covering", "whole"),
        help="of tests with many parameters: cases in which all pairs of values meet (the default), or all "
        "(the default with --slow)",
    )
    parser.addoption("--skipped", metavar="FILE", help="write there what was skipped, for pytest @FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(name): the row of the reliability matrix a test fills")
    config.addinivalue_line("markers", "whole_grid: a case that a covering choice of its grid leaves out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (config.getoption("--grid") or ("whole" if config.getoption("--slow") else "covering")) == "covering":
        _thin(config, items)
    skip_slow = pytest.mark.skip(reason="slow: runs with --slow")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(skip_slow)
        extra = NOTEBOOKS.get(item.path.name)
        if extra and (reason := lacking(extra)):
            item.add_marker(pytest.mark.skip(reason=reason))
        item.user_properties.extend(("row", marker.args[0]) for marker in item.iter_markers("row"))


def _thin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what a covering choice of each grid leaves out. A case that was asked for by name stays."""
    asked = set(config.args)
    grids: dict[object, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and item.nodeid not in asked:
            grids[item.nodeid.partition("[")[0]].append(item)
    left_out = set()
    for grid in grids.values():
        kept = covering([item.callspec.params for item in grid])  # type: ignore[attr-defined]
        left_out |= {*grid} - {grid[i] for i in kept}
    left_out |= {item for item in items if "whole_grid" in item.keywords and item.nodeid not in asked}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = _count_rows(terminalreporter.stats)
    if not rows:
        return
    passed = sum(outcomes["passed"] for outcomes in rows.values())
    terminalreporter.section(f"reliability matrix: {passed} cases passed in {len(rows)} rows")
    for letter, title in GROUPS.items():
        names = sorted((name for name in rows if name[0] == letter), key=lambda name: int(name[1:]))
        if names:
            total = sum(rows[name]["passed"] for name in names)
            listing = ", ".join(f"{name} {_outcomes(rows[name])}" for name in names)
            terminalreporter.line(f"{letter} {title}: {total} ({listing})")


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--skipped")
    if path is not None:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        names = dict.fromkeys(
            report.nodeid.removesuffix("::") for report in reporter.stats.get("skipped", [])
        )
        Path(path).write_text("".join(f"{name}\n" for name in names), "utf-8")


def _count_rows(stats: dict[str, list[object]]) -> dict[str, Counter[str]]:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in stats.get(outcome, []):
            for key, value in getattr(report, "user_properties", []):
                if key == "row":
                    rows[str(value)][outcome] += 1
    return rows


def _outcomes(outcomes: Counter[str]) -> str:
    others = " ".join(f"{count} {name}" for name, count in outcomes.items() if name != "passed" and count)
    return f"{outcomes['passed']}" + (f" [{others}]" if others else "")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Texts that may lie beside the checkout; tests that need them are skipped where they do not."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the optional folder ../shared beside the checkout")
    return folder


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    """`set_num_threads`, undone after the test."""
    import rattention as ra

    yield ra.set_num_threads
    ra.set_num_threads(0)


@pytest.fixture
def one_thread(use_threads: Callable[[int], None]) -> Iterator[None]:
    """For tiny models, whose threads would only wait for one another on a busy machine."""
    import torch

    before = torch.get_num_threads()
    use_threads(1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
