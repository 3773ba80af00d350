"""The front door: session-sticky arms, streaming pass-through, retries before the first byte, and feedback.

A request is read whole, given an identity and an arm, and sent to the best engine. Until the first byte of the reply
has gone out, a failed engine costs the user nothing but time: the request goes to the next one, under the same trace
id. Replies pass through as they come; the router never parses them. Feedback goes to a disk spool, so a user's thumb
does not wait for a broker.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, ValidationError, model_validator
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from infra import telemetry
from infra.config import EngineSlot, RouterConfig
from infra.errors import StoreError
from infra.lifecycle import Deadline
from infra.telemetry import metrics, names
from ingest.log import topics
from ingest.privacy.intake import Intake, user_in
from ingest.records.events import Arm, Consent, Feedback, Headers, TurnKind, key_of, session_key
from ingest.records.ids import trace_of
from ingest.store.releases import Served
from serving import headers
from serving.headers import Identity
from serving.requests import OWN_WORDS, RequestsMiddleware
from serving.router.routing import Health, assign, order
from serving.spool import Spool

logger = logging.getLogger(__name__)

_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "date", "expect", "host", "keep-alive", "server", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
_NOT_ON = _HOP_BY_HOP | {*headers.FROM_ROUTER, headers.USER, "authorization", "accept-encoding"}
_NOT_TRACED_ON = _NOT_ON | OWN_WORDS
_TRY_ANOTHER = frozenset({500, 502, 503, 504})
_NAMES_USER = re.compile(rb'"(?:user|safety_identifier|user_id)"\s*:')
_PROBE_EVERY_S = 1.0
_MAX_BODY_BYTES = 16 << 20


class Failed(StrEnum):
    """Why a request had no answer from an engine, or half of one."""

    STARTING = "engines are starting"
    NO_ENGINE = "no engine answers"
    BROKEN_STREAM = "stream broken"


class Refused(Exception):
    """A request that is answered with an OpenAI-style error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message

    def response(self) -> JSONResponse:
        kind = {401: "authentication_error", 503: "server_error"}.get(self.status, "invalid_request_error")
        return JSONResponse({"error": {"message": self.message, "type": kind, "code": self.status}}, self.status)


