"""The checkpoint in force, and the world brought to what it says: the learner, the inbox, versions, fates.

The order of what is done, and what a kill before each step leaves:

    a step       1. flush        dead letters are durable               its turns are read again
                 2. copy         weights and optimiser, beside what is  as 1
                                 learned meanwhile; one step at most
                 3. checkpoint   baselines, positions, turns            as 1
                 4. commit       the group's positions                  the lag is too high until the next

    a version    1. checkpoint   its number, and where it stands        what is in the making, and grows on
                 2. publish      store, then the `versions` record      a restart publishes the same bytes
                 3. flush        the record is durable                  as 2
                 4. checkpoint   it is published                        a restart repeats 2 and 3, to no effect

    a decision   1. checkpoint   where all returns to, fates owed       the release log says it again
                 2. bring        the learner and the inbox there        a restart brings them there
                 3. fates        appended and flushed                   a restart sends the same fates again
                 4. checkpoint   no fates owed                          a restart repeats 3, to no effect

Fates that wait for no decision are owed by the checkpoint of the step that used their rewards: 3 and 4 follow it.
"""

import shutil
from collections.abc import Callable, Mapping

from infra.config import Config
from infra.storage import Place
from ingest.log import fates
from ingest.log.protocol import EventLog, Positions
from ingest.records.events import Version
from ingest.sessions.contamination import TaskIndex
from ingest.store.versions import VersionStore
from trainer import telling
from trainer.checkpoint import Checkpoints, Commit, Save, scratch_of
from trainer.decisions import Decided
from trainer.inbox import Inbox
from trainer.learner.update import Policy
from trainer.publish import publish
from trainer.state import CandidateVersion, Making, State, Used, as_offsets, as_positions, names_of


