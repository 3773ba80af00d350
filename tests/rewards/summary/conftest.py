"""Sessions with one compaction, in the words that a test gives."""

from collections.abc import Callable, Sequence

import pytest
from histories import Message, close

from ingest.records.events import Trajectory

Make = Callable[..., Trajectory]


def messages(said: Sequence[str], first: str = "user") -> list[Message]:
    """Alternating messages; one that begins with `tool:` or `assistant:` has that role."""
    roles, made = ("user", "assistant"), list[Message]()
    for number, text in enumerate(said):
        role, _, rest = text.partition(": ")
        if role in ("tool", "assistant", "user"):
            made.append({"role": role, "content": rest})
        else:
            made.append({"role": roles[(number + (first == "assistant")) % 2], "content": text})
    return made


@pytest.fixture
def session() -> Make:
    """`session(before, summary, after)`: what was said before the cut, the summary, what was said after it."""

    def make(before: Sequence[str], summary: str, after: Sequence[str] = (), wrapper: str = "{}") -> Trajectory:
        carrier = {"role": "user", "content": wrapper.format(summary)}
        return close("test", "You help.", messages(before), "Sum it up, please.", summary, carrier, messages(after))

    return make
