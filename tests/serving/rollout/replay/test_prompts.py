"""Which prompts are asked again, and as what."""

from typing import Any

import pytest
from replayed import hold_out, trace, trajectory, turn

from infra.config import ReplayConfig
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import Arm, Assignment, Trace, TurnKind
from serving.rollout.replay.prompts import Request, pick, recent, request_of

CONFIG = ReplayConfig()


@pytest.fixture
def log() -> InMemoryLog:
    made = InMemoryLog()
    made.create(topics.specs(partitions=2, retention_s=60.0))
    return made


def sessions(*held: Any, config: ReplayConfig = CONFIG, salt: str = "x") -> list[str]:
    return [prompt.trace_id.partition("-")[0] for prompt in pick(held, config, salt)]


def key(session: str) -> str:
    return trace(session).trace_id.partition("-")[0]


def test_only_held_out_sessions_are_asked_again_and_no_replay_is() -> None:
    asked_again = Assignment(arm=Arm.STABLE, trial=1, propensity=0.5, replay_of="k-0")
    held = [
        trajectory("a"),
        trajectory("trains", held_out=False),
        trajectory("replay", assignment=asked_again),
        trajectory("in a trial", assignment=Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.5)),
        trajectory("of two arms", assignment=None),
    ]
    assert set(sessions(*held)) == {key("a"), key("in a trial"), key("of two arms")}


@pytest.mark.parametrize("fields", [{"kind": TurnKind.SIDE}, {"kind": TurnKind.SUMMARY}, {"status": 500}])
def test_a_turn_that_is_not_the_conversations_or_was_not_answered_is_not_asked_again(fields: dict[str, Any]) -> None:
    own = trace("a")
    assert sessions(trajectory("a", turn(own, **fields))) == []
    assert sessions(trajectory("a", turn(own, offset=None))) == []
    assert sessions(trajectory("a", turn(own), partition=None)) == []


def test_newest_sessions_come_first_and_no_more_than_asked_for() -> None:
    held = [trajectory(name, opened_at=at) for name, at in (("a", 1.0), ("c", 3.0), ("b", 2.0))]
    assert sessions(*held, config=ReplayConfig(max_prompts=2)) == [key("c"), key("b")]


def test_one_users_sessions_are_few_and_a_session_without_a_user_counts_as_its_own() -> None:
    flood = [trajectory(f"flood {n}", user="u") for n in range(20)]
    nobodys = [trajectory(f"nobody {n}", user="") for n in range(5)]
    agents = [trajectory(f"agent {n}", user="", parent_session_id="p") for n in range(5)]
    others = [trajectory("other tenant's", user="u", tenant="b")]
    assert len(sessions(*flood)) == 2
    assert len(sessions(*flood, *nobodys, *agents, *others)) == 2 + 5 + 2 + 1


def test_a_later_revision_of_a_session_is_no_second_session() -> None:
    held = [trajectory("a", user="u"), trajectory("a", user="u", revision=2), trajectory("a", user="u")]
    assert sessions(*held) == [key("a")]


def test_each_trial_asks_another_turn_of_a_session_and_one_trial_always_the_same() -> None:
    long = trajectory("a", *(turn(trace("a", n), n) for n in range(8)))
    asked = [pick([long], CONFIG, f"digest {n}")[0].trace_id for n in range(20)]
    assert len(set(asked)) > 3
    assert asked == [pick([long], CONFIG, f"digest {n}")[0].trace_id for n in range(20)]


def test_only_the_newest_of_the_log_is_searched(log: InMemoryLog) -> None:
    for n in range(40):
        hold_out(log, f"s{n}")
    assert len(recent(log, CONFIG, "x")) == 40
    assert 0 < len(recent(log, ReplayConfig(lookback=10), "x")) <= 10


def requests(log: InMemoryLog, max_tokens: int = 64) -> list[Request | None]:
    return [request_of(log, prompt, "served", max_tokens) for prompt in recent(log, CONFIG, "x")]


def test_a_request_is_asked_as_it_was_but_at_once_and_no_longer_than_allowed(log: InMemoryLog) -> None:
    hold_out(log, "a")
    body = {"messages": [{"role": "user", "content": "a asks 0"}], "max_tokens": 64, "top_p": 0.5, "model": "served"}
    assert requests(log) == [Request("/v1/chat/completions", body)]
    (longer,) = requests(log, max_tokens=1000)
    assert longer is not None and longer.body["max_tokens"] == 100


def test_a_request_that_was_stored_cut_is_made_whole(log: InMemoryLog) -> None:
    whole = hold_out(log, "a", num_turns=5)
    (prompt,) = recent(log, CONFIG, "x")
    found = request_of(log, prompt, "m", 64)
    assert found is not None
    asked = next(one for one in whole if one.trace_id == prompt.trace_id)
    assert found.body["messages"] == asked.request["messages"]


def test_a_request_whose_beginning_is_gone_is_not_asked(log: InMemoryLog) -> None:
    hold_out(log, "a", num_turns=5)
    (prompt,) = recent(log, CONFIG, "x")
    first = trace("a").trace_id
    assert prompt.trace_id != first
    lost = {name: offset for name, offset in prompt.offsets.items() if name != first}
    gone = type(prompt)(prompt.trace_id, "t", "u", prompt.consent, prompt.partition, lost)
    assert request_of(log, gone, "m", 64) is None


def test_a_request_that_was_erased_or_fell_off_the_log_is_not_asked(log: InMemoryLog) -> None:
    hold_out(log, "a")
    (prompt,) = recent(log, CONFIG, "x")
    gone = type(prompt)(prompt.trace_id, "t", "u", prompt.consent, prompt.partition, {prompt.trace_id: 99})
    assert request_of(log, gone, "m", 64) is None


@pytest.mark.parametrize(
    ("endpoint", "request_", "told"),
    [
        ("/v1/completions", {"prompt": "Once"}, {"max_tokens": 64}),
        ("/v1/completions", {"prompt": [1, 2]}, {"max_tokens": 64}),
        ("/v1/completions", {"prompt": ["Once", "Twice"]}, None),
        ("/v1/chat/completions", {"messages": [], "max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        ("/v1/messages", {"messages": [], "max_tokens": 900}, {"max_tokens": 64}),
        ("/v1/responses", {"input": "x"}, {"max_output_tokens": 64}),
        ("/v1/responses", {"input": "x", "previous_response_id": "r"}, None),
        ("/v1/embeddings", {"input": "x"}, None),
    ],
)
def test_each_endpoint_is_told_its_length_in_its_own_word(
    log: InMemoryLog, monkeypatch: pytest.MonkeyPatch, endpoint: str, request_: dict[str, Any], told: Any
) -> None:
    def other(session: str, number: int = 0, **fields: Any) -> Trace:
        return trace(session, number, endpoint=endpoint, request=request_, **fields)

    monkeypatch.setattr("replayed.trace", other)
    hold_out(log, "a")
    (found,) = requests(log)
    if told is None:
        assert found is None
    else:
        assert found == Request(endpoint, request_ | told | {"model": "served"})
