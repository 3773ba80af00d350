"""Records of every kind as they usually are, with nobody's words in them: what the codec's dictionary is trained on.

Fields have the names and values that stages write most, numbers and ids are drawn, and texts are letters in words that
no language has, as frequent as in English: what a compressor can learn here are the records' forms.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from infra.config import IngestConfig
from ingest.log.protocol import Message
from ingest.records.events import (
    Fate,
    FateKind,
    Feedback,
    Record,
    Release,
    Source,
    Trace,
    Trajectory,
    Version,
    session_key,
)
from ingest.sessions.table import SessionTable
from rewards import evaluate
from rewards.spec import Scoring, load
from serving.engine.recent import Recent
from trainer.eligibility import Reason

Json = dict[str, Any]

_LETTERS = "eeeeeeeeeeeetttttttttaaaaaaaaooooooooiiiiiiinnnnnnnsssssshhhhhhrrrrrrddddllllccuuummwwffggyyppbbvk" + "jxqz"
_ENDPOINTS = ("/v1/chat/completions",) * 6 + ("/v1/completions", "/v1/responses", "/v1/messages")
_MAX_TOKENS = (16, 32, 64, 100, 128, 200, 256, 300, 400, 500, 512, 800, 1000, 1024, 2000, 2048, 4096, 8192)
_TEMPERATURES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0)
_SIGNALS = ("thumb",) * 4 + ("outcome", "edit", "session_end")
_BEGIN, _SPAN_S = 1.76e9, 2.4e8  # from 2025 on, for some years


def records(num_sessions: int, seed: int = 0) -> Iterator[Record]:
    """Sessions with what all stages make of them, then releases and versions: the same each time."""
    rng, scoring = random.Random(seed), load("")
    for _ in range(num_sessions):
        yield from _Session(rng).records(scoring)
    for number in range(num_sessions // 10):
        yield _release(rng, number)
        yield _version(rng, number)


class _Session:
    """One session: whose it is, and what all its requests have in common."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._at = rng, _BEGIN + rng.random() * _SPAN_S
        self.name = rng.choice(("anonymous-", "anonymous-", "chat-", "session-", "")) + _hex(rng, 16)
        self.key = session_key(self.name)
        self._whose = {"tenant": rng.choice(("default", "default", _word(rng)))}
        self._whose["user"] = rng.choice(("", _hex(rng, 16)))
        self._served = rng.randrange(1000)
        is_on_trial = rng.random() < 0.2
        self._assignment: Json = {}
        if is_on_trial:
            arm = rng.choice(("candidate", "stable"))
            self._assignment = {"arm": arm, "trial": self._served, "propensity": rng.choice((0.05, 0.1, 0.2, 0.5))}
        model = rng.choice(("policy", "policy", _word(rng)))
        self._asked: Json = {"model": model, "max_tokens": rng.choice(_MAX_TOKENS)}
        self._asked |= {"temperature": rng.choice(_TEMPERATURES)} if rng.random() < 0.7 else {}
        self._asked |= {"top_p": rng.choice((0.9, 0.95, 1.0))} if rng.random() < 0.3 else {}
        self._asked |= {"stream": True, "stream_options": {"include_usage": True}} if rng.random() < 0.5 else {}
        self._asked |= {"tools": _tools(rng), "tool_choice": "auto"} if rng.random() < 0.3 else {}

    def records(self, scoring: Scoring) -> Iterator[Record]:
        """First stage to last; traces as they are stored, without what an earlier one has."""
        table, end = SessionTable(IngestConfig()), self._at
        for offset, trace in enumerate(self._stored()):
            yield trace
            end = trace.finished_at
            table.add_trace(trace, Message("traces", 0, offset, self.key, _value(trace), {}), end)
            if self._rng.random() < 0.3:
                given = self._feedback(trace)
                yield given
                table.add_feedback(given, Message("feedback", 0, offset, self.key, _value(given), {}), end)
        for closed in table.due(end + 1e5):
            kept = closed.trajectory.model_copy(update={"partition": self._rng.randrange(16)})
            yield kept
            outcomes = evaluate.ask(scoring, kept).outcomes
            where = Source(partition=self._rng.randrange(16), offset=self._rng.randrange(10**7))
            yield evaluate.reward(scoring, kept, outcomes, end + self._rng.random() * 1e4, where)
            yield from self._fates(kept, end + self._rng.random() * 1e5)

    def _stored(self) -> Sequence[Trace]:
        recent, found = Recent(max_bytes=1 << 30, max_age_s=900.0), list[Trace]()

        def write(trace: Trace) -> bytes:
            found.append(trace)
            return _value(trace)

        for trace in self._traces(self._rng.choice((1, 1, 2, 3, 5, 8))):
            recent.store(trace, write)
        return found

    def _traces(self, num: int) -> Iterator[Trace]:
        rng, prompt = self._rng, _tokens(self._rng, 30)
        messages: list[Json] = [{"role": "system", "content": _text(rng, 20)}]
        for _ in range(num):
            messages.append({"role": "user", "content": _text(rng, rng.randint(2, 40))})
            said, token_ids = _text(rng, rng.randint(2, 60)), _tokens(rng, rng.randint(1, 80))
            prompt = (*prompt, *_tokens(rng, rng.randint(5, 60)))
            yield self._trace(messages, said, prompt, token_ids)
            messages.append({"role": "assistant", "content": said})
            if "tools" in self._asked and rng.random() < 0.5:
                messages[-1]["tool_calls"] = [_call(rng)]
                messages.append({"role": "tool", "tool_call_id": _hex(rng, 4), "content": _text(rng, 10)})
            prompt = (*prompt, *token_ids)

    def _trace(self, messages: Sequence[Json], said: str, prompt: tuple[int, ...], token_ids: tuple[int, ...]) -> Trace:
        rng, begun = self._rng, self._at
        took = rng.expovariate(0.3)
        self._at += took + rng.expovariate(0.02)
        cut = rng.random() < 0.1
        return Trace.model_validate(
            self._whose
            | {
                "trace_id": f"{self.key}-{_hex(rng, 16)}",
                "session_id": self.name,
                "consent": rng.choice(("assumed", "assumed", "given")),
                "assignment": self._assignment,
                "engine_id": f"{self._assignment.get('arm', 'stable')}-{rng.choice((0, 0, 0, 1, 2, 3))}",
                "kind": rng.choices(("main", "summary", "side"), (8, 1, 1))[0],
                "endpoint": rng.choice(_ENDPOINTS),
                "model": self._asked["model"],
                "redacted": {rng.choice(("email", "phone", "card", "key")): 1} if rng.random() < 0.1 else {},
                "request": self._asked | {"messages": list(messages)},
                "reply_text": said,
                "streamed": "stream" in self._asked,
                "status": 200,
                "prompt_token_ids": prompt,
                "token_ids": token_ids,
                "logprobs": [-rng.expovariate(rng.choice((0.5, 20.0, 20.0))) for _ in token_ids],
                "spans": [{"version": self._served, "start": 0, "end": len(token_ids)}],
                "sampling": {
                    "temperature": self._asked.get("temperature", 1.0),
                    "top_p": self._asked.get("top_p", 1.0),
                    "max_tokens": self._asked["max_tokens"],
                },
                "finish_reason": "length" if cut else "tool_calls" if rng.random() < 0.1 else "stop",
                "started_at": begun,
                "finished_at": begun + took,
            }
        )

    def _feedback(self, trace: Trace) -> Feedback:
        rng, about = self._rng, {"trace_id": trace.trace_id}
        if rng.random() < 0.2:
            about = {"session_id": self.name}
        given = {
            "feedback_id": _hex(rng, 16),
            "name": rng.choice(_SIGNALS),
            "value": rng.choice((-1.0, 1.0, 1.0, 0.0, 0.5)),
            "comment": rng.choice(("", "", _text(rng, 12))),
            "at": trace.finished_at + rng.expovariate(0.05),
        }
        return Feedback.model_validate(self._whose | about | given)

    def _fates(self, trajectory: Trajectory, at: float) -> Iterator[Fate]:
        names = [turn.trace_id for turn in trajectory.turns]
        cut = self._rng.randint(0, len(names))
        number = self._rng.randrange(1000)
        trained: Json = {"kind": FateKind.TRAINED, "version": number, "reason": f"trained in version {number}"}
        other: Json = {"kind": FateKind.REFUSED, "reason": self._rng.choice(list(Reason))}
        if other["reason"] == Reason.HELD_OUT:
            other["kind"] = FateKind.HELD_OUT
        for some, ending in ((names[:cut], trained), (names[cut:], other)):
            if some:
                yield Fate(trace_ids=tuple(some), at=at, **ending)


