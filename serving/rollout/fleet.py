"""The engines together: asking them, having them load what the log says, and seeing that they serve it.

A version is announced for an engine once that engine says that it serves it and has answered a question with it.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import httpx

from infra import telemetry
from infra.errors import ControlError
from infra.lifecycle import Pulse
from infra.telemetry import names
from ingest.records.events import Headers, ReleaseKind
from serving.rollout import disagreement
from serving.rollout.disagreement import Disagreement
from serving.rollout.engines import EngineControl, EngineStatus
from serving.rollout.writing import Writer

logger = logging.getLogger(__name__)

_ASKED_AT_ONCE = 64
_SWAPPED_AT_ONCE = 1 / 16  # of the engines: a promotion takes as long with a thousand as with sixteen
_HOLD_AGAIN_S = 60.0  # a fetch of what shall be held takes a while, and fails for as long as the store is away

_LOOK_S = 0.05

Failure = ControlError | httpx.TransportError
Answer = Mapping[str, float] | Failure


@dataclass(frozen=True)
class Loads:
    """Why engines do not serve what they should; `is_over` says that none is still at it."""

    failures: Mapping[str, Failure]
    is_over: bool


class Fleet:
    """All engines by name. `seen` is what each said last, `None` for one that did not answer."""

    def __init__(
        self,
        engines: Mapping[str, EngineControl],
        writer: Writer,
        contexts: Mapping[int, Headers],
        pulse: Pulse,
        is_called: Callable[[], bool],
    ) -> None:
        """`is_called` says that an operator waits: then engines that are not swapped yet wait in turn."""
        self.engines = engines
        self.seen: dict[str, EngineStatus | None] = {}
        self.disagreements: Mapping[str, Disagreement] = {}
        self._writer, self._contexts, self._pulse, self._is_called = writer, contexts, pulse, is_called
        self._pool = ThreadPoolExecutor(_ASKED_AT_ONCE, "engines")
        self.refused: dict[int, str] = {}  # versions that an engine would not serve when it was told to last, and why
        self._loading: dict[tuple[str, int], Future[Answer]] = {}
        self._unproven: dict[tuple[str, int], Mapping[str, float]] = {}  # swapped to a version, which took so long
        self._asked_to_hold: dict[tuple[str, int], float] = {}

    @property
    def held(self) -> dict[str, frozenset[int]]:
        """What each engine that answers can serve without the store."""
        return {name: frozenset((*one.held, one.version)) for name, one in tuple(self.seen.items()) if one is not None}

    # -- making it so

    def reconcile(self, wanted: Mapping[str, int], is_urgent: bool) -> bool:
        """Have each of these engines serve its version, some at a time, or all at once where it is urgent; whether they
        all do now."""
        self._loading = {one: load for one, load in self._loading.items() if wanted.get(one[0], one[1]) == one[1]}
        if is_urgent:  # without asking first: an engine that hangs keeps no other from it
            self._swap({name: one for name, one in wanted.items() if self._differs(self.seen.get(name), one)})
        found = self.ask(list(wanted))
        due = {name: one for name, one in wanted.items() if self._differs(found[name], one)}
        due |= {name: one for name, one in tuple(self._unproven) if wanted.get(name) == one and found[name]}
        is_whole = None not in found.values()
        left = sorted(due, key=lambda name: due[name] != self._writer.stable)  # what is stable comes first
        at_once = len(due) if is_urgent else max(1, int(_SWAPPED_AT_ONCE * len(self.engines)))
        for begin in range(0, len(left), at_once or 1):
            if begin and self._is_called():
                return False
            is_whole = self._swap({name: due[name] for name in left[begin : begin + at_once]}) and is_whole
        return is_whole

    @staticmethod
    def _differs(status: EngineStatus | None, version: int) -> bool:
        return status is not None and status.version != version

    def _swap(self, wanted: Mapping[str, int]) -> bool:
        loads = self.load(wanted)
        for version in set(wanted.values()):
            self.refused.pop(version, None)
        for name, exc in loads.failures.items():
            logger.error("%s: version %d is not served, trying again: %s", name, wanted[name], exc)
            if isinstance(exc, ControlError):
                self.refused[wanted[name]] = str(exc)
        return loads.is_over and not loads.failures

    def serves(self, wanted: Mapping[str, int]) -> bool:
        """Whether every engine that answers serves its version and has proved it, and one answers."""
        found = self.ask(list(wanted))
        is_behind = any(self._differs(found[one[0]], one[1]) or one in self._unproven for one in wanted.items())
        return any(found.values()) and not is_behind

    def load(self, wanted: Mapping[str, int]) -> Loads:
        """Swap engines to these versions at once, and announce those that prove it.

        A load can take as long as a fetch: once an operator calls, what still runs is left to itself, and taken up by
        the next call that wants the same.
        """
        loads = {name: self._begun(name, version) for name, version in wanted.items()}
        while wait(loads.values(), _LOOK_S).not_done and not self._is_called():
            pass
        answers = {name: load.result() for name, load in loads.items() if load.done()}
        for name in answers:
            del self._loading[name, wanted[name]]
        failures = {name: answer for name, answer in answers.items() if not isinstance(answer, Mapping)}
        took = {name: answer for name, answer in answers.items() if isinstance(answer, Mapping)}
        if took:
            self._announce({name: wanted[name] for name in took}, list(took.values()))
        return Loads(failures, is_over=len(answers) == len(loads))

    def _begun(self, name: str, version: int) -> "Future[Answer]":
        """The load that runs already, or one that begins now."""
        if (name, version) not in self._loading:
            self._loading[name, version] = self._pool.submit(self._loaded, name, version)
        return self._loading[name, version]

    def _announce(self, done: Mapping[str, int], took: Sequence[Mapping[str, float]]) -> None:
        most = {name: max(one[name] for one in took) for name in took[0]}
        who = next(iter(done)) + (f" and {len(done) - 1} more" if len(done) > 1 else "")
        versions = ", ".join(map(str, sorted(set(done.values()))))
        told = f"{who}: version {versions} is served after a pause of at most {most['pause_s'] * 1000:.0f} ms"
        self._writer.write(ReleaseKind.ANNOUNCED, told, engines=dict(done), numbers=most)

    def _loaded(self, name: str, version: int) -> Answer:
        one = (name, version)
        try:
            if one not in self._unproven:
                about: names.Told = {names.VERSION: version, names.ENGINE: name}
                with telemetry.span(names.LOAD, about, parent=self._contexts.get(version)):
                    self._unproven[one] = self.engines[name].load(version, self._writer.epoch)
            self._prove(name, version)
        except (ControlError, httpx.TransportError) as exc:
            return exc
        finally:
            self._pulse.go_on()
        return self._unproven.pop(one)

    def _prove(self, name: str, version: int) -> None:
        """The engine says that it serves the version, and answers a question."""
        status = self.engines[name].status()
        if status is None:
            raise httpx.ConnectError(f"{name} was swapped to version {version} and does not answer")
        self.seen[name] = status
        if status.version != version:
            del self._unproven[name, version]
            raise ControlError(f"{name} was swapped to version {version} and says that it serves {status.version}")
        self.engines[name].probe()

    # -- asking

    def ask(self, asked: Sequence[str]) -> dict[str, EngineStatus | None]:
        """What these engines say, all asked at once."""
        found = dict(zip(asked, self._pool.map(lambda name: self.engines[name].status(), asked), strict=True))
        self.seen |= found
        return found

    def probe(self, asked: Sequence[str]) -> dict[str, Failure]:
        """Those of these engines that do not answer a question, and why."""
        return {name: exc for name, exc in zip(asked, self._pool.map(self._probed, asked), strict=True) if exc}

    def _probed(self, name: str) -> Failure | None:
        try:
            self.engines[name].probe()
        except (ControlError, httpx.TransportError) as exc:
            return exc
        return None

    def compare(self, given: Mapping[str, int]) -> None:
        """Note who serves something else than the log gives it."""
        holds = {name: None if one is None else one.version for name, one in self.seen.items()}
        self.disagreements = disagreement.compare(self.disagreements, holds, given, time.monotonic())

    def hold(self, versions: Sequence[int]) -> None:
        """Have every engine keep these versions at hand."""
        now = time.monotonic()
        self._asked_to_hold = {one: at for one, at in self._asked_to_hold.items() if one[1] in versions}
        for name, held in self.held.items():
            missing = [(name, version) for version in versions if version not in held]
            if any(now >= self._asked_to_hold.get(one, 0.0) for one in missing):
                self._asked_to_hold |= dict.fromkeys(missing, now + _HOLD_AGAIN_S)
                self._pool.submit(self.engines[name].hold, versions)

    def close(self) -> None:
        self._pool.shutdown()
        for engine in self.engines.values():
            engine.close()
