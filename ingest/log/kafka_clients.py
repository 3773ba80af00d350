"""Connections to the brokers, as all parts of `KafkaLog` open them, and Kafka's errors and records as ours."""

import logging
import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient

from infra.config import LogConfig
from infra.errors import ConfigError, LogError
from infra.lifecycle import Deadline
from ingest.log import small_broker
from ingest.log.protocol import Message
from ingest.log.security import client_settings, handshake_trouble

MAX_RECORD_BYTES = 16 << 20  # a session of the longest context with its request, several times over
POLL_S = 0.5
_FIRST_WAIT_S = 0.05  # for an answer, doubled each time: between two waits it is looked whether we were refused
_RECONNECT_MS = 1000  # a broker that is back is found within this
_METADATA_MS = 10_000  # a topic made after its consumer is seen within this
_SESSION_S = 15.0  # a crashed consumer's partitions are handed on after this: five heartbeats of 3 s
_HANDLING_S = 900.0  # between two polls at most: the trainer's update is the longest
_READ_AHEAD_KB = 64 << 10  # of a consumer, over all its partitions
_CRITICAL = 2  # librdkafka writes its log to stderr, retries and all; what matters reaches callers as `LogError`

_NO_GROUP = "none"  # librdkafka wants a name; nobody joins it, and nothing is committed for it
_REFUSED = (KafkaError._AUTHENTICATION, KafkaError._SSL)
AWAY = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError.REQUEST_TIMED_OUT,
)
"""What librdkafka says when no broker answers: in the background it goes on trying."""

PASSING = (*AWAY, KafkaError.GROUP_AUTHORIZATION_FAILED)
"""What is no error of a consumer without a group, whose coordinator librdkafka asks for all the same."""

_REFUSAL = re.compile(r"^(?:\w+://)?([^/]+)/\w+: (.*?)(?: \(after \d+ms in state.*)?$", re.DOTALL)

logger = logging.getLogger(__name__)


class _Client(Protocol):
    """What admin clients, producers and consumers have in common."""

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any: ...
    def poll(self, timeout: float = -1) -> Any: ...


AnyClient = TypeVar("AnyClient", bound=_Client)


class _Told:
    """What a client says of its connections in the background: the refusal, if there was one."""

    def __init__(self) -> None:
        self.refusal = ""

    def __call__(self, error: KafkaError) -> None:
        logger.debug("event log: %s", error.str())
        if error.code() in _REFUSED:
            self.refusal = error.str()


