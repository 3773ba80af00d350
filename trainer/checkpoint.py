"""The trainer's checkpoint: all it needs to go on after a kill as if there had been none.

    <folder>/learner/<n>/       weights and optimiser, as `Policy.save` writes them; large, shared by checkpoints
    <folder>/states/<n>.json    everything else, naming the learner folders it needs
    <folder>/current            the number of the checkpoint in force

The order of a commit, and what a crash before each step leaves:

    1. learner folder   written as `.part`, made durable, renamed   the old checkpoint in force
    2. state            written as `.part`, made durable, renamed   the old one; a learner folder that nothing names
    3. current          replaced in one step                        the old one; a state that nothing names
    4. prune            all but the last two checkpoints            the new one in force; leftovers, pruned next time
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.errors import StoreError
from infra.files import replace_text, sync
from ingest.log.protocol import Positions
from ingest.records.events import Fate

NUM_KEPT = 2


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidateVersion(_Frozen):
    """A version trained from `parent`, published or about to be, whose trial is not decided.

    `context` is the trace context of the training step, as headers: a restart publishes in the same trace.
    """

    version: int
    parent: int
    trace_ids: tuple[str, ...]
    spec: str
    metrics: dict[str, float]
    at: float
    is_published: bool = False
    context: dict[str, str] = {}


class Fallback(_Frozen):
    """What a rejection returns to. `learner` is `None` where that is the parent's weights in the store."""

    learner: str | None
    baselines: dict[str, float]
    seen: dict[str, tuple[str, ...]] = {}


class State(_Frozen):
    """A checkpoint.

    `base` is the stable version the learner stands on and `learner` names its folder (`None`: the store's weights of
    `base`, fresh optimiser); while there is a `candidate`, `learner` is the candidate's. `fates` are decided but not
    yet confirmed by the log. `fated` are the last traces that were given one, and `seen` the sketches of the prompts
    that trained last, by tenant: without them a restart would weigh the same turns otherwise.
    """

    step: int = 0
    base: int | None = None
    learner: str | None = None
    baselines: dict[str, float] = {}
    seen: dict[str, tuple[str, ...]] = {}
    candidate: CandidateVersion | None = None
    fallback: Fallback | None = None
    offsets: dict[str, dict[int, int]] = {}
    fates: tuple[Fate, ...] = ()
    fated: tuple[str, ...] = ()
    mean_reward: float | None = None

    @property
    def positions(self) -> Positions:
        return {(topic, part): offset for topic, parts in self.offsets.items() for part, offset in parts.items()}


def as_offsets(positions: Positions) -> dict[str, dict[int, int]]:
    """Positions in the form `State` keeps them."""
    offsets: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in positions.items():
        offsets.setdefault(topic, {})[partition] = offset
    return offsets


class Checkpoints:
    """Checkpoints in `folder`. One writer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("learner", "states"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def read(self) -> State | None:
        """The checkpoint in force; `None` before the first.

        Raises:
            StoreError: it is damaged. Older ones are not fallen back to: their batches have been trained and published.
        """
        number = self._current()
        if number is None:
            return None
        path = self._state(number)
        try:
            return State.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as exc:
            raise StoreError(f"checkpoint {path}: not readable: {exc}") from exc

    def learner(self, name: str) -> Path:
        """The learner folder that a state names."""
        return self._folder / "learner" / name

    def commit(self, state: State, save: Callable[[Path], None] | None = None) -> State:
        """Put `state` in force; with `save`, with a new learner folder that it writes. Returns the state as written."""
        number = (self._current() or 0) + 1
        if save is not None:
            state = state.model_copy(update={"learner": self._write_learner(f"{number:06d}", save)})
        replace_text(self._state(number), state.model_dump_json())
        replace_text(self._folder / "current", f"{number}\n")
        self._prune(number)
        return state

    def _write_learner(self, name: str, save: Callable[[Path], None]) -> str:
        part, target = self.learner(f"{name}.part"), self.learner(name)
        for leftover in (part, target):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir()
        save(part)
        sync(part)
        part.rename(target)
        sync(target.parent)
        return name

    def _current(self) -> int | None:
        try:
            text = (self._folder / "current").read_text()
        except FileNotFoundError:
            return None
        if not text.strip().isdecimal():
            raise StoreError(f"checkpoint marker {self._folder / 'current'}: expected a number, got {text!r}")
        return int(text)

    def _state(self, number: int) -> Path:
        return self._folder / "states" / f"{number:06d}.json"

    def _prune(self, current: int) -> None:
        kept = {self._state(number) for number in range(current - NUM_KEPT + 1, current + 1)}
        for path in (self._folder / "states").iterdir():
            if path not in kept:
                path.unlink()
        needed = set[str | None]()
        for path in (path for path in kept if path.exists()):
            state = State.model_validate_json(path.read_bytes())
            needed |= {state.learner, state.fallback.learner if state.fallback else None}
        for path in (self._folder / "learner").iterdir():
            if path.name not in needed:
                shutil.rmtree(path)


def remember(fated: tuple[str, ...], more: Mapping[str, object], most: int) -> tuple[str, ...]:
    """The last `most` traces that were given a fate."""
    return (*fated, *more)[-most:]
