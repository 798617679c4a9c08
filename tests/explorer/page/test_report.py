"""The report of rattention visualize in a browser: the page within it, and figures that are loaded late."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("demo", "models")

from rattention.cli import main

from tests.bert_folder import write_folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    model, out = str(write_folder(folder / "bert")), folder / "out"
    (folder / "text.txt").write_text("the cat sat on a mat and the dogs sleep. " * 9, "utf-8")
    options = ["--text", str(folder / "text.txt"), "--samples", "1", "--length", "40", "--dpi", "40"]
    assert main(["visualize", "--model", model, *options, "--out", str(out)]) == 0
    return (out / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_walks_through_a_sample_within_the_report(page, report, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(report)
    within = page.frame_locator("iframe")
    within.locator('.token[data-t="5"]').click()
    within.locator(".top li .share").first.wait_for()
    assert within.locator("main").get_attribute("data-theme") == scheme
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == within.locator("main").evaluate("(node) => getComputedStyle(node).backgroundColor")
    assert within.locator("main").evaluate("(node) => node.clientWidth") > 1100
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_figures_are_loaded_when_their_group_is_opened(page, report):
    asked = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.goto(report)
    page.frame_locator("iframe").locator(".token").first.wait_for()
    page.locator("details").last.scroll_into_view_if_needed()
    assert not [name for name in asked if name.endswith(".png")]
    page.locator("summary", has_text="Over all samples").click()
    page.wait_for_function("[...document.images].filter((image) => image.naturalWidth).length === 3")
    assert {name for name in asked if name.endswith(".png")} == {
        "distributions.png",
        "layers.png",
        "heads.png",
    }
