"""Which sessions of a trial count, and what one user can do to its evidence."""

import math
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from units import tally_of, unit

from infra.config import GateConfig, GuardrailConfig, RampStep
from ingest.records.events import Arm
from serving.rollout.evidence import Baseline, Design, Process, Standing, Unit, Verdict, bets, judge, level
from serving.rollout.evidence.caps import Beginnings, Begun

HALF = Baseline(mean=0.5, variance=0.25)
CONFIG = GateConfig(
    margin=0.1, min_champion_units=2, guardrails=(), ramp=(RampStep(share=0.5),), max_units_per_user=3, settle_s=0
)
ARMS = [Arm.CANDIDATE, Arm.STABLE]


def stand(units: Iterable[Unit], config: GateConfig = CONFIG) -> Standing:
    baselines = {"reward": HALF} | {rail.name: Baseline(0.9, 0.09) for rail in config.guardrails}
    return judge(tally_of(units, config, baselines), trial=1, promotions=0)


def counted(units: Iterable[Unit], config: GateConfig = CONFIG) -> list[Unit]:
    """Those that count, in the order they began."""
    held = {one.session_id: one for one in units}
    found, _ = Beginnings(config).settle(one.begun for one in held.values())
    return sorted((held[name] for name in found), key=lambda one: one.begun)


UNITS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z"]), st.sampled_from(ARMS), st.floats(0, 1)),
    max_size=60,
).map(lambda rows: tuple(unit(n, arm, y, user=user, tenant=tenant) for n, (tenant, user, arm, y) in enumerate(rows)))
CONFIGS = st.builds(
    lambda most, share: CONFIG.model_copy(update={"max_units_per_user": most, "max_tenant_share": share}),
    st.integers(1, 5),
    st.floats(0.05, 1.0),
)


def names(units: Iterable[Unit]) -> list[str]:
    return [unit.session_id for unit in units]


def test_the_first_sessions_of_a_user_count_in_whatever_order_they_end() -> None:
    units = [unit(n, user="x") for n in range(6)]
    random.Random(1).shuffle(units)
    assert names(counted(units)) == ["s0", "s1", "s2"]


def test_a_session_without_a_user_is_its_own_and_the_same_name_elsewhere_is_another_user() -> None:
    assert len(counted([unit(n) for n in range(9)], CONFIG)) == 9
    assert len(counted([unit(n, user="x", tenant=tenant) for n, tenant in enumerate("aaaabbbb")], CONFIG)) == 6


def test_a_tenants_share_holds_against_the_others_from_the_first_session_on() -> None:
    config = CONFIG.model_copy(update={"max_tenant_share": 0.75})
    given = [unit(n, tenant=tenant) for n, tenant in enumerate("abcd" + "a" * 20 + "b")]
    found = [unit.tenant for unit in counted(given, config)]
    # three times the three others' sessions, and one more: b's last session came too late to allow another
    assert (found.count("a"), found.count("b")) == (10, 2)


@pytest.mark.parametrize(("tenants", "share"), [("a", 0.1), ("ab", 0.1)])
def test_with_one_or_two_tenants_there_is_no_cap_on_them(tenants: str, share: float) -> None:
    given = [unit(n, tenant=tenants[n % len(tenants) if n < 2 else 0]) for n in range(30)]
    assert len(counted(given, CONFIG.model_copy(update={"max_tenant_share": share}))) == 30


@given(UNITS, CONFIGS, st.randoms(use_true_random=False))
def test_what_counts_does_not_depend_on_arms_outcomes_or_arrival(
    units: tuple[Unit, ...], config: GateConfig, rng: random.Random
) -> None:
    other = [one._replace(arm=rng.choice(ARMS), reward=rng.random()) for one in units]
    rng.shuffle(other)
    assert names(counted(other, config)) == names(counted(units, config))


@given(UNITS, CONFIGS, st.integers(0, 60))
def test_what_counts_is_settled_when_a_session_begins(units: tuple[Unit, ...], config: GateConfig, num: int) -> None:
    before, after = counted(units[:num], config), counted(units, config)
    assert after[: len(before)] == before


