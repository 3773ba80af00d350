"""The stage, against engines that answer as a test says and a log in memory. The whole loop is in tests/loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from answering import TOKEN, Answering, completion
from ports import free_port
from replayed import hold_out, reward

from infra.config import CONTROL_TOKEN_VAR, Config, EngineSlot
from infra.errors import LogError
from infra.lifecycle import Deadline
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import Arm, Version
from serving import headers
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.replay import check

C, S = Arm.CANDIDATE, Arm.STABLE
SESSIONS = 30
MANIFEST = Version(version=1, digest="d", parent=0, parent_digest="e", files=(), lineage={}, metrics={}, created_at=0.0)


def config(**replay: Any) -> Config:
    rollout = {
        "replay": {"timeout_s": 20.0, "margin": 0.4, "alpha": 0.2} | replay,
        "gate": {"guardrails": [{"name": "completed", "margin": 0.02}]},
    }
    return Config.model_validate({"model": {"path": "m"}, "serving": {"rollout": rollout}})


class Stage:
    """A stage over engines that answer "ok", and what scorers would say of their answers."""

    def __init__(self) -> None:
        self.log = InMemoryLog()
        self.log.create(topics.specs(partitions=2, retention_s=60.0))
        self.engines = {C: Answering(lambda _: completion("ok"), 1), S: Answering(lambda _: completion("ok"), 0)}
        self.slots: Mapping[Arm, list[EngineSlot]] = {arm: [one.slot(arm)] for arm, one in self.engines.items()}
        self.check: check.ReplayCheck | None = None

    def hold_out(self, num: int = SESSIONS) -> None:
        for n in range(num):
            hold_out(self.log, f"s{n}")

    def begin(self, **replay: Any) -> check.ReplayCheck:
        make = check.maker(config(**replay), self.log)
        assert make is not None
        made = make(MANIFEST, 0, self.slots[C], self.slots[S])
        assert isinstance(made, check.ReplayCheck)
        self.check = made
        return made

    async def asked(self, **replay: Any) -> Standing:
        return await asyncio.to_thread(self.begin(**replay).wait, 30.0)

    def score(self, value_of: Callable[[Arm], float | None], rate_of: Callable[[Arm], float] = lambda _: 1.0) -> None:
        """Rewards of all that was answered."""
        assert self.check is not None
        for arm, engine in self.engines.items():
            for one in engine.headers:
                name, of = one[headers.TRACE], one[headers.REPLAY_OF]
                self.check.take(reward(of, arm, name, value_of(arm), guardrails={"completed": rate_of(arm)}))

    def look(self) -> Standing:
        assert self.check is not None
        return self.check.look()


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setenv(CONTROL_TOKEN_VAR, TOKEN)
    made = Stage()
    async with made.engines[C].serving(), made.engines[S].serving():
        yield made
        if made.check is not None:
            await asyncio.to_thread(made.check.close)


async def test_a_candidate_shown_not_to_be_worse_passes(stage: Stage) -> None:
    stage.hold_out()
    assert (await stage.asked()).verdict is Verdict.HOLD
    stage.score(lambda _: 0.5)
    standing = stage.look()
    assert standing.verdict is Verdict.PASS and "not worse than stable on the same prompts" in standing.reason
    assert (standing.numbers["prompts"], standing.numbers["scored"]) == (SESSIONS, SESSIONS)


async def test_a_candidate_whose_rewards_are_lower_is_rejected(stage: Stage) -> None:
    stage.hold_out()
    await stage.asked()
    stage.score(lambda arm: float(arm is S))
    assert stage.look().verdict is Verdict.REJECT and "reward is worse by 1.000" in stage.look().reason


async def test_a_candidate_that_pleases_and_breaks_a_guardrail_is_rejected(stage: Stage) -> None:
    stage.hold_out()
    await stage.asked()
    stage.score(lambda arm: float(arm is C), lambda arm: float(arm is S))
    assert stage.look().verdict is Verdict.REJECT and "completed is worse by 1.000" in stage.look().reason


async def test_nobody_is_named_as_asking_and_each_answer_is_its_arms_and_of_a_session_of_its_own(stage: Stage) -> None:
    stage.hold_out()
    await stage.asked()
    for arm, engine in stage.engines.items():
        assert {one[headers.ARM] for one in engine.headers} == {arm}
        assert {(one[headers.TRIAL], one[headers.PROPENSITY]) for one in engine.headers} == {("1", "0.5")}
        assert len({one[headers.SESSION] for one in engine.headers}) == SESSIONS
        assert {one[headers.TENANT] for one in engine.headers} == {"acme"}
    users = [{one[headers.REPLAY_OF]: one[headers.PSEUDONYM] for one in e.headers} for e in stage.engines.values()]
    assert users[0] == users[1] and len(users[0]) == SESSIONS


@pytest.mark.parametrize(("num", "told"), [(0, "nothing is held out to replay"), (3, "3 held-out prompts can show")])
@pytest.mark.parametrize(("required", "verdict"), [(False, Verdict.PASS), (True, Verdict.EXPIRE)])
async def test_too_little_held_out_is_passed_over_with_the_reason_unless_replays_are_required(
    stage: Stage, num: int, told: str, required: bool, verdict: Verdict
) -> None:
    stage.hold_out(num)
    standing = await stage.asked(required=required)
    assert standing.verdict is verdict and told in standing.reason
    assert stage.engines[C].bodies == []


@pytest.mark.parametrize(("required", "verdict"), [(False, Verdict.PASS), (True, Verdict.EXPIRE)])
async def test_what_is_neither_worse_nor_shown_as_good_is_nothing_in_its_favour(
    stage: Stage, required: bool, verdict: Verdict
) -> None:
    stage.hold_out()
    await stage.asked(required=required, margin=0.01)
    stage.score(lambda _: 0.5)
    standing = stage.look()
    assert standing.verdict is verdict and "no prompts are left, and reward has e^" in standing.reason


async def test_a_stage_whose_answers_nobody_scores_could_not_run(stage: Stage) -> None:
    stage.hold_out()
    standing = await stage.asked(timeout_s=60.0)
    assert standing.verdict is Verdict.HOLD
    assert stage.check is not None
    stage.check._deadline = Deadline.after(0.0)
    standing = stage.look()
    assert standing.verdict is Verdict.REJECT
    assert standing.reason == "replay could not run: 30 of 30 pairs of answers were not scored in 60 s"


async def test_a_stage_waits_for_rewards_that_are_still_on_their_way(stage: Stage) -> None:
    stage.hold_out()
    await stage.asked()
    standing = stage.look()
    assert standing.verdict is Verdict.HOLD and "0 of 30 prompts are answered and scored" in standing.reason


@pytest.mark.parametrize("arm", [C, S])
async def test_an_arm_that_never_answers_means_could_not_run(stage: Stage, arm: Arm) -> None:
    stage.hold_out()
    gone = EngineSlot(id="gone", arm="stable", port=free_port(), control_port=free_port())
    stage.slots = {**stage.slots, arm: [gone]}
    standing = await stage.asked(timeout_s=0.5, required=False)
    assert standing.verdict is Verdict.REJECT
    assert standing.reason.startswith("replay could not run: no answer in time: ")


async def test_an_answer_that_failed_at_first_is_asked_under_a_new_trace_and_only_that_counts(stage: Stage) -> None:
    stage.hold_out()
    engine = stage.engines[C]
    engine.answer = lambda _: 503 if len(engine.bodies) == 1 else completion("ok")
    await stage.asked()
    assert len(engine.headers) == SESSIONS + 1 == len({one[headers.TRACE] for one in engine.headers})
    del engine.headers[0]
    stage.score(lambda _: 0.5)
    assert stage.look().numbers["scored"] == SESSIONS


async def test_prompts_that_an_engine_does_not_take_are_left_out(stage: Stage) -> None:
    stage.hold_out()
    stage.engines[S].answer = lambda _: 400
    standing = await stage.asked()
    assert standing.verdict is Verdict.PASS and "passed over" in standing.reason
    assert standing.numbers["answers"] == 0


async def test_a_prompt_that_the_candidates_engine_alone_does_not_take_is_no_pass(stage: Stage) -> None:
    stage.hold_out()
    stage.engines[C].answer = lambda _: 400
    standing = await stage.asked()
    assert standing.verdict is Verdict.REJECT
    assert "the candidate's engine does not take prompt" in standing.reason


async def test_a_log_that_is_away_for_a_moment_is_asked_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.hold_out()
    asked, ends = [0], stage.log.ends

    def flaky(topic: str) -> dict[int, int]:
        asked[0] += 1
        if asked[0] == 1:
            raise LogError("no broker answers")
        return ends(topic)

    monkeypatch.setattr(stage.log, "ends", flaky)
    assert (await stage.asked()).verdict is Verdict.HOLD
    assert len(stage.engines[C].bodies) == SESSIONS


def test_no_prompts_are_no_stage() -> None:
    assert check.maker(config(max_prompts=0), InMemoryLog()) is None
