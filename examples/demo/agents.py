"""Simulated agents with a small context: they read documents, forget all but their own summary, and go on from it.

SmolLM2-135M cannot drive tools by itself. So which tool comes next is the harness's, as in a workflow agent, and what
the words say is the model's: its notes, its summary, and the values it gives after the cut, which are written into the
settings as they are. The tests then pass or fail. Nobody tells the system which replies were summaries, but for half of
the agents, who say so with a header.
"""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import tasks
from context import ASK_SUMMARY, Context
from crowd import SESSION, Answer, Crowd
from workspace import Call, Requirement

PARENT_SESSION = "x-onstream-parent-session"
TURN = "x-onstream-turn"
BUDGET = 240  # tokens: the documents fit, or the work after them, never both
READ_TOKENS, SETTLE_TOKENS = 45, 40  # what a step adds: its question, the tool's result, and the reply
NOTE_TOKENS, SUMMARY_TOKENS, ANSWER_TOKENS = 24, 96, 16
NOTE_TEMPERATURE, SUMMARY_TEMPERATURE, ANSWER_TEMPERATURE = 0.3, 0.5, 0.2
TASK = "Read the docs of the project and remember what each one says.\n"
SUB_AGENT_SHARE = 0.2
TOOL_S = (0.2, 1.2)  # what a tool takes


class GaveUpError(Exception):
    """A request failed; it is noted already, and this agent's session is over."""


@dataclass
class Work:
    """One session in progress."""

    job: tasks.Job
    headers: dict[str, str]
    says_summary: bool
    context: Context = field(default_factory=lambda: Context(BUDGET))
    replies: dict[str, str] = field(default_factory=dict)


class Agents(Crowd):
    """Agents, each with one job after the other. What pleases them is a test that passes."""

    def __init__(self, base_url: str, model: str, size: int, seed: int, is_done: Callable[[], bool]) -> None:
        super().__init__(base_url, model, size, seed, is_done)
        self.cuts = self.tasks_passed = self.tasks_failed = self.sub_agents = 0

    async def _session(self) -> None:
        job = tasks.make(self._random)
        session = f"agent-{uuid.uuid4().hex[:12]}"
        self.experience.asked.update(need.name for need in job.workspace.requirements)
        work = Work(job, {SESSION: session}, says_summary=self._random.random() < 0.5)
        try:
            await self._read(work)
            await self._settle(work)
        except GaveUpError:
            return
        await self._close(work, session)

    async def _read(self, work: Work) -> None:
        """Read every document, and note what it says."""
        context, workspace = work.context, work.job.workspace
        context.say(TASK)
        for fact in workspace.requirements:
            await self._make_room(work, READ_TOKENS)
            if self._random.random() < SUB_AGENT_SHARE:
                context.say(f"{fact.doc}: {await self._delegate(work, fact)}")
            elif context.has_reply:
                context.work(fact.reading, workspace)
            else:  # no reply that could carry a call
                context.say(workspace.call(fact.reading))
            await self._reply(work, NOTE_TOKENS, NOTE_TEMPERATURE)

    async def _settle(self, work: Work) -> None:
        """Give every setting the value that the model says, and run the tests."""
        needs = work.job.workspace.failing()
        for number, need in enumerate(needs):
            await self._make_room(work, SETTLE_TOKENS * (len(needs) - number))
            work.context.say(work.job.question(need.name))
            answer = await self._reply(work, ANSWER_TOKENS, ANSWER_TEMPERATURE)
            work.replies[need.name] = answer.text
            value = work.job.family.value_in(answer.text)
            if value is not None:
                work.context.work(Call("set_value", {"name": need.name, "value": value}), work.job.workspace)
        work.context.work(Call("run_tests"), work.job.workspace)
        work.context.work(Call("list_tasks"), work.job.workspace)
        failing = work.job.workspace.failing()
        if failing:  # it looks again before it gives up: too late, and the system may see it
            work.context.work(failing[0].reading, work.job.workspace)
        await self._reply(work, NOTE_TOKENS, NOTE_TEMPERATURE)

    async def _delegate(self, work: Work, fact: Requirement) -> str:
        """Let a sub-agent, a session of its own, read a document."""
        session = f"{work.headers[SESSION]}-{self.sub_agents}"
        self.sub_agents += 1
        context = Context(BUDGET)
        context.say(f"{work.job.workspace.call(fact.reading)}\n{work.job.question(fact.name)}")
        answer = await self._ask(
            context.messages, NOTE_TOKENS, {SESSION: session, PARENT_SESSION: work.headers[SESSION]}, NOTE_TEMPERATURE
        )
        if answer is None:
            raise GaveUpError
        is_right = work.job.family.value_in(answer.text) == fact.value
        await self._tell({"session": session, "name": "outcome", "value": 1 if is_right else -1})
        return answer.text

    async def _make_room(self, work: Work, num_tokens: int) -> None:
        """Where what comes next does not fit the budget: ask for a summary, forget the rest, go on from it."""
        if work.context.has_room(num_tokens):
            return
        work.context.say(ASK_SUMMARY)
        said = {TURN: "summary"} if work.says_summary else {}
        summary = await self._reply(work, SUMMARY_TOKENS, SUMMARY_TEMPERATURE, said)
        work.context.restart(summary.text)
        self.cuts += 1

    async def _reply(
        self, work: Work, max_tokens: int, temperature: float, said: dict[str, str] | None = None
    ) -> Answer:
        """The model's next words; they stand in the context afterwards."""
        await asyncio.sleep(self._random.uniform(*TOOL_S))
        answer = await self._ask(work.context.messages, max_tokens, work.headers | (said or {}), temperature)
        if answer is None:
            raise GaveUpError
        work.context.take(answer.text, answer.num_tokens)
        return answer

    async def _close(self, work: Work, session: str) -> None:
        """Tell the outcome, and book it."""
        outcome = work.job.outcome()
        failing = work.job.workspace.failing()
        for need in work.job.workspace.requirements:
            self.experience.note(f"{need.name}: {work.replies[need.name]}", need not in failing)
        num_failed = len(failing)
        self.tasks_failed += num_failed
        self.tasks_passed += len(work.job.workspace.requirements) - num_failed
        await self._tell({"session": session, "name": "outcome", "value": outcome})
