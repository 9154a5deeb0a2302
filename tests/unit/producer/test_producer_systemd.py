"""Readiness and watchdog, against a real datagram socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from crypto_producer.systemd import Notifier, Progress, notify


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.settimeout(5)
    return receiver


def test_messages_arrive(manager: socket.socket) -> None:
    assert notify("READY=1", {"NOTIFY_SOCKET": manager.getsockname()})
    assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens() -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "/nonexistent/socket"})


def test_the_watchdog_is_fed_only_while_all_loops_progress(manager: socket.socket) -> None:
    now_s = 0.0
    progress = Progress(lambda: now_s)
    notifier = Notifier(progress, lambda: "fine", {"NOTIFY_SOCKET": manager.getsockname()})
    progress.touch("delivery", 10)
    progress.touch("source", 60)
    now_s = 9.0
    notifier.beat()
    assert manager.recv(1_000) == b"STATUS=fine\nWATCHDOG=1"
    now_s = 11.0
    notifier.beat()
    message = manager.recv(1_000)
    assert b"WATCHDOG" not in message
    assert b"delivery" in message
    assert b"source" not in message
    progress.done("delivery")
    notifier.beat()
    assert b"WATCHDOG=1" in manager.recv(1_000)
