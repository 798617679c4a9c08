"""What screen readers get: a name for every control, and a sentence for every change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.explorer.page.answers import stored
from tests.explorer.page.test_text import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    Visit = Callable[..., Any]

NAMELESS = {"RootWebArea", "generic", "none", "listitem", "MenuListPopup"}
"""Roles that need no name even where they can be focused."""
GROUPS = {"application", "group", "image", "region", "slider", "status", "tablist", "tabpanel", "table"}


def nameless(page: Any) -> list[str]:
    """Roles of what can be focused, or holds something together, and has no name."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = []
    for node in tree:
        role = node["role"]["value"]
        focusable = any(one["name"] == "focusable" for one in node.get("properties", []))
        named = node.get("name", {}).get("value", "").strip()
        if not node["ignored"] and not named and role not in NAMELESS and (focusable or role in GROUPS):
            found.append(role)
    return found


@pytest.mark.parametrize("panel", ["top", "curves", "help"])
def test_every_control_has_a_name(visit: Visit, panel: str) -> None:
    answers = stored(PLAIN)
    answers.generated = 20
    page = visit(answers, f"#t={panel}&c=0.1&o=answer&f=lamp&s=22-23")
    page.locator(".tab-body *").first.wait_for(state="attached")
    page.locator(".menu summary").click()
    assert nameless(page) == []
    for name in ("aria-label", "placeholder"):
        page.locator(".find").evaluate("(node, name) => node.removeAttribute(name)", name)
    assert nameless(page) == ["searchbox"]


CHANGES = [
    ("]", "layer 0, all heads"),
    (".", "all layers, head 0"),
    ("u", "unit sentence"),
    ("r", "shaded: what reads the selection"),
    ("s", "attention sinks included"),
    ("t", "theme light"),
    ("?", "panel help"),
]


@pytest.mark.parametrize(("key", "said"), CHANGES)
def test_every_change_is_announced(visit: Visit, key: str, said: str) -> None:
    page = visit(stored(PLAIN))
    page.locator(".top li").first.wait_for()
    page.keyboard.press(key)
    page.wait_for_function(
        "(said) => document.querySelector('[aria-live]').textContent.includes(said)", arg=said
    )


def test_news_do_not_hide_one_another(visit: Visit) -> None:
    """A selection tells what it reads and stays heard while the unit changes; hints are heard, too."""
    page = visit(stored(PLAIN), "#s=9-12&u=token")
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes(' reads: ')")
    page.keyboard.press("u")
    live = "document.querySelector('[aria-live]').textContent"
    page.wait_for_function(f"{live}.includes('unit word') && {live}.includes(' reads: ')")
    page.get_by_role("button", name="compare").click()
    page.wait_for_function(f"{live} === 'Now click the head to compare with'")
