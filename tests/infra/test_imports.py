"""What `onstream` imports before it does anything. A short command's time is mostly that, and it grows unseen."""

from pathlib import Path

from imports import imported


def test_help_takes_no_libraries() -> None:
    assert imported("infra.cli", "--help") & {"pydantic", "yaml", "polars", "rich", "fsspec", "opentelemetry"} == set()


def test_a_check_takes_no_clients_and_no_engines(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = tmp_path / "onstream.yaml"
    config.write_text(f"run_dir: {tmp_path}\nmodel: {{path: {tmp_path}}}\n")
    needless = {"aiohttp", "confluent_kafka", "httpx", "polars", "ray", "rich", "torch", "transformers", "vllm"}
    assert imported("infra.cli", "check", "--config", str(config)) & needless == set()
