"""Which turns are asked for, as people say it on a command line."""

import argparse
from dataclasses import dataclass, replace

from infra.errors import ConfigError
from infra.times import moment
from ingest.records.kinds import FateKind, TurnKind


@dataclass(frozen=True)
class Filters:
    """What a turn must be. Times are Unix seconds, `[since, until)`; rewards are the turn's own; none asks nothing."""

    tenant: str | None = None
    user: str | None = None
    since: float | None = None
    until: float | None = None
    version: int | None = None
    kind: TurnKind | None = None
    fate: FateKind | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    text: str | None = None

    @property
    def asks_outcome(self) -> bool:
        return (self.fate, self.min_reward, self.max_reward) != (None, None, None)


def add_range(parser: argparse.ArgumentParser) -> None:
    """The flags that say whose, and from when."""
    parser.add_argument("--tenant", metavar="NAME", help="whose")
    parser.add_argument("--since", metavar="WHEN", help="no earlier: 2026-11-25, '2026-11-25 14:00', or an age, 3d")
    parser.add_argument("--until", metavar="WHEN", help="earlier than that")


def add(parser: argparse.ArgumentParser) -> None:
    """All flags."""
    add_range(parser)
    parser.add_argument("--user", metavar="ID", help="the user, by the pseudonym that records have")
    parser.add_argument("--version", metavar="N", type=int, help="weights of that version sampled it, or part of it")
    parser.add_argument("--kind", choices=[kind.value for kind in TurnKind], help="what it is in its session")
    parser.add_argument("--fate", choices=[fate.value for fate in FateKind], help="how it ended")
    parser.add_argument("--min-reward", metavar="X", type=float, help="its reward is X or more")
    parser.add_argument("--max-reward", metavar="X", type=float, help="its reward is X or less")
    parser.add_argument("--text", metavar="WORDS", help="someone wrote this in it, in capitals or not")


def read_range(args: argparse.Namespace, now: float) -> Filters:
    """What the flags of `add_range` say. Raises `ConfigError` where nothing can lie between them."""
    since, until = _when("--since", args.since, now), _when("--until", args.until, now)
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"--since must be before --until, got {args.since} and {args.until}")
    return Filters(tenant=args.tenant, since=since, until=until)


def read(args: argparse.Namespace, now: float) -> Filters:
    """The filters of parsed flags. Raises `ConfigError` for those that no turn can meet."""
    found = replace(
        read_range(args, now),
        user=args.user,
        version=args.version,
        kind=TurnKind(args.kind) if args.kind else None,
        fate=FateKind(args.fate) if args.fate else None,
        min_reward=args.min_reward,
        max_reward=args.max_reward,
        text=args.text.casefold() if args.text else None,
    )
    for name, value in (("--min-reward", found.min_reward), ("--max-reward", found.max_reward)):
        if value is not None and not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name}: rewards lie in [0, 1], got {value:g}")
    if found.min_reward is not None and found.max_reward is not None and found.min_reward > found.max_reward:
        raise ConfigError(f"--min-reward must not be above --max-reward, got {args.min_reward} and {args.max_reward}")
    return found


def require_range(filters: Filters) -> None:
    """Raise `ConfigError` where more is asked than whose and from when: what is no property of a whole session."""
    ranged = replace(Filters(), tenant=filters.tenant, user=filters.user, since=filters.since, until=filters.until)
    if filters != ranged:
        raise ConfigError("--format trajectories: sessions are chosen by --tenant, --user, --since and --until alone")


def _when(flag: str, told: str | None, now: float) -> float | None:
    """Unix seconds of a date or a time, of this machine's zone unless it names one, or of an age."""
    if told is None:
        return None
    try:
        return moment(told, now)
    except ValueError as exc:
        raise ConfigError(f"{flag}: {exc}") from exc
