"""A thread that fetches what will soon be old, so that no request has to wait for it."""

import threading
import time
import weakref
from typing import Protocol

import structlog

log = structlog.get_logger()


class Refreshed(Protocol):
    """Whoever has something that grows old."""

    def refresh(self) -> bool:
        """Fetch what is due. False where nothing was needed for a while: then nobody asks until `keep` is called."""


class Refresher:
    """Refreshes one object every few moments, for as long as it is needed and there is.

    Nothing is started before `keep` is called, and after a fork it starts anew in the child.
    """

    def __init__(self, refreshed: Refreshed, every_seconds: float) -> None:
        self._refreshed, self._every = weakref.ref(refreshed), every_seconds
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def keep(self) -> None:
        """Have it refreshed from now on. Costs nothing where it is already."""
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    arguments = (self._refreshed, self._every)
                    self._thread = threading.Thread(
                        target=_run, args=arguments, name="refresher", daemon=True
                    )
                    self._thread.start()


def _run(reference: "weakref.ref[Refreshed]", every: float) -> None:
    while True:
        time.sleep(every)
        refreshed = reference()
        if refreshed is None or not _refresh(refreshed):
            return
        del refreshed  # or it could never end


def _refresh(refreshed: Refreshed) -> bool:
    try:
        return refreshed.refresh()
    except Exception as error:  # whatever it is, it must not be the last time  # noqa: BLE001
        log.error("refresher.failed", error=type(error).__name__)  # noqa: TRY400
        return True
