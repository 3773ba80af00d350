"""Synthetic traffic: sessions of a few turns with what every stage makes of them, the same for the same numbers.

`session` makes real records; `Copies` makes many sessions' messages cheaply, by writing other ids into the JSON of a
few. A copy decodes as any record, and its ids are right; digests of parents and places of trajectories are not.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ingest.log.topics import FATES, FEEDBACK, REWARDS, TRACES, TRAJECTORIES, Topic
from ingest.records import codec, prefixes
from ingest.records.events import (
    Assignment,
    CloseReason,
    Fate,
    FateKind,
    Feedback,
    Record,
    Reward,
    Source,
    Trace,
    Trajectory,
    TurnKind,
    VersionSpan,
    about,
    session_key,
)
from ingest.sessions.chains import join
from ingest.sessions.turns import build

MAX_TURNS = 7  # four on average
_WORDS = ("the", "order", "was", "late", "please", "check", "invoice", "number", "and", "tell", "me", "why", "it", "is")
_VOCABULARY = 49_152


@dataclass(frozen=True)
class Session:
    """A session's records. `fates` is empty for one that the trainer has not reached."""

    session_id: str
    traces: tuple[Trace, ...]
    feedback: tuple[Feedback, ...]
    trajectory: Trajectory
    reward: Reward
    fates: tuple[Fate, ...]

    @property
    def key(self) -> str:
        return session_key(self.session_id)

    def records(self) -> Iterator[tuple[Topic, Record]]:
        """Everything, first stage to last; traces as they are stored, without what an earlier one has."""
        yield from ((TRACES, trace) for trace in stored(self.traces))
        yield from ((FEEDBACK, given) for given in self.feedback)
        yield TRAJECTORIES, self.trajectory
        yield REWARDS, self.reward
        yield from ((FATES, fate) for fate in self.fates)


def session(number: int, seed: int = 0, at: float = 0.0) -> Session:
    """Session `number`, begun at `at`: its turns 10 s apart, closed 60 s after the last."""
    rng = random.Random(f"{seed} {number}")
    session_id = f"session-{number:09d}"
    traces = tuple(_traces(rng, session_id, rng.randint(1, MAX_TURNS), at))
    feedback = tuple(_feedback(rng, session_id, traces))
    end = traces[-1].finished_at
    trajectory = Trajectory(
        trajectory_id=f"trajectory-{session_id}",
        session_id=session_id,
        tenant="default",
        assignment=Assignment(),
        held_out=rng.random() < 0.1,
        closed=CloseReason.INACTIVE,
        opened_at=at,
        closed_at=end + 60.0,
        turns=build(join(traces).readings, {}),
        chains=join(traces).chains,
        feedback=feedback,
    )
    reward = Reward(
        reward_id=f"reward-{session_id}",
        trajectory_id=trajectory.trajectory_id,
        session_id=session_id,
        spec="thumbs@1",
        components=(),
        turns=(),
        value=0.5,
        has_signal=bool(feedback),
        guardrails={},
        source=Source(partition=0, offset=number),
        **about(trajectory),
        at=end + 61.0,
    )
    return Session(session_id, traces, feedback, trajectory, reward, tuple(_fates(rng, trajectory, end + 120.0)))


def _traces(rng: random.Random, session_id: str, num: int, at: float) -> Iterator[Trace]:
    prompt: tuple[int, ...] = ()
    messages: list[dict[str, str]] = [{"role": "system", "content": _text(rng, 20)}]
    for turn in range(num):
        messages.append({"role": "user", "content": _text(rng, 25)})
        prompt = (*prompt, *_tokens(rng, 40))
        reply, text, began = _tokens(rng, 60), _text(rng, 40), at + 10.0 * turn
        yield Trace(
            trace_id=f"{session_key(session_id)}-{rng.randbytes(16).hex()}",
            session_id=session_id,
            tenant="default",
            assignment=Assignment(),
            engine_id="stable-0",
            kind=TurnKind.MAIN,
            endpoint="/v1/chat/completions",
            model="policy",
            request={"model": "policy", "messages": list(messages), "max_tokens": 64},
            reply_text=text,
            streamed=True,
            status=200,
            prompt_token_ids=prompt,
            token_ids=reply,
            logprobs=tuple(-rng.random() for _ in reply),
            spans=(VersionSpan(version=3, start=0, end=len(reply)),),
            sampling={},
            finish_reason="stop",
            started_at=began,
            finished_at=began + 2.0,
        )
        messages.append({"role": "assistant", "content": text})
        prompt = (*prompt, *reply)


