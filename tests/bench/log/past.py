"""What the trainer and the controller have behind them after so many sessions, and where each of them stood.

The release log and the versions are whole, in the product's own words: the controller's moves write them, a version for
each thousand sessions, trained by 950 turns, which is the least traffic of `docs/scale.md`, where versions are the most
for a session. The last one is on trial, and the next is in the making.
"""

import hashlib
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from growth import outcomes
from rollouts import Hand

from infra.config import Config
from infra.lifecycle import Pulse
from ingest.log import topics
from ingest.log.connect import connect
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import EventLog
from ingest.log.reader import send
from ingest.records.events import FateKind, FileEntry, Release, ReleaseKind, TrialState, Version
from ingest.store.versions import MANIFEST
from serving.rollout import evidence
from serving.rollout.evidence import Baseline, Evidence
from serving.rollout.evidence.tally import Sessions
from serving.rollout.fleet import Fleet
from serving.rollout.moves import Moves
from serving.rollout.reading import Reading
from serving.rollout.remembering import remember
from serving.rollout.writing import Writer
from trainer.advantages.baselines import Baselines, Node
from trainer.checkpoint import Checkpoints
from trainer.settings import learning_settings
from trainer.state import MAX_FATED, CandidateVersion, Making, Offsets, Standing, State, Used

TURNS_A_SESSION, SESSIONS_A_VERSION, TURNS_A_VERSION = 5, 1_000, 950
NUM_WAITING = 8_100  # a day's turns that nobody scored, of 2,000 sessions
ON_TRIAL, CHAMPION = 1_000, 500
_EMPTY = hashlib.sha256(b"").hexdigest()
BASELINES = {"reward": Baseline(0.6, 0.24), "completed": Baseline(0.99, 0.01), "substance": Baseline(0.98, 0.02)}


def make(config: Config, num_sessions: int) -> int:
    """On the log and in the run's folder. Returns how many releases that is."""
    log = connect(config, client_id="bench")
    log.create(topics.specs(config.log.partitions, config.log.retention_s))
    fill(log, num_sessions)
    life = lived(config, num_sessions)
    copy(life.log, log)
    ends = log.ends(topics.REWARDS.name)
    write_store(config, life.manifests)
    write_kept(config, life, ends)
    write_checkpoint(config, num_sessions, life, ends)
    log.close()
    return life.log.ends(topics.RELEASES.name)[0]


def fill(log: EventLog, num: int) -> None:
    """A reward for each session, so that positions lie behind as many. They hold nothing: nobody reads them again."""
    for number in range(num):
        log.append(topics.REWARDS.name, str(number % 97), b"gone", {})
        if number % 20_000 == 0:
            log.flush(60.0)


# -- the logs that are kept for ever


@dataclass
class Life:
    """A controller's life on a log in memory: two of three versions win."""

    config: Config
    log: InMemoryLog = field(default_factory=InMemoryLog)
    manifests: list[Version] = field(default_factory=list)
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.log.create(topics.specs(1, self.config.log.retention_s))
        own = self.config.serving.rollout
        hands = {slot.id: Hand(slot) for slot in self.config.serving.engines}
        first = {"stable": 0, "engines": dict.fromkeys(hands, 0), "reason": "version 0 is the base model", "at": 0.0}
        send(self.log, topics.RELEASES, "", Release(release=0, epoch=0, kind=ReleaseKind.BOOTSTRAP, **first))
        self.writer = Writer(self.log, Reading(self.log, {}), time.time)
        self.fleet = Fleet(hands, self.writer, {}, Pulse(), lambda: False)  # type: ignore[arg-type]
        self.moves = Moves(self.writer, self.fleet, own)
        self.numbers = evidence.judge(_evidence(1, 0).trial(1, BASELINES, own.gate), trial=1, promotions=0).numbers
        self.publish(None)
        self.writer.claim(0.0)

    def publish(self, parent: int | None) -> int:
        number = len(self.manifests)
        ids = _trace_ids(self.draw, TURNS_A_VERSION) if parent is not None else []
        manifest = Version(
            version=number,
            digest=f"{number:064x}",
            parent=parent,
            parent_digest=None if parent is None else f"{parent:064x}",
            files=(FileEntry(name="model.safetensors", bytes=0, sha256=_EMPTY),),
            lineage={"trace_ids": ids, "spec": "default@1", "settings": learning_settings(self.config.trainer)},
            metrics=dict(self.numbers),
            created_at=time.time(),
        )
        send(self.log, topics.VERSIONS, "", manifest)
        self.manifests.append(manifest)
        return number

    def try_next(self) -> int:
        """Up to its users."""
        number, moves = self.publish(self.writer.stable), self.moves
        moves.begin(number)
        self._load()
        moves.check(TrialState.SUITES, f"version {number} answers on every candidate engine", {})
        moves.check(TrialState.REPLAY, f"version {number} passed its suites: 12 of 12", self.numbers)
        moves.to_canary(0.1, f"{number:064x}", BASELINES, f"version {number} gets 10% of sessions; its replay passed")
        moves.ramp(0.5, self.writer.served.engines, f"version {number} gets 50% of sessions", self.numbers)
        return number

    def decide(self, number: int) -> None:
        if number % 3:
            self.moves.promote("better than its champion by every measure", self.numbers, BASELINES)
            self._load()
            self.moves.end_watch(f"the watch over version {number} is over: nothing speaks against it", self.numbers)
        else:
            self.moves.end(TrialState.REJECTED, f"version {number} is worse by more than the margin", self.numbers)
        self._load()

    def _load(self) -> None:
        self.fleet.reconcile(self.writer.served.engines, is_urgent=False)


