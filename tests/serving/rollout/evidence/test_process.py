"""The arithmetic of one process, against numbers worked by hand and against what it promises."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.rollout.evidence import Baseline, Design, Pairs, Process, Verdict, bets, level, paired

HALF = Design(Baseline(mean=0.5, variance=0.25), margin=0.1)
UNITS = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"), st.integers(1, 3), st.booleans(), st.sampled_from([0.1, 0.3, 0.5]), st.floats(0, 1)
    ),
    max_size=25,
    unique_by=lambda row: row[:2],  # one revision of a unit says one thing
)
Rows = list[tuple[str, int, bool, float, float]]


def process(rows: Rows) -> Process:
    found = Process(HALF)
    for row in rows:
        found.add(*row)
    return found


def same(one: Process, other: Process) -> bool:
    """To the last bit."""
    return (one.log_e, one.log_harm, len(one)) == (other.log_e, other.log_harm, len(other))


def test_a_treated_success_scores_its_surprise_over_its_share() -> None:
    assert bets.score(True, 0.25, 1.0, 0.6) == pytest.approx(1.6)
    assert bets.score(False, 0.25, 1.0, 0.6) == pytest.approx(-0.4 / 0.75)


def test_evidence_from_one_unit_is_the_mixture_worked_by_hand() -> None:
    # pi .5, c .5, s2 .25: phi = 1, v = 1, B = 1; stakes are min(m * .1, .5)
    stakes = [min(bet * 0.1, 0.5) for bet in bets.BETS]
    one = process([("a", 1, True, 0.5, 1.0)])
    assert one.log_e == pytest.approx(math.log(sum(1 + stake * 1.1 for stake in stakes) / len(stakes)))
    assert one.log_harm == pytest.approx(math.log(sum(1 - stake * 1.0 for stake in stakes) / len(stakes)))


def test_no_units_are_no_evidence() -> None:
    assert process([]).log_e == process([]).log_harm == 0.0


@given(UNITS, st.randoms(use_true_random=False))
def test_order_and_duplicates_change_nothing(rows: Rows, rng: random.Random) -> None:
    again = [*rows, *rng.choices(rows, k=5)] if rows else []
    rng.shuffle(again)
    assert same(process(again), process(rows))


@given(UNITS)
def test_a_revision_counts_as_if_nothing_had_come_before_it(rows: Rows) -> None:
    newest = {row[0]: row for row in sorted(rows, key=lambda row: row[1])}
    assert same(process(rows), process(list(newest.values())))


@given(UNITS, st.integers(0, 25))
def test_processes_add_up_to_the_process_of_all_their_units(rows: Rows, at: int) -> None:
    assert same(process(rows[:at]) + process(rows[at:]), process(rows))
    assert same(process(rows[at:]) + process(rows[:at]), process(rows))


def test_processes_of_different_designs_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="one design"):
        process([]) + Process(Design(HALF.baseline, 0.2))


def test_thousands_of_replacements_leave_no_trace() -> None:
    held, rng = process([("a", 1, True, 0.5, 1.0)]), random.Random(1)
    for revision in range(1, 5_001):
        held.add("b", revision, True, 0.3, rng.random())
    held.add("b", 200_000, False, 0.5, 0.25)
    assert same(held, process([("a", 1, True, 0.5, 1.0), ("b", 1, False, 0.5, 0.25)]))


def test_a_factors_logarithm_is_never_rounded_up() -> None:
    rng = random.Random(2)
    for _ in range(1000):
        x = rng.uniform(-0.5, 10.0)
        assert bets.fixed(x) <= math.log1p(x) * bets.SCALE < bets.fixed(x) + 2


def test_factors_exist_at_the_most_surprising_outcomes() -> None:
    for pi in (0.01, 0.5, 0.99):
        for mean in (0.001, 0.5, 0.999):
            design = Design(Baseline(mean, 1e-4), 0.5)
            for treated in (True, False):
                for outcome in (0.0, 1.0):
                    assert min(bets.evidence(design, treated, pi, outcome)) >= math.log(0.5) * bets.SCALE - 1
                    assert min(bets.harm(design, treated, pi, outcome)) >= math.log(0.5) * bets.SCALE - 1


@pytest.mark.parametrize("pi", [0.1, 0.5])
@pytest.mark.parametrize("mean", [0.2, 0.6])
def test_the_mean_of_a_factor_is_at_most_1_for_a_candidate_worse_by_the_margin(pi: float, mean: float) -> None:
    """What Ville's inequality asks for, exactly: over the coin and a binary outcome."""
    design, total, harmed = Design(Baseline(0.5, 0.2), 0.1), [0.0] * 5, [0.0] * 5
    for treated, chance in ((True, pi), (False, 1 - pi)):
        for outcome in (0.0, 1.0):
            for factors, effect, into in ((bets.evidence, -0.1, total), (bets.harm, 0.0, harmed)):
                rate = mean + effect * treated
                weight = chance * (rate if outcome else 1 - rate)
                logs = factors(design, treated, pi, outcome)
                into[: len(logs)] = [
                    held + weight * math.exp(log / bets.SCALE) for held, log in zip(into, logs, strict=False)
                ]
    assert max(total) <= 1.0 + 1e-12 and max(harmed) <= 1.0 + 1e-12


