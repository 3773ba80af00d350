"""Which arm a session gets, and which engine its requests go to."""

from dataclasses import replace

import pytest

from ingest.records.events import Arm, Assignment, Release, ReleaseKind, TrialState
from ingest.store import releases
from ingest.store.releases import Served
from serving.router.routing import Health, assign, order, pool

ENGINES = ("a", "b", "c")
SERVED = releases.fold(
    [
        Release(
            release=0,
            epoch=1,
            kind=ReleaseKind.TRIAL,
            stable=0,
            candidate=1,
            state=TrialState.CANARY,
            share=0.5,
            salt="x",
            engines={"a": 0, "b": 0, "c": 1},
            reason="a trial",
            at=0.0,
        )
    ]
)
STABLE = Assignment(arm=Arm.STABLE, trial=1, propensity=0.5)
CANDIDATE = Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.5)


def arm_of(session: str, served: Served, health: Health | None = None) -> Assignment:
    return assign(session, served, ENGINES, health or Health())


def test_no_trial_no_coin() -> None:
    assert arm_of("anyone", Served()) == Assignment()
    assert arm_of("anyone", replace(SERVED, state=TrialState.EVALUATING)) == Assignment()


@pytest.mark.parametrize(("down", "has_coin"), [({"c"}, False), ({"a", "b"}, False), ({"a"}, True), (set(), True)])
def test_no_coin_while_an_arm_has_no_engine_that_answers(down: set[str], has_coin: bool) -> None:
    given = {arm_of(f"s{n}", SERVED, Health(down)).trial for n in range(50)}
    assert given == ({1} if has_coin else {None})


def test_the_coin_is_sticky_and_shares_sessions_as_the_log_says() -> None:
    served = replace(SERVED, share=0.3)
    given = {f"s{n}": arm_of(f"s{n}", served) for n in range(4000)}
    on_trial = [a for a in given.values() if a.arm is Arm.CANDIDATE]
    assert 0.27 < len(on_trial) / 4000 < 0.33
    assert all(a.propensity == 0.3 and a.trial == 1 for a in on_trial)
    assert all(arm_of(session, served) == a for session, a in given.items())
    stable = next(a for a in given.values() if a.arm is Arm.STABLE)
    assert stable.propensity == pytest.approx(0.7)


def test_a_larger_share_keeps_the_sessions_the_candidate_had() -> None:
    before, after = replace(SERVED, share=0.3), replace(SERVED, share=0.6)
    had = [f"s{n}" for n in range(500) if arm_of(f"s{n}", before).arm is Arm.CANDIDATE]
    assert had
    assert all(arm_of(session, after).arm is Arm.CANDIDATE for session in had)


def test_an_arm_is_the_engines_that_serve_its_version() -> None:
    assert pool(SERVED, Arm.STABLE, ENGINES) == ("a", "b")
    assert pool(SERVED, Arm.CANDIDATE, ENGINES) == ("c",)


def test_before_any_release_every_engine_may_serve() -> None:
    assert pool(Served(), Arm.STABLE, ENGINES) == ENGINES


def test_a_router_that_knows_of_no_release_yet_asks_stables_engines_first() -> None:
    stables = {"a", "b"}
    firsts = {order(f"s{n}", Assignment(), Served(), ENGINES, Health(), stables)[0] for n in range(50)}
    assert firsts == stables
    assert order("s1", Assignment(), Served(), ENGINES, Health(stables), stables)[0] == "c", (
        "users are served all the same"
    )
    idle = replace(SERVED, state=TrialState.REJECTED, engines=dict.fromkeys(ENGINES, 0))
    firsts = {order(f"s{n}", Assignment(), idle, ENGINES, Health(), stables)[0] for n in range(50)}
    assert firsts == set(ENGINES)


def test_a_session_goes_to_its_own_arm_first_and_stays_on_one_engine() -> None:
    firsts = {f"s{n}": order(f"s{n}", STABLE, SERVED, ENGINES, Health())[0] for n in range(100)}
    assert set(firsts.values()) == {"a", "b"}
    assert all(order(s, STABLE, SERVED, ENGINES, Health())[0] == first for s, first in firsts.items())
    assert order("s1", CANDIDATE, SERVED, ENGINES, Health())[0] == "c"


