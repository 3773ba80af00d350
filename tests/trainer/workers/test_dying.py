"""kill -9 with two learner workers on a real Ray: `tests/bench/bench_kills.py` does it at ten moments."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed
import pytest
from killing import DRIVER, WORKER, Kill, outcome, play, trained_once


@pytest.mark.timeout(900)
def test_a_killed_driver_and_a_killed_worker_change_no_bit_and_no_turn_trains_twice(
    reward_of: Callable[..., Any], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    killed.set_up(whole, reward_of)
    shutil.copytree(whole, cut)
    play(whole, 2)
    _, starts = play(cut, 2, [Kill(WORKER, 12, 0.0), Kill(DRIVER, 17, 0.05)])
    assert starts == 3
    one, other = outcome(whole), outcome(cut)
    assert one == other and len(one["versions"]) > 4 and trained_once(one)
