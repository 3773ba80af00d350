"""The trainer's checkpoint: all it needs to go on after a kill as if there had been none.

    learner/<n>-<token>/   weights and optimiser, as `Policy.save` writes them; large, shared by checkpoints
    states/<n>.json        everything else, naming the learner folders it needs
    current                the number of the checkpoint in force

The order of a commit, and what a crash before each step leaves:

    1. learner folder   a copy is taken, and written while the learner goes on    the old checkpoint in force
    2. state            when the copy is durable, whole or not at all             the old one; a folder nobody names
    3. current          in one step                                               the old one; a state nobody names
    4. prune            all but the last two checkpoints                          the new one in force; leftovers

Nothing is renamed but files on a disk, so all of it may lie in an object store. A learner folder's name is used once:
workers of a trainer that is gone may still write, and then write to what nobody names.
"""

import secrets
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from infra.config import Config
from infra.errors import StoreError
from infra.storage import Folder, Place
from trainer.learner.update import Saving
from trainer.state import State

NUM_KEPT = 2
Save = Callable[[Place], Saving | None]
"""`Policy.save`."""


class Commit:
    """A checkpoint whose learner folder is being written."""

    def __init__(self, state: State, saving: Saving | None, put: Callable[[State], None]) -> None:
        self.state, self._saving, self._put = state, saving, put

    @property
    def is_ready(self) -> bool:
        """Whether `finish` need not wait."""
        return self._saving is None or self._saving.is_done

    def finish(self) -> State:
        """Steps 2 to 4, as soon as the learner folder is durable. Returns the state as written. Raises `StoreError`."""
        if self._saving is not None:
            self._saving.wait()
        self._put(self.state)
        return self.state


class Checkpoints:
    """Checkpoints in `place`. One writer, and one commit at a time."""

    def __init__(self, place: Place) -> None:
        self._folder = Folder(place)
        for name in ("learner", "states"):
            self._folder.under(name).make()

    def read(self) -> State | None:
        """The checkpoint in force; `None` before the first.

        Raises:
            StoreError: it is damaged. Older ones are not fallen back to: their batches have been trained and published.
        """
        number = self._current()
        return None if number is None else self._read(number)

    def _read(self, number: int) -> State:
        data = self._folder.read(_state(number))
        try:
            return State.model_validate_json(data if data is not None else b"")
        except ValidationError as exc:
            raise StoreError(f"checkpoint {self._folder.place}/{_state(number)}: not readable: {exc}") from exc

    def learner(self, name: str) -> Place:
        """The learner folder that a state names."""
        return self._folder.under(f"learner/{name}").place

    def commit(self, state: State, save: Save | None = None) -> State:
        """Put `state` in force; with `save`, with a new learner folder that it writes. Returns the state as written."""
        return self.begin(state, save).finish()

    def begin(self, state: State, save: Save | None = None) -> Commit:
        """Step 1: with `save`, the learner's copy is taken. It is to be finished before another is begun."""
        number = (self._current() or 0) + 1
        saving = None
        if save is not None:
            name = f"{number:06d}-{secrets.token_hex(4)}"
            self._folder.under(f"learner/{name}").make()
            saving = save(self.learner(name))
            state = state.model_copy(update={"learner": name})
        return Commit(state, saving, lambda written: self._put(number, written))

    def _put(self, number: int, state: State) -> None:
        self._folder.write(_state(number), state.model_dump_json().encode())
        self._folder.write("current", f"{number}\n".encode())
        self._prune(number)

    def _current(self) -> int | None:
        data = self._folder.read("current")
        if data is None:
            return None
        text = data.decode(errors="replace")
        if not text.strip().isdecimal():
            raise StoreError(f"checkpoint marker {self._folder.place}/current: expected a number, got {text!r}")
        return int(text)

    def _prune(self, current: int) -> None:
        kept = {_state(number): number for number in range(max(1, current - NUM_KEPT + 1), current + 1)}
        found = [f"states/{name}" for name in self._folder.under("states").names()]
        for name in found:
            if name not in kept:
                self._folder.delete(name)
        needed = set[str]()
        for name in (name for name in found if name in kept):
            needed |= self._read(kept[name]).learners
        for name in self._folder.under("learner").names():
            if name not in needed:
                self._folder.delete(f"learner/{name}")


def _state(number: int) -> str:
    return f"states/{number:06d}.json"


def scratch_of(config: Config) -> Path:
    """A folder of this machine for versions on their way: beside the checkpoints, where they are on this machine."""
    folder = Folder(config.trainer.checkpoint_dir)
    return folder.path if folder.is_local else Path(config.run_dir) / "trainer"
