"""How long a bad version is served once somebody, or something, has seen that it is bad.

A whole system on this machine, with two engines of the demo's model. A version is promoted on sessions that are written
to the log; eight users have long replies streamed to them by it; then it is taken back, in rounds, in two ways:

    command   the watch is over and both engines serve the version; an operator posts a rollback
    alarm     the version is watched; sessions that show harm are written to the log, and nobody does anything

A token is of the version that its trace says. The clock starts when the command is posted, or before the first of the
harmful sessions is written, and stops when the last token of the bad version reaches its user.

    python tests/bench/bench_rollback.py [--rounds 3] [--tiny]
"""

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
import tiny_model
from system import MODEL, TOKEN, System

from ingest.log import reader, topics
from ingest.records.events import (
    Arm,
    Assignment,
    CloseReason,
    Reward,
    Trace,
    Trajectory,
    TrialState,
    Turn,
    TurnKind,
    about,
    session_key,
)
from ingest.store import releases
from ingest.store.releases import Served
from serving import headers
from serving.router.routing import Health, assign

NUM_STREAMS, REPLY_TOKENS, LIVE_TOKENS = 8, 200, 8
TRAINER = {"batch_turns": 4096, "minibatch_turns": 8}  # nothing is learnt here
TARGETS = {
    "command_bad_s_max": ("<=", 2.0),
    "alarm_bad_s_max": ("<=", 2.0),
    "failed_requests": ("<=", 0.0),
    "streams_on_bad_version_min": (">=", float(NUM_STREAMS)),
}


# -- sessions that are written, as the stages before the gate would


class Sessions:
    """Rewards of sessions that nobody had."""

    def __init__(self, system: System) -> None:
        self._log, self._numbers = system.log("bench"), itertools.count()

    def send(self, sessions: Iterable[tuple[Assignment, int, float]]) -> None:
        """By each its assignment, the version that served it, and its value."""
        for one in sessions:
            reader.send(self._log, topics.REWARDS, *self._reward(*one))
        self._log.flush(10.0)

    def _reward(self, assignment: Assignment, version: int, value: float) -> tuple[str, Reward]:
        name = f"made-{next(self._numbers)}"
        key, now = session_key(name), time.time()
        turn = Turn(
            trace_id=f"{key}-0", kind=TurnKind.MAIN, context="", reply="", followup=None, finish_reason="stop",
            status=200, num_tokens=1, versions=(version,), at=now,
        )  # fmt: skip
        trajectory = Trajectory(
            trajectory_id=name, session_id=name, tenant="t", assignment=assignment, held_out=True,
            closed=CloseReason.INACTIVE, opened_at=now, closed_at=now, turns=(turn,), chains=(), feedback=(),
        )  # fmt: skip
        return key, Reward(
            reward_id=name, trajectory_id=name, session_id=name, spec="bench", components=(), turns=(), value=value,
            has_signal=True, guardrails={"completed": 1.0}, trajectory=trajectory, **about(trajectory), at=now,
        )  # fmt: skip

    def split(self, trial: int, other: Arm, share: float, served: dict[Arm, tuple[int, float]], num: int) -> None:
        """`num` sessions of a trial or a watch, in the order in which a coin would share them out; by arm a version,
        and a value."""

        def assigned(n: int) -> tuple[Assignment, int, float]:
            is_other = int((n + 1) * share) > int(n * share)
            arm, pi = (other, share) if is_other else (Arm.STABLE, 1.0 - share)
            return Assignment(arm=arm, trial=trial, propensity=pi), *served[arm]

        self.send(map(assigned, range(num)))


# -- users


@dataclass
class Stream:
    """A long reply: when each of its tokens came, on the monotonic clock."""

    session: str
    trace_id: str = ""
    token_at: list[float] = field(default_factory=list)
    failed: str = ""

    def run(self, url: str) -> None:
        body = {
            "model": MODEL, "messages": [{"role": "user", "content": f"Tell {self.session} a long story."}],
            "max_tokens": REPLY_TOKENS, "ignore_eos": True, "stream": True, "return_token_ids": True,
        }  # fmt: skip
        try:
            with httpx.stream(
                "POST", f"{url}/v1/chat/completions", json=body, headers={headers.SESSION: self.session}, timeout=300.0
            ) as answer:
                answer.raise_for_status()
                self.trace_id = answer.headers[headers.TRACE]
                self._read(answer)
        except (httpx.HTTPError, AssertionError) as exc:
            self.failed = f"{type(exc).__name__}: {exc}"

    def _read(self, answer: httpx.Response) -> None:
        last = ""
        for line in answer.iter_lines():
            last = line or last
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    self.token_at += [time.monotonic()] * len(choice.get("token_ids") or ())
        assert last == "data: [DONE]", f"the stream ended with {last!r}"
        assert len(self.token_at) == REPLY_TOKENS, f"{len(self.token_at)} tokens came"

    def gap_s(self, since: float) -> float:
        """The longest wait for a token from then on."""
        times = [at for at in self.token_at if at >= since - 1.0]
        return max((later - at for at, later in itertools.pairwise(times)), default=0.0)


@dataclass(frozen=True)
class Taken:
    """A round: seconds until the last token of the bad version, and what users felt."""

    bad_s: float
    gap_s: float
    num_bad: int
    failed: int
    heard_s: float


