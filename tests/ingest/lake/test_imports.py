"""What `onstream traces` imports. A short command's time is mostly that, and it grows unseen."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lake_traffic import Traffic

ROOT = Path(__file__).parents[3]
_PROGRAM = """
import sys
from ingest.lake.command import main
try:
    status = main(sys.argv[1:])
except SystemExit as exc:  # --help
    status = exc.code
print("imported", *sys.modules)
sys.exit(status)
"""


def imported(*argv: str) -> set[str]:
    """The modules that `onstream traces` has imported by its end."""
    command = [sys.executable, "-c", _PROGRAM, *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture
def config(world: Any, tmp_path: Path) -> str:
    for session in Traffic(seed=2).sessions(4):
        world.put(session.trajectory, session.reward, *session.fates)
    file = tmp_path / "onstream.yaml"
    file.write_text(f"run_dir: {tmp_path}\nmodel: {{path: /none}}\n")
    return str(file)


def test_a_page_of_turns_takes_no_keys_no_file_systems_elsewhere_no_models_of_records(config: str) -> None:
    found = imported("list", "--config", config)
    assert {"polars", "rich.table", "ingest.lake.listing"} <= found  # they were really asked for
    needless = {
        "aiohttp", "asyncio", "cachetools", "cryptography", "fsspec", "httpx", "kafka", "numpy", "opentelemetry", "ssl",
        "ingest.privacy.keys", "ingest.records.codec", "ingest.records.events",
    }  # fmt: skip
    assert found & needless == set()


def test_a_list_of_turns_makes_no_secret(config: str, tmp_path: Path) -> None:
    imported("list", "--config", config)
    assert not (tmp_path / "secret").exists()


def test_help_takes_no_libraries(config: str) -> None:
    found = imported("list", "--help")
    assert "ingest.lake.filters" in found
    assert found & {"polars", "pydantic", "rich", "yaml"} == set()
