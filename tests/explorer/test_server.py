"""The local server answers its own page and nobody else."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.extras import needs

needs("explore")

from rattention.explorer.bundle import page_files
from rattention.explorer.examples import SampleReader
from rattention.explorer.reader_kinds import Reader
from rattention.explorer.server import application, listening, serve
from rattention.explorer.session import Session
from rattention.inspect import Sample

from tests.explorer.readings import Model
from tests.explorer.test_wire import decode

PAGE = {"X-Explorer": "1"}


class Letters(Reader):
    """A model that reads letters."""

    def tokens(self, text):
        spans = np.arange(len(text))[:, None] + [0, 1]
        self.model = Model([{"causal": True}], (2,), len(text), len(text))
        return Sample("letters", (None,)), spans


@pytest.fixture(scope="module")
def port():
    session = Session(Letters(None, "letters"))
    session.read("What was <i>read</i>? \u202e", "first")
    listener = listening(0)
    threading.Thread(target=serve, args=(session, listener), daemon=True).start()
    return listener.getsockname()[1]


def request(port, path, method="GET", headers=PAGE, body=None, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def test_page_and_answers(port):
    status, headers, content = request(port, "/", headers={})
    assert (status, content) == (200, page_files()["index.html"])
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    status, _, content = request(port, "/api/document")
    assert status == 200
    assert decode(content)["text"].startswith("What was <i>")
    status, _, content = request(port, "/api/reads?layer=0&head=1&start=3&stop=5")
    assert decode(content)["reads"].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1:1"}, 403),
        ({"headers": {**PAGE, "Origin": "http://evil.example"}}, 403),
        ({"headers": {**PAGE, "Origin": "null"}}, 403),
        ({"headers": {**PAGE, "Sec-Fetch-Site": "cross-site"}}, 403),
        ({"headers": {}}, 403),
        ({"headers": {**PAGE, "Sec-Fetch-Site": "same-origin"}}, 200),
    ],
)
def test_who_may_ask(port, change, status):
    assert request(port, "/api/grid", **change)[0] == status


@pytest.mark.parametrize(
    "path", ["/../server.py", "/%2e%2e/server.py", "/server.py", "/page/index.html", "//etc/passwd", "/api"]
)
def test_no_other_files(port, path):
    assert request(port, path)[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/open", b"{}", "text must be a string, got NoneType"),
        ("/api/open", b'{"text": " "}', "the text is empty"),
        ("/api/open", b"[]", "must hold a JSON object"),
        ("/api/open", b"{", "Expecting"),
        (
            "/api/open",
            b'{"example": "none"}',
            "example must be one of text, growing, recall, dark room; got 'none'",
        ),
        (
            "/api/open",
            b'{"example": ["text"]}',
            "example must be one of text, growing, recall, dark room; got ['text']",
        ),
        ("/api/open", b'{"text":' * 100_000, "nested too deep"),
        ("/api/open", b'{"text": "a \\ud800"}', "character 2 is half of a surrogate pair, U+D800"),
        ("/api/turn", b'{"text": "\\udfff"}', "character 0 is half of a surrogate pair, U+DFFF"),
        ("/api/delete", b"{}", "action must be open, turn or cancel"),
    ],
)
def test_bad_requests(port, path, body, said):
    status, _, content = request(port, path, "POST", body=body)
    assert status == 400
    assert said in json.loads(content)["error"]


def test_upload_limit(port):
    body = json.dumps({"text": "a" * (2**22 + 1)}).encode()
    status, _, content = request(port, "/api/open", "POST", body=body)
    assert status == 400
    assert "at most 4194304" in json.loads(content)["error"]


def test_a_request_that_breaks_off_raises_nothing():
    """A browser that is closed while it sends a text."""
    session = Session(Letters(None, "letters"))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/open",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:1"), (b"x-explorer", b"1")],
    }

    async def receive():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    with ThreadPoolExecutor() as thread:  # playwright's loop may run in this one
        thread.submit(asyncio.run, application(session, 1)(scope, receive, send)).result()
    assert sent[0]["status"] == 400


def test_conversation(port):
    for text in ("The key is under the stone.", "Where is the key?"):
        assert request(port, "/api/turn", "POST", body=json.dumps({"text": text}).encode())[0] == 200
    turns = decode(request(port, "/api/turns")[2])["turns"]
    assert [turn["text"] for turn in turns][-2:] == ["The key is under the stone.", "Where is the key?"]
    assert turns[-1]["change"] == pytest.approx(
        turns[-1]["metrics"]["retention"] - turns[-2]["metrics"]["retention"]
    )
    document = decode(request(port, "/api/document")[2])
    assert document["tokens"] == turns[-1]["tokens"]
    assert request(port, "/api/open", "POST", body=b'{"text": "New."}')[0] == 200
    assert len(decode(request(port, "/api/turns")[2])["turns"]) == 1


def test_a_tab_whose_text_was_replaced_gets_no_numbers_of_another(port):
    assert request(port, "/api/open", "POST", body=b'{"text": "The first."}')[0] == 200
    first = {**PAGE, "X-Reading": decode(request(port, "/api/document")[2])["reading"]}
    assert request(port, "/api/grid", headers=first)[0] == 200
    assert request(port, "/api/open", "POST", body=b'{"text": "Another one."}')[0] == 200
    status, _, content = request(port, "/api/grid", headers=first)
    assert status == 400
    assert "another text was opened" in json.loads(content)["error"]
    for question in ("document", "progress", "turns"):
        assert request(port, f"/api/{question}", headers=first)[0] == 200


def test_port_in_use(port):
    with pytest.raises(OSError, match=f"port {port} cannot be used"):
        listening(port)


def test_nobody_waits_for_a_closed_session():
    """A reading that takes for ever keeps neither requests nor the server."""
    going_on = threading.Event()

    class Slow(Reader):
        def read(self, *text):
            going_on.wait(60)
            raise ValueError("stopped")

    session = Session(Slow(None, "slow"))
    session.open("text")
    said = []

    def ask():
        try:
            session.ask("document")
        except ValueError as error:
            said.append(str(error))

    waiting = threading.Thread(target=ask, daemon=True)
    waiting.start()
    assert session.ask("progress")["state"] == "working"
    session.close()
    waiting.join(10)
    going_on.set()
    assert said == ["the explorer was closed"]


def test_samples_tell_how_far_they_are():
    """As texts do; what progress raises ends the reading."""
    made = Letters(None, "letters")
    sample, _ = made.tokens("abcdef")
    reader = SampleReader(made.model, "letters", replace(sample, labels=tuple("abcdef")))
    said = []
    reading = reader.read("", progress=lambda *step: said.append(step))
    assert said == [("reading", 0, 1), ("reading", 1, 1)]
    assert len(reading.document) == 6

    def stop(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reader.read("", progress=stop)
