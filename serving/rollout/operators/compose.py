"""How a story is made: from a trial's releases, which are kept for ever, and from its sessions' rewards. Pure.

Evidence is what the gate would have said each time: rewards are taken in the order in which they were scored, and
looked at now and then. Rewards are kept for a while only; what a release says it was decided on stays.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Protocol

from ingest.records.events import Arm, Release, ReleaseKind, Reward, TrialState, Version
from ingest.store.releases import UNDECIDED, decides
from serving.rollout.evidence import REWARD, Standing
from serving.rollout.evidence.lines import by_outcome
from serving.rollout.operators.story import Point, Stage, Step, Story

MAX_POINTS = 200

LineOf = Callable[[str, bool], float]
"""Outcome, and whether in a watch -> the log of the evidence of harm that ends it."""

_ABOUT_WRITERS = (ReleaseKind.CLAIM, ReleaseKind.ANNOUNCED)


class Gauge(Protocol):
    """Takes a trial's rewards one by one, and says at any time how it stands."""

    def add(self, reward: Reward) -> None: ...

    def look(self, at: float) -> Standing: ...


@dataclass(frozen=True)
class Span:
    """A time in which sessions counted for a trial: its canary, or its watch."""

    begin: Release
    end: float
    is_watch: bool = False


def moves_of(version: int, releases: Iterable[Release]) -> tuple[Release, ...]:
    """The releases that moved the trial of `version`, or that an operator wrote while it lasted.

    Each release names the last trial until another begins: of those behind its end, only a later step is of it. Where
    arms take turns, a block that only begins or ends moves nothing.
    """
    found: list[Release] = []
    for one in releases:
        if one.candidate != version or one.state is None or (one.kind is ReleaseKind.BLOCK and not decides(one)):
            continue
        is_behind = found and one.state is found[-1].state and has_ended(found[-1])
        found += [] if is_behind else [one]
    return tuple(found)


def has_ended(move: Release) -> bool:
    """Nothing is decided by itself after this release: neither a trial nor a watch goes on."""
    return move.state not in UNDECIDED and not _counts(move, is_watch=True)


def spans(moves: Sequence[Release], left_at: float | None) -> tuple[Span, ...]:
    """The canary and the watch, as far as there were any. `left_at` is when the log turned to something else."""
    found = []
    ends = [*(one.at for one in moves[1:]), math.inf if left_at is None else left_at]
    for is_watch in (False, True):
        mine = [(one, end) for one, end in zip(moves, ends, strict=True) if _counts(one, is_watch)]
        if mine:
            found.append(Span(mine[0][0], mine[-1][1], is_watch))
    return tuple(found)


def _counts(move: Release, is_watch: bool) -> bool:
    if is_watch:
        return move.state is TrialState.PROMOTED and move.holdback is not None
    return move.state is TrialState.CANARY


def left_at(moves: Sequence[Release], releases: Iterable[Release]) -> float | None:
    """When a release first spoke of something else than this trial; none where none did."""
    last = moves[-1].release
    return next((one.at for one in releases if one.release > last and one.kind not in _ABOUT_WRITERS), None)


def evidence(
    span: Span,
    moves: Sequence[Release],
    rewards: Iterable[Reward],
    gauge: Gauge,
    line_of: LineOf,
    max_points: int = MAX_POINTS,
) -> tuple[list[Point], Standing | None]:
    """At most `max_points` from the rewards that were scored in a span, oldest first, and how it stands at the end."""
    counted = sorted((one for one in rewards if span.begin.at <= one.at <= span.end), key=lambda reward: reward.at)
    every = math.ceil(len(counted) / max_points) or 1
    points: list[Point] = []
    standing = None
    for number, reward in enumerate(counted, start=1):
        gauge.add(reward)
        if number % every == 0 or number == len(counted):
            standing = gauge.look(reward.at)
            points.append(point(standing.numbers, reward.at, share_at(moves, reward.at), line_of, span.is_watch))
    return points, standing


def share_at(moves: Sequence[Release], at: float) -> float:
    """The share that the candidate, or the holdback, had until a time."""
    return next((one.share for one in reversed(moves) if one.at < at), 0.0)


