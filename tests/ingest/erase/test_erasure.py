"""Erasing a user: nothing of theirs can be read any more, and every trace of theirs still has one fate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intakes import SECRET, intake

from infra.config import Config, IngestConfig, LogConfig, ModelConfig
from infra.errors import ErasedError, LogError
from ingest.erase.erasure import Kept, Touched, erase
from ingest.lake.batch import Batch
from ingest.lake.content import NoSeal, Vault
from ingest.lake.manifest import Change
from ingest.lake.rows import rows_of
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.lake.touched import touched
from ingest.log import fates
from ingest.log.index import index_path
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, TopicSpec
from ingest.log.reader import replay
from ingest.log.topics import ALL, FATES, FEEDBACK, TRACES, TRAJECTORIES, dead_letters, late_letters
from ingest.privacy.keys import KeyStore
from ingest.privacy.sealed_log import SealedLog, opened
from ingest.records import codec
from ingest.records.events import SESSION_END, Fate, FateKind, Feedback, Trace, Trajectory, key_of, session_key
from ingest.sessions.assemble import Assembler

MakeTrace = Callable[..., Trace]
MakeFeedback = Callable[..., Feedback]
ANNA, BOB = "a" * 32, "b" * 32
WORDS = "the words of a person"


class World:
    """Topics, keys, and the ingest stage over them; what is put there comes as serving puts it."""

    def __init__(self, folder: Path) -> None:
        self.inner, self.now, self.folder = InMemoryLog(), 0.0, folder
        self.inner.create(TopicSpec(topic.name, 2, None) for topic in ALL)
        self.keys = self.fresh_keys()
        self.log = SealedLog(self.inner, self.keys)
        self.intake = intake(keyring=self.keys)
        self.config = Config(
            run_dir=str(folder),
            model=ModelConfig(path="unused"),
            log=LogConfig(partitions=2),
            ingest=IngestConfig(inactivity_s=60.0, horizon_s=3600.0),
        )

    def fresh_keys(self) -> KeyStore:
        """As a process has them that starts now."""
        return KeyStore(str(self.folder / "keys"), SECRET)

    def stage(self) -> Assembler:
        return Assembler(self.log, self.config, clock=lambda: self.now)

    def put(self, *records: Trace | Feedback) -> None:
        for record in records:
            if isinstance(record, Trace):
                key = session_key(record.session_id)
                _, value, headers = self.intake.close_trace(record, self.intake.key_for(record.user, record.tenant))
                self.inner.append(TRACES.name, key, value, headers)
            else:
                key = key_of(session_id=record.session_id, trace_id=record.trace_id)
                self.inner.append(FEEDBACK.name, key, *self.intake.close_feedback(record))

    def run(self, stage: Assembler, until: float) -> None:
        while self.now < until:
            self.now = min(until, self.now + 10.0)
            stage.step(0.0)

    def erase(self, user: str = ANNA) -> Touched:
        return erase(self.inner, self.keys, user)

    def lying(self) -> list[Message]:
        """Every message of every topic, as it lies."""
        return [message for topic in ALL for message in self.inner.replay(topic.name)]

    def fates(self) -> dict[str, set[tuple[FateKind, str]]]:
        found: dict[str, set[tuple[FateKind, str]]] = {}
        for fate in replay(self.log, FATES, Fate):
            for name in fate.trace_ids:
                found.setdefault(name, set()).add((fate.kind, fate.reason))
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def said(make_trace: MakeTrace) -> MakeTrace:
    """A trace of somebody's words."""

    def make(user: str = ANNA, session: str = "s", n: int = 0, **fields: Any) -> Trace:
        return make_trace(session, n, user=user, messages=[{"role": "user", "content": WORDS}], **fields)

    return make


def is_readable(message: Message, keys: KeyStore) -> bool:
    read = opened(message, keys)
    try:
        return WORDS in codec.plain(read.value).decode()
    except (ErasedError, ValueError):
        return False


def test_nothing_on_any_topic_holds_a_persons_words_as_they_were(
    world: World, said: MakeTrace, make_feedback: MakeFeedback
) -> None:
    world.put(trace := said(), make_feedback(at=5.0, trace_id=trace.trace_id, comment=WORDS))
    world.run(world.stage(), until=100.0)
    assert len(world.lying()) == 3
    assert all(WORDS.encode() not in message.value for message in world.lying())
    assert all(is_readable(message, world.keys) for message in world.lying())


