"""Replays as a stage of a trial.

Each prompt is asked of one candidate engine and one stable engine under the router's headers: the session is a new one
that nobody had, the tenant, user and consent are the original's, so that the answers are sealed and erased with it.
The engines capture both; ingest closes them at once and holds them out, rewards scores them, and the controller hands
the rewards to `take`. So what is compared is what production's own scorers say.

A stage that broke off (engines, log or scorers away until `timeout_s`) could not run, and rejects. One that had too
little to decide on, or decided nothing, is passed over with the reason, for the canary has to convince in any case;
with `required` it expires the trial instead.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import httpx

from infra.config import Config, EngineSlot
from infra.errors import LogError
from infra.lifecycle import Deadline, backoff_s
from ingest.log.protocol import EventLog
from ingest.records.events import Arm, Assignment, Reward, TurnKind, Version
from serving import headers
from serving.guard import control_token
from serving.headers import Identity
from serving.rollout.asking import Asker, CheckError, engines, first_of
from serving.rollout.background import Background
from serving.rollout.evidence import REWARD, Standing, Verdict, paired
from serving.rollout.replay.pairing import Book, least_pairs, outcomes, unscored
from serving.rollout.replay.prompts import Prompt, Request, recent, request_of
from serving.rollout.stages import Check, CheckMaker

MAY_LACK = 0.1
"""Share of answers whose rewards may be lost on their way without the stage having broken off."""
_COIN = 0.5
_NAME = "replays of held-out prompts"

T = TypeVar("T")


class ReplayCheck:
    """Asks both arms what held-out sessions were asked, in a thread of its own, and compares their rewards."""

    def __init__(
        self,
        config: Config,
        log: EventLog,
        candidate: Version,
        stable: int,
        arms: Mapping[Arm, Sequence[EngineSlot]],
    ) -> None:
        self._config, self._own, self._log = config, config.serving.rollout.replay, log
        self._candidate, self._slots = candidate, arms
        self._book = Book({Arm.CANDIDATE: candidate.version, Arm.STABLE: stable})
        self._deadline = Deadline.after(self._own.timeout_s)
        self._token = control_token()
        self._is_asked = False
        self._background = Background("replay", "held-out sessions are looked for", self._work)

    # -- asking, in the background's thread

    async def _work(self, background: Background) -> Standing:
        prompts = await self._patient(lambda: recent(self._log, self._own, self._candidate.digest))
        self._book.prompts = tuple(prompt.trace_id for prompt in prompts)
        least = least_pairs(len(outcomes({}, self._config.serving.rollout.gate, self._own)), self._own)
        if len(prompts) < least:
            told = f"{len(prompts)} held-out prompts can show nothing, {least} are the fewest that could"
            return self._undecided(told if prompts else "nothing is held out to replay", {"prompts": len(prompts)})
        waiting = asyncio.Semaphore(self._own.concurrency)
        async with httpx.AsyncClient() as client:
            askers = {
                arm: Asker(client, engines(slots, self._book.versions[arm], self._token, client), self._deadline)
                for arm, slots in self._slots.items()
            }

            async def ask(prompt: Prompt) -> None:
                async with waiting:
                    await self._ask(prompt, askers)

            try:
                async with asyncio.TaskGroup() as group:
                    for prompt in prompts:
                        group.create_task(ask(prompt))
            except* CheckError as errors:
                raise first_of(errors) from errors
        self._is_asked = True
        return background.standing

    async def _ask(self, prompt: Prompt, askers: Mapping[Arm, Asker]) -> None:
        model, most = self._config.model.name, self._own.max_tokens
        request = await self._patient(lambda: request_of(self._log, prompt, model, most))
        if request is None:
            self._book.note(prompt.trace_id, None, None)
            return
        async with asyncio.TaskGroup() as group:
            asked = {arm: group.create_task(self._answer(prompt, request, arm, asker)) for arm, asker in askers.items()}
        candidate, stable = asked[Arm.CANDIDATE].result(), asked[Arm.STABLE].result()
        if candidate is None and stable is not None:
            raise CheckError(f"the candidate's engine does not take prompt {prompt.trace_id}, which stable's takes")
        self._book.note(prompt.trace_id, candidate, stable)

    async def _answer(self, prompt: Prompt, request: Request, arm: Arm, asker: Asker) -> str | None:
        """The id of the answer's trace; none where the engine does not take the request, as one that is too long.

        Raises:
            CheckError: none came in time.
        """

        def identified() -> Mapping[str, str]:
            return headers.write(identity_of(prompt, arm, self._candidate.version))

        answer = await asker.post(request.path, request.body, identified)
        return None if answer.is_error else answer.request.headers[headers.TRACE]

    async def _patient(self, read: Callable[[], T]) -> T:
        """What a look at the log gives; one that is away is asked again while there is time."""
        waits = backoff_s(0.5, 5.0)
        while True:
            try:
                return await asyncio.to_thread(read)
            except LogError:
                if self._deadline.passed():
                    raise
            await asyncio.sleep(min(next(waits), self._deadline.left_s()))

    # -- judging, in the controller's thread

    def take(self, reward: Reward) -> None:
        self._book.take(reward)

    def look(self) -> Standing:
        begun, is_asked = self._background.standing, self._is_asked  # before what it asked is counted
        if begun.verdict is not Verdict.HOLD:
            return begun
        num_answers, lacking = len(self._book.answers), self._book.num_lacking
        is_over = is_asked and (not lacking or self._deadline.passed())
        pairs = self._book.pairs(is_over)
        held = outcomes(pairs, self._config.serving.rollout.gate, self._own)
        standing = paired(held, self._own.alpha, self._own.alpha, is_over=is_over)
        standing.numbers.update(prompts=len(self._book.prompts), answers=num_answers, scored=len(pairs))
        match standing.verdict:
            case Verdict.REJECT:
                return replace(standing, reason=f"{_NAME}: {standing.reason}")
            case _ if is_over and lacking > MAY_LACK * num_answers:
                told = f"{lacking} of {num_answers} pairs of answers were not scored in {self._own.timeout_s:g} s"
                return Standing(Verdict.REJECT, f"replay could not run: {told}", standing.numbers)
            case Verdict.PASS:
                return replace(standing, reason=f"{_NAME}: {standing.reason}")
            case Verdict.HOLD:
                told = f"{len(pairs)} of {len(self._book.prompts)} prompts are answered and scored; {standing.reason}"
                return replace(standing, reason=f"{_NAME}: {told}")
        told = standing.reason
        if pairs and not len(held[REWARD]):
            rates = ", ".join(f"{name} {one.mean:+.3f}" for name, one in held.items() if len(one))
            told = f"without their users no rewards are scored ({unscored(pairs.values())})"
            told += f"; candidate less stable over {len(pairs)} prompts: {rates or 'nothing was measured'}"
        return self._undecided(told, standing.numbers)

    def _undecided(self, told: str, numbers: dict[str, float]) -> Standing:
        """Neither worse nor as good was shown."""
        if self._own.required:
            return Standing(Verdict.EXPIRE, f"replays, which are required, showed nothing: {told}", numbers)
        return Standing(Verdict.PASS, f"replays are passed over, and are nothing in its favour: {told}", numbers)

    def wait(self, timeout_s: float) -> Standing:
        """How it stands once all is asked, or after `timeout_s`. Blocks."""
        self._background.wait(timeout_s)
        return self.look()

    def close(self) -> None:
        self._background.close()


def identity_of(prompt: Prompt, arm: Arm, trial: int) -> Identity:
    """The identity of one attempt: a session of its own, of the original's user and tenant, with their consent."""
    session_id = f"replay-{uuid.uuid4().hex}"
    return Identity(
        trace_id=headers.new_trace(session_id),
        session_id=session_id,
        tenant=prompt.tenant,
        kind=TurnKind.MAIN,
        assignment=Assignment(arm=arm, trial=trial, propensity=_COIN, replay_of=prompt.trace_id),
        consent=prompt.consent,
        user=prompt.user,
    )


def maker(config: Config, log: EventLog) -> CheckMaker | None:
    """How to make the stage; none where nothing is to be replayed. `log` is read from another thread."""
    if not config.serving.rollout.replay.max_prompts:
        return None

    def make(candidate: Version, stable: int, candidates: Sequence[EngineSlot], stables: Sequence[EngineSlot]) -> Check:
        return ReplayCheck(config, log, candidate, stable, {Arm.CANDIDATE: candidates, Arm.STABLE: stables})

    return make