class Keeper:
    """What outlives a process, and its doings. `now` is Unix time, `tasks` must never train. `known` is what the next
    checkpoint says of the release log."""

    def __init__(
        self,
        config: Config,
        log: EventLog,
        store: VersionStore,
        policy: Policy,
        now: Callable[[], float],
        tasks: TaskIndex | None,
    ) -> None:
        self._log, self._store, self._policy, self._now = log, store, policy, now
        self._timeout_s = config.log.timeout_s
        self._folder = scratch_of(config)
        self._checkpoints = Checkpoints(config.trainer.checkpoint_dir)
        self._has_adapters = config.trainer.lora is not None
        self._loaded: Version | None = None
        self._begun: Commit | None = None
        self._read_to: Positions | None = None
        self.state = self._checkpoints.read() or State()
        self.known = self.state.known
        self.inbox = Inbox(
            log,
            self.state.positions,
            (*self.state.fated, *names_of(self.state.used)),
            tasks,
            config.privacy.train_altered,
            as_positions(self.state.began),
            config.trainer.loss.hinted_by,
            self.state.moved,
            self.state.waiting,
            as_positions(self.state.passed),
        )

    # -- the learner

    def bring_learner(self) -> None:
        """The learner to where the checkpoint stands, and with it the stable weights that its KL is measured to."""
        self.settle()
        state = self.state
        if state.base is None:
            return
        if self._stable is None:
            self._load(state.base)
            self._policy.anchor(None)
        else:
            loaded = None if self._loaded is None else self._loaded.version
            if self._has_adapters and state.loaded is not None and loaded != state.loaded:
                self._load(state.loaded)
            self._policy.anchor(self._stable)
        if state.learner is not None:
            self._policy.restore(self._checkpoints.learner(state.learner))

    def _load(self, version: int) -> None:
        copies = self._folder / "stable"
        shutil.rmtree(copies, ignore_errors=True)  # a kill in the midst of the line below leaves a part
        manifest = self._store.read(version)
        self._policy.load(self._store.fetch(manifest, copies))
        shutil.rmtree(copies)
        self._loaded = manifest

    @property
    def _stable(self) -> Place | None:
        """The folder of stable's learner; `None`: the store has its weights."""
        name = self.state.stable_learner
        return None if name is None else self._checkpoints.learner(name)

    # -- a step

    def use(
        self,
        num_items: int,
        used: tuple[Used, ...],
        making: Making | None,
        save: Save | None = None,
        *,
        waiting: Mapping[str, float],
        **changes: object,
    ) -> None:
        """The first items of the inbox have been used, for `making` or, without one, for good, but for what of them is
        `waiting` for a score."""
        self._log.flush(self._timeout_s)
        self.inbox.wait(waiting)
        positions = self.inbox.positions_after(num_items)
        before = self.state
        read = {"began": as_offsets(self.inbox.began), "moved": tuple(sorted(self.inbox.moved))}
        read |= {"waiting": dict(self.inbox.waiting)}
        here = {"offsets": as_offsets(positions), **read, **changes}
        state = before.model_copy(update=here)
        if making is None:
            state = state.owing(one.fate(0, self._now()) for one in used)
        else:
            fallback = before.fallback or before.standing
            state = state.model_copy(update={"making": making, "fallback": fallback})
        self._commit(state, save, positions)
        self.inbox.drop(num_items)
        self.tell()

    def end(self, used: Used) -> None:
        """These have their fate, whatever becomes of any version."""
        self._commit(self.state.owing([used.fate(0, self._now())]))
        self.tell()

    def close_making(self, making: Making, alarm: str) -> None:
        """The version in the making takes no more."""
        closed = making.model_copy(update={"alarm": alarm})
        self._commit(self.state.model_copy(update={"making": closed}))

    # -- a version

    @property
    def owes(self) -> bool:
        """Whether a version was made that nobody has heard of yet."""
        return self.state.candidate is not None and not self.state.candidate.is_published

    def make(self, candidate: CandidateVersion) -> None:
        """The version in the making is `candidate`, which is owed to the world."""
        self._commit(self.state.model_copy(update={"candidate": candidate, "making": None}))

    def publish(self) -> None:
        """What is owed."""
        self.settle()
        candidate = self.state.candidate
        assert candidate is not None
        base = self._loaded if self._has_adapters else None
        publish(candidate, self._policy, self._store, self._log, self._folder / "export", base)
        self._log.flush(self._timeout_s)
        published = candidate.model_copy(update={"is_published": True})
        self._commit(self.state.model_copy(update={"candidate": published}))

    # -- a decision

    def go_on(self, decided: Decided) -> None:
        """The candidate was promoted: the learner stays where it is."""
        self._commit(decided.state)
        if self._stable is not None:
            self._policy.anchor(self._stable)
        self.tell()

    def go_back(self, decided: Decided, why: telling.Again) -> None:
        """The learner, and reading, return to where the decision says."""
        self._commit(decided.state)
        self.bring_learner()
        self.inbox.go_back(decided.state.positions, decided.again, as_positions(decided.state.passed))
        telling.again(why, len(decided.again))
        self.tell()

    def tell(self) -> None:
        """The fates that are owed."""
        owed = self.state.fates
        if owed:
            self.settle()
            fates.tell(self._log, owed)
            self._log.flush(self._timeout_s)
            self._commit(self.state.model_copy(update={"fates": ()}))
            told = (name for fate in owed for name in fate.trace_ids)
            self.inbox.remember(told, (*self.state.fated, *names_of(self.state.used)))
            telling.ended(owed)

    def _commit(self, state: State, save: Save | None = None, positions: Positions | None = None) -> None:
        """A checkpoint, in force on return but where its copy of the learner is still being written."""
        self.settle()
        if state.stable_learner is None:
            state = state.model_copy(update={"loaded": state.base})
        state = state.model_copy(update={"known": self.known})
        self._begun, self._read_to = self._checkpoints.begin(state, save), positions
        self.state = self._begun.state
        self.settle_if_ready()

    def settle_if_ready(self) -> None:
        """`settle`, where that need not wait."""
        if self._begun is not None and self._begun.is_ready:
            self.settle()

    def settle(self) -> None:
        """The checkpoint is in force on return. Until then the learner may go on, and nothing is done to the world."""
        if self._begun is None:
            return
        begun, self._begun = self._begun, None
        begun.finish()
        if self._read_to is not None:
            self.inbox.commit(self._read_to)