def test_after_erasing_a_user_nothing_of_theirs_opens_nor_any_copy_made_before(
    world: World, said: MakeTrace, make_feedback: MakeFeedback
) -> None:
    world.put(said(ANNA, "s"), make_feedback(at=5.0, session_id="s", comment=WORDS), said(BOB, "t"))
    world.run(world.stage(), until=100.0)
    copies = world.lying()
    world.erase()
    still = {message.key for message in copies if is_readable(message, world.fresh_keys())}
    assert still == {session_key("t")}
    for trajectory in replay(world.log, TRAJECTORIES, Trajectory):
        assert trajectory.session_id == "t"


def test_what_an_erased_user_had_touched_is_told(world: World, said: MakeTrace, make_feedback: MakeFeedback) -> None:
    mine = [said(ANNA, "s", n, at=float(n)) for n in range(3)]
    world.put(*mine, said(BOB, "t"), make_feedback(at=5.0, session_id="s", comment=WORDS))
    world.run(world.stage(), until=100.0)
    trained = Fate(trace_ids=(mine[0].trace_id, mine[1].trace_id), kind=FateKind.TRAINED, version=7, reason="", at=1.0)
    fates.tell(world.log, [trained])
    found = world.erase()
    assert found.traces == {trace.trace_id for trace in mine}
    assert (found.sessions, found.num_keys) == ({session_key("s")}, 2)
    assert (found.by_fate, found.versions) == ({"trained": 2, "no fate yet": 1}, {7: 2})


def test_erasing_twice_tells_the_same_and_removes_no_more(world: World, said: MakeTrace) -> None:
    world.put(said())
    world.run(world.stage(), until=100.0)
    first, second = world.erase(), world.erase()
    assert (first.num_keys, second.num_keys) == (1, 0)
    assert first.traces == second.traces != set()