def test_a_dead_pool_falls_back_to_the_other_arm_rather_than_to_an_error() -> None:
    assert order("s1", CANDIDATE, SERVED, ENGINES, Health({"c"}))[0] in ("a", "b")
    assert order("s1", STABLE, SERVED, ENGINES, Health({"a", "b"}))[0] == "c"


def test_a_down_engine_is_tried_last_not_never() -> None:
    assert sorted(order("s1", STABLE, SERVED, ENGINES, Health(set(ENGINES)))) == sorted(ENGINES)


TURN = replace(SERVED, share=0.2, block=7, engines=dict.fromkeys(ENGINES, 1))


def test_in_a_block_every_session_has_the_blocks_arm_and_number() -> None:
    candidate = Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.2, block=7)
    assert {arm_of(f"s{n}", TURN) for n in range(50)} == {candidate}
    stable = arm_of("s", replace(TURN, engines=dict.fromkeys(ENGINES, 0)))
    assert stable == Assignment(arm=Arm.STABLE, trial=1, propensity=0.8, block=7)


def test_in_a_block_of_a_watch_the_other_arm_is_the_holdback() -> None:
    watched = replace(TURN, state=TrialState.PROMOTED, lineage=(0, 1), holdback=0, engines=dict.fromkeys(ENGINES, 0))
    assert arm_of("s", watched) == Assignment(arm=Arm.HOLDBACK, trial=1, propensity=0.2, block=7)
    assert arm_of("s", replace(watched, engines=dict.fromkeys(ENGINES, 1))).arm is Arm.STABLE


def test_between_two_blocks_a_session_is_of_no_trial() -> None:
    assert arm_of("s", replace(TURN, block=None)) == Assignment()
    assert arm_of("s", TURN, Health(set(ENGINES))) == Assignment()


WATCHED = replace(
    SERVED, state=TrialState.PROMOTED, share=0.2, lineage=(0, 1), holdback=0, engines={"a": 1, "b": 1, "c": 0}
)


def test_while_a_promoted_version_is_watched_a_share_of_sessions_is_held_back() -> None:
    given = {f"s{n}": arm_of(f"s{n}", WATCHED) for n in range(4000)}
    back = [one for one in given.values() if one.arm is Arm.HOLDBACK]
    assert 0.17 < len(back) / 4000 < 0.23
    assert all((one.trial, one.propensity) == (1, 0.2) for one in back)
    assert {(one.arm, one.trial) for one in given.values()} == {(Arm.HOLDBACK, 1), (Arm.STABLE, 1)}
    assert {arm_of("s1", WATCHED) for _router in range(2)} == {given["s1"]}, "two routers agree"


def test_sessions_held_back_go_to_the_engines_that_kept_the_version_before() -> None:
    held = Assignment(arm=Arm.HOLDBACK, trial=1, propensity=0.2)
    assert pool(WATCHED, Arm.HOLDBACK, ENGINES) == ("c",)
    assert order("s1", held, WATCHED, ENGINES, Health())[0] == "c"
    assert order("s1", held, WATCHED, ENGINES, Health({"c"}))[0] in ("a", "b"), "users are served all the same"


@pytest.mark.parametrize(("down", "has_coin"), [({"c"}, False), ({"a", "b"}, False), ({"a"}, True)])
def test_nobody_is_held_back_while_an_arm_has_no_engine_that_answers(down: set[str], has_coin: bool) -> None:
    given = {arm_of(f"s{n}", WATCHED, Health(down)).trial for n in range(50)}
    assert given == ({1} if has_coin else {None})


def test_nobody_is_held_back_once_the_watch_is_over() -> None:
    over = replace(WATCHED, holdback=None, share=0.0, engines=dict.fromkeys(ENGINES, 1))
    assert {arm_of(f"s{n}", over) for n in range(50)} == {Assignment()}
