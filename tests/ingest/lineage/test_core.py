"""What is told of versions and traces, on hand-made records."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from ingest.lineage.core import (
    Role,
    Seen,
    data_of,
    decisions_about,
    descendants_of,
    footprint,
    parents_of,
    serving_of,
    spread,
)
from ingest.records.events import Fate, FateKind, Release, ReleaseKind, TrialState, Version
from ingest.store import releases
from ingest.store.releases import Served

SESSION = "0" * 16


def version(number: int, parent: int | None = None, traces: tuple[str, ...] = (), **fields: object) -> Version:
    given = {
        "version": number,
        "digest": f"d{number}",
        "parent": parent,
        "parent_digest": None if parent is None else f"d{parent}",
        "files": (),
        "lineage": {"trace_ids": list(traces), "spec": "default/1"},
        "metrics": {},
        "created_at": float(number),
    }
    return Version.model_validate(given | fields)


def by_number(*versions: Version) -> dict[int, Version]:
    return {one.version: one for one in versions}


def release(number: int, stable: int, **fields: object) -> Release:
    given = {"release": number, "epoch": 1, "kind": ReleaseKind.TRIAL, "stable": stable, "reason": "why", "at": 0.0}
    return Release.model_validate(given | fields)


def test_parents_go_up_to_the_first_version_nearest_first() -> None:
    known = by_number(version(0), version(1, 0), version(2, 0), version(4, 2))
    parents, ends_early = parents_of(known[4], known)
    assert [parent.version for parent in parents] == [2, 0]
    assert ends_early == "" == parents_of(known[0], known)[1]


def test_a_parent_that_is_gone_ends_the_line_and_is_named() -> None:
    known = by_number(version(0), version(4, 2))
    assert parents_of(known[4], known) == ((), "version 4 names version 2 its parent, which is not there")


def test_a_parent_with_another_digest_than_its_child_says_is_no_parent() -> None:
    known = by_number(version(0, digest="other"), version(1, 0))
    parents, ends_early = parents_of(known[1], known)
    assert parents == () and "version 0 with digest d0; the one there has other" in ends_early


def test_a_version_that_names_a_later_one_its_parent_ends_the_line() -> None:
    known = by_number(version(1, 2), version(2, 1))
    assert [parent.version for parent in parents_of(known[2], known)[0]] == [1]


def test_descendants_are_of_every_generation_and_of_no_sibling() -> None:
    parents = {0: None, 1: 0, 2: 0, 3: 1, 4: 3, 5: 2}
    assert descendants_of([1], parents) == (1, 3, 4)
    assert descendants_of([], parents) == ()


def test_data_counts_each_session_once() -> None:
    other = "1" * 16
    data = data_of(version(1, 0, (f"{SESSION}-a", f"{SESSION}-b", f"{other}-a")))
    assert (len(data.trace_ids), data.num_sessions, data.spec) == (3, 2, "default/1")
    assert data.sessions_at is None and data.feedback_at is None
    noted = {"sessions_at.first": 1.0, "sessions_at.last": 2.0, "feedback_at.first": 3.0}
    data = data_of(version(1, 0, metrics=noted))
    assert (data.sessions_at, data.feedback_at) == ((1.0, 2.0), None)


BOOTSTRAP = release(0, 0, kind=ReleaseKind.BOOTSTRAP)
BEGUN = release(1, 0, candidate=1, state=TrialState.CANARY)
PROMOTED = release(2, 1, candidate=1, state=TrialState.PROMOTED, holdback=0)
NEXT = release(3, 1, candidate=2, state=TrialState.CANARY)
BACK = release(4, 0, kind=ReleaseKind.OPERATOR, author="ann")


def numbers(found: tuple[Release, ...]) -> list[int]:
    return [one.release for one in found]


def test_decisions_about_a_version_are_its_trial_and_what_put_it_in_and_out_of_service() -> None:
    log = [BOOTSTRAP, BEGUN, PROMOTED, NEXT, BACK]
    assert numbers(decisions_about(1, log)) == [1, 2, 4]
    assert numbers(decisions_about(0, log)) == [0, 2, 4]
    assert numbers(decisions_about(2, log)) == [3]
    assert decisions_about(9, log) == ()


def test_a_step_of_a_watch_is_about_the_version_that_is_held_back_too() -> None:
    step = release(3, 1, candidate=1, state=TrialState.PROMOTED, holdback=0, share=0.05)
    over = release(4, 1, candidate=1, state=TrialState.PROMOTED)
    assert numbers(decisions_about(0, [BOOTSTRAP, PROMOTED, step, over])) == [0, 2, 3]


def test_claims_announcements_turns_repetitions_and_a_fenced_writers_entries_decide_nothing() -> None:
    claim = release(3, 1, epoch=2, kind=ReleaseKind.CLAIM)
    announced = release(4, 9, epoch=2, kind=ReleaseKind.ANNOUNCED)
    turn = release(5, 1, epoch=2, kind=ReleaseKind.BLOCK, candidate=1, state=TrialState.PROMOTED)
    ramp = release(6, 1, epoch=2, kind=ReleaseKind.BLOCK, candidate=1, state=TrialState.CANARY, numbers={"log_e": 1.0})
    fenced = release(7, 0, candidate=1, state=TrialState.ROLLED_BACK)
    log = [BOOTSTRAP, BEGUN, BEGUN, PROMOTED, claim, announced, turn, ramp, fenced]
    assert numbers(decisions_about(1, log)) == [1, 2, 6], "a share that changes with a turn is decided"


def served(**fields: object) -> Served:
    engines: Mapping[str, int] = MappingProxyType({"a": 0, "b": 1, "c": 1})
    return releases.fold([BOOTSTRAP, BEGUN.model_copy(update={"engines": engines, **fields})])


@pytest.mark.parametrize(
    ("number", "role", "engines"),
    [(0, Role.STABLE, ("a",)), (1, Role.CANDIDATE, ("b", "c")), (2, Role.NONE, ())],
)
def test_where_a_version_serves_is_what_the_release_log_gives_the_engines(
    number: int, role: Role, engines: tuple[str, ...]
) -> None:
    found = serving_of(number, served())
    assert (found.role, found.engines) == (role, engines)


def test_a_version_held_back_is_told_so() -> None:
    watched = releases.fold([BOOTSTRAP, BEGUN, PROMOTED])
    assert (serving_of(0, watched).role, serving_of(1, watched).role) == (Role.HOLDBACK, Role.STABLE)


TRACE = f"{SESSION}-x"
KNOWN = by_number(version(0), version(1, 0, (TRACE,)), version(2, 1), version(3, 0))


def test_traces_are_in_all_versions_that_name_one_or_that_a_fate_names_and_in_what_descends() -> None:
    theirs = {f"{SESSION}-{n}": None for n in range(3)} | {f"{SESSION}-told": 7}
    other = version(4, 2, ("1" * 16 + "-0",))
    line = (
        version(0),
        version(1, 0, (f"{SESSION}-0", f"{SESSION}-9")),
        version(2, 1, (f"{SESSION}-1", f"{SESSION}-2")),
    )
    found = spread(theirs, iter((*line, version(3, 0, ("2" * 16 + "-0",)), other)))
    assert found.trained == {1: {f"{SESSION}-0"}, 2: {f"{SESSION}-1", f"{SESSION}-2"}, 7: {f"{SESSION}-told"}}
    assert found.versions == (1, 2, 4, 7)


def test_a_version_whose_manifest_was_exchanged_has_the_traces_of_both() -> None:
    announced, stored = version(1, 0, (f"{SESSION}-0",)), version(1, 0, (f"{SESSION}-1",))
    found = spread(dict.fromkeys((f"{SESSION}-0", f"{SESSION}-1")), [announced, stored])
    assert found.trained == {1: {f"{SESSION}-0", f"{SESSION}-1"}}


def fate(kind: FateKind, number: int | None = None, reason: str = "why") -> Fate:
    return Fate(trace_ids=(TRACE,), kind=kind, version=number, reason=reason, at=0.0)


def test_a_trace_is_in_the_version_it_trained_and_in_all_that_descend_from_it() -> None:
    found = footprint(TRACE, Seen.READABLE, fate(FateKind.TRAINED, 1), KNOWN.values(), served())
    assert found.trained == (1,)
    assert [(one.version, one.role) for one in found.serving] == [(1, Role.CANDIDATE), (2, Role.NONE)]
    assert found.told == "It trained version 1."


@pytest.mark.parametrize(
    ("known", "told"),
    [(KNOWN, None), ({0: KNOWN[0], 2: KNOWN[2]}, fate(FateKind.TRAINED, 1))],
    ids=["manifest", "fate"],
)
def test_a_manifest_or_a_fate_alone_tells_what_a_trace_trained(known: dict[int, Version], told: Fate | None) -> None:
    found = footprint(TRACE, Seen.NOWHERE, told, known.values(), served())
    assert (found.trained, [one.version for one in found.serving]) == ((1,), [1, 2])


@pytest.mark.parametrize(
    ("seen", "ended", "told"),
    [
        (Seen.READABLE, fate(FateKind.HELD_OUT), "It trained no version: it is held out, why."),
        (Seen.READABLE, None, "It trained no version, and has no fate yet."),
        (Seen.NOWHERE, None, "Nothing here knows it:"),
        (Seen.ERASED, fate(FateKind.REFUSED, reason="erased"), "refused, erased. Whom it is of was erased:"),
    ],
)
def test_a_trace_that_trained_nothing_says_why(seen: Seen, ended: Fate | None, told: str) -> None:
    found = footprint(f"{SESSION}-y", seen, ended, KNOWN.values(), served())
    assert found.trained == () == found.serving
    assert told in found.told


def test_an_erased_trace_still_tells_what_it_trained() -> None:
    found = footprint(TRACE, Seen.ERASED, None, KNOWN.values(), served())
    assert found.told.startswith("It trained version 1. Whom it is of was erased")
