"""A process that answers every GET as an engine's control port does, on the port that it is given."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Status(BaseHTTPRequestHandler):
    """`GET /status`, and every other path; connections are kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"engine": "e", "version": 0, "digest": "", "in_flight": 0}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Status).serve_forever()
