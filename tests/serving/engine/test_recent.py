"""What an engine remembers of a session, to store its next turn without it."""

from typing import Any

import pytest

from ingest.records import codec, prefixes
from ingest.records.events import Assignment, Trace, TurnKind, VersionSpan
from serving.engine.recent import Recent


def trace(n: int, prompt: tuple[int, ...], at: float = 0.0, session: str = "s", **fields: Any) -> Trace:
    return Trace.model_validate(
        {
            "trace_id": f"{session}-{n}", "session_id": session, "tenant": "t", "assignment": Assignment(),
            "engine_id": "e", "kind": TurnKind.MAIN, "endpoint": "/", "model": "m", "request": {}, "reply_text": "",
            "streamed": False, "status": 200, "prompt_token_ids": prompt, "token_ids": (8, 9), "logprobs": (-1.0, -1.0),
            "spans": (VersionSpan(version=0, start=0, end=2),), "sampling": {}, "finish_reason": "stop",
            "started_at": at, "finished_at": at, **fields,
        }
    )  # fmt: skip


class Disk:
    """What was stored, and whether it takes more."""

    def __init__(self) -> None:
        self.stored: dict[str, Trace] = {}
        self.is_full = False

    def write(self, stored: Trace) -> bytes | None:
        if self.is_full:
            return None
        self.stored[stored.trace_id] = stored
        return codec.encode(stored)[0]

    def parent(self, trace_id: str) -> str | None:
        prefix = self.stored[trace_id].prefix
        return prefix.parent if prefix else None


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_a_turn_leans_on_the_one_it_extends_furthest(disk: Disk) -> None:
    recent = Recent(1 << 20, 100.0)
    for one in (trace(0, (1, 2)), trace(1, (1, 2, 8, 9, 3)), trace(2, (1, 5)), trace(3, (1, 2, 8, 9, 3, 8, 9, 4))):
        recent.store(one, disk.write)
    assert [disk.parent(f"s-{n}") for n in range(4)] == [None, "s-0", "s-1", "s-1"]
    assert disk.stored["s-3"].prompt_token_ids == (4,)


def test_a_prefix_names_its_parents_value_as_it_was_stored(disk: Disk) -> None:
    recent = Recent(1 << 20, 100.0)
    for one in (trace(0, (1, 2)), trace(1, (1, 2, 8, 9, 3)), trace(2, (1, 2, 8, 9, 3, 8, 9, 4))):
        recent.store(one, disk.write)
    value, _ = codec.encode(disk.stored["s-1"])
    found = disk.stored["s-2"].prefix
    assert found is not None and found.digest == prefixes.digest(value)


def test_a_turn_counts_as_redacted_what_is_not_its_parents(disk: Disk) -> None:
    recent = Recent(1 << 20, 100.0)
    for one in (
        trace(0, (1, 2), redacted={"email": 2}),
        trace(1, (1, 2, 8, 9, 3), redacted={"email": 3, "card": 1}),
        trace(2, (1, 2, 8, 9, 3, 8, 9), redacted={"email": 3, "card": 1}),
    ):
        recent.store(one, disk.write)
    assert [disk.stored[f"s-{n}"].redacted for n in range(3)] == [{"email": 2}, {"email": 1, "card": 1}, {}]


def test_no_turn_leans_on_another_session(disk: Disk) -> None:
    recent = Recent(1 << 20, 100.0)
    recent.store(trace(0, (1, 2)), disk.write)
    recent.store(trace(1, (1, 2, 8, 9), session="other"), disk.write)
    assert disk.parent("other-1") is None


def test_no_turn_leans_on_one_that_was_not_stored(disk: Disk) -> None:
    recent = Recent(1 << 20, 100.0)
    disk.is_full = True
    recent.store(trace(0, (1, 2)), disk.write)
    disk.is_full = False
    recent.store(trace(1, (1, 2, 8, 9)), disk.write)
    assert disk.parent("s-1") is None


def test_a_line_of_prefixes_ends_when_its_first_trace_is_old(disk: Disk) -> None:
    recent = Recent(1 << 20, 100.0)
    for n, at in enumerate((0.0, 60.0, 100.0, 101.0, 150.0)):
        recent.store(trace(n, (1,) * (n + 1), at), disk.write)
    assert [disk.parent(f"s-{n}") for n in range(5)] == [None, "s-0", "s-1", None, "s-3"]


def test_memory_is_bounded_and_the_session_longest_unheard_goes_first(disk: Disk) -> None:
    recent = Recent(3 * prefixes.Outline.of(trace(0, (1, 2))).num_bytes, 100.0)
    for session in ("a", "b", "c", "a", "d"):
        recent.store(trace(0, (1, 2), session=session), disk.write)
    for session in ("a", "b"):
        recent.store(trace(1, (1, 2, 8, 9), session=session), disk.write)
    assert (disk.parent("a-1"), disk.parent("b-1")) == ("a-0", None)


def test_without_memory_every_turn_is_stored_whole(disk: Disk) -> None:
    recent = Recent(0, 100.0)
    for n in range(2):
        recent.store(trace(n, (1,) * (n + 1)), disk.write)
    assert disk.parent("s-1") is None
