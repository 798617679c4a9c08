"""The documentation as a site: it builds without a warning, names everything public, and needs no network."""

from __future__ import annotations

import html
import importlib
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.extras import needs
from tests.pages import ROOT

BUILDERS = ("sphinx", "furo", "myst_parser", "sphinx_copybutton", "latex2mathml")
COMMAND = "sphinx-build -W --keep-going -b html docs build/site"
TARGET = re.compile(r'\b(?:href|src)="([^"]+)"')
LOADED = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b(?![^>]*rel="canonical")[^>]*"https?://'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_builders()
    needs("all")
    folder = tmp_path_factory.mktemp("site")
    options, places = COMMAND.split()[1:-2], ("docs", folder / "html")
    command = [sys.executable, "-m", "sphinx", *options, "-q", "-d", folder / "trees", *places]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def needs_builders() -> None:
    for name in BUILDERS:
        pytest.importorskip(name, reason="needs what docs/requirements.txt lists")


def modules() -> dict[str, str]:
    needs_builders()
    sys.path.insert(0, str(ROOT / "docs" / "extensions"))
    try:
        return importlib.import_module("modules").MODULES  # type: ignore[no-any-return]
    finally:
        sys.path.pop(0)


@pytest.mark.timeout(1800)
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        known = InventoryFile.load(file, "", lambda _, name: name)
    described = {name for kind, names in known.items() if kind.startswith("py:") for name in names}
    for module in modules():
        public = importlib.import_module(module).__all__
        assert {f"{module}.{name}" for name in public} <= described


def test_every_module_with_public_names_is_in_the_reference() -> None:
    for init in (ROOT / "python" / "rattention").glob("**/__init__.py"):
        if "\n__all__ = " in init.read_text("utf-8"):
            name = ".".join(init.parent.relative_to(ROOT / "python").parts)
            assert name in modules(), name


@pytest.mark.timeout(1800)
def test_every_command_is_in_the_reference(site: Path) -> None:
    from rattention.cli.parser import COMMANDS

    page = (site / "reference" / "commands.html").read_text("utf-8")
    assert all(f"rattention {name}<" in page for name in COMMANDS)


@pytest.mark.timeout(1800)
def test_notebooks_show_what_cells_display(site: Path) -> None:
    for page in (site / "notebooks").glob("*.html"):
        assert "IPython.core.display" not in page.read_text("utf-8"), page


@pytest.mark.timeout(1800)
def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    pages = {page: page.read_text("utf-8") for page in site.rglob("*.html")}
    anchors = {page: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for page, text in pages.items()}
    for page, text in pages.items():
        for target in map(html.unescape, TARGET.findall(text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
            assert file.exists(), (page, target)
            assert not anchor or file not in anchors or unquote(anchor) in anchors[file], (page, target)


@pytest.mark.timeout(1800)
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not LOADED.findall(page.read_text("utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*['\"]?https?:", style.read_text("utf-8")), style


def test_pictures_of_the_mechanisms_are_drawn(tmp_path: Path) -> None:
    needs("plots")
    subprocess.run([sys.executable, ROOT / "docs" / "pictures.py", tmp_path], check=True)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}


def test_the_command_is_the_documented_one() -> None:
    for name in ("CONTRIBUTING.md", "docs/conf.py"):
        assert COMMAND in (ROOT / name).read_text("utf-8"), name
