"""Reward by trajectories, with one response per prompt: our advantages beside what others do, and beside true groups.

A tiny Llama that knows nothing, our `Learner` and `make_batch`, and users of `learning/worlds.py`: twelve tasks, some
nearly always done right and some rarely, one thumb in five the wrong way round. Sides differ in their advantages alone:

    ours             keyed persistent baseline, shrunk to its parents, forgotten as the policy moves; whitened
    raw REINFORCE    the thumb
    batch mean       the thumb, whitened over the batch
    oracle groups    every prompt answered eight times, an eighth as many prompts: production has no such thing
    ours + lane      a quarter of the prompts answered three times more, by the replay lane; more is generated

Each side has the learning rate that is best for it on other seeds. Reward is the policy's chance to be right, without
the luck of the draw; a curve's end is the mean of its last batches. Which of the rare answers are ever found is luck
too, and moves the end by 0.05 from seed to seed, so it takes many seeds to see a rate or a side that is better by 0.02.
Intervals are of Student's t over seeds, paired: one seed has the same tasks, questions and first weights for all sides.

`--plot FILE` also draws the curves.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
from runs import BATCH, LANE_GROUP, LANE_SHARE, LAST, Curve, Run, Side, go_all
from spread import interval

from infra.config import TrajectoryWeight

SEEDS, LEAST_SEEDS, WEIGHT_SEEDS, SEARCH_SEEDS, BATCHES = 64, 5, 16, 8, 100
RATES = (1e-3, 1.4e-3, 2e-3, 2.8e-3, 4e-3, 5.6e-3)
RIVALS = (Side.OURS, Side.RAW, Side.BATCH_MEAN, Side.GROUPS)
NAMES = {
    Side.OURS: "ours",
    Side.RAW: "raw",
    Side.BATCH_MEAN: "batch_mean",
    Side.GROUPS: "groups",
    Side.LANE: "lane",
}
TARGETS = {
    "seeds": (">=", LEAST_SEEDS),
    "gain_of_groups": (">=", 0.9),
    "over_raw_low": (">", 0.0),
    "over_batch_mean_low": (">", 0.0),
}
Tell = Callable[[Curve], None]
Found = Mapping[Side, Sequence[Curve]]
Ends = Mapping[tuple[Side, float], float]


def search(tell: Tell) -> Ends:
    """The reward at the end by side and learning rate, on seeds that nothing is reported on."""
    seeds = range(100, 100 + SEARCH_SEEDS)
    given = [Run(side, seed, rate, BATCHES) for side in RIVALS for rate in RATES for seed in seeds]
    curves = go_all(given, tell)
    return {
        (side, rate): fmean(curve.end for curve in curves if (curve.run.side, curve.run.lr) == (side, rate))
        for side in RIVALS
        for rate in RATES
    }


def best(ends: Ends) -> dict[Side, float]:
    """Each side's learning rate."""
    return {side: max(RATES, key=lambda rate: ends[side, rate]) for side in RIVALS}


def show(ends: Ends) -> None:
    """What the search found."""
    table = Table("learning rate", *RIVALS, title="search: reward at the end")
    for rate in RATES:
        table.add_row(f"{rate:g}", *(f"{ends[side, rate]:.3f}" for side in RIVALS))
    Console().print(table)


def runs(rates: Mapping[Side, float], seeds: int) -> list[Run]:
    """What is compared: the sides, and ours by what a trajectory counts. The lane has our learning rate."""
    lrs = {**rates, Side.LANE: rates[Side.OURS]}
    given = [Run(side, seed, lrs[side], BATCHES) for side in Side for seed in range(seeds)]
    weights = [weight for weight in TrajectoryWeight if weight is not Run.weight]
    few = range(min(seeds, WEIGHT_SEEDS))
    return given + [Run(Side.OURS, seed, lrs[Side.OURS], BATCHES, weight=weight) for weight in weights for seed in few]


