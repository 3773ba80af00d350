"""Traffic for the lake: sessions of realistic length with their rewards, fates and feedback, the same each time.

Texts are sentences of `histories.yaml`, each at most once in a text; tokens are as many as a tokenizer makes of such
texts, four characters and a bit each, and equal words have equal tokens. Records are made without validation: a million
turns must not take long.
"""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from histories import domains

from ingest.records.events import (
    Assignment,
    Chain,
    ChatMessage,
    CloseReason,
    Component,
    Consent,
    Fate,
    FateKind,
    Feedback,
    Part,
    Release,
    ReleaseKind,
    Reward,
    Segment,
    Source,
    ToolCall,
    Trajectory,
    Turn,
    TurnKind,
    TurnReward,
    VersionSpan,
    about,
    session_key,
)
from ingest.sessions.amend import amended
from ingest.sessions.table import trajectory_id

SYSTEM = "You are the assistant of a small company. Answer in short sentences, say what you do not know, and use tools."
TOOLS = '[{"type":"function","function":{"name":"look_up","parameters":{"properties":{"name":{"type":"string"}}}}}]'
VOCABULARY = 49_152


@dataclass(frozen=True)
class Played:
    """A session and what became of it."""

    trajectory: Trajectory
    reward: Reward
    fates: tuple[Fate, ...]
    feedback: tuple[Feedback, ...]


def changed(played: Played, now: float, value: float = 0.25) -> Played:
    """What becomes of a session by feedback that comes at `now`: its next revision, and the reward of that."""
    late = Feedback.model_construct(
        feedback_id=f"late-{played.trajectory.session_id}-{now}", trace_id=played.trajectory.turns[0].trace_id,
        session_id=played.trajectory.session_id, tenant=played.trajectory.tenant, user="", redacted={}, name="thumb",
        value=1.0, comment="", at=now,
    )  # fmt: skip
    trajectory = amended(played.trajectory, [late], now)
    turns = tuple(turn.model_copy(update={"value": value}) for turn in played.reward.turns)
    made = {"reward_id": f"r-{trajectory.trajectory_id}", "trajectory_id": trajectory.trajectory_id, "turns": turns}
    made |= {"revision": trajectory.revision, "value": value, "at": now + 5.0}
    return Played(trajectory, played.reward.model_copy(update=made), played.fates, trajectory.feedback)


@cache
def sentences() -> tuple[str, ...]:
    """Everything that anyone says in `histories.yaml`."""
    found = []
    for domain in domains().values():
        found += [said for pair in domain["filler"] for said in pair]
        found += [said for kind in ("facts", "decisions", "tasks") for item in domain[kind] for said in item["told"]]
    return tuple(dict.fromkeys(found))


