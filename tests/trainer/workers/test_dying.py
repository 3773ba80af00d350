"""kill -9 while two learner workers train on a real Ray: `tests/bench/bench_kills.py` does it at ten moments."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed
import pytest
from killing import DRIVER, WORKER, Kill, outcome, play, trained_once

KILLS = {
    0: [Kill(DRIVER, 9, 0.0), Kill(DRIVER, 13, 0.05)],
    2: [Kill(WORKER, 12, 0.0), Kill(DRIVER, 17, 0.05)],
}
"""Without Ray, where the learner is in the driver, and with two workers on it."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", KILLS)
def test_a_killed_driver_and_a_killed_worker_change_no_bit_and_no_turn_trains_twice(
    reward_of: Callable[..., Any], tmp_path: Path, workers: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    killed.set_up(whole, reward_of)
    shutil.copytree(whole, cut)
    play(whole, workers)
    _, starts = play(cut, workers, KILLS[workers])
    assert starts == 3
    one, other = outcome(whole), outcome(cut)
    assert one == other and len(one["versions"]) > 4 and trained_once(one)
