"""Ports, asked for before they are needed."""

import socket

from infra.errors import StartError


def require_free(host: str, port: int, name: str) -> None:
    """Raise `StartError` when something listens on the port already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise StartError(f"{name}: port {port} on {host} is taken: {exc.strerror}") from exc