class Traffic:
    """Sessions one after the other. `begin` is when the first begins, `gap_s` how far apart they begin."""

    def __init__(self, seed: int = 0, begin: float = 1_000_000.0, gap_s: float = 60.0, tenants: int = 2) -> None:
        self._rng, self._at, self._gap_s, self._tenants = random.Random(seed), begin, gap_s, tenants
        self._seed, self._number = seed, 0

    def sessions(self, num: int) -> Iterator[Played]:
        for _ in range(num):
            yield self._session()

    def release(self, number: int = 0) -> Release:
        return Release(release=number, epoch=1, kind=ReleaseKind.BOOTSTRAP, stable=0, reason="the first", at=self._at)

    def _session(self) -> Played:
        rng, self._number, self._at = self._rng, self._number + 1, self._at + self._gap_s
        tenant = f"tenant-{self._number % self._tenants}"
        user = f"u-{session_key(str(rng.randrange(1000)))}" if self._number % 3 else ""
        session_id = f"{tenant}/chat-{self._seed}-{self._number}"
        num = min(16, 1 + int(rng.expovariate(0.28)))
        version = self._number // 500
        turns, segments, tokens = list[Turn](), list[Segment](), list[int]()
        for number in range(num):
            turn, added, reply = self._turn(session_id, number, version, turns[-1].trace_id if turns else None)
            start = len(tokens) + len(added)
            tokens += [*added, *reply]
            segments.append(self._segment(turn.trace_id, start, len(tokens), version))
            turns.append(turn)
        trajectory = Trajectory.model_construct(
            trajectory_id=trajectory_id(session_id, [turn.trace_id for turn in turns], 1),
            revision=1,
            partition=0,
            session_id=session_id,
            parent_session_id=None,
            tenant=tenant,
            user=user,
            consent=Consent.ASSUMED,
            assignment=Assignment(),
            held_out=rng.random() < 0.05,
            closed=CloseReason.INACTIVE,
            opened_at=self._at,
            closed_at=self._at + 30.0 * num + 900.0,
            turns=tuple(turns),
            chains=(
                Chain.model_construct(
                    token_ids=tuple(tokens), segments=tuple(segments), base=None, shared=0, link=None, marks=()
                ),
            ),
            feedback=self._feedback(session_id, tenant, turns),
        )
        return Played(trajectory, self._reward(trajectory), self._fates(trajectory), trajectory.feedback)

    def _turn(
        self, session_id: str, number: int, version: int, parent: str | None
    ) -> tuple[Turn, list[int], list[int]]:
        rng = self._rng
        (asked, asked_ids), (reply, reply_ids) = self._text(1, 4), self._text(3, 18)
        messages = [ChatMessage.model_construct(role="user", text=asked, tool_calls=(), call_id="")]
        if number == 0:
            messages.insert(0, ChatMessage.model_construct(role="system", text=SYSTEM, tool_calls=(), call_id=""))
        calls: tuple[ToolCall, ...] = ()
        if rng.random() < 0.2:
            call_id = f"call-{rng.getrandbits(48):012x}"
            calls = (
                ToolCall.model_construct(name="look_up", arguments=f'{{"name": "{asked[:20]}"}}', call_id=call_id),
            )
        turn = Turn.model_construct(
            offset=16 * self._number + number,
            is_altered=False,
            trace_id=f"{session_key(session_id)}-{zlib.crc32(session_id.encode()):08x}{number:024x}",
            kind=TurnKind.MAIN,
            parent=parent,
            messages=tuple(messages),
            tool_calls=calls,
            tools="" if parent else TOOLS,
            context=asked,
            reply=reply,
            followup=None,
            finish_reason="tool_calls" if calls else "stop",
            status=200,
            num_tokens=len(reply_ids),
            versions=(version,),
            at=self._at + 30.0 * number + rng.random(),
        )
        return turn, asked_ids if number else [*tokens_of(SYSTEM), *asked_ids], reply_ids

    def _text(self, least: int, most: int) -> tuple[str, list[int]]:
        """Some sentences, and their tokens."""
        picked = self._rng.sample(sentences(), self._rng.randint(least, most))
        text = " ".join(picked).replace("{v}", str(self._rng.randrange(100_000)))
        return text, [token for sentence in picked for token in tokens_of(sentence)]

    def _segment(self, trace_id: str, start: int, end: int, version: int) -> Segment:
        span = VersionSpan.model_construct(version=version, start=0, end=end - start)
        probs = tuple(self._rng.choices(logprobs(), k=end - start))
        return Segment.model_construct(trace_id=trace_id, start=start, end=end, logprobs=probs, spans=(span,))

    def _feedback(self, session_id: str, tenant: str, turns: list[Turn]) -> tuple[Feedback, ...]:
        if self._rng.random() > 0.2:
            return ()
        given = Feedback.model_construct(
            feedback_id=f"f-{self._seed}-{self._number}",
            trace_id=turns[-1].trace_id,
            session_id=session_id,
            tenant=tenant,
            user="",
            redacted={},
            name="thumb",
            value=self._rng.choice([-1.0, 1.0]),
            comment=self._text(1, 1)[0] if self._rng.random() < 0.3 else "",
            at=self._at + 30.0 * len(turns),
        )
        return (given,)

    def _reward(self, trajectory: Trajectory) -> Reward:
        values = [round(self._rng.random(), 3) for _ in trajectory.turns]
        return Reward.model_construct(
            reward_id=f"r-{trajectory.trajectory_id}",
            trajectory_id=trajectory.trajectory_id,
            revision=1,
            session_id=trajectory.session_id,
            spec="default@1",
            components=tuple(
                Component.model_construct(
                    name="thumb", scorer="feedback@1", trace_id=turn.trace_id, value=value, unscored=None
                )
                for turn, value in zip(trajectory.turns, values, strict=True)
            ),
            turns=tuple(
                TurnReward.model_construct(
                    trace_id=turn.trace_id,
                    kind=turn.kind,
                    value=value,
                    parts=(Part.model_construct(name="thumb", weight=1.0, value=value),),
                )
                for turn, value in zip(trajectory.turns, values, strict=True)
            ),
            value=sum(values) / len(values),
            has_signal=True,
            guardrails={"completed": 1.0},
            source=Source(partition=0, offset=self._number),
            trajectory=None,
            **about(trajectory),
            at=trajectory.closed_at + 5.0,
        )

    def _fates(self, trajectory: Trajectory) -> tuple[Fate, ...]:
        """The first turn's, and the others'."""
        kind = FateKind.HELD_OUT if trajectory.held_out else FateKind.TRAINED
        ids = tuple(turn.trace_id for turn in trajectory.turns)
        return tuple(
            Fate.model_construct(
                trace_ids=some,
                kind=kind,
                version=None if trajectory.held_out else trajectory.turns[0].versions[0] + 1,
                reason="",
                at=trajectory.closed_at + 60.0,
            )
            for some in (ids[:1], ids[1:])
            if some
        )


@cache
def logprobs() -> tuple[float, ...]:
    """Log-probabilities to draw from: many tokens are nearly certain, and each number has all digits of a float32."""
    rng, num = random.Random(0), 1 << 16
    return struct.unpack(f"<{num}f", struct.pack(f"<{num}f", *(-(rng.expovariate(1.2) ** 2) for _ in range(num))))


@cache
def tokens_of(sentence: str) -> tuple[int, ...]:
    """A stand-in tokenizer: a token for each five characters of a word."""
    pieces = [word[begin : begin + 5] for word in sentence.split() for begin in range(0, len(word), 5)]
    return tuple(map(_token, pieces))


def _token(piece: str) -> int:
    """Few pieces make most of a text, and have small numbers in a real vocabulary."""
    draw = zlib.crc32(piece.encode()) / 2**32
    return int(VOCABULARY * draw**2)
