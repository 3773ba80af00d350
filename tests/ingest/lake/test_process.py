"""`python -m ingest lake` for real, between a broker and a disk."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lake_child
import yaml
from processes import until

from ingest.lake.manifest import Table
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.log.kafka_log import KafkaLog

ROOT = Path(__file__).parents[3]


def test_the_process_fills_its_lake_and_ends_when_it_is_asked_to(tmp_path: Path, own_broker: Any) -> None:
    config = tmp_path / "onstream.yaml"
    given = {
        "run_dir": str(tmp_path),
        "model": {"path": "none"},
        "log": {"brokers": own_broker.config(10.0).brokers, "timeout_s": 10.0},
        "ingest": {"lake": {"flush_s": 0.5}},
    }
    config.write_text(yaml.safe_dump(given))
    log = KafkaLog(own_broker.config(10.0), "filler")
    lake_child.fill(log)
    log.close()
    said = (tmp_path / "said").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest", "lake", "--config", str(config)], cwd=ROOT, stdout=said, stderr=said
    )
    lake = Lake(Storage(str(tmp_path / "lake")))

    def num_sessions() -> int:
        return sum(file.num_rows for file in lake.refresh().of(Table.SESSIONS))

    try:
        until(lambda: num_sessions() == lake_child.SESSIONS + 1, 60.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30.0) == 0, (tmp_path / "said").read_text()
    finally:
        process.kill()
        process.wait()
        said.close()