class KafkaClients:
    """Opens clients of the brokers of `config`, named `<client_id>.<host>.<process id>` in the broker's logs."""

    def __init__(self, config: LogConfig, client_id: str) -> None:
        self.config, self._client_id = config, f"{client_id}.{socket.gethostname()}.{os.getpid()}"

    @property
    def request_s(self) -> float:
        """Half the timeout, so that one lost answer leaves time to ask again."""
        return max(1.0, min(30.0, self.config.timeout_s / 2))

    @property
    def silence(self) -> str:
        """What is said when nobody answered for `log.timeout_s`."""
        return f"no broker answers at {self.config.brokers} (waited {self.config.timeout_s:g} s)"

    def admin(self) -> AdminClient:
        """Raises `LogError`, as the other two do, when no broker answers or one refuses us."""
        return self._opened(AdminClient, {})

    def producer(self, settings: Mapping[str, Any]) -> Producer:
        return self._opened(Producer, settings)

    def consumer(self, group: str | None, settings: Mapping[str, Any] | None = None) -> Consumer:
        """A consumer without topics; `settings` are of it alone. `None` is no group: such a one only assigns."""
        return self._opened(Consumer, self._consuming(group) | dict(settings or {}))

    def _consuming(self, group: str | None) -> dict[str, Any]:
        """Settings of consumers. Range gives one consumer the same partition numbers of all topics, so a session's
        records of several topics meet; cooperative moves partitions without stopping all, and does not."""
        return {
            "group.id": group or _NO_GROUP,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky" if self.config.assignor == "cooperative" else "range",
            "session.timeout.ms": int(_SESSION_S * 1000),
            "max.poll.interval.ms": int(_HANDLING_S * 1000),
            "max.partition.fetch.bytes": MAX_RECORD_BYTES,
            "queued.max.messages.kbytes": _READ_AHEAD_KB,
            "allow.auto.create.topics": False,
            **(small_broker.CONSUMING if self.config.local else {}),
        }

    def _opened(self, kind: type[AnyClient], settings: Mapping[str, Any]) -> AnyClient:
        told = _Told()
        client = kind({**self._reached(), **settings, "error_cb": told})  # type: ignore[call-arg]
        try:
            self._reach(client, told, PASSING if settings.get("group.id") == _NO_GROUP else AWAY)
        except LogError:
            if isinstance(client, Consumer):
                client.close()
            raise
        return client

    def _reached(self) -> dict[str, Any]:
        """How brokers are reached, with the password as it is now. Raises `LogError`.

        A password or certificate that cannot be used is one too: whoever outlasts an outage lives until it is mended,
        and reads it again with the next client.
        """
        try:
            security = client_settings(self.config.security)
        except ConfigError as exc:
            raise LogError(f"event log: {exc}") from exc
        return {
            "bootstrap.servers": self.config.brokers,
            "client.id": self._client_id,
            "socket.timeout.ms": int(self.request_s * 1000),
            "reconnect.backoff.max.ms": _RECONNECT_MS,
            "topic.metadata.refresh.interval.ms": _METADATA_MS,
            "log_level": _CRITICAL,
            **security,
        }

    def _reach(self, client: _Client, told: _Told, passing: Collection[int]) -> None:
        """Return once a broker has answered. Raises `LogError`: at once where one refuses our TLS or our password."""
        until, wait_s = Deadline.after(self.config.timeout_s), _FIRST_WAIT_S
        while True:
            try:
                client.list_topics(timeout=min(wait_s, until.left_s()))
                return
            except KafkaException as exc:
                self._hear(client.poll(0), passing)
                if told.refusal or until.passed():
                    raise LogError(f"event log: {self._trouble(told.refusal) or self.silence}") from exc
                wait_s *= 2

    def _hear(self, event: object, passing: Collection[int]) -> None:
        """A consumer is told only once that its group is not for us: here, if its broker was slow to answer."""
        error = event.error() if isinstance(event, KafkaMessage) else None
        if error is not None and error.code() not in passing:
            raise self.failed("a new consumer", error)

    def _trouble(self, refusal: str) -> str:
        """What is wrong between a broker and us, by a client's refusal or an own handshake; empty where none is."""
        security = self.config.security
        for address in self.config.brokers.split(",") if security.protocol.is_tls else ():
            host, _, port = address.strip().rpartition(":")
            if found := handshake_trouble(security, host.strip("[]"), int(port), min(1.0, self.config.timeout_s)):
                return f"broker at {address}: {found}"
        return _REFUSAL.sub(r"broker at \1: \2", refusal)

    @contextmanager
    def border(self, what: str) -> Iterator[None]:
        """Kafka's errors leave as ours."""
        try:
            yield
        except KafkaException as exc:
            raise self.failed(what, exc.args[0]) from exc

    def failed(self, what: str, error: KafkaError) -> LogError:
        """The error of what was not done."""
        told = self.silence if error.code() in AWAY else f"{error.str()} ({error.name()})"
        return LogError(f"event log: {what}: {told}")


def message_of(record: KafkaMessage) -> Message:
    """A consumer's record as a message."""
    headers = {name: str(value or b"", "utf-8", "replace") for name, value in record.headers() or ()}
    key = str(record.key() or b"", "utf-8", "replace")
    return Message(record.topic(), record.partition(), record.offset(), key, record.value() or b"", headers)
