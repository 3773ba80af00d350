"""The block as the unit: what is in its mean, when it counts, and what that does to the level."""

import math
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from block_trials import World, simulate
from units import unit

from infra.config import WHOLE, GateConfig, GuardrailConfig
from ingest.records.events import Arm
from serving.rollout import evidence
from serving.rollout.evidence import REWARD, Baseline, Design, Evidence, Process, Unit, judge
from serving.rollout.evidence.blocks import BlockTally, mean_of, rehearsed, with_whole
from serving.rollout.evidence.tally import Sessions
from serving.rollout.placement.blocks import Block

CANDIDATE, STABLE = Arm.CANDIDATE, Arm.STABLE
GATE = with_whole(GateConfig(margin=0.1, guardrails=(), settle_s=5.0, max_units_per_user=2), margin=0.2)
BASELINES = {REWARD: Baseline(0.6, 0.05), WHOLE: Baseline(0.8, 0.05)}


def block(number: int, arm: Arm = CANDIDATE, before: Arm | None = None, share: float = 0.5) -> Block:
    """Ten seconds from second `10 number` on."""
    return Block(number, arm, int(arm is CANDIDATE), CANDIDATE, share, 10.0 * number, 10.0 * number + 10.0, before)


def begun(n: int, at: Block, reward: float = 1.0, length: float = 1.0, **fields: object) -> Unit:
    """Session number `n` of a block, at its beginning."""
    given = {"block": at.number, "version": at.version, "ended_at": at.opened_at + length} | fields
    return unit(n, at.arm, reward, began_at=at.opened_at)._replace(**given)  # type: ignore[arg-type]


def tally_of(units: Iterable[Unit], blocks: Iterable[Block], config: GateConfig = GATE) -> BlockTally:
    held = Sessions()
    tally = BlockTally(held, BASELINES, config, CANDIDATE, STABLE)
    held.followers.append(tally)
    for one in units:
        held.put(one)
    return tally.look(tuple(blocks))


def test_what_clients_say_was_kept_is_judged_beside_how_many_sessions_are_whole() -> None:
    gate = GATE.model_copy(update={"guardrails": (GuardrailConfig(name="kept", margin=0.1), *GATE.guardrails)})
    found = mean_of([begun(0, block(0), names=("kept",), values=(0.0,))], block(0), 0.5, gate)
    assert found is not None and (found.outcomes["kept"], found.outcomes[WHOLE]) == (0.0, 1.0)


def later(n: int = 999, number: int = 100) -> tuple[Unit, Block]:
    """A session long after, so that all before it has settled, and its block, which goes on."""
    last = block(number, STABLE)._replace(closed_at=math.inf)
    return begun(n, last), last


def log_e(tally: BlockTally, name: str = REWARD) -> float:
    return tally.measured[name].evidence.log


def test_the_evidence_is_that_of_a_process_over_the_blocks_means() -> None:
    rng = random.Random(1)
    blocks = [block(k, rng.choice((CANDIDATE, STABLE)), share=0.3) for k in range(40)]
    units = [
        begun(7 * k + j, at, float(rng.random() < 0.6)) for k, at in enumerate(blocks) for j in range(rng.randrange(7))
    ]
    process = Process(Design(BASELINES[REWARD], GATE.margin))
    for at in blocks:
        mine = [one.reward for one in units if one.block == at.number]
        if mine:
            process.add(at.number, 0, at.arm is CANDIDATE, at.share, math.fsum(mine) / len(mine))
    one, last = later()
    tally = tally_of([*units, one], [*blocks, last])
    assert len(process) > 30 and tally.num_settled == len(process) == sum(tally.num.values())
    assert (log_e(tally), tally.measured[REWARD].harm.log) == (process.log_e, process.log_harm)


