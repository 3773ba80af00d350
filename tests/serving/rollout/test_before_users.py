"""A trial through the stages before users, by the makers that the process has, with engines that really answer."""

import asyncio
from pathlib import Path

import pytest
from answering import TOKEN, Answering, completion
from rollouts import World

from infra.config import CONTROL_TOKEN_VAR, Config
from ingest.log import reader, topics
from ingest.records.events import Release, TrialState
from serving.rollout.process import checks_of

SUITE = "suite: own\ntasks: [{name: greets, blocker: true, ask: hello, must: [{contains: hi}]}]\n"


class Real(World):
    """One whose engines answer; `says` is what the candidate does."""

    def __init__(self, folder: Path, says: str) -> None:
        (folder / "own.yaml").write_text(SUITE)
        rollout = {"suites": {"files": [str(folder / "own.yaml")], "timeout_s": 20.0}}
        self.whole = Config.model_validate({"model": {"path": "m"}, "serving": {"rollout": rollout}})
        super().__init__(folder)
        self.engines = {"s": Answering(lambda _: completion("hi"), 0), "c": Answering(lambda _: completion(says), 1)}
        for name, engine in self.engines.items():
            slot = engine.slot(self.hands[name].slot.arm)
            self.hands[name].slot = slot.model_copy(update={"id": name})  # as the release log knows it
        self.rollout.close()
        self.checks = checks_of(self.whole, self.log)
        self.restarted()

    async def tried(self) -> list[Release]:
        """The trial's releases, up to the first user or its end."""
        self.champion()
        self.publish(1, parent=0)
        async with self.engines["s"].serving(), self.engines["c"].serving():
            ends = {TrialState.CANARY, TrialState.REJECTED, TrialState.EXPIRED}
            async with asyncio.timeout(60.0):
                while self.rollout.served.trials.get(1) not in ends:
                    await asyncio.to_thread(self.rollout.tick)
            await asyncio.to_thread(self.rollout.close)
        return [one for one in reader.replay(self.log, topics.RELEASES, Release) if one.candidate == 1]


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTROL_TOKEN_VAR, TOKEN)


async def test_a_candidate_goes_through_both_stages_and_the_log_says_what_each_found(tmp_path: Path) -> None:
    told = await Real(tmp_path, "hi").tried()
    states = [one.state for one in told]
    assert states == [TrialState.EVALUATING, TrialState.SUITES, TrialState.REPLAY, TrialState.CANARY]
    assert "kept all of 1 blockers" in told[2].reason and told[2].numbers["task.own/greets.candidate"] == 1.0
    assert "replays are passed over" in told[3].reason and "nothing is held out to replay" in told[3].reason


async def test_a_candidate_that_breaks_a_blocker_never_meets_a_user(tmp_path: Path) -> None:
    told = await Real(tmp_path, "no").tried()
    assert [one.state for one in told] == [TrialState.EVALUATING, TrialState.SUITES, TrialState.REJECTED]
    assert "blocker own/greets (must contain 'hi', got 'no'): stable keeps to it" in told[-1].reason


def test_a_configuration_without_suites_and_replays_has_no_stages_before_users(tmp_path: Path) -> None:
    rollout = {"suites": {"files": []}, "replay": {"max_prompts": 0}}
    config = Config.model_validate({"model": {"path": "m"}, "serving": {"rollout": rollout}})
    assert checks_of(config, World(tmp_path).log) == {}
