"""The front door: session-sticky arms, streaming pass-through, and retries before the first byte.

A request is read whole, given an identity and an arm, and sent to the best engine. Until the first byte of the reply
has gone out, a failed engine costs the user nothing but time: the request goes to the next one. Each attempt has a
trace id of its own: what an engine captured before it failed is no part of the reply that the user gets. Replies pass
through as they come; the router never parses them.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from enum import StrEnum
from urllib.parse import unquote

import aiohttp
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from infra import telemetry
from infra.config import EngineSlot, RouterConfig
from infra.lifecycle import Deadline, backoff_s
from infra.telemetry import metrics, names
from ingest.privacy.intake import Intake
from ingest.records.events import Arm, Assignment
from ingest.store.releases import Served
from serving import headers
from serving.headers import Identity
from serving.leaving import while_there
from serving.requests import ASKED, OWN_WORDS, Endpoint
from serving.router.clients import Clients, session_of
from serving.router.feedback import FeedbackDesk
from serving.router.refusals import Refused, read_body
from serving.router.routing import Health, assign, order
from serving.spool import Spool

logger = logging.getLogger(__name__)

_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "date", "expect", "host", "keep-alive", "server", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
_NOT_ON = _HOP_BY_HOP | {*headers.FROM_ROUTER, headers.USER, "authorization", "accept-encoding"}
_NOT_TRACED_ON = _NOT_ON | OWN_WORDS
_METHODS = ("GET", "HEAD", "POST")
_TRY_ANOTHER = frozenset({500, 502, 503, 504})
_FAILED_AT_IT = 500
_AGAIN_S = 0.2
_FAILED_AGAIN_S = 4.0  # each attempt that failed in the middle of its work may leave a trace
_PROBE_EVERY_S = 1.0


class Failed(StrEnum):
    """Why a request had no answer from an engine, or half of one."""

    STARTING = "engines are starting"
    NO_ENGINE = "no engine answers"
    BROKEN_STREAM = "stream broken"


class _FailedAtIt(aiohttp.ClientError):
    """An engine answered that it failed. That may be the request's doing, which every engine then fails at: whether it
    is down, its probe tells."""


class Router:
    """One router process. `served` is replaced by whoever follows the release log."""

    def __init__(self, slots: Mapping[str, EngineSlot], config: RouterConfig, spool: Spool, intake: Intake) -> None:
        self._slots, self._config, self._spool = slots, config, spool
        self._stables = frozenset(name for name, slot in slots.items() if slot.arm == "stable")
        self._clients = Clients(config, intake)
        self.served = Served()
        self.health = Health()
        self.counts: Counter[str] = Counter()
        self._feedback = FeedbackDesk(self._clients, spool, intake, self.counts)
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
        """Ask every engine for its health, for ever; one that hangs holds up no other's."""
        await asyncio.gather(*(self._keep_probing(slot) for slot in self._slots.values()))

    async def _keep_probing(self, slot: EngineSlot) -> None:
        while True:
            await self._probe(slot)
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
            _require_allowed(request)
            tenant = self._clients.tenant(request)
            session = session_of(request)
            body = await read_body(request)
            identity = self._clients.identify(request, tenant, session, body, self._assign)
        except Refused as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=499)
        self._given[identity.assignment.arm] += 1
        try:
            answer = await while_there(request, self._serve(request, identity, body))
        except ClientDisconnect:  # then no other engine is tried
            return Response(status_code=499)
        answer.headers[headers.SESSION] = session
        return answer

    def _assign(self, session_id: str) -> Assignment:
        return assign(session_id, self.served, tuple(self._slots), self.health)

    async def _serve(self, request: Request, identity: Identity, body: bytes) -> Response:
        deadline = Deadline.after(self._config.retry_for_s)
        last = "no engine answers"
        tried = 0
        waits = backoff_s(_AGAIN_S, _FAILED_AGAIN_S)
        while True:
            wait_s = _AGAIN_S
            engines = order(
                identity.session_id, identity.assignment, self.served, tuple(self._slots), self.health, self._stables
            )
            for name in engines:
                if tried:
                    identity = replace(identity, trace_id=headers.new_trace(identity.session_id))
                try:
                    return await self._attempt(self._slots[name], request, identity, body, is_last=deadline.passed())
                except (aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
                    last = f"{name} {_told(exc)}"
                    if not isinstance(exc, _FailedAtIt):
                        self._note(name, is_up=False)
                    elif wait_s == _AGAIN_S:
                        wait_s = next(waits)
                tried += 1
                telemetry.current().set_attribute(names.RETRIES, tried)
                self.counts["retries"] += 1
                telemetry.count(metrics.RETRIES, 1, {names.ENGINE: name})
            if self._is_starting:
                telemetry.count(metrics.FAILED, 1, {names.CAUSE: Failed.STARTING.value})
                return Refused(503, "the engines are starting: GET /health answers 200 once one is up").response()
            if deadline.passed():
                break
            await asyncio.sleep(min(wait_s, deadline.left_s()))
        self.counts["failed"] += 1
        telemetry.count(metrics.FAILED, 1, {names.CAUSE: Failed.NO_ENGINE.value})
        logger.error("trace %s failed after %d attempts: %s", identity.trace_id, tried, last)
        return Refused(503, f"no engine could serve this: {last}").response()

    async def _attempt(
        self, slot: EngineSlot, request: Request, identity: Identity, body: bytes, is_last: bool
    ) -> Response:
        """One engine's answer, begun; raises while another engine may still be tried."""
        assert self._session is not None
        request.scope[ASKED] = identity, slot.id
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
                failed = _FailedAtIt if answer.status == _FAILED_AT_IT else aiohttp.ClientError
                raise failed(f"answered {answer.status}: {(await answer.text())[:200]}")
            self._is_starting = False
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
        return Starlette(
            routes=[
                Route("/v1/feedback", Endpoint(self._feedback.take), methods=["POST"]),
                Route("/v1/{path:path}", Endpoint(self.forward)),
                Route("/status", self.status),
                Route("/health", self.healthy),
            ]
        )


class _Stream(StreamingResponse):
    """A stream that may break. ASGI has no word for that: where a reply is left without its end, the server cuts it."""

    async def stream_response(self, send: Send) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            await super().stream_response(send)


def _require_allowed(request: Request) -> None:
    """Raises `Refused` for a method that no engine knows, and for a path that leads elsewhere on one, once it is put
    together with the engine's URL."""
    if request.method not in _METHODS:
        raise Refused(405, f"a method must be one of {', '.join(_METHODS)}, got {request.method}")
    if ".." in unquote(request.url.path).split("/"):
        raise Refused(404, "a path must not hold '..'")


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
