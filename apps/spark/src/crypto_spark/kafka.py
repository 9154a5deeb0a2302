"""What the driver asks Kafka itself, through the Java client that Spark's connector brings along."""

from __future__ import annotations

from typing import Any

from py4j.protocol import Py4JJavaError

from crypto_spark.topic import Topic

_TIMEOUT_MS = 60_000


class KafkaError(Exception):
    """Kafka did not answer, or has no such topic; the text says which."""


class TopicMissingError(KafkaError):
    """There is no such topic."""


class TopicReader:
    """Asks for one topic's identity and offsets.

    Args:
        jvm: the driver's JVM, with kafka-clients on its class path.
        bootstrap_servers: host:port, comma separated.
        topic: name.
    """

    def __init__(self, jvm: Any, bootstrap_servers: str, topic: str) -> None:  # noqa: ANN401 - py4j has no types
        self._jvm = jvm
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._admin = None

    def describe(self) -> Topic:
        """Return the topic.

        Raises:
            KafkaError: the topic is not there, or no broker answers.
        """
        try:
            names = self._jvm.java.util.Collections.singletonList(self._topic)
            description = self._client().describeTopics(names).allTopicNames().get().get(self._topic)
            return Topic(self._topic, description.topicId().toString(), description.partitions().size())
        except Py4JJavaError as error:
            raise self._explained(error) from error

    def end_offsets(self, partitions: int) -> dict[int, int]:
        """Return the offset that the next record of each partition will get.

        Raises:
            KafkaError: the topic is not there, or no broker answers.
        """
        try:
            package = self._jvm.org.apache.kafka
            keys = [package.common.TopicPartition(self._topic, number) for number in range(partitions)]
            wanted = self._jvm.java.util.HashMap()
            for key in keys:
                wanted.put(key, package.clients.admin.OffsetSpec.latest())
            offsets = self._client().listOffsets(wanted).all().get()
            return {number: offsets.get(key).offset() for number, key in enumerate(keys)}
        except Py4JJavaError as error:
            raise self._explained(error) from error

    def _client(self) -> Any:  # noqa: ANN401
        if self._admin is None:
            properties = self._jvm.java.util.Properties()
            properties.put("bootstrap.servers", self._bootstrap_servers)
            properties.put("default.api.timeout.ms", str(_TIMEOUT_MS))
            properties.put("request.timeout.ms", str(_TIMEOUT_MS // 2))
            self._admin = self._jvm.org.apache.kafka.clients.admin.AdminClient.create(properties)
        return self._admin

    def _explained(self, error: Py4JJavaError) -> KafkaError:
        text = str(error.java_exception.toString())
        if "UnknownTopicOrPartition" in text:
            return TopicMissingError(
                f"topic {self._topic!r} does not exist on {self._bootstrap_servers}: create it first"
            )
        return KafkaError(f"Kafka at {self._bootstrap_servers} does not answer: {text}")
