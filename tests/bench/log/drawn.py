"""Sessions as production would serve them, drawn: the same each time, and plain values that any release can record.

Words are those of `tests/support/histories`, no sentence twice in a session; tokens are SmolLM2's, through its chat
template; log-probabilities are drawn as sampling gives them, most of them near 0. A system prompt of one sentence and
no tools: what stands at the head of every prompt is as small here as it gets.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import bench
import histories
from tokenizers import Tokenizer

from ingest.records.events import session_key

Drawn = dict[str, Any]
"""A session: `session_id`, `turns` (fields of `Trace`), `feedback` (fields of `Feedback`)."""

USER_SENTENCES, REPLY_SENTENCES = (1, 2), (2, 5)
TURNS_PER_THUMB = 5
COMMENTS = ("", "", "", "That was not what I had asked for, please look again at the second part.")
EVERY_S, REPLY_S = 20.0, 4.0  # between two turns of a session; from a request to the end of its reply


class Texts:
    """Sentences of one session, each given once."""

    def __init__(self, rng: random.Random, number: int) -> None:
        drawn = [histories.draw(number, domain, num_filler=0, num_facts=8) for domain in histories.domains()]
        filler = [pair for domain in histories.domains().values() for pair in domain["filler"]]
        facts = [fact for history in drawn for fact in history.facts]
        plans = [item for history in drawn for item in (*history.decisions, *history.tasks)]
        self.system = drawn[number % len(drawn)].system
        self._asked = [pair[0] for pair in filler] + [fact.told() for fact in facts]
        self._said = [pair[1] for pair in filler] + [fact.word("used", rng) for fact in facts]
        self._said += [item.word("noted", rng) for item in (*facts, *plans)]
        rng.shuffle(self._asked)
        rng.shuffle(self._said)
        self._rng = rng

    def asked(self) -> str:
        return self._take(self._asked, *USER_SENTENCES)

    def said(self) -> str:
        return self._take(self._said, *REPLY_SENTENCES)

    def _take(self, left: list[str], low: int, high: int) -> str:
        return " ".join(left.pop() for _ in range(self._rng.randint(low, high)))


def sessions(num: int, num_turns: int, begin: float = 0.0, spread_s: float = 3600.0) -> Iterator[Drawn]:
    """`num` sessions of `num_turns`, begun within `spread_s` from `begin`, in Unix seconds."""
    return (_session(number, num_turns, begin, spread_s) for number in range(num))


def renamed(session: Drawn, alias: str) -> Drawn:
    """Another session that says the same."""
    name = f"{session['session_id']}-{alias}"
    old, new = session_key(session["session_id"]), session_key(name)

    def moved(part: Drawn) -> Drawn:
        return part | {"trace_id": part["trace_id"].replace(old, new)}

    turns = [moved(turn) | {"session_id": name} for turn in session["turns"]]
    return {"session_id": name, "turns": turns, "feedback": [moved(one) for one in session["feedback"]]}


def _session(number: int, num_turns: int, begin: float, spread_s: float) -> Drawn:
    rng = random.Random(f"session {number} of {num_turns}")
    name, texts, at = f"chat-{rng.getrandbits(64):016x}", Texts(rng, number), begin + rng.uniform(0.0, spread_s)
    messages = [{"role": "system", "content": texts.system}]
    tokens = _rendered(messages[0])
    turns: list[Drawn] = []
    for n in range(num_turns):
        messages.append({"role": "user", "content": texts.asked()})
        tokens = (*tokens, *_rendered(messages[-1]))
        turn, tokens = _turn(rng, name, messages, tokens, texts.said(), at + n * EVERY_S)
        turns.append(turn)
        messages.append({"role": "assistant", "content": turn["reply_text"]})
        tokens = (*tokens, *_ids("\n"))
    rated = turns[TURNS_PER_THUMB - 1 :: TURNS_PER_THUMB] or turns[-1:]
    return {"session_id": name, "turns": turns, "feedback": [_thumb(rng, turn) for turn in rated]}


def _turn(
    rng: random.Random, session: str, messages: Sequence[Drawn], before: tuple[int, ...], said: str, at: float
) -> tuple[Drawn, tuple[int, ...]]:
    """A turn, and all tokens up to the end of its reply."""
    prompt = (*before, *_ids("<|im_start|>assistant\n"))
    reply = (*_ids(said), *_ids("<|im_end|>"))
    turn = {
        "trace_id": f"{session_key(session)}-{rng.getrandbits(128):032x}",
        "session_id": session,
        "tenant": "default",
        "assignment": {},
        "engine_id": "stable-0",
        "kind": "main",
        "endpoint": "/v1/chat/completions",
        "model": "policy",
        "request": {"model": "policy", "messages": list(messages), "max_tokens": 256, "temperature": 1.0},
        "reply_text": said,
        "streamed": False,
        "status": 200,
        "prompt_token_ids": prompt,
        "token_ids": reply,
        "logprobs": [_logprob(rng) for _ in reply],
        "spans": [{"version": 3, "start": 0, "end": len(reply)}],
        "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 256},
        "finish_reason": "stop",
        "started_at": at,
        "finished_at": at + REPLY_S,
    }
    return turn, prompt + reply


def _thumb(rng: random.Random, turn: Drawn) -> Drawn:
    return {
        "feedback_id": f"{rng.getrandbits(128):032x}",
        "trace_id": turn["trace_id"],
        "tenant": "default",
        "name": "thumb",
        "value": rng.choice([-1.0, 1.0, 1.0]),
        "comment": rng.choice(COMMENTS),
        "at": turn["finished_at"] + 5.0,
    }


def _logprob(rng: random.Random) -> float:
    """Three of four tokens are nearly certain, the others are not."""
    return -rng.expovariate(20.0) if rng.random() < 0.75 else -rng.expovariate(0.6)


def _rendered(message: Drawn) -> tuple[int, ...]:
    """As SmolLM2's chat template writes a message; its marks are single tokens, so parts may be cut on their own."""
    return _ids(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n")


@cache
def _ids(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text, add_special_tokens=False).ids)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(bench.ROOT / ".onstream" / "model" / "tokenizer.json"))