def decided(moves: Sequence[Release], line_of: LineOf) -> list[Point]:
    """The points that releases hold: what was known when each was decided."""
    return [
        point(one.numbers, one.at, before.share, line_of, before.state is TrialState.PROMOTED)
        for before, one in pairwise(moves)
        if before.state in (TrialState.CANARY, TrialState.PROMOTED) and by_outcome(one.numbers, "log_harm.")
    ]


def point(numbers: Mapping[str, float], at: float, share: float, line_of: LineOf, is_watch: bool = False) -> Point:
    """What a gate's numbers say, for people. A watch is about harm only."""
    evidence, harms = by_outcome(numbers, "log_e."), by_outcome(numbers, "log_harm.")
    rails = {} if is_watch else {name: value for name, value in evidence.items() if name != REWARD}
    weakest = min(rails, key=lambda name: rails[name], default="")
    nearest = max(harms, key=lambda name: harms[name] - line_of(name, is_watch), default="")
    return Point(
        at=at,
        num_units=int(sum(numbers.get(f"units.{arm}", 0.0) for arm in Arm)),
        share=share,
        is_watch=is_watch,
        log_e=None if is_watch else evidence.get(REWARD),
        log_threshold=None if is_watch else numbers.get("log_threshold"),
        weakest=weakest,
        weakest_log_e=rails.get(weakest),
        harm=nearest,
        log_harm=harms.get(nearest),
        harm_line=line_of(nearest, is_watch) if nearest else None,
    )


def stages(version: Version | None, moves: Sequence[Release], left: float | None) -> tuple[Stage, ...]:
    """The states of a trial, in their order."""
    groups = [(state, tuple(group)) for state, group in groupby(moves, key=lambda one: one.state) if state is not None]
    ends = [*(group[0].at for _, group in groups[1:]), _end_of(groups[-1][1], left)]
    found = [
        Stage(
            state=state,
            began_at=group[0].at,
            ended_at=end,
            reason=group[0].reason,
            author=group[0].author,
            steps=tuple(_step(one) for one in group),
        )
        for (state, group), end in zip(groups, ends, strict=True)
    ]
    if version is None:
        return tuple(found)
    waited = Stage(
        state=TrialState.PUBLISHED,
        began_at=version.created_at,
        ended_at=moves[0].at,
        reason=f"the trainer published version {version.version}, made from {version.parent}",
    )
    return (waited, *found)


def _end_of(group: Sequence[Release], left: float | None) -> float | None:
    """When the last state ended: the watch of a promoted version does, and no other end follows nothing."""
    if group[0].state is TrialState.PROMOTED and group[0].holdback is not None:
        return next((one.at for one in group if one.holdback is None), left)
    return None


def _step(move: Release) -> Step:
    return Step(
        release=move.release,
        at=move.at,
        share=move.share,
        holdback=move.holdback,
        mode=move.mode,
        author=move.author,
        reason=move.reason,
    )


def story(
    version: Version | None,
    moves: Sequence[Release],
    left: float | None,
    points: Iterable[Point],
    standing: Standing | None,
    notes: Iterable[str] = (),
) -> Story:
    """All of it. `moves` is not empty; `standing` is how the evidence stood at its end, where that is known."""
    told = stages(version, moves, left)
    state = moves[-1].state
    assert state is not None
    is_over = left is not None or has_ended(moves[-1])
    ordered = sorted(points, key=lambda one: (one.at, one.num_units))
    return Story(
        version=moves[-1].candidate if moves[-1].candidate is not None else 0,
        parent=None if version is None else version.parent,
        published_at=None if version is None else version.created_at,
        state=state,
        is_over=is_over,
        stages=told,
        points=tuple(ordered),
        told=_ending(told[-1]) if is_over or standing is None else f"it goes on: {standing.reason}",
        notes=tuple(notes),
    )


def _ending(last: Stage) -> str:
    """The sentence of the release that ended it, and who asked for that; of the state's first one, where it goes on."""
    watched = [before.holdback is not None and after.holdback is None for before, after in pairwise(last.steps)]
    step = last.steps[1 + watched.index(True)] if any(watched) else last.steps[0]
    return f"{step.reason} (asked for by {step.author})" if step.author else step.reason
