"""The import contracts of the house, broken on purpose in a copy: each must be noticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("infra", "ingest", "rewards", "serving", "trainer")


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        (
            "rewards/spec.py",
            "import serving.rollout.evidence",
            "stages meet on the log and in the store, never in an import",
        ),
        (
            "serving/router/routing.py",
            "import serving.rollout.evidence",
            "engine, router and rollout never import each other",
        ),
        (
            "infra/errors.py",
            "import ingest.records.events",
            "stages meet on the log and in the store, never in an import",
        ),
        ("infra/lifecycle.py", "import torch", "infra is light: no torch, vllm, ray, kafka or polars"),
        ("serving/rollout/evidence/judging.py", "import ray", "only the trainer imports ray"),
        ("trainer/learner/losses.py", "import vllm", "only serving imports vllm"),
        ("ingest/sessions/table.py", "import confluent_kafka", "only ingest.log.kafka_* import confluent_kafka"),
        ("ingest/sessions/table.py", "import polars", "only ingest.lake imports polars"),
        ("ingest/records/events.py", "import numpy", "records cost pydantic and nothing else"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tmp_path: Path, file: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    broken = tmp_path / file
    broken.write_text(f"{broken.read_text()}\n{line}\n")
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert f"{contract} BROKEN" in done.stdout
