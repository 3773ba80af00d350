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
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from infra.errors import StoreError
from infra.files import replace_text, sync
from trainer.state import State

NUM_KEPT = 2


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
        needed = set[str]()
        for path in (path for path in kept if path.exists()):
            state = State.model_validate_json(path.read_bytes())
            needed |= state.learners
        for path in (self._folder / "learner").iterdir():
            if path.name not in needed:
                shutil.rmtree(path)
