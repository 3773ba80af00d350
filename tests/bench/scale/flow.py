"""What a trace costs from stage to stage: processor time in one process, on the log in memory, sealed as shipped.

Drawn sessions of five turns, a user each, go the whole way by the stages' own code: capture and spool, shipper, ingest,
rewards, lake, the trainer's screening and batch. What a broker's client, a network and a GPU cost is not in it.
"""

import gc
import json
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from drawn import Drawn, sessions, tokenizer

from infra import lifecycle
from infra.config import Config
from infra.lifecycle import Stop
from ingest.lake.content import Vault
from ingest.lake.sealing import Keys
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.lake.writer import Writer
from ingest.log import fates, topics
from ingest.log.index import Index
from ingest.log.memory import InMemoryLog
from ingest.log.reader import replay
from ingest.privacy import secret
from ingest.privacy.intake import Intake
from ingest.privacy.keys import KeyStore
from ingest.privacy.redact import Redactor
from ingest.privacy.sealed_log import SealedLog
from ingest.records.events import (
    Assignment,
    Consent,
    Fate,
    FateKind,
    Feedback,
    Sampling,
    Trajectory,
    TurnKind,
    VersionSpan,
    key_of,
    session_key,
)
from ingest.sessions import assemble
from ingest.sessions.table import ids_in, settle_s
from rewards.spec import load
from rewards.stage import Stage
from serving.engine.capture import Capture, Exchange, Reply
from serving.engine.recent import Recent
from serving.engine.vocabulary import Vocabulary
from serving.headers import Identity
from serving.spool import Shipper, Spool
from trainer.advantages.baselines import Baselines
from trainer.advantages.batch import make_batch
from trainer.advantages.repeats import Asked, Seen, num_alike
from trainer.inbox import Inbox

NUM_SESSIONS, NUM_TURNS, ROUNDS = 400, 5, 3
AGE_S = 7200.0
Figures = dict[str, float]


class Times:
    """Processor time by name, in microseconds for a unit."""

    def __init__(self) -> None:
        self.us: Figures = {}

    @contextmanager
    def of(self, name: str, num: int) -> Iterator[None]:
        begun = time.process_time()
        yield
        self.us[f"{name}_us"] = (time.process_time() - begun) / num * 1e6


class Nobody:
    """Answers no batch scorer: these sessions have no summary to ask about."""

    def ask(self, questions: Iterable[Any]) -> None:
        assert not list(questions)

    def answers(self) -> Iterator[Any]:
        return iter(())

    def drop(self, _: Any) -> None:
        pass


def measure(advance: Callable[[], None]) -> Figures:
    """Medians over rounds, each with a log, a spool, keys and a lake of its own."""
    drawn = list(sessions(NUM_SESSIONS, NUM_TURNS, time.time() - AGE_S, 3600.0))
    rounds = []
    lifecycle.collect_rarely()
    for _ in range(ROUNDS):
        rounds.append(once(drawn))
        advance()
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]} | batches()


def once(drawn: list[Drawn]) -> Figures:
    with TemporaryDirectory() as folder:
        config = Config.model_validate({"run_dir": folder, "model": {"path": "."}})
        keys, inner = KeyStore.of(config), InMemoryLog()
        inner.create(topics.specs(config.log.partitions, config.log.retention_s))
        log, times = SealedLog(inner, keys), Times()
        num_traces = capture(config, keys, log, drawn, times)
        assembled(config, log, times, num_traces)
        scored(config, log, times)
        in_lake(config, log, keys, times, num_traces)
        trained(log, times)
        return times.us | held(log) | weighed(inner, Path(config.ingest.lake.url), num_traces)


