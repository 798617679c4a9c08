"""The page in a notebook: a widget of anywidget that asks an `Explorer`."""

from __future__ import annotations

from threading import Thread
from typing import Any

from rattention._extras import require
from rattention.explorer.bundle import module, page_files
from rattention.explorer.explorer import Explorer
from rattention.explorer.wire import split


def widget(explorer: Explorer) -> Any:
    """The page in a cell; ImportError without the extra ``explore``."""
    anywidget = require("anywidget")
    import traitlets  # comes with it

    class ExplorerWidget(anywidget.AnyWidget):  # type: ignore[misc, name-defined]
        """Each question is answered by a thread of its own: one that takes long keeps no other waiting.

        The trait is not called ``style``: that is a widget's model of its looks.
        """

        _esm = f"{module('widget.js')}\nexport default entry.default;\n"
        sheet = traitlets.Unicode(page_files()["style.css"].decode("utf-8")).tag(sync=True)

        def __init__(self) -> None:
            super().__init__()
            self.on_msg(self._heard)

        def _heard(self, _: Any, message: dict[str, Any], __: list[bytes]) -> None:
            Thread(target=self._answer, args=(message,), daemon=True).start()

        def _answer(self, message: dict[str, Any]) -> None:
            given = {name: _written(value) for name, value in (message.get("params") or {}).items()}
            try:
                header, arrays = split(explorer.ask(str(message.get("question")), given))
                self.send({"id": message.get("id"), **header}, [arrays])
            except Exception as error:  # whatever it is, the page shows it
                self.send({"id": message.get("id"), "error": str(error) or type(error).__name__})

    return ExplorerWidget()


def _written(value: Any) -> str:
    """As in the address of a server: numbers of a list with commas between them."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
