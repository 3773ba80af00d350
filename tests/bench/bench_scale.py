"""What a unit of everything costs, for the arithmetic of `docs/scale.md`: no engine runs, and minutes are enough.

    flow     a trace from stage to stage; see `scale/flow.py`
    growth   with sessions, entries of logs, files, engines; see `scale/growth.py`
    front    the router, questions to engines, users' keys, the log's lag; see `scale/front.py`

`bench_scale.py flow` measures one part and prints its figures alone. Everything is processor time but `lag_ms`.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("log")))
sys.path.insert(0, str(Path(__file__).with_name("scale")))

import bench
import flow
import front
import growth
from rich.console import Console
from rich.progress import Progress

Figures = dict[str, float]
PARTS: dict[str, tuple[Callable[[Callable[[], None]], Figures], int]] = {
    "flow": (flow.measure, flow.ROUNDS),
    "growth": (growth.measure, len(growth.PARTS)),
    "front": (front.measure, len(front.PARTS)),
}
TARGETS = {
    "release_ratio": ("<=", 2.0),  # an entry of a hundred thousand against one of a thousand: a restart is linear
    "judge_ratio": ("<=", 1.5),  # a session among 20,000 against one among 1,000
}


def main(asked: list[str]) -> None:
    figures: Figures = {}
    with Progress() as progress:
        for name in asked or PARTS:
            measure, num_steps = PARTS[name]
            begun = time.monotonic()
            figures |= measure(partial(progress.advance, progress.add_task(name, total=num_steps)))
            figures[f"{name}_seconds"] = time.monotonic() - begun
    figures = {name: float(f"{value:.4g}") for name, value in figures.items()}
    if asked:
        Console().print(figures)
    else:
        bench.report("scale", figures, TARGETS)


if __name__ == "__main__":
    main(sys.argv[1:])
