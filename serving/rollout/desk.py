"""Where operators' commands wait for the controller's next tick, which they bring about at once."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from serving.rollout.commands import Command, Done, Refused

Answer = Done | Refused


@dataclass(frozen=True)
class Asked:
    """A command, and who waits for its answer. One that nobody waits for any more is not carried out."""

    command: Command
    answer: "Future[Answer]" = field(default_factory=Future)


class Desk:
    """Commands come in from the port's thread and go out in the controller's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[Asked] = []

    def ask(self, command: Command) -> "Future[Answer]":
        """Put a command down; cancel the answer to withdraw it."""
        asked = Asked(command)
        with self._lock:
            self._asked.append(asked)
        return asked.answer

    @property
    def is_called(self) -> bool:
        """Whether a command waits."""
        return bool(self._asked)

    def serve(self, carry_out: Callable[[Command], Answer]) -> int:
        """Answer what waits; how many were answered. What `carry_out` raises is raised here too, and the rest waits."""
        num = 0
        while (asked := self._next()) is not None:
            if not asked.answer.set_running_or_notify_cancel():
                continue
            try:
                asked.answer.set_result(carry_out(asked.command))
            except BaseException as exc:  # whoever asked waits for an answer, also while this process is ended
                asked.answer.set_exception(exc)
                raise
            num += 1
        return num

    def _next(self) -> Asked | None:
        with self._lock:
            return self._asked.pop(0) if self._asked else None