def capture(config: Config, keys: KeyStore, log: SealedLog, drawn: list[Drawn], times: Times) -> int:
    """From what an engine gave to a frame in the spool, and from there to the log; feedback as the router takes it."""
    own, intake = (
        config.serving.capture,
        Intake(Redactor.of(config.privacy), secret.load(config.privacy, config.run_dir), keys),
    )
    spool = Spool(Path(own.spool_dir), own.max_spool_bytes, own.segment_bytes)
    recent, pieces = Recent(own.recent_bytes, config.ingest.inactivity_s), Vocabulary(tokenizer())
    capturing = Capture(spool, "stable-0", 3, recent, intake, pieces)
    pairs = [(exchange(turn), turn) for session in drawn for turn in session["turns"]]
    data_keys = {one.identity.user: intake.key_for(one.identity.user, "default") for one, _ in pairs}
    for one, _ in pairs[: len(pairs) // 10]:  # what spells a token is looked up once in a process
        for reply in one.replies.values():
            pieces(reply.prompt_token_ids)
            pieces(reply.token_ids)
    with times.of("capture", len(pairs)):
        for one, _ in pairs:
            capturing.finish(one, data_keys[one.identity.user])
    given = [Feedback.model_validate(item) for session in drawn for item in session["feedback"]]
    with times.of("feedback", len(given)):
        for item in given:
            value, headers = intake.close_feedback(intake.redact_feedback(item))
            key = key_of(session_id=item.session_id, trace_id=item.trace_id)
            spool.put(topics.FEEDBACK.name, key, value, headers)
    with times.of("ship", len(pairs) + len(given)):
        assert Shipper(spool, lambda: log, Stop()).ship() == len(pairs) + len(given)
    spool.close()
    assert spool.num_dropped == 0
    return len(pairs)


def exchange(turn: Drawn) -> Exchange:
    """A request and its reply, as they stand when the last token is there."""
    user = f"u-{session_key(turn['session_id'])}"
    identity = Identity(
        turn["trace_id"], turn["session_id"], "default", TurnKind.MAIN, Assignment(), Consent.ASSUMED, user
    )
    reply = Reply(turn["prompt_token_ids"], Sampling(**turn["sampling"]), 3)
    reply.token_ids, reply.logprobs, reply.text = list(turn["token_ids"]), list(turn["logprobs"]), [turn["reply_text"]]
    reply.spans, reply.finish_reason = (VersionSpan(version=3, start=0, end=len(reply.token_ids)),), "stop"
    body = bytearray(json.dumps(turn["request"]).encode())
    return Exchange(identity, turn["endpoint"], turn["started_at"], body, 200, replies={("r", 0): reply})


def assembled(config: Config, log: SealedLog, times: Times, num_traces: int) -> None:
    """Traces to trajectories; and the index of them made anew, as after the loss of its disk."""
    skipped = [0.0]
    stage = assemble.Assembler(log, config, lambda: time.time() + skipped[0])
    with times.of("ingest", num_traces):
        while sum(log.ends(topics.TRAJECTORIES.name).values()) < NUM_SESSIONS:
            if not stage.poll(0.0):
                skipped[0] = config.ingest.inactivity_s + settle_s(config.ingest)
            stage._next_tick = 0.0
            stage.step(0.0)
    stage.close()
    anew = Index(
        Path(config.log.index_dir) / "anew.sqlite", log, topics.TRAJECTORIES, Trajectory, ids_in, lambda t: t.closed_at
    )
    with times.of("index_anew_per_session", NUM_SESSIONS):
        assert anew.catch_up(range(config.log.partitions)) == NUM_SESSIONS
    anew.close()


def scored(config: Config, log: SealedLog, times: Times) -> None:
    stage = Stage(log, config, load(""), Nobody())
    with times.of("rewards_per_session", NUM_SESSIONS):
        while sum(log.ends(topics.REWARDS.name).values()) < NUM_SESSIONS:
            stage.step(0.0)
    stage.close()


def in_lake(config: Config, log: SealedLog, keys: KeyStore, times: Times, num_traces: int) -> None:
    writer = Writer(log, Lake(Storage(config.ingest.lake.url)), Vault(Keys(keys)), config)
    with times.of("lake", num_traces):
        idle = 0
        while idle < 3:  # the first polls find out what is assigned
            idle = 0 if writer.read(0.0) else idle + 1
        writer.flush()
    writer.close()


def trained(log: SealedLog, times: Times) -> None:
    """The trainer's part without its learner: screening, fates, and a batch of all that may train."""
    inbox = Inbox(log, {}, ())
    num_turns = NUM_SESSIONS * NUM_TURNS
    with times.of("trainer_screen", num_turns):
        while len(inbox.items) < NUM_SESSIONS:
            inbox.poll(0.0)
    config = Config.model_validate({"model": {"path": "."}}).trainer
    with times.of("trainer_batch", inbox.num_eligible):
        make_batch(inbox.items, Baselines(), config, 0)
    names = [name for item in inbox.items for name in item.turns]
    with times.of("trainer_fate", len(names)):
        fates.tell(
            log, [Fate(trace_ids=(n,), kind=FateKind.TRAINED, version=4, reason="trained", at=0.0) for n in names]
        )
    inbox.close()


def held(log: SealedLog) -> Figures:
    """What the trainer's inbox holds of a turn in memory, and how many tokens a session has, to train and to read."""
    inbox = Inbox(log, {}, ())
    tracemalloc.start()
    while len(inbox.items) < NUM_SESSIONS:
        inbox.poll(0.0)
    gc.collect()
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    inbox.close()
    read = replay(log, topics.TRAJECTORIES, Trajectory)
    chains = [chain for trajectory in read for chain in trajectory.chains]
    return {
        "inbox_bytes_per_turn": num_bytes / (NUM_SESSIONS * NUM_TURNS),
        "trainable_share": inbox.num_eligible / (NUM_SESSIONS * NUM_TURNS),
        "tokens_per_session": sum(len(chain.token_ids) for chain in chains) / NUM_SESSIONS,
        "trained_tokens_per_session": sum(s.end - s.start for chain in chains for s in chain.segments) / NUM_SESSIONS,
    }


def weighed(log: InMemoryLog, lake: Path, num_traces: int) -> Figures:
    """Bytes of a trace: on the log, all topics, as given to the producer; and in the lake."""
    on_log = sum(
        len(one.key) + len(one.value) + sum(len(k) + len(v) for k, v in one.headers.items())
        for topic in topics.ALL
        for one in log.replay(topic.name)
    )
    in_files = sum(path.stat().st_size for path in lake.rglob("*.parquet"))
    return {"log_bytes": on_log / num_traces, "lake_bytes": in_files / num_traces}


def batches() -> Figures:
    """How a batch's cost grows with its turns: near duplicates are looked for among all of a tenant's."""
    rng, found = random.Random(0), Figures()
    for num in (256, 4096, 16_384):
        asked = [Asked("t", f"{rng.getrandbits(64):016x}") for _ in range(num)]
        begun = time.process_time()
        num_alike(asked, Seen(), 0.75)
        found[f"near_duplicates_ms_{num}"] = (time.process_time() - begun) * 1e3
    return found
