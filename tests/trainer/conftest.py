"""A reward builder, releases, and a learner whose weights are the list of tokens it was trained on."""

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fuses import Fuse
from inboxes import items_of

from infra.config import Config, TrainerConfig
from infra.lifecycle import Stop
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import replay, send
from ingest.records.codec import decode
from ingest.records.events import (
    Chain,
    CloseReason,
    Fate,
    Feedback,
    Mode,
    Part,
    Release,
    ReleaseKind,
    Reward,
    Segment,
    Source,
    Trajectory,
    TrialState,
    Turn,
    TurnKind,
    TurnReward,
    Version,
    VersionSpan,
    about,
    session_key,
)
from ingest.sessions.contamination import TaskIndex
from ingest.store.versions import VersionStore
from trainer.inbox import Item
from trainer.learner.batching import Minibatch
from trainer.learner.update import StepMetrics, UpdateMetrics
from trainer.loop import Trainer

CONTEXT_TOKENS = 3


def make_turn(trace_id: str, **changes: Any) -> Turn:
    fields = {
        "trace_id": trace_id,
        "kind": TurnKind.MAIN,
        "context": "",
        "reply": "",
        "followup": None,
        "finish_reason": "stop",
        "status": 200,
        "num_tokens": 2,
        "versions": (0,),
        "at": 0.0,
    }
    return Turn.model_validate({**fields, **changes})


def make_reward(
    session: str,
    rewards: Sequence[float | None],
    *,
    version: int = 0,
    held_out: bool = False,
    tenant: str = "default",
    token: int = 5,
    parts: Sequence[dict[str, tuple[float, float]]] = (),
    turn_changes: dict[int, dict[str, Any]] | None = None,
    segment_changes: dict[int, dict[str, Any]] | None = None,
    at: float = 1000.0,
    revision: int = 1,
    opened_at: float = 0.0,
    feedback_at: Sequence[float] = (),
    corrected: Sequence[int] = (),
) -> Reward:
    """One session, one chain: each turn is three context tokens (1) and a reply of two tokens `token` + turn number.

    Feedback `correction` names the turns `corrected`, by number.
    `parts` holds (weight, value) by name, for each turn; without it the rewards have none, as in version 1.
    """
    traces = [f"{session_key(session)}-{number}" for number in range(len(rewards))]
    tokens: list[int] = []
    segments = []
    for number, trace_id in enumerate(traces):
        start = len(tokens) + CONTEXT_TOKENS
        tokens += [1] * CONTEXT_TOKENS + [token + number, token + number]
        fields = {
            "trace_id": trace_id,
            "start": start,
            "end": start + 2,
            "logprobs": (-1.0, -2.0),
            "spans": (VersionSpan(version=version, start=0, end=2),),
        }
        segments.append(Segment.model_validate({**fields, **(segment_changes or {}).get(number, {})}))
    trajectory = Trajectory(
        trajectory_id=f"t-{session}-{revision}",
        revision=revision,
        session_id=session,
        tenant=tenant,
        assignment=None,
        held_out=held_out,
        closed=CloseReason.INACTIVE,
        opened_at=opened_at,
        closed_at=1.0,
        turns=tuple(make_turn(trace, **(turn_changes or {}).get(n, {})) for n, trace in enumerate(traces)),
        chains=(Chain(token_ids=tuple(tokens), segments=tuple(segments)),),
        feedback=tuple(
            Feedback(feedback_id=f"{session}-{at}", session_id=session, tenant=tenant, value=1.0, at=at)
            for at in feedback_at
        )
        + tuple(
            Feedback(feedback_id=traces[n], trace_id=traces[n], tenant=tenant, name="correction", value=-1.0, at=at)
            for n in corrected
        ),
    )
    return Reward(
        reward_id=f"r-{session}-{revision}",
        trajectory_id=trajectory.trajectory_id,
        revision=revision,
        session_id=session,
        spec="default/1",
        components=(),
        turns=tuple(
            TurnReward(
                trace_id=trace,
                kind=turn.kind,
                value=value,
                parts=tuple(Part(name=name, weight=w, value=v) for name, (w, v) in given.items()),
            )
            for trace, turn, value, given in zip(
                traces, trajectory.turns, rewards, parts or [{}] * len(rewards), strict=True
            )
        ),
        value=0.5,
        has_signal=True,
        guardrails={},
        trajectory=trajectory,
        **about(trajectory),
        at=at,
    )


class TokenPolicy:
    """A `Policy` whose weights are the trained tokens, in order: what trained twice, or never, shows."""

    def __init__(self) -> None:
        self.weights: list[int] = []
        self.stable: list[int] | None = None
        self.moments = 0
        self.metrics: dict[str, Any] = {}
        self.stable_kl: float | None = None
        self.hinted: list[tuple[int, ...]] = []

    def load(self, folder: Path) -> None:
        self.weights = json.loads((folder / "model.safetensors").read_text())
        self.moments = 0

    def anchor(self, folder: Path | None) -> None:
        self.stable = list(self.weights) if folder is None else json.loads((folder / "state.json").read_text())[0]

    def restore(self, folder: Path) -> None:
        self.weights, self.moments = json.loads((folder / "state.json").read_text())

    def save(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps([self.weights, self.moments]))

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        for minibatch in minibatches:
            for microbatch in minibatch:
                self.weights += microbatch.targets_N.tolist()
                self.hinted += [one.sample.token_ids for one in microbatch.hinted]
        self.moments += 1
        step = StepMetrics(False, 0.1, 1.0, 0.01, 1.0, 0.9, 0.1, 10)
        return UpdateMetrics.of([StepMetrics(**{**vars(step), **self.metrics})], self.stable_kl)

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(json.dumps(self.weights))
        (folder / "config.json").write_text("{}")

    export_adapters = export