@given(UNITS, CONFIGS)
def test_no_user_has_more_sessions_than_allowed(units: tuple[Unit, ...], config: GateConfig) -> None:
    found = [one.begun.who for one in counted(units, config)]
    assert all(found.count(user) <= config.max_units_per_user for user in set(found))


def test_the_most_that_one_session_does_is_worked_by_hand() -> None:
    # pi .5, c .5, s2 .25: v = 1, B = 1, the largest stake min(8 * .1, .5) = .5, phi between -1 and 1
    design = Design(HALF, 0.1)
    assert bets.most_evidence(design, 0.5) == pytest.approx((math.log(1.55), -math.log(0.55)))
    assert bets.most_harm(design, 0.5) == pytest.approx((math.log(1.5), -math.log(0.5)))


def test_what_one_user_can_do_is_told_with_every_verdict() -> None:
    standing = stand([unit(0)])
    # alpha_1 = .05 * 2.0814 / 3.3877, so e^3.482 is needed; each user gives 3 log 1.55 = 1.315, and two are too few
    assert standing.numbers["log_threshold"] == pytest.approx(3.482, abs=1e-3)
    assert standing.numbers["users_needed.promote"] == 3
    # harm: log 20 = 2.996 against 3 log 1.5 = 1.216; the split's log 1000 = 6.908 against 3 log 1.25 = 0.669
    assert standing.numbers["users_needed.reject"] == 3
    assert standing.reason.endswith("one user moves this by at most e^1.79, and fewer than 3 cannot promote it")


@settings(max_examples=40)
@given(UNITS, st.sampled_from("xyz"), st.randoms(use_true_random=False))
def test_no_user_moves_evidence_or_harm_by_more_than_is_told(
    units: tuple[Unit, ...], user: str, rng: random.Random
) -> None:
    told = stand(units)
    theirs = [one.session_id for one in units if (one.tenant, one.user) == ("a", user)]
    without = stand(one for one in units if one.session_id not in theirs)
    best = stand(
        one._replace(reward=float(one.arm is Arm.CANDIDATE)) if one.session_id in theirs else one for one in units
    )
    for standing in (told, best):
        moved = standing.numbers["log_e.reward"] - without.numbers["log_e.reward"]
        assert abs(moved) <= told.numbers["log_e.user"] + 1e-9
        harmed = standing.numbers["log_harm.reward"] - without.numbers["log_harm.reward"]
        assert harmed <= told.numbers["log_harm.user"] + 1e-9


def flood(users: int, sessions: int, candidate: float) -> tuple[Unit, ...]:
    """Each user's sessions, over both arms; they reward the candidate so, and the other arm the other way."""
    arms = [Arm.CANDIDATE if n % 2 else Arm.STABLE for n in range(users * sessions)]
    return tuple(
        unit(n, arm, candidate if arm is Arm.CANDIDATE else 1.0 - candidate, user=f"u{n % users}")
        for n, arm in enumerate(arms)
    )


@pytest.mark.parametrize("rails", [(), (GuardrailConfig(name="completed", margin=0.05),)])
def test_fewer_users_than_are_told_cannot_promote_whatever_they_do(rails: tuple[GuardrailConfig, ...]) -> None:
    config = CONFIG.model_copy(update={"guardrails": rails})
    needed = int(stand(flood(1, 1, 1.0), config).numbers["users_needed.promote"])
    units = flood(needed - 1, 500, 1.0)
    given = [one._replace(names=("completed",), values=(one.reward,)) for one in units]
    assert stand(given, config).verdict is Verdict.HOLD
    free = config.model_copy(update={"max_units_per_user": 500})
    assert stand(given, free).verdict is Verdict.PASS


def test_fewer_users_than_are_told_cannot_reject_whatever_they_do() -> None:
    needed = int(stand(flood(1, 1, 0.0)).numbers["users_needed.reject"])
    assert stand(flood(needed - 1, 500, 0.0)).verdict is Verdict.HOLD
    assert stand(flood(20, 3, 0.0)).verdict is Verdict.REJECT


