"""Which sessions of a trial count, so that no user and no tenant decides it; and how long the trial has been alive.

That is settled in the order in which sessions began, by who began them and by nothing else:

    user     the first `max_units_per_user` of each count, over both arms; a session without a user is its own
    tenant   a session counts while its tenant has at most s / (1 - s) times as many as the others together, where s is
             `max_tenant_share`, or twice an equal share of the tenants met so far if that is more

Anytime validity is kept: in that order, whether a session counts is known before its coin is tossed and before its
outcome exists, and one that does not count multiplies the evidence by 1. A nonnegative supermartingale that skips steps
by such a rule is one still. The rule must never look at outcomes or arms, nor at when rewards arrive: what ends sooner
may depend on the arm. A reward that comes late takes the place that its session has by its beginning, as if it had
been there in time, and whoever had the place for lack of it gives way.

What a late one costs is a walk over the sessions that began after it and are known already, once for all that came
since one last looked; those that began before it are not touched.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from infra.config import GateConfig

Who = tuple[str, str]
Key = TypeVar("Key")

_ROUNDING = 1e-9
_MICROSECONDS = 1_000_000


class Begun(NamedTuple):
    """A session that somebody began, at Unix time `began_at`. `user` is empty where it is not known.

    In order they are as they began; names settle ties.
    """

    began_at: float
    session_id: str
    tenant: str
    user: str

    @property
    def who(self) -> Who:
        """The user, who is one tenant's, or else the session itself."""
        return self.tenant, f"user {self.user}" if self.user else f"session {self.session_id}"


class Beginnings:
    """The sessions known so far, in the order they began, and which of them count."""

    def __init__(self, config: GateConfig) -> None:
        self._max_units_per_user, self._max_tenant_share = config.max_units_per_user, config.max_tenant_share
        self._idle_us = round(config.idle_s * _MICROSECONDS)
        self._order: list[Begun] = []
        self._counts: list[bool] = []
        self._met: Counter[str] = Counter()  # sessions by tenant, counted or not
        self._of_user: Counter[Who] = Counter()
        self._of_tenant: Counter[str] = Counter()
        self._users_having: Counter[int] = Counter()  # number of counted sessions -> how many users have it
        self._num_counted = 0
        self._active_us = 0

    def settle(self, came: Iterable[Begun], gone: Iterable[Begun] = ()) -> tuple[set[str], set[str]]:
        """Take in those that came and let go of those that are gone: which sessions count now and did not, and which
        do no more."""
        came, gone = set(came), set(gone)
        if not came and not gone:
            return set(), set()
        cut = self._cut(bisect_left(self._order, min(came | gone)))
        before = {one.session_id for one, counts in cut if counts}
        follow = sorted(({one for one, _ in cut} - gone) | came)
        after = {one.session_id for one in follow if self._append(one)}
        return after - before, before - after

    def __len__(self) -> int:
        return len(self._order)

    @property
    def num_counted(self) -> int:
        return self._num_counted

    @property
    def active_s(self) -> float:
        """Seconds in which sessions came: from each to the next, or `idle_s` if that is less."""
        return self._active_us / _MICROSECONDS

    @property
    def shares(self) -> dict[str, float]:
        """How many users and tenants the sessions that count have, and the largest one's share of them."""
        largest = {"user": max(self._users_having, default=0), "tenant": max(self._of_tenant.values(), default=0)}
        return {
            "users": float(len(self._of_user)),
            "user_share": largest["user"] / max(1, self._num_counted),
            "tenants": float(len(self._of_tenant)),
            "tenant_share": largest["tenant"] / max(1, self._num_counted),
        }

    def _append(self, one: Begun) -> bool:
        """The next in order; whether it counts."""
        self._order.append(one)
        self._active_us += self._gap_us(len(self._order) - 1)
        self._met[one.tenant] += 1
        counts = self._has_place(one)
        self._counts.append(counts)
        if counts:
            self._credit(one, 1)
        return counts

    def _cut(self, at: int) -> list[tuple[Begun, bool]]:
        """Forget all from place `at` on, and which of them counted."""
        cut = list(zip(self._order[at:], self._counts[at:], strict=True))
        self._active_us -= sum(self._gap_us(place) for place in range(at, len(self._order)))
        for one, counts in cut:
            _add(self._met, one.tenant, -1)
            if counts:
                self._credit(one, -1)
        del self._order[at:], self._counts[at:]
        return cut

    def _has_place(self, one: Begun) -> bool:
        if self._of_user[one.who] >= self._max_units_per_user:
            return False
        share = max(self._max_tenant_share, min(1.0, 2.0 / len(self._met)))
        own = self._of_tenant[one.tenant]
        return own * (1.0 - share) <= share * (self._num_counted - own) + _ROUNDING

    def _credit(self, one: Begun, num: int) -> None:
        has = self._of_user[one.who]
        _add(self._users_having, has, -1)
        _add(self._users_having, has + num, 1)
        _add(self._of_user, one.who, num)
        _add(self._of_tenant, one.tenant, num)
        self._num_counted += num

    def _gap_us(self, place: int) -> int:
        """From the session before, in whole microseconds: sums of them are exact."""
        if place == 0:
            return 0
        gap_s = self._order[place].began_at - self._order[place - 1].began_at
        return min(self._idle_us, round(gap_s * _MICROSECONDS))


def _add(counter: Counter[Key], key: Key, num: int) -> None:
    """Keep no zeros: what a counter's length says is how many there are."""
    counter[key] += num
    if not counter[key]:
        del counter[key]