class Bench:
    """The system, brought to where a version can be taken back, and taken back."""

    def __init__(self, system: System) -> None:
        self.system, self.sessions = system, Sessions(system)
        self._names = itertools.count()

    def served(self) -> Served:
        log = self.system.log("bench-reader")
        try:
            return releases.read(log)
        finally:
            log.close()

    def until(self, is_so: Any, what: str) -> Served:
        def look() -> Served | None:
            served = self.served()
            return served if is_so(served) else None

        found: Served = self.system.until(look, 180.0, what)
        return found

    def promote(self) -> Served:
        """A new version, on trial and past it, watched."""
        stable = self.served().stable
        assert stable is not None
        version = self.system.publish_shifted(0.001, parent=stable).version
        self.sessions.send((Assignment(), stable, float(n % 2)) for n in range(8))
        canary = self.until(lambda s: s.candidate == version and s.state is TrialState.CANARY, "a canary")
        arms = {Arm.CANDIDATE: (version, 1.0), Arm.STABLE: (stable, 0.0)}
        self.sessions.split(version, Arm.CANDIDATE, canary.share, arms, 40)
        served = self.until(lambda s: s.stable == version, "a promotion")
        self._settled(served)
        return served

    def end_watch(self, served: Served) -> Served:
        assert served.stable is not None and served.holdback is not None
        arms = {Arm.HOLDBACK: (served.holdback, 1.0), Arm.STABLE: (served.stable, 1.0)}
        self.sessions.split(served.stable, Arm.HOLDBACK, served.share, arms, 90)
        over = self.until(lambda s: s.stable == served.stable and s.holdback is None, "the watch's end")
        self._settled(over)
        return over

    def _settled(self, served: Served) -> None:
        def is_so() -> bool:
            return {name: self.system.version_of(name) for name in self.system.slots} == dict(served.engines)

        self.system.until(is_so, 120.0, "every engine serves its version")
        time.sleep(1.0)  # routers follow

    def by_command(self, served: Served) -> None:
        own = self.system.config.serving.rollout
        answer = httpx.post(
            f"http://{own.host}:{own.port}/command",
            json={"do": "rollback", "author": "bench", "reason": "it is bad"},
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=30.0,
        )
        answer.raise_for_status()

    def by_alarm(self, served: Served) -> None:
        assert served.stable is not None and served.holdback is not None
        arms = {Arm.HOLDBACK: (served.holdback, 1.0), Arm.STABLE: (served.stable, 0.0)}
        self.sessions.split(served.stable, Arm.HOLDBACK, served.share, arms, 60)

    def take_back(self, served: Served, how: Any) -> Taken:
        """Eight streams by the version, and then it is taken back."""
        bad = served.stable
        streams = [Stream(name) for name in itertools.islice(self._of_stable(served), NUM_STREAMS)]
        threads = [threading.Thread(target=one.run, args=(self.system.url,), daemon=True) for one in streams]
        for thread in threads:
            thread.start()
        self.system.until(
            lambda: all(len(one.token_at) >= LIVE_TOKENS or one.failed for one in streams), 120.0, "eight live streams"
        )
        begun = time.monotonic()
        how(served)
        heard = time.monotonic()
        for thread in threads:
            thread.join(300.0)
        spans = self._bad_tokens([one.trace_id for one in streams if not one.failed], bad)
        last = [one.token_at[spans[one.trace_id] - 1] for one in streams if spans.get(one.trace_id)]
        self._settled(self.until(lambda s: s.stable != bad, "the rollback"))
        return Taken(
            max(last, default=begun) - begun,
            max(one.gap_s(begun) for one in streams),
            len(last),
            sum(bool(one.failed) for one in streams),
            heard - begun,
        )

    def _of_stable(self, served: Served) -> Any:
        """Names of sessions that are not held back."""
        engines = tuple(self.system.slots)
        for n in self._names:
            name = f"listener-{n}"
            if assign(name, served, engines, Health()).arm is Arm.STABLE:
                yield name

    def _bad_tokens(self, trace_ids: list[str], bad: int | None) -> dict[str, int]:
        """By trace, how many tokens there were when the bad version had sampled its last; none: no entry."""

        def look() -> dict[str, Trace] | None:
            found = {one.trace_id: one for one in self.system.records(topics.TRACES) if one.trace_id in trace_ids}
            return found if len(found) == len(trace_ids) else None

        traces: dict[str, Trace] = self.system.until(look, 60.0, "the streams' traces")
        ends = {name: [span.end for span in trace.spans if span.version == bad] for name, trace in traces.items()}
        return {name: max(found) for name, found in ends.items() if found}


def measure(folder: Path, model: Path, rounds: int) -> dict[str, float]:
    system = System(folder, model, TRAINER)
    rolled: dict[str, list[Taken]] = {"command": [], "alarm": []}
    try:
        system.start()
        held = Bench(system)
        for _ in range(rounds):
            rolled["command"].append(held.take_back(held.end_watch(held.promote()), held.by_command))
            print(f"command: {rolled['command'][-1]}", flush=True)
            rolled["alarm"].append(held.take_back(held.promote(), held.by_alarm))
            print(f"alarm: {rolled['alarm'][-1]}", flush=True)
    finally:
        system.stop()
    figures: dict[str, float] = {}
    for how, taken in rolled.items():
        times = sorted(one.bad_s for one in taken)
        figures |= {f"{how}_bad_s_max": times[-1], f"{how}_bad_s_median": times[len(times) // 2]}
        figures |= {f"{how}_gap_s_max": max(one.gap_s for one in taken)}
    everything = [one for taken in rolled.values() for one in taken]
    return figures | {
        "command_answered_s_max": max(one.heard_s for one in rolled["command"]),
        "failed_requests": float(sum(one.failed for one in everything)),
        "streams_on_bad_version_min": float(min(one.num_bad for one in everything)),
        "rounds": float(rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a random model of two layers: to see that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch) / "run", bench.ROOT / ".onstream" / "model"
        folder.mkdir()
        if args.tiny:
            model = Path(scratch) / "model"
            tiny_model.write(model)
        bench.report("rollback", measure(folder, model, args.rounds), TARGETS)


if __name__ == "__main__":
    main()
