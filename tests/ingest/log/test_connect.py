"""What a process gets as its log."""

from pathlib import Path
from typing import Any

import pytest

from infra.config import Config, LogConfig, ModelConfig, StoreConfig
from ingest.log import connect as module
from ingest.log.connect import connect
from ingest.log.kafka_log import KafkaLog
from ingest.log.wrapped import WrappedLog


def config(log: LogConfig, store: Path) -> Config:
    return Config(model=ModelConfig(path="unused"), log=log, store=StoreConfig(url=str(store)))


def test_a_value_too_large_for_the_log_lies_below_the_store(kafka_config: LogConfig, tmp_path: Path) -> None:
    settings = kafka_config.model_copy(update={"max_record_bytes": 1024})
    log = connect(config(settings, tmp_path), "test")
    log.append("connected", "key", bytes(2000), {})
    log.append("connected", "key", bytes(1000), {})
    log.flush(10.0)
    assert [len(message.value) for message in log.replay("connected")] == [2000, 1000]
    assert [len(path.read_bytes()) for path in tmp_path.glob("claims/connected/*/*")] == [2000]
    log.close()


def test_claims_lie_where_the_configuration_says(kafka_config: LogConfig, tmp_path: Path) -> None:
    settings = kafka_config.model_copy(update={"max_record_bytes": 1024, "claims_url": str(tmp_path / "own")})
    log = connect(config(settings, tmp_path / "store"), "test")
    log.append("connected", "key", bytes(2001), {})
    assert len(list(tmp_path.glob("own/connected/*/*"))) == 1
    log.close()


@pytest.mark.parametrize(("is_eager", "assignor"), [(True, "eager"), (False, "cooperative")])
def test_a_stage_that_joins_topics_is_eager_whatever_the_configuration_says(
    is_eager: bool, assignor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def make(*arguments: Any) -> KafkaLog:
        given.extend(arguments)
        return KafkaLog(*arguments)

    monkeypatch.setattr(module, "KafkaLog", make)
    log = connect(config(LogConfig(assignor="cooperative"), tmp_path), "test", "host", is_eager)
    assert isinstance(log, WrappedLog)
    assert (given[0].assignor, *given[1:]) == (assignor, "test", "host")
    log.close()
