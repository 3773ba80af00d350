"""How far a summary stands in for what it replaced: the likelihood of what came next, given the one or the other."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass as plain
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from ingest.records.events import ChatMessage, Trajectory, Turn, TurnKind
from ingest.records.questions import Prompt, Query
from ingest.sessions import chains, history
from ingest.sessions.history import Compaction
from ingest.sessions.messages import calls_in, without_thinking
from rewards.scorers import STRICT, Cost, Outcome, Scored, Services, Unscored
from rewards.summary import material
from rewards.summary.likelihood import Likelihoods, UnavailableError

Messages = tuple[ChatMessage, ...]
Tokens = tuple[int, ...]
_WORD = re.compile(r"\w+")


@plain(frozen=True)
class Contexts:
    """The same turn asked in three ways; see `Sufficiency`."""

    given: Prompt
    floor: Prompt
    ceiling: Prompt

    def __iter__(self) -> Iterator[Prompt]:
        yield from (self.given, self.floor, self.ceiling)


@plain(frozen=True)
class Continuation:
    """Tokens that follow the contexts; the replies in them are `spans`."""

    token_ids: Tokens
    spans: tuple[tuple[int, int], ...]


@plain(frozen=True)
class Evidence:
    """Log-likelihoods of one reply, in nats, over so many tokens."""

    given: float
    floor: float
    ceiling: float
    num_tokens: int


@dataclass(frozen=True, config=STRICT)
class Sufficiency:
    """Log-likelihood of what came next given the summary, between none of the history and all of it.

        clip((given - floor) / (ceiling - floor), 0, 1), each summed over continuations

    given: the first request after the cut as it was. floor: the same with the quoted summary taken out of its message,
    the wrapping kept. ceiling: the history itself, without the request to summarise, then the messages that came after
    the one that carried the summary. Continuations: the replies logged in the first `max_turns` turns after the cut,
    and `num_sampled` that the engine samples from the ceiling (left out where it has no idle moment), at most
    `max_tokens` each. A reply counts where the history helps to say it: ceiling - floor is at least `min_gap` nats per
    token; and all together they must make `min_total`, or nothing can be said.

    Range: [0, 1]; unscored where nothing came after, the gap is too small, a context is too long for the engine, or no
    engine has a scoring port. Cost: one pass over three contexts and their continuations, prefixes shared; no judge.
    Gamed by: copying the history, which is as good as having it (`length`); a list of values (`faithfulness`); wrong
    values in the right form, which lift the likelihood of the form (`faithfulness`, `symptoms`). Praise lifts nothing.
    What a bad summary made the policy say is likely given that summary, and no likelier given the history: such a reply
    does not count, and the sampled ones, which know the history, do.
    """

    max_turns: int = Field(2, ge=1)
    max_tokens: int = Field(128, ge=1)
    num_sampled: int = Field(2, ge=0, le=16)
    min_gap: float = Field(0.1, ge=0.0)
    min_total: float = Field(5.0, gt=0.0)
    name: ClassVar[str] = "sufficiency"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[TurnKind]] = frozenset({TurnKind.SUMMARY})
    # Two engines asked in turn, each for as long as `rewards.summary.engines` waits for samples and scores. The window
    # ends before `rewards.max_wait_s` does, so that what is given up says what the engines said.
    cost: ClassVar[Cost] = Cost(timeout_s=200.0, window_s=240.0, concurrency=1, batch=1)

    def applies(self, trajectory: Trajectory, turn: Turn) -> Unscored | None:
        """Whether something came after the cut."""
        return None if material.cuts(trajectory, turn) else Unscored("nothing came after the cut")

    async def score_batch(self, batch: Sequence[tuple[Trajectory, Turn]], services: Services) -> Sequence[Outcome]:
        if services.likelihoods is None:
            return [Unscored("no engine has a scoring port") for _ in batch]
        return [await self._score(trajectory, turn, services.likelihoods) for trajectory, turn in batch]

    async def _score(self, trajectory: Trajectory, turn: Turn, likelihoods: Likelihoods) -> Outcome:
        evidence: list[Evidence] = []
        for cut in material.cuts(trajectory, turn):
            contexts = contexts_of(trajectory, cut)
            try:
                found = [*self.logged(trajectory, cut), *await self._sampled(contexts, likelihoods)]
                evidence += await _weigh(contexts, found, likelihoods)
            except UnavailableError:
                raise
            except ValueError as exc:  # the engine finds the question wrong: most often a context beyond its limit
                return Unscored(f"cannot be asked: {exc}")
        return self.value(evidence)

    def value(self, evidence: Sequence[Evidence]) -> Outcome:
        """The score that likelihoods make."""
        telling = [one for one in evidence if one.ceiling - one.floor >= self.min_gap * one.num_tokens]
        gap = sum(one.ceiling - one.floor for one in telling)
        if gap < self.min_total:
            return Unscored(f"history or none: what came next is {gap:.1f} nats likelier, needs {self.min_total:g}")
        return Scored(min(1.0, max(0.0, sum(one.given - one.floor for one in telling) / gap)))

    def logged(self, trajectory: Trajectory, cut: Compaction) -> list[Continuation]:
        """The first replies after the cut, by their exact tokens, one continuation for them all."""
        chain = chains.whole(trajectory.chains)[cut.after]
        segments = chain.segments[: self.max_turns]
        start = segments[0].start
        spans = [(one.start - start, min(one.end, one.start + self.max_tokens) - start) for one in segments]
        spans = [(begin, end) for begin, end in spans if begin < end]
        if not spans:
            return []
        return [Continuation(tuple(chain.token_ids[start : start + spans[-1][1]]), tuple(spans))]

    async def _sampled(self, contexts: Contexts, likelihoods: Likelihoods) -> list[Continuation]:
        """What the policy would say with all of the history; nothing where no engine is idle."""
        if not self.num_sampled:
            return []
        try:
            (drawn,) = await likelihoods.sample([contexts.ceiling], self.num_sampled, self.max_tokens)
        except (UnavailableError, ValueError):  # not idle, or no room for so many tokens: what was logged remains
            return []
        return [Continuation(one.token_ids, ((0, len(one.token_ids)),)) for one in drawn if one.token_ids]


def contexts_of(trajectory: Trajectory, cut: Compaction) -> Contexts:
    """The three contexts of the first turn after a cut."""
    asked = history.messages_of(trajectory, cut.first.trace_id)
    carrier = asked[cut.message]
    emptied = carrier.model_copy(update={"text": without_quote(carrier.text, material.text_of(cut.summary))})
    before = history.messages_of(trajectory, cut.summary.trace_id)[:-1]
    following = asked[cut.message + 1 :] or (emptied,)
    floor = (*asked[: cut.message], *([emptied] if emptied.text.strip() else []), *asked[cut.message + 1 :])
    tools = history.tools_of(trajectory, cut.first.trace_id)
    given, bare, full = (
        Prompt(messages=tuple(map(_as_sent, messages)), tools=tools, is_open=True)
        for messages in (asked, floor or (emptied,), (*before, *following))
    )
    return Contexts(given, bare, full)


async def _weigh(contexts: Contexts, found: Sequence[Continuation], likelihoods: Likelihoods) -> list[Evidence]:
    """Ask for every continuation in every context, in one call, so that all is under one version."""
    queries = [Query(prompt=one, token_ids=c.token_ids, spans=c.spans) for one in contexts for c in found]
    logps = (await likelihoods.score(queries)).logps
    given, floor, ceiling = (logps[at : at + len(found)] for at in range(0, len(logps), len(found)))
    return [
        Evidence(g, f, c, end - begin)
        for continuation, *rows in zip(found, given, floor, ceiling, strict=True)
        for (begin, end), g, f, c in zip(continuation.spans, *rows, strict=True)
    ]


def _as_sent(message: ChatMessage) -> ChatMessage:
    """A message as a template shall see it: no thinking, and calls once, where its text has them already."""
    text = without_thinking(message.text)
    calls = () if calls_in(text) else message.tool_calls
    return message.model_copy(update={"text": text, "tool_calls": calls})


def without_quote(text: str, quoted: str) -> str:
    """A text without the quotation: all of it, else from the first place to the last where four words are the same."""
    at = text.find(quoted)
    if quoted and at >= 0:
        return text[:at] + text[at + len(quoted) :]
    said = [word.group().lower() for word in _WORD.finditer(quoted)]
    runs = {tuple(said[n : n + 4]) for n in range(len(said) - 3)}
    places = [(word.start(), word.end(), word.group().lower()) for word in _WORD.finditer(text)]
    held = [n for n in range(len(places) - 3) if tuple(word for _, _, word in places[n : n + 4]) in runs]
    return text[: places[held[0]][0]] + text[places[held[-1] + 3][1] :] if held else text
