"""Times, as people say them on a command line."""

import re
from datetime import datetime

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def moment(told: str, now: float) -> float:
    """Unix seconds of a date or a time, of this machine's zone unless it names one, or of an age.

    Raises:
        ValueError: it is none of these.
    """
    if age := _AGE.fullmatch(told):
        return now - float(age[1]) * _UNITS_S[age[2]]
    try:
        return datetime.fromisoformat(told).timestamp()
    except ValueError as exc:
        raise ValueError(
            f"must be a date (2026-11-25), a time (2026-11-25T14:00) or an age (90m, 12h, 3d, 2w), got {told!r}"
        ) from exc


def span(seconds: float) -> str:
    """A duration in two figures at most: 40 s, 12 min, 3.5 h, 2.1 d."""
    for name, unit in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= unit:
            return f"{seconds / unit:.1f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{seconds:.0f} s"