def lived(config: Config, num_sessions: int) -> Life:
    """Up to a trial that goes on."""
    life = Life(config)
    while (number := life.try_next()) < num_sessions // SESSIONS_A_VERSION:
        life.decide(number)
    return life


def copy(log: InMemoryLog, into: EventLog) -> None:
    for topic in (topics.VERSIONS, topics.RELEASES):
        for message in log.replay(topic.name):
            into.append(topic.name, message.key, message.value, message.headers)
    into.flush(60.0)


# -- files


def write_store(config: Config, manifests: list[Version]) -> None:
    """All manifests, and of weights an empty file: they do not grow with sessions."""
    for manifest in manifests:
        folder = Path(config.store.url) / manifest.folder
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        (folder / manifest.files[0].name).touch()


def write_kept(config: Config, life: Life, ends: dict[int, int]) -> None:
    """What the controller keeps."""
    candidate, known, folder = len(life.manifests) - 1, life.writer.known, Path(config.run_dir) / "rollout"
    assert known is not None
    found = _evidence(candidate, life.writer.stable)
    found.positions = ends
    evidence.keep(found, folder / "evidence.json")
    remember(folder / "releases.json", known, versions_from=candidate)


def _evidence(candidate: int, stable: int) -> Evidence:
    found = Evidence()
    units = outcomes(ON_TRIAL)
    for version in range(max(0, stable - 4), stable + 1):
        found.champion[version] = {one.session_id: one for one in units[:CHAMPION]}
    found.trials[candidate] = Sessions(units)
    return found


def write_checkpoint(config: Config, num_sessions: int, life: Life, ends: dict[int, int]) -> None:
    """A candidate is on trial and the next version in the making; what is known of the release log is from before that
    trial. Stable's weights come out of the store, as after a rollback."""
    own, draw, now = config.trainer, life.draw, time.time()
    offsets: Offsets = {topics.REWARDS.name: ends}
    stable, candidate = life.writer.stable, len(life.manifests) - 1
    nodes = sorted(
        Node(("outcome", "main", "default", f"{draw.getrandbits(64):016x}", f"{n:016x}"), draw.random(), 12.5, 0.01)
        for n in range(own.baselines.max_keys)
    )
    baselines = Baselines(nodes=tuple(nodes))
    seen = {"default": tuple(f"{draw.getrandbits(64):016x}" for _ in range(own.near_duplicate_window))}

    def used(num: int) -> tuple[Used, ...]:
        return (Used(trace_ids=tuple(_trace_ids(draw, num)), kind=FateKind.TRAINED, rewarded_at=now),)

    def standing(learner: str | None) -> Standing:
        return Standing(learner=learner, baselines=baselines, seen=seen, offsets=offsets)

    trained = used(TURNS_A_VERSION)
    manifest = life.manifests[candidate]
    state = State(
        step=num_sessions * TURNS_A_SESSION // own.batch_turns,
        base=stable,
        loaded=stable,
        baselines=baselines,
        seen=seen,
        offsets=offsets,
        began={topics.REWARDS.name: dict.fromkeys(ends, 0)},
        making=Making(
            begun_at=now, used=used(own.batch_turns), num_traces=own.batch_turns, num_updates=1,
            num_turns=own.batch_turns, metrics=dict(life.numbers),
        ),
        candidate=CandidateVersion(
            version=candidate, parent=stable, trace_ids=trained[0].trace_ids, spec="default@1",
            metrics=manifest.metrics, at=now, standing=standing("on-trial"), used=trained, is_published=True,
            settings=learning_settings(own),
        ),
        fallback=standing(None),
        fated=tuple(_trace_ids(draw, min(MAX_FATED, num_sessions * TURNS_A_SESSION))),
        waiting=dict.fromkeys(_trace_ids(draw, NUM_WAITING), now),
        known=life.writer.known,
    )  # fmt: skip
    Checkpoints(own.checkpoint_dir).commit(state, lambda _: None)


def _trace_ids(draw: random.Random, num: int) -> list[str]:
    return [f"{draw.getrandbits(64):016x}-{draw.getrandbits(128):032x}" for _ in range(num)]
