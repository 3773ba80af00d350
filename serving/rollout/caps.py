"""Which sessions of a trial count, so that no user and no tenant decides it. Pure.

That is settled in the order in which sessions began, by who began them and by nothing else:

    user     the first `max_units_per_user` of each count, over both arms; a session without a user is its own
    tenant   a session counts while its tenant has at most s / (1 - s) times as many as the others together, where s is
             `max_tenant_share`, or twice an equal share of the tenants met so far if that is more

Anytime validity is kept: in that order, whether a session counts is known before its coin is tossed and before its
outcome exists, and one that does not count multiplies the evidence by 1. A nonnegative supermartingale that skips steps
by such a rule is one still. The rule must never look at outcomes or arms, nor at when rewards arrive: what ends sooner
may depend on the arm. A reward that comes late takes the place that its session has by its beginning, as if it had
been there in time, and whoever had the place for lack of it gives way.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol, TypeVar

from infra.config import GateConfig

Who = tuple[str, str]

_ROUNDING = 1e-9


class Begun(Protocol):
    """A session that somebody began, at Unix time `began_at`. `user` is empty where it is not known."""

    @property
    def session_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def began_at(self) -> float: ...


Session = TypeVar("Session", bound=Begun)


def counted(sessions: Iterable[Session], config: GateConfig) -> tuple[Session, ...]:
    """Those that count, in the order they began; names settle ties."""
    of_user, of_tenant = Counter[Who](), Counter[str]()
    met: set[str] = set()
    found: list[Session] = []
    for session in sorted(sessions, key=lambda session: (session.began_at, session.session_id)):
        met.add(session.tenant)
        if of_user[who(session)] >= config.max_units_per_user:
            continue
        share = max(config.max_tenant_share, min(1.0, 2.0 / len(met)))
        own = of_tenant[session.tenant]
        if own * (1.0 - share) > share * (len(found) - own) + _ROUNDING:
            continue
        of_user[who(session)] += 1
        of_tenant[session.tenant] += 1
        found.append(session)
    return tuple(found)


def who(session: Begun) -> Who:
    """The user, who is one tenant's, or else the session itself."""
    return session.tenant, f"user {session.user}" if session.user else f"session {session.session_id}"


def shares(sessions: Iterable[Begun]) -> dict[str, float]:
    """How many users and tenants these sessions have, and the largest one's share."""
    held = list(sessions)
    numbers = {}
    for name, owners in (("user", Counter(map(who, held))), ("tenant", Counter(s.tenant for s in held))):
        numbers[f"{name}s"] = float(len(owners))
        numbers[f"{name}_share"] = max(owners.values(), default=0) / max(1, len(held))
    return numbers
