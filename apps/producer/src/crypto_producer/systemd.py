"""The service manager's side: readiness, status, and a watchdog fed by the progress of the loops."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)


def notify(message: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send `message` to the service manager (sd_notify(3)): False when there is none."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.sendto(message.encode(), address)
    except OSError as error:
        log.warning("the service manager could not be told %r: %s", message, error)
        return False
    return True


class Progress:
    """Which loops run, and when each last went round. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._loops: dict[str, tuple[float, float]] = {}

    def touch(self, loop: str, max_silence_s: float = 60.0) -> None:
        """The loop went round, and will do so again within `max_silence_s`."""
        with self._lock:
            self._loops[loop] = (self._clock() + max_silence_s, max_silence_s)

    def done(self, loop: str) -> None:
        """The loop has ended as it should."""
        with self._lock:
            self._loops.pop(loop, None)

    def stuck(self) -> list[str]:
        """The loops that have been silent for too long."""
        with self._lock:
            now_s = self._clock()
            return [
                f"{loop} (silent for more than {limit:g} s)"
                for loop, (due, limit) in self._loops.items()
                if now_s > due
            ]


class Notifier(threading.Thread):
    """Tells the service manager the status, and that all loops make progress (WATCHDOG=1 only then)."""

    def __init__(self, progress: Progress, status: Callable[[], str], environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(name="notifier", daemon=True)
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        self._period_s = min(5.0, int(watchdog_us) / 3e6) if watchdog_us.isdigit() else 5.0
        self._progress = progress
        self._status = status
        self._environ = environ
        self._ended = threading.Event()

    def run(self) -> None:
        """Until `close`."""
        while not self._ended.is_set():
            self.beat()
            self._ended.wait(self._period_s)

    def beat(self) -> None:
        """One message."""
        stuck = self._progress.stuck()
        if stuck:
            log.error("no progress in: %s", ", ".join(stuck))
            notify(f"STATUS=stuck: {', '.join(stuck)}", self._environ)
        else:
            notify(f"STATUS={self._status()}\nWATCHDOG=1", self._environ)

    def close(self) -> None:
        """Stop telling."""
        self._ended.set()
