"""The whole loop with real parts, in the order a system lives: serving, capture, a trial, kills, an outage."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import pytest
from likelihoods import Conformance
from system import MODEL, System
from transformers import AutoTokenizer

from infra.errors import RecordError
from ingest.log import topics
from ingest.log.connect import as_it_lies
from ingest.records import codec
from ingest.records.events import (
    ChatMessage,
    Consent,
    Feedback,
    Release,
    ReleaseKind,
    Reward,
    Trace,
    TrialState,
    TurnKind,
)
from ingest.records.questions import Prompt, Query
from rewards.summary import engines
from rewards.summary.engines import EngineLikelihoods
from serving import headers

pytestmark = pytest.mark.timeout(420)
GREEDY = {"temperature": 0, "max_tokens": 24}


def traces(system: System, session: str) -> list[Trace]:
    return [trace for trace in system.records(topics.TRACES) if trace.session_id == session]


def captured(system: System, session: str, num: int = 1) -> list[Trace]:
    return system.until(
        lambda: found if len(found := traces(system, session)) >= num else None, 30.0, f"{num} traces of {session}"
    )


def test_a_trace_holds_exactly_the_tokens_the_engine_says_it_sampled(system: System) -> None:
    reply = system.chat("What is tea?", session="exact", return_token_ids=True, logprobs=True, top_logprobs=0)
    (trace,) = captured(system, "exact")
    (choice,) = reply["choices"]
    assert list(trace.token_ids) == choice["token_ids"]
    assert list(trace.prompt_token_ids) == reply["prompt_token_ids"]
    assert trace.logprobs == pytest.approx([item["logprob"] for item in choice["logprobs"]["content"]], rel=1e-6)
    assert trace.reply_text == choice["message"]["content"]
    assert [(s.version, s.start, s.end) for s in trace.spans] == [(0, 0, len(trace.token_ids))]
    assert reply["id"] == f"chatcmpl-{trace.trace_id}"


def without_identity(reply: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in reply.items() if name not in ("id", "created")}


def test_one_screen_tells_what_runs_serves_waits_and_is_on_trial(system: System) -> None:
    command = [sys.executable, "-m", "infra.cli", "status", "-c", str(system.folder / "onstream.yaml")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "150"})
    for told in (*system.supervisor.processes, "stable is version 0", "of 16 scored turns", "trial: idle", "traces"):
        assert told in shown.stdout


@pytest.mark.parametrize("name", ["stable-0", "trainer"])
def test_a_process_that_does_its_work_says_that_it_is_ready(system: System, name: str) -> None:
    told = system.until(
        lambda: told if set((told := system.health(name)).values()) == {200} else None, 60.0, f"{name} is ready"
    )
    assert sorted(told) == ["/live", "/ready", "/started"]


def test_a_captured_reply_is_the_reply_without_capture(system: System) -> None:
    url = system.user_url("stable-0")
    silent = system.chat("Name a colour.", url=url, headers={headers.CONSENT: "no"}, **GREEDY)
    seen = system.chat("Name a colour.", url=url, session="identical", **GREEDY)
    assert without_identity(seen) == without_identity(silent)


def stream(system: System, session: str, text: str, **body: object) -> tuple[str, list[float]]:
    """The streamed text, and the time of each chunk."""
    given = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True} | body
    words, times = [], []
    with httpx.stream(
        "POST", f"{system.url}/v1/chat/completions", json=given, headers={headers.SESSION: session}, timeout=120.0
    ) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
                words += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
    return "".join(words), times


def test_a_stream_is_captured_whole(system: System) -> None:
    text, times = stream(system, "streamed", "What is a bridge?", **GREEDY)
    (trace,) = captured(system, "streamed")
    assert trace.streamed
    assert (trace.reply_text, len(trace.token_ids)) == (text, len(trace.logprobs))
    assert len(times) > 5
    assert text == system.chat("What is a bridge?", **GREEDY)["choices"][0]["message"]["content"]


def test_seeded_requests_whose_prompts_are_computed_in_pieces_are_all_answered(system: System) -> None:
    """More prompt tokens at a time than vLLM computes in one step; on a CPU such a seed used to end the engine."""
    told = "All that is known of tea, glaciers and bridges. " * 40
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(system.chat, f"{n}. {told}", seed=n, max_tokens=2) for n in range(12)]
        assert all(one.result()["choices"] for one in asked)
    assert all(process.restarts == 0 for process in system.supervisor.processes.values())


def test_without_consent_nothing_is_captured(system: System) -> None:
    system.chat("A secret.", session="secret", headers={headers.CONSENT: "no"})
    system.chat("No secret.", session="no-secret")
    captured(system, "no-secret")
    assert traces(system, "secret") == []


def written(system: System) -> Iterator[tuple[str, bytes]]:
    """All that is written anywhere: every file of the run (spools, broker, store, keys, lake, indices, logs, and
    telemetry, as its collector took it), and every message, as it lies and as who has the keys reads it."""
    for path in system.folder.rglob("*"):
        if path.is_file() and "model" not in path.name:
            with suppress(FileNotFoundError):  # a spool's segment that was shipped meanwhile
                yield str(path), path.read_bytes()
    for log in (system.log(), as_it_lies(system.config, client_id="tests")):
        for topic in (*(topic.name for topic in topics.ALL), topics.late_letters("feedback", "ingest")):
            for message in log.replay(topic):
                told = json.dumps(message.headers).encode()
                with suppress(RecordError):
                    told += codec.plain(message.value)
                yield f"{topic}/{message.partition}@{message.offset}", told + message.value
        log.close()


def test_what_was_refused_or_redacted_is_written_nowhere_and_what_was_erased_cannot_be_read(system: System) -> None:
    refused, address, kept = (f"{word}{secrets.token_hex(8)}" for word in ("refused", "anna.", "kept"))
    address += "@example.org"
    no = {headers.CONSENT: "no"}
    system.chat(f"Say {refused}.", session="refused", headers=no)
    for session in ("refused", "private"):
        given = {"session": session, "value": -1, "comment": f"Not {refused}.", "user": refused, "feedback_id": refused}
        answer = httpx.post(f"{system.url}/v1/feedback", json=given, headers=no, timeout=30.0)
        assert (answer.status_code, answer.json()["stored"]) == (200, False)
    said = f"I am {address}. Say {kept}."
    reply = system.chat(said, session="private", user=address, headers={headers.USER: address})
    given = {"id": reply["id"], "value": 1, "comment": f"{kept}, says {address}", "user": address}
    assert httpx.post(f"{system.url}/v1/feedback", json=given, timeout=30.0).status_code == 202

    def scored() -> bool:
        return any(reward.session_id == "private" for reward in system.records(topics.REWARDS))

    system.until(scored, 60.0, "it is scored")
    found = list(written(system))
    for words in (refused, address, address.partition("@")[0]):
        assert [place for place, data in found if words.encode() in data] == []
    readable = [place for place, data in found if kept.encode() in data]
    assert {place.partition("/")[0] for place in readable} == {"traces", "feedback", "trajectories"}
    (trace,) = traces(system, "private")
    assert trace.redacted == {"email": 1} and trace.consent is Consent.ASSUMED and trace.user
    spelt = AutoTokenizer.from_pretrained(system.config.model.path).decode(trace.prompt_token_ids)
    assert kept in spelt and address.partition("@")[0] not in spelt

    command = [sys.executable, "-m", "infra.cli", "erase", "--user", address, "--json"]
    done = subprocess.run(
        [*command, "-c", str(system.folder / "onstream.yaml")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["traces"] == [trace.trace_id]
    assert [place for place, data in written(system) if kept.encode() in data] == []


def test_a_request_vllm_refuses_reaches_the_client_as_vllms_refusal(system: System) -> None:
    answer = httpx.post(f"{system.url}/v1/chat/completions", json={"model": "nobody", "messages": []}, timeout=30.0)
    assert answer.status_code in (400, 404)
    assert "error" in answer.json()


@pytest.mark.parametrize("path", ["/pause", "/update_weights", "/start_weight_update", "/collective_rpc", "/load"])
def test_the_users_port_cannot_touch_weights(system: System, path: str) -> None:
    for url in (system.url, system.user_url("stable-0")):
        assert httpx.post(f"{url}{path}", json={"version": 0}, timeout=30.0).status_code in (404, 405)


def test_the_control_port_wants_its_token(system: System) -> None:
    slot = system.slots["stable-0"]
    answer = httpx.post(f"http://{slot.host}:{slot.control_port}/load", json={"version": 0}, timeout=30.0)
    assert answer.status_code == 401


def test_a_response_is_named_after_its_trace_and_feedback_that_names_it_is_joined(system: System) -> None:
    body = {"model": MODEL, "input": "What is tea?", "max_output_tokens": 8}
    answer = httpx.post(f"{system.url}/v1/responses", json=body, headers={headers.SESSION: "response"}, timeout=120.0)
    assert answer.status_code == 200, answer.text
    (trace,) = captured(system, "response")
    assert answer.json()["id"] == f"resp_{trace.trace_id}"
    system.thumb(answer.json()["id"], 1.0)

    def joined() -> list[Feedback]:
        return [one for session in system.records(topics.TRAJECTORIES) for one in session.feedback]

    found = system.until(lambda: [one for one in joined() if one.trace_id == trace.trace_id], 60.0, "a trajectory")
    assert found[0].value == 1.0


def test_a_summary_turn_and_a_parent_session_reach_the_trace(system: System) -> None:
    said = {headers.TURN: "summary", headers.PARENT_SESSION: "the-caller"}
    system.chat("Sum that up.", session="sub-agent", headers=said)
    (trace,) = captured(system, "sub-agent")
    assert (trace.kind, trace.parent_session_id) == (TurnKind.SUMMARY, "the-caller")


def test_a_summary_nobody_declared_is_found_scored_by_the_engines_and_shown(system: System) -> None:
    said = [{"role": "user", "content": "The door code is 8213. The meeting is in room B12 at 14:30."}]
    for question in ("Noted?", "Sum up what you must not forget."):
        said.append({"role": "user", "content": question})
        reply = system.chat("", session="compacted", messages=said, min_tokens=20, **GREEDY)
        said.append({"role": "assistant", "content": reply["choices"][0]["message"]["content"]})
    summary = said[-1]["content"]
    carried = [{"role": "user", "content": f"Your notes:\n{summary}\nWhat is the door code?"}]
    system.chat("", session="compacted", messages=carried, **GREEDY)

    def rewards() -> list[Reward]:
        return [reward for reward in system.records(topics.REWARDS) if reward.session_id == "compacted"]

    (reward,) = system.until(rewards, 90.0, "a reward")
    (turn,) = (turn for turn in reward.turns if turn.kind is TurnKind.SUMMARY)
    (trajectory,) = (one for one in system.records(topics.TRAJECTORIES) if one.session_id == "compacted")
    assert {one.trace_id: one.reply for one in trajectory.turns}[turn.trace_id] == summary
    scored = {component.name: component for component in reward.components if component.trace_id == turn.trace_id}
    assert scored.keys() == {"thumb", "sufficiency", "faithfulness"}
    asked = scored["sufficiency"]
    assert asked.value is not None or (asked.unscored or "").startswith("history or none: what came next")
    command = [sys.executable, "-m", "infra.cli", "session", "compacted", "-c", str(system.folder / "onstream.yaml")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "compaction: context 2 goes on from turn 2's summary" in shown


class TestLikelihoods(Conformance):
    """The client, the scoring ports and vLLM itself keep what the fake keeps."""

    @pytest.fixture
    async def likelihoods(self, system: System) -> AsyncIterator[EngineLikelihoods]:
        held = engines.of(system.config)
        assert held is not None
        yield held
        await held.close()

    @pytest.fixture
    async def away(self, system: System) -> AsyncIterator[EngineLikelihoods]:
        stranger = EngineLikelihoods([f"http://127.0.0.1:{system.slots['stable-0'].scoring_port}"], "wrong")
        yield stranger
        await stranger.close()

    async def test_a_prompt_renders_to_the_tokens_that_users_get(
        self, system: System, likelihoods: EngineLikelihoods
    ) -> None:
        reply = system.chat("What is tea?", return_token_ids=True)
        prompt = Prompt(messages=(ChatMessage(role="user", text="What is tea?"),), is_open=True)
        assert await likelihoods.render([prompt]) == [tuple(reply["prompt_token_ids"])]

    async def test_a_reply_is_as_likely_as_the_engine_said_when_it_sampled_it(
        self, system: System, likelihoods: EngineLikelihoods
    ) -> None:
        """Longer than two blocks of the prefix cache, asked after the users' own request and then once more."""
        told = "Tell me all about tea. " * 20
        system.chat(told, session="likely", max_tokens=300, ignore_eos=True)
        (trace,) = captured(system, "likely")
        prompt = Prompt(messages=(ChatMessage(role="user", text=told),), is_open=True)
        query = Query(prompt=prompt, token_ids=trace.token_ids, spans=((0, 300), (0, 1), (299, 300)))
        for _ in range(2):
            ((whole, *_),) = (await likelihoods.score([query])).logps
            assert whole == pytest.approx(sum(trace.logprobs), rel=0.02)

    async def test_what_scorers_ask_is_never_captured(self, system: System, likelihoods: EngineLikelihoods) -> None:
        prompt = Prompt(messages=(ChatMessage(role="user", text="Only scorers say this."),), is_open=True)
        await likelihoods.sample([prompt], num=1, max_tokens=4)
        system.chat("And a user says that.", session="after-scorers")
        captured(system, "after-scorers")
        tokens = (await likelihoods.render([prompt]))[0]
        assert tokens not in [trace.prompt_token_ids for trace in system.records(topics.TRACES)]


