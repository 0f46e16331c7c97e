"""Server processes that live and do nothing: each gives a sign of life every second; who falls silent is killed.

Whoever made it makes another in its place (threats F11), and its locks end with it.
"""

import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

log = structlog.get_logger()

_SIGN = struct.Struct("=i")  # the number of the process that lives
_SIGNS_AT_ONCE = 4_096
_EVERY_SECONDS = 1.0
_MOST_MISSED = 10


class Heartbeat:
    """A pipe that all processes of one server share; it is made before they are."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)  # a reader that hangs is not to be waited for

    def beat(self) -> None:
        """In a process that serves: give signs of life, from a thread of their own."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def watch(self, processes: Callable[[], Iterable[int]]) -> None:
        """In the process that made them: kill whichever of `processes` falls silent, from a thread of its own."""
        threading.Thread(target=self._watch, args=(processes,), name="watch", daemon=True).start()

    def _beat(self) -> None:
        sign = _SIGN.pack(os.getpid())
        while True:
            with suppress(BlockingIOError):
                os.write(self._writer, sign)
            time.sleep(_EVERY_SECONDS)

    def _watch(self, processes: Callable[[], Iterable[int]]) -> None:
        missed: dict[int, int] = {}
        while True:
            time.sleep(_EVERY_SECONDS)
            heard = self._heard()
            # Counted, not timed: when the whole machine stood still, that is one sign missed, and nobody's fault.
            missed = {pid: 0 if pid in heard else missed.get(pid, 0) + 1 for pid in processes()}
            for pid in (pid for pid, times in missed.items() if times == _MOST_MISSED):
                log.error("worker.hangs", pid=pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _heard(self) -> set[int]:
        with suppress(BlockingIOError):
            signs = os.read(self._reader, _SIGN.size * _SIGNS_AT_ONCE)
            return {pid for (pid,) in _SIGN.iter_unpack(signs)}
        return set()
