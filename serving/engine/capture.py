"""Capture: what an engine did with a request, token for token, without touching what the client sees.

Two hooks meet in one `Exchange`, carried by a context variable from the outer to the inner:

    CaptureMiddleware   around the whole application: identity headers, request body, status
    Capture.wrap        around `AsyncLLM.generate`: token ids, log-probabilities, weight-version spans

The trace, redacted and sealed, is written to the spool before the last byte of the response leaves, or when the request
was given up. Its key is looked for while the engine works. Where that takes longer than the reply, the response goes
first; where there is no key to be had, the trace is dropped and counted: nothing is written that cannot be erased.
"""

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.datastructures import Headers as HttpHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra import telemetry
from infra.errors import StoreError
from infra.telemetry import metrics, names
from ingest.log import topics
from ingest.privacy.generations import DataKey
from ingest.privacy.intake import Intake, Pieces, without_user
from ingest.records.events import Consent, Sampling, Trace, VersionSpan, session_key
from serving import headers
from serving.engine.generations import Generations
from serving.engine.recent import Recent
from serving.headers import Identity
from serving.spool import Spool

logger = logging.getLogger(__name__)

ABORTED = "abort"
_A_BEAM = re.compile(r"-beam-\d+$")  # vLLM's search asks for one token a beam at a time: nobody sampled its reply
_MAX_BODY = 16 << 20
_KEY_WAIT_S = 0.05  # at most, and only for a reply that took less than a look at the keys

Generate = Callable[..., AsyncGenerator[Any, None]]


@dataclass
class Reply:
    """One sampled sequence, as far as it came."""

    prompt_token_ids: tuple[int, ...]
    sampling: Sampling
    started: tuple[int, int]  # version and epoch
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    spans: tuple[VersionSpan, ...] = ()
    finish_reason: str = ABORTED
    first_at: float | None = None  # of a streamed reply's first token, on the monotonic clock


@dataclass
class Exchange:
    """One HTTP request, and the sequences the engine sampled for it."""

    identity: Identity
    path: str
    started_at: float
    body: bytearray = field(default_factory=bytearray)
    status: int = 0
    is_closed: bool = False
    replies: dict[tuple[str, int], Reply] = field(default_factory=dict)
    key: "asyncio.Future[DataKey | None] | None" = None

    def sampled(self) -> list[Reply]:
        """In the order that they began."""
        return list(self.replies.values())


_current: ContextVar[Exchange | None] = ContextVar("onstream_exchange", default=None)


class Capture:
    """Builds traces and puts them into the spool.

    `version` and `epoch` belong to the control plane: the version that samples now, and a number that changes with
    every swap. The epoch salts the prefix cache, so KV computed before a swap is never found by a request after it.
    """

    def __init__(
        self,
        spool: Spool,
        engine_id: str,
        version: int,
        recent: Recent,
        intake: Intake,
        pieces: Pieces,
        model: str = "",
    ) -> None:
        self._spool, self._engine_id, self._recent, self._intake = spool, engine_id, recent, intake
        self._pieces = pieces
        self.generations = Generations(engine_id, model)
        self.version = version
        self.epoch = 0

    def wrap(self, generate: Generate) -> Generate:
        """`generate` with the same arguments and results, observed."""

        async def captured(
            prompt: Any, sampling_params: Any, request_id: str, **rest: Any
        ) -> AsyncGenerator[Any, None]:
            exchange = None if _A_BEAM.search(request_id) else _current.get()
            if exchange is not None and sampling_params.logprobs is None:
                sampling_params.logprobs = 0
            outputs = generate(self._salted(prompt), sampling_params, request_id, **rest)
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    if exchange is not None and not exchange.is_closed:
                        self._try_to_observe(exchange, request_id, sampling_params, output)
                    yield output

        return captured

    def _try_to_observe(self, exchange: Exchange, request_id: str, params: Any, output: Any) -> None:
        try:
            self._observe(exchange, request_id, params, output)
        except Exception:  # what vLLM gives may be of another form one day: that costs the trace, and no reply
            exchange.is_closed = True
            logger.exception("capture: trace %s lost", exchange.identity.trace_id)
            telemetry.count(metrics.TRACES_DROPPED)

    def _salted(self, prompt: Any) -> Any:
        if not isinstance(prompt, dict):
            return prompt
        return {**prompt, "cache_salt": f"{prompt.get('cache_salt') or ''}@{self.epoch}"}

    def _observe(self, exchange: Exchange, request_id: str, params: Any, output: Any) -> None:
        is_delta = params.output_kind.name == "DELTA"
        for part in output.outputs:
            reply = exchange.replies.get((request_id, part.index))
            if reply is None:
                sampling = Sampling(temperature=params.temperature, top_p=params.top_p, max_tokens=params.max_tokens)
                reply = Reply(tuple(output.prompt_token_ids or ()), sampling, (self.version, self.epoch))
                exchange.replies[request_id, part.index] = reply
            if is_delta and reply.first_at is None and part.token_ids:
                reply.first_at = time.monotonic()
            if not is_delta:
                reply.token_ids.clear()
                reply.logprobs.clear()
                reply.text.clear()
            reply.token_ids += part.token_ids
            reply.logprobs += [
                chosen[token].logprob for token, chosen in zip(part.token_ids, part.logprobs or (), strict=True)
            ]
            reply.text.append(part.text)
            if part.finish_reason is not None:
                reply.finish_reason = part.finish_reason
                reply.spans = tuple(
                    VersionSpan(version=int(span.version), start=span.start, end=span.end)
                    for span in part.weight_versions or ()
                )

    def find_key(self, exchange: Exchange) -> None:
        """Look for the key that its traces will be sealed under, while the engine works."""
        if not self._intake.seals:
            return
        identity = exchange.identity
        looking = asyncio.to_thread(self._intake.key_for, identity.user, identity.tenant)
        exchange.key = asyncio.ensure_future(looking)

    def finish(self, exchange: Exchange, key: DataKey | None) -> None:
        """Write the traces of a request that ended, however it ended.

        A replay of the lane that users cut short is no answer: it is asked again, and nothing is known of this one.
        """
        for number, reply in enumerate(exchange.replies.values()):
            if exchange.identity.assignment.group is not None and reply.finish_reason == ABORTED:
                continue
            trace = self._intake.redact_trace(self._trace(exchange, reply, number), self._pieces)
            self._recent.store(trace, partial(self._write, key))
            telemetry.count(metrics.TRACES_CAPTURED, 1, {names.ARM: trace.assignment.arm.value})

    def _write(self, key: DataKey | None, stored: Trace) -> bytes | None:
        plain, value, headers = self._intake.close_trace(stored, key)
        carried = headers | telemetry.headers_out()
        is_kept = self._spool.put(topics.TRACES.name, session_key(stored.session_id), value, carried)
        return plain if is_kept else None

    def _trace(self, exchange: Exchange, reply: Reply, number: int) -> Trace:
        identity = exchange.identity
        request = without_user(_json(exchange.body))
        return Trace(
            trace_id=identity.trace_id if number == 0 else f"{identity.trace_id}.{number}",
            session_id=identity.session_id,
            parent_session_id=identity.parent_session_id,
            tenant=identity.tenant,
            user=identity.user,
            consent=identity.consent or Consent.ASSUMED,
            assignment=identity.assignment,
            engine_id=self._engine_id,
            kind=identity.kind,
            endpoint=exchange.path,
            model=str(request.get("model", "")),
            request=request,
            reply_text="".join(reply.text),
            streamed=bool(request.get("stream", False)),
            status=exchange.status,
            prompt_token_ids=reply.prompt_token_ids,
            token_ids=tuple(reply.token_ids),
            logprobs=tuple(reply.logprobs),
            spans=reply.spans or self._span_of_aborted(reply),
            sampling=reply.sampling,
            finish_reason=reply.finish_reason,
            started_at=exchange.started_at,
            finished_at=time.time(),
        )

    def _span_of_aborted(self, reply: Reply) -> tuple[VersionSpan, ...]:
        """vLLM gives spans with the last output only; a reply cut off before any swap has one span all the same."""
        if not reply.token_ids or reply.started != (self.version, self.epoch):
            return ()
        return (VersionSpan(version=self.version, start=0, end=len(reply.token_ids)),)


