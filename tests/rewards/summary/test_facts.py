"""What is read of a text: values written alike, and the words they are bound to."""

import pytest

from rewards.summary.atoms import Atom, AtomKind
from rewards.summary.facts import read


def values(text: str) -> set[tuple[str, str, str]]:
    return {(m.atom.kind.value, m.atom.value, m.atom.unit) for s in read(text) for m in s.mentions}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It costs 1,200.50 EUR.", ("number", "1200.5", "eur")),
        ("It costs €1200.5 in all.", ("number", "1200.5", "eur")),
        ("He waits two hours.", ("number", "2", "h")),
        ("It needs 88 seconds.", ("number", "88", "s")),
        ("We ran 12 tests.", ("number", "12", "test")),
        ("port = 9232", ("number", "9232", "")),
        ("We met on May 12 there.", ("date", "05-12", "")),
        ("Due 2026-05-12.", ("date", "05-12", "")),
        ("It is on 12 May again.", ("date", "05-12", "")),
        ("Come at 2 pm then.", ("time", "14:00", "")),
        ("Come at 14:00 then.", ("time", "14:00", "")),
        ("httplib==2.3.4", ("version", "2.3.4", "")),
        ("It runs v2.3.4 now.", ("version", "2.3.4", "")),
        ("See src/auth/session.py first.", ("path", "src/auth/session.py", "")),
        ("See `src/auth/session.py` first.", ("path", "src/auth/session.py", "")),
        ("Call refresh_token here.", ("identifier", "refresh_token", "")),
        ("My order is KX-4821-B, please.", ("identifier", "KX-4821-B", "")),
        ('The lamp "Aurora 3" broke.', ("quoted", "aurora 3", "")),
        ("Please ask Ingrid Solberg.", ("name", "ingrid solberg", "")),
        ("Please book Dr. Okafor again.", ("name", "dr. okafor", "")),
        ("It is at https://a.b/c?d=1.", ("url", "https://a.b/c?d=1", "")),
    ],
)
def test_a_value_is_written_as_others_that_mean_the_same(text: str, found: tuple[str, str, str]) -> None:
    assert found in values(text)


@pytest.mark.parametrize("text", ["Read and/or write.", "He has 3.", "Some thought was given to it.", "Then it ended."])
def test_what_says_nothing_definite_is_no_value(text: str) -> None:
    assert values(text) == set()


def test_a_value_is_near_the_words_of_its_clause_only() -> None:
    (statement,) = read("The budget is 4,200 EUR and the deposit is 600 EUR.")
    assert [sorted(mention.near) for mention in statement.mentions] == [["budget"], ["deposi"]]


def test_values_in_a_row_go_with_the_words_before_them() -> None:
    (statement,) = read("Files changed: lib/a.py, lib/b.py")
    assert all({"fil", "chang"} <= mention.near for mention in statement.mentions)


def test_keywords_in_a_row_bind_nothing() -> None:
    (statement,) = read(
        "Keywords: order, parcel, voucher, gift, KX-4821-B, lamp, 84.50 EUR, neighbour, photos, courier, refund, box"
    )
    assert statement.is_list
    assert [mention.near for mention in statement.mentions] == [frozenset(), frozenset()]


@pytest.mark.parametrize(
    "text",
    [
        "Files changed: a.py, b.py, c.py, d.py, e.py, f.py, g.py",
        "Order KX-4821-B, double charge 84.50 EUR, voucher 20 EUR, lamp broken, parcel late, neighbour Carla Mendes",
        "We leave on May 12, stay for a week, see the old town, and return by train.",
    ],
)
def test_terse_notes_are_no_list_of_keywords(text: str) -> None:
    (statement,) = read(text)
    assert not statement.is_list
    assert all(mention.near for mention in statement.mentions)


def test_a_title_does_not_end_a_sentence() -> None:
    assert len(read("Please book Dr. Okafor again. Thanks.")) == 2


def test_a_name_may_begin_a_sentence_only_when_it_is_known() -> None:
    assert values("Jonas is allergic.") == set()
    (statement,) = read("Jonas is allergic.", {"jonas"})
    assert [mention.atom for mention in statement.mentions] == [Atom(AtomKind.NAME, "jonas")]


@pytest.mark.parametrize(
    "text",
    ["TODO: print the labels.", "- [ ] warm the caches", "We still need insurance.", "Remaining: a complaint.",
     "Next step: warm the caches.", "Later we must print it.", "You also have to sign.", "It is not yet done."],
)  # fmt: skip
def test_an_open_task_is_recognised(text: str) -> None:
    assert read(text)[0].is_open


@pytest.mark.parametrize("text", ["We must be back by then.", "It is done.", "I read the next one.", "He is still."])
def test_ordinary_words_are_no_open_task(text: str) -> None:
    assert not read(text)[0].is_open


@pytest.mark.parametrize("text", ["We decided on ferries.", "Use a lock instead of a semaphore.", "Agreed: no car."])
def test_a_decision_is_recognised(text: str) -> None:
    assert read(text)[0].is_decision


@pytest.mark.parametrize("text", ["Everything is finished.", "Nothing is left to do.", "There are no open tasks."])
def test_that_all_is_done_is_recognised(text: str) -> None:
    assert read(text)[0].says_all_is_done


@pytest.mark.parametrize("text", ["1-" * 20_000, "a b" * 20_000, " " * 50_000, 'x["k"]=1;' * 5_000])
def test_a_line_longer_than_any_sentence_is_read_in_pieces(text: str) -> None:
    """What a pattern takes may grow with the square of what it is given: it is given no more than this."""
    assert all(len(statement.text) <= 800 for statement in read(text))