def test_a_candidate_worse_by_the_margin_is_believed_less_often_than_alpha() -> None:
    rng, line, crossed = random.Random(7), -math.log(level(0.1, 1, 0)), 0
    for _ in range(300):
        held, most = Process(HALF), 0.0
        for n in range(300):
            treated = rng.random() < 0.5
            held.add(n, 1, treated, 0.5, float(rng.random() < (0.4 if treated else 0.5)))
            most = max(most, held.log_e)
        crossed += most >= line
    assert crossed / 300 <= math.exp(-line) + 0.03  # three standard errors above the promise


def pairs(differences: list[float], margin: float = 0.1) -> Pairs:
    found = Pairs(margin)
    for n, difference in enumerate(differences):
        found.add(n, 1, difference)
    return found


def test_a_pairs_evidence_is_worked_by_hand() -> None:
    held = pairs([0.5, -0.5])
    expected = sum((1 + stake * 0.6) * (1 - stake * 0.4) for stake in bets.PAIR_STAKES) / 5
    harmed = sum((1 - stake * 0.5) * (1 + stake * 0.5) for stake in bets.PAIR_STAKES) / 5
    assert (held.log_e, held.log_harm) == (pytest.approx(math.log(expected)), pytest.approx(math.log(harmed)))
    assert held.mean == 0.0


def test_pairs_are_counted_once_and_revised_in_place() -> None:
    held = pairs([0.2, -1.0])
    held.add(1, 2, 0.3)
    held.add(1, 1, -1.0)
    again = pairs([0.2, 0.3])
    assert (held.log_e, held.log_harm, held.mean) == (again.log_e, again.log_harm, again.mean)


def test_pairs_pass_reject_hold_and_expire() -> None:
    def stand(*outcomes: list[float], is_over: bool = False) -> Verdict:
        named = {f"o{n}": pairs(one) for n, one in enumerate(outcomes)}
        return paired(named, alpha=0.05, alpha_rollback=0.05, is_over=is_over).verdict

    same_each = [0.0] * 100
    assert stand(same_each) is Verdict.PASS
    assert stand(same_each, [-0.5] * 100) is Verdict.REJECT
    assert stand(same_each, [0.0] * 10) is Verdict.HOLD
    assert stand(same_each, [0.0] * 10, is_over=True) is Verdict.EXPIRE
    assert stand(same_each, [], is_over=True) is Verdict.EXPIRE
    assert stand(is_over=True) is Verdict.EXPIRE
    assert stand() is Verdict.HOLD
