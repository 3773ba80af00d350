"""Reward by how old the policy was that sampled, with the correction for it and without.

The world, the learner and the advantages of `bench_learning.py`. A version is of four updates, and sessions are served
by the policy as it was 0 to 8 versions ago. What differs is what the loss knows of that:

    truncated     the shipped default: min(pi_old / mu, 2), pi_old being the policy as the update began, and a clip
                  around that
    uncorrected   the same, but log-probabilities are taken as the trainer has them when the update begins, and not as
                  they were logged: each token counts as if today's policy had sampled it
    clipped       `correction: bypass`: r = pi_theta / mu against the logged ones, clipped at papers' widths (PPO, with
                  the dual clip)

at a learning rate of those with which ours learns best in `bench_learning.py`, where nothing is stale, and at twice as
much, with which it learns less. Shares kept are asked for at the first; how far the correction is ahead of none, seed
by seed, is the mean of both. `--plot FILE` also draws it.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("learning")))
sys.path.insert(0, str(Path(__file__).parents[2]))

import bench
import drawing
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from runs import Curve, Run, Side, go_all
from spread import interval

from infra.config import Correction, LossConfig

LAGS, UPDATES, SEEDS, BATCHES = (0, 1, 2, 4, 8), 4, 12, 200
RATES = (2.8e-3, 5.6e-3)
CLIPPED = LossConfig(correction=Correction.BYPASS)
ARMS: Mapping[str, tuple[LossConfig, bool]] = {
    "uncorrected": (LossConfig(), True),
    "clipped": (CLIPPED, False),
    "truncated": (LossConfig(), False),
}
Cells = dict[tuple[str, float, int], list[Curve]]
TARGETS = {"kept_truncated": (">=", 0.8), "over_uncorrected_low": (">", 0.0), "kept_clipped": ("<", 0.8)}


def given(seeds: int) -> list[tuple[str, Run]]:
    return [
        (arm, Run(Side.OURS, seed, rate, BATCHES, lag=lag * UPDATES, loss=loss, is_recomputed=is_recomputed))
        for rate in RATES
        for lag in reversed(LAGS)
        for arm, (loss, is_recomputed) in ARMS.items()
        for seed in range(seeds)
    ]


def ends(cells: Cells, arm: str, rate: float, lag: int) -> list[float]:
    return [curve.end for curve in cells[arm, rate, lag]]


def kept(cells: Cells, arm: str, rate: float, lag: int) -> float:
    """What is left of the gain that the same loss has without staleness."""
    first = fmean(curve.rewards[0] for curve in cells[arm, rate, 0])
    return (fmean(ends(cells, arm, rate, lag)) - first) / (fmean(ends(cells, arm, rate, 0)) - first)


def ahead(cells: Cells) -> list[float]:
    """By seed, how far the correction is ahead of none at the most versions: the mean over rates."""
    pairs = [
        zip(*(ends(cells, arm, rate, LAGS[-1]) for arm in ("truncated", "uncorrected")), strict=True) for rate in RATES
    ]
    return [fmean(own - other for own, other in seed) for seed in zip(*pairs, strict=True)]


def figures(cells: Cells, seeds: int) -> dict[str, float]:
    """At the larger rate `_twice`, and at the smaller without a mark."""
    found: dict[str, float] = {"seeds": seeds, "versions": LAGS[-1], "updates": UPDATES}
    for mark, rate in zip(("", "_twice"), RATES, strict=True):
        for arm in ARMS:
            found[f"kept_{arm}{mark}"] = kept(cells, arm, rate, LAGS[-1])
            found[f"reward_{arm}{mark}"] = fmean(ends(cells, arm, rate, LAGS[-1]))
            found[f"fresh_{arm}{mark}"] = fmean(ends(cells, arm, rate, 0))
    better = ahead(cells)
    found["over_uncorrected"] = fmean(better)
    found["over_uncorrected_low"], found["over_uncorrected_high"] = interval(better)
    return {name: round(value, 4) for name, value in found.items()}


def show(cells: Cells) -> None:
    for rate in RATES:
        table = Table("versions behind", *ARMS, title=f"reward at the end, learning rate {rate:g} (spread over seeds)")
        for lag in LAGS:
            told = [ends(cells, arm, rate, lag) for arm in ARMS]
            table.add_row(str(lag), *(f"{fmean(values):.3f} ({stdev(values):.3f})" for values in told))
        Console().print(table)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench_staleness", description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, help="write the picture to this PNG")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="at least 2")
    args, begun = parser.parse_args(argv), time.monotonic()
    arms = given(args.seeds)
    with Progress() as progress:
        task = progress.add_task("runs", total=len(arms))

        def tell(curve: Curve) -> None:
            run = curve.run
            progress.console.print(f"{run.lr:g}, {run.lag} updates behind, seed {run.seed}: {curve.end:.3f}")
            progress.advance(task)

        curves = go_all([run for _, run in arms], tell)
    cells: Cells = {}
    for (arm, run), curve in zip(arms, curves, strict=True):
        cells.setdefault((arm, run.lr, run.lag // UPDATES), []).append(curve)
    show(cells)
    if args.plot:
        drawing.staleness({key: [curve.end for curve in found] for key, found in cells.items()}, args.plot)
    bench.report(
        "staleness", figures(cells, args.seeds) | {"minutes": round((time.monotonic() - begun) / 60, 1)}, TARGETS
    )


if __name__ == "__main__":
    main()
