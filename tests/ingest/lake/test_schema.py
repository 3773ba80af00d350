"""Which row of a thing that was told several times is shown."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.lake.manifest import Table
from ingest.lake.schema import AT, IDENTITY, SCHEMAS, frame, newest, newest_of

_TOLD = st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 3))  # which, when, which revision
_ORDERING = ("at", "revision", "offset")


def rows(table: Table, told: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    blank = {name: 0 if kind == AT else None for name, kind in SCHEMAS[table].items()}
    numbers = [name for name in IDENTITY[table].key if SCHEMAS[table][name].is_integer()]
    return [
        blank
        | {name: which if name in numbers else f"t{which}" for name in IDENTITY[table].key}
        | {name: value for name, value in zip(_ORDERING, (at, revision, offset), strict=True) if name in blank}
        for offset, (which, at, revision) in enumerate(told)
    ]


@pytest.mark.parametrize("table", Table)
@given(told=st.lists(_TOLD, max_size=12))
def test_rows_in_memory_are_told_as_those_in_files_are(table: Table, told: list[tuple[int, int, int]]) -> None:
    given_rows = frame(table, rows(table, told))
    found = newest_of(table, given_rows)
    assert found.equals(newest(table, given_rows.lazy()).collect())
    told_last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(given_rows.to_dicts(), key=lambda row: tuple(row[name] for name in IDENTITY[table].order)):
        told_last[tuple(row[name] for name in IDENTITY[table].key)] = row
    assert sorted(found["offset"]) == sorted(row["offset"] for row in told_last.values())
