"""A local page: Starlette's application around a `Session`, and uvicorn that serves it."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from rattention._extras import require
from rattention.explorer.bundle import KINDS, page_files
from rattention.explorer.wire import encode

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from rattention.explorer.session import Session

HOST = "127.0.0.1"
MOST_BODY = 2**24
"""Bytes of a request."""
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every response."""


def application(session: Session, port: int) -> Starlette:
    """The application that answers at ``http://127.0.0.1:port`` alone.

    Requests for another host, from another origin, or for answers without the page's own header are refused:
    a page elsewhere can neither read nor change anything.
    """
    applications = require("starlette.applications")
    routing = require("starlette.routing")
    routes = [
        routing.Route("/api/{question}", _answer(session), methods=["GET"]),
        routing.Route("/api/{action}", _action(session), methods=["POST"]),
        routing.Route("/{name:path}", _file(page_files()), methods=["GET"]),
    ]
    app: Starlette = applications.Starlette(routes=routes)
    app.add_middleware(_Guard, port=port)
    return app


class _Guard:
    """Refuses what does not come from the page itself, and adds headers to what goes out."""

    def __init__(self, app: Callable[..., Awaitable[None]], port: int) -> None:
        self._app = app
        self._hosts = {f"{host}:{port}".encode() for host in (HOST, "localhost")}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope["path"], dict(scope["headers"]))
            if refusal:
                await _fault(refusal, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> str:
        if headers.get(b"host", b"") not in self._hosts:
            return "this host is not served"
        if headers.get(b"origin", b"") not in {b"", *self._origins}:
            return "requests from other origins are refused"
        if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            return "requests from other sites are refused"
        if path.startswith("/api/") and headers.get(b"x-explorer") != b"1":
            return "only the page itself may ask"
        return ""


def _answer(session: Session) -> Callable[[Request], Awaitable[Any]]:
    concurrency, responses = _starlette()

    async def answer(request: Request) -> Any:
        question, params = request.path_params["question"], dict(request.query_params)
        shown = request.headers.get("x-reading", "")
        try:
            found = await concurrency.run_in_threadpool(lambda: encode(session.ask(question, params, shown)))
        except ValueError as error:
            return _fault(str(error), 400)
        return responses.Response(found, media_type="application/octet-stream", headers=SAFE)

    return answer


def _action(session: Session) -> Callable[[Request], Awaitable[Any]]:
    concurrency, responses = _starlette()
    gone = require("starlette.requests").ClientDisconnect

    async def act(request: Request) -> Any:
        name = request.path_params["action"]
        try:
            body = await _body(request)
            await concurrency.run_in_threadpool(lambda: perform(session, name, body))
        except (ValueError, TypeError) as error:
            return _fault(str(error), 400)
        except gone:
            return responses.Response(status_code=400)  # nobody reads it
        return responses.JSONResponse({}, headers=SAFE)

    return act


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that a request holds, read no further than `MOST_BODY`."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BODY:
            raise ValueError(f"the request is too long: at most {MOST_BODY} bytes are read")
    try:
        body = json.loads(content or b"{}")
    except RecursionError:
        raise ValueError("the request must hold a JSON object: this one is nested too deep") from None
    if not isinstance(body, dict):
        raise ValueError("the request must hold a JSON object")
    return body


def perform(session: Session, name: str, body: Mapping[str, Any]) -> None:
    """Do what a page asks for and wait until it is done: ``open`` a text or an example, say a ``turn``,
    ``cancel``."""
    if name == "cancel":
        session.cancel()
        return
    text: Any = body.get("text")
    if name == "open" and "example" in body:
        session.open_example(body["example"])
    elif name == "open":
        session.open(text, "your text")
    elif name == "turn":
        session.say(text)
    else:
        raise ValueError(f"action must be open, turn or cancel, got {name!r:.60}")
    session.wait()


def _file(found: dict[str, bytes]) -> Callable[[Request], Awaitable[Any]]:
    _, responses = _starlette()

    async def file(request: Request) -> Any:
        name = request.path_params["name"] or "index.html"
        if name not in found:
            return _fault("there is no such file", 404)
        kind = KINDS[name[name.rindex(".") :]]
        return responses.Response(found[name], media_type=kind, headers=SAFE)

    return file


def _starlette() -> tuple[Any, Any]:
    return require("starlette.concurrency"), require("starlette.responses")


def _fault(message: str, status: int) -> Any:
    return require("starlette.responses").JSONResponse({"error": message}, status, headers=SAFE)


def listening(port: int) -> socket.socket:
    """A socket that listens at a port of this machine alone; 0 is any that is free.

    OSError, which names the port, where it is in use.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise OSError(f"port {port} cannot be used: {error.strerror}") from error
    listener.listen()
    return listener


def serve(session: Session, listener: socket.socket) -> None:
    """Serve until interrupted."""
    uvicorn = require("uvicorn")
    port = listener.getsockname()[1]
    config = uvicorn.Config(application(session, port), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    ends = server.handle_exit

    def close(*signal: Any) -> None:
        session.close()  # requests that wait for a reading would keep the server
        ends(*signal)

    server.handle_exit = close
    server.run(sockets=[listener])


def address(listener: socket.socket) -> str:
    """Where a browser finds the page."""
    return f"http://{HOST}:{listener.getsockname()[1]}/"
