"""Requests that no engine sees: they are answered with an OpenAI-style error."""

from starlette.requests import Request
from starlette.responses import JSONResponse

_MAX_BODY_BYTES = 16 << 20


class Refused(Exception):
    """A request that is answered with an OpenAI-style error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message

    def response(self) -> JSONResponse:
        kind = {401: "authentication_error", 503: "server_error"}.get(self.status, "invalid_request_error")
        return JSONResponse({"error": {"message": self.message, "type": kind, "code": self.status}}, self.status)


async def read_body(request: Request) -> bytes:
    """All of it, up to a limit. Raises `Refused`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise Refused(413, f"a request may have {_MAX_BODY_BYTES} bytes, got more")
    return bytes(body)
