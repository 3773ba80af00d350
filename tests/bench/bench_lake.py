"""The lake with a million turns: what a turn costs on disk, how fast it is written, and how soon it can be asked.

Synthetic sessions of realistic length (`lake_traffic.py`), a month of them, go the way of the stage: records become
rows, rows become commits. Their bytes stand against the same turns as JSON lines, as `onstream traces export` writes
them, and against the records as the log has them, packed. The first page of `traces list` is timed as a whole process,
from its start to its end, and without that. `TURNS=50000 make bench NAME=lake` is a short one.
"""

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
import yaml
from lake_traffic import Played, Traffic
from rich.progress import Progress

from ingest.lake import compaction, export, listing
from ingest.lake.batch import Batch
from ingest.lake.content import NoSeal, Vault
from ingest.lake.filters import Filters
from ingest.lake.manifest import Change, Table
from ingest.lake.reading import Reading
from ingest.lake.rows import rows_of
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.records import codec
from ingest.records.events import Record

TURNS = int(os.environ.get("TURNS", "1000000"))
DAYS = 30
BATCH_ROWS = 20_000  # `ingest.lake.max_rows`
SAMPLE = 2_000  # sessions whose bytes are measured
ASKED = 9
TARGETS = {"first_page_process_s": ("<=", 1.0), "bytes_ratio": ("<=", 0.35)}


def records(played: Played) -> Iterator[Record]:
    yield played.trajectory
    yield played.reward
    yield from played.fates
    yield from played.feedback


class Filling:
    """A lake on its way to a million turns, and how long its parts took."""

    def __init__(self, lake: Lake, vault: Vault) -> None:
        self.lake, self.vault = lake, vault
        self.turns = self.rows = self.commits = self.sessions = 0
        self.making_s = self.committing_s = 0.0
        self._batch = Batch()

    def take(self, sessions: list[Played]) -> None:
        """Rows of some sessions; commits when there are enough."""
        begun = time.monotonic()
        for offset, played in enumerate(sessions, start=self.sessions):
            for record in records(played):
                self._batch.add(tuple(rows_of(record, 0, offset, self.vault)))
            self.turns += len(played.trajectory.turns)
        self.sessions += len(sessions)
        self.making_s += time.monotonic() - begun
        if self._batch.num_rows >= BATCH_ROWS:
            self.commit()

    def commit(self) -> None:
        begun, batch = time.monotonic(), self._batch
        assert self.lake.commit(Change(batch.write(self.lake)))
        self.committing_s += time.monotonic() - begun
        self.rows, self.commits, self._batch = self.rows + batch.num_rows, self.commits + 1, Batch()


def fill(filling: Filling, traffic: Traffic, progress: Progress) -> None:
    task, stream = progress.add_task("writing turns", total=TURNS), traffic.sessions(TURNS)
    while filling.turns < TURNS:
        gc.disable()  # making traffic is no part of what is measured
        sessions = list(islice(stream, 500))
        gc.enable()
        filling.take(sessions)
        progress.update(task, completed=filling.turns)
    filling.commit()


def join_all(lake: Lake, progress: Progress) -> tuple[float, int]:
    """Seconds that joining all small files took, and how many files there were before."""
    begun, before = time.monotonic(), len(lake.refresh().files)
    jobs = compaction.plan(lake.refresh().files.values(), time.time() + 3 * 86_400.0)
    for job in progress.track(jobs, description="joining files"):
        assert compaction.join(lake, job)
    return time.monotonic() - begun, before