class FeedbackRequest(BaseModel):
    """The body of `POST /v1/feedback`. `id` is a completion's `id` (or a trace id); `value` is -1 (bad) to 1 (good)."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, max_length=200)
    session: str | None = Field(None, max_length=200)
    value: StrictFloat = Field(ge=-1.0, le=1.0)
    name: str = Field("thumb", min_length=1, max_length=256)
    comment: str = Field("", max_length=10_000)
    user: str | None = Field(None, max_length=200)
    feedback_id: str | None = Field(None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _about_something(self) -> "FeedbackRequest":
        if not self.id and not self.session:
            raise ValueError("must name a completion (`id`) or a `session`")
        return self


class Router:
    """One router process. `served` is replaced by whoever follows the release log."""

    def __init__(self, slots: Mapping[str, EngineSlot], config: RouterConfig, spool: Spool, intake: Intake) -> None:
        self._slots, self._config, self._spool, self._intake = slots, config, spool, intake
        self.served = Served()
        self.health = Health()
        self.counts: Counter[str] = Counter()
        self._given: Counter[Arm] = Counter()
        self._session: aiohttp.ClientSession | None = None
        self._is_starting = True  # until an engine has answered

    # -- lifecycle

    async def start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=self._config.connect_timeout_s)
        telemetry.observe(
            metrics.REQUESTS, lambda: [(num, {names.ARM: arm.value}) for arm, num in tuple(self._given.items())]
        )
        telemetry.observe(metrics.CANDIDATE_SHARE, lambda: self.served.share)
        telemetry.observe(metrics.RELEASE_LAST, lambda: self.served.last)
        telemetry.observe(
            metrics.ENGINE_UP, lambda: [(int(self.health.is_up(name)), {names.ENGINE: name}) for name in self._slots]
        )
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def probe(self) -> None:
        """Ask every engine for its health, for ever."""
        while True:
            await asyncio.gather(*(self._probe(slot) for slot in self._slots.values()))
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _probe(self, slot: EngineSlot) -> None:
        assert self._session is not None
        try:
            async with self._session.get(
                f"http://{slot.host}:{slot.port}/health", timeout=aiohttp.ClientTimeout(total=10 * _PROBE_EVERY_S)
            ) as answer:
                self._note(slot.id, is_up=answer.status == 200)
        except (aiohttp.ClientError, TimeoutError):
            self._note(slot.id, is_up=False)

    def _note(self, engine_id: str, is_up: bool) -> None:
        if is_up:
            self._is_starting = False
        if is_up == self.health.is_up(engine_id):
            return
        logger.info("%s is %s", engine_id, "up" if is_up else "down")
        (self.health.down.discard if is_up else self.health.down.add)(engine_id)

    # -- requests

    async def forward(self, request: Request) -> Response:
        """`/v1/*`: to an engine and back."""
        self.counts["requests"] += 1
        try:
            tenant = self._tenant(request)
            session = _session(request)
            body = await _body(request)
            identity = self._identify(request, tenant, session, _user(request, body))
        except Refused as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=499)
        self._given[identity.assignment.arm] += 1
        _tell(identity)
        answer = await self._serve(request, identity, body)
        answer.headers[headers.SESSION] = session
        return answer

    def _identify(self, request: Request, tenant: str, session: str, user: str) -> Identity:
        session_id = self._within(tenant, session)
        turn = request.headers.get(headers.TURN, TurnKind.MAIN)
        if turn not in tuple(TurnKind):
            raise Refused(400, f"{headers.TURN}: must be one of {', '.join(TurnKind)}, got {turn!r}")
        parent = _session_name(request, headers.PARENT_SESSION)
        return Identity(
            trace_id=headers.new_trace(session_id),
            session_id=session_id,
            tenant=tenant,
            kind=TurnKind(turn),
            assignment=assign(session_id, self.served, tuple(self._slots), self.health),
            consent=self._consent(request),
            user=self._intake.pseudonym(tenant, user),
            parent_session_id=self._within(tenant, parent) if parent else None,
        )

    def _consent(self, request: Request) -> Consent | None:
        said = request.headers.get(headers.CONSENT)
        if said not in (None, "yes", "no"):
            raise Refused(400, f"{headers.CONSENT}: must be yes or no, got {said!r}")
        if said is None:
            return Consent.ASSUMED if self._config.capture_by_default else None
        return Consent.GIVEN if said == "yes" else None

    def _tenant(self, request: Request) -> str:
        if not self._config.api_keys:
            return "default"
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        tenant = self._config.api_keys.get(hashlib.sha256(key.encode()).hexdigest())
        if tenant is None:
            raise Refused(401, "this endpoint needs an API key of its configuration: Authorization: Bearer <key>")
        return tenant

    def _within(self, tenant: str, name: str) -> str:
        """A name that a client gave, told apart from the same name given by another tenant."""
        return f"{tenant}/{name}" if self._config.api_keys else name

    async def _serve(self, request: Request, identity: Identity, body: bytes) -> Response:
        deadline = Deadline.after(self._config.retry_for_s)
        last = "no engine answers"
        tried = 0
        while True:
            engines = order(identity.session_id, identity.assignment, self.served, tuple(self._slots), self.health)
            for name in engines:
                try:
                    return await self._attempt(self._slots[name], request, identity, body, is_last=deadline.passed())
                except (aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
                    last = f"{name} {_told(exc)}"
                    self._note(name, is_up=False)
                tried += 1
                telemetry.current().set_attribute(names.RETRIES, tried)
                self.counts["retries"] += 1
                telemetry.count(metrics.RETRIES, 1, {names.ENGINE: name})
            if self._is_starting:
                telemetry.count(metrics.FAILED, 1, {names.CAUSE: Failed.STARTING.value})
                return Refused(503, "the engines are starting: GET /health answers 200 once one is up").response()
            if deadline.passed():
                break
            await asyncio.sleep(0.2)
        self.counts["failed"] += 1
        telemetry.count(metrics.FAILED, 1, {names.CAUSE: Failed.NO_ENGINE.value})
        logger.error("trace %s failed after %d attempts: %s", identity.trace_id, tried, last)
        return Refused(503, f"no engine could serve this: {last}").response()

    async def _attempt(
        self, slot: EngineSlot, request: Request, identity: Identity, body: bytes, is_last: bool
    ) -> Response:
        """One engine's answer, begun; raises while another engine may still be tried."""
        assert self._session is not None
        begun = time.monotonic()
        answer = await self._session.request(
            request.method,
            f"http://{slot.host}:{slot.port}{request.url.path}",
            params=request.query_params.multi_items(),
            data=body,
            headers=_outgoing(request, identity),
        )
        try:
            if answer.status in _TRY_ANOTHER and not is_last:
                raise aiohttp.ClientError(f"answered {answer.status}: {(await answer.text())[:200]}")
            self._is_starting = False
            telemetry.current().set_attribute(names.ENGINE, slot.id)
            back = _returned(answer, identity)
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                whole = await answer.read()
                answer.release()
                return Response(whole, answer.status, back)
            chunks = answer.content.iter_any()
            first = await anext(chunks, b"")
        except BaseException:  # also cancellation: the connection must not stay half read
            answer.close()
            raise
        telemetry.record(metrics.FIRST_BYTE, time.monotonic() - begun, {names.ENGINE: slot.id})
        return _Stream(self._stream(first, chunks, answer, identity), answer.status, back)

    async def _stream(
        self, first: bytes, rest: AsyncIterator[bytes], answer: aiohttp.ClientResponse, identity: Identity
    ) -> AsyncIterator[bytes]:
        try:
            yield first
            async for chunk in rest:
                yield chunk
        except aiohttp.ClientError as exc:
            self.counts["broken_streams"] += 1
            telemetry.count(metrics.FAILED, 1, {names.CAUSE: Failed.BROKEN_STREAM.value})
            telemetry.failed(telemetry.current(), type(exc).__name__)
            logger.error("trace %s: the engine died in the middle of its stream: %s", identity.trace_id, exc)
            raise
        finally:
            answer.close()

    # -- feedback

    async def feedback(self, request: Request) -> Response:
        """`POST /v1/feedback`: durable on this disk when answered with 202."""
        try:
            record = self._feedback(request, self._tenant(request), await _body(request))
            value, schema = await self._closed(record)
        except Refused as refused:
            return refused.response()
        carried = schema | telemetry.headers_out()
        key = key_of(session_id=record.session_id, trace_id=record.trace_id)
        if not self._spool.put(topics.FEEDBACK.name, key, value, carried):
            return Refused(503, "feedback cannot be stored now; send it again later").response()
        self.counts["feedback"] += 1
        telemetry.count(metrics.FEEDBACK_TAKEN)
        return JSONResponse({"feedback_id": record.feedback_id}, 202)

    async def _closed(self, record: Feedback) -> tuple[bytes, Headers]:
        """Feedback redacted and sealed, as it is written."""
        try:
            return await asyncio.to_thread(self._intake.close_feedback, self._intake.redact_feedback(record))
        except StoreError as exc:
            logger.error("feedback %s: not taken: %s", telemetry.Local(record.feedback_id), exc)
            raise Refused(503, "feedback cannot be stored now; send it again later") from exc

    def _feedback(self, request: Request, tenant: str, body: bytes) -> Feedback:
        try:
            given = FeedbackRequest.model_validate_json(body)
            trace = trace_of(given.id) if given.id else None
            session = self._within(tenant, given.session) if given.session else None
            if trace and session and not trace.startswith(session_key(session)):
                raise Refused(400, f"id: {given.id!r:.80} is no completion of session {given.session!r}")
            return Feedback(
                feedback_id=self._within(tenant, given.feedback_id or uuid.uuid4().hex),
                trace_id=trace,
                session_id=session,
                tenant=tenant,
                user=self._intake.pseudonym(tenant, request.headers.get(headers.USER) or given.user or ""),
                name=given.name,
                value=given.value,
                comment=given.comment,
                at=time.time(),
            )
        except ValidationError as exc:
            told = "; ".join(
                f"{'.'.join(map(str, error['loc'])) or 'feedback'}: {error['msg'].removeprefix('Value error, ')}, "
                f"got {error['input']!r:.80}"
                for error in exc.errors()
            )
            raise Refused(400, told) from exc

    # -- state

    async def status(self, _request: Request) -> Response:
        """`GET /status`: counts, and which engines answer."""
        return JSONResponse(
            {
                "counts": dict(self.counts),
                "stable": self.served.stable,
                "candidate": self.served.on_trial,
                "share": self.served.share,
                "holdback": self.served.holdback,
                "release": self.served.last,
                "engines": {
                    name: {"version": self.served.engines.get(name), "up": self.health.is_up(name)}
                    for name in self._slots
                },
                "spool_bytes": self._spool.held_bytes(),
                "dropped": self._spool.num_dropped,
            }
        )

    async def healthy(self, _request: Request) -> Response:
        """`GET /health`: 200 once some engine answers."""
        is_up = any(self.health.is_up(name) for name in self._slots)
        return JSONResponse({"status": "ok" if is_up else "no engine answers"}, 200 if is_up else 503)

    @property
    def trouble(self) -> str:
        """Why this router is of no use to users now; empty: some engine answers."""
        if self._is_starting or not any(self.health.is_up(name) for name in self._slots):
            return "no engine answers"
        return ""

    def application(self) -> Starlette:
        is_telling = telemetry.is_tracing() or telemetry.is_measuring()
        return Starlette(
            routes=[
                Route("/v1/feedback", self.feedback, methods=["POST"]),
                Route("/v1/{path:path}", self.forward, methods=["GET", "POST"]),
                Route("/status", self.status),
                Route("/health", self.healthy),
            ],
            middleware=[Middleware(RequestsMiddleware)] if is_telling else [],
        )


