"""Models of every kind, read and written into one file."""

from __future__ import annotations

import base64
import re
import zlib

import numpy as np
import pytest

from tests.extras import needs

needs("inspect")

import rattention as ra
import torch
from rattention.explorer import Document, explore, read
from rattention.explorer.bundle import module, page_files
from rattention.explorer.explorer import Explorer
from rattention.explorer.offline import offline_page
from rattention.inspect import Sample
from rattention.nn import LanguageModel
from rattention.studies.degradation import default_text

from tests.explorer import readings
from tests.explorer.test_answers import named
from tests.explorer.test_wire import decode
from tests.hf_models import DECODERS, build, tokens

LENGTH = tokens().shape[1]
DOCUMENT = Document("a" * LENGTH, np.arange(LENGTH)[:, None] + [0, 1])


@pytest.mark.parametrize("name", [*DECODERS])
def test_maps_of_transformers(name):
    """Those that eager stores, and the model is left as it was."""
    inputs = {"input_ids": tokens()[:1], "use_cache": False}
    with torch.no_grad():
        stored = build(name, "eager")(**inputs, output_attentions=True).attentions
    model = build(name)
    before = model.config._attn_implementation
    explorer = Explorer(read(model, Sample("ids", (), inputs), DOCUMENT))
    assert model.config._attn_implementation == before
    whole = {"rows": f"0,{LENGTH}", "keys": f"0,{LENGTH}", "shape": f"{LENGTH},{LENGTH}"}
    for layer, weights in enumerate(stored):
        for head in range(weights.shape[1]):
            got = explorer.ask("map", {**named(layer, head), **whole})["weights"]
            np.testing.assert_allclose(got, weights[0, head].numpy(), atol=2e-5)


def bytes_model(depth=2):
    torch.manual_seed(0)
    return LanguageModel(256, dim=32, heads=2, depth=depth)


def test_bytes_and_their_characters():
    seen = explore(bytes_model(), "e\u0301 😀\n<script>", title="odd")
    document = seen.explorer.ask("document")
    assert document["tokens"] == len("e\u0301 😀\n<script>".encode())
    assert document["starts"][4:8].tolist() == [3] * 4
    assert document["ends"][4:8].tolist() == [5] * 4
    assert repr(seen).startswith("Exploration(Reading(Document('odd', tokens=17)")


def test_progress_and_stop():
    said = []
    explore(bytes_model(), "text", progress=lambda *step: said.append(step))
    assert said == [("reading", 0, 2), ("reading", 1, 2), ("reading", 2, 2)]

    def stop(stage, done, total):
        if done:
            raise KeyboardInterrupt

    model = bytes_model()
    with pytest.raises(KeyboardInterrupt):
        explore(model, "text", progress=stop)
    explore(model, "text")  # it is free again


def test_a_text_longer_than_the_positions():
    bert = ra.models.Bert.from_pretrained()
    seen = explore(bert, default_text())
    (remark,) = seen.reading.document.remarks
    assert len(seen.reading.document) == 512
    assert re.fullmatch(r"the model has 512 positions: \d+ characters are left out", remark)


@pytest.mark.parametrize(
    ("model", "text", "options", "error", "said"),
    [
        (object(), "text", {}, TypeError, "model must be a transformers.PreTrainedModel, .* got object"),
        (torch.nn.Linear(2, 2), "text", {}, ValueError, "Linear has no attention layers"),
        (bytes_model(), " \n", {}, ValueError, "the text is empty"),
        (bytes_model(), "a\ud800", {}, ValueError, "character 1 is half of a surrogate pair, U\\+D800"),
        (bytes_model(), b"text", {}, TypeError, "text must be a string, got bytes"),
        (bytes_model(), "text", {"tokenizer": 3}, ValueError, "tokenizer is for models of Transformers"),
        (build("llama"), "text", {}, ValueError, "tokenizer must be a fast one .* got NoneType"),
    ],
)
def test_bad_input(model, text, options, error, said):
    with pytest.raises(error, match=said):
        explore(model, text, **options)


def test_where_no_page_can_be_written(tmp_path):
    seen = explore(bytes_model(), "text")
    with pytest.raises(OSError, match=r"cannot be written: No such file or directory: '.*/none/page.html'"):
        seen.save(tmp_path / "none" / "page.html")
    with pytest.raises(OSError, match="cannot be written: Is a directory"):
        seen.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_token():
    seen = explore(bytes_model(), "a")
    assert seen.explorer.ask("reads", {**named(None, None), "start": "0", "stop": "1"})["reads"] == [1]
    assert seen.explorer.ask("overview", named(0, 1))["received"] == [1]
    assert "data-ask" in offline_page(seen.explorer)


def answers_of(page):
    """What is embedded, by question and parameters."""
    found = re.findall(r'data-ask="(\w+)" data-params="([^"]*)">([^<]*)</script>', page)
    return {
        (question, params.replace("&amp;", "&")): decode(zlib.decompress(base64.b64decode(data), wbits=-15))
        for question, params, data in found
    }


def test_offline_page(tmp_path):
    """It holds the numbers of the answers, and nothing that a text could break out with."""
    page = offline_page(readings.explorer())
    found = answers_of(page)
    document = found["document", ""]
    assert document["text"] == readings.document().text
    assert document["live"] is False
    assert [1, 2] in document["choices"]
    grid = readings.explorer().ask("grid")["values"]
    np.testing.assert_array_equal(found["grid", ""]["values"], grid)
    overview = readings.explorer().ask("overview", named(1, 2))
    np.testing.assert_allclose(
        found["overview", "head=2&layer=1"]["received"], overview["received"], rtol=2**-8
    )
    small = found["map", "head=mean&layer=0"]
    weights = small["scale"] * (2 ** (8 * (small["weights"] / 255)) - 1) / 255
    np.testing.assert_allclose(weights, readings.chosen(0, None), rtol=0.02, atol=small["scale"] * 1e-3)
    told = found["passages", "head=mean&layer=mean"]
    assert told["starts"].tolist() == list(range(readings.LENGTH + 1))
    dense = readings.chosen(None, None)
    np.testing.assert_allclose(
        told["share"], np.take_along_axis(dense, told["to"], axis=1), rtol=2**-7, atol=1e-6
    )
    assert "<b>not</b>" not in page
    assert page.count("</script>") == len(found) + 1


def test_every_module_is_reached():
    """From the page's entry or the widget's: nothing lies about."""
    bundled = module("main.js") + module("widget.js")
    for name in page_files():
        assert not name.endswith(".js") or f'["{name}", ' in bundled, name
