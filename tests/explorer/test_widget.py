"""The widget answers the page's messages."""

from __future__ import annotations

import queue

import numpy as np
import pytest

from tests.extras import needs

needs("explore")

from rattention.explorer.exploration import Exploration
from rattention.explorer.explorer import Explorer
from rattention.explorer.session import Session
from rattention.explorer.widget import widget

from tests.explorer import readings
from tests.explorer.test_answers import named
from tests.explorer.test_server import Letters


@pytest.fixture
def ask(monkeypatch):
    """Send a message as the page does; what came back, and the buffers."""
    made = widget(readings.explorer())
    sent = queue.Queue()
    monkeypatch.setattr(made, "send", lambda message, buffers=(): sent.put((message, buffers)))

    def call(message):
        made._heard(made, message, [])
        return sent.get(timeout=30)

    return call


def test_answers(ask):
    message, buffers = ask({"id": 7, "question": "reads", "params": {**named(0, 1), "start": 3, "stop": 5}})
    assert message["id"] == 7
    about = message["arrays"]["reads"]
    got = np.frombuffer(buffers[0], np.float32, about["length"], about["offset"])
    np.testing.assert_allclose(got, readings.chosen(0, 1)[3:5].mean(axis=0), atol=2e-6)
    given = {"layer": "mean", "head": "mean", "rows": [0, 9], "keys": [0, 9], "shape": [3, 3]}
    message, _ = ask({"id": 8, "question": "map", "params": given})
    assert message["values"]["rows"] == (0, 9)


@pytest.mark.parametrize("message", [{"id": 1, "question": "none"}, {"id": 1}, {"id": 1, "question": "map"}])
def test_faults(ask, message):
    answer, _ = ask(message)
    assert answer["id"] == 1
    assert answer["error"]


def test_in_a_notebook():
    session = Session(Letters(None, "letters"))
    session.read("Some text.")
    seen = Exploration(session)
    assert isinstance(seen.explorer, Explorer)
    assert "application/vnd.jupyter.widget-view+json" in seen._repr_mimebundle_()[0]
    assert seen.widget.sheet.strip()
    assert not seen.widget.has_trait("style")  # front ends take it for a model of its own
