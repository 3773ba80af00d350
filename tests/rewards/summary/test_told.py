"""How a value stands to what a history told."""

import pytest

from rewards.summary.told import Standing, Told

TOLD = Told(
    [
        "Our total budget is 4,200 EUR. The deposit for the boat is 600 EUR.",
        "Please ask Ingrid Solberg for the review of the module.",
        "Jonas Weber wants a copy of the invoice.",
        "We still need travel insurance. TODO: print the luggage labels.",
        "The luggage labels are printed and done.",
    ]
)


def standing(text: str) -> Standing:
    (mention,) = (mention for statement in TOLD.read(text) for mention in statement.mentions)
    return TOLD.standing(mention)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The budget is 4,200 EUR.", Standing.HELD),
        ("Deposit: 600 EUR.", Standing.HELD),
        ("The budget is 5,100 EUR.", Standing.WRONG),  # another value
        ("The budget is 600 EUR.", Standing.WRONG),  # the deposit's
        ("The review of the module is for Jonas Weber.", Standing.WRONG),
        ("They can spend 4,200 EUR overall.", Standing.UNBOUND),
        ("The ferry costs 80 EUR.", Standing.UNKNOWN),
        ("4,200 EUR", Standing.BARE),
    ],
)
def test_a_value_stands_by_the_words_that_it_is_bound_to(text: str, expected: Standing) -> None:
    assert standing(text) is expected


def test_a_task_that_was_done_later_is_not_open() -> None:
    assert [task.text for task in TOLD.open_tasks] == ["We still need travel insurance."]


def test_a_claim_is_supported_by_a_statement_with_most_of_its_words() -> None:
    supported, invented = TOLD.read("The invoice is copied for someone. The harbour closes in winter storms.")
    assert TOLD.supports(supported.words)
    assert not TOLD.supports(invented.words)