def test_the_check_of_the_split_can_reject_as_well_and_is_reckoned_with() -> None:
    """Nothing else is measured: log 1000 = 6.908 against 3 log 1.25 = 0.669 from each user."""
    units = [unit(n, user=f"u{n % 10}") for n in range(5000)]
    standing = judge(tally_of(units, CONFIG, {}), trial=1, promotions=0)
    assert (standing.verdict, standing.numbers["users_needed.reject"]) == (Verdict.HOLD, 11.0)


def test_sessions_that_do_not_count_are_counted_and_fill_no_trial() -> None:
    config = CONFIG.model_copy(update={"max_units": 50})
    standing = stand(flood(2, 100, 0.5), config)
    assert (standing.num_units, standing.numbers["units.capped"]) == (6, 194.0)
    assert (standing.numbers["users"], standing.numbers["user_share"]) == (2.0, 0.5)
    assert standing.verdict is Verdict.HOLD


def test_a_flood_does_not_promote_a_candidate_worse_by_the_margin_more_often_than_alpha() -> None:
    """Forty honest users see a worse candidate; one praises it in as many sessions as all of them."""
    rng = random.Random(3)
    line = -math.log(level(0.05, 1, 0))
    crossed = {3: 0, 10_000: 0}
    for _ in range(60):
        units = []
        for n in range(240):
            arm = rng.choice(ARMS)
            is_flood = n % 2 == 1
            rate = 0.4 if arm is Arm.CANDIDATE else 0.5
            reward = float(arm is Arm.CANDIDATE) if is_flood else float(rng.random() < rate)
            units.append(unit(n, arm, reward, user="flood" if is_flood else f"u{n % 80}"))
        for most in crossed:
            process = Process(Design(HALF, 0.1))
            for one in counted(units, CONFIG.model_copy(update={"max_units_per_user": most})):
                process.add(one.session_id, 1, one.arm is Arm.CANDIDATE, 0.5, one.reward)
            crossed[most] += process.log_e >= line
    assert crossed[3] <= 6 and crossed[10_000] >= 54


SESSIONS = st.lists(
    st.builds(
        Begun,
        st.integers(0, 30).map(float),
        st.integers(0, 10_000).map(str),
        st.sampled_from("abc"),
        st.sampled_from(["", "x", "y"]),
    ),
    unique_by=lambda one: one.session_id,
    max_size=40,
)


@given(SESSIONS, CONFIGS, st.lists(st.integers(1, 7), max_size=12), st.sets(st.integers(0, 39)))
def test_what_counts_is_the_same_however_the_sessions_came_and_whichever_went(
    sessions: list[Begun], config: GateConfig, sizes: list[int], gone: set[int]
) -> None:
    """In pieces and out of order, with some of them gone again, against all that are left, at once."""
    held, counting, left = Beginnings(config), set[str](), [one for n, one in enumerate(sessions) if n not in gone]
    rest = list(sessions)
    for size in [*sizes, len(rest)]:
        entered, out = held.settle(rest[:size])
        counting, rest = (counting | entered) - out, rest[size:]
    entered, out = held.settle([], [one for n, one in enumerate(sessions) if n in gone])
    counting = (counting | entered) - out
    whole = Beginnings(config)
    expected, _ = whole.settle(left)
    assert counting == expected
    assert (held.shares, held.active_s, held.num_counted) == (whole.shares, whole.active_s, len(expected))


def test_a_late_beginning_takes_its_place_and_whoever_had_it_gives_way() -> None:
    held = Beginnings(CONFIG.model_copy(update={"max_units_per_user": 1}))
    late, first = Begun(1.0, "late", "t", "x"), Begun(2.0, "first", "t", "x")
    assert held.settle([first]) == ({"first"}, set())
    assert held.settle([late]) == ({"late"}, {"first"})


def test_time_is_that_in_which_sessions_came() -> None:
    held = Beginnings(CONFIG.model_copy(update={"idle_s": 100.0}))
    held.settle([Begun(at, str(at), "t", "") for at in (0.0, 30.0, 5000.0, 5010.0)])
    assert held.active_s == 30 + 100 + 10
