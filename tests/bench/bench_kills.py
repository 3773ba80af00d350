"""The trainer with two learner workers, killed at random moments, against a run that nobody killed."""

import importlib.util
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import killed  # noqa: E402
from bench import report  # noqa: E402
from killing import DRIVER, WORKER, Kill, outcome, play, trained_once  # noqa: E402

NUM_KILLS = 10
WORKERS = 2
MAX_DELAY_S = 0.3  # about as long as an update of the tiny model takes beside others


def main() -> None:
    make = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    with tempfile.TemporaryDirectory() as scratch:
        whole, cut = Path(scratch) / "whole", Path(scratch) / "cut"
        whole.mkdir()
        killed.set_up(whole, _make_reward())
        shutil.copytree(whole, cut)
        began = time.monotonic()
        num_lines, _ = play(whole, WORKERS)
        whole_s = time.monotonic() - began
        kills = [
            Kill((DRIVER, WORKER)[number % 2], make.randrange(3, num_lines // 7), make.uniform(0.0, MAX_DELAY_S))
            for number in range(NUM_KILLS)
        ]
        _, starts = play(cut, WORKERS, kills, make)
        one, other = outcome(whole), outcome(cut)
        figures = {
            "kills": float(starts - 1),
            "versions": float(len(one["versions"]) - 1),
            "bytes_of_learner": float(sum(len(part) for part in one["learner"].values())),
            "learner_differs": float(one["learner"] != other["learner"]),
            "versions_that_differ": float(
                sum(pair[0] != pair[1] for pair in zip(one["versions"], other["versions"], strict=False))
                + abs(len(one["versions"]) - len(other["versions"]))
            ),
            "turns_not_trained_exactly_once": float(killed.NUM_SESSIONS * (not trained_once(other))),
            "uninterrupted_s": whole_s,
            "killed_s": time.monotonic() - began - whole_s,
        }
    report(
        "kills",
        figures,
        {
            "kills": (">=", NUM_KILLS),
            "versions": (">=", 4),
            "learner_differs": ("<=", 0),
            "versions_that_differ": ("<=", 0),
            "turns_not_trained_exactly_once": ("<=", 0),
        },
    )


def _make_reward():  # type: ignore[no-untyped-def]
    """The trainer's tests' own, from a file that importlib mode keeps from being imported."""
    path = ROOT / "tests" / "trainer" / "conftest.py"
    spec = importlib.util.spec_from_file_location("trainer_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_reward


if __name__ == "__main__":
    main()
