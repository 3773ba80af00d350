"""`onstream smoke` against a router's double in front of the real ingest and rewards stages."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from traffic import session as traffic_session

from infra.config import Config, IngestConfig, LogConfig, ModelConfig
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.reader import replay, send
from ingest.log.topics import FEEDBACK, TRACES
from ingest.records.events import Feedback, Trace, TurnKind, session_key
from ingest.sessions.assemble import Assembler
from rewards.asking import Background
from rewards.scorers import FeedbackScorer, Services
from rewards.spec import RewardSpec, Scoring
from rewards.stage import Stage
from serving import headers
from serving.smoke import SmokeError, smoke


class Loop:
    """A router that captures what it is asked; ingest and rewards run when a session is ended."""

    def __init__(self, folder: Path) -> None:
        self.log = InMemoryLog()
        self.log.create(topics.specs(2, 3600.0))
        self.config = Config(
            run_dir=str(folder),
            model=ModelConfig(path="unused", name="m"),
            log=LogConfig(partitions=2),
            ingest=IngestConfig(inactivity_s=60.0, horizon_s=3600.0, held_out_share=0.0),
        )
        self.asked: list[httpx.Request] = []
        self.captures, self.is_scored = True, True

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self._answer), base_url="http://router")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        body = json.loads(request.content)
        assert request.headers[headers.CONSENT] == "yes"
        if request.url.path == "/v1/feedback":
            given = Feedback(
                feedback_id="end",
                session_id=body["session"],
                tenant="default",
                name=body["name"],
                value=body["value"],
                at=time.time(),
            )
            send(self.log, FEEDBACK, session_key(body["session"]), given)
            if self.is_scored:
                self._run_stages()
            return httpx.Response(202)
        trace = self._capture(request.headers[headers.SESSION], TurnKind(request.headers[headers.TURN]))
        return httpx.Response(200, headers={headers.TRACE: trace.trace_id})

    def _capture(self, session: str, kind: TurnKind) -> Trace:
        one = traffic_session(1).traces[0]
        now = time.time()
        trace = one.model_copy(
            update={
                "session_id": session,
                "trace_id": f"{session_key(session)}-{'0' * 32}",
                "kind": kind,
                "started_at": now - 1.0,
                "finished_at": now,
            }
        )
        if self.captures:
            send(self.log, TRACES, session_key(session), trace)
        return trace

    def _run_stages(self) -> None:
        now = time.time()
        ingest = Assembler(self.log, self.config, clock=lambda: now)
        for _ in range(8):
            now += 10.0  # a session settles before it is closed
            ingest.step(0.0)
        ingest.close()
        spec = RewardSpec.model_validate({"name": "test", "components": [{"name": "thumb", "scorer": "x"}]})
        with Background(Services()) as asking:
            stage = Stage(self.log, self.config, Scoring(spec, (FeedbackScorer(),), (), "test@0"), asking)
            stage.step(0.0)
            stage.close()


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def test_a_request_is_followed_to_its_trace_and_its_reward(loop: Loop) -> None:
    told = list(smoke(loop.config, loop.log, loop.client(), 5.0))
    first, *seen = [line.partition(":")[0] for line in told]
    assert first == "the router answered"
    assert sorted(seen) == ["its reward is on the log", "its trace is on the log"]


def test_the_request_is_a_side_turn_which_never_trains(loop: Loop) -> None:
    list(smoke(loop.config, loop.log, loop.client(), 5.0))
    assert loop.asked[0].headers[headers.CONSENT] == "yes"
    (trace,) = replay(loop.log, TRACES, Trace)
    assert trace.kind is TurnKind.SIDE


def test_a_trace_that_is_not_captured_is_missed_by_name(loop: Loop) -> None:
    loop.captures = False
    with pytest.raises(SmokeError, match=r"^trace \S+: no trace and no reward on the log in time$"):
        list(smoke(loop.config, loop.log, loop.client(), 0.1))


def test_a_session_that_nobody_scores_is_told_from_one_that_nobody_captured(loop: Loop) -> None:
    loop.is_scored = False
    with pytest.raises(SmokeError, match=r"^trace \S+: no reward on the log in time$"):
        list(smoke(loop.config, loop.log, loop.client(), 0.1))


def test_another_sessions_reward_does_not_pass_for_ours(loop: Loop) -> None:
    answer: Callable[[httpx.Request], httpx.Response] = loop._answer
    other = "f" * 16 + "-" + "1" * 32

    def elsewhere(request: httpx.Request) -> httpx.Response:
        given = answer(request)
        if headers.TRACE in given.headers:
            given.headers[headers.TRACE] = other
        return given

    client = httpx.Client(transport=httpx.MockTransport(elsewhere), base_url="http://router")
    with pytest.raises(SmokeError, match=f"trace {other}: no trace and no reward"):
        list(smoke(loop.config, loop.log, client, 0.1))


def test_what_the_router_refuses_is_said_with_its_words(loop: Loop) -> None:
    client = httpx.Client(
        transport=httpx.MockTransport(lambda _: httpx.Response(401, text="needs an API key")), base_url="http://router"
    )
    with pytest.raises(SmokeError, match=r"POST /v1/chat/completions: must succeed, got 401: needs an API key"):
        list(smoke(loop.config, loop.log, client, 5.0))
