"""A browser for the tests of the page; skipped with a reason where there is none."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.explorer.page.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.explorer.page.answers import Answers

Open = "Callable[..., Any]"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("needs chromium on the PATH, or its path in CHROMIUM")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open tabs: `tab()`. What a page complains of or asks fails the test; `refused=True` expects answers
    that the server refuses."""
    faults: list[str] = []
    with ExitStack() as stack:

        def opened(*, refused: bool = False) -> Any:
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            stack.callback(page.close)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("dialog", lambda dialog: faults.append(f"a dialog: {dialog.message}"))
            page.on("console", lambda line: faults.extend(_complaint(line, refused)))
            return page

        yield opened
    assert faults == []


def _complaint(line: Any, refused: bool) -> list[str]:
    known = refused and "status of 400" in line.text
    return [line.text] if line.type in ("error", "warning") and not known else []


@pytest.fixture
def page(tab: Callable[..., Any]) -> Any:
    """One tab."""
    return tab()


@pytest.fixture
def visit(tab: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Open a page for answers: `visit(answers, "#hash")`."""
    with ExitStack() as stack:

        def opened(
            answers: Answers, path: str = "", ready: str = ".token", *, refused: bool = False, **extra: str
        ) -> Any:
            address = stack.enter_context(serving(answers, **extra))
            page = tab(refused=refused)
            stack.callback(page.close)  # before its server
            page.goto(address + path)
            page.wait_for_selector(ready, state="attached", timeout=20000)
            return page

        yield opened