# -- other records


def _release(rng: random.Random, number: int) -> Release:
    numbers = {"users_needed.promote": rng.random() * 1e3, "log_e.reward": rng.random(), "units.excluded": 0.0}
    return Release.model_validate(
        {
            "release": number,
            "epoch": rng.randint(1, 9),
            "kind": "trial",
            "stable": number,
            "candidate": number + 1,
            "state": rng.choice(("published", "evaluating", "canary", "promoted", "rejected", "expired")),
            "share": rng.choice((0.05, 0.1, 0.5)),
            "salt": _hex(rng, 8),
            "engines": {"stable-0": number, "candidate-0": number + 1},
            "numbers": numbers,
            "reason": f"version {number + 1} gets {rng.choice((5, 10, 50))}% of sessions",
            "at": _BEGIN + rng.random() * _SPAN_S,
        }
    )


def _version(rng: random.Random, number: int) -> Version:
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    return Version.model_validate(
        {
            "version": number + 1,
            "digest": _hex(rng, 32),
            "parent": number,
            "parent_digest": _hex(rng, 32),
            "files": [{"name": name, "bytes": rng.randrange(10**9), "sha256": _hex(rng, 32)} for name in names],
            "lineage": {"step": rng.randrange(1000)},
            "metrics": {"loss": rng.random(), "kl": rng.random()},
            "created_at": _BEGIN + rng.random() * _SPAN_S,
        }
    )


