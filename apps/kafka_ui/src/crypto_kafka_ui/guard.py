"""What keeps this program from changing anything: a request that is not known to read never leaves the process.

The lab's brokers know no users and no rights: whoever reaches one may do everything. What can be promised is what
this process sends. Every request of every client of kafka-python goes through `_send_request` of its connection, and
importing this module puts a connection in place that lets the requests of READS pass and no others. It lists what may
pass, so that a request that is new, or was not thought of, is refused. Among those are producing, committing an
offset, joining a group, and everything that creates, alters or deletes.
"""

from __future__ import annotations

from typing import Any

from kafka.errors import KafkaError
from kafka.future import Future
from kafka.net import connection, manager
from kafka.protocol.api_key import ApiKey

READS = frozenset(
    {
        ApiKey.ApiVersions,
        ApiKey.DescribeCluster,
        ApiKey.DescribeConfigs,
        ApiKey.DescribeGroups,
        ApiKey.Fetch,
        ApiKey.FindCoordinator,
        ApiKey.ListGroups,
        ApiKey.ListOffsets,
        ApiKey.Metadata,
        ApiKey.OffsetFetch,
        # A consumer's own check of where it stands, after a change of leaders.
        ApiKey.OffsetForLeaderEpoch,
    }
)


class ReadOnlyError(KafkaError):  # type: ignore[misc]
    """A request that might have changed something was not sent."""

    retriable = False


class ReadOnlyConnection(connection.KafkaConnection):  # type: ignore[misc]
    """A connection to a broker that lets only requests pass that read."""

    # The one place that every request passes before it becomes bytes, with or without a wait for the connection.
    def _send_request(
        self,
        request: Any,  # noqa: ANN401 - any of the protocol's
        future: Future | None = None,
        timeout_at: float | None = None,
    ) -> Future:
        if request.API_KEY not in READS:
            refused = future if future is not None else Future()
            name = type(request).__name__
            return refused.failure(ReadOnlyError(f"{name} was not sent: this program only looks"))
        if ApiKey.Metadata == request.API_KEY:
            # Else asking for a topic creates it, where brokers are set so.
            request.allow_auto_topic_creation = False
        return super()._send_request(request, future=future, timeout_at=timeout_at)


# A release that makes its connections elsewhere must not go unnoticed.
if manager.KafkaConnection is not connection.KafkaConnection:
    raise ImportError("kafka-python no longer makes its connections where this guard stands")
manager.KafkaConnection = ReadOnlyConnection
