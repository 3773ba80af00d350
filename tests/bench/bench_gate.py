"""What the gate promises, held against simulated trials: a look after every session, thousands of trials a row.

    levels   a version worse by the margin is promoted at most so often: what is promised is 5 %
    power    better versions: how often, and after how many sessions, beside what others do
    stream   a hundred candidates, half or nine in ten of them bad: the share of promotions that were bad
    blocks   arms that take turns on one pool: a version worse by the margin, and better ones
    watch    a promoted version that is worse than the one before
    cost     what one more session costs, with 100 in the trial and with 100,000

On a sample of the trials of each row the product's own `Process` or `Tally` goes through them session by session, and
has to decide at the same session.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("gate")))
sys.path.insert(0, str(Path(__file__).parents[2]))

import bench
import numpy as np
import product
import rules
import stream
import turns
import worlds
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rules import NEVER, Whens
from worlds import LATEST, MARGIN, Trials, World

from infra.config import GateConfig

TRIALS, TIGHT, CHUNK, CHECKED = 2_000, 8_000, 125, 4  # of the chunks, one trial each is held against the product
HORIZON = 5_139  # (1.645 + 1.282)^2 0.96 / 0.04^2: a test of 5 % with a power of 90 % at +2 points
WATCHED = 2_000
PLACES = {"50": World(0.0), "10": World(0.0, share=0.1), "ramp": World(0.0, share=None, has_drift=True)}
Found = dict[str, Whens]
Rule = Callable[[Trials, int], Found]


def in_order(trials: Trials, num_checked: int) -> Found:
    """The gate, and its evidence alone, with nothing rejected for harm."""
    good, harm = decided(trials, num_checked)
    return {"gate": np.where(harm < good, NEVER, good), "evidence": good}


def decided(trials: Trials, num_checked: int) -> tuple[Whens, Whens]:
    """When evidence is convincing, and when harm is."""
    good, harm = rules.mixture(trials), rules.mixture(trials, for_harm=True)
    for row in range(num_checked):
        assert product.by_process(trials, row) == good[row], f"trial {row}: the product decides at another session"
        assert product.by_process(trials, row, True) == harm[row], f"trial {row}: the product finds harm elsewhere"
    return good, harm


def capped(trials: Trials, num_checked: int) -> Found:
    """With the cap on a user's sessions, with a wider one, and without."""
    assert trials.user is not None
    most = GateConfig().max_units_per_user
    counts = rules.capped(trials.user, most)
    good, harm = rules.mixture(trials, counts), rules.mixture(trials, counts, for_harm=True)
    for row in range(num_checked):
        assert product.by_tally(trials, row, most) == good[row], f"trial {row}: the product decides at another session"
    return {
        "gate": np.where(harm < good, NEVER, good),
        "evidence": good,
        "two_each": rules.mixture(trials, rules.capped(trials.user, 2)),
        "without": rules.mixture(trials),
    }


def late(trials: Trials, num_checked: int) -> Found:
    """Waiting until outcomes are known, and not."""
    found = {"gate": rules.as_known(trials, LATEST), "without": rules.as_known(trials, 0)}
    for row in range(num_checked):
        for name, settle in (("gate", LATEST), ("without", 0)):
            at = product.by_revisions(trials, row, settle)
            assert at == found[name][row], f"trial {row}: the product decides at another session"
    return found


def compared(trials: Trials, num_checked: int) -> Found:
    """The gate with its rule against harm, and what others do."""
    good, harm = decided(trials, num_checked)
    return {"gate": np.where(harm < good, NEVER, good), **rules.others(trials, HORIZON)}


def watched(trials: Trials, num_checked: int) -> Found:
    """The alarm of a watch, with a tenth of the sessions held back."""
    found = rules.mixture(trials, for_harm=True)
    for row in range(num_checked):
        assert product.by_process(trials, row, True) == found[row], f"trial {row}: the product alarms elsewhere"
    return {"alarm": found}