# -- what is drawn


def _value(record: Record) -> bytes:
    """Not as the codec compresses it: what is drawn must not lean on what is trained on it."""
    return record.model_dump_json().encode()


def _tools(rng: random.Random) -> list[Json]:
    def tool() -> Json:
        given = {_word(rng): {"type": "string", "description": _text(rng, 5)} for _ in range(rng.randint(1, 3))}
        parameters = {"type": "object", "properties": given, "required": list(given)[:1]}
        named = {"name": _word(rng), "description": _text(rng, 8), "parameters": parameters}
        return {"type": "function", "function": named}

    return [tool() for _ in range(rng.randint(1, 3))]


def _call(rng: random.Random) -> Json:
    arguments = f'{{"{_word(rng)}": "{_word(rng)}"}}'
    return {"id": f"call_{_hex(rng, 4)}", "type": "function", "function": {"name": _word(rng), "arguments": arguments}}


def _tokens(rng: random.Random, num: int) -> tuple[int, ...]:
    """Small ids are frequent, as in every tokenizer whose vocabulary is in the order of its merges."""
    return tuple(int(2 ** (rng.random() * 16.5)) for _ in range(num))


def _text(rng: random.Random, num_words: int) -> str:
    return " ".join(_word(rng) for _ in range(num_words)).capitalize() + "."


def _word(rng: random.Random) -> str:
    return "".join(rng.choices(_LETTERS, k=rng.randint(1, 9)))


def _hex(rng: random.Random, num_bytes: int) -> str:
    return rng.randbytes(num_bytes).hex()