def test_damaged_weights_are_refused_and_the_engine_serves_on(system: System) -> None:
    before = system.version_of("candidate-0")
    answer = system.control("candidate-0", "POST", "/load", json={"version": 999})
    assert answer.status_code == 409
    assert "version 999" in answer.json()["error"]
    assert system.version_of("candidate-0") == before
    system.chat("Still there?", url=system.user_url("candidate-0"))


def busy(system: System) -> list[str]:
    return [engine for engine in system.slots if system.control(engine, "GET", "/status").json()["in_flight"]]


def held(system: System, engine: str) -> list[int]:
    return list(system.control(engine, "GET", "/status").json()["held"])


def test_a_swap_keeps_requests_in_flight_and_every_token_knows_its_weights(system: System) -> None:
    """With the controller away, so that this test alone says what the engine serves. What it swaps to are adapters."""
    with system.frozen("rollout"):
        shifted = system.publish_adapters(0.02)
        for slot in system.slots:
            system.control(slot, "POST", "/hold", json={"versions": [0, shifted.version]})
        system.until(lambda: all(shifted.version in held(system, slot) for slot in system.slots), 60.0, "it is held")
        told: list[tuple[str, list[float]]] = []
        long = {"max_tokens": 120, "ignore_eos": True, "temperature": 1.0}
        talk = threading.Thread(target=lambda: told.append(stream(system, "across", "Tell me a long story.", **long)))
        talk.start()
        (engine,) = system.until(lambda: busy(system), 30.0, "a stream")
        swap = system.control(engine, "POST", "/load", json={"version": shifted.version})
        assert swap.status_code == 200, swap.text
        talk.join(120.0)
        (trace,) = captured(system, "across")
        assert [span.version for span in trace.spans] == [0, shifted.version]
        assert (trace.spans[-1].end, len(trace.token_ids)) == (120, 120)
        assert trace.finish_reason == "length"
        assert told
        assert system.control(engine, "POST", "/load", json={"version": 0}).status_code == 200


