"""Capture around a generator that behaves as vLLM's, and an application that behaves as its server."""

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from intakes import SECRET, intake, spelled
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from told import telling

from infra.errors import StoreError
from infra.telemetry import metrics
from ingest.privacy.intake import Intake
from ingest.privacy.keys import KeyStore
from ingest.privacy.kinds import Kind
from ingest.privacy.sealed_log import unsealed
from ingest.records import codec, prefixes
from ingest.records.events import Arm, Assignment, Consent, Group, Trace, TurnKind
from ingest.records.ids import trace_of
from ingest.records.named import trace_ids_in
from serving import headers
from serving.engine import capture
from serving.engine.capture import Capture, CaptureMiddleware, answer_with_trace_ids
from serving.engine.recent import Recent
from serving.headers import Identity
from serving.spool import Spool

TOKENS = (11, 12, 13, 14)


def output(tokens: tuple[int, ...], finished: bool, versions: tuple[tuple[str, int, int], ...] = (("3", 0, 4),)) -> Any:
    part = SimpleNamespace(
        index=0,
        text="".join(f"<{t}>" for t in tokens),
        token_ids=tokens,
        logprobs=[{t: SimpleNamespace(logprob=-t / 8)} for t in tokens],
        finish_reason="stop" if finished else None,
        weight_versions=[SimpleNamespace(version=v, start=s, end=e) for v, s, e in versions] if finished else None,
    )
    return SimpleNamespace(prompt_token_ids=[1, 2], outputs=[part])


class Vllm:
    """The part of vLLM that capture touches: `generate`, and a handler that uses it."""

    def __init__(self) -> None:
        self.prompts: list[Any] = []
        self.hangs_after: int | None = None
        self.hanging = asyncio.Event()
        self.prompt_token_ids = [1, 2]
        self.tokens: tuple[int, ...] = TOKENS

    async def generate(self, prompt: Any, params: Any, request_id: str) -> AsyncIterator[Any]:
        self.prompts.append(prompt)
        assert params.logprobs is not None
        if params.output_kind.name == "FINAL_ONLY":
            whole = output(self.tokens, finished=True, versions=(("3", 0, len(self.tokens)),))
            whole.prompt_token_ids = self.prompt_token_ids
            yield whole
            return
        for n, token in enumerate(TOKENS):
            if n == self.hangs_after:
                self.hanging.set()
                await asyncio.Event().wait()
            yield output((token,), finished=n == len(TOKENS) - 1)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    held = Spool(tmp_path, 1 << 20, 1 << 16)
    yield held
    held.close()


class Server:
    def __init__(self, spool: Spool, own: Intake | None = None) -> None:
        self.vllm, self.spool = Vllm(), spool
        self.capture = Capture(spool, "e0", 3, Recent(1 << 20, 900.0), own or intake(Kind.EMAIL), spelled)
        self.generate = self.capture.wrap(self.vllm.generate)
        app = Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])
        self.app = CaptureMiddleware(app, self.capture)

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        if body.get("bad"):
            return JSONResponse({"error": "bad"}, 400)
        kind = SimpleNamespace(name="DELTA" if body.get("stream") else "FINAL_ONLY")
        params = SimpleNamespace(
            logprobs=body.get("logprobs"), output_kind=kind, temperature=0.7, top_p=0.9, max_tokens=4
        )
        outputs = self.generate({"prompt_token_ids": [1, 2]}, params, "chatcmpl-x")
        if not body.get("stream"):
            return JSONResponse({"text": [o.outputs[0].text async for o in outputs]})
        return StreamingResponse(chunk.outputs[0].text async for chunk in outputs)

    async def post(self, body: dict[str, Any], identity: Identity) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://e0") as client:
            return await client.post("/v1/chat/completions", json=body, headers=headers.write(identity))

    async def hang_after(self, num_tokens: int, identity: Identity | None = None) -> asyncio.Task[httpx.Response]:
        """A streamed request that got so many tokens, and waits for the next."""
        self.vllm.hangs_after = num_tokens
        request = asyncio.create_task(self.post({"stream": True}, identity or IDENTITY))
        await self.vllm.hanging.wait()
        return request

    @property
    def traces(self) -> list[Trace]:
        return [codec.decode(frame.value, frame.headers, Trace) for frame in self.spool.pending()]


@pytest.fixture
def server(spool: Spool) -> Server:
    return Server(spool)


