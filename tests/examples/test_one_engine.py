"""What `--one-engine`, `--agents` and `--regret` set otherwise than the demo's configuration can be used with it."""

from pathlib import Path

import pytest

from infra import config
from infra.config import Config, Placement

DEMO = Path(__file__).parents[2] / "examples" / "demo"


def loaded(overlay: str) -> Config:
    lines = [line for line in (DEMO / overlay).read_text().splitlines() if line and not line.startswith("#")]
    return config.load(DEMO / "onstream.yaml", dict(line.split("=", 1) for line in lines))


@pytest.mark.parametrize("overlay", ["agents.env", "one_engine.env", "regret.env"])
def test_what_an_overlay_sets_is_a_configuration(overlay: str) -> None:
    assert loaded(overlay) != config.load(DEMO / "onstream.yaml", {})


def test_arms_take_turns_on_the_one_engine_and_blocks_outlive_the_closing_of_their_sessions() -> None:
    given = loaded("one_engine.env")
    own = given.serving.rollout
    assert (own.placement, len(given.serving.engines)) == (Placement.SWITCHBACK, 1)
    assert own.gate.settle_s > given.ingest.inactivity_s
    assert own.switchback.live_only


def test_with_regret_no_waiting_version_ends_the_watch() -> None:
    watch = loaded("regret.env").serving.rollout.watch
    assert watch.min_units == watch.max_units
