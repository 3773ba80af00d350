"""A turn's prompt in 64 bits, such that alike prompts have alike bits. Pure, and the same in every process.

Bit i is the lowest bit of the smallest value that the i-th of 64 hash functions gives any four successive characters
of the prompt: b-bit minwise hashing with b = 1 (Li and König, WWW 2010, arXiv:0910.3349). Where a share J (Jaccard) of
the character fours of two prompts is in common, they differ in 32 (1 - J) bits on average. Upper case, white space
and Unicode's compatibility forms make no difference. What was measured, and against what, is in docs/fairness.md.

Sketched is what a turn's client sent: messages that are neither the model's nor system prompts, which a whole product
shares. A short one ("go on") says nothing alone and is read together with what stands before it.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.records.events import ChatMessage, Trajectory, Turn
from ingest.sessions.history import reply_of, turns_by_id
from ingest.sessions.messages import ASSISTANT, PREAMBLE

NUM_BITS = 64
NUM_CHARS = 4
MIN_CHARS = 32
"""A shorter prompt is read together with what came before it."""
MAX_CHARS = 32_768
"""Of a longer text its end is sketched: 64 hashes of a megabyte would take a second."""
_BLOCK = 4096


def sketch_of(new: Sequence[ChatMessage], before: Iterable[ChatMessage] = ()) -> str:
    """Sixteen hex digits for a turn's new messages; empty where they hold no text that can be compared.

    `before` are the messages that the turn goes on from, the newest first; no more of them are read than needed.
    """
    text = ""
    for message in reversed([message for message in new if message.role not in (*PREAMBLE, ASSISTANT)]):
        text = _before(message, text)
    if not text:
        return ""
    for message in before:
        if len(text) >= MIN_CHARS:
            break
        if message.role not in PREAMBLE:
            text = _before(message, text)
    return bits(text)


def sketches(trajectory: Trajectory) -> dict[str, str]:
    """The sketch of every turn of a session, by trace id."""
    known = turns_by_id(trajectory)
    return {turn.trace_id: sketch_of(turn.messages, _elders(turn, known)) for turn in trajectory.turns}


def _elders(turn: Turn, known: dict[str, Turn]) -> Iterator[ChatMessage]:
    met = {turn.trace_id}
    while turn.parent in known and turn.parent not in met:
        turn = known[turn.parent]
        met.add(turn.trace_id)
        yield reply_of(turn)
        yield from reversed(turn.messages)


def _before(message: ChatMessage, text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKC", message.text[-MAX_CHARS:]).casefold().split())
    return f"{plain} {text}".strip()[-MAX_CHARS:]


def bits(text: str) -> str:
    """The sketch of a text that is not empty, as 16 hex digits."""
    grams = _grams(text)
    least = np.full(NUM_BITS, np.iinfo(np.uint64).max)
    for start in range(0, len(grams), _BLOCK):
        values = _mixed(grams[start : start + _BLOCK, None] * _MULTIPLIERS)
        least = np.minimum(least, values.min(axis=0))
    return np.packbits((least & np.uint64(1)).astype(np.uint8)).tobytes().hex()


def _grams(text: str) -> NDArray[np.uint64]:
    """Every four successive characters as one number, each kind once."""
    codes = np.frombuffer(text.ljust(NUM_CHARS).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    num = len(codes) - NUM_CHARS + 1
    grams = np.zeros(num, np.uint64)
    for position in range(NUM_CHARS):
        grams = grams * np.uint64(0x9E3779B97F4A7C15) + codes[position : position + num]
    return np.unique(_mixed(grams))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of MurmurHash3: every input bit moves every output bit."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))


_MULTIPLIERS = _mixed(np.arange(1, NUM_BITS + 1, dtype=np.uint64)) | np.uint64(1)
