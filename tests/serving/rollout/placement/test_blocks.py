"""Blocks as the release log tells them, and their coins."""

import math

import pytest

from ingest.records.events import Arm, Release, ReleaseKind, TrialState
from ingest.store import releases
from ingest.store.releases import Served
from serving.rollout.placement.blocks import Block, Blocks, toss


def told(*entries: dict[str, object]) -> Blocks:
    """A log of canary releases at seconds 0, 10, 20 and so on; stable is 0."""
    served, blocks = Served(), Blocks()
    for number, entry in enumerate(entries):
        given: dict[str, object] = {"candidate": 1, "state": TrialState.CANARY, "share": 0.25, "stable": 0}
        release = Release.model_validate(
            {"release": number, "epoch": 1, "kind": ReleaseKind.BLOCK, "reason": "because", "at": 10.0 * number}
            | given
            | entry
        )
        served = releases.advance(served, release)
        blocks.take(served, release)
    return blocks


STABLE, CANDIDATE = {"engines": {"a": 0}}, {"engines": {"a": 1}}
ANNOUNCED = {"kind": ReleaseKind.ANNOUNCED, "engines": {"a": 1}}


def test_a_block_ends_with_the_next_release_that_has_another_number() -> None:
    blocks = told(STABLE | {"block": 0}, STABLE | {"block": 1}, CANDIDATE, ANNOUNCED, CANDIDATE | {"block": 2})
    assert blocks.closed == (
        Block(0, Arm.STABLE, 0, Arm.CANDIDATE, 0.25, 0.0, 10.0),
        Block(1, Arm.STABLE, 0, Arm.CANDIDATE, 0.25, 10.0, 20.0, Arm.STABLE),
    )
    assert blocks.open == Block(2, Arm.CANDIDATE, 1, Arm.CANDIDATE, 0.25, 40.0, math.inf, Arm.STABLE)
    assert blocks.following == 3


def test_what_an_engine_confirms_ends_no_block() -> None:
    assert told(CANDIDATE | {"block": 0}, ANNOUNCED).open == Block(0, Arm.CANDIDATE, 1, Arm.CANDIDATE, 0.25, 0.0)


def test_a_verdict_ends_the_block_that_goes_on() -> None:
    blocks = told(CANDIDATE | {"block": 0}, STABLE | {"kind": ReleaseKind.TRIAL, "state": TrialState.REJECTED})
    assert (blocks.open, [block.closed_at for block in blocks.closed]) == (None, [10.0])


def test_numbers_go_on_through_a_watch_and_begin_anew_with_another_candidate() -> None:
    watch = {"state": TrialState.PROMOTED, "stable": 1, "holdback": 0}
    blocks = told(CANDIDATE | {"block": 0}, CANDIDATE | watch, STABLE | watch | {"block": 1})
    assert blocks.open == Block(1, Arm.HOLDBACK, 0, Arm.HOLDBACK, 0.25, 20.0)
    assert told(CANDIDATE | {"block": 0}, STABLE | {"candidate": 2}).following == 0


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_coins_fall_as_often_as_the_share_says_and_differ_by_block_and_salt(share: float) -> None:
    fell = [[toss(salt, number) < share for number in range(4000)] for salt in ("one", "other")]
    assert all(abs(sum(coins) / 4000 - share) < 0.03 for coins in fell)
    both = sum(a and b for a, b in zip(*fell, strict=True)) / 4000
    assert abs(both - share**2) < 0.03
    again = sum(a and b for a, b in zip(fell[0], fell[0][1:], strict=False)) / 4000
    assert abs(again - share**2) < 0.03
