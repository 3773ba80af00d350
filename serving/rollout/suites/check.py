"""The offline suites as a stage of a trial."""

import os
from collections.abc import Sequence

import httpx

from infra.config import Config, EngineSlot, JudgeConfig
from infra.lifecycle import Deadline
from ingest.records.events import Reward, Version
from serving.guard import control_token
from serving.rollout.asking import Asker, CheckError, Endpoint, always, engines
from serving.rollout.background import Background
from serving.rollout.evidence import Standing
from serving.rollout.stages import Check, CheckMaker
from serving.rollout.suites.asking import Arm
from serving.rollout.suites.judge import Judge
from serving.rollout.suites.running import Arms, answers
from serving.rollout.suites.tasks import load_all
from serving.rollout.suites.verdict import judge


class SuiteCheck:
    """Asks candidate and stable all tasks of the suites that a configuration names, in a thread of its own."""

    def __init__(
        self, config: Config, candidate: int, stable: int, arms: tuple[Sequence[EngineSlot], Sequence[EngineSlot]]
    ) -> None:
        self._config, self._own = config, config.serving.rollout.suites
        self._versions, self._slots = (candidate, stable), arms
        self._suites = load_all(self._own.files)
        self._token = control_token()
        names = " and ".join(suite.suite for suite in self._suites)
        self._background = Background("suites", f"suites {names} begin", self._work)

    async def _work(self, background: Background) -> Standing:
        deadline = Deadline.after(self._own.timeout_s)

        def tell(num: int, of: int) -> None:
            background.tell(f"{num} of {of} tasks of the suites were answered by both arms")

        async with httpx.AsyncClient() as client:
            candidate, stable = (
                Arm(Asker(client, engines(slots, version, self._token, client), deadline), self._config.model.name)
                for slots, version in zip(self._slots, self._versions, strict=True)
            )
            grader = judge_of(self._own.judge, client, deadline) if self._own.judge else None
            found = await answers(self._suites, Arms(candidate, stable, grader), self._own.concurrency, tell)
        return judge(self._suites, found, self._own)

    def take(self, reward: Reward) -> None:
        """Nothing that it asks is captured: no reward is its own."""

    def look(self) -> Standing:
        return self._background.standing

    def wait(self, timeout_s: float) -> Standing:
        """Its verdict, or how it stands after `timeout_s`. Blocks."""
        return self._background.wait(timeout_s)

    def close(self) -> None:
        self._background.close()


def judge_of(config: JudgeConfig, client: httpx.AsyncClient, deadline: Deadline) -> Judge:
    """The judge that a configuration names.

    Raises:
        CheckError: its key is not in the environment.
    """
    key = os.environ.get(config.key_var, "") if config.key_var else ""
    if config.key_var and not key:
        raise CheckError(f"the judge's key is not set: {config.key_var}")
    return Judge(Asker(client, (Endpoint(config.url.rstrip("/"), always),), deadline, key), config.model)


def maker(config: Config) -> CheckMaker | None:
    """How to make the stage; none where no suite is configured."""
    if not config.serving.rollout.suites.files:
        return None

    def make(candidate: Version, stable: int, candidates: Sequence[EngineSlot], stables: Sequence[EngineSlot]) -> Check:
        return SuiteCheck(config, candidate.version, stable, (candidates, stables))

    return make
