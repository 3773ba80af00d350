"""The fold of the release log, and following it."""

from typing import Any

import pytest

from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.log.reader import send
from ingest.log.topics import RELEASES
from ingest.records.events import Arm, Release, ReleaseKind, TrialState
from ingest.store import releases
from ingest.store.releases import Decision, End, Known, ReleaseFollower, Served


def release(number: int, kind: ReleaseKind = ReleaseKind.TRIAL, epoch: int = 1, **fields: object) -> Release:
    given: dict[str, object] = {"stable": 0, "reason": "because", "at": 0.0} | fields
    return Release.model_validate({"release": number, "epoch": epoch, "kind": kind} | given)


BOOTSTRAP = release(0, ReleaseKind.BOOTSTRAP, engines={"a": 0, "b": 0})
CANARY = release(1, state=TrialState.CANARY, candidate=1, share=0.3, salt="x", engines={"a": 0, "b": 1})
PROMOTED = release(2, state=TrialState.PROMOTED, stable=1, candidate=1, engines={"a": 1, "b": 1})
ROLLED_BACK = release(3, state=TrialState.ROLLED_BACK, stable=0, candidate=1, engines={"a": 0, "b": 0})


def test_the_log_says_what_is_served() -> None:
    served = releases.fold([BOOTSTRAP, CANARY])
    assert (served.stable, served.candidate, served.share, served.on_trial) == (0, 1, 0.3, 1)
    assert (served.salt, served.engines) == ("x", {"a": 0, "b": 1})
    served = releases.advance(served, PROMOTED)
    assert (served.stable, served.lineage, served.promoted, served.on_trial) == (1, (0, 1), (1,), None)
    assert served.trials == {1: TrialState.PROMOTED}


def test_nothing_is_stable_before_a_bootstrap() -> None:
    assert Served().stable is None
    assert releases.fold([release(0, ReleaseKind.CLAIM)]).stable is None


def test_entries_read_twice_change_nothing() -> None:
    once = releases.fold([BOOTSTRAP, CANARY, PROMOTED])
    assert releases.fold([BOOTSTRAP, CANARY, CANARY, BOOTSTRAP, PROMOTED, CANARY]) == once


def test_the_state_is_itself_where_nothing_is_new() -> None:
    once = releases.fold([BOOTSTRAP, CANARY, PROMOTED])
    assert releases.fold([BOOTSTRAP, PROMOTED], once) is once


def test_a_state_goes_on_from_what_was_known() -> None:
    known = releases.fold([BOOTSTRAP, CANARY])
    assert releases.fold([PROMOTED, ROLLED_BACK], known) == releases.fold([BOOTSTRAP, CANARY, PROMOTED, ROLLED_BACK])
    assert (known.lineage, known.trials) == ((0,), {1: TrialState.CANARY})


def test_a_fenced_writers_entry_is_skipped() -> None:
    claim = release(1, ReleaseKind.CLAIM, epoch=2)
    served = releases.fold([BOOTSTRAP, claim, CANARY.model_copy(update={"release": 2})])
    assert served.candidate is None and served.decision(1) is Decision.UNDECIDED


def test_a_claim_counts_even_where_the_fenced_writer_took_its_number() -> None:
    claim = release(1, ReleaseKind.CLAIM, epoch=2)
    served = releases.fold([BOOTSTRAP, CANARY, claim, PROMOTED])
    assert (served.epoch, served.state) == (2, TrialState.CANARY)


def test_an_announcement_changes_nothing_served() -> None:
    announced = release(1, ReleaseKind.ANNOUNCED, stable=7, engines={"a": 7})
    served = releases.fold([BOOTSTRAP, announced])
    assert (served.stable, served.engines) == (0, BOOTSTRAP.engines)


@pytest.mark.parametrize(
    ("state", "decision"),
    [
        (TrialState.REJECTED, Decision.REJECTED),
        (TrialState.ROLLED_BACK, Decision.REJECTED),
        (TrialState.EXPIRED, Decision.EXPIRED),
    ],
)
def test_every_end_but_promotion_leaves_stable_and_an_expiry_is_no_rejection(
    state: TrialState, decision: Decision
) -> None:
    served = releases.fold([BOOTSTRAP, CANARY, release(2, state=state, candidate=1)])
    assert (served.decision(1), served.stable, served.on_trial) == (decision, 0, None)


@pytest.mark.parametrize("state", [TrialState.PUBLISHED, TrialState.EVALUATING, TrialState.CANARY])
def test_a_trial_that_goes_on_is_undecided(state: TrialState) -> None:
    served = releases.fold([BOOTSTRAP, release(1, state=state, candidate=1)])
    assert (served.decision(1), served.on_trial) == (Decision.UNDECIDED, 1)


def test_a_version_no_release_names_is_undecided() -> None:
    assert releases.fold([BOOTSTRAP]).decision(1) is Decision.UNDECIDED


def test_what_became_of_a_version_is_its_trials_last_state_and_the_first_had_none() -> None:
    trials = {state: number for number, state in enumerate(TrialState, start=1)}
    ended = [release(number, state=state, candidate=number) for state, number in trials.items()]
    served = releases.fold([BOOTSTRAP, *ended])
    assert {state: served.end(number) for state, number in trials.items()} == {
        **dict.fromkeys(releases.UNDECIDED, End.ON_TRIAL),
        TrialState.PROMOTED: End.PROMOTED,
        TrialState.REJECTED: End.REJECTED,
        TrialState.ROLLED_BACK: End.ROLLED_BACK,
        TrialState.EXPIRED: End.EXPIRED,
    }
    assert (served.end(0), served.end(99)) == (End.FIRST, End.WAITS)


