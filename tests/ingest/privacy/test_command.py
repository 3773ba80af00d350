"""`onstream keys rewrap`, as an operator replaces the wrapping line of the master secret."""

from pathlib import Path

import pytest
import yaml

from infra.config import load
from ingest.privacy import command
from ingest.privacy.keys import KeyStore

NAMING, OLD, NEW = "0a" * 32, "1b" * 32, "2c" * 32


def configured(folder: Path, *lines: str) -> str:
    secret, file = folder / "secret", folder / "onstream.yaml"
    secret.write_text("\n".join(lines))
    secret.chmod(0o600)
    given = {"run_dir": str(folder), "model": {"path": "."}, "privacy": {"secret_file": str(secret)}}
    file.write_text(yaml.safe_dump(given))
    return str(file)


def test_the_old_line_can_go_once_keys_were_rewrapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = KeyStore.of(load(configured(tmp_path, NAMING, OLD))).key_for("user-anna")
    assert command.main(["rewrap", "--config", configured(tmp_path, NAMING, NEW, OLD)]) == 0
    assert capsys.readouterr().out.startswith("1 keys were wrapped anew")
    store = KeyStore.of(load(configured(tmp_path, NAMING, NEW)))
    store.verify()
    assert store.find("user-anna", key.generation) == key


def test_another_first_line_is_refused_and_nothing_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = KeyStore.of(load(configured(tmp_path, NAMING, OLD))).key_for("user-anna")
    assert command.main(["rewrap", "--config", configured(tmp_path, NEW, OLD)]) == 1
    assert "onstream: " in capsys.readouterr().err
    store = KeyStore.of(load(configured(tmp_path, NAMING, OLD)))
    assert store.find("user-anna", key.generation) == key
