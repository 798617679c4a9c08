"""The widget in JupyterLab: it is shown, the kernel answers a click, and the console has no errors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.request import urlopen

import nbformat
import pytest

from tests.extras import needs

needs("explore")

CELL = """\
import torch
import rattention as ra
from rattention.nn import LanguageModel

torch.manual_seed(0)
model = LanguageModel(256, dim=32, heads=2, depth=2)
seen = ra.explore(model, "Never odd or even. <b>Madam</b>", title="odd")
seen
"""
TOKEN = "letters"


@contextmanager
def lab(folder):
    """The address of a server that keeps its files in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    options = [f"--port={port}", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    flags = [
        "--no-browser",
        "--allow-root",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *flags, *options],
            env={**os.environ, **kept, "IPYTHONDIR": str(folder / "ipython")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api/status?token={TOKEN}")
        yield address
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address):
    """Until it answers."""
    for _ in range(240):
        try:
            with urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise TimeoutError(address)


@pytest.mark.slow
def test_the_widget_in_jupyterlab(browser, tmp_path):
    pytest.importorskip("jupyterlab", reason="needs jupyterlab (pip install jupyterlab)")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "seen.ipynb")
    with lab(tmp_path) as address:
        page, errors = browser.new_page(viewport={"width": 1280, "height": 900}), []
        page.on("pageerror", lambda error: errors.append(str(error.stack)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(f"{address}/lab/tree/seen.ipynb?token={TOKEN}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60000)
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        shown = page.locator("main.explorer.in-notebook")
        shown.locator('.token[data-t="20"]').click(timeout=60000)
        shown.locator(".summary .quoted").first.wait_for()
        shown.locator(".top li .share").first.wait_for()
        assert shown.locator(".line").first.inner_text().startswith("Never odd or even. <b>Madam</b>")
        assert page.evaluate("location.hash") == ""
        whole, last = (one.bounding_box() for one in (shown, shown.get_by_role("button", name="linear")))
        assert (
            last["x"] + last["width"] < whole["x"] + whole["width"]
        )  # the layout is that of the cell's width
        page.close()
    assert errors == []