IDENTITY = Identity(
    trace_id=headers.new_trace("s1"),
    session_id="s1",
    tenant="acme",
    kind=TurnKind.MAIN,
    assignment=Assignment(arm=Arm.CANDIDATE, trial=3, propensity=0.25),
    consent=Consent.GIVEN,
    parent_session_id="s0",
)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_trace_has_what_the_engine_sampled_and_who_asked(server: Server, streamed: bool) -> None:
    await server.post({"model": "m", "stream": streamed}, IDENTITY)
    (trace,) = server.traces
    assert (trace.trace_id, trace.session_id, trace.tenant, trace.assignment) == (
        IDENTITY.trace_id, "s1", "acme", IDENTITY.assignment,
    )  # fmt: skip
    assert (trace.token_ids, trace.prompt_token_ids) == (TOKENS, (1, 2))
    assert trace.logprobs == pytest.approx([-t / 8 for t in TOKENS])
    assert [(s.version, s.start, s.end) for s in trace.spans] == [(3, 0, 4)]
    assert (trace.finish_reason, trace.reply_text, trace.status) == ("stop", "<11><12><13><14>", 200)
    assert (trace.sampling.temperature, trace.sampling.top_p) == (0.7, 0.9)
    assert trace.request == {"model": "m", "stream": streamed}
    assert trace.parent_session_id == "s0"


@pytest.mark.parametrize("kind", TurnKind)
async def test_a_trace_is_of_the_kind_that_its_client_says(server: Server, kind: TurnKind) -> None:
    await server.post({}, dataclasses.replace(IDENTITY, kind=kind))
    assert [trace.kind for trace in server.traces] == [kind]


async def test_a_session_without_a_parent_names_none(server: Server) -> None:
    await server.post({}, dataclasses.replace(IDENTITY, parent_session_id=None))
    assert [trace.parent_session_id for trace in server.traces] == [None]


class Responses:
    """vLLM's handler of Responses: the reply's id is the request's."""

    async def create_responses(self, request: "ResponsesRequest", _raw: object) -> str:
        return request.request_id


class ResponsesRequest(BaseModel):
    request_id: str = "resp_made-by-vllm"


async def response_id(server: Server, asked: ResponsesRequest, identity: Identity) -> str:
    handler = Responses()
    answer_with_trace_ids(handler)

    async def respond(_request: Request) -> Response:
        return JSONResponse({"id": await handler.create_responses(asked, None)})

    app = CaptureMiddleware(Starlette(routes=[Route("/v1/responses", respond, methods=["POST"])]), server.capture)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://e0") as client:
        found: str = (await client.post("/v1/responses", json={}, headers=headers.write(identity))).json()["id"]
    return found


async def test_a_response_is_named_after_its_trace(server: Server) -> None:
    found = await response_id(server, ResponsesRequest(), IDENTITY)
    assert found == f"resp_{IDENTITY.trace_id}"
    assert trace_of(found) == IDENTITY.trace_id


async def test_a_response_id_that_the_client_gave_or_that_nobody_captured_stays(server: Server) -> None:
    assert await response_id(server, ResponsesRequest(request_id="resp_mine"), IDENTITY) == "resp_mine"
    silent = dataclasses.replace(IDENTITY, consent=None)
    assert await response_id(server, ResponsesRequest(), silent) == "resp_made-by-vllm"


async def test_the_trace_is_on_disk_before_the_client_has_the_whole_reply(server: Server) -> None:
    held: list[int] = []

    async def last_send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            held.append(len(server.traces))

    body = json.dumps({"model": "m"}).encode()
    received = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(received)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "http_version": "1.1",
        "headers": [(k.encode(), v.encode()) for k, v in headers.write(IDENTITY).items()],
    }  # fmt: skip
    await server.app(scope, receive, last_send)
    assert held == [1]


async def test_a_client_that_leaves_in_mid_stream_leaves_a_trace_of_what_it_got(server: Server) -> None:
    request = await server.hang_after(2)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    (trace,) = server.traces
    assert (trace.token_ids, trace.finish_reason) == (TOKENS[:2], "abort")
    assert [(s.version, s.start, s.end) for s in trace.spans] == [(3, 0, 2)]


async def test_an_aborted_reply_that_lived_through_a_swap_claims_no_weights(server: Server) -> None:
    request = await server.hang_after(2)
    server.capture.version = 4
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert server.traces[0].spans == ()


async def test_an_aborted_reply_that_lived_through_a_swap_there_and_back_claims_no_weights(server: Server) -> None:
    request = await server.hang_after(2)
    server.capture.epoch += 2
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert server.traces[0].spans == ()


