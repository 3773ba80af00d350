"""What the demo counts of summaries, from records alone."""

import pytest
from summaries import Tally

from ingest.records.events import (
    Chain,
    CloseReason,
    Component,
    Link,
    LinkKind,
    Reward,
    Segment,
    Trajectory,
    Turn,
    TurnKind,
    about,
)
from ingest.records.events import TurnReward as Worth


def turn(name: str, kind: TurnKind = TurnKind.MAIN) -> Turn:
    return Turn(
        trace_id=name, kind=kind, context="", reply="", followup=None, finish_reason="stop", status=200, num_tokens=1,
        versions=(0,), at=0.0,
    )  # fmt: skip


def chain(*names: str, link: Link | None = None) -> Chain:
    segments = tuple(
        Segment(trace_id=n, start=i + 1, end=i + 2, logprobs=(0.0,), spans=()) for i, n in enumerate(names)
    )
    return Chain(token_ids=tuple(range(len(names) + 1)), segments=segments, link=link)


def session(name: str = "t") -> Trajectory:
    """A turn, a summary, and a turn that goes on from it."""
    link = Link(kind=LinkKind.COMPACTION, before=0, trace_id="summary", message=1)
    return Trajectory(
        trajectory_id=name, session_id="s", tenant="default", assignment=None, held_out=False,
        closed=CloseReason.INACTIVE, opened_at=0.0, closed_at=1.0,
        turns=(turn("before"), turn("summary", TurnKind.SUMMARY), turn("after")),
        chains=(chain("before", "summary"), chain("after", link=link)), feedback=(),
    )  # fmt: skip


def reward(value: float, name: str = "t", **components: float | None) -> Reward:
    of_summary = [("summary", name, value) for name, value in components.items()]
    given = tuple(
        Component(name=n, scorer="x@1", trace_id=trace_id, value=v, unscored=None if v is not None else "no")
        for trace_id, n, v in [("before", "symptoms", 1.0), *of_summary]
    )
    of = session(name)
    return Reward(
        reward_id=name, trajectory_id=name, session_id="s", spec="x", components=given,
        turns=(Worth(trace_id="before", value=1.0), Worth(trace_id="summary", kind=TurnKind.SUMMARY, value=value)),
        value=1.0, has_signal=True, guardrails={}, trajectory=of, **about(of), at=2.0,
    )  # fmt: skip


def test_a_trajectory_read_twice_is_one_compaction() -> None:
    tally = Tally()
    for record in (session(), session(), reward(0.5, recall=0.5)):
        tally.take(record)
    assert tally.compactions == 1


def test_quality_is_the_reward_of_summaries_and_of_no_other_turn() -> None:
    tally = Tally()
    tally.take(reward(0.25, recall=0.5, sufficiency=None))
    assert tally.quality() == pytest.approx(0.25)
    assert tally.by_component() == {"recall": 0.5}


def test_a_summary_that_only_its_outcome_priced_is_not_scored() -> None:
    tally = Tally()
    tally.take(reward(1.0, outcome=1.0, recall=None))
    assert not tally.scores
    assert tally.quality() is None
