"""What the log and the ingest stage cost: bytes per session, traces per second, memory, and the time of a restart.

    bytes     the records of the same sessions by the code of the release before and by this one, on all topics; see
              `log/size.py`
    rate      the stage against a loop that polls and decodes the same messages, in turns; see `log/rate.py`
    memory    a stage that holds 50,000 open sessions; see `log/memory.py`
    restart   with 10,000 and with 1,000,000 sessions done before: ingest, rewards, trainer and controller; see
              `log/restart.py`

`bench_log.py bytes` measures one part and prints its figures alone. Sessions are drawn, the same each time.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("scale")))
sys.path.insert(0, str(Path(__file__).with_name("log")))

import bench
import memory
import rate
import restart
import size
from rich.console import Console
from rich.progress import Progress

Figures = dict[str, float | None]
PARTS: dict[str, tuple[Callable[[Callable[[], None]], Figures], int]] = {
    "bytes": (size.compare, len(size.TURNS)),
    "rate": (rate.compare, len(rate.SIDES) * rate.ROUNDS),
    "memory": (memory.measure, 1),
    "restart": (restart.compare, len(restart.STAGES + restart.OTHERS) * len(restart.SIZES) * (restart.ROUNDS + 1)),
}
TARGETS = {
    "bytes_ratio_20": ("<=", 1 / 6),
    "rate_ratio": (">=", 0.5),
    "restart_ratio": ("<=", 1.5),
    "restart_trainer_ratio": ("<=", 1.5),
    "restart_rollout_ratio": ("<=", 1.5),
}


def main(asked: list[str]) -> None:
    figures: Figures = {}
    with Progress() as progress:
        for name in asked or PARTS:
            measure, num_steps = PARTS[name]
            begun = time.monotonic()
            figures |= measure(partial(progress.advance, progress.add_task(name, total=num_steps)))
            figures[f"{name}_seconds"] = round(time.monotonic() - begun)
    if asked:
        Console().print(figures)
    else:
        bench.report("log", figures, TARGETS)


if __name__ == "__main__":
    main(sys.argv[1:])