def test_age_counts_promotions() -> None:
    third = release(3, state=TrialState.PROMOTED, stable=3, candidate=3)
    served = releases.fold([BOOTSTRAP, PROMOTED, third])
    assert [served.age(version) for version in (0, 1, 3, 2)] == [2, 1, 0, None]
    assert (served.decision(1), served.decision(3)) == (Decision.PROMOTED, Decision.PROMOTED)


def test_a_rollback_takes_the_version_out_of_the_lineage_but_not_out_of_the_trials() -> None:
    served = releases.fold([BOOTSTRAP, CANARY, PROMOTED, ROLLED_BACK])
    assert (served.stable, served.lineage, served.decision(1)) == (0, (0,), Decision.REJECTED)
    assert served.promoted == (1,)


def test_trials_stand_in_the_order_they_began() -> None:
    steps = [release(n, state=TrialState.REJECTED, candidate=c) for n, c in enumerate((7, 3, 5), start=1)]
    again = release(4, state=TrialState.EXPIRED, candidate=3)
    assert list(releases.fold([BOOTSTRAP, *steps, again]).trials) == [7, 3, 5]


def test_a_follower_is_where_the_log_is() -> None:
    log = InMemoryLog()
    send(log, RELEASES, "", BOOTSTRAP)
    follower = ReleaseFollower(log)
    assert follower.poll(0.0).stable == 0
    send(log, RELEASES, "", CANARY)
    assert follower.catch_up().on_trial == 1
    send(log, RELEASES, "", PROMOTED)
    assert follower.poll(0.0).stable == 1
    assert follower.served == releases.read(log)


def test_a_follower_made_anew_knows_what_was_known_before_it_has_read() -> None:
    known = releases.fold([BOOTSTRAP, CANARY])
    assert ReleaseFollower(InMemoryLog(), known).poll(0.0) == known


class Counting(InMemoryLog):
    """How many messages replays gave."""

    num = 0

    def replay(self, *asked: Any) -> Any:
        messages: list[Message] = list(super().replay(*asked))
        self.num += len(messages)
        return iter(messages)


def test_what_was_polled_is_not_replayed_to_catch_up() -> None:
    log = Counting()
    follower = ReleaseFollower(log)
    for number in range(1, 51):
        send(log, RELEASES, "", release(number, ReleaseKind.ANNOUNCED))
    follower.poll(0.0)
    send(log, RELEASES, "", release(51, state=TrialState.CANARY, candidate=1))
    assert follower.catch_up() == releases.fold([release(51, state=TrialState.CANARY, candidate=1)])
    assert log.num == 1


def log_of(*entries: Release) -> Counting:
    log = Counting()
    for entry in entries:
        send(log, RELEASES, "", entry)
    return log


def kept(log: InMemoryLog) -> Known:
    """What a follower knows once it has read all, as it comes back from where it was kept."""
    follower = ReleaseFollower(log)
    follower.poll(0.0)
    assert follower.known is not None
    return Known.model_validate_json(follower.known.model_dump_json())


def test_what_is_known_of_a_log_is_not_read_again() -> None:
    log = log_of(BOOTSTRAP, CANARY, PROMOTED)
    known = kept(log)
    send(log, RELEASES, "", ROLLED_BACK)
    now = releases.fold([BOOTSTRAP, CANARY, PROMOTED, ROLLED_BACK])
    assert (releases.read(log, known), ReleaseFollower(log, known=known).catch_up(), log.num) == (now, now, 2)
    log.forget(RELEASES.name, 0, 3)
    assert ReleaseFollower(log, known=known).poll(0.0) == now


@pytest.mark.parametrize(
    "entries",
    [(), (BOOTSTRAP,), (BOOTSTRAP, CANARY.model_copy(update={"at": 7.0})), (BOOTSTRAP, PROMOTED)],
    ids=["empty", "shorter", "another entry", "another number"],
)
def test_what_is_known_of_a_log_that_is_lost_is_not_of_the_next(entries: tuple[Release, ...]) -> None:
    known = kept(log_of(BOOTSTRAP, CANARY))
    assert known.is_of(log_of(BOOTSTRAP, CANARY, PROMOTED)) and not known.is_of(log_of(*entries))


def test_a_log_that_cannot_be_read_where_what_is_known_ends_is_another() -> None:
    known, log = kept(log_of(BOOTSTRAP, CANARY)), log_of(BOOTSTRAP)
    log.append(RELEASES.name, "", b"{}", {"schema": "release/2"})
    assert not known.is_of(log)


def test_whose_turn_it_is_stands_in_what_the_engines_shall_serve() -> None:
    block = {"state": TrialState.CANARY, "candidate": 1, "share": 0.3, "block": 4}
    begun = releases.fold([BOOTSTRAP, release(1, ReleaseKind.BLOCK, **block, engines={"a": 1, "b": 1})])
    assert (begun.block, begun.turn) == (4, Arm.CANDIDATE)
    assert releases.fold([release(2, ReleaseKind.BLOCK, **block, engines={"a": 0, "b": 0})], begun).turn is Arm.STABLE
    between = releases.fold([release(2, ReleaseKind.BLOCK, **block | {"block": None}, engines={"a": 0, "b": 0})], begun)
    assert (between.block, between.turn) == (None, None)
    watch = block | {"state": TrialState.PROMOTED, "stable": 1, "holdback": 0, "engines": {"a": 0, "b": 0}}
    assert releases.fold([release(2, ReleaseKind.BLOCK, **watch)], begun).turn is Arm.HOLDBACK
