"""TLS and SASL in front of a broker that has neither, as Apache Kafka's listeners have them.

The small broker speaks plain text only, and no Apache Kafka is to be had here. This stands before it: it ends TLS,
answers `SaslHandshake` and `SaslAuthenticate` itself (PLAIN of RFC 4616, SCRAM of RFC 5802), lets nothing else through
before that but `ApiVersions`, and then passes requests on as they are. In the broker's answers it replaces where the
broker is, so that clients come back to it.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import io
import secrets
import ssl
import struct
import threading
import warnings
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from certificates import Pair
from ports import free_port

with warnings.catch_warnings():
    # kafka-python 3.0 reads its schemas with a function that Python 3.11 calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.protocol.api_header import RequestHeader, ResponseHeader
    from kafka.protocol.metadata import (
        ApiVersionsRequest,
        ApiVersionsResponse,
        FindCoordinatorResponse,
        MetadataResponse,
    )
    from kafka.protocol.sasl import (
        SaslAuthenticateRequest,
        SaslAuthenticateResponse,
        SaslHandshakeRequest,
        SaslHandshakeResponse,
    )

HOST = "127.0.0.1"
_GROUP_AUTHORIZATION_FAILED, _UNSUPPORTED_MECHANISM, _AUTHENTICATION_FAILED = 30, 33, 58
_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
_ITERATIONS = 4096
_REFUSED_S = 0.1  # Kafka's `connection.failed.authentication.delay.ms`: the answer is read before the end is
_PATCHED = {kind.API_KEY: kind for kind in (ApiVersionsResponse, MetadataResponse, FindCoordinatorResponse)}


class SecureBroker:
    """Listens on `port` until `close`. With `users` (name -> password) it asks for SASL, with `client_ca` for a
    certificate. `refused` counts why connections were ended; while it `keeps_groups` nobody may join or look at one."""

    def __init__(
        self,
        upstream_port: int,
        pair: Pair,
        users: Mapping[str, str] | None = None,
        client_ca: Path | None = None,
    ) -> None:
        self.port = free_port()
        self.users = dict(users or {})
        self.refused: Counter[str] = Counter()
        self.num_connections = 0
        self.keeps_groups = False
        self._upstream_port = upstream_port
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(pair.cert, pair.key)
        if client_ca is not None:
            self._tls.load_verify_locations(client_ca)
            self._tls.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(listening),))
        self._thread.start()
        assert listening.wait(10.0)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _run(self, listening: threading.Event) -> None:
        serving: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = _Connection(self, writer, bool(self.users))
            serving[writer] = asyncio.ensure_future(connection.serve(reader, self._upstream_port))

        self._loop.set_exception_handler(lambda _loop, context: self.refused.update([str(context.get("exception"))]))
        server = await asyncio.start_server(accept, HOST, self.port, ssl=self._tls)
        listening.set()
        await self._over.wait()
        for listening_socket in server.sockets:
            self._loop.remove_reader(listening_socket)
        await _some_turns()  # what was accepted and not looked at yet asyncio leaves open when its server is closed
        server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:  # asyncio's own too, which shake hands
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for writer in serving:  # one whose task was cancelled at its first step has nobody else to close it
            writer.transport.abort()
        await _some_turns()


class _Connection:
    """One client's connection, and the broker's behind it."""

    def __init__(self, front: SecureBroker, writer: asyncio.StreamWriter, asks: bool) -> None:
        self._front, self._writer = front, writer
        self._is_known = not asks
        self._mechanism = ""
        self._scram: _Scram | None = None
        self._asked: deque[tuple[int, int]] = deque()  # (API, version), unanswered
        front.num_connections += 1

    async def serve(self, reader: asyncio.StreamReader, port: int) -> None:
        below, above = await asyncio.open_connection(HOST, port)
        ways = [asyncio.ensure_future(self._down(reader, above)), asyncio.ensure_future(self._up(below))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for writer in (above, self._writer):
                writer.close()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in (above, self._writer):
                with contextlib.suppress(OSError, ssl.SSLError):
                    await writer.wait_closed()

    async def _down(self, reader: asyncio.StreamReader, above: asyncio.StreamWriter) -> None:
        """The client's requests."""
        while (frame := await _frame(reader)) is not None:
            api, version = struct.unpack_from(">hh", frame)
            if api in (SaslHandshakeRequest.API_KEY, SaslAuthenticateRequest.API_KEY):
                await self._answer(frame, api, version)
                continue
            if not self._is_known and api != ApiVersionsRequest.API_KEY:
                self._front.refused[f"API {api} before authentication"] += 1
                return
            self._asked.append((api, version))
            above.write(struct.pack(">i", len(frame)) + frame)
            await above.drain()

    async def _up(self, below: asyncio.StreamReader) -> None:
        """The broker's answers."""
        while (frame := await _frame(below)) is not None:
            api, version = self._asked.popleft()
            if api in _PATCHED:
                frame = self._patched(frame, _PATCHED[api], version)
            self._writer.write(struct.pack(">i", len(frame)) + frame)
            await self._writer.drain()

    def _patched(self, frame: bytes, kind: Any, version: int) -> bytes:
        head = io.BytesIO(frame)
        kind.parse_header(head, version=version)
        answer = kind.decode(frame[head.tell() :], version=version)
        answer._header = None  # decoding leaves it unset, and encoding looks at it
        if kind is ApiVersionsResponse and answer.error_code:
            return frame  # an unsupported version: answered in version 0, and asked again
        if kind is ApiVersionsResponse:
            item = type(answer.api_keys[0])
            own = {SaslHandshakeRequest.API_KEY: 1, SaslAuthenticateRequest.API_KEY: 2}
            kept = [one for one in answer.api_keys if one.api_key not in own]
            answer.api_keys = kept + [item(api_key=key, min_version=0, max_version=most) for key, most in own.items()]
        elif kind is MetadataResponse:
            self._move(answer.brokers)
        else:
            self._find(answer.coordinators if version >= 4 else [answer])
        return frame[: head.tell()] + bytes(answer.encode(version=version))

    def _move(self, places: Any) -> None:
        for place in places:
            place.host, place.port = HOST, self._front.port

    def _find(self, coordinators: Any) -> None:
        self._move(coordinators)
        for coordinator in coordinators if self._front.keeps_groups else ():
            coordinator.error_code = _GROUP_AUTHORIZATION_FAILED

    async def _answer(self, frame: bytes, api: int, version: int) -> None:
        """SASL, as a broker answers it; a failure ends the connection."""
        is_handshake = api == SaslHandshakeRequest.API_KEY
        kind = SaslHandshakeRequest if is_handshake else SaslAuthenticateRequest
        data = io.BytesIO(frame)
        header = RequestHeader.decode(data, flexible=kind.flexible_version_q(version))
        request = kind.decode(frame[data.tell() :], version=version)
        answer = self._handshake(request) if is_handshake else self._authenticate(request.auth_bytes)
        head = ResponseHeader(correlation_id=header.correlation_id)
        told = head.encode(flexible=kind.flexible_version_q(version)) + bytes(answer.encode(version=version))
        self._writer.write(struct.pack(">i", len(told)) + told)
        await self._writer.drain()
        if answer.error_code:
            await asyncio.sleep(_REFUSED_S)
            raise ConnectionError("refused")

    def _handshake(self, request: Any) -> Any:
        mechanisms = ["PLAIN", *_HASHES]
        self._mechanism = request.mechanism
        if request.mechanism in _HASHES:
            self._scram = _Scram(_HASHES[request.mechanism], self._front.users)
        return SaslHandshakeResponse(
            error_code=0 if request.mechanism in mechanisms else _UNSUPPORTED_MECHANISM, mechanisms=mechanisms
        )

    def _authenticate(self, given: bytes) -> Any:
        told = b""
        if self._scram is not None:
            told, is_right, self._is_known = self._scram.answer(given)
        else:
            _, user, password = given.decode().split("\0")
            is_right = self._is_known = self._front.users.get(user) == password
        if not is_right:
            self._front.refused["wrong password"] += 1
        return SaslAuthenticateResponse(
            error_code=0 if is_right else _AUTHENTICATION_FAILED,
            error_message=None if is_right else "Authentication failed: Invalid username or password",
            auth_bytes=told,
            session_lifetime_ms=0,
        )