def _feedback(rng: random.Random, session_id: str, traces: Sequence[Trace]) -> Iterator[Feedback]:
    for number, trace in enumerate(traces):
        if rng.random() < 0.2:
            yield Feedback(
                feedback_id=f"feedback-{session_id}-{number}",
                trace_id=trace.trace_id,
                tenant="default",
                value=rng.choice((-1.0, 1.0)),
                at=trace.finished_at + 5.0,
            )


def _fates(rng: random.Random, trajectory: Trajectory, at: float) -> Iterator[Fate]:
    """How its traces ended, all alike but for the last of some sessions; one session in ten waits for the trainer."""
    ends = {
        "trained": (FateKind.TRAINED, 4, "in a batch"),
        "held out": (FateKind.HELD_OUT, None, "its session is held out"),
        "refused": (FateKind.REFUSED, None, "too old for the trainer"),
        "expired": (FateKind.EXPIRED, None, "no signal"),
    }
    drawn = rng.choice([*["trained"] * 6, "held out", "refused", "expired", ""])
    if not drawn:
        return
    names = [turn.trace_id for turn in trajectory.turns]
    cut = len(names) - (len(names) > 1 and rng.random() < 0.2)
    for some, end in ((names[:cut], drawn), (names[cut:], "expired")):
        if some:
            kind, version, reason = ends[end]
            yield Fate(trace_ids=tuple(some), kind=kind, version=version, reason=reason, at=at)


def _text(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=num_words))


def _tokens(rng: random.Random, num: int) -> tuple[int, ...]:
    return tuple(rng.randrange(_VOCABULARY) for _ in range(num))


def stored(traces: Sequence[Trace]) -> Iterator[Trace]:
    """Traces of one session as capture stores them: each but the first by the one before it."""
    before: tuple[prefixes.Outline, str] | None = None
    for trace in traces:
        outline = prefixes.Outline.of(trace)
        if before is not None:
            num = before[0].num_tokens_in(outline.prompt)
            trace = prefixes.cut(trace, outline, before[0], before[1], num)
        yield trace
        before = outline, prefixes.digest(codec.encode(trace)[0])


@dataclass(frozen=True)
class Stamped:
    """A message of a copied session; `key` is the session's."""

    topic: str
    key: str
    value: bytes
    headers: dict[str, str]


class Copies:
    """Messages of any number of sessions, from `num_originals` ones."""

    def __init__(self, num_originals: int = 50, seed: int = 0, at: float = 0.0) -> None:
        originals = [session(number, seed, at) for number in range(num_originals)]
        self.num_traces = [len(one.traces) for one in originals]
        self._ids = [(one.session_id.encode(), one.key.encode()) for one in originals]
        self._messages = [[_plain(topic, record) for topic, record in one.records()] for one in originals]

    def messages(self, number: int) -> Iterator[Stamped]:
        """Those of session `number`, first stage to last."""
        original = number % len(self._messages)
        session_id, key = self._ids[original]
        new_id = f"session-{number:09d}"
        new_key = session_key(new_id)
        for one in self._messages[original]:
            value = one.value.replace(session_id, new_id.encode()).replace(key, new_key.encode())
            yield replace(one, key=new_key, value=codec.packed(value))

    def of(self, num_traces: int) -> Iterator[Stamped]:
        """Sessions until there are so many traces, or a few more."""
        number = 0
        while num_traces > 0:
            yield from self.messages(number)
            num_traces -= self.num_traces[number % len(self.num_traces)]
            number += 1


def _plain(topic: Topic, record: Record) -> Stamped:
    value, headers = codec.encode(record)
    return Stamped(topic.name, "", codec.plain(value), headers)
