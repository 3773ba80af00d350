"""A clock that stands until the test moves it."""


class Clock:
    """Called, it gives `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
