"""A zoo of versions through real trials: each must end as it should, at the first stage that can tell, for that reason.

A tiny model, taught with chosen manners, served by vLLM behind the router to simulated users; the bench is its trainer.
First with two pools, then with one (`switchback`). Prints a table of each and one JSON line.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("zoo")))

import bench
import transformers
from beasts import BEASTS, STABLE, Beast
from breeds import Taught, base, bred, everywhere
from house import MODEL, House, has_ended
from rich.console import Console
from rich.progress import track
from rich.table import Table
from talk import Topic
from visitors import Visitors

from ingest.records.events import Release, TrialState

NUM_VISITORS = 12
NUM_BEFORE = 900
"""Sessions before the first trial: a fifth of them is held out, for replays."""
TRIAL_S = 600.0
SETTLE_S, SETTLE_BLOCKS_S = 3.0, 11.0
"""A block counts once its sessions are closed, also those that nobody closes: after `ingest.inactivity_s`."""
GUARDRAILS = ("completed", "brevity", "refusals", "questions")
"""No `latency`: two engines on two shared cores are not alike, and a version is slow by what it says."""
GUARDED, GUARDED_BLOCKS = 0.1, 0.3
"""Margins of guardrails. One that never moves, at 1, convinces by log(1 + margin / 4) a unit, be that a session or a
block: with 0.1 the first trial needs 141 of them, which as sessions come in seconds, and as blocks in seven minutes."""
COMMON: dict[str, Any] = {
    "suites": {"files": [str(Path(__file__).with_name("zoo") / "suite.yaml")]},
    "replay": {"max_prompts": 150, "concurrency": 4, "max_tokens": 96},
}
GATE: dict[str, Any] = {
    "margin": 0.1,
    "min_champion_units": 100,
    "settle_s": SETTLE_S,
    "max_s": TRIAL_S,
    "guardrails": [{"name": name, "margin": GUARDED} for name in GUARDRAILS],
}
SPLIT: dict[str, Any] = COMMON | {
    "placement": "split",
    "gate": GATE | {"ramp": [{"share": 0.2, "until_units": 60}, {"share": 0.5}]},
    "watch": {"share": 0.3, "min_units": 60, "max_units": 3000},
}
SWITCHBACK: dict[str, Any] = COMMON | {
    "placement": "switchback",
    "switchback": {"block_s": 2.0, "whole_margin": 0.2},
    "gate": GATE
    | {
        "settle_s": SETTLE_BLOCKS_S,
        "ramp": [{"share": 0.2, "until_units": 5}, {"share": 0.5}],
        "guardrails": [{"name": name, "margin": GUARDED_BLOCKS} for name in GUARDRAILS],
    },
    "watch": {"share": 0.3, "min_units": 10, "max_units": 400},
}
SIDES = {"split": SPLIT, "switchback": SWITCHBACK}
TARGETS = {
    "split_right": (">=", 1.0),
    "switchback_right": (">=", 1.0),
    "same_verdicts": (">=", 1.0),
    "requests_failed": ("<=", 0.0),
}

Versions = Sequence[tuple[Beast, Path]]


@dataclass(frozen=True)
class Fate:
    """How one trial went."""

    beast: Beast
    ended: TrialState | None
    stage: TrialState | None
    reason: str
    sessions: int
    took_s: float

    @property
    def is_right(self) -> bool:
        return (self.ended, self.stage) == (
            self.beast.ends,
            self.beast.stage,
        ) and any(word in self.reason for word in self.beast.words)

    @property
    def told(self) -> str:
        """In a line."""
        mark, how = "right" if self.is_right else "WRONG", f"{self.ended} at {self.stage}"
        return f"{mark}: {self.beast.name}: {how}, {self.sessions} sessions, {self.took_s:.0f} s: {self.reason}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="versions whose name has one of these in it, with commas between them")
    parser.add_argument("--placement", choices=tuple(SIDES), help="one of the two")
    parser.add_argument("--folder", type=Path, help="where houses stand, and are left; without it nothing is left")
    args = parser.parse_args()
    parts = args.only.split(",") if args.only else [""]
    chosen = [beast for beast in BEASTS if any(part in beast.name for part in parts)]
    transformers.utils.logging.disable_progress_bar()
    parent = base()
    stable = bred(Taught(everywhere(STABLE)), parent)
    versions = [
        (beast, bred(beast.recipe, parent if beast.is_of_base else stable)) for beast in track(chosen, "breeding")
    ]
    figures: dict[str, float | None] = {}
    found, failed = dict[str, list[Fate]](), 0
    with tempfile.TemporaryDirectory() as scratch:
        for side in SIDES:
            if args.placement in (None, side):
                fates, num_failed = visit((args.folder or Path(scratch)) / side, stable, SIDES[side], versions)
                show(side, fates)
                found[side] = fates
                figures[f"{side}_right"] = sum(fate.is_right for fate in fates) / len(fates)
                failed += num_failed
    if len(found) == len(SIDES):
        figures["same_verdicts"] = same(*found.values())
    figures["requests_failed"] = float(failed)
    bench.report("zoo", figures, {name: target for name, target in TARGETS.items() if name in figures})


def same(one: list[Fate], other: list[Fate]) -> float:
    """The share of versions that ended alike, and at the same stage."""
    pairs = zip(one, other, strict=True)
    return sum((a.ended, a.stage) == (b.ended, b.stage) for a, b in pairs) / len(one)


def visit(folder: Path, model: Path, rollout: dict[str, Any], versions: Versions) -> tuple[list[Fate], int]:
    """Every beast's trial, one after the other; and how many requests of users failed."""
    folder.mkdir(parents=True)
    house, fates = House(folder, model, rollout), list[Fate]()
    house.start()
    try:
        with visitors(house) as people:
            house.until(lambda: people.sessions >= NUM_BEFORE, 1800.0, f"{NUM_BEFORE} sessions before the first trial")
            for beast, bred_in in versions:
                fates.append(judge(house, people, beast, bred_in))
                print(fates[-1].told, flush=True)
        return fates, len(people.failed)
    finally:
        house.stop()


