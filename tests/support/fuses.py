"""Kills at every moment around what a process does to the world."""

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest


class KilledError(BaseException):
    """Stands for kill -9: nothing catches it."""


class Fuse:
    """Kills at the `at`-th of the moments just before and just after the effects it is laid around."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.is_blown = False
        self.name = "no kill"
        self._is_paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in this block kills nobody: it is the world's doing, not the process's."""
        self._is_paused = True
        yield
        self._is_paused = False

    def _moment(self, name: str) -> None:
        if self._is_paused:
            return
        self._left -= 1
        if self._left == 0:
            self.is_blown, self.name = True, name
            raise KilledError

    @contextmanager
    def around(self, *effects: str) -> Iterator[None]:
        """Ends the block at the kill. Effects are names as `monkeypatch.setattr` takes them."""
        with pytest.MonkeyPatch.context() as patch, suppress(KilledError):
            for effect in effects:
                patch.setattr(effect, self._wrapped(effect))
            yield

    def _wrapped(self, effect: str) -> Callable[..., Any]:
        real = pkgutil.resolve_name(effect)

        def deadly(*args: Any, **kwargs: Any) -> Any:
            self._moment(f"before {effect}")
            result = real(*args, **kwargs)
            self._moment(f"after {effect}")
            return result

        return deadly
