from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from crypto_flink.notify import notify
from crypto_flink.rest import ClusterRefusedError, ClusterUnavailableError, FlinkRest


class FakeJobManager(ThreadingHTTPServer):
    """Answers each path with what the test put there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, bytes]] = {}

    def answer(self, path: str, document: object, code: int = 200) -> None:
        self.answers[path] = (code, document if isinstance(document, bytes) else json.dumps(document).encode())


class _Handler(BaseHTTPRequestHandler):
    server: FakeJobManager

    def do_GET(self) -> None:
        code, content = self.server.answers[self.path]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def manager() -> Iterator[FakeJobManager]:
    server = FakeJobManager()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def rest(manager: FakeJobManager) -> FlinkRest:
    return FlinkRest(f"http://127.0.0.1:{manager.server_port}")


def entry(job_id: str, name: str, start: int, state: str = "RUNNING", running: int = 2) -> dict[str, object]:
    return {"jid": job_id, "name": name, "state": state, "start-time": start, "tasks": {"total": 2, "running": running}}


def test_jobs_of_the_name_newest_first(manager: FakeJobManager, rest: FlinkRest) -> None:
    jobs = [entry("a", "j", 1), entry("b", "other", 2), entry("c", "j", 3, running=1), entry("d", "j2", 4)]
    manager.answer("/jobs/overview", {"jobs": jobs})
    found = rest.jobs("j")
    assert [job.job_id for job in found] == ["c", "a"]
    assert [job.is_up for job in found] == [False, True]


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_jobmanager_that_is_starting_is_unavailable(manager: FakeJobManager, rest: FlinkRest, code: int) -> None:
    manager.answer("/overview", {"errors": ["leader is being elected"]}, code)
    with pytest.raises(ClusterUnavailableError):
        rest.free_slots()


def test_other_errors_are_refusals(manager: FakeJobManager, rest: FlinkRest) -> None:
    manager.answer("/overview", {"errors": ["no"]}, 500)
    with pytest.raises(ClusterRefusedError, match="no"):
        rest.free_slots()


def test_a_refusal_is_told_without_its_stack_trace(manager: FakeJobManager, rest: FlinkRest) -> None:
    places = "\tat org.A(A.java:1)\n\t... 3 more\n\nEnd of exception on server side>"
    trace = f"<Exception on server side:\norg.apache.X: initializing\n{places}"
    manager.answer("/overview", {"errors": ["Internal server error.", trace]}, 500)
    with pytest.raises(ClusterRefusedError) as refused:
        rest.free_slots()
    reason = "Internal server error.; <Exception on server side:; org.apache.X: initializing"
    assert str(refused.value) == f"/overview: HTTP 500: {reason}"


def test_no_json_and_no_server_are_unavailable(manager: FakeJobManager, rest: FlinkRest) -> None:
    manager.answer("/overview", b"<html>")
    with pytest.raises(ClusterUnavailableError):
        rest.free_slots()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterUnavailableError):
            FlinkRest(f"http://127.0.0.1:{unused.getsockname()[1]}").free_slots()


def test_checkpoints_of_a_job_without_any(manager: FakeJobManager, rest: FlinkRest) -> None:
    manager.answer("/jobs/a/checkpoints", {"counts": {"completed": 0, "failed": 1}, "latest": {"completed": None}})
    found = rest.checkpoints("a")
    assert (found.completed, found.failed, found.latest_path) == (0, 1, None)


def test_a_savepoint_is_awaited_and_its_failure_told(manager: FakeJobManager, rest: FlinkRest) -> None:
    path = "/jobs/a/savepoints/r"
    manager.answer(path, {"status": {"id": "IN_PROGRESS"}})
    assert rest.savepoint_result("a", "r") is None
    manager.answer(path, {"status": {"id": "COMPLETED"}, "operation": {"location": "file:/s"}})
    assert rest.savepoint_result("a", "r") == "file:/s"
    manager.answer(path, {"status": {"id": "COMPLETED"}, "operation": {"failure-cause": {"stack-trace": "why"}}})
    with pytest.raises(ClusterRefusedError, match="why"):
        rest.savepoint_result("a", "r")


def test_notify_reaches_systemd_and_survives_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0test-flink-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@test-flink-notify")
        notify("READY=1", "STATUS=up")
        assert listener.recv(100) == b"READY=1\nSTATUS=up"
    notify("WATCHDOG=1")
