"""A hundred thousand traces through ingest and the lake's writer, killed at every step of their commits.

Not a race: the figures are how many ids are not where they should be, each once, and the targets are zero.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from bench import report
from chaos import Chaos
from rich.progress import Progress

from ingest.lake.manifest import Table

NUM_SESSIONS = 25_000  # four traces each on average
PER_TICK = 250


def main() -> None:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        chaos = Chaos(Path(folder), NUM_SESSIONS, seed=1, per_tick=PER_TICK)
        task = progress.add_task("sessions", total=NUM_SESSIONS)
        found = chaos.run(lambda num: progress.update(task, completed=num))
        on_topic, fates = set(chaos.on_topic()), chaos.fated()
    account = found.account
    assert account is not None
    figures = {
        "traces": float(len(found.traces)),
        "feedback": float(len(found.feedback)),
        "kills": float(found.kills.total()),
        "steps_killed_at": float(len(found.kills)),
        "revisions": float(found.num_revised),
        "traces_not_in_one_trajectory": _wrong(found.in_trajectories, found.traces),
        "feedback_not_in_one_trajectory": _wrong(found.feedback_ended, found.feedback),
        "traces_without_one_fate": _wrong(fates, found.traces),
        "unexplained": float(account.unexplained.num + account.conflicts.num + account.feedback.unexplained.num),
        "twice_in_lake": float(sum(num > 1 for rows in found.in_lake.values() for num in rows.values())),
        "not_in_lake": float(
            len(found.traces ^ found.lake_ids[Table.TURNS])
            + len(found.traces ^ found.lake_ids[Table.FATES])
            + len(found.feedback ^ found.lake_ids[Table.FEEDBACK])
            + len(on_topic ^ found.lake_ids[Table.SESSIONS])
        ),
        "seconds": time.monotonic() - begun,
    }
    zero = ("traces_not_in_one_trajectory", "feedback_not_in_one_trajectory", "traces_without_one_fate", "unexplained")
    targets = dict.fromkeys((*zero, "twice_in_lake", "not_in_lake"), ("<=", 0.0))
    report("chaos", figures, {"traces": (">=", 95_000.0), "steps_killed_at": (">=", 11.0), **targets})


def _wrong(counted: dict[str, int], expected: set[str]) -> float:
    """Ids that are missing, unexpected, or there more than once."""
    return float(len(expected ^ set(counted)) + sum(num != 1 for num in counted.values()))


if __name__ == "__main__":
    main()