def rows() -> dict[str, tuple[World, Rule]]:
    found: dict[str, tuple[World, Rule]] = {}
    for kind, is_binary in (("binary", True), ("continuous", False)):
        bad = World(-MARGIN, is_binary=is_binary)
        for name, place in PLACES.items():
            found[f"level.{kind}.{name}"] = replace(place, effect=-MARGIN, is_binary=is_binary), in_order
        found[f"level.{kind}.heavy"] = replace(bad, has_heavy_users=True), capped
        found[f"level.{kind}.late"] = replace(bad, is_late=True), late
    for name, place in PLACES.items():
        for points in (-2, 2, 5):
            found[f"power.{name}.{points:+d}"] = replace(place, effect=points / 100), compared
    for points in (0, -5, -10, -20):
        found[f"watch.{points:+d}"] = World(points / 100, share=0.9, num=WATCHED), watched
    return found


def num_trials(row: str) -> int:
    """Continuous rewards leave little between what is promised and what happens: more trials tell them apart."""
    world, rule = rows()[row]
    return TRIALS if world.is_binary or rule is not in_order else TIGHT


def chunk(row: str, number: int) -> tuple[str, Found, int]:
    """Some trials of a row, and how many of them the product agreed about."""
    world, rule = rows()[row]
    rng, num_checked = np.random.default_rng([number, *row.encode()]), int(number < CHECKED)
    return row, rule(worlds.draw(world, CHUNK, rng), num_checked), num_checked


def simulate(progress: Progress) -> tuple[dict[str, Found], int]:
    """All rows, by rule; and on how many trials the product was held against them."""
    asked = [(row, number) for row in rows() for number in range(num_trials(row) // CHUNK)]
    bar, parts, num_checked = progress.add_task("trials", total=len(asked)), {}, 0
    with ProcessPoolExecutor() as pool:
        for row, found, checked in pool.map(chunk, *zip(*asked, strict=True)):
            num_checked += checked
            for rule, whens in found.items():
                parts.setdefault(row, {}).setdefault(rule, []).append(whens)
            progress.advance(bar)
    return {row: {rule: np.concatenate(of) for rule, of in found.items()} for row, found in parts.items()}, num_checked


def figures_of(found: dict[str, Found]) -> dict[str, float | None]:
    """Shares of trials that were promoted, and the median of sessions until then."""
    figures: dict[str, float | None] = {}
    for row, by_rule in found.items():
        for rule, whens in by_rule.items():
            name = row if rule in ("gate", "alarm") else f"{row}.{rule}"
            figures[name] = float((whens < NEVER).mean())
            if not row.startswith("level"):
                median = float(np.median(whens))
                figures[f"{name}.sessions"] = median if median < NEVER else None
    return figures


TARGETS: dict[str, tuple[str, float]] = {
    **{row: ("<=", 0.05) for row in rows() if row.startswith("level")},
    **dict.fromkeys(turns.LEVELS, ("<=", 0.05)),
    "power.50.+2.sessions": ("<=", 3_800),
    "watch.+0": ("<=", 0.05),
    "stream.half_bad": ("<=", 0.05),
    "stream.most_bad": ("<=", 0.05),
    "unit_us_ratio": ("<=", 1.2),
    "unit_us_in_blocks_ratio": ("<=", 1.2),
    "checked": (">=", CHECKED * len(rows())),
}


def main() -> None:
    with Progress() as progress:
        found, num_checked = simulate(progress)
        bar = progress.add_task("stream, blocks, cost", total=3)
        figures = figures_of(found) | stream.measure(TRIALS)
        progress.advance(bar)
        with ProcessPoolExecutor() as pool:
            figures |= turns.measure(pool)
        progress.advance(bar)
        figures |= product.cost()
        progress.advance(bar)
    compare(figures)
    bench.report("gate", figures | {"checked": float(num_checked)}, TARGETS)


def compare(figures: dict[str, float | None]) -> None:
    """Sides beside each other: promoted, and after how many sessions in the median."""
    sides = {"gate": "", "z-test, peeked": ".z", "asymptotic sequence": ".acs", f"z-test, at {HORIZON:,}": ".fixed"}
    table = Table("share and effect, points", *sides, title="promoted / median sessions")
    for row in (name for name in rows() if name.startswith("power")):
        told = []
        for side in sides.values():
            share, sessions = figures[row + side], figures[f"{row}{side}.sessions"]
            told.append(f"{share:.3f} / {sessions:,.0f}" if sessions is not None else f"{share:.3f} / -")
        table.add_row(row.removeprefix("power."), *told)
    Console().print(table)


if __name__ == "__main__":
    main()
