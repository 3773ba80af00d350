"""What `onstream traces` imports. A short command's time is mostly that, and it grows unseen."""

from pathlib import Path
from typing import Any

import pytest
from imports import imported
from lake_traffic import Traffic


@pytest.fixture
def config(world: Any, tmp_path: Path) -> str:
    for session in Traffic(seed=2).sessions(4):
        world.put(session.trajectory, session.reward, *session.fates)
    file = tmp_path / "onstream.yaml"
    file.write_text(f"run_dir: {tmp_path}\nmodel: {{path: /none}}\n")
    return str(file)


def test_a_page_of_turns_takes_no_keys_no_file_systems_elsewhere_no_models_of_records(config: str) -> None:
    found = imported("ingest.lake.command", "list", "--config", config)
    assert {"polars", "rich.table", "ingest.lake.listing"} <= found  # they were really asked for
    needless = {
        "aiohttp", "asyncio", "cachetools", "confluent_kafka", "cryptography", "fsspec", "httpx", "numpy",
        "opentelemetry", "ssl", "ingest.privacy.keys", "ingest.records.codec", "ingest.records.events",
    }  # fmt: skip
    assert found & needless == set()


def test_a_list_of_turns_makes_no_secret(config: str, tmp_path: Path) -> None:
    imported("ingest.lake.command", "list", "--config", config)
    assert not (tmp_path / "secret").exists()


def test_help_takes_no_libraries(config: str) -> None:
    found = imported("ingest.lake.command", "list", "--help")
    assert "ingest.lake.filters" in found
    assert found & {"polars", "pydantic", "rich", "yaml"} == set()