def test_it_is_the_same_in_whatever_order_sessions_come_and_however_often_one_looks() -> None:
    rng = random.Random(2)
    blocks = [block(k, rng.choice((CANDIDATE, STABLE))) for k in range(20)]
    units = [begun(9 * k + j, at, rng.random(), rng.uniform(0, 12)) for k, at in enumerate(blocks) for j in range(9)]
    units += [one._replace(reward=0.5, revision=2) for one in units[::3]]
    units.append(later()[0])
    every = [*blocks, later()[1]]
    once = tally_of(units, every)
    rng.shuffle(units)
    held = Sessions()
    tally = BlockTally(held, BASELINES, GATE, CANDIDATE, STABLE)
    held.followers.append(tally)
    for k, one in enumerate([*units, *units]):
        held.put(one)
        if k % 7 == 0:
            tally.look(every[: 1 + k // 20])
    tally.look(every)
    assert tally.num[CANDIDATE] and tally.num[STABLE]
    assert {name: log_e(tally, name) for name in tally.measured} == {name: log_e(once, name) for name in once.measured}
    assert (tally.num, tally.num_excluded, tally.lacking) == (once.num, once.num_excluded, once.lacking)


def test_a_block_is_evidence_once_it_has_ended_and_settled() -> None:
    at, last = block(0), block(1, STABLE)
    units = [begun(0, at), begun(1, last)._replace(began_at=14.0)]
    going_on = [at._replace(closed_at=math.inf)]
    assert sum(tally_of(units[:1], going_on).num.values()) == 0
    assert tally_of(units, [at, last]).num_settled == 0
    settled = tally_of([*units, begun(2, last)._replace(began_at=15.0)], [at, last])
    assert (settled.num_settled, settled.num[CANDIDATE]) == (1, 1)


@pytest.mark.parametrize(
    "fields",
    [{"ended_at": 10.5}, {"version": None}, {"version": 0}],
    ids=["its last reply came after the block's end", "both served it", "the other version served it"],
)
def test_a_session_that_is_not_whole_in_its_block_is_in_no_mean_and_lowers_kept(
    fields: dict[str, float | None],
) -> None:
    at, (one, last) = block(0), later()
    tally = tally_of([begun(0, at, 1.0), begun(1, at, 0.0, **fields), one], [at, last])
    assert tally.measured[REWARD].mean(True) == 1.0
    assert (tally.measured[WHOLE].mean(True), tally.num_excluded) == (0.5, 1)


def test_a_block_that_kept_none_says_nothing_but_that() -> None:
    at, (one, last) = block(0), later()
    tally = tally_of([begun(0, at, version=None), one], [at, last])
    assert (log_e(tally), tally.measured[REWARD].mean(True), tally.measured[WHOLE].mean(True)) == (0.0, None, 0.0)
    assert tally.measured[WHOLE].harm.log > 0.0 > log_e(tally, WHOLE)
    empty = tally_of([one], [at, last])
    assert (log_e(empty), log_e(empty, WHOLE), empty.num_settled) == (0.0, 0.0, 0)


def test_what_is_scored_late_replaces_the_blocks_mean() -> None:
    at, (one, last) = block(0), later()
    held = [begun(0, at, 1.0), one, begun(1, at, 0.0)]
    assert tally_of(held[:2], [at, last]).measured[REWARD].mean(True) == 1.0
    assert tally_of(held, [at, last]).measured[REWARD].mean(True) == 0.5
    revised = held[0]._replace(revision=2, reward=0.2)
    assert tally_of([*held, revised], [at, last]).measured[REWARD].mean(True) == pytest.approx(0.1, abs=1e-12)


def test_a_heavy_users_sessions_are_left_out_before_the_mean_is_taken() -> None:
    at, (one, last) = block(0), later()
    heavy = [begun(n, at, 1.0, user="heavy", began_at=n / 10) for n in range(10)]
    tally = tally_of([*heavy, begun(10, at, 0.0, user="other"), one], [at, last])
    assert tally.measured[REWARD].mean(True) == pytest.approx(2 / 3, abs=1e-12)


def test_a_session_of_another_stage_is_not_counted() -> None:
    watched = block(0, STABLE)._replace(beside=Arm.HOLDBACK, version=1)
    assert tally_of([begun(0, watched), later()[0]], [watched, later()[1]]).num_settled == 0


def test_a_guardrail_that_one_session_lacks_lets_nothing_pass() -> None:
    config = GATE.model_copy(update={"guardrails": (*GATE.guardrails, GuardrailConfig(name="polite", margin=0.1))})
    baselines = BASELINES | {"polite": Baseline(0.9, 0.05)}
    held, at, (one, last) = Sessions(), block(0), later()
    tally = BlockTally(held, baselines, config, CANDIDATE, STABLE)
    held.followers.append(tally)
    for session in (begun(0, at), one):
        held.put(session)
    standing = judge(tally.look([at, last]), trial=1, promotions=0)
    assert "log_e.polite" not in standing.numbers and standing.numbers["lacking.polite"] == 1


def test_what_an_arm_carries_over_is_its_blocks_after_a_switch_less_those_after_its_own() -> None:
    rewards = {STABLE: (0.2, 0.4), CANDIDATE: (0.7, 0.9)}  # by the arm of the block before
    blocks = [block(2 * k + j, CANDIDATE, arm) for k, arm in enumerate(rewards) for j in range(2)]
    values = [value for pair in rewards.values() for value in pair]
    units = [begun(n, at, value) for n, (at, value) in enumerate(zip(blocks, values, strict=True))]
    numbers = tally_of([*units, later()[0]], [*blocks, later()[1]]).more
    assert numbers["carry_over.candidate"] == pytest.approx(-0.5)
    assert numbers["carry_over.candidate.error"] == pytest.approx(math.sqrt(0.01 + 0.01))
    assert "carry_over.stable" not in numbers


def test_the_champions_past_is_cut_into_blocks_as_if_they_had_been_there() -> None:
    past = [begun(3 * k + j, block(k, STABLE), float(j < 2), 12.0 * (j == 1)) for k in range(10) for j in range(3)]
    found = rehearsed(past, 10.0, GATE)
    assert found[WHOLE].mean == pytest.approx(2 / 3) and found[REWARD] == Baseline(0.5, 1e-4)
    few = rehearsed(past[:6], 10.0, GATE)
    assert few[REWARD] == Baseline(0.5, 0.25), "of few blocks, sessions say how much it varies"


def test_sessions_of_blocks_are_kept_over_a_restart(tmp_path: Path) -> None:
    before, one = Evidence(), begun(1, block(3), 0.25, 2.5)
    before.blocks[7] = Sessions([one], 40.0)
    evidence.keep(before, tmp_path / "evidence.json")
    after = evidence.read(tmp_path / "evidence.json")
    assert (after.blocks[7].units, after.blocks[7].newest_at) == ({one.session_id: one}, 40.0)


WORSE = World(effect=-0.05, shock=0.2, num_blocks=120)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_version_worse_by_the_margin_is_promoted_no_more_often_than_alpha(share: float) -> None:
    rates = simulate(World(effect=-0.05, shock=0.2, num_blocks=120, share=share), num_trials=120)
    assert rates.blocks <= 0.05


def test_sessions_that_share_a_coin_break_the_level_when_they_are_taken_for_units() -> None:
    assert simulate(WORSE, num_trials=120).sessions >= 0.1


def test_a_version_that_is_no_worse_is_found_harmful_no_more_often_than_alpha() -> None:
    assert simulate(World(effect=0.0, shock=0.2, num_blocks=120), num_trials=120).harmed <= 0.05


def test_a_better_version_is_promoted_by_its_blocks() -> None:
    assert simulate(World(effect=0.15, shock=0.05), num_trials=20).blocks >= 0.9
