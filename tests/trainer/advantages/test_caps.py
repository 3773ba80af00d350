"""Shares of a batch after capping: worked by hand, and for any masses."""

from collections import defaultdict
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.advantages.caps import Capped, Owner, cap


def users(*masses: float) -> Capped:
    """One turn for each user, of one tenant."""
    return cap(masses, [Owner("t", str(n)) for n in range(len(masses))], 0.1, 1.0)


def test_a_heavy_user_is_scaled_until_the_cap_holds_of_what_is_left() -> None:
    """19 users of mass 1, one of 81: L = 0.1 (L + 19), L = 19 / 9."""
    found = users(*[1.0] * 19, 81.0)
    assert found.factors == pytest.approx([1.0] * 19 + [19 / 9 / 81])
    assert (found.user_cap, found.user_share, found.user_share_before) == pytest.approx((0.1, 0.1, 0.81))


def test_two_heavy_users_are_both_brought_to_the_level() -> None:
    """18 users of mass 1, of 50 and of 30: L = 0.1 (2 L + 18), L = 2.25."""
    found = users(*[1.0] * 18, 50.0, 30.0)
    assert found.factors[-2:] == pytest.approx([2.25 / 50, 2.25 / 30])


def test_nobody_is_scaled_where_the_cap_holds_already() -> None:
    assert users(*[1.0, 2.0] * 15).factors == (1.0,) * 30


def test_what_rounding_made_of_nothing_is_nobodys_mass() -> None:
    found = users(4e-17, 4e-17, 5.7)
    assert found.factors == (1.0, 1.0, 1.0) and found.num_users == 1


def test_of_few_users_nobody_has_more_than_twice_an_equal_share() -> None:
    """Five users: the cap is 2 / 5, L = 0.4 (L + 4), L = 8 / 3."""
    found = users(1.0, 1.0, 1.0, 1.0, 96.0)
    assert found.user_cap == pytest.approx(0.4) and found.factors[-1] == pytest.approx(8 / 3 / 96)


@pytest.mark.parametrize("masses", [(), (7.0,), (1.0, 99.0), (0.0, 5.0), (0.0, 0.0)])
def test_with_two_users_or_fewer_there_is_no_cap_and_it_is_told(masses: tuple[float, ...]) -> None:
    found = users(*masses)
    assert found.factors == (1.0,) * len(masses) and found.user_cap == 1.0
    assert found.num_users == sum(mass > 0 for mass in masses)


def test_all_turns_of_a_user_are_scaled_alike() -> None:
    owners = [Owner("t", "heavy"), Owner("t", "heavy"), *(Owner("t", str(n)) for n in range(19))]
    found = cap([60.0, 21.0, *[1.0] * 19], owners, 0.1, 1.0)
    assert found.factors[:2] == pytest.approx([19 / 9 / 81] * 2)


def test_a_tenant_is_capped_through_its_users() -> None:
    """Four tenants of ten users each; one has 70 of 100. With cap 0.5, L = 0.5 (L + 30), L = 30."""
    owners = [Owner(tenant, str(n)) for tenant in "abcd" for n in range(10)]
    found = cap([7.0] * 10 + [1.0] * 30, owners, 0.1, 0.5)
    assert found.factors == pytest.approx([3 / 7] * 10 + [1.0] * 30)
    assert (found.tenant_cap, found.tenant_share, found.num_tenants) == pytest.approx((0.5, 0.5, 4))


def test_a_tenants_cap_gives_way_where_the_users_cap_leaves_no_room() -> None:
    """Two tenants of one user and one of many: at most 0.1 each are not enough beside half."""
    owners = [Owner("a", "x"), Owner("b", "y"), *(Owner("c", str(n)) for n in range(98))]
    found = cap([1.0] * 100, owners, 0.1, 0.5)
    assert found.tenant_cap == 1.0 and found.factors == (1.0,) * 100


TURNS = st.lists(
    st.tuples(st.floats(1e-3, 1e3), st.sampled_from("abc"), st.integers(0, 12).map(str)), min_size=1, max_size=80
)
SHARES = st.floats(0.02, 1.0)


@given(TURNS, SHARES, SHARES)
def test_after_capping_no_user_and_no_tenant_has_more_than_the_cap_in_force(
    turns: list[tuple[float, str, str]], max_user: float, max_tenant: float
) -> None:
    masses, owners = [mass for mass, _, _ in turns], [Owner(tenant, user) for _, tenant, user in turns]
    found = cap(masses, owners, max_user, max_tenant)
    assert all(0.0 < factor <= 1.0 for factor in found.factors)
    left = [mass * factor for mass, factor in zip(masses, found.factors, strict=True)]
    of_user, of_tenant = defaultdict[Owner, float](float), defaultdict[str, float](float)
    for mass, owner in zip(left, owners, strict=True):
        of_user[owner] += mass
        of_tenant[owner.tenant] += mass
    assert max(of_user.values()) / sum(left) == pytest.approx(found.user_share)
    assert max(of_tenant.values()) / sum(left) == pytest.approx(found.tenant_share)
    assert found.user_share <= found.user_cap * (1 + 1e-9) and found.tenant_share <= found.tenant_cap * (1 + 1e-9)
    assert found.user_cap == pytest.approx(min(1.0, max(max_user, 2 / len(of_user))))
    assert found.tenant_cap >= max_tenant


@given(TURNS, SHARES)
def test_no_user_is_cut_below_the_median_user(turns: list[tuple[float, str, str]], max_user: float) -> None:
    owners = [Owner("t", user) for _, _, user in turns]
    found = cap([mass for mass, _, _ in turns], owners, max_user, 1.0)
    held = defaultdict[Owner, float](float)
    for (mass, _, _), owner in zip(turns, owners, strict=True):
        held[owner] += mass
    factors = dict(zip(owners, found.factors, strict=True))
    assert all(held[owner] * factor >= min(held[owner], median(held.values())) * (1 - 1e-9)
               for owner, factor in factors.items())  # fmt: skip


@given(TURNS, SHARES, SHARES, st.floats(1e-3, 1e3))
def test_only_shares_matter_and_not_the_scale(
    turns: list[tuple[float, str, str]], max_user: float, max_tenant: float, scale: float
) -> None:
    owners = [Owner(tenant, user) for _, tenant, user in turns]
    one, other = (cap([mass * by for mass, _, _ in turns], owners, max_user, max_tenant) for by in (1.0, scale))
    assert one.factors == pytest.approx(other.factors)