def sizes(lake: Lake, reading: Reading, filling: Filling) -> dict[str, float]:
    """Bytes per turn: of the turns' files, of the same turns as exported, and of records as the log has them."""
    files = reading.files(Table.TURNS)
    stored = sum(file.num_bytes for file in files) / sum(file.num_rows for file in files)
    lines = [len(line) + 1 for line in islice(export.turns(reading, Filters(), lambda _num: None), 4 * SAMPLE)]
    sample = list(Traffic(seed=1).sessions(SAMPLE))
    packed = sum(len(codec.encode(played.trajectory)[0]) for played in sample)
    everything = sum(file.num_bytes for file in lake.refresh().files.values())
    exported = statistics.fmean(lines)
    on_log = packed / sum(len(played.trajectory.turns) for played in sample)
    return {
        "bytes_per_turn": stored,
        "json_bytes_per_turn": exported,
        "bytes_ratio": stored / exported,
        "log_bytes_per_turn": on_log,
        "log_bytes_ratio": stored / on_log,
        "all_tables_bytes_per_turn": everything / filling.turns,
    }


def ask_process(folder: Path, url: str, *flags: str) -> tuple[float, float]:
    """Median seconds of a whole `onstream traces list`, and of its processor time."""
    config = folder / "onstream.yaml"
    given = {"run_dir": str(folder), "model": {"path": str(folder)}, "ingest": {"lake": {"url": url}}}
    config.write_text(yaml.safe_dump(given))
    program = "import sys; from ingest.lake.command import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "list", "--config", str(config), *flags]
    walls, processors = [], []
    for _ in range(ASKED):
        before, begun = os.times(), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=bench.ROOT)
        walls.append(time.perf_counter() - begun)
        after = os.times()
        processors.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert "20 turns, newest first" in done.stdout, done.stdout
    return statistics.median(walls), statistics.median(processors)


def ask_here(lake: Lake, vault: Vault, filters: Filters) -> float:
    """Median seconds of a first page, the commits read anew each time."""
    taken = []
    for _ in range(ASKED):
        begun = time.perf_counter()
        page = listing.page(Reading(Lake(lake.storage), vault), filters, 20)
        taken.append(time.perf_counter() - begun)
        assert page.turns.height == 20
    return statistics.median(taken)


def measure(folder: Path) -> dict[str, float]:
    lake, vault = Lake(Storage(str(folder / "lake"))), Vault(NoSeal())
    filling, begun = Filling(lake, vault), time.monotonic()
    gap_s = DAYS * 86_400.0 / (TURNS / 4)
    with Progress() as progress:
        fill(filling, Traffic(begin=time.time() - DAYS * 86_400.0, gap_s=gap_s, tenants=3), progress)
        unjoined = ask_here(lake, vault, Filters())
        joining_s, num_before = join_all(lake, progress)
    figures = {
        "turns": filling.turns,
        "rows": filling.rows,
        "commits": filling.commits,
        "commit_rows_per_s": filling.rows / filling.committing_s,
        "with_making_rows_per_s": filling.rows / (filling.committing_s + filling.making_s),
        "files_before_joining": num_before,
        "files_after_joining": len(lake.refresh().files),
        "joining_s": joining_s,
        "first_page_before_joining_s": unjoined,
    }
    with Progress() as progress:
        figures |= asked(folder, lake, vault, filling, progress)
    return figures | sizes(lake, Reading(lake, vault), filling) | {"seconds": time.monotonic() - begun}


def asked(folder: Path, lake: Lake, vault: Vault, filling: Filling, progress: Progress) -> dict[str, float]:
    """How long answers take."""
    task = progress.add_task("asking", total=4)
    process_s, processor_s = ask_process(folder, str(folder / "lake"))
    progress.advance(task)
    older = Filters(min_reward=0.9, version=max(0, filling.sessions // 500 - 10))
    found = {"first_page_process_s": process_s, "first_page_process_cpu_s": processor_s}
    for name, filters in {"first": Filters(), "filtered": older, "text": Filters(text="changelog")}.items():
        found[f"{name}_page_s"] = ask_here(lake, vault, filters)
        progress.advance(task)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    bench.report("lake", {name: round(value, 4) for name, value in figures.items()}, TARGETS)


if __name__ == "__main__":
    main()
