"""The stage, against engines that answer as a test says."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from answering import TOKEN, Answering, completion, question
from ports import free_port

from infra.config import CONTROL_TOKEN_VAR, Config, EngineSlot
from infra.errors import ConfigError
from ingest.records.events import Version
from serving import headers
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.stages import Check
from serving.rollout.suites import check

SUITE = """
suite: own
tasks:
  - {name: greets, blocker: true, ask: hello, must: [{contains: hi}]}
  - {name: sum, ask: 1 + 1, must: [{number: {is: 2}}]}
"""
JUDGED = "suite: judged\ntasks: [{name: kind, ask: hello, judge: it greets}]\n"
GOOD = {"hello": "hi", "1 + 1": "2"}
MANIFEST = Version(version=1, digest="d", parent=0, parent_digest="e", files=(), lineage={}, metrics={}, created_at=0.0)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTROL_TOKEN_VAR, TOKEN)


def saying(said: dict[str, str], version: int) -> Answering:
    return Answering(lambda body: completion(said[question(body)]), version)


def config(folder: Path, text: str = SUITE, **suites: Any) -> Config:
    path = folder / "own.yaml"
    path.write_text(text)
    given = {"files": [str(path)], "timeout_s": 20.0} | suites
    return Config.model_validate({"model": {"path": "m"}, "serving": {"rollout": {"suites": given}}})


def made(config: Config, candidates: list[EngineSlot], stables: list[EngineSlot]) -> Check:
    make = check.maker(config)
    assert make is not None
    return make(MANIFEST, 0, candidates, stables)


async def ended(one: Check) -> Standing:
    assert isinstance(one, check.SuiteCheck)
    standing = await asyncio.to_thread(one.wait, 30.0)
    one.close()
    return standing


async def ran(config: Config, candidate: Answering, stable: Answering) -> Standing:
    async with candidate.serving(), stable.serving():
        return await ended(made(config, [candidate.slot("candidate")], [stable.slot("stable")]))


async def test_a_candidate_as_good_as_stable_passes_and_nothing_that_was_asked_is_captured(tmp_path: Path) -> None:
    candidate, stable = saying(GOOD, 1), saying(GOOD, 0)
    standing = await ran(config(tmp_path), candidate, stable)
    assert (standing.verdict, standing.numbers["task.own/sum.candidate"]) == (Verdict.PASS, 1.0)
    for engine in (candidate, stable):
        assert [question(body) for body in engine.bodies] == ["hello", "1 + 1"]  # blockers first
        assert {one[headers.CONSENT] for one in engine.headers} == {headers.NO_CONSENT}
        assert {body["temperature"] for body in engine.bodies} == {0.0}


async def test_a_broken_blocker_rejects_before_anything_else_is_asked(tmp_path: Path) -> None:
    candidate = saying(GOOD | {"hello": "no"}, 1)
    standing = await ran(config(tmp_path), candidate, saying(GOOD, 0))
    assert standing.verdict is Verdict.REJECT and "blocker own/greets (must contain 'hi', got 'no')" in standing.reason
    assert len(candidate.bodies) == 1


async def test_a_candidate_that_knows_less_is_rejected(tmp_path: Path) -> None:
    standing = await ran(config(tmp_path), saying(GOOD | {"1 + 1": "3"}, 1), saying(GOOD, 0))
    assert standing.verdict is Verdict.REJECT and "own: 0.00 against 1.00 over 1 tasks" in standing.reason


async def test_an_engine_that_fails_once_is_asked_again(tmp_path: Path) -> None:
    candidate = saying(GOOD, 1)
    told, candidate.answer = candidate.answer, lambda body: 503 if len(candidate.bodies) == 1 else told(body)
    assert (await ran(config(tmp_path), candidate, saying(GOOD, 0))).verdict is Verdict.PASS
    assert len(candidate.bodies) == 3


async def test_a_pool_is_asked_where_one_engine_of_it_is_gone(tmp_path: Path) -> None:
    candidate, stable = saying(GOOD, 1), saying(GOOD, 0)
    gone = EngineSlot(id="gone", arm="candidate", port=free_port(), control_port=free_port())
    async with candidate.serving(), stable.serving():
        one = made(config(tmp_path), [gone, candidate.slot("candidate")], [stable.slot("stable")])
        assert (await ended(one)).verdict is Verdict.PASS


async def test_an_engine_that_never_answers_could_not_run_and_is_no_pass(tmp_path: Path) -> None:
    gone = EngineSlot(id="gone", arm="candidate", port=free_port(), control_port=free_port())
    async with saying(GOOD, 0).serving() as stable:
        standing = await ended(made(config(tmp_path, timeout_s=0.5), [gone], [stable.slot("stable")]))
    assert standing.verdict is Verdict.REJECT
    assert standing.reason.startswith("suites could not run: no answer in time: ")


async def test_an_engine_that_serves_another_version_is_not_taken_for_the_candidate(tmp_path: Path) -> None:
    candidate = saying(GOOD, version=0)
    standing = await ran(config(tmp_path, timeout_s=2.0), candidate, saying(GOOD, 0))
    assert standing.verdict is Verdict.REJECT and "does not serve the version that is asked for" in standing.reason
    assert candidate.bodies == []


async def test_an_answer_that_was_ended_by_another_version_is_asked_for_again(tmp_path: Path) -> None:
    candidate = saying(GOOD, 1)
    candidate.before = [1, 0]
    assert (await ran(config(tmp_path), candidate, saying(GOOD, 0))).verdict is Verdict.PASS
    assert [question(body) for body in candidate.bodies] == ["hello", "hello", "1 + 1"]


async def test_a_judge_grades_each_arm_without_knowing_whose_reply_it_is(tmp_path: Path) -> None:
    judge = Answering(lambda body: completion("5" if "hi\n" in question(body) else "**1**"))
    given = {"url": f"http://127.0.0.1:{judge.port}/v1", "model": "j"}
    async with judge.serving():
        standing = await ran(config(tmp_path, JUDGED, judge=given), saying({"hello": "no"}, 1), saying(GOOD, 0))
    assert standing.verdict is Verdict.REJECT and "judged: 0.20 against 1.00" in standing.reason
    assert not any("candidate" in str(body) or "stable" in str(body) for body in judge.bodies)


@pytest.mark.parametrize(("says", "told"), [(500, "no answer in time"), (401, "the judge refused"), (200, "a digit")])
async def test_a_judge_that_cannot_be_heard_means_could_not_run(tmp_path: Path, says: int, told: str) -> None:
    judge = Answering(lambda _: completion("It is fine.") if says == 200 else says)
    given = {"url": f"http://127.0.0.1:{judge.port}/v1", "model": "j"}
    async with judge.serving():
        standing = await ran(config(tmp_path, JUDGED, judge=given, timeout_s=1.0), saying(GOOD, 1), saying(GOOD, 0))
    assert (
        standing.verdict is Verdict.REJECT and "suites could not run: " in standing.reason and told in standing.reason
    )


async def test_a_judge_whose_key_is_missing_means_could_not_run(tmp_path: Path) -> None:
    given = {"url": "http://127.0.0.1:1/v1", "model": "j", "key_var": "NO_SUCH_KEY"}
    standing = await ran(config(tmp_path, JUDGED, judge=given), saying(GOOD, 1), saying(GOOD, 0))
    assert standing.verdict is Verdict.REJECT and "the judge's key is not set: NO_SUCH_KEY" in standing.reason


async def test_a_check_that_is_closed_gives_up_what_it_asks(tmp_path: Path) -> None:
    gone = EngineSlot(id="gone", arm="candidate", port=free_port(), control_port=free_port())
    one = made(config(tmp_path), [gone], [gone])
    assert one.look().verdict is Verdict.HOLD
    await asyncio.to_thread(one.close)
    assert one.look().verdict is Verdict.HOLD
    assert isinstance(one, check.SuiteCheck) and (await asyncio.to_thread(one.wait, 0.0)).verdict is Verdict.HOLD


def test_a_suite_that_cannot_be_read_raises_when_its_stage_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        made(config(tmp_path, files=[str(tmp_path / "none.yaml")]), [], [])


def test_no_suites_are_no_stage(tmp_path: Path) -> None:
    assert check.maker(config(tmp_path, files=[])) is None
