"""Serves the page's files and the answers of a test."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.explorer.page.answers import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.page.answers import Answers

PAGE = Path(__file__).resolve().parents[3] / "python" / "rattention" / "explorer" / "page"
READING = "of the test"
FREE = ("document", "progress", "turns")
"""Questions that do not name the reading they are about."""
KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html; charset=utf-8"}
POLICY = "default-src 'self'; script-src 'self' 'unsafe-eval'; img-src 'self' blob: data:"
"""No inline script or style: text that became markup would be refused and reported. Tests evaluate code."""


class Handler(BaseHTTPRequestHandler):
    """Files of the page, `extra` files of a test, and answers."""

    answers: Answers
    extra: dict[str, str]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path.startswith("/api/"):
            self.answer(address.path.removeprefix("/api/"), dict(parse_qsl(address.query)))
            return
        name = address.path.removeprefix("/") or "index.html"
        body = self.extra.get(name) or (PAGE / name).read_text("utf-8")
        self.give(200, KINDS[Path(name).suffix], body.encode())

    def answer(self, question: str, params: dict[str, str]) -> None:
        try:
            assert self.headers["X-Explorer"] == "1"
            if question not in FREE:
                assert self.headers["X-Reading"] == READING
            body = pack(*getattr(self.answers, question)(**params))
        except Exception as error:
            self.give(400, "application/json", json.dumps({"error": f"refused: {error}"}).encode())
            return
        self.give(200, "application/octet-stream", body)

    def give(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if "inline" not in self.path:
            self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(answers: Answers, **extra: str) -> Iterator[str]:
    """The address of a server; `extra` files by name, underscores for dots."""
    files = {name.replace("_", "."): text for name, text in extra.items()}
    handler = type("Given", (Handler,), {"answers": answers, "extra": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
