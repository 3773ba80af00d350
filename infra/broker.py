"""The small Kafka-protocol broker that one machine runs: which command starts it, and whether it runs.

It stops on SIGTERM and keeps everything; killed outright, it loses its newest records. Its stderr begins with a
warning of the dynamic linker about a C library symbol version, which is harmless.
"""

import os
import shutil
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from infra.config import LogConfig
from infra.errors import StartError

_NAME = "noida-db"
_PACKAGE = "noida_db"


def command(data_dir: Path, host: str, port: int) -> list[str]:
    """The command line of a broker in the foreground that listens on `host:port` and keeps its state in `data_dir`.

    Raises:
        StartError: the broker's program is not installed.
    """
    where = ["--data-dir", str(data_dir), "--host", host, "--kafka-port", str(port)]
    return [_program(), "start", "--only", "kafka", *where]


def address(config: LogConfig) -> tuple[str, int]:
    """Host and port of the local broker. Raises `StartError` unless `log.brokers` is one `host:port`."""
    host, _, port = config.brokers.partition(":")
    if not port.isdecimal():
        raise StartError(f"log.brokers: with `log.local` this must be one host:port, got {config.brokers!r}")
    return host, int(port)


def listens(host: str, port: int) -> bool:
    """Something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def require_running(config: LogConfig) -> None:
    """Raise `StartError` where the broker should be a local one and none runs: waiting for it would be no use."""
    if config.local and not listens(*address(config)):
        raise StartError(f"log.brokers: no broker answers at {config.brokers}; `onstream up` starts it")


def _program() -> str:
    """The program inside the installed package; the console script only where that cannot be run.

    The console script runs the program as a child and dies alone of SIGTERM: the broker would go on without it.
    """
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / _NAME
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    beside = str(Path(sys.executable).parent)
    found = shutil.which(_NAME, path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise StartError(
            f"local broker: `{_NAME}` is neither beside {sys.executable} nor on PATH; install Onstream's extra `demo`, "
            "or set `log.local: false` and `log.brokers` to a Kafka of yours"
        )
    return found
