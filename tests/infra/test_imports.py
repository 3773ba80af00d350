"""What `onstream` imports before it does anything. A short command's time is mostly that, and it grows unseen."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import sys
from infra.cli import main
try:
    status = main()
except SystemExit as exc:  # --help
    status = exc.code
print("imported", *sys.modules)
sys.exit(status)
"""


def imported(*argv: str) -> set[str]:
    """The modules that `onstream` has imported by its end."""
    command = [sys.executable, "-c", _PROGRAM, *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_takes_no_libraries() -> None:
    assert imported("--help") & {"pydantic", "yaml", "polars", "rich", "fsspec", "opentelemetry"} == set()


def test_a_check_takes_no_clients_and_no_engines(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = tmp_path / "onstream.yaml"
    config.write_text(f"run_dir: {tmp_path}\nmodel: {{path: {tmp_path}}}\n")
    needless = {"aiohttp", "httpx", "kafka", "polars", "ray", "rich", "torch", "transformers", "vllm"}
    assert imported("check", "--config", str(config)) & needless == set()
