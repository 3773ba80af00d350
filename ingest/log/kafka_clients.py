"""Connections to the brokers, as all parts of `KafkaLog` open them, and Kafka's errors and records as ours."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from infra.config import LogConfig, Protocol
from infra.errors import ConfigError, LogError
from ingest.log.protocol import Message
from ingest.log.security import client_settings

MAX_RECORD_BYTES = 16 << 20  # a session of the longest context with its request, several times over
CLOSE_S = 5.0
POLL_S = 0.5
_RECONNECT_MS = 1000  # a broker that is back is found within this
_METADATA_MS = 10_000  # a topic made after its consumer is seen within this
_SESSION_S = 15.0  # a crashed consumer's partitions are handed on after this: five heartbeats of 3 s
_HANDLING_S = 900.0  # between two polls at most: the trainer's update is the longest


class KafkaClients:
    """Opens clients of the brokers of `config`, named `<client_id>.<host>.<process id>` in the broker's logs."""

    def __init__(self, config: LogConfig, client_id: str) -> None:
        self.config, self._client_id = config, f"{client_id}.{socket.gethostname()}.{os.getpid()}"
        _quieten()

    @property
    def timeout_ms(self) -> int:
        return int(self.config.timeout_s * 1000)

    @property
    def request_ms(self) -> int:
        """Half the timeout, so that one lost answer leaves time to ask again."""
        return max(1000, min(30_000, self.timeout_ms // 2))

    @property
    def waited(self) -> str:
        return f"{self.config.timeout_s:g} s"

    def open(self, kind: Any, **settings: Any) -> Any:
        """A connected client, or `LogError`; a client that could not connect leaves no thread or socket behind.

        A password or certificate that cannot be used is a `LogError` too: whoever outlasts an outage lives until it is
        mended, and reads it again with the next client.
        """
        made: list[Any] = []

        def network(**options: Any) -> Any:
            made.append(KafkaNetClient(**options))
            return made[-1]

        reached = self._reached()
        self._require_admission(reached)
        try:
            return kind(
                **reached,
                bootstrap_timeout_ms=self.timeout_ms,
                reconnect_backoff_max_ms=_RECONNECT_MS,
                kafka_client=network,
                **settings,
            )
        except KafkaError as exc:
            for client in made:
                client.close()
            if isinstance(exc, KafkaTimeoutError):
                raise LogError(f"event log: no broker answers at {self.config.brokers} (waited {self.waited})") from exc
            raise LogError(f"event log: broker at {self.config.brokers}: {exc}") from exc

    def _reached(self) -> dict[str, Any]:
        """How brokers are reached, with the password as it is now. Raises `LogError`."""
        try:
            security = client_settings(self.config.security)
        except ConfigError as exc:
            raise LogError(f"event log: {exc}") from exc
        return {
            "bootstrap_servers": self.config.brokers.split(","),
            "client_id": self._client_id,
            "request_timeout_ms": self.request_ms,
            **security,
        }

    def _require_admission(self, reached: dict[str, Any]) -> None:
        """Raise `LogError` where a broker refuses our TLS or our password; one that is not there is not asked.

        Kafka's client takes a refusal for an outage: it would ask again many times, and say that nobody answers.
        """
        if self.config.security.protocol is Protocol.PLAINTEXT:
            return
        client = KafkaNetClient(**reached)
        manager = client._manager
        try:
            for broker in manager.cluster.bootstrap_brokers():
                try:
                    client._net.run(lambda name: manager.get_connection(name, self.request_ms), broker.node_id)
                    return
                except KafkaError as exc:
                    if isinstance(exc, KafkaConnectionError) and "Handshake" not in str(exc):
                        continue
                    raise LogError(f"event log: broker at {broker.host}:{broker.port}: {exc}") from exc
        finally:
            client.close()

    @contextmanager
    def opened(self, kind: Any, **settings: Any) -> Iterator[Any]:
        """A client for a while."""
        client = self.open(kind, **settings)
        try:
            yield client
        finally:
            client.close()

    def consumer(self, group: str | None, **more: Any) -> Any:
        """A consumer without topics; `more` are settings of it alone."""
        return self.open(KafkaConsumer, **self._consuming(group) | more)

    @contextmanager
    def consuming(self, group: str | None = None) -> Iterator[Any]:
        """A consumer for a while."""
        with self.opened(KafkaConsumer, **self._consuming(group)) as consumer:
            yield consumer

    def _consuming(self, group: str | None) -> dict[str, Any]:
        """Settings of consumers. Range gives one consumer the same partition numbers of all topics, so a session's
        records of several topics meet; cooperative moves partitions without stopping all, and does not."""
        assignor = CooperativeStickyAssignor() if self.config.assignor == "cooperative" else RangePartitionAssignor
        return {
            "group_id": group,
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "partition_assignment_strategy": (assignor,),
            "session_timeout_ms": int(_SESSION_S * 1000),
            "max_poll_interval_ms": int(_HANDLING_S * 1000),
            "max_partition_fetch_bytes": MAX_RECORD_BYTES,
            "metadata_max_age_ms": _METADATA_MS,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }


def message_of(record: Any) -> Message:
    """A consumer's record as a message."""
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    key = (record.key or b"").decode(errors="replace")
    return Message(record.topic, record.partition, record.offset, key, record.value or b"", headers)


def partitions_of(consumer: Any, topic: str) -> list[Any]:
    """All partitions of a topic; none where it does not exist."""
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]


@contextmanager
def border(what: str) -> Iterator[None]:
    """Kafka's errors leave as ours."""
    try:
        yield
    except KafkaError as exc:
        raise LogError(f"event log: {what}: {exc}") from exc


def _quieten() -> None:
    """Kafka's client logs every retry, with stack traces; what matters reaches callers as `LogError`."""
    kafka = logging.getLogger("kafka")
    if kafka.level == logging.NOTSET:
        kafka.setLevel(logging.CRITICAL)
