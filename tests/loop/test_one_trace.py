"""One trace from a user's request to the release that it led to, through every stage and a restart of each.

The stages are the real ones over an in-memory log; the engine samples fixed tokens and the learner learns nothing.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from intakes import intake, spelled
from opentelemetry.sdk.trace import ReadableSpan
from ports import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from still import StillPolicy
from told import Told, telling
from upstreams import serving

from infra.config import Config, EngineSlot, RouterConfig
from infra.lifecycle import Stop
from infra.telemetry import metrics
from ingest.log import reader, topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import FEEDBACK_AT, Release, ReleaseKind, TrialState
from ingest.sessions.assemble import Assembler
from ingest.store import releases
from ingest.store.versions import VersionStore
from rewards.asking import Background
from rewards.scorers import FeedbackScorer, Services
from rewards.spec import RewardSpec, Scoring
from rewards.stage import Stage
from serving import headers
from serving.engine.capture import Capture, CaptureMiddleware
from serving.engine.recent import Recent
from serving.rollout.controller import Rollout
from serving.rollout.engines import EngineStatus
from serving.router.front import Router
from serving.spool import Shipper, Spool
from trainer.loop import Trainer
from trainer.publish import publish

SESSIONS = 4
TOKENS = (5, 6, 7)
CONTENT = "what-a-user-typed"


class KilledError(BaseException):
    """Stands for kill -9: nothing catches it."""


@dataclass
class Hand:
    """What the rollout holds of an engine."""

    slot: EngineSlot
    version: int = 0
    told: list[str] = field(default_factory=list)

    def status(self) -> EngineStatus:
        return EngineStatus(self.version, 0)

    def hold(self, _versions: Sequence[int]) -> None: ...

    def load(self, version: int, _epoch: int) -> dict[str, float]:
        self.version = version
        return {"fetch_s": 0.0, "pause_s": 0.01}

    def probe(self) -> None: ...

    def close(self) -> None: ...


class Engine:
    """A server that samples `TOKENS`, with capture around it; `seen` are the contexts that vLLM would take,
    `beside` what stands beside them."""

    def __init__(self, folder: Path) -> None:
        self.port, self.seen, self.beside = free_port(), dict[str, str](), list[str]()
        self.spool = Spool(folder, 1 << 20, 1 << 16)
        capture = Capture(self.spool, "stable-0", 0, Recent(1 << 20, 900.0), intake(), spelled, "small")
        self._generate = capture.wrap(self._sample)
        app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])
        self.app: Any = CaptureMiddleware(app, capture)

    async def _sample(self, _prompt: Any, params: Any, _request_id: str) -> AsyncIterator[Any]:
        versions = [SimpleNamespace(version="0", start=0, end=len(TOKENS))]
        for number, token in enumerate(TOKENS):
            is_last = number == len(TOKENS) - 1
            part = SimpleNamespace(
                index=0, text=f" {CONTENT}", token_ids=(token,), logprobs=[{token: SimpleNamespace(logprob=-1.0)}],
                finish_reason="stop" if is_last else None, weight_versions=versions if is_last else None,
            )  # fmt: skip
            yield SimpleNamespace(prompt_token_ids=[1, 2], outputs=[part])

    async def _chat(self, request: Request) -> Any:
        self.seen[request.headers[headers.TRACE]] = request.headers["traceparent"]
        self.beside += [request.headers.get(name, "") for name in ("tracestate", "baggage")]
        params = SimpleNamespace(
            logprobs=None, output_kind=SimpleNamespace(name="DELTA"), temperature=0.7, top_p=0.9, max_tokens=4
        )
        outputs = self._generate({"prompt_token_ids": [1, 2]}, params, "chatcmpl-x")
        return StreamingResponse((chunk.outputs[0].text async for chunk in outputs), media_type="text/event-stream")


class World:
    """Everything that outlives a process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.log = folder, 10_000_000_000.0, InMemoryLog()  # after any request's own time
        self.log.create(topics.specs(partitions=2, retention_s=1e9))
        given = {
            "run_dir": str(folder), "model": {"path": str(folder)}, "log": {"partitions": 2},
            "ingest": {"inactivity_s": 4.0, "held_out_share": 0.0},
            "trainer": {"batch_turns": SESSIONS, "minibatch_turns": 2},
            "serving": {
                "rollout": {"tick_s": 0.01, "gate": {"min_champion_units": 2, "guardrails": [], "settle_s": 0}}
            },
        }  # fmt: skip
        self.config = Config.model_validate(given)
        self.store = VersionStore(self.config.store.url)
        base = folder / "base"
        base.mkdir()
        (base / "model.safetensors").write_text("[0]")
        self.store.publish(0, base, None, {}, {}, 0.0)
        placed = {"stable-0": 0, "candidate-0": 0}
        first = Release(
            release=0, epoch=1, kind=ReleaseKind.BOOTSTRAP, stable=0, engines=placed, reason="first", at=0.0
        )
        reader.send(self.log, topics.RELEASES, "", first)

    def kill(self, stage: Assembler | Stage) -> None:
        """The process is gone: its memory and, after the group's session timeout, its membership."""
        stage.close()
        self.log.restart()

    def ship(self, spool: Spool) -> None:
        Shipper(spool, lambda: self.log, Stop()).ship()

    async def serve(self, engine: Engine) -> list[str]:
        """Users talk and thumb; what the router and the engine wrote is shipped. The trace ids."""
        slot = EngineSlot(id="stable-0", arm="stable", port=engine.port, control_port=1)
        spool, found = Spool(self.folder / "router", 1 << 20, 1 << 16), []
        router = Router({"stable-0": slot}, RouterConfig(), spool, intake())
        router.served = releases.read(self.log)
        await router.start()
        client = httpx.AsyncClient(transport=httpx.ASGITransport(router.application()), base_url="http://router")
        async with serving(engine.app, engine.port), client:
            for number in range(SESSIONS):
                body = {"messages": [{"role": "user", "content": CONTENT}], "user": CONTENT, "stream": True}
                said = {headers.SESSION: f"{CONTENT}-{number}", "tracestate": f"who={CONTENT}"}
                said["baggage"] = f"who={CONTENT}"
                answer = await client.post("/v1/chat/completions", json=body, headers=said)
                assert answer.status_code == 200, answer.text
                found.append(answer.headers[headers.TRACE])
                thumb = {"id": f"chatcmpl-{found[-1]}", "value": number % 2, "comment": CONTENT}
                assert (await client.post("/v1/feedback", json=thumb)).status_code == 202
        await router.close()
        for one in (engine.spool, spool):
            self.ship(one)
            one.close()
        return found

    def ingest(self) -> None:
        """Killed once everything is read and nothing closed; another one closes it all."""
        killed = Assembler(self.log, self.config, clock=lambda: self.now)
        killed.poll(0.0)
        self.kill(killed)
        stage = Assembler(self.log, self.config, clock=lambda: self.now)
        for _ in range(8):
            self.now += 10.0
            stage.step(0.0)
        stage.close()

    def score(self) -> None:
        spec = RewardSpec.model_validate({"name": "test", "components": [{"name": "thumb", "scorer": "x"}]})
        scoring = Scoring(spec, (FeedbackScorer(),), (), "test@0")
        for is_killed in (True, False):
            with Background(Services()) as asking:
                stage = Stage(self.log, self.config, scoring, asking, clock=lambda: self.now)
                stage.read(0.0) if is_killed else stage.step(0.0)
                self.kill(stage) if is_killed else stage.close()

    def train(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed after the checkpoint and before the version is published; another one publishes it."""

        def start() -> Trainer:
            trainer = Trainer(self.config, self.log, self.store, StillPolicy(), Stop(), now=lambda: self.now)
            trainer.recover()
            return trainer

        def killed(*_: Any) -> None:
            raise KilledError

        monkeypatch.setattr("trainer.loop.POLL_S", 0.0)
        monkeypatch.setattr("trainer.keeping.publish", killed)
        with pytest.raises(KilledError):
            self._tick(start())
        self.log.restart()
        monkeypatch.setattr("trainer.keeping.publish", publish)
        self._tick(start())

    @staticmethod
    def _tick(trainer: Trainer) -> None:
        try:
            for _ in range(8):
                trainer.tick()
        finally:
            trainer.close()

    def release(self) -> None:
        """A trial begins, and after a restart of the controller its version is in canary."""
        hands = {
            f"{arm}-0": Hand(EngineSlot(id=f"{arm}-0", arm=arm, port=1, control_port=2))  # type: ignore[arg-type]
            for arm in ("stable", "candidate")
        }
        for _ in range(2):
            rollout = Rollout(
                self.log,
                self.store,
                hands,
                self.config.serving.rollout,
                self.folder / "e.json",
                lambda: self.now,  # type: ignore[arg-type]
            )
            rollout.start()
            rollout.tick()
            rollout.close()
        assert rollout.served.state is TrialState.CANARY


@pytest.fixture
def told() -> Iterator[Told]:
    with telling() as held:
        yield held


def context(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def below(spans: Sequence[ReadableSpan], start: ReadableSpan) -> list[ReadableSpan]:
    """`start`, and every span that leads back to it by parents and links."""
    found, nodes = [start], {context(start)}
    while True:
        more = [
            span
            for span in spans
            if context(span) not in nodes
            and nodes & {(one.trace_id, one.span_id) for one in (span.parent, *(x.context for x in span.links)) if one}
        ]
        if not more:
            return found
        found += more
        nodes |= {context(span) for span in more}


@pytest.fixture
async def loop(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> tuple[World, Engine, list[str]]:
    """The loop, gone through once."""
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    world, engine = World(tmp_path), Engine(tmp_path / "engine")
    traces = await world.serve(engine)
    world.ingest()
    world.score()
    world.train(monkeypatch)
    world.release()
    return world, engine, traces


def requested(told: Told, trace_id: str) -> ReadableSpan:
    (found,) = (
        span
        for span in told.spans
        if span.name == "POST /v1/chat/completions" and (span.attributes or {})["onstream.trace.id"] == trace_id
    )
    return found


async def test_from_every_request_one_tree_leads_to_the_release(
    told: Told, loop: tuple[World, Engine, list[str]]
) -> None:
    _, engine, traces = loop
    for trace_id in traces:
        request = requested(told, trace_id)
        found = below(told.spans, request)
        names = [span.name for span in found]
        assert {
            "chat small", "send traces", "process traces", "send trajectories", "process trajectories", "send rewards",
            "process rewards", "update policy", "publish version", "send versions", "decide release", "load version",
        } <= set(names)  # fmt: skip
        decided = {
            (span.attributes or {}).get("onstream.trial.state") for span in found if span.name == "decide release"
        }
        assert {"evaluating", "canary"} <= decided
        mine = [span for span in found if context(span)[0] == context(request)[0]]
        assert [span.name for span in mine] == [
            "POST /v1/chat/completions", "chat small", "process traces", "send trajectories",
            "process trajectories", "send rewards",
        ]  # fmt: skip
        (generated,) = (span for span in mine if span.name == "chat small")
        assert engine.seen[trace_id].split("-")[2] == f"{context(generated)[1]:016x}"


async def test_feedback_is_linked_to_where_its_session_closes(
    told: Told, loop: tuple[World, Engine, list[str]]
) -> None:
    given = [span for span in told.spans if span.name == "POST /v1/feedback"]
    closed = [span for span in told.spans if span.name == "process traces"]
    assert len(given) == len(closed) == SESSIONS
    assert {context(span) for span in given} == {
        (x.context.trace_id, x.context.span_id) for s in closed for x in s.links
    }


async def test_a_training_step_is_linked_to_the_rewards_that_it_consumed(
    told: Told, loop: tuple[World, Engine, list[str]]
) -> None:
    rewards = {context(span) for span in told.spans if span.name == "send rewards"}
    step = told.span("process rewards")
    assert {(link.context.trace_id, link.context.span_id) for link in step.links} == rewards
    assert (step.attributes or {})["onstream.version"] == 1


async def test_nothing_that_a_user_typed_is_told(told: Told, loop: tuple[World, Engine, list[str]]) -> None:
    world, engine, _ = loop
    assert set(engine.beside) == {""}  # vLLM would put it into its span
    data = told.reader.get_metrics_data()
    assert data is not None
    assert CONTENT not in "".join(span.to_json() for span in told.spans) + data.to_json()
    headers_said = [message.headers for topic in topics.ALL for message in world.log.replay(topic.name)]
    assert CONTENT not in json.dumps(headers_said)


async def test_the_loop_is_measured_at_every_stage(told: Told, loop: tuple[World, Engine, list[str]]) -> None:
    world, _, _ = loop
    assert told.value(metrics.REQUESTS) == told.value(metrics.TRACES_CAPTURED) == SESSIONS
    assert told.value(metrics.FIRST_TOKEN).count == told.value(metrics.EACH_TOKEN).count == SESSIONS
    assert told.value(metrics.TRAJECTORIES_CLOSED, closed="inactive") == SESSIONS
    assert told.value(metrics.REWARDS_MADE) == told.value(metrics.SCORES, component="thumb") == SESSIONS
    assert told.value(metrics.TURNS_TRAINED) == SESSIONS and not told.points(metrics.FATES)  # until it is decided
    assert told.value(metrics.STALENESS).max == 0
    assert (told.value(metrics.ESS), told.value(metrics.KL)) == (0.9, 0.01)
    assert told.value(metrics.TRIAL_STATE, state="canary") == 1
    assert told.value(metrics.TRIAL_CANDIDATE) == 1
    assert told.value(metrics.ASSIGNED_VERSION, id="candidate-0") == 1
    assert (told.value(metrics.OPEN_SESSIONS), told.value(metrics.REWARDS_WAITING)) == (0, 0)
    assert told.value(metrics.SENT, **{"destination.name": "traces"}) == SESSIONS
    assert told.value(metrics.CONSUMED, **{"destination.name": "rewards"}) == SESSIONS  # the kill came after the step
    assert told.value(metrics.LAG, **{"group.name": "ingest", "destination.name": "traces"}) >= 0
    assert world.store.read(1).metrics[FEEDBACK_AT] > 0