@contextmanager
def visitors(house: House) -> Iterator[Visitors]:
    """Users, for the length of a block."""
    people = Visitors(house.url, MODEL, NUM_VISITORS)
    thread = threading.Thread(target=lambda: asyncio.run(people.run()), daemon=True)
    thread.start()
    try:
        yield people
    finally:
        people.over = True
        thread.join(120.0)


def judge(house: House, people: Visitors, beast: Beast, folder: Path) -> Fate:
    """One trial, to its end; a version that was promoted is taken back for the next."""
    version = house.publish(folder, 0).version
    begun, sessions = time.monotonic(), people.sessions
    story: list[Release] = []
    while not has_ended(story, beast.ends) and time.monotonic() - begun < 2 * TRIAL_S:
        time.sleep(0.5)
        story = house.story(version)
        if beast.turns_bad and story and story[-1].state is TrialState.PROMOTED:
            people.topics = (Topic.TAXES,)
    people.topics = (Topic.WEATHER, Topic.TRAINS)
    if house.served().stable == version:
        house.command("rollback")
    return fate(beast, story, people.sessions - sessions, time.monotonic() - begun)


def fate(beast: Beast, story: list[Release], sessions: int, took_s: float) -> Fate:
    """What the trial's releases say of it."""
    last = story[-1] if story else None
    before = next((release.state for release in reversed(story[:-1])), None)
    return Fate(beast, last.state if last else None, before, last.reason if last else "", sessions, took_s)


def show(title: str, fates: list[Fate]) -> None:
    table = Table("version", "must end", "ended", "at stage", "sessions", "s", "", "reason", title=title)
    for fate in fates:
        mark = "[green]right[/]" if fate.is_right else "[red]wrong[/]"
        must = f"{fate.beast.ends} at {fate.beast.stage}"
        row = (fate.beast.name, must, str(fate.ended), str(fate.stage), str(fate.sessions), f"{fate.took_s:.0f}")
        table.add_row(*row, mark, fate.reason)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