class _Stream(StreamingResponse):
    """A stream that may break. ASGI has no word for that: where a reply is left without its end, the server cuts it."""

    async def stream_response(self, send: Send) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            await super().stream_response(send)


def _tell(identity: Identity) -> None:
    """Whose request this is. No session: its name is the client's own text, and a trace's id begins with its key."""
    now = telemetry.current()
    if now.is_recording():
        now.set_attributes({names.TRACE: identity.trace_id, names.ARM: identity.assignment.arm.value})


def _session(request: Request) -> str:
    return _session_name(request, headers.SESSION) or headers.new_session()


def _session_name(request: Request, header: str) -> str | None:
    name = request.headers.get(header)
    if name and not headers.is_session_name(name):
        raise Refused(400, f"{header}: must be 1 to 200 visible ASCII characters, got {name[:60]!r}")
    return name or None


def _user(request: Request, body: bytes) -> str:
    """Who a client says that its user is; a body is only read where it may say so."""
    named = request.headers.get(headers.USER)
    if named or not _NAMES_USER.search(body):
        return named or ""
    try:
        asked = json.loads(body)
    except ValueError:
        return ""  # the engine refuses it
    return user_in(asked) if isinstance(asked, dict) else ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise Refused(413, f"a request may have {_MAX_BODY_BYTES} bytes, got more")
    return bytes(body)


def _told(failure: Exception) -> str:
    """An engine's failure, for its user: what happened, not where."""
    if isinstance(failure, aiohttp.ClientConnectorError):
        return "does not answer"
    return str(failure) or type(failure).__name__


def _outgoing(request: Request, identity: Identity) -> dict[str, str]:
    """The client's headers, without what only the router may say, and with what it says."""
    drop = _NOT_TRACED_ON if telemetry.is_tracing() else _NOT_ON
    kept = {name: value for name, value in request.headers.items() if name not in drop}
    return kept | headers.write(identity) | telemetry.headers_out()


def _returned(answer: aiohttp.ClientResponse, identity: Identity) -> dict[str, str]:
    kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
    return kept | {headers.TRACE: identity.trace_id}