def answer_with_trace_ids(responses: Any) -> None:
    """Make vLLM's handler of Responses name each after its trace, as it names completions after the request id.

    Without it `resp_...` is a random id, and feedback that names it is about nothing known. `responses` is None where
    the model generates no text.
    """
    if responses is None:
        return
    create = responses.create_responses

    async def named(request: Any, *rest: Any, **named_rest: Any) -> Any:
        exchange = _current.get()
        if exchange is not None and "request_id" not in request.model_fields_set:
            request.request_id = f"resp_{exchange.identity.trace_id}"
        return await create(request, *rest, **named_rest)

    responses.create_responses = named


def _json(body: bytearray) -> dict[str, Any]:
    try:
        value = json.loads(bytes(body))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class CaptureMiddleware:
    """ASGI middleware that opens an `Exchange` for every POST that consents, and closes it."""

    def __init__(self, app: ASGIApp, capture: Capture) -> None:
        self._app, self._capture = app, capture

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        http = HttpHeaders(scope=scope)
        identity = headers.read(http)
        if not identity.is_captured:
            telemetry.count(metrics.TRACES_UNCONSENTED)
            await self._app(scope, receive, send)
            return
        exchange = Exchange(identity, scope["path"], time.time())
        self._capture.find_key(exchange)
        token = _current.set(exchange)
        with self._capture.generations.telling(scope, exchange) as inner:
            try:
                await self._app(inner, _listen(receive, exchange), self._watch(send, exchange))
            finally:
                _current.reset(token)
                self._close(exchange)

    def _watch(self, send: Send, exchange: Exchange) -> Send:
        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                if exchange.key is not None and not exchange.key.done():
                    await asyncio.wait({exchange.key}, timeout=_KEY_WAIT_S)
                self._close(exchange)
            await send(message)

        return watching

    def _close(self, exchange: Exchange) -> None:
        """Write what was captured; where its key is not there yet, once it is: the response does not wait for it."""
        if exchange.is_closed:
            return
        exchange.is_closed = True
        if exchange.key is None or exchange.key.done():
            self._finish(exchange, exchange.key)
        else:
            exchange.key.add_done_callback(partial(self._finish, exchange))

    def _finish(self, exchange: Exchange, key: "asyncio.Future[DataKey | None] | None") -> None:
        try:
            if key is not None and key.cancelled():
                raise StoreError("the process ended before the key was found")
            self._capture.finish(exchange, key.result() if key else None)
        except Exception:  # a defect in capture must never become a failed request; it is logged and counted
            logger.exception("capture: trace %s lost", exchange.identity.trace_id)
            telemetry.count(metrics.TRACES_DROPPED)


def _listen(receive: Receive, exchange: Exchange) -> Receive:
    async def listening() -> Message:
        message = await receive()
        if message["type"] == "http.request" and len(exchange.body) < _MAX_BODY:
            exchange.body += message.get("body", b"")
        return message

    return listening
