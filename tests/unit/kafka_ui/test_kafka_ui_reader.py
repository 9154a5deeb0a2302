"""What the reader does with its clients."""

from __future__ import annotations

import logging

import fake_kafka
import pytest
from crypto_kafka_ui import reader
from crypto_kafka_ui.readings import SourceError
from kafka.errors import KafkaConnectionError


class Client:
    """A client of Kafka that has lost its cluster, and cannot even be closed."""

    def __init__(self, **settings: object) -> None:
        self.settings, self.closed = settings, 0

    def describe_configs(self, _: object) -> None:
        raise KafkaConnectionError("gone")

    def close(self) -> None:
        self.closed += 1
        raise OSError("bad file descriptor")


def test_client_that_cannot_be_closed_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Client] = []

    def admin(**settings: object) -> Client:
        made.append(Client(**settings))
        return made[-1]

    monkeypatch.setattr(reader, "KafkaAdminClient", admin)
    source = reader.Kafka(fake_kafka.config())
    for attempt in (1, 2):
        with caplog.at_level(logging.WARNING), pytest.raises(SourceError, match="gone"):
            source.settings(fake_kafka.TOPIC)
        # Each question has a client of its own.
        assert [client.closed for client in made] == [1] * attempt
    assert "did not close: OSError: bad file descriptor" in caplog.text


def test_clients_are_closed_beside_one_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    source = reader.Kafka(fake_kafka.config())
    clients = [Client(), Client(), Client()]
    monkeypatch.setattr(source, "_admin", clients[0])
    monkeypatch.setattr(source, "_consumer", clients[1])
    monkeypatch.setattr(source, "_clients", [clients[2]])
    source.close()
    source.close()
    assert [client.closed for client in clients] == [1, 1, 1]