class _Scram:
    """The server's side of RFC 5802."""

    def __init__(self, name: str, users: Mapping[str, str]) -> None:
        self._name, self._users = name, users
        self._salt, self._said, self._nonce = secrets.token_bytes(16), b"", b""
        self._salted = b""

    def _hmac(self, key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, self._name).digest()

    def answer(self, given: bytes) -> tuple[bytes, bool, bool]:
        """What to say, whether all is right so far, and whether the client is known now."""
        if not self._said:
            first = given.removeprefix(b"n,,")
            fields = dict(part.split(b"=", 1) for part in first.split(b","))
            self._nonce = fields[b"r"] + secrets.token_hex(12).encode()
            password = self._users.get(fields[b"n"].decode(), secrets.token_hex())
            self._salted = hashlib.pbkdf2_hmac(self._name, password.encode(), self._salt, _ITERATIONS)
            told = b"r=%s,s=%s,i=%d" % (self._nonce, base64.b64encode(self._salt), _ITERATIONS)
            self._said = first + b"," + told
            return told, True, False
        bare, _, proof = given.rpartition(b",p=")
        said = self._said + b"," + bare
        client_key = self._hmac(self._salted, b"Client Key")
        signature = self._hmac(hashlib.new(self._name, client_key).digest(), said)
        right = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if bare != b"c=biws,r=" + self._nonce or not hmac.compare_digest(base64.b64decode(proof), right):
            return b"", False, False
        return b"v=" + base64.b64encode(self._hmac(self._hmac(self._salted, b"Server Key"), said)), True, True


async def _some_turns() -> None:
    """TLS, and the socket below it, are told one turn of the loop after the other."""
    for _ in range(4):
        await asyncio.sleep(0)


async def _frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame without its length; `None` at the end."""
    try:
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
        return None
