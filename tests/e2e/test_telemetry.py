"""Telemetry of the whole system over real OTLP: one tree of spans from a user's request to the release it led to."""

import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from otlp import Node, Span, below
from system import System

from infra.telemetry.metrics import METRICS
from infra.telemetry.names import ATTRIBUTES
from ingest.log import topics

pytestmark = pytest.mark.timeout(400)
TRAINER = {"batch_turns": 4, "minibatch_turns": 4}
SESSIONS = 6
TYPED = f"typed-{secrets.token_hex(8)}"
STEPS = {
    ("onstream-router", "POST /v1/chat/completions"),
    ("onstream-engine", "chat smollm2"),
    ("onstream-engine", "llm_request"),
    ("onstream-engine", "send traces"),
    ("onstream-ingest", "process traces"),
    ("onstream-ingest", "send trajectories"),
    ("onstream-rewards", "process trajectories"),
    ("onstream-rewards", "send rewards"),
    ("onstream-trainer", "process rewards"),
    ("onstream-trainer", "update policy"),
    ("onstream-trainer", "publish version"),
    ("onstream-trainer", "send versions"),
    ("onstream-rollout", "decide release"),
    ("onstream-rollout", "load version"),
    ("onstream-engine", "swap weights"),
}

TO_THE_REWARD = {step for step in STEPS if step[0] in ("onstream-ingest", "onstream-rewards")}


@pytest.fixture(scope="module")
def sessions(system: System) -> dict[str, str]:
    """Trace id -> session of users who talked and thumbed; ingest was killed when it had read that and closed none."""

    def talk(session: str) -> str:
        reply = system.chat(f"Say {TYPED}.", session=session, headers={"tracestate": f"who={TYPED}"})
        system.thumb(reply["id"], 1.0)
        return str(reply["id"]).removeprefix("chatcmpl-")

    names = [f"{TYPED}-{secrets.token_hex(4)}" for _ in range(SESSIONS)]
    with ThreadPoolExecutor(SESSIONS) as pool:  # at once: a session closes some seconds after its last word
        found = dict(zip(pool.map(talk, names), names, strict=True))
    system.until(lambda: found.keys() <= {one.trace_id for one in system.records(topics.TRACES)}, 30.0, "their traces")
    system.kill("ingest")
    assert not found.keys() & closed(system), "ingest had closed a session before it was killed"
    system.until(lambda: found.keys() <= closed(system), 60.0, "another ingest closes them all")
    return found


def closed(system: System) -> set[str]:
    return {turn.trace_id for one in system.records(topics.TRAJECTORIES) for turn in one.turns}


def requested(spans: Iterable[Span], trace_id: str) -> Span | None:
    return next(
        (one for one in spans if one.name.startswith("POST") and one.attributes.get("onstream.trace.id") == trace_id),
        None,
    )


def steps(spans: Iterable[Span], start: Node) -> set[tuple[str, str]]:
    return {(one.service, one.name) for one in below(spans, start)}


@pytest.fixture(scope="module")
def trained(system: System, sessions: dict[str, str]) -> str:
    """A trace of these sessions that trained in a version that was loaded for its trial."""

    def names() -> list[str]:
        versions = system.records(topics.VERSIONS)
        return [name for one in versions for name in one.lineage.get("trace_ids", ()) if name in sessions]

    with system.traffic(users=1) as users:  # for the champion's units
        (name, *_) = system.until(names, 150.0, "one of them trains")
        version = next(v for v in system.records(topics.VERSIONS) if name in v.lineage.get("trace_ids", ()))
        system.until(
            lambda: version.version in {one.candidate for one in system.records(topics.RELEASES)}, 60.0, "its trial"
        )
        system.until(lambda: system.version_of("candidate-0") == version.version, 60.0, "an engine has loaded it")
    assert users.failed == []
    return name


def test_one_tree_leads_from_a_request_to_the_release_and_a_kill_of_ingest_leaves_it_whole(
    system: System, trained: str
) -> None:
    request = system.until(lambda: requested(system.receiver.spans, trained), 20.0, "the request's span")
    found = ("onstream-router", request.name)
    system.until(
        lambda: {found, *steps(system.receiver.spans, request.node)} >= STEPS,
        20.0,
        "every step came",
    )
    spans = system.receiver.spans
    known = {one.node for one in spans}
    tree = [one for one in below(spans, request.node) if one.node[0] == request.node[0]]
    assert [one.name for one in tree if not one.above <= known] == []
    (generated,) = (one for one in tree if one.name == "chat smollm2")
    (inside,) = (one for one in tree if one.name == "llm_request")
    assert (generated.parent, inside.parent) == (request.node, generated.node)


def test_sessions_that_were_open_when_ingest_was_killed_are_closed_in_their_own_trace(
    system: System, sessions: dict[str, str]
) -> None:
    for trace_id in sessions:
        request = system.until(lambda one=trace_id: requested(system.receiver.spans, one), 20.0, "the request's span")
        system.until(
            lambda node=request.node: steps(system.receiver.spans, node) >= TO_THE_REWARD, 60.0, "a reward's span"
        )
        mine = [one for one in system.receiver.spans if one.node[0] == request.node[0]]
        assert [one.name for one in mine].count("process traces") == 1


def test_log_lines_are_sent_with_the_trace_that_they_were_written_in(system: System, trained: str) -> None:
    request = requested(system.receiver.spans, trained)
    assert request is not None
    lines = system.until(
        lambda: [one for one in system.receiver.lines if one.service == "onstream-rollout"], 30.0, "log lines"
    )
    assert lines
    spans = {one.node[0] for one in system.receiver.spans}
    assert {one.trace_id for one in system.receiver.lines if one.trace_id} <= spans


def test_metrics_of_every_stage_come_with_the_labels_of_the_table(system: System, trained: str) -> None:
    stages = {f"onstream-{one}" for one in ("router", "engine", "ingest", "lake", "rewards", "trainer", "rollout")}
    for stage in stages:
        system.until(
            lambda one=stage: one in {told for told, _ in system.receiver.metrics}, 30.0, f"metrics of {stage}"
        )
    table = {metric.name: metric for metric in METRICS}
    mine = {name: labels for (_, name), labels in system.receiver.metrics.items() if name in table}
    assert all(labels <= set(table[name].attributes) for name, labels in mine.items())
    for name in ("onstream.consumer.lag", "onstream.trainer.ess", "onstream.engine.version", "onstream.trial.state"):
        assert name in mine


def test_nothing_that_a_user_typed_is_sent(system: System, trained: str) -> None:
    sent = (system.folder / "telemetry.bin").read_bytes()
    assert trained.encode() in sent
    assert TYPED.encode() not in sent


def test_attributes_of_our_own_spans_are_those_of_the_table(system: System, trained: str) -> None:
    ours = [one for one in system.receiver.spans if one.service.startswith("onstream-") and one.name != "llm_request"]
    told = {name for one in ours for name in one.attributes if name.startswith("onstream.")}
    assert told <= ATTRIBUTES.keys()