def answers(system: System, engine: str) -> list[str]:
    """What an engine says greedily."""
    words = ("tea", "glacier", "honest", "seven")
    replies = [system.chat(f"What does {word} mean?", url=system.user_url(engine), **GREEDY) for word in words]
    return [reply["choices"][0]["message"]["content"] for reply in replies]


def test_an_engine_swapped_to_a_version_and_one_started_on_it_answer_alike(system: System) -> None:
    """The version published above goes on trial; then its engine is killed, and starts afresh on what the log says, of
    its own copy: the store is away."""
    with ExitStack() as held:
        with system.traffic() as users:
            system.until(lambda: system.rollout().get("state") == "canary", 150.0, "a trial")
            for stage in ("rollout", "trainer"):
                held.enter_context(system.frozen(stage))
        version = system.version_of("candidate-0")
        assert version != 0
        # asked while nobody else asks: in bfloat16 a reply depends in its last bits on what shares its batch
        swapped = answers(system, "candidate-0")
        assert swapped != answers(system, "stable-0")
        with system.traffic() as others, system.without_store():
            system.kill("candidate-0")
            system.wait_ready("candidate-0")
        assert system.version_of("candidate-0") == version
        assert answers(system, "candidate-0") == swapped
    assert users.failed == others.failed == []
    assert others.served > 10


