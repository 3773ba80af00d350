"""What the brokers know of topics and groups: the questions of `KafkaLog` that read no record."""

import socket
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

import psutil
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from infra.errors import LogError
from ingest.log.kafka_clients import MAX_RECORD_BYTES, KafkaClients
from ingest.log.protocol import TopicSpec
from ingest.log.topics import SEGMENTS

Answer = TypeVar("Answer")

_ENDLESS_S = 3600.0  # the longest wait that librdkafka takes


class KafkaPlaces:
    """Asks the brokers. Safe for use from several threads; one connection, opened on first use, and anew after an
    error."""

    def __init__(self, clients: KafkaClients) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None

    def create(self, specs: Collection[TopicSpec]) -> None:
        """Create what does not exist. Raises `LogError`."""
        self._asked("create topics", self._create, specs)

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; none where it does not exist. Raises `LogError`."""
        return self._asked(f"partitions of {topic}", self._partitions, topic)

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> offset of the next message to be written. Raises `LogError`."""
        return self._asked(f"ends of {topic}", lambda admin: self._offsets(admin, topic, OffsetSpec.latest()))

    def bounds(self, topic: str) -> tuple[dict[int, int], dict[int, int]]:
        """Partition -> offset of the oldest message, and of the next one to be written. Raises `LogError`."""
        return self._asked(f"bounds of {topic}", self._bounds, topic)

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int]:
        """Messages that `group` has not committed, per topic. Raises `LogError`."""
        return self._asked(f"lag of {group}", self._lag, group, tuple(topics))

    def dead_members(self, group: str) -> list[tuple[str, str | None]]:
        """(member id, lasting name) of what were processes of this machine in a group and have ended. Raises
        `LogError`."""
        return self._asked(f"members of {group}", self._dead_members, group)

    def _asked(self, what: str, ask: Callable[..., Answer], *about: Any) -> Answer:
        """What `ask` returns of a connection and `about`. One that fails is not used again; a kept one may have been
        lost meanwhile, so then it is asked once more of a new one, made with the password as it is now."""
        admin = self._admin
        if admin is not None:
            try:
                return ask(admin, *about)
            except (KafkaException, LogError):
                self._forget(admin)
        with self._lock:
            if self._admin is None:
                self._admin = self._clients.admin()
            admin = self._admin
        try:
            with self._clients.border(what):
                return ask(admin, *about)
        except LogError:
            self._forget(admin)
            raise

    def _forget(self, admin: AdminClient) -> None:
        with self._lock:
            if self._admin is admin:
                self._admin = None

    def _create(self, admin: AdminClient, specs: Collection[TopicSpec]) -> None:
        held = admin.list_topics(timeout=self._clients.request_s).topics
        missing = [self._new(spec) for spec in specs if spec.name not in held]
        if not missing:
            return
        timeout_s = self._clients.config.timeout_s
        asked = admin.create_topics(missing, operation_timeout=timeout_s, request_timeout=timeout_s)
        for name, created in asked.items():
            try:
                created.result()
            except KafkaException as exc:
                error: KafkaError = exc.args[0]
                if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # others may create too
                    raise self._clients.failed(f"topic {name} not created", error) from exc

    def _new(self, spec: TopicSpec) -> NewTopic:
        configs = {"retention.ms": "-1", "max.message.bytes": str(MAX_RECORD_BYTES)}
        if spec.retention_s is not None:
            retention_ms = int(spec.retention_s * 1000)
            configs |= {"retention.ms": str(retention_ms), "segment.ms": str(max(1, retention_ms // SEGMENTS))}
        return NewTopic(spec.name, spec.partitions, self._clients.config.replication, config=configs)

    def _partitions(self, admin: AdminClient, topic: str) -> list[int]:
        """All topics are listed: asked for one, a broker may create it."""
        found = admin.list_topics(timeout=self._clients.request_s).topics.get(topic)
        return sorted(found.partitions) if found else []

    def _offsets(self, admin: AdminClient, topic: str, spec: OffsetSpec) -> dict[int, int]:
        asked = {TopicPartition(topic, number): spec for number in self._partitions(admin, topic)}
        if not asked:
            return {}
        wait_s = self._clients.request_s
        told = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=wait_s)
        return {part.partition: found.result().offset for part, found in told.items()}

    def _bounds(self, admin: AdminClient, topic: str) -> tuple[dict[int, int], dict[int, int]]:
        first = self._offsets(admin, topic, OffsetSpec.earliest())
        return first, self._offsets(admin, topic, OffsetSpec.latest())

    def _lag(self, admin: AdminClient, group: str, topics: tuple[str, ...]) -> dict[str, int]:
        bounds = {topic: self._bounds(admin, topic) for topic in topics}
        parts = [TopicPartition(topic, number) for topic, (first, _) in bounds.items() for number in first]
        done: dict[tuple[str, int], int] = {}
        if parts:
            asked = [ConsumerGroupTopicPartitions(group, parts)]
            told = self._of_group(admin.list_consumer_group_offsets, group, asked)
            done = {(part.topic, part.partition): part.offset for part in told.topic_partitions}
        return {
            topic: sum(max(0, end - max(first.get(n, 0), done.get((topic, n), 0))) for n, end in ends.items())
            for topic, (first, ends) in bounds.items()
        }

    def _dead_members(self, admin: AdminClient, group: str) -> list[tuple[str, str | None]]:
        members = self._of_group(admin.describe_consumer_groups, group, [group]).members
        return [(one.member_id, one.group_instance_id) for one in members if _is_gone(one.client_id)]

    def _of_group(self, ask: Callable[..., dict[str, Future[Any]]], group: str, asked: list[Any]) -> Any:
        """What a group's coordinator answers. The wait ends here, not in librdkafka (2.16): there, a coordinator that
        comes back after its wait ended the process with an assertion."""
        try:
            return ask(asked, request_timeout=_ENDLESS_S)[group].result(self._clients.request_s)
        except TimeoutError as exc:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from exc

    def close(self) -> None:
        """Let the connection go; another question opens one again."""
        with self._lock:
            self._admin = None


def _is_gone(client_id: str) -> bool:
    """Whether a client, named `<name>.<host>.<process id>`, was a process of this host that has ended."""
    rest, _, number = client_id.rpartition(".")
    if not rest.endswith(f".{socket.gethostname()}") or not number.isdecimal():
        return False
    return not psutil.pid_exists(int(number))
