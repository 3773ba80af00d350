"""What grows: with sessions in a trial, with entries of the release log, with files, with engines.

Processor time, in milliseconds or seconds for the whole of it, at two sizes or more; the records are those that the
controller, the trainer and the lake write, made for the purpose.
"""

import math
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from infra.config import GateConfig, load
from ingest.lake.manifest import DataFile, Snapshot, decode_checkpoint, encode_checkpoint
from ingest.log.memory import InMemoryLog
from ingest.log.reader import replay, send
from ingest.log.topics import RELEASES, VERSIONS
from ingest.records.events import Arm, Release, ReleaseKind, TrialState, Version
from ingest.store import releases
from ingest.store.versions import VersionStore
from serving.rollout.evidence import Baseline, Evidence, Unit, judge, keep, level, read
from serving.rollout.evidence.tally import Sessions

UNITS = (100, 1_000, 10_000, 20_000)
ENTRIES = (1_000, 100_000)
ENGINES, CANDIDATES, TRIALS_A_YEAR = 1_000, 100, 5 * 365
FILES = (1_000, 10_000, 100_000)
WEIGHTS_MB = 256
Figures = dict[str, float]


def cpu_s(run: Callable[[], object], times: int = 1) -> float:
    """The least of some runs."""
    taken = []
    for _ in range(times):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return min(taken)


# -- a trial


def outcomes(num: int) -> list[Unit]:
    """Sessions of a trial at even shares, a user each."""
    rng = random.Random(num)
    return [
        Unit(
            session_id=f"session-{n:08d}",
            root=f"{n:016x}-{n:032x}",
            revision=1,
            scored_at=float(n),
            is_pure=True,
            arm=Arm.CANDIDATE if rng.random() < 0.5 else Arm.STABLE,
            propensity=0.5,
            reward=float(rng.random() < 0.6),
            names=("completed", "scored", "substance"),
            values=(1.0, 1.0, float(rng.random() < 0.98)),
            tenant=f"tenant-{n % 7}",
            user=f"u-{n:016x}",
            began_at=float(n),
        )
        for n in range(num)
    ]


