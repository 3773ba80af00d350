"""What the router tells an engine of a request arrives there as it was."""

import pytest

from ingest.records.events import Arm, Assignment, Consent, Group, TurnKind
from serving import headers
from serving.headers import Identity


@pytest.mark.parametrize(
    "assignment",
    [
        Assignment(),
        Assignment(arm=Arm.CANDIDATE, trial=7, propensity=0.1),
        Assignment(arm=Arm.HOLDBACK, trial=7, propensity=0.1, block=0),
        Assignment(arm=Arm.CANDIDATE, trial=7, replay_of="t-1"),
        Assignment(replay_of="t-1", group=Group(size=4, propensity=0.1, anchor={"kürze": 0.25}, spec="s@1")),
    ],
)
def test_an_identity_arrives_as_it_was_sent(assignment: Assignment) -> None:
    sent = Identity("t-1", "s", "default", TurnKind.MAIN, assignment, Consent.GIVEN)
    written = headers.write(sent)
    assert headers.read(written) == sent
    assert all(value.isascii() for value in written.values()), "HTTP clients send no other"
    assert written.keys() <= {*headers.FROM_ROUTER, headers.SESSION, headers.TURN, headers.CONSENT}
