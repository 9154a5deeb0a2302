"""The service manager's side: readiness, and a watchdog that the event loop feeds."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

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


def watchdog_period_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often the watchdog wants to hear of us: a third of its patience; None where there is none."""
    patience_us = environ.get("WATCHDOG_USEC", "")
    return int(patience_us) / 3e6 if patience_us.isdigit() else None
