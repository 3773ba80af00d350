"""Nothing wasted: a month of trials at speed, under the product's rule and under the one before, batch by batch.

The trainer's loop is the real one, the log the product's double in memory, and the learner a table of logits under the
product's loss. Users ask what is answered best in another way as days pass, so what is learnt late is lost. A trial
takes as many sessions as 20 batches hold; which are promoted, rejected or expired is drawn beforehand, for both alike.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("waste")))
sys.path.insert(0, str(Path(__file__).parents[2]))

import bench
import numpy as np
from month import MakeTrainer, Month, Plan, Told
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rules import BatchByBatch
from task import RIGHT, Users

import trainer.loop
from trainer.eligibility import Reason
from trainer.loop import Trainer

SEEDS = (1, 2)
RULES: dict[str, MakeTrainer] = {"nothing wasted": Trainer, "batch by batch": BatchByBatch}


def trained_share(ends: Counter[str], num_sessions: int) -> float:
    """Of the turns that might have trained: all but those sampled by a version that was rejected."""
    return ends["trained"] / (num_sessions - ends[Reason.REJECTED_WEIGHTS.value])


def shown(found: dict[str, list[Told]], plan: Plan) -> Table:
    """What each rule's months came to, means over the seeds."""
    table = Table("", *found, title=f"{plan.num_sessions} sessions, {len(SEEDS)} times")

    def row(name: str, of: object, form: str = ".3f") -> None:
        assert callable(of)
        table.add_row(name, *(f"{np.mean([of(told) for told in those]):{form}}" for those in found.values()))

    week = 7 * plan.sessions_a_day
    row("reward a session", lambda told: np.mean(told.rewards))
    row("in the last week", lambda told: np.mean(told.rewards[-week:]))
    row("turns trained, of those that might", lambda told: trained_share(told.ends, plan.num_sessions))
    row("in the line that serves, of all", lambda told: told.num_in_line / plan.num_sessions)
    for reason in sorted({reason for those in found.values() for told in those for reason in told.ends}):
        row(reason, lambda told, reason=reason: told.ends[reason] / plan.num_sessions)
    row("read or waiting", lambda told: 1 - told.ends.total() / plan.num_sessions)
    row("versions", lambda told: told.num_versions, ".1f")
    for end in ("promoted", "rejected", "expired"):
        row(end, lambda told, end=end: told.outcomes[end], ".1f")
    return table


def main() -> None:
    """All months, one after the other."""
    os.fsync = lambda _handle: None  # a bench's disk survives the bench's end
    trainer.loop.POLL_S = 0.0
    found: dict[str, list[Told]] = {rule: [] for rule in RULES}
    seconds: Counter[str] = Counter()
    with Progress(console=Console(stderr=True)) as progress, tempfile.TemporaryDirectory() as root:
        for seed in SEEDS:
            for rule, make in RULES.items():
                plan, begun = Plan(seed), time.monotonic()
                task = progress.add_task(f"{rule}, seed {seed}", total=plan.num_sessions)
                month = Month(plan, make, Path(root) / f"{rule} {seed}")
                found[rule].append(month.live(lambda task=task: progress.advance(task)))  # type: ignore[misc]
                seconds[rule] += time.monotonic() - begun
    report(found, Plan(0), seconds)


def report(found: dict[str, list[Told]], plan: Plan, seconds: Counter[str]) -> None:
    """The table, and the line."""
    Console().print(shown(found, plan))
    ours, before = found.values()
    shares = [[trained_share(told.ends, plan.num_sessions) for told in those] for those in (ours, before)]
    rewards = [[float(np.mean(told.rewards)) for told in those] for those in (ours, before)]
    untaught = float(np.mean([Users(seed, plan.changes_a_day).pleased(0).mean() for seed in SEEDS]))
    bench.report(
        "waste",
        {
            "trained_share": min(shares[0]),
            "trained_share_before": max(shares[1]),
            "reward_a_session": float(np.mean(rewards[0])),
            "reward_a_session_before": float(np.mean(rewards[1])),
            "reward_gain_least": min(one - other for one, other in zip(*rewards, strict=True)),
            "reward_untaught": untaught,
            "reward_if_always_right": RIGHT,
            "seconds": float(seconds.total()),
        },
        {"trained_share": (">=", 0.95), "reward_gain_least": (">", 0.0)},
    )


if __name__ == "__main__":
    main()
