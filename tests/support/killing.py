"""The story of `killed`, played with kills and without, and what came of it."""

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import killed
import psutil

from infra.storage import Folder
from ingest.log import topics
from ingest.log.reader import replay
from ingest.records.events import Fate, FateKind
from ingest.store.versions import VersionStore
from trainer.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
DRIVER, WORKER = "driver", "worker"


@dataclass(frozen=True)
class Kill:
    """After `num_lines` more lines of the trainer's output and `delay_s`."""

    who: str
    num_lines: int
    delay_s: float


def play(folder: Path, workers: int, kills: Sequence[Kill] = (), make: random.Random | None = None) -> tuple[int, int]:
    """The story to its end. Returns how many lines the trainers said, and how many of them were started."""
    left, num_lines, starts = list(kills), 0, 0
    while True:
        starts += 1
        command = [sys.executable, killed.__file__, str(folder), str(workers)]
        path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}"}
        with (folder / "err").open("ab") as err:
            trainer = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=err, text=True, env={**os.environ, **path}
            )
        offspring: list[psutil.Process] = []
        try:
            num, is_ended = _listen(trainer, left, offspring, make or random.Random(0))
        finally:
            _end(trainer, offspring)
        num_lines += num
        if is_ended:
            return num_lines, starts
        assert starts <= len(kills) + 1, f"the trainer ended by itself: {(folder / 'err').read_text()[-2000:]}"


def _listen(
    trainer: "subprocess.Popen[str]", left: list[Kill], offspring: list[psutil.Process], make: random.Random
) -> tuple[int, bool]:
    assert trainer.stdout is not None
    num, kill = 0, left[0] if left else None
    for line in trainer.stdout:
        num += 1
        if not offspring:
            offspring += psutil.Process(trainer.pid).children(recursive=True)
        if line == "end\n":
            return num, True
        if kill is not None and num == kill.num_lines:
            time.sleep(kill.delay_s)
            left.pop(0)
            kill_now(trainer, kill.who, offspring, make)
            kill = None
    return num, False


def kill_now(trainer: Any, who: str, offspring: Sequence[psutil.Process], make: random.Random) -> None:
    if who == DRIVER:
        trainer.kill()
        return
    make.choice([one for one in offspring if one.is_running() and "LearnerActor" in one.name()]).kill()


def _end(trainer: "subprocess.Popen[str]", offspring: Sequence[psutil.Process]) -> None:
    """Ray's servers end with their driver; its two agents take a minute, which the next trainer need not wait."""
    trainer.kill()
    trainer.wait()
    assert trainer.stdout is not None
    trainer.stdout.close()
    for one in offspring:
        if one.is_running():
            one.kill()
    psutil.wait_procs(list(offspring), timeout=30)


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be the same whatever was killed: versions to the byte, learner to the byte, fates."""
    store, log = VersionStore(str(folder / "store")), killed.DiskLog(folder / "log")
    checkpoints = Checkpoints(folder / "trainer")
    state = checkpoints.read()
    assert state is not None and state.learner is not None
    kept = Folder(checkpoints.learner(state.learner))
    fates = defaultdict(set)
    for fate in replay(log, topics.FATES, Fate):
        for trace_id in fate.trace_ids:
            fates[trace_id].add((fate.kind, fate.version))
    manifests = [store.read(number) for number in store.versions()]
    return {
        "versions": [(one.version, one.parent, one.digest, one.lineage.get("trace_ids")) for one in manifests],
        "learner": {name: kept.read(name) for name in kept.names()},
        "fates": {trace_id: sorted(found) for trace_id, found in sorted(fates.items())},
    }


def trained_once(found: dict[str, Any]) -> bool:
    """Every turn has one fate, which is to have trained."""
    kinds = [[kind for kind, _ in fates] for fates in found["fates"].values()]
    return kinds == [[FateKind.TRAINED]] * killed.NUM_SESSIONS