def verdicts(system: System) -> list[Release]:
    return [r for r in system.records(topics.RELEASES) if r.state in (TrialState.PROMOTED, TrialState.REJECTED)]


def test_the_gate_decides_on_what_users_did_and_says_so(system: System) -> None:
    with system.traffic() as users:
        verdict = system.until(
            lambda: [
                r for r in system.records(topics.RELEASES) if r.state in (TrialState.PROMOTED, TrialState.REJECTED)
            ],
            150.0,
            "a verdict",
        )[0]
    assert users.failed == []
    assert verdict.kind is ReleaseKind.TRIAL
    assert verdict.reason
    assert verdict.numbers["units.candidate"] > 0
    given = verdict.engines  # promoted: the candidate's engine has the version before, for those who are held back
    system.until(lambda: {name: system.version_of(name) for name in system.slots} == given, 60.0, "all engines agree")


@pytest.mark.parametrize("stage", ["ingest", "rewards", "trainer", "rollout"])
def test_users_notice_nothing_when_a_stage_is_killed(system: System, stage: str) -> None:
    with system.traffic() as users:
        system.until(lambda: users.served >= 3, 60.0, "users are served")
        system.kill(stage)
        before = users.served
        system.until(lambda: users.served >= before + 5, 60.0, "users are served on")
    assert users.failed == []


