"""Only requests that read leave the process."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import resources
from types import SimpleNamespace

import pytest
from crypto_kafka_ui import guard
from kafka.future import Future
from kafka.net import connection, manager
from kafka.protocol.api_key import ApiKey


class PassedError(Exception):
    """The request came to kafka-python's own connection."""


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> guard.ReadOnlyConnection:
    def send(_self: object, request: object, future: object = None, timeout_at: object = None) -> None:
        raise PassedError(request, future, timeout_at)

    monkeypatch.setattr(connection.KafkaConnection, "_send_request", send)
    return guard.ReadOnlyConnection(net=None, node_id=1)


def test_every_client_of_this_process_has_such_connections() -> None:
    assert manager.KafkaConnection is guard.ReadOnlyConnection
    made = ast.parse(inspect.getsource(manager))
    calls = [node for node in ast.walk(made) if isinstance(node, ast.Call) and "Connection" in ast.unparse(node.func)]
    assert "KafkaConnection" in {ast.unparse(node.func) for node in calls}


@pytest.mark.parametrize("key", ApiKey, ids=lambda key: key.name)
def test_what_passes_and_what_does_not(guarded: guard.ReadOnlyConnection, key: ApiKey) -> None:
    request = SimpleNamespace(API_KEY=int(key))
    if key in guard.READS:
        with pytest.raises(PassedError):
            guarded._send_request(request)
        return
    future = Future()
    assert guarded._send_request(request, future=future) is future
    assert future.failed()
    assert isinstance(future.exception, guard.ReadOnlyError)
    assert "was not sent" in str(future.exception)
    assert guarded._send_request(request).failed()


def test_requests_that_pass_are_named_as_reads() -> None:
    reads = re.compile(r"(Describe|List)\w+|(Offset)?Fetch|Metadata|ApiVersions|FindCoordinator|OffsetForLeaderEpoch")
    assert [key.name for key in guard.READS if not reads.fullmatch(key.name)] == []
    # Numbers that no release has named yet.
    assert not any(number in guard.READS for number in range(max(ApiKey) + 1, 200))


def test_asking_for_a_topic_does_not_create_it(guarded: guard.ReadOnlyConnection) -> None:
    request = SimpleNamespace(API_KEY=int(ApiKey.Metadata), allow_auto_topic_creation=True)
    with pytest.raises(PassedError):
        guarded._send_request(request)
    assert request.allow_auto_topic_creation is False


def test_only_the_reader_uses_kafka_and_by_the_guard() -> None:
    """A module that made a client without the guard would not be held by it."""
    for file in resources.files("crypto_kafka_ui").iterdir():
        if not file.name.endswith(".py"):
            continue
        text = file.read_text()
        uses = re.findall(r"^\s*(?:from|import) kafka\b", text, re.MULTILINE)
        assert bool(uses) == (file.name in {"guard.py", "reader.py"}), file.name
        if file.name == "reader.py":
            assert "from crypto_kafka_ui import guard" in text
            # The names of what would be refused are not even there.
            changes = r"KafkaProducer|\.(?:alter|commit|create|delete|elect|remove|reset|send|subscribe)\w*\("
            assert re.findall(changes, text) == []
