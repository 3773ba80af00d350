"""The bench's simulation, which is vectorised, decides as the product's own code does, at the same session."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TRIALS = 6


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "bench" / "gate"))
    return importlib.import_module


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("share", [0.5, 0.1, None])
@pytest.mark.parametrize(("effect", "for_harm"), [(0.15, False), (-0.15, True)])
def test_a_trial_ends_at_the_same_session(
    gate: Callable[[str], ModuleType], is_binary: bool, share: float | None, effect: float, for_harm: bool
) -> None:
    worlds, rules, product = gate("worlds"), gate("rules"), gate("product")
    world = worlds.World(effect, share=share, is_binary=is_binary, has_drift=share is None, num=2_500)
    trials = worlds.draw(world, TRIALS, np.random.default_rng(1))
    whens = rules.mixture(trials, for_harm=for_harm)
    assert (whens < rules.NEVER).any()
    assert whens.tolist() == [product.by_process(trials, row, for_harm) for row in range(TRIALS)]


def test_with_capped_users_a_trial_ends_at_the_same_session(gate: Callable[[str], ModuleType]) -> None:
    worlds, rules, product = gate("worlds"), gate("rules"), gate("product")
    trials = worlds.draw(worlds.World(0.15, has_heavy_users=True, num=2_500), TRIALS, np.random.default_rng(1))
    for most in (1, 2):
        whens = rules.mixture(trials, rules.capped(trials.user, most))
        assert (whens < rules.NEVER).any()
        assert whens.tolist() == [product.by_tally(trials, row, most) for row in range(TRIALS)]


@pytest.mark.parametrize("settle", [0, 1_500])
def test_with_outcomes_known_late_a_trial_ends_at_the_same_session(
    gate: Callable[[str], ModuleType], settle: int
) -> None:
    worlds, rules, product = gate("worlds"), gate("rules"), gate("product")
    trials = worlds.draw(worlds.World(0.15, is_late=True, num=2_500), TRIALS, np.random.default_rng(1))
    whens = rules.as_known(trials, settle)
    assert (whens < rules.NEVER).any()
    assert whens.tolist() == [product.by_revisions(trials, row, settle) for row in range(TRIALS)]