async def test_the_steps_of_a_beam_search_are_nobodys_replies(server: Server) -> None:
    async def search(_request: Request) -> Response:
        kind = SimpleNamespace(name="FINAL_ONLY")
        params = SimpleNamespace(logprobs=4, output_kind=kind, temperature=0.0, top_p=1.0, max_tokens=1)
        texts = []
        for step in range(3):
            for beam in range(2):
                async for found in server.generate({"prompt_token_ids": [1, 2]}, params, f"x-{step}-beam-{beam}"):
                    texts.append(found.outputs[0].text)
        return JSONResponse({"text": texts})

    server.app = CaptureMiddleware(
        Starlette(routes=[Route("/v1/chat/completions", search, methods=["POST"])]), server.capture
    )
    answer = await server.post({"use_beam_search": True}, IDENTITY)
    assert len(answer.json()["text"]) == 6
    assert server.traces == []


async def test_an_output_that_capture_does_not_understand_costs_the_trace_and_not_the_reply(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def odd(_prompt: Any, _params: Any, _request_id: str) -> AsyncIterator[Any]:
        whole = output(TOKENS, finished=True)
        whole.outputs[0].logprobs = None
        yield whole

    server.generate = server.capture.wrap(odd)
    with telling() as told:
        answer = await server.post({}, IDENTITY)
        assert told.value(metrics.TRACES_DROPPED) == 1
    assert answer.json() == {"text": ["<11><12><13><14>"]}
    assert server.traces == []
    assert f"trace {IDENTITY.trace_id} lost" in caplog.text


async def test_a_replay_of_the_lane_that_was_given_up_leaves_no_trace(server: Server) -> None:
    asked = Assignment(replay_of="k-0", group=Group(size=2, propensity=0.1))
    request = await server.hang_after(2, dataclasses.replace(IDENTITY, assignment=asked))
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert server.traces == []


async def test_without_consent_there_is_no_trace_and_the_reply_is_the_same(server: Server) -> None:
    silent = Identity(**{**IDENTITY.__dict__, "consent": None})
    server.vllm.generate = _with_logprobs(server.vllm)  # type: ignore[method-assign]
    server.generate = server.capture.wrap(server.vllm.generate)
    answer = await server.post({"logprobs": 0}, silent)
    assert answer.json() == {"text": ["<11><12><13><14>"]}
    assert server.traces == []


def _with_logprobs(vllm: Vllm) -> Any:
    return Vllm.generate.__get__(vllm)


async def test_a_refused_request_samples_nothing_and_leaves_no_trace(server: Server) -> None:
    answer = await server.post({"bad": True}, IDENTITY)
    assert answer.status_code == 400
    assert server.traces == []


async def test_requests_after_a_swap_share_no_prefix_cache_with_those_before(server: Server) -> None:
    await server.post({}, IDENTITY)
    server.capture.epoch += 1
    await server.post({}, IDENTITY)
    before, after = (prompt["cache_salt"] for prompt in server.vllm.prompts)
    assert before != after


async def test_a_full_spool_costs_the_trace_and_not_the_reply(tmp_path: Path) -> None:
    small = Spool(tmp_path, 10, 10)
    full = Server(small)
    answer = await full.post({}, IDENTITY)
    assert answer.status_code == 200
    assert small.num_dropped == 1
    small.close()


async def test_a_defect_in_capture_costs_the_trace_and_not_the_reply(server: Server) -> None:
    server.capture._engine_id = None  # type: ignore[assignment]
    answer = await server.post({}, IDENTITY)
    assert answer.status_code == 200
    assert server.traces == []


def posted(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


async def test_a_trace_names_its_user_by_pseudonym_only_and_says_how_consent_was_had(server: Server) -> None:
    known = dataclasses.replace(IDENTITY, user="5f2c0a9e", consent=Consent.ASSUMED)
    await server.post(
        posted("hi", user="anna", metadata={"user_id": "anna", "of": "x"}, safety_identifier="anna"), known
    )
    (trace,) = server.traces
    assert (trace.user, trace.consent) == ("5f2c0a9e", Consent.ASSUMED)
    assert trace.request == posted("hi", metadata={"of": "x"})


async def test_private_values_are_in_no_text_and_no_token_of_a_trace(server: Server) -> None:
    address = "anna@example.org"
    server.vllm.prompt_token_ids = [1, *map(ord, f"mail {address} now"), 2000]
    await server.post(posted(f"mail {address} now"), IDENTITY)
    (trace,) = server.traces
    said = trace.request["messages"][0]["content"]
    assert said.startswith("mail <EMAIL_") and trace.redacted == {"email": 1}
    spelt = spelled(trace.prompt_token_ids)
    assert "".join(spelt[1:6]) == "mail " and "".join(spelt[-5:-1]) == " now"
    assert set(trace.prompt_token_ids[6 : 6 + len(address)]) == {0}
    assert len(trace.prompt_token_ids) == len(server.vllm.prompt_token_ids)
    assert not trace.is_reply_altered and trace.token_ids == TOKENS


async def test_a_reply_that_was_redacted_says_so(server: Server) -> None:
    server.vllm.tokens = tuple(map(ord, "to anna@example.org"))
    await server.post(posted("hi"), IDENTITY)
    (trace,) = server.traces
    assert trace.is_reply_altered and trace.token_ids[3:] == (0,) * 16
    assert trace.logprobs[3:] == (0.0,) * 16 and trace.logprobs[0] != 0.0


async def test_a_next_turn_leans_on_what_was_stored_of_a_redacted_one(server: Server) -> None:
    first = posted("I am anna@example.org")
    await server.post(first, IDENTITY)
    server.vllm.prompt_token_ids = [1, 2, *TOKENS, 5]
    more = [{"role": "assistant", "content": "<11><12><13><14>"}, {"role": "user", "content": "Who am I?"}]
    again = dataclasses.replace(IDENTITY, trace_id=headers.new_trace("s1"))
    await server.post({"messages": first["messages"] + more}, again)
    stored, cut = server.traces
    assert cut.prefix is not None and cut.prompt_token_ids == (5,)
    frame = next(server.spool.pending())
    assert cut.prefix.digest == prefixes.digest(frame.value)
    whole = prefixes.whole(cut, stored)
    assert whole.request["messages"] == stored.request["messages"] + more
    assert whole.redacted == {"email": 1} and cut.redacted == {}


@pytest.fixture
def sealing(spool: Spool, tmp_path: Path) -> Server:
    return Server(spool, intake(keyring=KeyStore(str(tmp_path / "keys"), SECRET)))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply waits for its key as long as it takes."""
    monkeypatch.setattr(capture, "_KEY_WAIT_S", 60.0)


@pytest.mark.usefixtures("patient")
async def test_a_trace_is_sealed_under_its_users_key_before_it_is_on_disk(sealing: Server, tmp_path: Path) -> None:
    known = dataclasses.replace(IDENTITY, user="5f2c0a9e")
    await sealing.post(posted("my words"), known)
    await sealing.post(posted("my words"), IDENTITY)
    frames = list(sealing.spool.pending())
    assert [frame.headers["sealed"].partition("/")[0] for frame in frames] == ["user-5f2c0a9e", "tenant-acme"]
    assert not any(b"words" in frame.value for frame in frames)
    value, kept = unsealed(frames[0].value, frames[0].headers, KeyStore(str(tmp_path / "keys"), SECRET))
    assert codec.decode(value, kept, Trace).request == posted("my words")
    assert trace_ids_in(frames[0].key, frames[0].headers) == (IDENTITY.trace_id,)


@pytest.mark.usefixtures("patient")
async def test_without_keys_a_user_has_their_reply_and_nothing_is_written(
    sealing: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise StoreError("keys at s3://keys: away")

    monkeypatch.setattr(Intake, "key_for", away)
    assert (await sealing.post(posted("hi"), IDENTITY)).status_code == 200
    assert list(sealing.spool.pending()) == []
    assert f"trace {IDENTITY.trace_id} lost" in caplog.text and "my words" not in caplog.text


async def test_a_reply_does_not_wait_for_slow_keys_and_its_trace_is_written_once_they_answer(
    sealing: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    come, real = threading.Event(), Intake.key_for

    def slow(self: Intake, user: str, tenant: str, session: str | None = None) -> Any:
        come.wait()
        return real(self, user, tenant, session)

    monkeypatch.setattr(Intake, "key_for", slow)
    assert (await sealing.post(posted("hi"), IDENTITY)).status_code == 200
    assert list(sealing.spool.pending()) == []
    come.set()
    while not list(sealing.spool.pending()):  # noqa: ASYNC110 - the callback has no event of its own
        await asyncio.sleep(0.01)