def test_an_erasure_that_could_not_look_has_erased_and_can_be_repeated(
    world: World, said: MakeTrace, make_feedback: MakeFeedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(said(), make_feedback(at=5.0, session_id="s", comment=WORDS))
    with monkeypatch.context() as away:

        def fails(*_: object) -> None:
            raise LogError("nobody answers")

        away.setattr(world.inner, "replay", fails)
        with pytest.raises(LogError):
            world.erase()
    traces = list(world.inner.replay(TRACES.name))
    assert not any(is_readable(message, world.fresh_keys()) for message in traces)
    world.erase()
    assert not any(is_readable(message, world.fresh_keys()) for message in world.lying())


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_session_that_is_open_when_its_user_is_erased_ends_refused(
    world: World, said: MakeTrace, is_restarted: bool
) -> None:
    traces = [said(ANNA, "s", n, at=float(n)) for n in range(2)]
    stage = world.stage()
    world.put(*traces)
    world.run(stage, until=10.0)
    world.erase()
    if is_restarted:
        stage.close()
        stage = world.stage()
    world.run(stage, until=200.0)
    assert list(world.inner.replay(TRAJECTORIES.name)) == []
    assert world.fates() == {trace.trace_id: {(FateKind.REFUSED, "erased")} for trace in traces}
    assert world.inner.lag("ingest", [TRACES.name]) == {TRACES.name: 0}


@pytest.mark.parametrize("is_index_lost", [False, True])
def test_traces_that_had_a_trajectory_get_no_fate_from_ingest_when_they_are_read_again(
    world: World, said: MakeTrace, is_index_lost: bool
) -> None:
    stage = world.stage()
    world.put(trace := said())
    world.run(stage, until=100.0)
    world.erase()
    if is_index_lost:
        stage.close()
        index_path(world.config, "ingest").unlink()
        stage = world.stage()
    for message in list(world.inner.replay(TRACES.name)):
        world.inner.append(message.topic, message.key, message.value, message.headers)
    world.run(stage, until=200.0)
    assert world.fates().get(trace.trace_id) is None


def test_a_session_of_two_users_cannot_be_read_once_either_is_erased(world: World, said: MakeTrace) -> None:
    world.put(said(ANNA, "s", 0, at=0.0), said(BOB, "s", 1, at=5.0))
    world.run(world.stage(), until=100.0)
    (trajectory,) = world.inner.replay(TRAJECTORIES.name)
    assert is_readable(trajectory, world.keys) and len(trajectory.headers["sealed"].split()) == 2
    world.erase(BOB)
    assert not is_readable(trajectory, world.fresh_keys())


def test_late_feedback_on_an_erased_session_amends_nothing(
    world: World, said: MakeTrace, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(said())
    world.run(stage, until=100.0)
    world.erase()
    world.put(make_feedback(at=100.0, session_id="s"))
    world.run(stage, until=200.0)
    assert len(list(world.inner.replay(TRAJECTORIES.name))) == 1


def test_feedback_that_waits_for_its_session_when_its_user_is_erased_leaves_no_letter(
    world: World, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(make_feedback(session_id="s", user=BOB, comment=WORDS))
    world.run(stage, until=10.0)
    world.erase(BOB)
    world.run(stage, until=2 * world.config.ingest.horizon_s)
    assert world.inner.lag("ingest", [FEEDBACK.name]) == {FEEDBACK.name: 0}
    assert list(world.inner.replay(dead_letters(FEEDBACK.name, "ingest"))) == []


@pytest.mark.parametrize("name", ["thumb", SESSION_END])
def test_late_feedback_whose_user_is_erased_while_it_waits_has_no_part_and_changes_no_fate(
    world: World, said: MakeTrace, make_feedback: MakeFeedback, name: str
) -> None:
    stage = world.stage()
    world.put(said(ANNA))
    world.run(stage, until=100.0)
    world.put(make_feedback(1, at=100.0, session_id="s", user=BOB, comment=WORDS, name=name))
    stage.step(0.0)
    world.erase(BOB)
    world.run(stage, until=200.0)
    assert [one.revision for one in replay(world.log, TRAJECTORIES, Trajectory)] == [1]
    assert world.fates() == {}
    assert list(world.inner.replay(late_letters(FEEDBACK.name, "ingest"))) == []
    assert world.inner.lag("ingest", [FEEDBACK.name]) == {FEEDBACK.name: 0}


def test_late_feedback_of_others_is_issued_without_that_of_an_erased_user(
    world: World, said: MakeTrace, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(said(ANNA))
    world.run(stage, until=100.0)
    world.put(
        make_feedback(1, at=100.0, session_id="s", user=BOB, comment=WORDS),
        make_feedback(2, at=101.0, session_id="s", user=ANNA, comment=WORDS),
        make_feedback(3, at=102.0, session_id="s", user=BOB),
    )
    stage.step(0.0)
    world.erase(BOB)
    world.run(stage, until=200.0)
    issued = list(replay(world.log, TRAJECTORIES, Trajectory))
    assert [(one.revision, [given.feedback_id for given in one.feedback]) for one in issued] == [
        (1, []),
        (2, ["f2", "f3"]),
    ]
    assert world.fates() == {}


def test_a_user_who_comes_back_is_read_and_what_was_before_is_not(world: World, said: MakeTrace) -> None:
    world.put(said(ANNA, "before"))
    world.erase()
    world.put(said(ANNA, "after"))
    readable = [is_readable(message, world.fresh_keys()) for message in world.inner.replay(TRACES.name)]
    assert sorted(readable) == [False, True]


def test_what_only_the_lake_remembers_is_told_too(world: World, said: MakeTrace, tmp_path: Path) -> None:
    lake = Lake(Storage(str(tmp_path / "lake")))
    batch = Batch()
    world.put(trace := said(), said(BOB, "t"))
    world.run(world.stage(), until=100.0)
    trained = Fate(trace_ids=(trace.trace_id,), kind=FateKind.TRAINED, version=4, reason="", at=1.0)
    for record in (*replay(world.log, TRAJECTORIES, Trajectory), trained):
        batch.add(tuple(rows_of(record, 0, 0, Vault(NoSeal()))))
    lake.commit(Change(batch.write(lake)))
    emptied = InMemoryLog()
    found = erase(emptied, world.keys, ANNA, lambda: [Kept(*told) for told in touched(lake, ANNA)])
    assert (found.traces, found.sessions) == ({trace.trace_id}, {session_key("s")})
    assert (found.by_fate, found.versions) == ({"trained": 1}, {4: 1})
