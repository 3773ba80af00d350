"""How the local broker is started."""

import importlib.util
import os
from pathlib import Path

import pytest

from infra import broker
from infra.errors import StartError


def test_the_command_names_the_broker_its_folder_and_where_it_listens(tmp_path: Path) -> None:
    program, *arguments = broker.command(tmp_path, "127.0.0.2", 9095)
    assert os.access(program, os.X_OK)
    assert Path(program).read_bytes()[:4] == b"\x7fELF", "a script would not hand its signals on"
    assert arguments[:3] == ["start", "--only", "kafka"]
    options = dict(zip(arguments[3::2], arguments[4::2], strict=True))
    assert options == {"--data-dir": str(tmp_path), "--host": "127.0.0.2", "--kafka-port": "9095"}


def test_without_the_package_a_broker_on_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = _without_package(monkeypatch, tmp_path)
    found.touch(mode=0o755)
    assert broker.command(tmp_path, "127.0.0.1", 9092)[0] == str(found)


def test_a_broker_that_is_not_installed_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _without_package(monkeypatch, tmp_path)
    with pytest.raises(
        StartError, match=r"`noida-db` is neither beside .* nor on PATH; install Onstream's extra `demo`"
    ):
        broker.command(tmp_path, "127.0.0.1", 9092)


def _without_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Hide the package and the interpreter's folder; where on PATH the program would be found."""
    real = importlib.util.find_spec
    monkeypatch.setattr(broker, "find_spec", lambda name: None if name == "noida_db" else real(name))
    monkeypatch.setattr(broker.sys, "executable", str(folder / "bin" / "python"))
    monkeypatch.setenv("PATH", str(folder))
    return folder / "noida-db"
