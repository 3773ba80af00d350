"""The curves as pictures: light, and readable without colour."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from runs import BATCH, LANE_GROUP, LANE_SHARE, Curve, Side
from worlds import RIGHT, V

matplotlib.use("Agg")
from matplotlib import pyplot

WINDOW = 8  # batches that a point is the mean of
LOOKS: Mapping[Side, tuple[str, str, str]] = {
    Side.OURS: ("o", "-", "#1b4f8a"),
    Side.GROUPS: ("s", "--", "#7a7a7a"),
    Side.BATCH_MEAN: ("^", "-.", "#b35900"),
    Side.RAW: ("x", ":", "#8a1b3d"),
    Side.LANE: ("D", "-", "#2e7d4f"),
}


def learning(sides: Mapping[Side, Sequence[Curve]], path: Path) -> None:
    """Reward by trajectories, what the end is made of, and the lane by what it generates."""
    figure, (by_trajectories, by_rate, lane) = pyplot.subplots(1, 3, figsize=(14, 4.3))
    for side in (Side.OURS, Side.GROUPS, Side.BATCH_MEAN, Side.RAW):
        _curve(by_trajectories, side, sides[side], 1.0)
    by_trajectories.set_title("one response per prompt\n(oracle: eight, and an eighth of the prompts)")
    _by_rate(by_rate, sides)
    more = 1.0 + LANE_SHARE * (LANE_GROUP - 1)
    _curve(lane, Side.OURS, sides[Side.OURS], 1.0)
    _curve(lane, Side.LANE, sides[Side.LANE], 1.0, ", by production's")
    _curve(lane, Side.LANE, sides[Side.LANE], more, ", by all sampled", line="--")
    lane.set_title("the replay lane")
    for axis in (by_trajectories, lane):
        axis.set_xlabel("trajectories, thousands")
        axis.set_ylabel("chance to be right")
        axis.legend(fontsize=8)
    _save(figure, path)


def _curve(axis: Any, side: Side, curves: Sequence[Curve], stretch: float, told: str = "", line: str = "") -> None:
    """The mean over seeds, and between which seeds' curves it lies."""
    marker, own_line, colour = LOOKS[side]
    smooth = np.array([np.convolve(curve.rewards, np.ones(WINDOW) / WINDOW, "valid") for curve in curves])
    x = (np.arange(smooth.shape[1]) + WINDOW) * BATCH * stretch / 1000
    axis.plot(x, smooth.mean(0), line or own_line, color=colour, marker=marker, markevery=8, ms=5, label=side + told)
    axis.fill_between(x, smooth.min(0), smooth.max(0), color=colour, alpha=0.08, linewidth=0)


def _by_rate(axis: Any, sides: Mapping[Side, Sequence[Curve]]) -> None:
    rates = sorted(set(RIGHT), reverse=True)
    for side in (Side.OURS, Side.GROUPS, Side.BATCH_MEAN, Side.RAW):
        marker, line, colour = LOOKS[side]
        ends = [
            fmean(end for c in sides[side] for end, right in zip(c.by_task, RIGHT, strict=True) if right == rate)
            for rate in rates
        ]
        axis.plot(range(len(rates)), ends, line, marker=marker, color=colour, label=side)
    axis.step(range(len(rates)), [rate / V for rate in rates], where="mid", color="0.6", linewidth=1, label="at first")
    axis.set_xticks(range(len(rates)), [f"{rate / V:.0%}\n{RIGHT.count(rate)} tasks" for rate in rates])
    axis.set_title("at the end, by how often a task\nwas done right at first")
    axis.set_ylim(0, 1.03)
    axis.legend(fontsize=8)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def staleness(ends: Mapping[tuple[str, float, int], Sequence[float]], path: Path) -> None:
    """The reward at the end by versions behind, a panel for each learning rate; bars from seed to seed."""
    rates, lags = (sorted({key[place] for key in ends}) for place in (1, 2))
    figure, axes = pyplot.subplots(1, len(rates), figsize=(10, 4), sharey=True)
    looks = (("x", ":", "#8a1b3d"), ("o", "-", "#1b4f8a"), ("s", "--", "#7a7a7a"))
    for axis, rate in zip(axes, rates, strict=True):
        for shift, (arm, (marker, line, colour)) in enumerate(
            zip(dict.fromkeys(key[0] for key in ends), looks, strict=True)
        ):
            values = np.array([ends[arm, rate, lag] for lag in lags])
            mean, x = values.mean(1), np.arange(len(lags)) + 0.06 * (shift - 1)
            bars = np.stack([mean - values.min(1), values.max(1) - mean])
            axis.errorbar(x, mean, bars, fmt=marker + line, color=colour, label=arm, capsize=2, linewidth=1.5)
        axis.set_xticks(range(len(lags)), [str(lag) for lag in lags])
        axis.set_xlabel("versions behind")
        axis.set_title(f"learning rate {rate:g}")
    axes[0].set_ylabel("chance to be right, at the end")
    axes[0].legend(fontsize=8)
    _save(figure, path)