def compare(given: Sequence[Run], tell: Tell) -> tuple[Found, dict[str, list[Curve]]]:
    """Curves by side; and ours by what a trajectory counts, of as many seeds each."""
    curves = go_all(given, tell)
    sides = {side: [c for c in curves if c.run.side is side and c.run.weight is Run.weight] for side in Side}
    by_weight = {
        weight.value: [c for c in curves if c.run.side is Side.OURS and c.run.weight is weight][:WEIGHT_SEEDS]
        for weight in TrajectoryWeight
    }
    return sides, by_weight


def at(curve: Curve, batch: int) -> float:
    """The mean of as many batches up to there as an end is the mean of."""
    return fmean(curve.rewards[max(0, batch - LAST) : batch])


def reached(curve: Curve, reward: float) -> int:
    """The first batch up to which it is."""
    return next((n for n in range(LAST, len(curve.rewards)) if at(curve, n) >= reward), len(curve.rewards))


def figures(sides: Found, by_weight: Mapping[str, Sequence[Curve]], rates: Mapping[Side, float]) -> dict[str, float]:
    ours = sides[Side.OURS]
    found: dict[str, float] = {"seeds": len(ours), "trajectories": BATCH * BATCHES}
    found["reward_at_first"] = first = fmean(curve.rewards[0] for curve in ours)
    for side, curves in sides.items():
        ends = [curve.end for curve in curves]
        found |= {f"{NAMES[side]}_reward": fmean(ends), f"{NAMES[side]}_spread": stdev(ends)}
    found |= {f"{NAMES[side]}_lr": rate for side, rate in rates.items()}
    found["gain_of_groups"] = (found["ours_reward"] - first) / (found["groups_reward"] - first)
    for side in (Side.RAW, Side.BATCH_MEAN, Side.GROUPS):
        better = [own.end - other.end for own, other in zip(ours, sides[side], strict=True)]
        low, high = interval(better)
        found |= {
            f"over_{NAMES[side]}": fmean(better),
            f"over_{NAMES[side]}_low": low,
            f"over_{NAMES[side]}_high": high,
        }
    for side in (Side.RAW, Side.BATCH_MEAN):
        num = fmean(reached(own, other.end) for own, other in zip(ours, sides[side], strict=True))
        found[f"trajectories_for_{NAMES[side]}"] = num / BATCHES
    found |= {f"weight_{name}_reward": fmean(curve.end for curve in curves) for name, curves in by_weight.items()}
    return {name: round(value, 4) for name, value in (found | lane_figures(sides)).items()}


def lane_figures(sides: Found) -> dict[str, float]:
    """The lane's gain over ours with as many sessions of production, and with as many sampled all in all."""
    ours, lane = sides[Side.OURS], sides[Side.LANE]
    batches = round(BATCHES / (1.0 + LANE_SHARE * (LANE_GROUP - 1)))
    found = {}
    for name, batch in (("production", BATCHES), ("sampled", batches)):
        better = [at(one, batch) - own.end for own, one in zip(ours, lane, strict=True)]
        low, high = interval(better)
        found |= {f"lane_by_{name}": fmean(better), f"lane_by_{name}_low": low, f"lane_by_{name}_high": high}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench_learning", description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, help="write the curves to this PNG")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args, begun = parser.parse_args(), time.monotonic()
    if args.seeds < LEAST_SEEDS:
        parser.error(f"--seeds: at least {LEAST_SEEDS}, got {args.seeds}")
    num = len(RIVALS) * len(RATES) * SEARCH_SEEDS + len(runs(dict.fromkeys(RIVALS, 0.0), args.seeds))
    with Progress() as progress:
        task = progress.add_task("runs", total=num)

        def tell(curve: Curve) -> None:
            run = curve.run
            progress.console.print(f"{run.side} at {run.lr:g}, by {run.weight}, seed {run.seed}: {curve.end:.3f}")
            progress.advance(task)

        ends = search(tell)
        rates = best(ends)
        sides, by_weight = compare(runs(rates, args.seeds), tell)
    show(ends)
    if args.plot:
        drawing.learning(sides, args.plot)
    found = figures(sides, by_weight, rates)
    bench.report("learning", found | {"minutes": round((time.monotonic() - begun) / 60, 1)}, TARGETS)


if __name__ == "__main__":
    main()