def trials() -> Figures:
    """`judge` runs each tick of the controller, `keep` every 30 s, `read` at its start."""
    found, config = Figures(), GateConfig()
    baselines = {
        name: Baseline(mean, 0.2) for name, mean in (("reward", 0.6), ("completed", 0.99), ("substance", 0.98))
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "evidence.json"
        for num in UNITS:
            held = Evidence()
            held.trials[1] = Sessions(outcomes(num))
            held.trial(1, baselines, config)
            found[f"judge_ms_{num}"] = 1e3 * cpu_s(
                lambda held=held: judge(held.trial(1, baselines, config), trial=1, promotions=0), 2
            )
            found[f"evidence_keep_ms_{num}"] = 1e3 * cpu_s(lambda held=held: keep(held, path), 2)
            found[f"evidence_read_ms_{num}"] = 1e3 * cpu_s(lambda: read(path))
        found["evidence_bytes_per_unit"] = path.stat().st_size / UNITS[-1]
    found["judge_ratio"] = found["judge_ms_20000"] / found["judge_ms_1000"]
    found["log_needed_first"] = -math.log(level(config.alpha, 1, 0))
    for name, promoted in (("half_won", TRIALS_A_YEAR // 2), ("none_won", 0)):
        found[f"log_needed_after_a_year_{name}"] = -math.log(level(config.alpha, TRIALS_A_YEAR, promoted))
    return found


# -- the logs that are kept for ever


def history(num_trials: int, num_engines: int, num_candidates: int, at_once: int) -> Iterator[Release]:
    """What the controller writes for some trials, two of three promoted, with loads announced `at_once`."""
    engines = [f"onstream-engine-{n}" for n in range(num_engines)]
    mine, number, stable = engines[:num_candidates], 0, 0

    def entry(kind: ReleaseKind, **fields: object) -> Release:
        nonlocal number
        number += 1
        given: dict[str, object] = {"stable": stable, "reason": "one sentence that an operator can read", "at": 1.7e9}
        return Release.model_validate({"release": number, "epoch": 1, "kind": kind} | given | fields)

    def announced(names: list[str], version: int) -> Iterator[Release]:
        for begin in range(0, len(names), at_once):
            some = dict.fromkeys(names[begin : begin + at_once], version)
            yield entry(ReleaseKind.ANNOUNCED, engines=some, numbers={"fetch_s": 2.512, "pause_s": 0.512})

    yield entry(ReleaseKind.BOOTSTRAP, engines=dict.fromkeys(engines, 0))
    numbers = {f"number.{n}": n / 7 for n in range(30)}
    for candidate in range(1, num_trials + 1):
        trial = {"candidate": candidate, "engines": dict.fromkeys(engines, stable) | dict.fromkeys(mine, candidate)}
        yield entry(ReleaseKind.TRIAL, state=TrialState.EVALUATING, **trial)
        yield from announced(mine, candidate)
        for share in (0.1, 0.5):
            yield entry(
                ReleaseKind.TRIAL, state=TrialState.CANARY, share=share, salt="5" * 64, numbers=numbers, **trial
            )
        is_won = candidate % 3 > 0
        late, stable = (engines[num_candidates:], candidate) if is_won else (mine, stable)
        state, trial["engines"] = (
            (TrialState.PROMOTED if is_won else TrialState.REJECTED),
            dict.fromkeys(engines, stable),
        )
        yield entry(ReleaseKind.TRIAL, state=state, numbers=numbers, **trial)
        yield from announced(late, stable)


def written(entries: Iterator[Release], num: int | None = None) -> InMemoryLog:
    log = InMemoryLog()
    for count, entry in enumerate(entries, 1):
        send(log, RELEASES, "", entry)
        if count == num:
            break
    return log


def bytes_of(log: InMemoryLog, topic: str) -> int:
    return sum(len(one.value) + sum(len(k) + len(v) for k, v in one.headers.items()) for one in log.replay(topic))


def release_log() -> Figures:
    """Reading it all, as every router, engine, trainer and controller does at its start."""
    found = Figures()
    for num in ENTRIES:
        log = written(history(num, 2, 1, 1), num)
        found[f"release_us_{num}"] = 1e6 * cpu_s(lambda log=log: releases.read(log)) / num
    found["release_ratio"] = found[f"release_us_{ENTRIES[1]}"] / found[f"release_us_{ENTRIES[0]}"]
    log = written(history(TRIALS_A_YEAR, ENGINES, CANDIDATES, ENGINES // 16))
    found["releases_of_a_year"] = float(log.ends(RELEASES.name)[0])
    found["releases_of_a_year_mb"] = bytes_of(log, RELEASES.name) / 1e6
    found["releases_of_a_year_read_s"] = cpu_s(lambda: releases.read(log))
    one_each = sum(1 for _ in history(30, ENGINES, CANDIDATES, 1)) / 30
    found["releases_of_a_year_one_by_one"] = one_each * TRIALS_A_YEAR
    return found


def trace_ids(num: int) -> list[str]:
    rng = random.Random(num)
    return [f"{rng.getrandbits(64):016x}-{rng.getrandbits(128):032x}" for _ in range(num)]


def version_log() -> Figures:
    """Manifests name the turns that trained them."""
    found = Figures()
    files = [{"name": f"model-{n:05d}-of-00008.safetensors", "bytes": 2 << 30, "sha256": "5" * 64} for n in range(8)]
    for turns in (256, 16_384):
        log = InMemoryLog()
        ids = trace_ids(turns)
        for number in range(20):
            manifest = {
                "version": number, "digest": f"{number:064x}", "parent": None, "parent_digest": None, "files": files,
                "lineage": {"trace_ids": ids, "spec": "s", "num_turns": turns}, "metrics": {}, "created_at": 0.0,
            }  # fmt: skip
            send(log, VERSIONS, "", Version.model_validate(manifest))
        found[f"version_us_{turns}"] = 1e6 / 20 * cpu_s(lambda log=log: list(replay(log, VERSIONS, Version)))
        found[f"version_bytes_{turns}"] = bytes_of(log, VERSIONS.name) / 20
    return found


# -- files of the lake, engines of the configuration


def lake() -> Figures:
    """A checkpoint names every file: written once in 32 commits, read by whoever opens the lake."""
    found = Figures()
    for num in FILES:
        paths = (
            f"turns/day=2026-{n % 12:02d}-{n % 28:02d}/tenant=t{n % 40}/{n:010d}-{n:032x}.parquet" for n in range(num)
        )
        snapshot = Snapshot(1, {path: DataFile(path, 20_000, 1 << 20, 1.7e9, 1.7e9) for path in paths})
        data = encode_checkpoint(snapshot)
        found[f"lake_checkpoint_write_ms_{num}"] = 1e3 * cpu_s(lambda snapshot=snapshot: encode_checkpoint(snapshot))
        found[f"lake_checkpoint_read_ms_{num}"] = 1e3 * cpu_s(lambda data=data: decode_checkpoint(data))
    found["lake_checkpoint_bytes_per_file"] = len(data) / FILES[-1]
    return found


def configuration() -> Figures:
    """What every process and every short command reads first."""
    found = Figures()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "onstream.yaml"
        for num in (2, ENGINES):
            slots = [
                {
                    "id": f"e{n}",
                    "arm": "stable" if n % 10 else "candidate",
                    "host": f"e{n}.svc",
                    "port": 1,
                    "control_port": 2,
                }
                for n in range(num)
            ]
            path.write_text(
                yaml.safe_dump(
                    {
                        "model": {"path": "."},
                        "serving": {"engines": [*slots, dict(slots[0], id="s", arm="stable", port=3, control_port=4)]},
                    }
                )
            )
            found[f"config_s_{num}"] = cpu_s(lambda: load(path, {}), 2)
    return found


# -- the trainer's memory of what has its fate, and a version's bytes


def fated() -> Figures:
    """What the trainer remembers of a trace, of the last that had their fate."""
    tracemalloc.start()
    known = set(trace_ids(100_000))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"fated_bytes_per_trace": held / len(known)}


def store() -> Figures:
    """Seconds of a processor for a GB of weights: publishing a version, and what an engine does before its pause."""
    import torch
    from safetensors.torch import save_file

    from serving.engine.cache import check_finite

    with TemporaryDirectory() as given:
        folder, versions = Path(given), VersionStore(f"{given}/store")
        (folder / "weights").mkdir()
        save_file({"w": torch.zeros(WEIGHTS_MB * 500_000, dtype=torch.bfloat16)}, folder / "weights" / "w.safetensors")
        made: list[Version] = []
        seconds = {"publish": cpu_s(lambda: made.append(versions.publish(0, folder / "weights", None, {}, {}, 0.0)))}
        seconds["fetch"] = cpu_s(lambda: versions.fetch(made[0], folder / "cache"))
        (copy,) = (folder / "cache").iterdir()
        seconds["finite"] = cpu_s(lambda: check_finite(copy, 0))
    return {f"{name}_s_per_gb": spent * 1000 / WEIGHTS_MB for name, spent in seconds.items()}


PARTS = (trials, release_log, version_log, lake, configuration, fated, store)


def measure(advance: Callable[[], None]) -> Figures:
    found = Figures()
    for part in PARTS:
        found |= part()
        advance()
    return found
