"""A pseudonym is always the same, and nobody else's."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from ingest.privacy.generations import check_subject
from ingest.privacy.pseudonyms import subject_of, user_pseudonym
from ingest.privacy.secret import Secret
from ingest.records.events import session_key

SECRET = Secret.parse("0f" * 32, "test")
tenants = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", fullmatch=True)
people = st.tuples(tenants, st.text(st.characters(), min_size=1))


def test_a_pseudonym_is_the_hmac_of_tenant_and_user() -> None:
    expected = hmac.new(SECRET.pseudonyms, b"acme\0anna@example.org", hashlib.sha256).hexdigest()[:32]
    assert user_pseudonym(SECRET, "acme", "anna@example.org") == expected


def test_no_user_has_no_pseudonym() -> None:
    assert user_pseudonym(SECRET, "acme", "") == ""


@given(people, people)
def test_two_people_have_two_pseudonyms(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (user_pseudonym(SECRET, *one) == user_pseudonym(SECRET, *other)) == (one == other)


@given(people)
def test_another_secret_gives_another_pseudonym(person: tuple[str, str]) -> None:
    assert user_pseudonym(SECRET, *person) != user_pseudonym(Secret.parse("0e" * 32, "test"), *person)


@given(tenants, st.text())
def test_users_sessions_and_tenants_are_subjects_and_never_the_same_one(tenant: str, session: str) -> None:
    user = user_pseudonym(SECRET, tenant, "anna")
    found = [subject_of(user, tenant), subject_of("", tenant, session_key(session)), subject_of("", tenant)]
    assert len(set(found)) == 3
    for subject in found:
        check_subject(subject)


def test_a_user_is_the_subject_also_of_what_names_a_session() -> None:
    assert subject_of("ab12", "acme", "session") == subject_of("ab12", "acme")
