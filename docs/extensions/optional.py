"""The directive ``contents``: a table of contents of which pages that do not exist are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.directives.other import TocTree


class Contents(TocTree):
    """``toctree``, in which a name that ends in ``?`` is a page that may not be there yet."""

    def run(self) -> list[Any]:
        """Called by Sphinx."""
        names = (name for name in self.content if not name.endswith("?") or self._is_there(name))
        self.content = type(self.content)([name.rstrip("?") for name in names], "contents")
        return super().run()

    def _is_there(self, name: str) -> bool:
        return (Path(self.env.srcdir) / f"{name.rstrip('?')}.md").exists()


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("contents", Contents)
    return {"parallel_read_safe": True}
