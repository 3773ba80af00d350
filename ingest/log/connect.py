"""The log of a process, as its configuration says: the one place that puts the layers together.

SealedLog    values about people are ciphertext from here on
ClaimLog     values too large for a record lie in a store
KafkaLog     the brokers
"""

from infra.config import Config
from ingest.log.claims import ClaimLog, Claims
from ingest.log.kafka_log import KafkaLog
from ingest.log.protocol import EventLog
from ingest.privacy.keys import KeyStore
from ingest.privacy.sealed_log import SealedLog


def connect(config: Config, client_id: str, member: str | None = None, is_eager: bool = False) -> EventLog:
    """A log that connects on first use. `client_id` and `member` are `KafkaLog`'s.

    `is_eager`: whatever the configuration says, one process has the same partition numbers of all topics. A stage
    that joins topics needs it: with another assignor a session's traces may go to one process and its feedback to
    another, and they would never meet.
    """
    return SealedLog(as_it_lies(config, client_id, member, is_eager), KeyStore.of(config))


def as_it_lies(config: Config, client_id: str, member: str | None = None, is_eager: bool = False) -> EventLog:
    """The same log, whose sealed values stay sealed."""
    settings = config.log.model_copy(update={"assignor": "eager"}) if is_eager else config.log
    return ClaimLog(KafkaLog(settings, client_id, member), claims(config), settings.max_record_bytes)


def claims(config: Config) -> Claims:
    """Where the log's large values lie."""
    return Claims(config.claims_url, config.log.retention_s)