def test_users_notice_nothing_while_the_broker_is_down(system: System) -> None:
    broker = system.supervisor.processes["broker"]
    assert broker.pid is not None
    with system.traffic() as users:
        system.until(lambda: users.served >= 3, 60.0, "users are served")
        os.kill(broker.pid, signal.SIGTERM)
        system.until(lambda: broker.restarts > 0, 40.0, "the broker is started again")
        before = users.served
        system.until(lambda: users.served >= before + 5, 60.0, "users are served on")
    assert users.failed == []


def test_after_all_that_every_trace_is_explained_and_some_were_trained(system: System) -> None:
    def trained() -> bool:
        return any(version.lineage.get("trace_ids") for version in system.records(topics.VERSIONS))

    with system.traffic(users=1) as users:  # more would take the cores that the trainer needs
        system.until(trained, 200.0, "the trainer trains")
    assert users.failed == []
    account = system.until(
        lambda: found if not (found := system.account()).in_flight["open session"] else None, 60.0, "sessions close"
    )
    assert account.unexplained.names == ()
    assert account.conflicts.names == ()
    assert account.num_traces > 50


def test_an_engine_that_is_asked_to_end_finishes_its_reply_first(system: System) -> None:
    """The last test: the engine does not come back within it."""
    process = system.supervisor.processes["stable-0"]
    assert process.pid is not None
    restarts = process.restarts
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}], "stream": True}
    body |= {"max_tokens": 32, "ignore_eos": True}
    url, session = f"{system.user_url('stable-0')}/v1/chat/completions", {headers.SESSION: "to its end"}
    with httpx.stream("POST", url, json=body, headers=session, timeout=120.0) as answer:
        lines = answer.iter_lines()
        read = [next(lines)]
        os.kill(process.pid, signal.SIGTERM)
        read += list(lines)
    assert "data: [DONE]" in read
    system.until(lambda: process.restarts > restarts, 60.0, "the engine ends and is started again")
    assert process.exit_status == 0
    (trace,) = captured(system, "to its end")
    assert len(trace.token_ids) == 32