class World:
    """What outlives the trainer: the log, the store, its folder. `start` is a process's start, `kill` its end."""

    def __init__(self, folder: Path, **trainer: Any) -> None:
        self.folder = folder
        own = {"batch_turns": 4, "minibatch_turns": 2, **trainer}
        self.config = Config.model_validate({"run_dir": str(folder), "model": {"path": str(folder)}, "trainer": own})
        self.log = InMemoryLog()
        self.log.create(
            [TopicSpec(topic.name, 1 if topic.ordered else 2, None) for topic in topics.ALL],
        )
        self.store = VersionStore(str(folder / "store"))
        self.policy = TokenPolicy()
        self.tasks: TaskIndex | None = None
        self.time = 1000.0
        self._releases = 0
        base = folder / "base"
        base.mkdir()
        (base / "model.safetensors").write_text("[]")
        self.store.publish(0, base, None, {}, {}, 0.0)

    def release(self, kind: ReleaseKind = ReleaseKind.TRIAL, **fields: Any) -> None:
        release = {"release": self._releases, "epoch": 1, "kind": kind, "stable": 0, "reason": "test", "at": 0.0}
        self._releases += 1
        send(self.log, topics.RELEASES, "", Release.model_validate({**release, **fields}))

    def bootstrap(self) -> None:
        self.release(ReleaseKind.BOOTSTRAP)

    def turn(self, mode: Mode) -> None:
        """An operator freezes everything, or lets it go on."""
        self.release(ReleaseKind.OPERATOR, mode=mode)

    def decide(self, candidate: int, state: TrialState, stable: int = 0) -> None:
        self.release(candidate=candidate, state=state, stable=stable)

    def reward(self, session: str, rewards: Sequence[float | None], **fields: Any) -> Reward:
        """A trajectory and its reward, which lies where the log says; the one given back holds the trajectory."""
        made = make_reward(session, rewards, **{"at": self.time, **fields})
        assert made.trajectory is not None
        placed = send(self.log, topics.TRAJECTORIES, session_key(session), made.trajectory)
        source = Source(partition=placed.partition, offset=placed.offset)
        sent = made.model_copy(update={"source": source, "trajectory": None})
        send(self.log, topics.REWARDS, session_key(session), sent)
        return made

    def fill(self, name: str, sessions: int = 4, **fields: Any) -> list[Reward]:
        """As many sessions of one scored turn; a default batch is four. `name` is one letter."""
        first = (ord(name) - 97) / 20
        return [
            self.reward(f"{name}{n}", [first + n / 10], token=100 * ord(name) + 10 * n, **fields)
            for n in range(sessions)
        ]

    def tokens(self, name: str, sessions: int = 4) -> list[int]:
        """What `fill` gives to train on: two tokens for each turn."""
        return sorted([100 * ord(name) + 10 * n for n in range(sessions)] * 2)

    def start(self) -> Trainer:
        self.policy = self.make_policy()
        trainer = Trainer(
            self.config, self.log, self.store, self.policy, Stop(), now=lambda: self.time, tasks=self.tasks
        )
        trainer.recover()
        return trainer

    make_policy: Callable[[], TokenPolicy] = TokenPolicy

    def kill(self, trainer: Trainer) -> None:
        """The process is gone: its memory, and (after the group's session timeout) its membership."""
        trainer.close()
        self.log.restart()

    def published(self) -> list[Version]:
        return list(replay(self.log, topics.VERSIONS, Version))

    def weights(self, version: int) -> list[int]:
        copies = self.folder / "copies"
        fetched = self.store.fetch(self.store.read(version), copies)
        weights = json.loads((fetched / "model.safetensors").read_text())
        shutil.rmtree(copies)
        return list(weights)

    def fates(self) -> dict[str, set[Fate]]:
        """Distinct fates of each trace."""
        found = defaultdict(set)
        for message in self.log.replay(topics.FATES.name):
            fate = decode(message.value, message.headers, Fate)
            for trace_id in fate.trace_ids:
                assert message.key == trace_id.partition("-")[0]
                found[trace_id].add(fate)
        return dict(found)

    def fate(self, reward: Reward, turn: int = 0) -> Fate:
        (only,) = self.fates()[reward.turns[turn].trace_id]
        return only


@pytest.fixture
def make_fuse() -> type[Fuse]:
    return Fuse


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for records and no fsync: a test's disk survives the test's end."""
    monkeypatch.setattr("trainer.loop.POLL_S", 0.0)
    monkeypatch.setattr("os.fsync", lambda _handle: None)


@pytest.fixture
def world(tmp_path: Path, quick: None) -> World:
    return World(tmp_path)


@pytest.fixture
def make_world(tmp_path: Path, quick: None) -> Callable[..., World]:
    """A fresh world at each call."""
    made = iter(range(10_000))

    def make(**trainer: Any) -> World:
        folder = tmp_path / str(next(made))
        folder.mkdir()
        return World(folder, **trainer)

    return make


@pytest.fixture
def reward_of() -> Callable[..., Reward]:
    return make_reward


@pytest.fixture
def log_items() -> Callable[[Sequence[tuple[str, Sequence[float | None]]]], list[Item]]:
    """Items as an inbox reads them, of sessions and their rewards."""

    def read(given: Sequence[tuple[str, Sequence[float | None]]]) -> list[Item]:
        return items_of(*(make_reward(session, rewards) for session, rewards in given))

    return read


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with tied embeddings, and a file that stands for its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(shape).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def learner_config() -> TrainerConfig:
    return TrainerConfig(lr=1e-2, dtype="float32", threads=1, max_grad_norm=math.inf)
