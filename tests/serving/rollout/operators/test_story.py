"""A trial's story from its releases and rewards: what is worked by hand, and what the gate's own records say."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from trials import CONFIG, Past, eventful

from ingest.log.topics import REWARDS
from ingest.records import codec
from ingest.records.events import Arm, Mode, Release, ReleaseKind, Reward, TrialState
from serving.rollout.evidence import Standing, Verdict, level
from serving.rollout.operators import compose
from serving.rollout.operators.books import Books
from serving.rollout.operators.compose import Span
from serving.rollout.operators.gauges import TrialGauge
from serving.rollout.operators.story import Story

S = TrialState


def move(number: int, state: TrialState, at: float, **what: Any) -> Release:
    kind = ReleaseKind.OPERATOR if "author" in what else ReleaseKind.TRIAL
    fields = {"candidate": 7, "reason": f"reason {number}", **what}
    return Release(release=number, epoch=1, kind=kind, stable=6, state=state, at=at, **fields)


def line(outcome: str, is_watch: bool) -> float:
    return 3.0 if outcome == "reward" else 4.0


class Sum:
    """Evidence that is the sum of rewards, so that a test can reckon it."""

    def __init__(self) -> None:
        self.total = 0.0

    def add(self, reward: Reward) -> None:
        self.total += reward.value

    def look(self, at: float) -> Standing:
        return Standing(Verdict.HOLD, f"has {self.total}", {"log_e.reward": self.total, "units.candidate": at})


LIFE = (
    move(1, S.EVALUATING, 100.0),
    move(2, S.CANARY, 130.0, share=0.1),
    move(3, S.CANARY, 160.0, share=0.5),
    move(4, S.PROMOTED, 200.0, share=0.1, holdback=6),
    move(5, S.PROMOTED, 290.0, reason="the watch is over"),
)


def stages(*moves: Release, left: float | None = None) -> list[tuple[str, float, float | None]]:
    return [(one.state.value, one.began_at, one.ended_at) for one in compose.stages(None, moves, left)]


def test_a_state_lasts_until_the_next_and_a_promoted_version_as_long_as_its_watch() -> None:
    assert stages(*LIFE) == [("evaluating", 100.0, 130.0), ("canary", 130.0, 200.0), ("promoted", 200.0, 290.0)]


def test_a_watch_that_another_trial_cut_short_ended_then() -> None:
    assert stages(*LIFE[:4], left=250.0)[-1] == ("promoted", 200.0, 250.0)


def test_what_goes_on_has_no_end() -> None:
    assert stages(*LIFE[:3])[-1] == ("canary", 130.0, None)
    assert stages(*LIFE[:4])[-1] == ("promoted", 200.0, None)


def test_sessions_count_in_the_canary_and_in_the_watch() -> None:
    assert compose.spans(LIFE, 400.0) == (Span(LIFE[1], 200.0), Span(LIFE[3], 290.0, True))
    assert compose.spans(LIFE[:3], None) == (Span(LIFE[1], math.inf),)
    assert compose.spans(LIFE[:1], None) == ()


def test_an_operators_word_after_a_trials_end_is_no_part_of_it() -> None:
    end = move(4, S.REJECTED, 200.0)
    pause = move(5, S.REJECTED, 300.0, author="mara", mode=Mode.PAUSED)
    other = move(6, S.EVALUATING, 400.0, candidate=8)
    assert compose.moves_of(7, (*LIFE[:3], end, pause, other)) == (*LIFE[:3], end)


def test_an_operators_word_inside_a_trial_is_part_of_it() -> None:
    pause = move(4, S.CANARY, 170.0, share=0.5, author="mara", mode=Mode.PAUSED)
    assert compose.moves_of(7, (*LIFE[:3], pause)) == (*LIFE[:3], pause)


def test_a_version_taken_back_long_after_its_watch_is_told_to_its_end() -> None:
    other = move(6, S.REJECTED, 400.0, candidate=8)
    back = move(7, S.ROLLED_BACK, 500.0, author="mara", reason="it is taken back: it lies")
    moves = compose.moves_of(7, (*LIFE, other, back))
    told = compose.story(None, moves, compose.left_at(moves, (*LIFE, other, back)), [], None)
    assert (told.state, told.is_over, told.told) == (
        S.ROLLED_BACK,
        True,
        "it is taken back: it lies (asked for by mara)",
    )


def test_the_story_of_a_watch_that_is_over_ends_with_why() -> None:
    told = compose.story(None, LIFE, None, [], None)
    assert (told.is_over, told.told) == (True, "the watch is over")


def test_a_trial_that_goes_on_is_told_by_how_it_stands() -> None:
    standing = Standing(Verdict.HOLD, "reward has e^1.00 of e^3.00", {})
    told = compose.story(None, LIFE[:3], None, [], standing)
    assert (told.is_over, told.told) == (False, "it goes on: reward has e^1.00 of e^3.00")


def some(num: int, begin: float = 131.0) -> list[Reward]:
    past = Past()
    found = []
    for number in range(num):
        past.now = begin + number
        found.append(past.reward(7, Arm.CANDIDATE, 0.5, (7,), 1.0))
    return found


@pytest.mark.parametrize(("num", "points"), [(1, 1), (10, 10), (11, 6), (25, 9), (100, 10)])
def test_there_are_at_most_so_many_points_and_the_last_has_all_rewards(num: int, points: int) -> None:
    found, _ = compose.evidence(Span(LIFE[1], math.inf), LIFE, some(num), Sum(), line, max_points=10)
    assert (len(found), found[-1].log_e) == (points, float(num))


def test_a_reward_that_came_after_the_decision_is_no_evidence_for_it() -> None:
    found, standing = compose.evidence(Span(LIFE[1], 133.0), LIFE, some(10), Sum(), line)
    assert [one.log_e for one in found] == [1.0, 2.0, 3.0]
    assert standing is not None and standing.reason == "has 3.0"


def test_rewards_count_in_the_order_in_which_they_were_scored() -> None:
    late_first = list(reversed(some(3)))
    found, _ = compose.evidence(Span(LIFE[1], math.inf), LIFE, late_first, Sum(), line)
    assert [(one.at, one.log_e) for one in found] == [(131.0, 1.0), (132.0, 2.0), (133.0, 3.0)]


def test_a_point_has_the_share_of_its_time() -> None:
    found, _ = compose.evidence(Span(LIFE[1], math.inf), LIFE, some(40, 140.0), Sum(), line)
    assert {one.at: one.share for one in found if one.at in (160.0, 161.0)} == {160.0: 0.1, 161.0: 0.5}


NUMBERS: Mapping[str, float] = {
    "log_e.reward": 2.0, "log_e.a": 1.0, "log_e.b": -1.0, "log_e.user": -9.0, "log_threshold": 5.0,
    "log_harm.reward": 1.7, "log_harm.a": 2.6, "log_harm.b": 0.0, "log_harm.user": 9.0,
    "units.candidate": 3.0, "units.stable": 4.0, "units.capped": 100.0,
}  # fmt: skip


def test_the_weakest_guardrail_and_the_harm_nearest_to_its_own_line_are_shown() -> None:
    found = compose.point(NUMBERS, 1.0, 0.1, line)
    assert (found.log_e, found.weakest, found.weakest_log_e, found.log_threshold) == (2.0, "b", -1.0, 5.0)
    assert (found.harm, found.log_harm, found.harm_line) == ("reward", 1.7, 3.0)  # 1.3 away; a is 1.4 away
    assert found.num_units == 7


def test_a_watch_is_about_harm_only() -> None:
    found = compose.point(NUMBERS, 1.0, 0.1, line, is_watch=True)
    assert (found.log_e, found.weakest_log_e, found.log_threshold, found.log_harm) == (None, None, None, 1.7)


# -- over a log


@pytest.fixture(scope="module")
def past() -> Past:
    return eventful()


@pytest.fixture
def books(past: Past) -> Books:
    return Books(lambda: past.log, CONFIG, lambda: past.now)


def story(books: Books, trial: int | None = None) -> Story:
    status, body = books.story({} if trial is None else {"trial": str(trial)})
    assert status == 200, body
    return Story.model_validate(body)


def decided(past: Past) -> Iterator[Release]:
    return (one for one in past.releases if "log_harm.reward" in one.numbers)


@pytest.mark.parametrize("trial", [1, 3])
def test_evidence_measured_again_is_what_each_decision_was_made_on(past: Past, books: Books, trial: int) -> None:
    told = story(books, trial)
    ends = [one for one in decided(past) if one.candidate == trial and one.state is not S.CANARY]
    assert ends
    for release in ends:
        pair = [point for point in told.points if point.at == release.at]
        assert len(pair) == 2, "one from the release, one from the rewards"
        assert pair[0] == pair[1]
    assert told.notes == ()


def test_a_trial_is_held_against_the_line_of_its_place_among_trials_and_promotions() -> None:
    past = Past()
    for version, state in ((1, S.PROMOTED), (2, S.REJECTED)):
        past.begin(version, 0)
        past.move(version, state, "it is decided")
    past.begin(3, 0)
    standing = TrialGauge(past.releases[-1], past.releases, CONFIG).look(past.now)
    assert standing.numbers["log_threshold"] == pytest.approx(-math.log(level(0.05, trial=3, promotions=1)))


def test_every_state_of_a_trial_is_told_with_its_reason(past: Past, books: Books) -> None:
    told = story(books, 3)
    assert [stage.state for stage in told.stages] == [S.PUBLISHED, S.EVALUATING, S.CANARY, S.PROMOTED, S.ROLLED_BACK]
    assert (told.parent, told.is_over) == (0, True)
    assert told.told.startswith("version 3 is taken back, version 0 serves everyone: users are served worse")
    assert {point.is_watch for point in told.points} == {False, True}


def test_without_a_number_it_is_the_trial_of_now(past: Past, books: Books) -> None:
    told = story(books)
    assert (told.version, told.is_over, told.state) == (4, False, S.CANARY)
    assert told.told.startswith("it goes on: ")
    assert len(told.points) <= compose.MAX_POINTS + 5


def test_what_was_decided_stays_when_rewards_are_gone_and_the_story_says_so(past: Past, books: Books) -> None:
    lost = eventful()
    whole = story(Books(lambda: lost.log, CONFIG, lambda: lost.now), 1)
    ended = whole.stages[-1].began_at
    forget(lost, ended)
    told = story(Books(lambda: lost.log, CONFIG, lambda: lost.now), 1)
    assert [point.at for point in told.points] == [ended]
    assert told.points[0] == whole.points[-1]
    assert "not kept any more" in told.notes[0]
    assert told.stages == whole.stages


def forget(past: Past, before: float) -> None:
    """As retention does: the oldest of each partition go."""
    for part in past.log._shared.partitions[REWARDS.name]:  # the fake has no clock
        gone = [message for message in part.messages if at_of(message.value, message.headers) <= before]
        del part.messages[: len(gone)]
        part.first += len(gone)


def at_of(value: bytes, headers: dict[str, str]) -> float:
    return codec.decode(value, headers, Reward).at


def test_settings_that_changed_since_are_told(past: Past) -> None:
    gate = CONFIG.gate.model_copy(update={"alpha": 0.01})
    changed = CONFIG.model_copy(update={"gate": gate})
    told = story(Books(lambda: past.log, changed, lambda: past.now), 3)
    assert "the gate's settings have changed since" in told.notes[0]


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ({"trial": "9"}, 404, "there was no trial of version 9; there were trials of 1, 2, 3, 4"),
        ({"trial": "-1"}, 400, "a version's number"),
        ({"trail": "1"}, 400, "a version's number"),
    ],
)
def test_what_there_is_no_story_of_is_told(books: Books, query: dict[str, str], status: int, told: str) -> None:
    answered, body = books.story(query)
    assert answered == status
    assert told in str(body["error"])


def test_before_the_first_trial_there_is_no_story() -> None:
    past = Past()
    assert Books(lambda: past.log, CONFIG).story({}) == (404, {"error": "there was no trial yet"})
