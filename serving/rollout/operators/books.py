"""What the controller's port answers of the past: `GET /story` and `GET /history`, from the log.

Each answer is a status and a body. They read the log for as long as that takes, in the thread that asks, and one at a
time: a story may be of a hundred thousand rewards.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping

from infra.config import RolloutConfig
from infra.errors import LogError
from ingest.log.between import Between
from ingest.log.protocol import EventLog
from ingest.log.reader import replay
from ingest.log.topics import RELEASES, REWARDS, VERSIONS
from ingest.records.events import Release, Reward, Version
from serving.rollout.evidence import Standing
from serving.rollout.operators import compose
from serving.rollout.operators.compose import Gauge, Span
from serving.rollout.operators.gauges import TrialGauge, WatchGauge, harm_line
from serving.rollout.operators.history import Filters, history
from serving.rollout.operators.story import Point, Story

Query = Mapping[str, str]
Answered = tuple[int, Mapping[str, object]]

_SAME = 1e-6  # of two thresholds, in nats


class Books:
    """Reads the past from the log that `connect` gives; every question has a connection of its own."""

    def __init__(
        self, connect: Callable[[], EventLog], config: RolloutConfig, now: Callable[[], float] = time.time
    ) -> None:
        self._connect, self._config, self._now = connect, config, now
        self._reading = threading.Lock()

    def story(self, query: Query) -> Answered:
        """`trial` is a version's number; left out: the trial that runs, or else the last one."""
        trial = query.get("trial")
        if query.keys() - {"trial"} or not (trial is None or trial.isdecimal()):
            return 400, {"error": f"it takes `trial`, a version's number, and nothing else; got {dict(query)}"}
        return self._answered(lambda log: self._story(log, None if trial is None else int(trial)))

    def history(self, query: Query) -> Answered:
        """`limit`, `version`, `author`, `since`, `until`, and the flags `by_people` and `all`."""
        try:
            filters = Filters.of(query)
        except ValueError as exc:
            return 400, {"error": str(exc)}
        return self._answered(
            lambda log: (200, history(replay(log, RELEASES, Release), filters).model_dump(mode="json"))
        )

    def _answered(self, ask: Callable[[EventLog], Answered]) -> Answered:
        with self._reading:
            try:
                log = self._connect()
                try:
                    return ask(log)
                finally:
                    log.close()
            except LogError as exc:
                return 503, {"error": str(exc)}

    def _story(self, log: EventLog, trial: int | None) -> Answered:
        releases = list(replay(log, RELEASES, Release))
        tried = list(dict.fromkeys(one.candidate for one in releases if one.candidate is not None))
        if trial is None and tried:
            trial = next(one.candidate for one in reversed(releases) if one.candidate is not None)
        if trial not in tried:
            which = f"of version {trial}; there were trials of {_some(tried)}" if tried else "yet"
            return 404, {"error": f"there was no trial {which}"}
        assert trial is not None
        version = next((one for one in replay(log, VERSIONS, Version) if one.version == trial), None)
        return 200, tell(log, trial, version, releases, self._config, self._now()).model_dump(mode="json")


def _some(tried: list[int]) -> str:
    return ", ".join(map(str, tried[-10:])) + (" and before" if len(tried) > 10 else "")


def tell(
    log: EventLog, trial: int, version: Version | None, releases: list[Release], config: RolloutConfig, now: float
) -> Story:
    """The story of a trial that `releases` know. Raises `LogError`."""
    moves = compose.moves_of(trial, releases)
    left = compose.left_at(moves, releases)
    line_of = harm_line(config)
    points, notes = compose.decided(moves, line_of), list[str]()
    standing: Standing | None = None
    for span in compose.spans(moves, left):
        gauge = _gauge(span, releases, config)
        found, standing = compose.evidence(span, moves, _rewards(log, trial, span, now), gauge, line_of)
        notes += _notes(log, span, points, found)
        points += found
    return compose.story(version, moves, left, points, standing, notes)


def _gauge(span: Span, releases: list[Release], config: RolloutConfig) -> Gauge:
    return (WatchGauge if span.is_watch else TrialGauge)(span.begin, releases, config)


def _rewards(log: EventLog, trial: int, span: Span, now: float) -> list[Reward]:
    """Those of the trial's sessions that were scored in a span, without what no gauge reads."""
    book = Between(log, REWARDS, Reward, lambda reward: reward.at)
    return [
        reward.model_copy(update={"components": (), "turns": (), "trajectory": None})
        for reward in book.read(span.begin.at, min(span.end, now))
        if (given := reward.assignment) is not None and (given.trial, given.replay_of) == (trial, None)
    ]


def _notes(log: EventLog, span: Span, decided: list[Point], found: list[Point]) -> list[str]:
    """What is missing, and what is not as it was when it was decided."""
    notes = []
    since = Between(log, REWARDS, Reward, lambda reward: reward.at).kept_since()
    if since is not None and since > span.begin.at:
        gone = "all of them" if math.isinf(since) else f"those before {_stamp(since)}"
        what = "watch" if span.is_watch else "canary"
        notes.append(
            f"rewards of the {what} are not kept any more, {gone}: between decisions the evidence is not all there, "
            "what each decision was made on is"
        )
    thresholds = {one.log_threshold for one in decided if one.log_threshold is not None}
    if not span.is_watch and found and any(abs(one - (found[-1].log_threshold or 0.0)) > _SAME for one in thresholds):
        notes.append("the gate's settings have changed since: between decisions it is measured by those of now")
    return notes


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
