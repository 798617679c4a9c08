"""The sweeps over all maps of a reading, layer by layer in a thread of their own, and how far they are."""

from __future__ import annotations

from threading import Condition, Event, Thread

from rattention._arguments import first_line
from rattention.explorer.reading import Reading
from rattention.explorer.received import Received, measure_received
from rattention.explorer.wire import Answer


class _Cancelled(Exception):
    """The work was cancelled."""


class Background:
    """Fills with what the tokens of one layer after the other receive."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._done: dict[int, Received] = {}
        self._changed = Condition()
        self._cancelled = Event()
        self._thread: Thread | None = None
        self._progress: Answer = {"stage": "", "done": 0, "total": 0, "error": ""}
        self.state = "working"
        """``"working"``, ``"ready"`` or ``"failed"``."""

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="rattention explorer", daemon=True)
            self._thread.start()

    def cancel(self) -> None:
        """End after the head at work; what is done stays, and nobody waits for the rest."""
        with self._changed:
            self._cancelled.set()
            self._changed.notify_all()

    def progress(self) -> Answer:
        """Stage, done, total, state, error."""
        return self._progress | {"state": self.state}

    def received(self, layer: int | None) -> list[Received]:
        """That of a layer, waiting for it; for None those of all layers that are done, at least one."""
        self.start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._found(layer) or self._cancelled.is_set() or self.state != "working"
            )
            if not self._found(layer):
                raise ValueError(
                    self._progress["error"] or "this layer was not measured: the work was cancelled"
                )
            return [*self._done.values()] if layer is None else [self._done[layer]]

    def all_received(self) -> list[Received]:
        """Those of all layers, waiting for them."""
        return [self.received(layer)[0] for layer in range(len(self._reading.layers))]

    def _found(self, layer: int | None) -> bool:
        return bool(self._done) if layer is None else layer in self._done

    def _run(self) -> None:
        try:
            measure_received(self._reading, self._take, progress=self._show)
            self._end("ready")
        except _Cancelled:
            self._end("ready")
        except Exception as error:
            self._end("failed", first_line(error))

    def _take(self, layer: int, received: Received) -> None:
        with self._changed:
            self._done[layer] = received
            self._changed.notify_all()

    def _show(self, stage: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise _Cancelled
        self._progress = {"stage": stage, "done": done, "total": total, "error": ""}

    def _end(self, state: str, error: str = "") -> None:
        with self._changed:
            self._progress |= {"error": error}
            self.state = state
            self._changed.notify_all()
