"""The sums over a trial say the same however its sessions came, and however often somebody looked meanwhile."""

import random

from hypothesis import given
from hypothesis import strategies as st
from units import unit

from infra.config import GateConfig, GuardrailConfig
from ingest.records.events import Arm
from serving.rollout.evidence import Baseline, Unit
from serving.rollout.evidence.judging import numbers_of
from serving.rollout.evidence.tally import Sessions

CONFIG = GateConfig(
    margin=0.1,
    settle_s=5.0,
    idle_s=3.0,
    max_units_per_user=2,
    max_tenant_share=0.5,
    guardrails=(GuardrailConfig(name="kept", margin=0.1), GuardrailConfig(name="held", margin=0.1, missing=0.5)),
)
BASE = {name: Baseline(0.5, 0.2) for name in ("reward", "kept", "held")}


@st.composite
def histories(draw: st.DrawFn) -> list[Unit]:
    """Revisions of sessions, some of which went on under another root; of each root all begin at one time."""
    found = []
    for n in range(draw(st.integers(0, 9))):
        for root in range(draw(st.integers(1, 2))):
            arm, began_at = draw(st.sampled_from([Arm.CANDIDATE, Arm.STABLE])), float(draw(st.integers(0, 20)))
            user, tenant = draw(st.sampled_from(["", "x", "y"])), draw(st.sampled_from("abc"))
            for revision in range(1, draw(st.integers(2, 4))):
                rails = draw(st.sampled_from([{}, {"kept": 1.0}, {"kept": 0.0, "held": 1.0}]))
                one = unit(
                    n, arm, draw(st.floats(0, 1)), 0.3, user, tenant, began_at, revision=revision, **rails
                )  # fmt: skip
                found.append(one._replace(root=f"s{n}-{root}", is_pure=draw(st.integers(0, 4)) > 0))
    return found


def numbers(units: list[Unit], looks: set[int]) -> dict[str, float]:
    held = Sessions()
    for place, one in enumerate(units):
        held.put(one)
        if place in looks:
            held.tally(BASE, CONFIG, Arm.CANDIDATE, Arm.STABLE)
    return numbers_of(held.tally(BASE, CONFIG, Arm.CANDIDATE, Arm.STABLE))


@given(histories(), st.sets(st.integers(0, 40)), st.randoms(use_true_random=False))
def test_order_duplicates_and_looks_change_no_number(units: list[Unit], looks: set[int], rng: random.Random) -> None:
    again = [*units, *rng.choices(units, k=6)] if units else []
    rng.shuffle(again)
    assert numbers(again, looks) == numbers(units, set())


@given(histories(), st.sets(st.integers(0, 40)))
def test_what_was_replaced_leaves_no_trace(units: list[Unit], looks: set[int]) -> None:
    """Against the sessions as they are in the end, with the newest beginning that was ever seen."""
    ended = Sessions()
    for one in units:
        ended.put(one)
    fresh = Sessions(ended.units.values(), ended.newest_at)
    assert numbers(units, looks) == numbers_of(fresh.tally(BASE, CONFIG, Arm.CANDIDATE, Arm.STABLE))
