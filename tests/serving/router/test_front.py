"""The front door over real sockets: pass-through, retries, identity, feedback."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from intakes import SECRET
from ports import free_port
from starlette.requests import Request
from starlette.responses import Response
from upstreams import Front, MakeFront, Upstream, serving

from infra.errors import StoreError
from ingest.privacy.intake import Intake
from ingest.privacy.keys import KeyStore
from ingest.privacy.pseudonyms import user_pseudonym
from ingest.privacy.sealed_log import unsealed
from ingest.records import codec
from ingest.records.events import Feedback, session_key
from serving import headers


def feedback_on(front: Front, keyring: KeyStore) -> list[Feedback]:
    """What the spool holds, unsealed."""
    frames = [unsealed(frame.value, frame.headers, keyring) for frame in front.spool.pending()]
    return [codec.decode(value, kept, Feedback) for value, kept in frames]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def test_a_reply_comes_back_as_the_engine_gave_it(front: MakeFront, upstream: Upstream) -> None:
    async with upstream.serving():
        door = await front(upstream)
        answer = await door.chat(**{headers.SESSION: "s1"})
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == upstream.text
    assert answer.headers[headers.TRACE].startswith(session_key("s1"))
    assert answer.json()["id"] == f"chatcmpl-{answer.headers[headers.TRACE]}"


async def test_a_stream_comes_back_chunk_for_chunk(front: MakeFront, upstream: Upstream) -> None:
    async with upstream.serving():
        door = await front(upstream)
        answer = await door.chat(stream=True)
    words = [json.loads(line[6:])["word"] for line in answer.text.splitlines() if line.startswith("data: {")]
    assert words == upstream.text.split()
    assert answer.text.rstrip().endswith("[DONE]")


async def test_a_dead_engine_costs_the_user_nothing_while_another_lives(front: MakeFront, upstream: Upstream) -> None:
    gone = Upstream()
    async with upstream.serving():
        door = await front(gone, upstream)
        answers = [await door.chat(**{headers.SESSION: f"s{n}"}) for n in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    assert door.router.health.down == {"e0"}


async def test_an_engine_that_answers_500_is_left_for_another_under_a_trace_of_its_own(front: MakeFront) -> None:
    broken, good = Upstream(), Upstream()
    broken.fails_with = 500
    async with broken.serving(), good.serving():
        door = await front(broken, good)
        answers = [await door.chat(**{headers.SESSION: f"s{n}"}) for n in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    tried = {seen[headers.TRACE] for seen in broken.seen}
    assert tried
    assert tried.isdisjoint(seen[headers.TRACE] for seen in good.seen), "ingest keeps the first trace of an id"
    assert [answer.headers[headers.TRACE] for answer in answers] == [seen[headers.TRACE] for seen in good.seen]
    assert [seen[headers.SESSION] for seen in good.seen] == [f"s{n}" for n in range(12)]


async def test_until_the_router_knows_what_is_released_no_user_meets_a_candidates_engine(front: MakeFront) -> None:
    stable, candidate = Upstream(), Upstream()
    async with stable.serving(), candidate.serving():
        door = await front(stable, candidate)
        door.router._stables = frozenset({"e0"})
        for n in range(12):
            assert (await door.chat(**{headers.SESSION: f"s{n}"})).status_code == 200
    assert (len(stable.seen), len(candidate.seen)) == (12, 0)


async def test_a_request_that_every_engine_fails_at_takes_no_engine_from_others(front: MakeFront) -> None:
    first, second = Upstream(), Upstream()
    first.fails_with = second.fails_with = 500
    async with first.serving(), second.serving():
        door = await front(first, second)
        door.router._is_starting = False
        assert (await door.chat()).status_code == 500
        assert door.router.trouble == "" and door.router.health.down == set()


async def test_a_request_that_engines_fail_at_is_asked_again_less_and_less_often(
    front: MakeFront, upstream: Upstream
) -> None:
    upstream.fails_with = 500
    async with upstream.serving():
        door = await front(upstream, retry_for_s=3.0)
        door.router._is_starting = False
        assert (await door.chat()).status_code == 500
    assert len(upstream.seen) <= 6, "15 times, were it asked every fifth of a second"


async def test_an_engine_behind_a_proxy_that_does_not_reach_it_is_down(front: MakeFront) -> None:
    away, good = Upstream(), Upstream()
    away.fails_with = 503
    async with away.serving(), good.serving():
        door = await front(away, good)
        answers = [await door.chat(**{headers.SESSION: f"s{n}"}) for n in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    assert door.router.health.down == {"e0"}


async def test_an_engine_that_hangs_when_probed_keeps_no_other_from_being_up_again(front: MakeFront) -> None:
    hanging, other, end = Upstream(), Upstream(), asyncio.Event()

    async def hang(_request: Request) -> Response:
        await end.wait()
        return Response()

    hanging.health = hang  # type: ignore[method-assign]
    other.fails_with = 503
    async with hanging.serving(), other.serving():
        door = await front(hanging, other)
        probing = asyncio.create_task(door.router.probe())
        try:
            async with asyncio.timeout(5.0):
                while "e1" not in door.router.health.down:  # noqa: ASYNC110 - health has no event
                    await asyncio.sleep(0.01)
                other.fails_with = None
                while "e1" in door.router.health.down:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            end.set()
            probing.cancel()


async def test_an_engine_is_let_go_when_its_client_leaves_before_the_reply(front: MakeFront) -> None:
    engine, begun, let_go = Upstream(), asyncio.Event(), asyncio.Event()

    async def answers_never(request: Request) -> Response:
        await request.body()
        begun.set()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        let_go.set()
        return Response()

    engine.chat = answers_never  # type: ignore[method-assign]
    port = free_port()
    async with engine.serving(), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        door = await front(engine)
        async with serving(door.router.application(), port):
            asked = asyncio.create_task(client.post("/v1/chat/completions", json={}))
            await begun.wait()
            asked.cancel()
            try:
                await asyncio.wait_for(let_go.wait(), 5.0)
            finally:
                await door.router.close()
    assert door.router.counts["retries"] == 0


@pytest.mark.parametrize("path", ["/v1/%2e%2e/health", "/v1/%252e%252e/health", "/v1/models/%2e%2e/%2e./health"])
async def test_no_path_leads_out_of_what_users_may_ask(front: MakeFront, upstream: Upstream, path: str) -> None:
    async with upstream.serving():
        door = await front(upstream)
        answer = await door.client.get(path)
    assert answer.status_code == 404
    assert "must not hold '..'" in answer.json()["error"]["message"]


async def test_a_method_that_no_engine_knows_is_refused_by_the_router(front: MakeFront, upstream: Upstream) -> None:
    async with upstream.serving():
        door = await front(upstream)
        answer = await door.client.put("/v1/models")
    assert answer.status_code == 405
    assert answer.json()["error"]["message"] == "a method must be one of GET, HEAD, POST, got PUT"
    assert upstream.seen == []


async def test_a_request_that_the_engine_refuses_is_not_retried(front: MakeFront) -> None:
    strict, other = Upstream(), Upstream()
    strict.fails_with = other.fails_with = 422
    async with strict.serving(), other.serving():
        door = await front(strict, other)
        answer = await door.chat()
    assert answer.status_code == 422
    assert len(strict.seen) + len(other.seen) == 1


async def test_before_any_engine_was_up_the_user_is_told_at_once(front: MakeFront) -> None:
    door = await front(Upstream(), Upstream())
    answer = await door.chat()
    assert answer.status_code == 503
    assert "the engines are starting" in answer.json()["error"]["message"]
    assert door.router.counts["retries"] == 2


async def test_when_all_engines_are_gone_the_user_gets_503_after_the_wait_and_not_a_hang(
    front: MakeFront, upstream: Upstream
) -> None:
    async with upstream.serving():
        door = await front(upstream)
        await door.chat()
    answer = await door.chat()
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "no engine could serve this: e0 does not answer"
    assert door.router.counts["retries"] > 1


async def test_a_stream_that_breaks_after_its_first_byte_is_cut_for_the_client_too(front: MakeFront) -> None:
    dying = Upstream()
    dying.dies_after, dying.pause_s = 2, 0.1
    port = free_port()
    async with dying.serving(), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        door = await front(dying)
        async with serving(door.router.application(), port):
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
                async with client.stream("POST", "/v1/chat/completions", json={"stream": True}) as answer:
                    await answer.aread()
    assert door.router.counts["broken_streams"] == 1


async def test_a_client_cannot_speak_for_the_router(front: MakeFront, upstream: Upstream) -> None:
    forged = {headers.ARM: "candidate", headers.TRIAL: "7", headers.TENANT: "root", headers.TRACE: "mine"}
    async with upstream.serving():
        door = await front(upstream)
        await door.chat(**forged)
    (seen,) = upstream.seen
    assert (seen[headers.ARM], seen[headers.TENANT]) == ("stable", "default")
    assert headers.TRIAL not in seen
    assert seen[headers.TRACE] != "mine"


async def test_consent_and_turn_reach_the_engine(front: MakeFront, upstream: Upstream) -> None:
    async with upstream.serving():
        door = await front(upstream)
        await door.chat(**{headers.CONSENT: "no", headers.TURN: "side"})
    identity = headers.read(upstream.seen[0])
    assert not identity.is_captured
    assert identity.kind == "side"


async def test_a_summary_turn_and_a_parent_session_reach_the_engine(front: MakeFront, upstream: Upstream) -> None:
    async with upstream.serving():
        door = await front(upstream)
        await door.chat(**{headers.TURN: "summary", headers.PARENT_SESSION: "the-caller"})
        await door.chat()
    told, silent = map(headers.read, upstream.seen)
    assert (told.kind, told.parent_session_id) == ("summary", "the-caller")
    assert (silent.kind, silent.parent_session_id) == ("main", None)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (headers.PARENT_SESSION, "two words", "visible ASCII"),
        (headers.SESSION, "two words", "visible ASCII"),
        (headers.SESSION, "x" * 300, "1 to 200"),
        (headers.TURN, "sideways", "must be one of main, summary, side"),
        (headers.CONSENT, "maybe", "must be yes or no, got 'maybe'"),
    ],
)
async def test_a_bad_header_is_named_with_its_rule(front: MakeFront, name: str, value: str, told: str) -> None:
    answer = await (await front(Upstream())).chat(**{name: value})
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]
    assert told in answer.json()["error"]["message"]


async def test_an_unknown_api_key_is_refused_and_a_known_one_names_its_tenant(
    front: MakeFront, upstream: Upstream
) -> None:
    async with upstream.serving():
        door = await front(upstream, api_keys={digest("k1"): "acme"})
        assert (await door.chat()).status_code == 401
        assert (await door.chat(authorization="Bearer k2")).status_code == 401
        assert (await door.chat(authorization=f"Bearer {digest('k1')}")).status_code == 401
        assert (await door.chat(authorization="Bearer k1")).status_code == 200
    assert upstream.seen[0][headers.TENANT] == "acme"
    assert "authorization" not in upstream.seen[0]


async def test_two_tenants_may_use_the_same_names(keyring: KeyStore, front: MakeFront, upstream: Upstream) -> None:
    async with upstream.serving():
        door = await front(upstream, api_keys={digest("k1"): "acme", digest("k2"): "other"})
        for key in ("k1", "k2"):
            bearer = {"authorization": f"Bearer {key}"}
            answer = await door.chat(**bearer, **{headers.SESSION: "s1", headers.PARENT_SESSION: "s0"})
            assert answer.headers[headers.SESSION] == "s1"
            given = {"session": "s1", "value": 1, "feedback_id": "f1"}
            await door.client.post("/v1/feedback", json=given, headers=bearer)
    for name in (headers.SESSION, headers.PARENT_SESSION):
        assert len({seen[name] for seen in upstream.seen}) == 2
    records = feedback_on(door, keyring)
    assert [record.session_id for record in records] == [seen[headers.SESSION] for seen in upstream.seen]
    assert len({record.feedback_id for record in records}) == 2


async def test_feedback_by_completion_id_finds_its_traces_partition(keyring: KeyStore, front: MakeFront) -> None:
    door = await front(Upstream())
    trace = headers.new_trace("s1")
    answer = await door.client.post(
        "/v1/feedback", json={"id": f"chatcmpl-{trace}", "value": -1, "comment": "too long"}
    )
    assert answer.status_code == 202
    (record,) = feedback_on(door, keyring)
    assert (record.trace_id, record.value, record.comment) == (trace, -1.0, "too long")
    assert next(door.spool.pending()).key == session_key("s1")
    assert answer.json() == {"feedback_id": record.feedback_id}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"id": "x", "value": 2}, "value: Input should be less than or equal to 1, got 2"),
        ({"value": 1}, "feedback: must name a completion (`id`) or a `session`, got {'value': 1}"),
        ({"id": "x", "value": 1, "thumb": "up"}, "thumb: Extra inputs are not permitted"),
        ({"id": "x", "value": "good"}, "value: Input should be a valid number"),
        ({"id": "x", "value": True}, "value: Input should be a valid number, got True"),
        ({"id": "x", "session": "s", "value": 1}, "id: 'x' is no completion of session 's'"),
        ("{not json", "Invalid JSON"),
    ],
)
async def test_malformed_feedback_is_named_and_not_stored(
    keyring: KeyStore, front: MakeFront, body: object, told: str
) -> None:
    door = await front(Upstream())
    content = body if isinstance(body, str) else json.dumps(body)
    answer = await door.client.post("/v1/feedback", content=content)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    assert feedback_on(door, keyring) == []


async def test_feedback_may_name_a_completion_and_its_session(keyring: KeyStore, front: MakeFront) -> None:
    door = await front(Upstream())
    given = {"id": headers.new_trace("s1"), "session": "s1", "value": 1}
    assert (await door.client.post("/v1/feedback", json=given)).status_code == 202
    (record,) = feedback_on(door, keyring)
    assert (record.trace_id, record.session_id) == (given["id"], "s1")


async def test_a_body_that_is_too_large_is_refused_before_it_is_read_to_its_end(front: MakeFront) -> None:
    door = await front(Upstream())
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 20
            yield bytes(1 << 20)

    answer = await door.client.post("/v1/chat/completions", content=endless())
    assert answer.status_code == 413
    assert sent < 1 << 26


async def test_feedback_needs_no_broker(keyring: KeyStore, front: MakeFront) -> None:
    door = await front(Upstream())
    for n in range(5):
        answer = await door.client.post("/v1/feedback", json={"session": "s1", "value": 1, "feedback_id": f"f{n}"})
        assert answer.status_code == 202
    assert [record.feedback_id for record in feedback_on(door, keyring)] == [f"f{n}" for n in range(5)]


ANNA = user_pseudonym(SECRET, "default", "anna@example.org")


@pytest.mark.parametrize(
    ("named", "body"),
    [
        ({headers.USER: "anna@example.org"}, {}),
        ({}, {"user": "anna@example.org"}),
        ({}, {"safety_identifier": "anna@example.org"}),
        ({}, {"metadata": {"user_id": "anna@example.org"}}),
        ({headers.USER: "anna@example.org"}, {"user": "somebody"}),
    ],
)
async def test_a_user_is_a_pseudonym_from_the_router_on(
    front: MakeFront, upstream: Upstream, named: dict[str, str], body: dict[str, object]
) -> None:
    async with upstream.serving():
        door = await front(upstream)
        await door.client.post("/v1/chat/completions", json={"messages": [], **body}, headers=named)
    (seen,) = upstream.seen
    assert seen[headers.PSEUDONYM] == ANNA
    assert not any("anna" in value for value in seen.values())


async def test_a_user_has_one_pseudonym_however_named(keyring: KeyStore, front: MakeFront, upstream: Upstream) -> None:
    by_header = {headers.USER: "J\u00fcrgen".encode()}
    async with upstream.serving():
        door = await front(upstream)
        await door.client.post("/v1/chat/completions", json={}, headers=by_header)
        await door.client.post("/v1/chat/completions", json={}, headers={headers.USER: "J\u00fcrgen".encode("latin-1")})
        await door.client.post("/v1/chat/completions", json={"user": "J\u00fcrgen"})
        await door.client.post("/v1/feedback", json={"session": "s", "value": 1}, headers=by_header)
    (record,) = feedback_on(door, keyring)
    named = user_pseudonym(SECRET, "default", "J\u00fcrgen")
    assert {record.user, *(seen[headers.PSEUDONYM] for seen in upstream.seen)} == {named}


@pytest.mark.parametrize(
    "body", [b'{"messages": [{"role": "user", "content": "\\"user\\": x"}]}', b'{"user": 7}', b"[1]"]
)
async def test_who_names_no_user_has_no_pseudonym(front: MakeFront, upstream: Upstream, body: bytes) -> None:
    async with upstream.serving():
        door = await front(upstream)
        forged = {headers.PSEUDONYM: "forged"}
        await door.client.post("/v1/chat/completions", content=body, headers=forged)
    assert all(headers.PSEUDONYM not in seen for seen in upstream.seen)


@pytest.mark.parametrize(
    ("by_default", "said", "consent"),
    [(True, "yes", "given"), (True, None, "assumed"), (False, None, "no"), (False, "yes", "given"), (True, "no", "no")],
)
async def test_consent_goes_along_with_how_it_was_had(
    front: MakeFront, upstream: Upstream, by_default: bool, said: str | None, consent: str
) -> None:
    async with upstream.serving():
        door = await front(upstream, capture_by_default=by_default)
        await door.chat(**({} if said is None else {headers.CONSENT: said}))
    assert [seen[headers.CONSENT] for seen in upstream.seen] == [consent]


@pytest.mark.parametrize(("by_default", "said"), [(True, "no"), (False, None), (False, "no")])
async def test_without_consent_nothing_of_feedback_is_stored_and_the_client_is_told(
    front: MakeFront, tmp_path: Path, by_default: bool, said: str | None
) -> None:
    door = await front(Upstream(), capture_by_default=by_default)
    given = {"session": "s", "value": 1, "comment": "Hm.", "user": "anna", "feedback_id": "f1"}
    about = {} if said is None else {headers.CONSENT: said}
    answer = await door.client.post("/v1/feedback", json=given, headers=about)
    assert (answer.status_code, answer.json()) == (200, {"feedback_id": "f1", "stored": False})
    assert {path.read_bytes() for path in (tmp_path / "router").iterdir()} == {b""}
    assert door.router.counts["feedback"] == 0 and door.router.counts["feedback_unconsented"] == 1


async def test_feedback_with_consent_is_stored_where_nothing_is_without(keyring: KeyStore, front: MakeFront) -> None:
    door = await front(Upstream(), capture_by_default=False)
    given = {"session": "s", "value": 1}
    assert (await door.client.post("/v1/feedback", json=given, headers={headers.CONSENT: "yes"})).status_code == 202
    refused = await door.client.post("/v1/feedback", json=given, headers={headers.CONSENT: "maybe"})
    assert refused.status_code == 400
    assert [record.value for record in feedback_on(door, keyring)] == [1.0]


async def test_a_comment_is_redacted_and_sealed_before_it_is_on_disk(keyring: KeyStore, front: MakeFront) -> None:
    door = await front(Upstream())
    given = {"session": "s", "value": 1, "comment": "Ask bob@example.org.", "user": "anna@example.org"}
    assert (await door.client.post("/v1/feedback", json=given)).status_code == 202
    (frame,) = door.spool.pending()
    assert b"Ask" not in frame.value and frame.headers["sealed"].startswith(f"user-{ANNA}/")
    (record,) = feedback_on(door, keyring)
    assert record.comment.startswith("Ask <EMAIL_") and record.redacted == {"email": 1}
    assert record.user == ANNA


async def test_a_comment_of_nobody_known_is_sealed_under_its_sessions_key(front: MakeFront) -> None:
    door = await front(Upstream())
    trace = headers.new_trace("s")
    for about in ({"session": "s"}, {"id": trace}):
        await door.client.post("/v1/feedback", json={"value": 1, "comment": "Hm.", **about})
    subjects = {frame.headers["sealed"].partition("/")[0] for frame in door.spool.pending()}
    assert subjects == {f"session-{session_key('s')}"}


async def test_without_keys_a_comment_is_not_taken_and_the_client_is_told(
    front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreError("keys at s3://keys: away")

    monkeypatch.setattr(Intake, "key_for", away)
    door = await front(Upstream())
    answers = [
        await door.client.post("/v1/feedback", json={"session": "s", "value": 1, "comment": comment})
        for comment in ("words", "")
    ]
    assert [answer.status_code for answer in answers] == [503, 202]


async def test_a_comment_about_a_trace_has_the_placeholders_of_its_session_and_of_no_other(
    keyring: KeyStore, front: MakeFront
) -> None:
    door = await front(Upstream())
    for about in ({"session": "s"}, {"id": headers.new_trace("s")}, {"id": headers.new_trace("t")}):
        await door.client.post("/v1/feedback", json={"value": 1, "comment": "bob@example.org", **about})
    by_session, by_trace, other = (record.comment for record in feedback_on(door, keyring))
    assert by_session == by_trace != other
