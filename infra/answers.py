"""A small HTTP server in a thread: what a process says of itself, as JSON, to whoever asks.

It has no credential and changes nothing: numbers and states, never content.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from infra.errors import StartError

Answer = Callable[[], tuple[int, Mapping[str, object]]]
"""Status and body, made anew for each question, in a thread of the server's."""

_SLOW_CLIENT_S = 10.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    routes: Mapping[str, Answer]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SLOW_CLIENT_S

    def do_GET(self) -> None:
        answer = self.server.routes.get(self.path.partition("?")[0])
        status, body = answer() if answer is not None else (404, {"error": f"there is {', '.join(self.server.routes)}"})
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: they are not logged."""


def serve(host: str, port: int, routes: Mapping[str, Answer], name: str) -> Callable[[], None]:
    """Answer `GET` on `routes` until the process ends, or the function that is returned is called.

    `name` is the port's in the configuration. Raises `StartError` where it cannot be had.
    """

    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        server = Server((host, port), _Handler)
    except OSError as exc:
        raise StartError(f"{name}: port {port} on {host} cannot be had: {exc.strerror}") from exc
    server.routes = routes
    threading.Thread(target=server.serve_forever, name=name, daemon=True).start()

    def close() -> None:
        server.shutdown()
        server.server_close()

    return close
