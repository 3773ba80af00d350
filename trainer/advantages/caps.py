"""How much of a batch one user and one tenant can be. Pure.

Every turn has a mass, its part of what is to be bounded. Turns of whoever has too much are scaled down, never dropped
and never up, until no user has more than `user_cap` and no tenant more than `tenant_cap` of what is then left. With
S the mass that is left, a user keeps min(m, user_cap S) of their m, a tenant min(sum of its users, tenant_cap S), all
turns of one user by the same factor. S is the largest fixed point of their sum T(S), which is concave, piecewise linear
and 0 at 0: Newton's steps from above reach it after as many as T has pieces, at most.

A cap cannot always hold: of three users one has a third. So a cap is raised to the least at which the caps allow the
batch twice over; for users alone that is twice an equal share, `2 / users`. Were they to allow it just once, all would
be cut down to the lightest user; allowed twice, at most half of the users are cut, to no less than the median user's
mass. With one or two users there is no cap. The cap in force is told with each batch.

Surplus turns are scaled, not left for a later batch: rewards are used in the order they were read, and a flood that
waits would fill the inbox and make honest turns stale.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ROOM = 2.0
"""How many times over the caps in force allow the batch."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Owner:
    """Whose a turn is. `user` is a pseudonym, or a session where its user is not known; a user is one tenant's."""

    tenant: str
    user: str


@dataclass(frozen=True)
class Capped:
    """A factor in (0, 1] for each turn, the caps in force, and the largest shares, which are never above them.

    `user_share_before` is what the largest user had of the masses as they came.
    """

    factors: tuple[float, ...]
    user_cap: float
    tenant_cap: float
    user_share: float
    tenant_share: float
    user_share_before: float
    num_users: int
    num_tenants: int


def cap(masses: Sequence[float], owners: Sequence[Owner], max_user_share: float, max_tenant_share: float) -> Capped:
    """Factors that bound users' and tenants' shares of the masses, each at least 0. Caps lie in (0, 1].

    A mass that is nothing beside the largest is what rounding made of 0, and whose it is has none.
    """
    held: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    nothing = _ROUNDING * max(masses, default=0.0)
    for mass, owner in zip(masses, owners, strict=True):
        if mass > nothing:
            held[owner.tenant][owner.user] += mass
    num_users = sum(map(len, held.values()))
    user_cap = _raised(max_user_share, [1.0] * num_users)
    tenant_cap = _raised(max_tenant_share, [len(users) * user_cap for users in held.values()])
    left = _mass_left(held, user_cap, tenant_cap)
    factors = _factors(held, user_cap * left, tenant_cap * left)
    kept = {owner: factor * held[owner.tenant][owner.user] for owner, factor in factors.items()}
    return Capped(
        factors=tuple(factors.get(owner, 1.0) for owner in owners),
        user_cap=user_cap,
        tenant_cap=tenant_cap,
        user_share=_largest(kept.values()),
        tenant_share=_largest(sum(mass for owner, mass in kept.items() if owner.tenant == tenant) for tenant in held),
        user_share_before=_largest(mass for users in held.values() for mass in users.values()),
        num_users=num_users,
        num_tenants=len(held),
    )


def _raised(wanted: float, limits: Sequence[float]) -> float:
    """The least cap, `wanted` or more, at which groups of at most `limits` each allow `ROOM` times the batch, or 1."""
    room, num_left = ROOM, len(limits)
    for limit in sorted(limits):
        least = room / num_left
        if least <= limit:
            return min(1.0, max(wanted, least))
        room, num_left = room - limit, num_left - 1
    return 1.0


def _mass_left(held: Mapping[str, Mapping[str, float]], user_cap: float, tenant_cap: float) -> float:
    """The largest S with T(S) = S."""
    left = sum(mass for users in held.values() for mass in users.values())
    while True:
        total = slope = 0.0
        for users in held.values():
            level, limit = user_cap * left, tenant_cap * left
            kept = sum(min(mass, level) for mass in users.values())
            is_capped = kept > limit
            total += limit if is_capped else kept
            slope += tenant_cap if is_capped else user_cap * sum(mass > level for mass in users.values())
        if total >= left * (1.0 - _ROUNDING):
            return left
        left = (total - slope * left) / (1.0 - slope)


def _factors(held: Mapping[str, Mapping[str, float]], level: float, limit: float) -> dict[Owner, float]:
    factors = {}
    for tenant, users in held.items():
        kept = {user: min(mass, level) for user, mass in users.items()}
        whole = sum(kept.values())
        for user, mass in users.items():
            factors[Owner(tenant, user)] = kept[user] / mass * min(1.0, limit / whole)
    return factors


def _largest(masses: Iterable[float]) -> float:
    """The largest one's share of all; 0 where there is none."""
    values = list(masses)
    return max(values) / sum(values) if values else 0.0
