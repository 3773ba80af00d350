"""Erasing a user: nothing of theirs can be read any more, and every trace of theirs still has one fate."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intakes import SECRET, intake

from infra.config import Config, IngestConfig, LogConfig, ModelConfig
from infra.errors import ErasedError, LogError, StoreError
from ingest.erase.erasure import Kept, Touched, erase
from ingest.lake.batch import Batch
from ingest.lake.content import NoSeal, Vault
from ingest.lake.manifest import Change
from ingest.lake.rows import rows_of
from ingest.lake.sealing import Keys
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.lake.touched import touched
from ingest.lineage.core import Role
from ingest.log import fates
from ingest.log.index import index_path
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, TopicSpec
from ingest.log.reader import replay, send
from ingest.log.topics import (
    ALL,
    FATES,
    FEEDBACK,
    RELEASES,
    TRACES,
    TRAJECTORIES,
    VERSIONS,
    dead_letters,
    late_letters,
)
from ingest.privacy.keys import KeyStore
from ingest.privacy.sealed_log import SealedLog, opened
from ingest.records import codec
from ingest.records.events import (
    SESSION_END,
    Fate,
    FateKind,
    Feedback,
    Release,
    ReleaseKind,
    Trace,
    Trajectory,
    TrialState,
    Version,
    key_of,
    session_key,
)
from ingest.sessions.assemble import Assembler
from ingest.store.releases import End
from ingest.store.versions import VersionStore

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
        self.store, self.num_releases = VersionStore(str(folder / "store")), 0
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
        return erase(self.inner, self.keys, user, self.store)

    def publish(self, number: int, parent: Version | None, *traces: Trace, is_announced: bool = True) -> Version:
        """A version trained on these traces: in the store, and on the log where it is announced."""
        weights = self.folder / "weights"
        weights.mkdir(exist_ok=True)
        (weights / "model.safetensors").write_text(str(number))
        made_of = {"trace_ids": [trace.trace_id for trace in traces]}
        made = self.store.publish(number, weights, parent, made_of, {}, at=float(number))
        if is_announced:
            send(self.log, VERSIONS, "", made)
        return made

    def release(self, stable: int, candidate: int | None = None, state: TrialState | None = None) -> None:
        on_trial = state is TrialState.CANARY
        given = Release(
            release=self.num_releases,
            epoch=1,
            kind=ReleaseKind.TRIAL if state else ReleaseKind.BOOTSTRAP,
            stable=stable,
            candidate=candidate,
            state=state,
            engines={"stable-0": stable} | ({"candidate-0": candidate} if candidate and on_trial else {}),
            reason="",
            at=0.0,
        )
        self.num_releases += 1
        send(self.log, RELEASES, "", given)

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


def trained_in(found: Touched) -> dict[int, set[str]]:
    return {one.version: set(one.trace_ids) for one in found.versions}


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
    assert found.by_fate == {"trained": 2, "no fate yet": 1}
    assert trained_in(found) == {7: {mine[0].trace_id, mine[1].trace_id}}


def test_a_version_on_trial_or_just_published_is_named_though_no_fate_tells_of_it(
    world: World, said: MakeTrace
) -> None:
    mine = [said(ANNA, "s", n, at=float(n)) for n in range(3)]
    world.put(*mine, other := said(BOB, "t"))
    first = world.publish(0, None)
    candidate = world.publish(1, first, mine[0], mine[1], other)
    world.publish(2, candidate, mine[2], is_announced=False)
    world.publish(3, first, other)
    world.release(0)
    world.release(0, 1, TrialState.CANARY)
    found = world.erase()
    assert [(one.version, one.end, one.serving.role, one.serving.engines) for one in found.versions] == [
        (1, End.ON_TRIAL, Role.CANDIDATE, ("candidate-0",)),
        (2, End.WAITS, Role.NONE, ()),
    ]
    assert trained_in(found) == {1: {mine[0].trace_id, mine[1].trace_id}, 2: {mine[2].trace_id}}
    assert (found.by_fate, found.unread) == ({"no fate yet": 3}, ())


@pytest.mark.parametrize(
    ("state", "stable", "end", "role"),
    [
        (TrialState.PROMOTED, 1, End.PROMOTED, Role.STABLE),
        (TrialState.REJECTED, 0, End.REJECTED, Role.NONE),
        (TrialState.EXPIRED, 0, End.EXPIRED, Role.NONE),
    ],
)
def test_a_version_is_named_with_what_became_of_it(
    world: World, said: MakeTrace, state: TrialState, stable: int, end: End, role: Role
) -> None:
    world.put(trace := said())
    world.publish(1, world.publish(0, None), trace)
    world.release(0)
    world.release(stable, 1, state)
    (told,) = world.erase().versions
    assert (told.version, told.end, told.serving.role, told.is_stored) == (1, end, role, True)


def test_versions_that_descend_from_a_trained_one_are_named_apart(world: World, said: MakeTrace) -> None:
    world.put(trace := said(), other := said(BOB, "t"))
    first = world.publish(0, None)
    world.publish(2, world.publish(1, first, trace), other)
    world.publish(3, first, other)
    found = world.erase()
    assert [(one.version, one.trace_ids) for one in found.versions] == [(1, (trace.trace_id,)), (2, ())]


def test_a_version_that_was_removed_from_the_store_is_told_from_the_log(world: World, said: MakeTrace) -> None:
    world.put(trace := said())
    gone = world.publish(1, world.publish(0, None), trace)
    (world.folder / "store" / gone.folder / "manifest.json").unlink()
    (told,) = world.erase().versions
    assert (told.version, told.is_stored) == (1, False)


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_manifest_that_cannot_be_read_is_told_and_hides_no_other_version(
    world: World, said: MakeTrace, is_announced: bool
) -> None:
    world.put(trace := said())
    first = world.publish(0, None)
    damaged = world.publish(1, first, trace, is_announced=is_announced)
    world.publish(2, first, trace, is_announced=False)
    (world.folder / "store" / damaged.folder / "manifest.json").write_text("{}")
    found = world.erase()
    assert [one.version for one in found.versions] == ([1, 2] if is_announced else [2])
    (told,) = found.unread
    assert told.startswith("version 1: manifest ")
    assert told.endswith("told as it was announced on the log" if is_announced else "what trained it is not known")


def test_a_store_that_cannot_be_listed_is_told_after_the_erasure(
    world: World, said: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(trace := said())
    world.publish(1, world.publish(0, None), trace)

    def fails(*_: object) -> None:
        raise StoreError("store: not listed")

    monkeypatch.setattr(world.store, "versions", fails)
    found = world.erase()
    assert not any(is_readable(message, world.fresh_keys()) for message in world.inner.replay(TRACES.name))
    assert [(one.version, one.is_stored) for one in found.versions] == [(1, None)]
    assert found.unread == ("store: not listed; versions are told as they were announced on the log",)


def test_of_many_manifests_only_the_one_that_is_read_is_held_and_the_one_before(
    world: World, said: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(trace := said())
    parent = world.publish(0, None)
    for number in range(1, 6):
        parent = world.publish(number, parent, trace)
    del parent
    read, given, held = world.store.read, list[weakref.ref[Version]](), list[int]()

    def counted(number: int) -> Version:
        given.append(weakref.ref(manifest := read(number)))
        held.append(sum(one() is not None for one in given))
        return manifest

    monkeypatch.setattr(world.store, "read", counted)
    assert len(world.erase().versions) == 5
    assert len(held) == 6 and max(held) <= 2


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


@pytest.mark.parametrize("about", ["message #3", "chat", "-"])
def test_what_a_user_said_of_something_that_is_no_trace_keeps_nothing_from_being_erased(
    world: World, said: MakeTrace, make_feedback: MakeFeedback, about: str
) -> None:
    of_nobody = make_feedback(1, session_id="s", comment=WORDS)
    world.put(said(), of_nobody, make_feedback(2, trace_id=about, user=ANNA, comment=WORDS))
    assert world.erase().sessions == {session_key("s")}
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
    found = erase(emptied, world.keys, ANNA, world.store, lambda: [Kept(*told) for told in touched(lake, ANNA)])
    assert (found.traces, found.sessions) == ({trace.trace_id}, {session_key("s")})
    assert (found.by_fate, trained_in(found)) == ({"trained": 1}, {4: {trace.trace_id}})


def test_of_a_session_of_two_users_the_lake_tells_to_both(world: World, said: MakeTrace, tmp_path: Path) -> None:
    traces = [said(ANNA, "s", 0, at=0.0), said(BOB, "s", 1, at=5.0)]
    world.put(*traces)
    world.run(world.stage(), until=100.0)
    (message,) = world.log.replay(TRAJECTORIES.name)
    record = codec.decode(message.value, message.headers, Trajectory)
    lake, batch = Lake(Storage(str(tmp_path / "lake"))), Batch()
    batch.add(tuple(rows_of(record, 0, 0, Vault(Keys(world.keys)), message.headers[codec.SUBJECT_HEADER])))
    lake.commit(Change(batch.write(lake)))
    for user in (ANNA, BOB):
        assert {told[:2] for told in touched(lake, user)} == {(session_key("s"), one.trace_id) for one in traces}
    assert list(touched(lake, "c" * 32)) == []
